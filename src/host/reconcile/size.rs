//! Sizes: what was requested, what is confirmed, and what is billed of the two.

use crate::units::{Bytes, MilliCpu};
use serde::{Deserialize, Serialize};

/// What a book charges for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Size {
    /// Memory, in whole MiB.
    pub memory_mib: u64,
    /// CPU entitlement.
    pub cpu: MilliCpu,
}

/// What the platform asked for. `None` is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Requested {
    /// Boot memory + what virtio-mem is to give, in whole MiB.
    pub memory_mib: Option<u64>,
    /// CPU entitlement.
    pub cpu: Option<MilliCpu>,
}

/// What somebody who can see it says the VM has. `None` is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Confirmed {
    /// Boot memory + what virtio-mem has given.
    pub memory: Option<Bytes>,
    /// CPU entitlement.
    pub cpu: Option<MilliCpu>,
}

/// A MiB.
const MIB: u64 = 1 << 20;

impl Confirmed {
    /// Memory in whole MiB, rounded down.
    #[must_use]
    pub fn memory_mib(&self) -> Option<u64> {
        self.memory.map(|memory| memory.0 / MIB)
    }

    /// What is known of either, this one's word first.
    pub(super) fn or(self, other: Self) -> Self {
        Self { memory: self.memory.or(other.memory), cpu: self.cpu.or(other.cpu) }
    }
}

impl Size {
    /// What is billed: what is confirmed, at most what was requested. Where nothing confirms it, the request; without
    /// a CPU request, a share by memory.
    #[must_use]
    pub fn billed(requested: Requested, confirmed: Confirmed) -> Self {
        let memory_mib = least(requested.memory_mib, confirmed.memory_mib()).unwrap_or(0);
        let cpu = least(requested.cpu, confirmed.cpu);
        Self { memory_mib, cpu: cpu.unwrap_or_else(|| derived_cpu(memory_mib)) }
    }
}

/// `max(100, memory_mib · 100 / 1024)` percent of a vCPU.
#[must_use]
pub fn derived_cpu(memory_mib: u64) -> MilliCpu {
    let percent = (memory_mib.saturating_mul(100) / 1024).max(100);
    MilliCpu(percent.saturating_mul(10))
}

fn least<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confirmed_bills_up_to_the_request() {
        let requested = Requested { memory_mib: Some(4096), cpu: Some(MilliCpu(2000)) };
        let has = |mib, cpu| Confirmed { memory: Some(Bytes::mib(mib)), cpu: Some(MilliCpu(cpu)) };
        let billed = |mib, cpu| Size { memory_mib: mib, cpu: MilliCpu(cpu) };
        assert_eq!(Size::billed(requested, has(1024, 1000)), billed(1024, 1000));
        assert_eq!(Size::billed(requested, has(8192, 4000)), billed(4096, 2000));
        assert_eq!(Size::billed(Requested::default(), has(8192, 4000)), billed(8192, 4000));
    }

    #[test]
    fn without_confirmation_the_request_and_a_share_by_memory() {
        for (mib, cpu) in [(512, 1000), (1024, 1000), (1536, 1500), (4096, 4000), (16384, 16000)] {
            let requested = Requested { memory_mib: Some(mib), cpu: None };
            let billed = Size::billed(requested, Confirmed::default());
            assert_eq!(billed, Size { memory_mib: mib, cpu: MilliCpu(cpu) });
        }
    }
}
