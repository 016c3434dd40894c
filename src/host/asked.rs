//! How far the guest's clock is from the host's, by the midpoint of a request.

use crate::units::Nanos;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The host's clocks when it asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    instant: Instant,
    realtime: SystemTime,
}

impl Asked {
    pub(super) fn now() -> Self {
        Self { instant: Instant::now(), realtime: SystemTime::now() }
    }

    /// `None` for a host clock before 1970, or clocks further apart than 292 years.
    pub(super) fn skew_ns(&self, guest: Nanos) -> Option<i64> {
        let midpoint = self.realtime.checked_add(self.instant.elapsed() / 2)?;
        let host = i128::try_from(midpoint.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()?;
        i64::try_from(i128::from(guest.0) - host).ok()
    }
}
