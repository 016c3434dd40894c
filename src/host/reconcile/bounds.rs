//! What no VM can have done: the host's clock and the VMM's limits bound every claim.

use super::evidence::Claim;
use super::life::Life;
use super::policy::Policy;
use super::verdict::Impossible;
use crate::units::{Bytes, MilliCpu, Nanos};
use serde::{Deserialize, Serialize};

/// The most a VM can have, as far as its VMM has said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Limits {
    pub memory: Option<Bytes>,
    pub vcpus: Option<u32>,
}

impl Limits {
    /// Devices can be added to a VM, so the greater limit holds.
    pub fn raise(&mut self, memory: Option<Bytes>, vcpus: Option<u32>) {
        self.memory = self.memory.max(memory);
        self.vcpus = self.vcpus.max(vcpus);
    }
}

/// What is impossible about `claim`, coming after what `life` has accepted.
pub(super) fn impossible(limits: Limits, life: &Life, claim: &Claim, policy: &Policy) -> Option<Impossible> {
    if let (Some(limit), Some(claimed)) = (limits.memory, claim.size.memory)
        && claimed > limit
    {
        return Some(Impossible::Memory { claimed, limit });
    }
    let cpu_limit = limits.vcpus.map(|vcpus| MilliCpu(u64::from(vcpus) * 1000));
    if let (Some(limit), Some(claimed)) = (cpu_limit, claim.size.cpu)
        && claimed > limit
    {
        return Some(Impossible::Cpu { claimed, limit });
    }
    let (claimed, limit) = time(life, claim, policy)?;
    (claimed > limit).then_some(Impossible::Time { claimed, limit })
}

/// Guest time since the last accepted claim, and the most that can have been: from sending the request that fetched
/// that one to receiving this one. A first claim is held against the life's own start, which the platform and the
/// guest do not date alike; one that was named while it ran has no start to be held against.
fn time(life: &Life, claim: &Claim, policy: &Policy) -> Option<(Nanos, Nanos)> {
    let counted = claim.in_epoch().active;
    match &life.last {
        Some(last) => Some((
            counted.saturating_sub(last.counted.active),
            policy.stretched(claim.received.saturating_sub(last.asked)),
        )),
        None if life.adopted => None,
        None => {
            let leeway = policy.silence().saturating_add(policy.cap);
            let limit = policy.stretched(claim.received.saturating_sub(life.from));
            Some((counted, limit.saturating_add(leeway)))
        }
    }
}
