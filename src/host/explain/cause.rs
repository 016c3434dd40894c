//! Why two books differ, by name.

use crate::host::reconcile::Size;
use crate::units::Nanos;
use serde::Serialize;
use std::ops::{Add, AddAssign, Sub};

/// Why two books differ, or are both wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The org's plan is not in the edge's book at all.
    FreeOrg,
    /// Samples of one fixed length, whatever the time between them.
    ConstantInterval,
    /// Two hosts counted at once.
    Migration,
    /// The same time is in a book twice.
    Duplicate,
    /// Usage of a part of an hour is spread over all of it.
    Smeared,
    /// Each sample is cut to whole seconds.
    TruncatedTicks,
    /// What a cap drops came back through the carry.
    CarryThroughCap,
    /// The guest left out what was more than its cap.
    Cap,
    /// The VM was paused, and nobody said so.
    UnannouncedPause,
    /// The guest ran without a name, for instance after its agent had lost its state.
    Unnamed,
    /// The host worker began anew and did not know where it had been.
    WorkerRestart,
    /// A row goes on over a pause.
    PausedBilled,
    /// A row was left open after the VM had stopped.
    RowLeftOpen,
    /// The guest was heard, but there are no samples.
    SilentGuest,
    /// The guest went back to an older snapshot under the same name; its counter had to catch up.
    Rollback,
    /// The counter began again with a cold boot.
    ColdBoot,
    /// Samples after a resume had ids that were there already, and were dropped.
    SampleIdsReused,
    /// The VM ran without a row.
    MissingRow,
    /// Samples go on after the VM had stopped.
    Ghost,
    /// A clone was charged for what its parent had used.
    ClonePast,
    /// A row after a resume has another size than the VM.
    WakeSize,
    /// A row has another size than the VM.
    WrongSize,
    /// More was requested, and came late.
    LatePlug,
    /// More was requested, and never came.
    PartialPlug,
    /// Less was requested, and the guest kept what it had.
    UnplugUnfinished,
    /// The row's CPU is a share derived from its memory.
    CpuDerived,
    /// The row's CPU is another one than the VM's.
    CpuDiffers,
    /// Another system charged for time outside of the window.
    WindowClip,
    /// Another system charged something else, for no known cause.
    ChargeDiffers,
    /// Memory without a price.
    OffTier,
    /// For no known cause.
    Unexplained,
}

/// Amounts that may be negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Running time, in ns.
    pub active_ns: i128,
    /// Memory × time, in MiB · ns.
    pub memory_mib_ns: i128,
    /// CPU × time, in millicpu · ns.
    pub cpu_millis_ns: i128,
}

/// A cause, and what it comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Why.
    pub cause: Cause,
    /// What the edge's book has beyond the cell's through it; of a charge, what it has beyond the cell's book; of
    /// memory without a price, what goes for nothing.
    pub amount: Amount,
    /// Where, merged; at most [`SPANS_MAX`].
    pub spans: Vec<(Nanos, Nanos)>,
}

/// The most spans that one finding lists.
pub const SPANS_MAX: usize = 100;

