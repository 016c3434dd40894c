//! When a call happened, by the platform's word: brought into the worker's time, and refused where it cannot be.

use super::api::problem::Refusal;
use super::clock::Now;
use super::core::Core;
use super::order::Call;
use crate::host::ledger::PRUNE_AGE_MIN;
use crate::units::Nanos;

/// What a call may lie ahead of the machine's clock: it is another program's.
const AHEAD_MAX: Nanos = Nanos::from_secs(60);
/// And behind it: more is a wrong unit or a clock that was never set, and would be billed.
const BEHIND_MAX: Nanos = Nanos::from_secs(366 * 24 * 3600);

/// The call's instant in the worker's time, at most now.
pub(super) fn placed(asked: Nanos, now: &Now) -> Result<Nanos, Refusal> {
    let at = now.translate(asked);
    let fault = if at > now.unix.saturating_add(AHEAD_MAX) {
        let ahead = at.saturating_sub(now.unix).0 / Nanos::SECOND.0;
        format!("is {ahead} s ahead of this machine's clock, and {} s are the most", seconds(AHEAD_MAX))
    } else if at < now.unix.saturating_sub(BEHIND_MAX) {
        let behind = now.unix.saturating_sub(at).0 / Nanos::SECOND.0;
        format!("is {behind} s behind this machine's clock, and {} s are the most", seconds(BEHIND_MAX))
    } else {
        return Ok(at.min(now.unix));
    };
    Err(refused(asked, &fault))
}

impl Core {
    /// Nothing new begins in a time of which the ledger keeps hourly totals alone. What ended then may be said: what is
    /// left of it is cut.
    pub(super) async fn not_pruned(&self, call: Call, at: Nanos) -> Result<(), Refusal> {
        let ends = matches!(call, Call::Pausing | Call::Destroyed);
        // A prune never comes nearer.
        if ends || at > self.clock.now().unix.saturating_sub(PRUNE_AGE_MIN) {
            return Ok(());
        }
        let before = self.desk.pruned_before().await?;
        if at >= before {
            return Ok(());
        }
        let fault = format!(
            "is before {} ({}), and of that time only hourly totals are kept",
            before.0,
            text(before)
        );
        Err(refused(at, &fault))
    }
}

fn refused(at: Nanos, fault: &str) -> Refusal {
    Refusal::Data(format!("at: {} ({}) {fault}", at.0, text(at)))
}

fn seconds(span: Nanos) -> u64 {
    span.0 / Nanos::SECOND.0
}

fn text(at: Nanos) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(at.0))
        .map_or_else(|_| "beyond all years".to_owned(), |at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_right_is_refused_by_its_value_and_its_limit() {
        let now = Now {
            boot: Nanos(1),
            unix: Nanos::from_secs(1_780_000_000),
            offset_ns: 0,
            step: Default::default(),
        };
        let at =
            |seconds: u64| placed(Nanos::from_secs(seconds), &now).map_err(|refusal| refusal.to_string());
        assert_eq!(at(1_780_000_000).unwrap(), now.unix);
        assert_eq!(at(1_780_000_060).unwrap(), now.unix, "another program's clock");
        assert_eq!(at(1_780_000_000 - 366 * 86_400).unwrap(), Nanos::from_secs(1_780_000_000 - 366 * 86_400));
        assert_eq!(
            at(1_780_003_600).unwrap_err(),
            "at: 1780003600000000000 (2026-05-28T21:26:40Z) is 3600 s ahead of this machine's clock, and 60 s are the most"
        );
        // Seconds where nanoseconds were meant.
        assert_eq!(
            placed(Nanos(1_780_000_000), &now).unwrap_err().to_string(),
            "at: 1780000000 (1970-01-01T00:00:01.78Z) is 1779999998 s behind this machine's clock, and 31622400 s are the most"
        );
        assert!(placed(Nanos(u64::MAX), &now).is_err() && placed(Nanos::ZERO, &now).is_err());
    }
}
