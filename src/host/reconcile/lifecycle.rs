//! The edges of lives: opened and closed by the platform's word, or by what shows that they must have been.

use super::authority;
use super::evidence::{Call, Lifecycle, Minted};
use super::life::{End, EndBy, Life};
use super::policy::Policy;
use super::size::{Requested, Size};
use super::state::State;
use super::verdict::{Found, Verdict};
use crate::units::Nanos;
use crate::wire::message::Id;

/// How a life begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Opening {
    /// The VM did not run before it.
    Edge,
    /// The VM ran on, through a pause that was announced.
    RanOn,
    /// It has another name: whether it is paused is not said.
    Renamed,
}

pub(super) fn call(state: &mut State, event: &Lifecycle, policy: &Policy, found: &mut Found) {
    let at = event.at;
    match event.call {
        Call::Started { epoch, size } => {
            open(state, at, epoch, Opening::Edge, Some(size), policy, found);
        }
        Call::Resumed { epoch, size, paused } => {
            let opening = if paused { Opening::Edge } else { Opening::RanOn };
            open(state, at, epoch, opening, size, policy, found);
        }
        Call::Named { epoch } => open(state, at, epoch, Opening::Renamed, None, policy, found),
        Call::Scaled { size } => scaled(state, at, size, policy),
        Call::Pausing { epoch } => close(state, at, epoch, EndBy::Pause, policy, found),
        Call::Destroyed { epoch } => close(state, at, epoch, EndBy::Destroy, policy, found),
    }
}

/// The VMM does not know the VM any more: it ended when it was last seen to run.
pub(super) fn gone(state: &mut State, index: usize, at: Nanos, policy: &Policy, found: &mut Found) {
    if let Some(ran_at) = state.lives.get(index).map(|life| life.ran_at) {
        end(state, index, End { at: ran_at, by: EndBy::Lost(at) }, policy, found);
    }
}

fn scaled(state: &mut State, at: Nanos, size: Requested, policy: &Policy) {
    state.requested = size;
    if let Some(index) = state.open_at(at)
        && let Some(life) = state.lives.get_mut(index)
    {
        authority::request(life, at, size);
        state.post_rows(index);
        state.post_pending(index, policy);
    }
}

fn open(
    state: &mut State,
    at: Nanos,
    epoch: Minted,
    opening: Opening,
    size: Option<Requested>,
    policy: &Policy,
    found: &mut Found,
) {
    if state.index_of(epoch.id).is_some() {
        return found.push(Verdict::Duplicate);
    }
    if let Some(size) = size {
        state.requested = size;
    }
    let place = state.lives.partition_point(|life| life.from <= at);
    let next_from = state.lives.get(place).map(|life| life.from);
    let before = place.checked_sub(1);
    let goes_on = opening != Opening::Edge && next_from.is_none();
    if goes_on
        && opening == Opening::RanOn
        && let Some(before) = before.and_then(|index| state.lives.get_mut(index))
    {
        before.unpause();
    }
    let mut life = match before.and_then(|index| state.lives.get_mut(index)) {
        Some(before) if goes_on && before.is_open_or_paused() => before.renamed(epoch),
        Some(before) => {
            let ended = before.end.map_or(before.from, |end| end.at);
            Life::new(epoch, at.max(ended), state.requested)
        }
        None => Life::new(epoch, at, state.requested),
    };
    if let Some(index) = before
        && state.lives.get(index).is_some_and(|life| life.end.is_none())
    {
        close_unended(state, index, at, &life, policy, found);
    }
    // Told so late that a later life has begun: until its own end is told, nothing shows that it ran.
    if let Some(next) = next_from {
        life.end = Some(End { at: life.from.min(next), by: EndBy::Lost(next) });
    }
    state.lives.insert(place, life);
    if goes_on && size.is_some() {
        scaled(state, at, state.requested, policy);
    }
    state.post_rows(place);
}

/// The life before the one that begins has not been ended by anybody.
fn close_unended(
    state: &mut State,
    index: usize,
    at: Nanos,
    next: &Life,
    policy: &Policy,
    found: &mut Found,
) {
    let Some(life) = state.lives.get(index) else { return };
    let ending = if life.row_passed_on {
        End { at: next.from, by: EndBy::Naming }
    } else {
        End { at: life.ran_at.min(at), by: EndBy::Lost(at) }
    };
    end(state, index, ending, policy, found);
}