impl Cause {
    /// Its name, as JSON spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::FreeOrg => "free_org",
            Self::ConstantInterval => "constant_interval",
            Self::Migration => "migration",
            Self::Duplicate => "duplicate",
            Self::Smeared => "smeared",
            Self::TruncatedTicks => "truncated_ticks",
            Self::CarryThroughCap => "carry_through_cap",
            Self::Cap => "cap",
            Self::UnannouncedPause => "unannounced_pause",
            Self::Unnamed => "unnamed",
            Self::WorkerRestart => "worker_restart",
            Self::PausedBilled => "paused_billed",
            Self::RowLeftOpen => "row_left_open",
            Self::SilentGuest => "silent_guest",
            Self::Rollback => "rollback",
            Self::ColdBoot => "cold_boot",
            Self::SampleIdsReused => "sample_ids_reused",
            Self::MissingRow => "missing_row",
            Self::Ghost => "ghost",
            Self::ClonePast => "clone_past",
            Self::WakeSize => "wake_size",
            Self::WrongSize => "wrong_size",
            Self::LatePlug => "late_plug",
            Self::PartialPlug => "partial_plug",
            Self::UnplugUnfinished => "unplug_unfinished",
            Self::CpuDerived => "cpu_derived",
            Self::CpuDiffers => "cpu_differs",
            Self::WindowClip => "window_clip",
            Self::ChargeDiffers => "charge_differs",
            Self::OffTier => "off_tier",
            Self::Unexplained => "unexplained",
        }
    }

    /// What went wrong, for a person.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::FreeOrg => "the org's plan is not in the edge's book at all: there is nothing to compare",
            Self::ConstantInterval => {
                "each sample has the same fixed length, whatever the time since the last one"
            }
            Self::Migration => "two hosts counted the sandbox at the same time",
            Self::Duplicate => "the same time is in the book more than once",
            Self::Smeared => "usage of a part of an hour is spread over the whole hour",
            Self::TruncatedTicks => "each sample is cut to whole seconds, and the rest forgotten",
            Self::CarryThroughCap => "a sample that was cut to the cap still got what was carried into it",
            Self::Cap => "the guest was not looked at for longer than its cap, and counted the cap alone",
            Self::UnannouncedPause => {
                "the guest counted less than the host's interval: a pause that nobody announced"
            }
            Self::Unnamed => "the guest ran without a name: what it counted then is nobody's",
            Self::WorkerRestart => "the host worker began anew and did not know where it had been",
            Self::PausedBilled => "the cell's row goes on while the VM was paused",
            Self::RowLeftOpen => "the cell's row goes on after the VM had stopped",
            Self::SilentGuest => "the guest was heard of, but has no samples",
            Self::Rollback => "the guest went back to an older snapshot, and its counter had to catch up",
            Self::ColdBoot => "the VM booted anew instead of waking, and ran only from then on",
            Self::SampleIdsReused => {
                "samples after a resume had ids that were there already, and were dropped"
            }
            Self::MissingRow => "the VM ran, but the cell has no row for it",
            Self::Ghost => "samples go on after the VM had stopped",
            Self::ClonePast => "a clone was charged for what its parent had used before",
            Self::WakeSize => "the row after a resume has another size than the VM",
            Self::WrongSize => "the cell's row has another size than the VM",
            Self::LatePlug => "memory was requested, and came later than the row says",
            Self::PartialPlug => "memory was requested, and not all of it came",
            Self::UnplugUnfinished => "less memory was requested, and the guest kept what it had",
            Self::CpuDerived => "the row's CPU is a share derived from its memory, not what the VM has",
            Self::CpuDiffers => "the row's CPU is not what the VM has",
            Self::WindowClip => "the charge counts time of rows that lies outside of the window",
            Self::ChargeDiffers => "the charge is not what the cell's book says, for no known cause",
            Self::OffTier => "this memory is in no price tier: it is charged nothing",
            Self::Unexplained => "for no known cause",
        }
    }

    /// Whether its amount is a part of the difference between the two books.
    #[must_use]
    pub fn is_difference(self) -> bool {
        !matches!(self, Self::WindowClip | Self::ChargeDiffers | Self::OffTier)
    }
}

impl Amount {
    /// `size` over `span`.
    pub(super) fn of(size: Size, span: Nanos) -> Self {
        let span = i128::from(span.0);
        Self {
            active_ns: span,
            memory_mib_ns: i128::from(size.memory_mib) * span,
            cpu_millis_ns: i128::from(size.cpu.0) * span,
        }
    }
}

impl Add for Amount {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            active_ns: self.active_ns.saturating_add(other.active_ns),
            memory_mib_ns: self.memory_mib_ns.saturating_add(other.memory_mib_ns),
            cpu_millis_ns: self.cpu_millis_ns.saturating_add(other.cpu_millis_ns),
        }
    }
}

impl Sub for Amount {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            active_ns: self.active_ns.saturating_sub(other.active_ns),
            memory_mib_ns: self.memory_mib_ns.saturating_sub(other.memory_mib_ns),
            cpu_millis_ns: self.cpu_millis_ns.saturating_sub(other.cpu_millis_ns),
        }
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}
