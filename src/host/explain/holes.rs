//! A row of the cell without samples: the VM did not run, or was not counted.

use super::books::{Entry, Found, Happening, What};
use super::cause::{Amount, Cause};
use super::ids;
use super::ticks;
use super::timeline::{Kind, Timeline};
use crate::host::reconcile::RECORD_PAUSE;
use crate::units::Nanos;
use std::ops::Range;

/// Returns what is left of holes that the host itself tolerates.
pub(super) fn explain(timeline: &mut Timeline<'_>) -> Amount {
    for hole in timeline.groups(Kind::CellOnly) {
        for place in hole {
            if let Some(cause) = stopped(timeline, place) {
                timeline.blame(place..place + 1, cause);
            }
        }
    }
    for hole in timeline.groups(Kind::CellOnly) {
        let Some((from, to)) = timeline.reach(&hole) else { continue };
        if to.saturating_sub(from) > timeline.question.noise()
            && let Some(cause) = uncounted(timeline, &hole, from, to)
        {
            timeline.blame(hole, cause);
        }
    }
    tolerated(timeline)
}

/// Names the holes that are noise each, as far as something tells of them.
pub(super) fn explain_small(timeline: &mut Timeline<'_>) {
    let noise = timeline.question.noise();
    for hole in timeline.groups(Kind::CellOnly) {
        let Some((from, to)) = timeline.reach(&hole) else { continue };
        if to.saturating_sub(from) <= noise
            && let Some(cause) = uncounted(timeline, &hole, from, to)
        {
            timeline.blame(hole, cause);
        }
    }
}

/// Names the holes that are left, but for those within what the host lets pass when it says that the books agree.
fn tolerated(timeline: &mut Timeline<'_>) -> Amount {
    let mut tolerated = Amount::default();
    for hole in timeline.groups(Kind::CellOnly) {
        let Some((from, to)) = timeline.reach(&hole) else { continue };
        if to.saturating_sub(from) <= timeline.question.noise() {
            continue;
        }
        if passes(timeline, from, to) {
            let spans = timeline.spans.get(hole).unwrap_or_default().iter();
            tolerated += spans.fold(Amount::default(), |sum, span| sum + timeline.difference(span));
        } else {
            let cause = for_no_known_cause(timeline, from, to);
            timeline.blame(hole, cause);
        }
    }
    tolerated
}

/// Whether the host lets a hole pass: what the guest did not count of a sample's time is at its end, and a name that it
/// got while it ran stands for one resume that nobody announced. It judges at the last report: a pause that was said
/// before it began held the count, and is dated apart.
fn passes(timeline: &Timeline<'_>, from: Nanos, to: Nanos) -> bool {
    let said = timeline
        .books
        .happened
        .iter()
        .find(|happening| happening.what == What::Pausing && happening.at > from && happening.at < to);
    let held = said.map_or(Nanos::ZERO, |said| to.saturating_sub(said.at).min(timeline.question.noise()));
    let to = to.saturating_sub(held);
    let sample = timeline.books.edge.iter().rfind(|edge| edge.end == Some(from));
    let since = sample.map_or(from, |sample| sample.start);
    let named = sample.is_some_and(|sample| named_as_it_ran(timeline, sample));
    let tolerance = timeline.question.tolerance.of(to.saturating_sub(since), named.into());
    to.saturating_sub(from) <= tolerance
}

/// Whether there are samples of an earlier name under the same row, or those that it goes on from.
fn named_as_it_ran(timeline: &Timeline<'_>, sample: &Entry) -> bool {
    let mut since = sample.start;
    for row in timeline.books.cell.iter().rev() {
        if row.start < since && row.end.is_none_or(|end| end >= since) {
            since = row.start;
        }
    }
    let earlier = |other: &&Entry| other.start >= since && other.start < sample.start;
    let mut earlier = timeline.books.edge.iter().filter(earlier);
    sample.epoch.is_some() && earlier.any(|other| other.epoch.is_some() && other.epoch != sample.epoch)
}

