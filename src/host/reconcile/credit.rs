//! How much of the host's interval the guest has witnessed, and the samples that makes.
//!
//! Of the guest's count between two claims nobody knows when it ran. It is laid right before the later one: the
//! count at an instant between them is the least that both allow. So no sample is longer than its stretch, and their
//! sum is the count of the last claim.

use super::decision::Sample;
use super::life::{End, EndBy, Life};
use super::policy::Policy;
use crate::units::Nanos;

/// Samples are split here.
pub(super) const HOUR: Nanos = Nanos::from_secs(3600);
/// Ten years. A life that reaches back further is given in one sample up to there: its start is no real one.
const HOURS_MAX: u64 = 24 * 366 * 10;

/// Changes of size that may wait for the next claim; the host's word settles the oldest of more.
const STEPS_MAX: usize = 16;
/// How long a silent guest can still put right what was posted without it.
const SILENT_MAX: Nanos = Nanos(24 * HOUR.0);

/// An instant, and the credit up to it.
type Point = (Nanos, Nanos);

/// A claim was accepted: `credit` up to `at`. Closes the samples that end before it, and settles all of it.
pub(super) fn claim(life: &mut Life, at: Nanos, credit: Nanos, posts: &mut impl FnMut(Sample)) {
    let credit = credit.max(life.credit);
    let (from, before) = walk(life, (at, credit), posts);
    life.sample_from = from;
    life.sample_credit = before;
    life.anchor = at;
    life.credit = credit.min(before.saturating_add(at.saturating_sub(from)));
    life.forget_before(at);
}

/// Up to where the host's word is final, so that what waits for a silent guest has a bound.
pub(super) fn overdue(life: &Life, now: Nanos, policy: &Policy) -> Option<Nanos> {
    let by_steps = match life.steps.as_slice() {
        [_, second, ..] if life.steps.len() > STEPS_MAX => second.at,
        _ => Nanos::ZERO,
    };
    let by_time = hour_closed(now, policy).saturating_sub(SILENT_MAX);
    Some(by_steps.max(by_time)).filter(|at| *at > life.anchor && life.end.is_none())
}

/// Samples behind the settled part: up to the end, or to the last hour that closed over a silent guest.
pub(super) fn pending(life: &Life, now: Nanos, policy: &Policy, posts: &mut impl FnMut(Sample)) {
    let Some(target) = target(life, now, policy) else { return };
    let (from, before) = walk(life, target, posts);
    let span = target.1.saturating_sub(before).min(target.0.saturating_sub(from));
    if span > Nanos::ZERO {
        posts(life.sample(from, span));
    }
}

/// Up to where there are samples behind the settled part, and the credit there.
fn target(life: &Life, now: Nanos, policy: &Policy) -> Option<Point> {
    match life.end {
        Some(end) => Some((end.at, end_credit(life, end))),
        None => {
            let hour = hour_closed(now, policy);
            (hour > life.anchor).then(|| (hour, told(life, hour)))
        }
    }
}

/// The last hour whose samples wait for nobody any more.
pub(super) fn hour_closed(now: Nanos, policy: &Policy) -> Nanos {
    let settled = now.saturating_sub(policy.hour_grace.max(policy.silence()));
    Nanos(settled.0 - settled.0 % HOUR.0)
}

/// The credit at the end: the host's word, within what late evidence allows.
pub(super) fn end_credit(life: &Life, end: End) -> Nanos {
    let by_host = match end.by {
        // What ran between is in the next epoch's count, from its base on.
        EndBy::Naming => life.credit,
        _ => told(life, end.at),
    };
    let (least, most) = life.end_credit;
    let most = most.max(life.credit).max(least);
    by_host.clamp(least, most).min(end.at.saturating_sub(life.from))
}

/// The credit at `at`, behind the last claim, by the host's word alone.
pub(super) fn told(life: &Life, at: Nanos) -> Nanos {
    let at = life.paused_at.map_or(at, |paused| paused.min(at));
    life.credit.saturating_add(at.saturating_sub(life.anchor))
}

/// Closes samples at each change of size and each hour up to `target`. Returns where the open one begins, and the
/// credit before it.
fn walk(life: &Life, (at, credit): Point, posts: &mut impl FnMut(Sample)) -> Point {
    let mut from = life.sample_from;
    let mut before = life.sample_credit;
    loop {
        let step = life.steps.iter().map(|step| step.at).find(|step| *step > from);
        let boundary = step.map_or(next_hour(from, at), |step| step.min(next_hour(from, at)));
        if boundary > at {
            return (from, before);
        }
        let least = credit.saturating_sub(at.saturating_sub(boundary)).max(life.credit);
        let reached = least.min(before.saturating_add(boundary.saturating_sub(from))).max(before);
        if reached > before {
            posts(life.sample(from, reached.saturating_sub(before)));
        }
        from = boundary;
        before = reached;
    }
}

fn next_hour(from: Nanos, at: Nanos) -> Nanos {
    let earliest = at.saturating_sub(Nanos(HOUR.0 * HOURS_MAX));
    let from = from.max(earliest);
    Nanos((from.0 / HOUR.0).saturating_add(1).saturating_mul(HOUR.0))
}
