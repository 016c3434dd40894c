//! What a host finds when it holds the books against each other.

use super::evidence::Totals;
use super::size::Size;
use crate::units::{Bytes, MilliCpu, Nanos};
use crate::wire::message::Id;
use serde::Serialize;

/// Findings of one kind are recorded at most so often, for a guest must not fill the ledger: one may wait so long for its
/// record.
pub const RECORD_PAUSE: Nanos = Nanos::from_secs(60);

/// One finding about one piece of evidence. A decision has a set of them; only [`Verdict::Impossible`] and an unnamed
/// [`Verdict::Rollback`] block crediting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// The books are within tolerance.
    Agree,
    /// Nothing new in it.
    Duplicate,
    /// Of an earlier epoch: credited only by what raises that epoch's maximum.
    StaleEpoch {
        /// By how much it did.
        raised: Nanos,
    },
    /// Plugged is not what was requested, and it is early yet.
    PlugPending(Plug),
    /// Plugged is less than was requested, after the settle time.
    PlugPartial(Plug),
    /// Plugged is more than was requested, after the settle time: an unplug failed.
    PlugExcess(Plug),
    /// A span that ended without confirmation is billed as requested.
    RequestedOnly {
        /// How long it was.
        span: Nanos,
        /// At what.
        size: Size,
    },
    /// A counter is behind the mark or its own epoch.
    Rollback {
        /// By how much.
        behind: Totals,
        /// Whether the host has named it since: then it is credited.
        named: bool,
    },
    /// This boot is another sandbox's too.
    Clone {
        /// Whose.
        of: String,
    },
    /// A new boot: the counters began again.
    Reset {
        /// Which.
        boot_id: Id,
    },
    /// Time that the guest did not count, or nobody named.
    Gap {
        /// Why.
        cause: GapCause,
        /// How much; zero where it is unknown.
        active: Nanos,
    },
    /// The guest's book is below the host's by more than tolerance.
    GuestLow(Books),
    /// The guest's book is above the host's by more than tolerance.
    GuestHigh(Books),
    /// This memory has no price.
    OffTier {
        /// In MiB.
        memory_mib: u64,
    },
    /// No VM can have done this in that time.
    Impossible(Impossible),
}

/// Requested and plugged memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Plug {
    /// Boot memory + what virtio-mem is to give, in MiB.
    pub requested_mib: u64,
    /// Boot memory + what virtio-mem has given, in MiB.
    pub plugged_mib: u64,
    /// How long ago it was requested.
    pub since: Nanos,
}

/// Both books of one epoch up to the evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Books {
    /// The host's intervals × billed capacity.
    pub host: Totals,
    /// What the guest counted.
    pub guest: Totals,
    /// How far running time may be apart.
    pub tolerance: Nanos,
}

/// Why a guest did not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GapCause {
    /// A slice was longer than its cap: the guest was starved, or paused without a word.
    Cap,
    /// A resume without a checkpoint: how much of the time before it ran, nobody knows.
    Resume,
    /// Before the agent's first look: it began late, or anew without its state.
    Start,
    /// Nobody had named the guest.
    Unnamed,
    /// A full ring dropped segments.
    SegmentsLost,
    /// A pause that nobody announced: the guest noticed what may be one, or the VMM says so. How long, nobody knows.
    Pause,
}

/// What cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Impossible {
    /// More guest time than the host's clock allows.
    Time {
        /// Guest time.
        claimed: Nanos,
        /// Host time, with allowance.
        limit: Nanos,
    },
    /// More memory than boot + device maximum.
    Memory {
        /// What the guest says.
        claimed: Bytes,
        /// What the VMM says is possible.
        limit: Bytes,
    },
    /// More CPU than vCPUs.
    Cpu {
        /// What the guest says.
        claimed: MilliCpu,
        /// What the VMM says is possible.
        limit: MilliCpu,
    },
}

impl Verdict {
    /// Its name, as reports and metrics spell it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Agree => "agree",
            Self::Duplicate => "duplicate",
            Self::StaleEpoch { .. } => "stale_epoch",
            Self::PlugPending(_) => "plug_pending",
            Self::PlugPartial(_) => "plug_partial",
            Self::PlugExcess(_) => "plug_excess",
            Self::RequestedOnly { .. } => "requested_only",
            Self::Rollback { .. } => "rollback",
            Self::Clone { .. } => "clone",
            Self::Reset { .. } => "reset",
            Self::Gap { .. } => "gap",
            Self::GuestLow(_) => "guest_low",
            Self::GuestHigh(_) => "guest_high",
            Self::OffTier { .. } => "off_tier",
            Self::Impossible(_) => "impossible",
        }
    }

    /// Whether the evidence is credited nothing.
    #[must_use]
    pub fn blocks(&self) -> bool {
        matches!(self, Self::Impossible(_) | Self::Rollback { named: false, .. })
    }
}

/// Verdicts as they are found; not looked for where nobody will hear of them.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What was found.
    pub verdicts: Vec<Verdict>,
    /// Whether evidence is only put in its place again.
    pub unheard: bool,
}

impl Found {
    pub fn unheard() -> Self {
        Self { verdicts: Vec::new(), unheard: true }
    }

    pub fn push(&mut self, verdict: Verdict) {
        if !self.unheard {
            self.verdicts.push(verdict);
        }
    }
}
