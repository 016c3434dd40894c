//! What is wrong beside the difference of the two books: what was charged from them.

use super::books::{Books, Charge, Entry};
use super::cause::{Amount, Cause, Finding};
use super::question::Question;
use crate::units::Nanos;

/// A charge in whole seconds is rounded.
const ROUNDING_NS: i128 = 1_000_000_000;

pub(super) fn findings(books: &Books, question: &Question) -> Vec<Finding> {
    let inside = |charge: &&Charge| charge.from >= question.from && charge.to <= question.to;
    let charges =
        books.charged.iter().filter(inside).filter_map(|charge| charged(books, charge, question.now));
    charges.chain(off_tier(books, question)).collect()
}

/// A charge against the cell's book, cut to its window.
fn charged(books: &Books, charge: &Charge, now: Nanos) -> Option<Finding> {
    let mut inside: i128 = 0;
    let mut before: i128 = 0;
    let mut behind: i128 = 0;
    let mut spans = Vec::new();
    for row in &books.cell {
        let Some((start, end)) = row.within(charge.from, charge.to, now) else { continue };
        inside += length(start, end);
        let row_end = row.end.unwrap_or(now);
        before += length(row.start, start);
        behind += length(end, row_end);
        spans.extend([(row.start, start), (end, row_end)].into_iter().filter(|(from, to)| from < to));
    }
    let excess = i128::from(charge.active.0) - inside;
    if excess.abs() < ROUNDING_NS {
        return None;
    }
    let near = |outside: i128| outside > 0 && (excess - outside).abs() < ROUNDING_NS;
    let clipped = near(before) || near(behind) || near(before + behind);
    let cause = if clipped { Cause::WindowClip } else { Cause::ChargeDiffers };
    let amount = Amount { active_ns: excess, ..Amount::default() };
    Some(Finding { cause, amount, spans: if clipped { spans } else { vec![(charge.from, charge.to)] } })
}

fn length(from: Nanos, to: Nanos) -> i128 {
    i128::from(to.0.saturating_sub(from.0))
}

/// Memory of the cell's book that no price is known for.
fn off_tier(books: &Books, question: &Question) -> Option<Finding> {
    let priced = |row: &&Entry| books.tiers_mib.is_empty() || books.tiers_mib.contains(&row.size.memory_mib);
    let mut amount = Amount::default();
    let mut spans = Vec::new();
    for row in books.cell.iter().filter(|row| !priced(row)) {
        if let Some((start, end)) = row.within(question.from, question.to, question.now) {
            amount += Amount::of(row.size, end.saturating_sub(start));
            spans.push((start, end));
        }
    }
    (!spans.is_empty()).then_some(Finding { cause: Cause::OffTier, amount, spans })
}
