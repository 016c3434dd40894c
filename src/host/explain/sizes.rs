//! Both books have a row, of different sizes.

use super::books::{Entry, What};
use super::cause::Cause;
use super::timeline::{Kind, Span, Timeline};
use crate::host::reconcile::{Size, derived_cpu};
use crate::units::Nanos;
use std::collections::BTreeMap;

pub(super) fn explain(timeline: &mut Timeline<'_>) {
    for group in timeline.groups(Kind::SizeDiffers) {
        // A group may reach over several rows, each wrong in its own way.
        for place in group {
            let Some(cause) = cause(timeline, place) else { continue };
            timeline.blame(place..place + 1, cause);
        }
    }
    forgive(timeline);
}

/// A row that is dated apart by less than anybody can tell has no cause.
fn forgive(timeline: &mut Timeline<'_>) {
    let mut lengths: BTreeMap<(usize, Cause), u64> = BTreeMap::new();
    let key = |span: &Span| Some((*span.cell.first()?, span.cause.filter(|cause| is_of_size(*cause))?));
    for span in &timeline.spans {
        if let Some(key) = key(span) {
            *lengths.entry(key).or_default() += span.span().0;
        }
    }
    let noise = timeline.question.noise().0;
    for span in &mut timeline.spans {
        if key(span).is_some_and(|key| lengths.get(&key).is_some_and(|length| *length <= noise)) {
            span.cause = None;
        }
    }
}

fn is_of_size(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::LatePlug
            | Cause::PartialPlug
            | Cause::UnplugUnfinished
            | Cause::WakeSize
            | Cause::WrongSize
            | Cause::CpuDerived
            | Cause::CpuDiffers
    )
}

fn cause(timeline: &Timeline<'_>, place: usize) -> Option<Cause> {
    let span = timeline.spans.get(place)?;
    let row = timeline.cell(*span.cell.first()?)?;
    let edge = timeline.edge(*span.edge.first()?)?;
    let before = row_before(timeline, row);
    Some(match edge.size.memory_mib.cmp(&row.size.memory_mib) {
        std::cmp::Ordering::Equal => cpu(row.size),
        std::cmp::Ordering::Less if reached_later(timeline, row, span.to) => Cause::LatePlug,
        std::cmp::Ordering::Less => Cause::PartialPlug,
        std::cmp::Ordering::Greater => match before {
            Some(before) if before.end == Some(row.start) && before.size.memory_mib > row.size.memory_mib => {
                Cause::UnplugUnfinished
            }
            _ if woke(timeline, row, before) => Cause::WakeSize,
            _ => Cause::WrongSize,
        },
    })
}

fn cpu(row: Size) -> Cause {
    if row.cpu == derived_cpu(row.memory_mib) { Cause::CpuDerived } else { Cause::CpuDiffers }
}

/// The row before this one.
fn row_before<'a>(timeline: &Timeline<'a>, row: &Entry) -> Option<&'a Entry> {
    timeline.books.cell.iter().rev().find(|other| other.start < row.start)
}

/// Whether the edge's book has the row's memory later in the same row.
fn reached_later(timeline: &Timeline<'_>, row: &Entry, from: Nanos) -> bool {
    let end = row.end.unwrap_or(timeline.question.now);
    timeline
        .books
        .edge
        .iter()
        .any(|edge| edge.start >= from && edge.start < end && edge.size.memory_mib >= row.size.memory_mib)
}

/// Whether the row begins with a resume: somebody says so, or there was a life before it that had ended.
fn woke(timeline: &Timeline<'_>, row: &Entry, before: Option<&Entry>) -> bool {
    let noise = timeline.question.noise();
    let told = timeline.happened(row.start.saturating_sub(noise), row.start.saturating_add(noise), |what| {
        *what == What::Resumed
    });
    told || before.is_some_and(|before| before.end.is_some_and(|end| end < row.start))
}
