//! Whether memory has settled, for one `WaitSettled`.

use super::Session;
use super::connection::Wait;
use super::note::Seconds;
use crate::capacity::Precision;
use crate::units::{Bytes, Nanos};
use crate::wire::message::{Refusal, RefusalCode, WaitSettled};

/// What one look decides.
#[derive(Debug)]
pub(super) enum Settled {
    Yes,
    NotYet(Wait),
    TooLate(Refusal),
}

impl Session {
    pub(super) fn wait(&self, now: Nanos, asked: WaitSettled) -> Wait {
        let timeout = asked.timeout.min(self.limits.settle_timeout_max);
        Wait {
            expected: asked.expected,
            quiet: asked.quiet,
            asked_at: now,
            until: now.saturating_add(timeout),
            next_look: now,
        }
    }

    /// Decides by the last observation. Quiet counts from the request: before it the host may not have asked for the
    /// change that it waits for.
    pub(super) fn settled(&self, now: Nanos, wait: Wait) -> Settled {
        let Some(seen) = &self.seen else { return Settled::NotYet(wait) };
        let memory = &seen.capacity.memory;
        let target = wait.expected.or(memory.requested);
        let reached = match target {
            Some(target) => (memory.lower, memory.upper) == (Some(target), Some(target)),
            None => now.saturating_sub(seen.unchanged_since.max(wait.asked_at)) >= wait.quiet,
        };
        if reached {
            return Settled::Yes;
        }
        if wait.until <= now {
            let plugged = match (memory.precision, memory.plugged) {
                (_, None) => "unknown".to_owned(),
                (Precision::Exact, Some(plugged)) => mib(plugged),
                (Precision::Bounded, Some(plugged)) => {
                    format!("{} to {}", mib(memory.lower.unwrap_or(Bytes::ZERO)), mib(plugged))
                }
            };
            let wanted = target.map_or_else(|| format!("{} without a change", Seconds(wait.quiet)), mib);
            let text = format!(
                "memory did not settle within {}: plugged {plugged}, expected {wanted}",
                Seconds(wait.until.saturating_sub(wait.asked_at))
            );
            return Settled::TooLate(RefusalCode::Timeout.because(text));
        }
        Settled::NotYet(Wait { next_look: now.saturating_add(self.limits.settle_poll), ..wait })
    }
}

/// MiB where that is exact.
fn mib(bytes: Bytes) -> String {
    if bytes.0.is_multiple_of(Bytes::MIB.0) {
        format!("{} MiB", bytes.0 / Bytes::MIB.0)
    } else {
        bytes.to_string()
    }
}
