//! What a guest's word is worth: whose it is, whether it can be, what it adds, and how the books compare after it.

use super::authority;
use super::bounds;
use super::evidence::{Claim, Segment, Totals};
use super::life::{Last, Life};
use super::lifecycle;
use super::policy::Policy;
use super::state::{Boot, State};
use super::verdict::{Books, Found, GapCause, Plug, Verdict};
use crate::meter::{ACTIVE_UNIT, CPU_UNIT, MEMORY_UNIT};
use crate::units::{ByteNanos, Bytes, Nanos};
use crate::wire::message::Id;

/// A report: found what is wrong with it, it is credited unless that blocks it.
pub(super) fn claim(state: &mut State, claim: &Claim, policy: &Policy, found: &mut Found) {
    reset(state, claim, found);
    if claim.epoch == Id::default() {
        return unnamed(state, claim, found);
    }
    let Some(index) = state.index_of(claim.epoch) else {
        return found.push(Verdict::StaleEpoch { raised: Nanos::ZERO });
    };
    let Some(life) = state.lives.get(index) else { return };
    if let Some(impossible) = bounds::impossible(state.limits, life, claim, policy) {
        return found.push(Verdict::Impossible(impossible));
    }
    if let Some(behind) = behind(state, index, claim) {
        return found.push(Verdict::Rollback { behind, named: false });
    }
    if claim.rebased && life.last.is_none() {
        found.push(Verdict::Rollback { behind: Totals::default(), named: true });
    }
    if !state.is_last(index) {
        return stale(state, index, claim, policy, found);
    }
    if is_known(life, claim) {
        return found.push(Verdict::Duplicate);
    }
    let jumped = claim.jumped && !life.last.is_some_and(|last| last.jumped);
    gaps(state, claim, life.last.is_none(), found);
    if jumped {
        found.push(Verdict::Gap { cause: GapCause::Pause, active: Nanos::ZERO });
    }
    credit_claim(state, index, claim, policy);
    plug(state, index, claim.size.memory, claim.received, policy, found);
    compare(state, index, claim, policy, found);
}

/// A stretch told late raises its epoch's maximum, and confirms nothing.
pub(super) fn segment(state: &mut State, segment: &Segment, policy: &Policy, found: &mut Found) {
    let Some(index) = state.index_of(segment.epoch) else {
        return found.push(Verdict::StaleEpoch { raised: Nanos::ZERO });
    };
    let (before, after) = state.retell(index, policy, |life| {
        // Cut to the interval only when that is asked for: its end may move yet.
        let counted = segment.usage.active.saturating_sub(life.offset);
        life.end_credit.0 = life.end_credit.0.max(counted);
        if segment.last {
            life.end_credit.1 = life.end_credit.1.min(counted);
        }
    });
    if !state.is_last(index) {
        found.push(Verdict::StaleEpoch { raised: after.saturating_sub(before) });
    }
    if after == before {
        found.push(Verdict::Duplicate);
    }
}

/// Whether this boot is new to the sandbox.
fn reset(state: &State, claim: &Claim, found: &mut Found) {
    if found.unheard {
        return;
    }
    let known = state.boots.iter().any(|boot| boot.id == claim.boot_id);
    if !known && !state.boots.is_empty() {
        found.push(Verdict::Reset { boot_id: claim.boot_id });
    }
}

/// Nobody has named it: it is evidence of nothing but that it runs.
fn unnamed(state: &mut State, claim: &Claim, found: &mut Found) {
    found.push(Verdict::Gap { cause: GapCause::Unnamed, active: claim.in_epoch().active });
    let mark = state.boots.iter().find(|boot| boot.id == claim.boot_id).map(|boot| boot.mark);
    if let Some(behind) = mark.and_then(|mark| shortfall(&mark, &claim.usage)) {
        found.push(Verdict::Rollback { behind, named: false });
    }
    let boot = state.take_boot(claim.boot_id);
    state.put_boot(boot);
    if let Some(life) = state.open_at(claim.received).and_then(|index| state.lives.get_mut(index)) {
        life.ran_at = life.ran_at.max(claim.received);
        life.paused_at = None;
    }
}

