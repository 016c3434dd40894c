//! Whose word holds for the size: growth bills from its confirmation, shrink from its request.

use super::life::{Life, Step};
use super::policy::Policy;
use super::size::{Confirmed, Requested, Size};
use crate::units::Nanos;

/// The platform asked for another size at `at`: less holds from now on, more once it is confirmed.
pub(super) fn request(life: &mut Life, at: Nanos, requested: Requested) {
    if requested != life.requested() {
        life.requested_at = at;
    }
    let size = Size::billed(requested, life.confirmed);
    life.step(at, requested, size);
}

/// The guest says at `at` what it has. Where the VMM has just spoken, its word on memory stands.
pub(super) fn guest_confirms(life: &mut Life, at: Nanos, mut said: Confirmed) {
    if at <= life.vmm_until {
        said.memory = None;
    }
    confirm(life, at, said);
}

/// The VMM says at `at` what it has given. How much CPU a guest is entitled to it cannot see, only the most it can be.
pub(super) fn vmm_confirms(life: &mut Life, at: Nanos, said: Confirmed, policy: &Policy) {
    if said.memory.is_some() {
        life.vmm_until = at.saturating_add(policy.settle).saturating_add(policy.poll);
    }
    let cpu = if life.last.is_none() { said.cpu } else { None };
    confirm(life, at, Confirmed { cpu, ..said });
}

/// From here back to the last confirmation, sizes can be told anew:
/// the first one applies back to the start; more holds from now on; less holds from the request that asked for it,
/// and where nothing did, from the last confirmation.
fn confirm(life: &mut Life, at: Nanos, said: Confirmed) {
    let before = life.confirmed;
    let after = said.or(before);
    let settled = life.settled();
    life.confirmed = after;
    life.confirmed_at = at.max(life.confirmed_at);
    if after == before {
        return;
    }
    let steps = std::mem::take(&mut life.steps);
    let (kept, open) = divide(&steps, settled);
    life.steps = kept;
    for (index, step) in open.iter().enumerate() {
        let later = open.get(index..).unwrap_or_default();
        let holds = Confirmed {
            memory: held(before.memory, after.memory, asked_less(later, |asked| asked.memory_mib)),
            cpu: held(before.cpu, after.cpu, asked_less(later, |asked| asked.cpu)),
        };
        life.step(step.at, step.requested, Size::billed(step.requested, holds));
    }
    let requested = life.requested();
    life.step(at, requested, Size::billed(requested, after));
}

/// Steps up to `settled`, and those from there on; the one that holds there begins the latter.
fn divide(steps: &[Step], settled: Nanos) -> (Vec<Step>, Vec<Step>) {
    let (kept, later): (Vec<Step>, Vec<Step>) = steps.iter().partition(|step| step.at <= settled);
    let holds = kept.last().map(|step| Step { at: settled.max(step.at), ..*step });
    (kept, holds.into_iter().chain(later).collect())
}

/// What held between two confirmations.
fn held<T: Ord + Copy>(before: Option<T>, after: Option<T>, asked: bool) -> Option<T> {
    match (before, after) {
        (Some(before), Some(after)) if after < before && !asked => Some(after),
        (Some(before), _) => Some(before),
        (None, after) => after,
    }
}

/// Whether less was requested after the first of these steps began.
fn asked_less<T: Ord + Copy>(steps: &[Step], of: impl Fn(&Requested) -> Option<T>) -> bool {
    steps.windows(2).any(|pair| {
        let [before, after] = pair else { return false };
        matches!((of(&before.requested), of(&after.requested)), (Some(before), Some(after)) if after < before)
    })
}
