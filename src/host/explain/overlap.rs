//! More than one row of a book at once: samples of a fixed length, two hosts that counted, or a row twice.

use super::books::Entry;
use super::cause::Cause;
use super::ids;
use super::timeline::{Kind, Timeline};
use crate::units::Nanos;

/// So many samples of one length are no chance.
const SAMPLES_MIN: usize = 3;

pub(super) fn explain(timeline: &mut Timeline<'_>) {
    if let Some(length) = fixed_length(timeline) {
        constant_interval(timeline, length);
    }
    for group in timeline.groups(Kind::Many) {
        for place in group {
            let cause = many(timeline, place);
            timeline.blame(place..place + 1, cause);
        }
    }
}

/// Why there is more than one row at once in a span.
fn many(timeline: &Timeline<'_>, place: usize) -> Cause {
    let Some(span) = timeline.spans.get(place) else { return Cause::Unexplained };
    if span.edge.len() < 2 {
        return Cause::Duplicate;
    }
    let stems = span.edge.iter().filter_map(|edge| timeline.edge(*edge)).map(|edge| ids::divide(&edge.id).0);
    let mut stems: Vec<&str> = stems.collect();
    stems.sort_unstable();
    let count = stems.len();
    stems.dedup();
    // Each writer counts the time once; two of them count it twice.
    if stems.len() == count { Cause::Migration } else { Cause::Duplicate }
}

/// The length of all samples, where it is one that the time between them does not account for.
fn fixed_length(timeline: &Timeline<'_>) -> Option<Nanos> {
    let question = timeline.question;
    let inside = |edge: &&Entry| edge.within(question.from, question.to, question.now).is_some();
    let edges: Vec<&Entry> = timeline.books.edge.iter().filter(inside).collect();
    let length = edges.first()?.length()?;
    if edges.len() < SAMPLES_MIN || edges.iter().any(|edge| edge.length() != Some(length)) {
        return None;
    }
    let one_writer = edges.windows(2).all(|pair| {
        matches!(pair, [one, two] if ids::divide(&one.id).0 == ids::divide(&two.id).0 && one.start != two.start)
    });
    let overlapping = edges.windows(2).filter(|pair| matches!(pair, [one, two] if one.end > Some(two.start)));
    let swallowing = edges.iter().filter(|edge| swallows(edge, &timeline.books.cell));
    let odd = overlapping.count() + swallowing.count();
    (one_writer && odd >= SAMPLES_MIN.min(edges.len() - 1)).then_some(length)
}

/// Whether a sample is longer than each row it is for.
fn swallows(edge: &Entry, cell: &[Entry]) -> bool {
    let met = |row: &&Entry| edge.end > Some(row.start) && row.end.is_none_or(|end| end > edge.start);
    let mut rows = cell.iter().filter(met).peekable();
    rows.peek().is_some() && rows.all(|row| row.length().is_some_and(|length| Some(length) < edge.length()))
}

/// All that such samples count twice or beyond their rows, and the runs that fell between two of them.
fn constant_interval(timeline: &mut Timeline<'_>, length: Nanos) {
    for kind in [Kind::Many, Kind::EdgeOnly] {
        for group in timeline.groups(kind) {
            timeline.blame(group, Cause::ConstantInterval);
        }
    }
    for group in timeline.groups(Kind::CellOnly) {
        let short = timeline.spans.get(group.clone()).unwrap_or_default().iter().all(|span| {
            let row = span.cell.first().and_then(|row| timeline.cell(*row));
            row.and_then(Entry::length).is_some_and(|row| row < length)
        });
        let slice = timeline.reach(&group).is_some_and(|(from, to)| to.saturating_sub(from) < length);
        if short || slice {
            timeline.blame(group, Cause::ConstantInterval);
        }
    }
}
