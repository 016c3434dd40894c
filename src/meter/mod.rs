//! Capacity × time, exact: what one slice counts, drops and carries.
//!
//! The law, for each counter: `whole · unit + carry + dropped = observed + rebased`.

use crate::units::{ByteNanos, Bytes, MilliCpu, MilliCpuNanos, Nanos};
use serde::{Deserialize, Serialize};

/// Nanoseconds in a second: the unit of [`Usage::active`].
pub const ACTIVE_UNIT: u64 = 1_000_000_000;
/// byte·ns in a MiB·s: the unit of [`Usage::memory`].
pub const MEMORY_UNIT: u64 = (1 << 20) * 1_000_000_000;
/// millicpu·ns in a millicpu·s: the unit of [`Usage::cpu`].
pub const CPU_UNIT: u64 = 1_000_000_000;

/// Whole units and what is carried towards the next one; `carry < UNIT`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count<const UNIT: u64> {
    /// Whole units; never goes down.
    pub whole: u64,
    /// The fraction, in the smallest unit.
    pub carry: u64,
}

/// What a guest has used since its boot. Travels in reports: frozen with protocol version 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Running time: seconds + ns.
    pub active: Count<ACTIVE_UNIT>,
    /// Memory × time: MiB·s + byte·ns.
    pub memory: Count<MEMORY_UNIT>,
    /// CPU entitlement × time: millicpu·s + millicpu·ns.
    pub cpu: Count<CPU_UNIT>,
    /// Time inside holds: never counted.
    pub suspended: Nanos,
    /// Counted time in which a short pause may hide.
    pub uncertain: Nanos,
    /// Added to reach the host's high-water mark; not usage.
    pub rebased: Amounts,
    /// What caps and cuts left out.
    pub dropped: Amounts,
    /// Slices that dropped anything.
    pub gaps: u64,
    /// Slices in which the clock went backwards.
    pub anomalies: u64,
}

/// Amounts of the three counters in their smallest units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amounts {
    /// Running time.
    pub active: Nanos,
    /// Memory × time.
    pub memory: ByteNanos,
    /// CPU entitlement × time.
    pub cpu: MilliCpuNanos,
}

/// The capacity a slice is attributed to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// boot + plugged.
    pub memory: Bytes,
    /// Effective CPU entitlement.
    pub cpu: MilliCpu,
}

/// Why the meter is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// The first observation without a usable state.
    Start,
    /// The tick, or a request.
    Tick,
    /// The capacity changed.
    Capacity,
    /// The host is about to pause: count up to here, then hold.
    Checkpoint,
    /// A resume was noticed or named.
    Resume,
    /// A hold ends without a pause.
    Release,
}

/// The row of the table that a slice fell into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The first observation.
    First,
    /// The clock went backwards.
    Backwards,
    /// Held, and a resume.
    HeldResume,
    /// Held, and a jump past the cap that can only be a resume.
    HeldJump,
    /// Held, within the cap.
    Held,
    /// A resume across more than the cap.
    ResumeGap,
    /// A resume within the cap.
    ResumeShort,
    /// More than the cap, for no known cause.
    Capped,
    /// An ordinary slice.
    Plain,
}

/// One closed slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Its start, on the guest's monotonic clock; `None` for the first one.
    pub from: Option<Nanos>,
    /// Its end.
    pub to: Nanos,
    /// The capacity that held at its start.
    pub rate: Rate,
    /// Which rule applied.
    pub rule: Rule,
    /// Time counted.
    pub counted: Nanos,
    /// Dropped by this slice, an old carry included.
    pub dropped: Amounts,
    /// Time put to `suspended`.
    pub suspended: Nanos,
}

/// The meter: a value, saved and restored as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meter {
    tick: Nanos,
    last: Option<(Nanos, Rate)>,
    held: bool,
    usage: Usage,
}

impl Meter {
    /// A meter that has seen nothing.
    #[must_use]
    pub fn new(tick: Nanos) -> Self {
        Self { tick, last: None, held: false, usage: Usage::default() }
    }

    /// What has been counted so far.
    #[must_use]
    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    /// Closes the slice since the last observation and opens one at `now` with `rate`.
    pub fn observe(&mut self, _now: Nanos, _rate: Rate, _event: Event) -> Slice {
        unimplemented!("core engineer")
    }
}
