//! Parity: do the cell's book and the edge's book agree, org by org and sandbox by sandbox, hour by hour?
//!
//! Pure, but for [`run()`], which asks the ledger: what was found is a value, and when it is worth waking somebody is
//! [`alert`]'s to say.

pub mod alert;
mod run;

pub use run::run;

use super::decimal::{quotient, signed};
use super::ledger::SandboxTotal;
use super::ledger::usage::HOUR;
use crate::units::{MibNanos, Nanos};
use std::collections::BTreeMap;
use std::fmt;

/// The plan whose orgs have samples; others are billed another way.
pub const PLAN_CHECKED: &str = "pro";
/// How long after its end an hour is compared: its last samples are in by then.
pub const SETTLE: Nanos = Nanos::from_secs(600);
/// What is flagged, in thousandths: more than 2 %.
pub const TOLERANCE: PerMille = PerMille(20);

/// Thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PerMille(pub u32);

/// Two books beside each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drift {
    /// The host's.
    pub cell: MibNanos,
    /// The guests'.
    pub edge: MibNanos,
}

impl Drift {
    /// By how much they differ.
    #[must_use]
    pub fn amount(&self) -> MibNanos {
        MibNanos(self.edge.0.abs_diff(self.cell.0))
    }

    /// Whether they differ by more than this part of the cell's book. Where that has nothing, anything is 100 %.
    #[must_use]
    pub fn exceeds(&self, part: PerMille) -> bool {
        let amount = self.amount().0;
        if self.cell.0 == 0 {
            return amount > 0 && part < PerMille(1000);
        }
        let limit = u128::from(part.0);
        match (amount.checked_mul(1000), self.cell.0.checked_mul(limit)) {
            (Some(amount), Some(cell)) => amount > cell,
            _ => amount / limit.max(1) > self.cell.0 / 1000,
        }
    }

    /// `(edge − cell) / cell` as a decimal with six places, such as `-0.025`.
    #[must_use]
    pub fn ratio(&self) -> String {
        if self.cell.0 == 0 {
            return if self.edge.0 == 0 { "0" } else { "1" }.to_owned();
        }
        signed(self.edge < self.cell, quotient(self.amount().0, self.cell.0, 6).unwrap_or_default())
    }

    /// The same in percent with two places, such as `-2.5%`.
    #[must_use]
    pub fn percent(&self) -> String {
        if self.cell.0 == 0 {
            return if self.edge.0 == 0 { "0%" } else { "+100%" }.to_owned();
        }
        let hundred = self.amount().0.saturating_mul(100);
        let size = quotient(hundred, self.cell.0, 2).unwrap_or_default();
        let plus = if self.edge > self.cell && size != "0" { "+" } else { "" };
        format!("{plus}{}%", signed(self.edge < self.cell, size))
    }

    /// Whether this one is the larger part of its cell's book.
    fn is_worse_than(&self, other: &Self) -> bool {
        // a/b > c/d in integers: first the whole parts, then what is left of them.
        let parts = |drift: &Self| match drift.cell.0 {
            0 if drift.edge.0 == 0 => (0, 0, 1),
            0 => (1, 0, 1),
            cell => (drift.amount().0 / cell, drift.amount().0 % cell, cell),
        };
        let ((whole, rest, of), (other_whole, other_rest, other_of)) = (parts(self), parts(other));
        if whole != other_whole {
            return whole > other_whole;
        }
        match (rest.checked_mul(other_of), other_rest.checked_mul(of)) {
            (Some(this), Some(other)) => this > other,
            _ => rest >> 64 > other_rest >> 64,
        }
    }
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// All of an org's sandboxes together.
    Org,
    /// Each sandbox: two that drift against each other do not hide.
    Sandbox,
}

/// One comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// Who pays.
    pub org: String,
    /// Whose, by sandbox.
    pub sandbox: Option<String>,
    /// The hour's start.
    pub bucket: Nanos,
    /// The books.
    pub drift: Drift,
    /// Whether they differ by more than the tolerance.
    pub flagged: bool,
}

