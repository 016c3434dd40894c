//! When a drift is worth waking somebody: more than a tenth and at least 100 GiB·s, two hours in a row; of three orgs or
//! more, the fault is not theirs.

use super::{By, Compared, PerMille};
use crate::host::ledger::usage::HOUR;
use crate::units::{MibNanos, Nanos};
use std::collections::BTreeSet;

/// More than this part.
pub const PART: PerMille = PerMille(100);
/// And at least this much: 100 GiB·s.
pub const AMOUNT: MibNanos = MibNanos(100 * 1024 * 1_000_000_000);
/// So many orgs at once are a fault of the platform.
pub const SYSTEMIC: usize = 3;

/// Somebody should look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alert {
    /// One org's books differ, in this hour and the one before.
    Org {
        /// Whose.
        org: String,
    },
    /// Many orgs' books differ, in this hour and the one before.
    Systemic {
        /// Those of this hour.
        orgs: Vec<String>,
    },
}

/// What the rule remembers: the hour before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    before: Option<(Nanos, BTreeSet<String>)>,
}

impl Rule {
    /// Judges the comparisons (by org) of the hour that begins at `bucket`. An hour that was left out breaks the row;
    /// the same hour again is judged against the one before it no more.
    pub fn judge(&mut self, bucket: Nanos, compared: &[Compared]) -> Vec<Alert> {
        let breaches = |one: &&Compared| one.drift.exceeds(PART) && one.drift.amount() >= AMOUNT;
        let now: BTreeSet<String> = compared.iter().filter(breaches).map(|one| one.org.clone()).collect();
        let before = match self.before.take() {
            Some((hour, orgs)) if hour.saturating_add(HOUR) == bucket => orgs,
            _ => BTreeSet::new(),
        };
        let alerts = if now.len() >= SYSTEMIC && before.len() >= SYSTEMIC {
            vec![Alert::Systemic { orgs: now.iter().cloned().collect() }]
        } else {
            now.intersection(&before).map(|org| Alert::Org { org: org.clone() }).collect()
        };
        self.before = Some((bucket, now));
        alerts
    }

    /// What [`Rule::judge`] must be given.
    pub const BY: By = By::Org;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::parity::Drift;

    const GIB_SECOND: u128 = 1024 * 1_000_000_000;

    fn compared(org: &str, cell_gib_seconds: u128, edge_gib_seconds: u128) -> Compared {
        let drift = Drift {
            cell: MibNanos(cell_gib_seconds * GIB_SECOND),
            edge: MibNanos(edge_gib_seconds * GIB_SECOND),
        };
        Compared { org: org.into(), sandbox: None, bucket: Nanos(0), drift, flagged: true }
    }

    fn hour(index: u64) -> Nanos {
        Nanos(index * HOUR.0)
    }

    fn org(name: &str) -> Alert {
        Alert::Org { org: name.into() }
    }

    #[test]
    fn two_hours_in_a_row_and_both_limits() {
        for (cell, edge, alerts) in [
            (1000, 890, vec![org("a")]),
            (1000, 1110, vec![org("a")]),
            (1000, 900, vec![]),
            (900, 801, vec![]),
            (0, 100, vec![org("a")]),
            (0, 99, vec![]),
        ] {
            let mut rule = Rule::default();
            assert_eq!(rule.judge(hour(1), &[compared("a", cell, edge)]), []);
            assert_eq!(rule.judge(hour(2), &[compared("a", cell, edge)]), alerts, "{cell} {edge}");
            assert_eq!(rule.judge(hour(3), &[compared("a", cell, edge)]), alerts, "it goes on");
            assert_eq!(rule.judge(hour(4), &[compared("a", 1000, 1000)]), []);
            assert_eq!(rule.judge(hour(5), &[compared("a", cell, edge)]), [], "the row is broken");
        }
    }

    #[test]
    fn an_hour_left_out_or_judged_again_is_no_row() {
        let bad = [compared("a", 1000, 0)];
        let mut rule = Rule::default();
        rule.judge(hour(1), &bad);
        assert_eq!(rule.judge(hour(3), &bad), []);
        assert_eq!(rule.judge(hour(3), &bad), []);
        assert_eq!(rule.judge(hour(4), &bad), [org("a")]);
    }

    #[test]
    fn three_orgs_are_one_systemic_alert() {
        let bad = |names: &[&str]| names.iter().map(|name| compared(name, 1000, 0)).collect::<Vec<_>>();
        let mut rule = Rule::default();
        rule.judge(hour(1), &bad(&["a", "b", "c"]));
        assert_eq!(rule.judge(hour(2), &bad(&["b", "c"])), [org("b"), org("c")]);
        assert_eq!(rule.judge(hour(3), &bad(&["x", "y", "z"])), [], "the hour before was not systemic");
        let orgs = vec!["p".to_owned(), "q".to_owned(), "r".to_owned()];
        assert_eq!(rule.judge(hour(4), &bad(&["p", "q", "r"])), [Alert::Systemic { orgs }], "whichever orgs");
    }
}
