//! The spans and shares that judging depends on, with their defaults.

use crate::units::{ByteNanos, Nanos};
use serde::{Deserialize, Serialize};

/// What a host decides by. One for a whole fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// The longest time between two observations of a healthy agent.
    pub tick: Nanos,
    /// The longest slice an agent counts whole: two ticks.
    pub cap: Nanos,
    /// How often the host asks.
    pub poll: Nanos,
    /// How long virtio-mem may take to give what was requested.
    pub settle: Nanos,
    /// How long after an hour's end its samples wait for a silent guest.
    pub hour_grace: Nanos,
    /// How far the two books may be apart, in thousandths of the host's.
    pub tolerance_permille: u32,
    /// How much faster than the host's a guest's clock may run, in thousandths.
    pub clock_permille: u32,
    /// Less than this between requested and plugged is rounding: the device gives whole blocks, in MiB.
    pub block_mib: u64,
    /// Memory sizes that have a price, in MiB; with none, every size has.
    pub tiers_mib: Vec<u64>,
    /// How much evidence can still be put in order, in pieces, at least. What comes later than that changes ends only.
    pub recent_max: usize,
}

/// How far the books of one epoch may be apart and still agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tolerance {
    /// One edge of a life may be dated apart by so much: one tick and one poll.
    pub silence: Nanos,
    /// A share of the host's interval, in thousandths.
    pub permille: u32,
    /// For each resume that nobody announced.
    pub cap: Nanos,
}

impl Tolerance {
    /// Of an interval of `host`, with so many resumes that nobody announced.
    #[must_use]
    pub fn of(&self, host: Nanos, unannounced: u32) -> Nanos {
        let share = Nanos(permille(host.0, self.permille));
        let caps = Nanos(self.cap.0.saturating_mul(u64::from(unannounced)));
        share.max(self.silence).saturating_add(caps)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            tick: Nanos::from_secs(5),
            cap: Nanos::from_secs(10),
            poll: Nanos::from_secs(5),
            settle: Nanos::from_secs(10),
            hour_grace: Nanos::from_secs(120),
            tolerance_permille: 20,
            clock_permille: 1,
            block_mib: 2,
            tiers_mib: Vec::new(),
            recent_max: 8,
        }
    }
}

impl Policy {
    /// How long a guest may be unheard of without being silent: one tick and one poll.
    #[must_use]
    pub fn silence(&self) -> Nanos {
        self.tick.saturating_add(self.poll)
    }

    /// How long the guest may have run within `span` of the host's clock.
    pub(super) fn stretched(&self, span: Nanos) -> Nanos {
        span.saturating_add(Nanos(permille(span.0, self.clock_permille)))
    }

    /// How far the books of an epoch may be apart.
    #[must_use]
    pub fn tolerance(&self) -> Tolerance {
        Tolerance { silence: self.silence(), permille: self.tolerance_permille, cap: self.cap }
    }

    /// The share of the host's book that the guest's may be apart from it.
    pub(super) fn share(&self, host: ByteNanos) -> ByteNanos {
        ByteNanos(host.0 / 1000 * u128::from(self.tolerance_permille))
    }
}

fn permille(of: u64, permille: u32) -> u64 {
    u64::try_from(u128::from(of) * u128::from(permille) / 1000).unwrap_or(u64::MAX)
}