/// What many comparisons come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Comparisons.
    pub checked: u64,
    /// Those beyond the tolerance.
    pub flagged: u64,
    /// Orgs of another plan, once in each hour.
    pub skipped_free: u64,
    /// The largest drift.
    pub worst: Option<Drift>,
}

impl Summary {
    fn add(&mut self, compared: &Compared) {
        self.checked += 1;
        self.flagged += u64::from(compared.flagged);
        if self.worst.is_none_or(|worst| compared.drift.is_worse_than(&worst)) {
            self.worst = Some(compared.drift);
        }
    }
}

/// The end of the log line.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { checked, flagged, skipped_free, worst } = self;
        let worst = worst.map_or_else(|| "0%".to_owned(), |worst| worst.percent());
        write!(f, "checked={checked} flagged={flagged} skipped_free={skipped_free} worst={worst}")
    }
}

/// Compares the books of one hour. An org whose plan is known and not [`PLAN_CHECKED`] is skipped.
#[must_use]
pub fn check(
    bucket: Nanos,
    totals: &[SandboxTotal],
    plans: &BTreeMap<String, String>,
    by: By,
    tolerance: PerMille,
    summary: &mut Summary,
) -> Vec<Compared> {
    let mut books: BTreeMap<(&str, Option<&str>), Drift> = BTreeMap::new();
    let mut skipped: Option<&str> = None;
    for total in totals.iter().filter(|total| total.cell.0 > 0 || total.edge.0 > 0) {
        if plans.get(&total.org).is_some_and(|plan| plan != PLAN_CHECKED) {
            // They come in order of org.
            if skipped.replace(&total.org) != Some(&total.org) {
                summary.skipped_free += 1;
            }
            continue;
        }
        let sandbox = (by == By::Sandbox).then_some(total.sandbox.as_str());
        let drift = books.entry((&total.org, sandbox)).or_default();
        drift.cell = drift.cell.saturating_add(total.cell);
        drift.edge = drift.edge.saturating_add(total.edge);
    }
    let mut compared = Vec::with_capacity(books.len());
    for ((org, sandbox), drift) in books {
        let flagged = drift.exceeds(tolerance);
        let one =
            Compared { org: org.to_owned(), sandbox: sandbox.map(str::to_owned), bucket, drift, flagged };
        summary.add(&one);
        compared.push(one);
    }
    compared
}

/// The end of the last hour that can be compared at `now`.
#[must_use]
pub fn settled_end(now: Nanos) -> Nanos {
    let settled = now.saturating_sub(SETTLE).0;
    Nanos(settled - settled % HOUR.0)
}

