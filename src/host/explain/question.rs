//! What is asked, and how close is close enough.

use crate::host::reconcile::{Policy, Tolerance};
use crate::units::Nanos;

/// Why do the books of a sandbox differ in `[from, to)`?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// From when on.
    pub from: Nanos,
    /// Until when, at most `now`.
    pub to: Nanos,
    /// Until when open rows go on.
    pub now: Nanos,
    /// How far apart the host lets the two books be.
    pub tolerance: Tolerance,
    /// Samples of the hours from here on may not be posted yet.
    pub settled: Nanos,
}

/// Samples are posted when their hour is over.
const HOUR: u64 = 3_600_000_000_000;

impl Question {
    /// Asked at `now`, with the host's policy.
    #[must_use]
    pub fn new(from: Nanos, to: Nanos, now: Nanos, policy: &Policy) -> Self {
        let over = now.saturating_sub(policy.hour_grace);
        Self {
            from,
            to: to.min(now),
            now,
            tolerance: policy.tolerance(),
            settled: Nanos(over.0 - over.0 % HOUR),
        }
    }

    /// One edge of a life, or one change of size, may be dated apart by so much.
    #[must_use]
    pub fn noise(&self) -> Nanos {
        self.tolerance.silence
    }
}
