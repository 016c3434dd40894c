//! Samples without a row of the cell: the row is missing, or the samples should not be.

use super::books::{Found, What};
use super::cause::Cause;
use super::timeline::{Kind, Timeline};
use crate::units::Nanos;
use std::ops::Range;

pub(super) fn explain(timeline: &mut Timeline<'_>) {
    for orphan in timeline.groups(Kind::EdgeOnly) {
        let Some((from, to)) = timeline.reach(&orphan) else { continue };
        if to.saturating_sub(from) > timeline.question.noise() {
            let cause = cause(timeline, &orphan, from, to);
            timeline.blame(orphan, cause);
        }
    }
}

fn cause(timeline: &Timeline<'_>, orphan: &Range<usize>, from: Nanos, to: Nanos) -> Cause {
    let noise = timeline.question.noise();
    let row_follows = timeline.books.cell.iter().any(|row| row.start == to);
    if row_follows && first_row(timeline) == Some(to) && is_copy(timeline) {
        return Cause::ClonePast;
    }
    let before = orphan.start.checked_sub(1).and_then(|place| timeline.spans.get(place));
    let runs_on = before.is_some_and(|span| !span.edge.is_empty() && !span.cell.is_empty());
    let wakes = |what: &What| matches!(what, What::Resumed | What::RanOn | What::Started);
    let woke = timeline.happened(from.saturating_sub(noise), to, wakes);
    let ended = timeline.books.happened.iter().rfind(|happening| {
        happening.at <= from && (wakes(&happening.what) || happening.what == What::Destroyed)
    });
    let destroyed = ended.is_some_and(|happening| happening.what == What::Destroyed);
    if !woke && (runs_on || destroyed) { Cause::Ghost } else { Cause::MissingRow }
}

fn first_row(timeline: &Timeline<'_>) -> Option<Nanos> {
    timeline.books.cell.first().map(|row| row.start)
}

/// Whether the guest's boot is another sandbox's too.
fn is_copy(timeline: &Timeline<'_>) -> bool {
    timeline.happened(Nanos::ZERO, timeline.question.now, |what| {
        matches!(what, What::Report { also_of: Some(_), .. } | What::Found(Found::Clone))
    })
}
