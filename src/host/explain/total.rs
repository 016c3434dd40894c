//! From explained spans to findings: sums, and what is too little to be told.

use super::books::Entry;
use super::cause::{Amount, Cause, Finding, SPANS_MAX};
use super::holes;
use super::timeline::{Kind, Span, Timeline};
use crate::units::Nanos;
use std::collections::BTreeMap;

/// Takes out of the comparison what the edge's book cannot have yet: an hour's samples are posted when it is over.
/// Returns what the cell has there.
pub(super) fn set_aside(timeline: &mut Timeline<'_>) -> Amount {
    let settled = timeline.question.settled;
    let mut pending = Amount::default();
    let last_told = timeline.books.edge.iter().filter_map(|edge| edge.end).max().unwrap_or(Nanos::ZERO);
    let goes_on = going_on(&timeline.books.cell);
    let waits = |timeline: &Timeline<'_>, span: &Span| {
        let open = span.cell.first().is_some_and(|row| goes_on.is_some_and(|first| *row >= first));
        open && span.from >= settled.max(last_told) && timeline.kind(span) == Kind::CellOnly
    };
    // The hour in which it goes on is cut where it begins, so that what was due before it is compared.
    let place = timeline.spans.iter().position(|span| span.from < settled && span.to > settled);
    if let Some(place) = place
        && let Some(span) = timeline.spans.get_mut(place)
    {
        let later = Span { from: settled, ..span.clone() };
        span.to = settled;
        timeline.spans.insert(place + 1, later);
    }
    let waiting: Vec<usize> = (0..timeline.spans.len())
        .filter(|place| timeline.spans.get(*place).is_some_and(|span| waits(timeline, span)))
        .collect();
    for place in waiting {
        pending += timeline.spans.get(place).map_or(Amount::default(), |span| timeline.cell_amount(span));
        if let Some(span) = timeline.spans.get_mut(place) {
            span.cell.clear();
        }
    }
    pending
}

/// The first of the rows that the open one goes on from, of one size without a break.
fn going_on(cell: &[Entry]) -> Option<usize> {
    let mut first = cell.iter().rposition(|row| row.end.is_none())?;
    while let Some(before) = first.checked_sub(1)
        && let (Some(one), Some(next)) = (cell.get(before), cell.get(first))
        && one.end == Some(next.start)
        && one.size == next.size
    {
        first = before;
    }
    Some(first)
}

/// One finding for each cause that is more than noise, the one with the most memory first; what is left, and too much
/// to be left, is unexplained. What came through caps and what the host tolerates is known already.
pub(super) fn findings(timeline: &mut Timeline<'_>, carried: Amount, tolerated: Amount) -> Vec<Finding> {
    unexplained(timeline);
    let (mut findings, mut rest) = sums(timeline, carried, tolerated, matters);
    if beyond_tolerance(timeline, rest) {
        // Many holes that are noise each are too much together: those that something tells of have a cause.
        holes::explain_small(timeline);
        (findings, rest) = sums(timeline, carried, tolerated, |_, _| true);
    }
    if beyond_tolerance(timeline, rest) {
        match findings.iter_mut().find(|finding| finding.cause == Cause::Unexplained) {
            Some(finding) => finding.amount += rest,
            None => findings.push(Finding { cause: Cause::Unexplained, amount: rest, spans: Vec::new() }),
        }
    }
    findings.sort_by_key(|finding| {
        std::cmp::Reverse((finding.amount.memory_mib_ns.abs(), finding.amount.active_ns.abs()))
    });
    findings
}

/// Findings of each cause of which there is enough, and what is left.
fn sums(
    timeline: &Timeline<'_>,
    carried: Amount,
    tolerated: Amount,
    enough: impl Fn(&Timeline<'_>, Amount) -> bool,
) -> (Vec<Finding>, Amount) {
    let mut sums: BTreeMap<Cause, (Amount, Vec<(Nanos, Nanos)>)> = BTreeMap::new();
    let mut rest = Amount::default() - tolerated;
    for span in &timeline.spans {
        let difference = timeline.difference(span);
        match span.cause {
            Some(cause) => {
                let (amount, spans) = sums.entry(cause).or_default();
                *amount += difference;
                join(spans, span);
            }
            None => rest += difference,
        }
    }
    if carried != Amount::default() {
        sums.entry(Cause::CarryThroughCap).or_default().0 += carried;
        let cap = &mut sums.entry(Cause::Cap).or_default().0;
        *cap = *cap - carried;
    }
    let mut findings = Vec::new();
    for (cause, (amount, spans)) in sums {
        if cause == Cause::FreeOrg || enough(timeline, amount) {
            findings.push(Finding { cause, amount, spans });
        } else {
            rest += amount;
        }
    }
    (findings, rest)
}

/// Names the longer stretches that nothing has explained; `holes` has said its word of those without samples.
fn unexplained(timeline: &mut Timeline<'_>) {
    for kind in [Kind::EdgeOnly, Kind::Many] {
        for group in timeline.groups(kind) {
            let reach = timeline.reach(&group);
            if reach.is_some_and(|(from, to)| to.saturating_sub(from) > timeline.question.noise()) {
                timeline.blame(group, Cause::Unexplained);
            }
        }
    }
}

fn join(spans: &mut Vec<(Nanos, Nanos)>, span: &Span) {
    match spans.last_mut() {
        Some(last) if last.1 == span.from => last.1 = span.to,
        _ => {
            if spans.len() < SPANS_MAX {
                spans.push((span.from, span.to));
            }
        }
    }
}

/// Whether an amount is more than one edge of a life may be dated apart.
fn matters(timeline: &Timeline<'_>, amount: Amount) -> bool {
    let noise = i128::from(timeline.question.noise().0);
    let (memory, cpu) = largest(timeline);
    amount.active_ns.abs() > noise
        || amount.memory_mib_ns.abs() > noise * memory
        || (amount.memory_mib_ns == 0 && amount.cpu_millis_ns.abs() > noise * cpu)
}

/// Whether what is left is more than books that agree may be apart: a share, and noise for each edge of a row.
fn beyond_tolerance(timeline: &Timeline<'_>, rest: Amount) -> bool {
    let question = timeline.question;
    let cell = timeline.spans.iter().fold(Amount::default(), |sum, span| sum + timeline.cell_amount(span));
    let inside = |at: Nanos| at > question.from && at < question.to;
    let edges = timeline
        .books
        .cell
        .iter()
        .map(|row| u32::from(inside(row.start)) + u32::from(row.end.is_some_and(inside)))
        .sum::<u32>();
    let noise = i128::from(question.noise().0) * i128::from(edges.max(1));
    let share = |of: i128| of / 1000 * i128::from(question.tolerance.permille);
    let (memory, cpu) = largest(timeline);
    rest.active_ns.abs() > share(cell.active_ns).max(noise)
        || rest.memory_mib_ns.abs() > share(cell.memory_mib_ns).max(noise * memory)
        || rest.cpu_millis_ns.abs() > share(cell.cpu_millis_ns).max(noise * cpu)
}

/// The most memory, in MiB, and CPU of any row.
fn largest(timeline: &Timeline<'_>) -> (i128, i128) {
    let sizes = || timeline.books.cell.iter().chain(&timeline.books.edge).map(|entry| entry.size);
    let memory = sizes().map(|size| size.memory_mib).max().unwrap_or(0);
    let cpu = sizes().map(|size| size.cpu.0).max().unwrap_or(0);
    (i128::from(memory), i128::from(cpu))
}
