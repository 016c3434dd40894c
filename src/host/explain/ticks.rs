//! Books written tick by tick: what each sample is short of or beyond its time.

use super::books::Entry;
use super::cause::{Amount, Cause};
use super::timeline::{Kind, Timeline};
use crate::units::Nanos;

const SECOND: u64 = 1_000_000_000;
/// Fewer samples than this have no rhythm.
const TICKS_MIN: usize = 5;
/// Longer samples are no ticks.
const TICK_MAX: Nanos = Nanos::from_secs(300);

/// Names what is told from the rhythm of the samples. Returns what came through caps, which is in no span of its own:
/// it is in samples that both books have.
pub(super) fn explain(timeline: &mut Timeline<'_>) -> Amount {
    truncated(timeline);
    capped(timeline)
}

/// Samples of whole seconds, each followed by less than a second that nobody counted.
fn truncated(timeline: &mut Timeline<'_>) {
    let question = timeline.question;
    let inside =
        |edge: &&Entry| edge.start >= question.from && edge.end.is_some_and(|end| end <= question.to);
    let lengths: Vec<Nanos> = timeline.books.edge.iter().filter(inside).filter_map(Entry::length).collect();
    let whole = lengths.iter().filter(|length| length.0 % SECOND == 0).count();
    let slivers: Vec<_> = timeline
        .groups(Kind::CellOnly)
        .into_iter()
        .filter(|group| timeline.reach(group).is_some_and(|(from, to)| to.saturating_sub(from).0 < SECOND))
        .collect();
    // Nearly all of them, for a row's end may cut one anywhere.
    if slivers.len() >= TICKS_MIN && whole * 10 >= lengths.len() * 9 {
        for group in slivers {
            timeline.blame(group, Cause::TruncatedTicks);
        }
    }
}

/// Samples right behind a hole that are as long as two ticks: the cap. What they have beyond it was carried through.
fn capped(timeline: &mut Timeline<'_>) -> Amount {
    let mut carried = Amount::default();
    let Some(tick) = tick(timeline) else { return carried };
    let cap = tick.saturating_add(tick);
    for group in timeline.groups(Kind::CellOnly) {
        let Some((_, to)) = timeline.reach(&group) else { continue };
        let Some(next) = timeline.spans.get(group.end).and_then(|span| timeline.edge(*span.edge.first()?))
        else {
            continue;
        };
        let Some(beyond) = next.length().and_then(|length| length.checked_sub(cap)) else { continue };
        if next.start == to && beyond.0 < SECOND {
            timeline.blame(group, Cause::Cap);
            carried += Amount::of(next.size, beyond);
        }
    }
    carried
}

/// The usual time from one sample's start to the next one's.
pub(super) fn tick(timeline: &Timeline<'_>) -> Option<Nanos> {
    let question = timeline.question;
    let starts: Vec<Nanos> = timeline
        .books
        .edge
        .iter()
        .filter(|edge| edge.within(question.from, question.to, question.now).is_some())
        .map(|edge| edge.start)
        .collect();
    let apart = starts.iter().zip(starts.iter().skip(1)).map(|(one, next)| next.saturating_sub(*one));
    let mut apart: Vec<Nanos> = apart.collect();
    apart.sort_unstable();
    let usual = apart.get(apart.len() / 2).copied()?;
    (apart.len() >= TICKS_MIN && usual > Nanos::ZERO && usual <= TICK_MAX).then_some(usual)
}