/// How far the counters are behind what the host knows they have been: the guest is an older copy of itself.
fn behind(state: &State, index: usize, claim: &Claim) -> Option<Totals> {
    let life = state.lives.get(index)?;
    // An epoch's base never moves: this is another life, which a late `Resume` gave the same name.
    if let Some(last) = life.last.filter(|last| last.base != claim.base.active) {
        return Some(last.counted.since(&claim.in_epoch()));
    }
    let asked = claim.asked?;
    if let Some(last) = &life.last
        && last.received <= asked
        && (claim.seq <= last.seq || shortfall(&last.counted, &claim.in_epoch()).is_some())
    {
        return Some(last.counted.since(&claim.in_epoch()));
    }
    // The guest has answered to a later name before it was asked for this.
    let later = state.lives.get(index + 1..)?.iter().filter_map(|life| life.last.as_ref());
    let mark = state.boots.iter().find(|boot| boot.id == claim.boot_id)?.mark;
    if later.into_iter().any(|last| last.received <= asked) {
        return Some(mark.since(&claim.usage));
    }
    let named_now = life.last.is_none() && state.is_last(index);
    shortfall(&mark, &claim.usage).filter(|_| named_now)
}

/// How far counters are behind `mark`. Less than a unit of each is none: a cut drops what was carried.
fn shortfall(mark: &Totals, usage: &Totals) -> Option<Totals> {
    let behind = mark.since(usage);
    let carried = behind.active.0 < ACTIVE_UNIT
        && behind.memory.0 < u128::from(MEMORY_UNIT)
        && behind.cpu.0 < u128::from(CPU_UNIT);
    (!carried).then_some(behind)
}

/// Whether it says nothing that an accepted claim has not said.
fn is_known(life: &Life, claim: &Claim) -> bool {
    life.last.as_ref().is_some_and(|last| {
        claim.received <= life.anchor
            || (claim.seq <= last.seq && claim.in_epoch().active <= last.counted.active)
    })
}

/// Of an epoch that another has followed: it can raise its maximum, within its interval.
fn stale(state: &mut State, index: usize, claim: &Claim, policy: &Policy, found: &mut Found) {
    let Some(end) = state.lives.get(index).and_then(|life| life.end) else { return };
    let (before, after) = state.retell(index, policy, |life| after_end(life, claim, end.at));
    found.push(Verdict::StaleEpoch { raised: after.saturating_sub(before) });
}

/// A claim from beyond the end: the count at the end is at most what it says, and at least that without the time since.
fn after_end(life: &mut Life, claim: &Claim, end: Nanos) {
    let counted = claim.in_epoch().active.saturating_sub(life.offset);
    let beyond = claim.received.saturating_sub(end);
    let least = counted.saturating_sub(beyond);
    life.end_credit = (life.end_credit.0.max(least), life.end_credit.1.min(counted));
}

/// Credits a claim of the latest life.
fn credit_claim(state: &mut State, index: usize, claim: &Claim, policy: &Policy) {
    let at = claim.received;
    let mut boot = state.take_boot(claim.boot_id);
    boot.mark = boot.mark.max(&claim.usage);
    boot.dropped = claim.dropped;
    boot.segments_dropped = claim.segments_dropped;
    boot.named = true;
    state.put_boot(boot);
    lifecycle::answered(state, index, at, claim.checkpoint);
    let counted = claim.in_epoch();
    lifecycle::began(state, index, at, counted.active, policy);
    let Some(life) = state.lives.get_mut(index) else { return };
    if life.last.is_none() {
        life.offset = counted.active.saturating_sub(at.saturating_sub(life.from));
    }
    if claim.jumped && !life.last.is_some_and(|last| last.jumped) {
        life.unannounced = life.unannounced.saturating_add(1);
    }
    let asked = claim.asked.or(life.last.map(|last| last.asked)).unwrap_or(life.from);
    let base = claim.base.active;
    life.last = Some(Last { seq: claim.seq, asked, received: at, counted, base, jumped: claim.jumped });
    life.ran_at = life.ran_at.max(at);
    if let Some(end) = life.end
        && at > end.at
    {
        after_end(life, claim, end.at);
    } else {
        life.paused_at = None;
        let before = life.confirmed;
        authority::guest_confirms(life, at, claim.size);
        let changed = life.confirmed != before;
        if changed {
            state.post_rows(index);
        }
        let Some(life) = state.lives.get(index) else { return };
        state.settle(index, at, life.credit_of(counted.active, at));
    }
    state.post_pending(index, policy);
}