/// The hours of `[from, to)`, the first and the last cut to it.
pub fn buckets(from: Nanos, to: Nanos) -> impl Iterator<Item = (Nanos, Nanos)> {
    let next = move |from: Nanos| {
        let hour_ends = (from.0 - from.0 % HOUR.0).saturating_add(HOUR.0);
        (from < to).then_some((from, Nanos(hour_ends).min(to)))
    };
    std::iter::successors(next(from), move |(_, end)| next(*end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(org: &str, sandbox: &str, cell: u128, edge: u128) -> SandboxTotal {
        SandboxTotal { org: org.into(), sandbox: sandbox.into(), cell: MibNanos(cell), edge: MibNanos(edge) }
    }

    fn drift(cell: u128, edge: u128) -> Drift {
        Drift { cell: MibNanos(cell), edge: MibNanos(edge) }
    }

    #[test]
    fn drift_is_exact_at_its_edges() {
        for (cell, edge, flagged, ratio, percent) in [
            (1000, 980, false, "-0.02", "-2%"),
            (1000, 979, true, "-0.021", "-2.1%"),
            (1000, 1020, false, "0.02", "+2%"),
            (1000, 1021, true, "0.021", "+2.1%"),
            (3900, 3800, true, "-0.025641", "-2.56%"),
            (1000, 0, true, "-1", "-100%"),
            (0, 1, true, "1", "+100%"),
            (0, 0, false, "0", "0%"),
            (1_000_000_000, 999_999_999, false, "0", "0%"),
            (u128::MAX, u128::MAX, false, "0", "0%"),
            (u128::MAX, u128::MAX / 100 * 87, true, "-0.13", "-1%"),
        ] {
            let drift = drift(cell, edge);
            assert_eq!(drift.exceeds(TOLERANCE), flagged, "{drift:?}");
            assert_eq!(drift.ratio(), ratio, "{drift:?}");
            // Percent of what no ledger holds stops at the type's end.
            if cell < u128::MAX / 100 {
                assert_eq!(drift.percent(), percent, "{drift:?}");
            }
        }
    }

    #[test]
    fn free_orgs_are_skipped_once_and_unknown_plans_checked() {
        let plans =
            BTreeMap::from([("free".to_owned(), "free".to_owned()), ("pro".to_owned(), "pro".to_owned())]);
        let totals = [
            total("free", "a", 1000, 0),
            total("free", "b", 1000, 0),
            total("pro", "c", 1000, 900),
            total("pro", "d", 1000, 1100),
            total("unknown", "e", 0, 5),
            total("unknown", "f", 0, 0),
        ];
        let mut summary = Summary::default();
        let by_org = check(Nanos(0), &totals, &plans, By::Org, TOLERANCE, &mut summary);
        let flags: Vec<_> = by_org.iter().map(|one| (one.org.as_str(), one.flagged)).collect();
        assert_eq!(flags, [("pro", false), ("unknown", true)]);
        assert_eq!(summary.to_string(), "checked=2 flagged=1 skipped_free=1 worst=+100%");

        let mut summary = Summary::default();
        let by_sandbox = check(Nanos(0), &totals, &plans, By::Sandbox, TOLERANCE, &mut summary);
        assert_eq!(by_sandbox.iter().filter(|one| one.flagged).count(), 3);
        assert_eq!(summary.skipped_free, 1);
    }

    #[test]
    fn the_worst_is_by_part_whatever_its_sign() {
        let mut summary = Summary::default();
        for (cell, edge) in [(1000, 990), (10, 8), (1_000_000, 1_100_000), (1000, 1150)] {
            summary.add(&Compared {
                org: String::new(),
                sandbox: None,
                bucket: Nanos(0),
                drift: drift(cell, edge),
                flagged: false,
            });
        }
        assert_eq!(summary.worst, Some(drift(10, 8)));
        assert!(drift(0, 1).is_worse_than(&drift(100, 199)));
        assert!(!drift(0, 1).is_worse_than(&drift(100, 200)));
        assert!(drift(100, 400).is_worse_than(&drift(0, 1)), "+300 %");
    }

    #[test]
    fn hours_are_cut_to_the_window() {
        let hour = HOUR.0;
        let cut = |from, to| buckets(Nanos(from), Nanos(to)).map(|(a, b)| (a.0, b.0)).collect::<Vec<_>>();
        assert_eq!(cut(0, 2 * hour), [(0, hour), (hour, 2 * hour)]);
        assert_eq!(cut(hour - 1, hour + 1), [(hour - 1, hour), (hour, hour + 1)]);
        assert_eq!(cut(5, 5), []);
        assert_eq!(cut(6, 5), []);
        assert_eq!(cut(u64::MAX - 1, u64::MAX), [(u64::MAX - 1, u64::MAX)]);
        assert_eq!(settled_end(Nanos(hour + SETTLE.0)), Nanos(hour));
        assert_eq!(settled_end(Nanos(hour + SETTLE.0 - 1)), Nanos(0));
        assert_eq!(settled_end(Nanos(0)), Nanos(0));
    }
}