/// By what happened, the VM did not run in this span.
fn stopped(timeline: &Timeline<'_>, place: usize) -> Option<Cause> {
    let span = timeline.spans.get(place)?;
    let edges = timeline.books.happened.iter().filter(|happening| match happening.what {
        What::Started | What::Pausing | What::Resumed | What::RanOn | What::Destroyed => true,
        What::Scaled | What::WorkerStarted | What::Report { .. } | What::Found(_) => false,
    });
    let before = edges.clone().rfind(|happening| happening.at <= span.from)?;
    let wakes = || {
        let mut later = edges.clone().filter(|happening| happening.at >= span.to);
        later.any(|happening| matches!(happening.what, What::Resumed | What::Started))
    };
    let next = edges.clone().find(|happening| happening.at >= span.to);
    match before.what {
        What::Destroyed => Some(Cause::RowLeftOpen),
        // Said again, or given up: it ran until then.
        What::Pausing if next.is_some_and(|next| matches!(next.what, What::Pausing | What::RanOn)) => None,
        What::Pausing if wakes() => Some(Cause::PausedBilled),
        What::Pausing => Some(Cause::RowLeftOpen),
        _ => None,
    }
}

/// Why nothing was counted in `[from, to)`, though nobody says that the VM was stopped; `None` where nothing tells.
fn uncounted(timeline: &Timeline<'_>, hole: &Range<usize>, from: Nanos, to: Nanos) -> Option<Cause> {
    let noise = timeline.question.noise();
    let (early, late) = (from.saturating_sub(noise), to.saturating_add(noise));
    let begins = row_begins(timeline, hole) || timeline.happened(early, from.saturating_add(noise), is_wake);
    let told = match heard(timeline, early, late) {
        Some(Found::Reset) if !begins => None,
        Some(heard) => Some(heard),
        None => found(timeline, sampled_from(timeline, from), late, begins),
    };
    match told {
        Some(Found::Reset) => return Some(Cause::ColdBoot),
        Some(Found::Rollback) => return Some(Cause::Rollback),
        Some(Found::Dropped(_)) => return Some(Cause::Cap),
        Some(Found::Unnamed) => return Some(Cause::Unnamed),
        Some(Found::Low | Found::Paused) => return Some(Cause::UnannouncedPause),
        _ => {}
    }
    if begins && ids_reused(timeline, from, to) {
        return Some(Cause::SampleIdsReused);
    }
    if timeline.happened(early, late, |what| *what == What::WorkerStarted) {
        return Some(Cause::WorkerRestart);
    }
    match found_later(timeline, life_begins(timeline, from), late.saturating_add(RECORD_PAUSE)) {
        Some(Found::Low) => Some(Cause::UnannouncedPause),
        Some(Found::Dropped(_)) => Some(Cause::Cap),
        Some(Found::Unnamed) => Some(Cause::Unnamed),
        _ => None,
    }
}

/// What can be said of a hole that nothing tells of.
fn for_no_known_cause(timeline: &Timeline<'_>, from: Nanos, to: Nanos) -> Cause {
    let late = to.saturating_add(timeline.question.noise());
    let ends = |what: &What| matches!(what, What::Pausing | What::Destroyed);
    let ended = timeline.happened(to.saturating_sub(timeline.question.noise()), late, ends);
    if !is_tail(timeline, from) || ended {
        return Cause::Unexplained;
    }
    let is_report = |what: &What| matches!(what, What::Report { .. });
    let alive = timeline.happened(late, timeline.question.now, is_report)
        || timeline.happened(from.saturating_add(timeline.question.noise()), to, is_report);
    if alive { Cause::SilentGuest } else { Cause::RowLeftOpen }
}

fn is_wake(what: &What) -> bool {
    matches!(what, What::Resumed | What::Started)
}

/// When the VM last woke before `at`.
fn life_begins(timeline: &Timeline<'_>, at: Nanos) -> Nanos {
    let wakes =
        timeline.books.happened.iter().rfind(|happening| happening.at <= at && is_wake(&happening.what));
    wakes.map_or(at, |happening| happening.at)
}

/// Whether a row begins with this hole.
fn row_begins(timeline: &Timeline<'_>, hole: &Range<usize>) -> bool {
    let first = timeline.spans.get(hole.start);
    first.is_some_and(|span| {
        let row = span.cell.first().and_then(|row| timeline.cell(*row));
        row.is_some_and(|row| row.start == span.from)
    })
}

/// Where the sample before a hole began: of a sample over many reports, what the guest left out is at its end,
/// wherever in it that was.
fn sampled_from(timeline: &Timeline<'_>, hole: Nanos) -> Nanos {
    let before = timeline.books.edge.iter().rfind(|edge| edge.end.is_some_and(|end| end <= hole));
    before.map_or(hole, |edge| edge.start).min(hole.saturating_sub(timeline.question.noise()))
}