/// The platform says that a life ended at `at`: the one it names, else the one that was open then.
fn close(state: &mut State, at: Nanos, epoch: Option<Id>, by: EndBy, policy: &Policy, found: &mut Found) {
    let named = epoch.and_then(|epoch| state.index_of(epoch));
    let open = state.lives.iter().rposition(|life| life.from <= at);
    let Some(mut index) = named.or(open) else { return };
    // Naming is no edge: what ends the first of several names ends the last.
    while state.lives.get(index).is_some_and(|life| life.row_passed_on)
        && state.lives.get(index + 1).is_some_and(|next| next.from <= at)
    {
        index += 1;
    }
    let next_from = state.lives.get(index + 1).map_or(Nanos(u64::MAX), |next| next.from);
    let Some(life) = state.lives.get(index) else { return };
    let at = at.clamp(life.from, next_from.max(life.from));
    let moves = match life.end {
        None => true,
        Some(End { by: EndBy::Lost(until), .. }) => at <= until,
        Some(End { at: before, by: EndBy::Pause }) => by == EndBy::Pause && at > before,
        Some(End { by: EndBy::Destroy | EndBy::Naming, .. }) => false,
    };
    if moves {
        end(state, index, End { at, by }, policy, found);
    } else {
        found.push(Verdict::Duplicate);
    }
}

/// A guest that was named while it ran has counted `counted` in its epoch at `at`, its first answer: it began then, and
/// what was before is the earlier name's, or that of the one before if nobody answered to that either.
pub(super) fn began(state: &mut State, index: usize, at: Nanos, counted: Nanos, policy: &Policy) {
    let Some(life) = state.lives.get_mut(index) else { return };
    if !life.adopted || life.last.is_some() || !life.is_open_or_paused() || life.anchor > life.from {
        return;
    }
    let from = at.saturating_sub(counted).max(life.from).min(life.until(at));
    state.books.drop_samples(life.epoch.id, life.sample_from);
    // The row is one: what it says of sizes since the naming holds for the earlier name's tail too.
    let steps = life.steps_until(from);
    life.begin_at(from);
    for before in (0..index).rev() {
        let Some(life) = state.lives.get_mut(before) else { return };
        let Some(End { at, by: EndBy::Naming }) = &mut life.end else { return };
        *at = from;
        life.steps.clone_from(&steps);
        let answered = life.last.is_some();
        state.post_samples(before, policy);
        if answered {
            return;
        }
    }
}

/// The guest answered at `at`, for a checkpoint or not: the VM ran until then, unless the platform's word says
/// otherwise.
pub(super) fn answered(state: &mut State, index: usize, at: Nanos, checkpoint: bool) {
    let next_from = state.lives.get(index + 1).map_or(at, |next| next.from);
    let Some(life) = state.lives.get_mut(index) else { return };
    let until = match life.end {
        Some(End { by: EndBy::Pause, .. }) if checkpoint => next_from,
        Some(End { by: EndBy::Lost(until), .. }) if at <= until => until,
        _ => return,
    };
    if let Some(end) = life.end
        && end.at < at.min(until)
    {
        life.ends_at(End { at: at.min(until), ..end });
        state.post_rows(index);
    }
}

fn end(state: &mut State, index: usize, ending: End, policy: &Policy, found: &mut Found) {
    let Some(life) = state.lives.get_mut(index) else { return };
    life.ends_at(ending);
    let at = ending.at;
    if at < life.anchor {
        // Only so late a word that what it contradicts is settled.
        life.anchor = at;
        life.credit = life.credit.min(at.saturating_sub(life.from));
        life.sample_from = life.sample_from.min(at);
        life.sample_credit = life.sample_credit.min(life.credit);
        state.books.clip(life.epoch.id, life.row_epoch, at);
    }
    life.end_steps(at);
    if let Some(verdict) = unconfirmed(life, ending, policy) {
        found.push(verdict);
    }
    state.post_rows(index);
    state.post_samples(index, policy);
}

/// What of the life nobody has confirmed.
fn unconfirmed(life: &Life, ending: End, policy: &Policy) -> Option<Verdict> {
    if matches!(ending.by, EndBy::Naming) {
        return None;
    }
    let known = life.confirmed.memory.is_some();
    let since = if known { life.confirmed_at.max(life.anchor) } else { life.from };
    let span = ending.at.saturating_sub(since);
    let silent = span > policy.silence() || (!known && span > Nanos::ZERO);
    let size: Size = life.size_at(ending.at);
    silent.then_some(Verdict::RequestedOnly { span, size })
}
