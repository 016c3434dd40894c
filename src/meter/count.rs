//! Whole units with an exact carry, and the set of them that a guest is billed from.

use crate::units::{ByteNanos, MilliCpuNanos, Nanos};
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
    /// CPU time that was used. No build counts it yet: zero.
    pub cpu_used: Nanos,
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

/// Amounts of the counters in their smallest units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amounts {
    /// Running time.
    pub active: Nanos,
    /// Memory × time.
    pub memory: ByteNanos,
    /// CPU entitlement × time.
    pub cpu: MilliCpuNanos,
    /// CPU time that was used.
    pub cpu_used: Nanos,
}

impl<const UNIT: u64> Count<UNIT> {
    /// Everything counted, in the smallest unit.
    #[must_use]
    pub fn total(&self) -> u128 {
        u128::from(self.whole) * u128::from(UNIT) + u128::from(self.carry)
    }

    /// `total` smallest units. `whole` stops at `u64::MAX`.
    #[must_use]
    pub fn from_total(total: u128) -> Self {
        let mut count = Self::default();
        count.add(total);
        count
    }

    /// Adds `amount` smallest units. `whole` stops at `u64::MAX`, which 4 PiB reach after 136 years.
    pub(super) fn add(&mut self, amount: u128) {
        let unit = u128::from(UNIT);
        let fraction = u128::from(self.carry) + amount % unit;
        let whole = amount / unit + fraction / unit;
        self.whole = self.whole.saturating_add(u64::try_from(whole).unwrap_or(u64::MAX));
        self.carry = u64::try_from(fraction % unit).unwrap_or(0);
    }

    /// Takes the carry out, so that a cap cannot be undone by what was carried into it.
    pub(super) fn take_carry(&mut self) -> u64 {
        std::mem::take(&mut self.carry)
    }
}

impl Usage {
    /// What was counted beyond `base`, which is of the same epoch and so never ahead.
    #[must_use]
    pub fn since(&self, base: &Self) -> Counters {
        Counters {
            active: Count::from_total(self.active.total().saturating_sub(base.active.total())),
            memory: Count::from_total(self.memory.total().saturating_sub(base.memory.total())),
            cpu: Count::from_total(self.cpu.total().saturating_sub(base.cpu.total())),
            cpu_used: self.cpu_used.saturating_sub(base.cpu_used),
        }
    }

    /// Raises the counters without usage, and says so in `rebased`.
    pub(crate) fn raise(&mut self, by: Amounts) {
        self.active.add(u128::from(by.active.0));
        self.memory.add(by.memory.0);
        self.cpu.add(by.cpu.0);
        self.cpu_used = self.cpu_used.saturating_add(by.cpu_used);
        self.rebased = self.rebased.saturating_add(by);
    }
}

/// The counters alone. Travels in marks and segments: frozen with protocol version 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Running time.
    pub active: Count<ACTIVE_UNIT>,
    /// Memory × time.
    pub memory: Count<MEMORY_UNIT>,
    /// CPU entitlement × time.
    pub cpu: Count<CPU_UNIT>,
    /// CPU time that was used.
    pub cpu_used: Nanos,
}

impl From<&Usage> for Counters {
    fn from(usage: &Usage) -> Self {
        Self { active: usage.active, memory: usage.memory, cpu: usage.cpu, cpu_used: usage.cpu_used }
    }
}

impl Amounts {
    /// The sum, each part stopping at its type's end.
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self {
            active: self.active.saturating_add(other.active),
            memory: self.memory.saturating_add(other.memory),
            cpu: self.cpu.saturating_add(other.cpu),
            cpu_used: self.cpu_used.saturating_add(other.cpu_used),
        }
    }

    /// Whether there is nothing in any part.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}