/// What the host found from `early` to `late`, the most telling first: a new boot tells most where a row begins, and
/// what the guest left out only where it is more than noise.
fn found(timeline: &Timeline<'_>, early: Nanos, late: Nanos, begins: bool) -> Option<Found> {
    let order = |found: &Found| match found {
        Found::Rollback => 0,
        Found::Reset if begins => 1,
        Found::Dropped(span) if *span > timeline.question.noise() => 2,
        Found::Unnamed => 3,
        Found::Low => 4,
        Found::Paused => 5,
        Found::Dropped(_) => 6,
        Found::Reset => 7,
        Found::Clone | Found::Silent => 8,
    };
    findings(timeline, early).filter(|(at, _)| *at <= late).map(|(_, found)| found).min_by_key(order)
}

/// The same of what lasts: a state is written down when it begins, which may be long before, and nothing oftener than
/// once in a while; what a guest left out, when it was heard again: it lies before that.
fn found_later(timeline: &Timeline<'_>, early: Nanos, late: Nanos) -> Option<Found> {
    let reaches = |(at, found): &(Nanos, Found)| match found {
        Found::Dropped(span) => at.saturating_sub(*span) <= late,
        _ => *at <= late,
    };
    let order = |found: &Found| match found {
        Found::Dropped(span) if *span > timeline.question.noise() => Some(0),
        Found::Unnamed => Some(1),
        Found::Low => Some(2),
        Found::Dropped(_) => Some(3),
        _ => None,
    };
    let lasting = findings(timeline, early).filter(reaches).filter(|(_, found)| order(found).is_some());
    lasting.map(|(_, found)| found).min_by_key(order)
}

/// What the host found from `early` on, and when.
fn findings(timeline: &Timeline<'_>, early: Nanos) -> impl Iterator<Item = (Nanos, Found)> {
    let since = move |happening: &&Happening| happening.at >= early;
    timeline.books.happened.iter().filter(since).filter_map(|happening| match &happening.what {
        What::Found(found) => Some((happening.at, found.clone())),
        _ => None,
    })
}

/// Compares each report from `early` on with the one before it, up to the first one behind `late`.
fn heard(timeline: &Timeline<'_>, early: Nanos, late: Nanos) -> Option<Found> {
    let mut before: Option<(&String, Nanos, Nanos)> = None;
    for happening in &timeline.books.happened {
        let What::Report { boot_id, active, dropped, .. } = &happening.what else { continue };
        if happening.at >= early
            && let Some((boot_before, active_before, dropped_before)) = before
        {
            if boot_before != boot_id {
                return Some(Found::Reset);
            }
            if *active < active_before {
                return Some(Found::Rollback);
            }
            let more = dropped.saturating_sub(dropped_before);
            if more > timeline.question.noise() {
                return Some(Found::Dropped(more));
            }
        }
        if happening.at > late {
            break;
        }
        before = Some((boot_id, *active, *dropped));
    }
    None
}

/// Samples were numbered anew from the hole's start on, and came through only once their number was a new one: the
/// hole has as many ticks as there were samples before, and the first one behind it has the next number.
fn ids_reused(timeline: &Timeline<'_>, from: Nanos, to: Nanos) -> bool {
    let books = timeline.books;
    let Some(tick) = ticks::tick(timeline) else { return false };
    let Some(first) = books.edge.iter().find(|edge| edge.start >= to) else { return false };
    let (stem, Some(number)) = ids::divide(&first.id) else { return false };
    let earlier = books.edge.iter().filter(|edge| edge.start < from).map(|edge| ids::divide(&edge.id));
    let most = earlier.filter(|(other, _)| *other == stem).filter_map(|(_, number)| number).max();
    let missed = to.saturating_sub(from).0.saturating_add(tick.0 / 2) / tick.0;
    most.is_some_and(|most| most.checked_add(1) == Some(number) && missed.abs_diff(most) <= 1)
}

/// Whether the edge's book ends before `from`.
fn is_tail(timeline: &Timeline<'_>, from: Nanos) -> bool {
    let ends = |edge: &Entry| edge.end.is_some_and(|end| end <= from);
    !timeline.books.edge.is_empty() && timeline.books.edge.iter().all(ends)
}
