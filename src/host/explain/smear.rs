//! A sample over a whole hour for usage of a part of it.

use super::cause::{Amount, Cause};
use super::timeline::Timeline;
use crate::units::Nanos;

const HOUR: u64 = 3_600_000_000_000;

pub(super) fn explain(timeline: &mut Timeline<'_>) {
    let hourly =
        |start: Nanos, end: Option<Nanos>| start.0.is_multiple_of(HOUR) && end == Some(Nanos(start.0 + HOUR));
    let samples: Vec<(Nanos, Nanos)> = timeline
        .books
        .edge
        .iter()
        .filter(|edge| hourly(edge.start, edge.end))
        .map(|edge| (edge.start, Nanos(edge.start.0 + HOUR)))
        .collect();
    for (from, to) in samples {
        if is_smeared(timeline, from, to) {
            let within = |place: &usize| {
                timeline.spans.get(*place).is_some_and(|span| span.from >= from && span.to <= to)
            };
            let places: Vec<usize> = (0..timeline.spans.len()).filter(within).collect();
            for place in places {
                timeline.blame(place..place + 1, Cause::Smeared);
            }
        }
    }
}

/// The cell has as much memory in this hour, in less time.
fn is_smeared(timeline: &Timeline<'_>, from: Nanos, to: Nanos) -> bool {
    let mut cell = Amount::default();
    let mut edge = Amount::default();
    for span in timeline.spans.iter().filter(|span| span.from >= from && span.to <= to) {
        if span.edge.len() != 1 || span.cell.len() > 1 || span.cause.is_some() {
            return false;
        }
        cell += timeline.cell_amount(span);
        edge += timeline.edge_amount(span);
    }
    let noise = i128::from(timeline.question.noise().0);
    let apart = (edge.memory_mib_ns - cell.memory_mib_ns).abs();
    let close = apart <= cell.memory_mib_ns / 1000 * i128::from(timeline.question.tolerance.permille);
    cell.active_ns > 0 && edge.active_ns - cell.active_ns > noise && close
}