/// What the guest left out since the last report of its boot.
fn gaps(state: &State, claim: &Claim, first: bool, found: &mut Found) {
    if found.unheard {
        return;
    }
    let mut gap = |cause, active| found.push(Verdict::Gap { cause, active });
    let known = state.boots.iter().find(|boot| boot.id == claim.boot_id && boot.named);
    let before = known.copied().unwrap_or(Boot { dropped: claim.dropped_base, ..Boot::default() });
    let at_resume = claim.dropped_base.saturating_sub(before.dropped);
    if first && at_resume > Nanos::ZERO {
        gap(GapCause::Resume, at_resume);
    }
    let since = claim.dropped.saturating_sub(before.dropped.max(claim.dropped_base));
    if since > Nanos::ZERO {
        gap(if claim.restarted || known.is_none() { GapCause::Start } else { GapCause::Cap }, since);
    }
    if claim.segments_dropped > before.segments_dropped {
        gap(GapCause::SegmentsLost, Nanos::ZERO);
    }
}

/// Plugged against requested, and whether what is billed has a price.
pub(super) fn plug(
    state: &State,
    index: usize,
    plugged: Option<Bytes>,
    at: Nanos,
    policy: &Policy,
    found: &mut Found,
) {
    let Some(life) = state.lives.get(index).filter(|_| !found.unheard) else { return };
    if let (Some(requested_mib), Some(plugged)) = (life.requested().memory_mib, plugged) {
        let plugged_mib = plugged.0 / Bytes::MIB.0;
        let since = at.saturating_sub(life.requested_at.max(life.from));
        let plug = Plug { requested_mib, plugged_mib, since };
        if requested_mib.abs_diff(plugged_mib) >= policy.block_mib {
            found.push(match () {
                () if since <= policy.settle => Verdict::PlugPending(plug),
                () if plugged_mib < requested_mib => Verdict::PlugPartial(plug),
                () => Verdict::PlugExcess(plug),
            });
        }
    }
    let memory_mib = life.size_at(at).memory_mib;
    if !policy.tiers_mib.is_empty() && !policy.tiers_mib.contains(&memory_mib) {
        found.push(Verdict::OffTier { memory_mib });
    }
}

/// Both books of the epoch, up to this claim.
fn compare(state: &State, index: usize, claim: &Claim, policy: &Policy, found: &mut Found) {
    let Some(life) = state.lives.get(index).filter(|_| !found.unheard) else { return };
    let host = life.host_at(life.until(claim.received));
    let mut guest = claim.in_epoch();
    guest.active = guest.active.saturating_sub(life.offset);
    let tolerance = policy.tolerance().of(host.active, life.unannounced);
    // What the guest counted before the host's interval has no memory and CPU of its own to be taken out.
    let whole = life.offset == Nanos::ZERO;
    let apart = Bytes::mib(life.size_at(claim.received).memory_mib) * tolerance;
    let less = |one: ByteNanos, other: ByteNanos| {
        let by = other.saturating_sub(one);
        whole && by > apart && by > policy.share(host.memory)
    };
    let low = guest.active.saturating_add(tolerance) < host.active || less(guest.memory, host.memory);
    let high = host.active.saturating_add(tolerance) < guest.active || less(host.memory, guest.memory);
    let books = Books { host, guest, tolerance };
    if low {
        found.push(Verdict::GuestLow(books));
    }
    if high {
        found.push(Verdict::GuestHigh(books));
    }
    if !low && !high {
        found.push(Verdict::Agree);
    }
}
