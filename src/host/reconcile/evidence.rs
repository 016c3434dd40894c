//! What a decision may rest on: what the guest says, what the VMM says, what the platform did.
//!
//! Instants are the host's, in ns since the Unix epoch. Any subset may come, in any order, doubled or late.

use super::size::{Confirmed, Requested};
use crate::units::{ByteNanos, Bytes, MilliCpuNanos, Nanos};
use crate::wire::message::{
    Boundary, Counters, EpochSource, Finding, Id, Reason, Report, Segment as WireSegment,
};
use serde::{Deserialize, Serialize};

/// One piece of evidence about one sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The guest answered. A notification is no evidence: the host dials back and takes the answer.
    Report(Told),
    /// The guest delivered a stretch that no host had acknowledged.
    Segment(Segment),
    /// The VMM answered.
    Vmm(Answer),
    /// The platform did something, or the host did to the guest.
    Lifecycle(Lifecycle),
    /// The host's clock: nothing else came before this instant that is not here yet.
    Clock(Nanos),
}

/// A guest's report, and what the host knows about how it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// What it says.
    pub claim: Claim,
    /// Another sandbox that this boot was seen under, or that the guest says it is.
    pub copy_of: Option<String>,
}

/// What a report claims, as far as it is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Its epoch's id; zero while nobody named it.
    pub epoch: Id,
    /// The boot it counts since.
    pub boot_id: Id,
    /// Its number within the epoch.
    pub seq: u64,
    /// Just before the request that fetched it was sent; `None` for one that was not asked for.
    pub asked: Option<Nanos>,
    /// Just after it was read.
    pub received: Nanos,
    /// Counted since boot.
    pub usage: Totals,
    /// Counted before the epoch.
    pub base: Totals,
    /// Dropped since boot.
    pub dropped: Nanos,
    /// Of that, before the epoch.
    pub dropped_base: Nanos,
    /// The capacity it confirms.
    pub size: Confirmed,
    /// Segments that a full ring has dropped, in this boot.
    pub segments_dropped: u64,
    /// Segments that wait for an ack.
    pub segments_waiting: u32,
    /// It answers a checkpoint: the count is held from here on.
    pub checkpoint: bool,
    /// The agent has begun anew within this boot.
    pub restarted: bool,
    /// The guest noticed what may be a pause that nobody announced.
    pub jumped: bool,
    /// The counters were raised to the host's mark in this epoch.
    pub rebased: bool,
}

/// The three counters in their smallest units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Running time.
    pub active: Nanos,
    /// Memory × time.
    pub memory: ByteNanos,
    /// CPU entitlement × time.
    pub cpu: MilliCpuNanos,
}

/// A stretch of an epoch that was told late, for instance by the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Its epoch's id.
    pub epoch: Id,
    /// The number of the first report that covers it.
    pub seq: u64,
    /// When it was read.
    pub received: Nanos,
    /// Counted since the epoch's base, at its end.
    pub usage: Totals,
    /// Whether the epoch ended with it.
    pub last: bool,
}

/// What the VMM says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// When it was read.
    pub received: Nanos,
    /// What the VM is doing.
    pub state: VmState,
    /// Boot memory + what virtio-mem has given.
    pub memory: Option<Bytes>,
    /// Boot memory + the most that virtio-mem can give.
    pub memory_max: Option<Bytes>,
    /// CPUs of the VM.
    pub vcpus: Option<u32>,
}

/// What a VM is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum VmState {
    /// It runs.
    Running,
    /// It is paused.
    Paused,
    /// There is no such VM.
    Gone,
}

/// What the platform did, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifecycle {
    /// When, by the platform's word.
    pub at: Nanos,
    /// What.
    pub call: Call,
}

/// A call around a VM's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Call {
    /// A cold boot.
    Started {
        /// The life that begins.
        epoch: Minted,
        /// What the VM is to have.
        size: Requested,
    },
    /// Another size was requested.
    Scaled {
        /// What the VM is to have.
        size: Requested,
    },
    /// A pause is about to begin.
    Pausing {
        /// The life that ends.
        epoch: Option<Id>,
    },
    /// A life begins: after a pause, or with `paused = false` where the VM ran on, as after a snapshot given up.
    Resumed {
        /// The life that begins.
        epoch: Minted,
        /// What the VM is to have; `None`: as before.
        size: Option<Requested>,
        /// Whether the VM was paused before.
        paused: bool,
    },
    /// The host named an unnamed guest of a VM that was running all along. No edge: the row stays.
    Named {
        /// The name.
        epoch: Minted,
    },
    /// The VM was ended.
    Destroyed {
        /// The life that ends.
        epoch: Option<Id>,
    },
}

/// An epoch as the ledger minted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Minted {
    /// Its id.
    pub id: Id,
    /// Its number.
    pub number: u64,
}

impl Claim {
    /// What `report` claims, asked for at `asked` and read at `received`.
    #[must_use]
    pub fn of(report: &Report, asked: Option<Nanos>, received: Nanos) -> Self {
        let named = report.identity.epoch.source == EpochSource::Host;
        let found = |finding| report.tail.findings.contains(&finding);
        let usage = &report.usage;
        let base = &report.base;
        Self {
            epoch: if named { report.identity.epoch.id } else { Id::default() },
            boot_id: report.identity.boot_id,
            seq: report.identity.seq,
            asked,
            received,
            usage: Totals::from(&Counters::from(usage)),
            base: Totals::from(&Counters::from(base)),
            dropped: usage.dropped.active,
            dropped_base: base.dropped.active,
            size: Confirmed { memory: report.memory.total(), cpu: Some(report.cpu.effective) },
            segments_dropped: report.tail.segments_dropped,
            segments_waiting: report.tail.segments_waiting,
            checkpoint: report.reason == Reason::Checkpoint && report.tail.held,
            restarted: report.reason == Reason::Boot,
            jumped: found(Finding::ClockJump) || found(Finding::ClockStep) || found(Finding::ConnectionReset),
            rebased: found(Finding::Rollback),
        }
    }

    /// Counted in its epoch.
    #[must_use]
    pub fn in_epoch(&self) -> Totals {
        self.usage.since(&self.base)
    }
}

impl Segment {
    /// `segment` as it was read at `received`.
    #[must_use]
    pub fn of(segment: &WireSegment, received: Nanos) -> Self {
        Self {
            epoch: segment.epoch.id,
            seq: segment.seq,
            received,
            usage: Totals::from(&segment.usage),
            last: segment.boundary == Boundary::Resume,
        }
    }
}

impl Totals {
    /// The difference, each part stopping at zero.
    #[must_use]
    pub fn since(&self, base: &Self) -> Self {
        Self {
            active: self.active.saturating_sub(base.active),
            memory: self.memory.saturating_sub(base.memory),
            cpu: self.cpu.saturating_sub(base.cpu),
        }
    }

    /// The sum, each part stopping at its type's end.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            active: self.active.saturating_add(other.active),
            memory: self.memory.saturating_add(other.memory),
            cpu: self.cpu.saturating_add(other.cpu),
        }
    }

    /// The greater of each part.
    #[must_use]
    pub fn max(&self, other: &Self) -> Self {
        Self {
            active: self.active.max(other.active),
            memory: self.memory.max(other.memory),
            cpu: self.cpu.max(other.cpu),
        }
    }
}

impl From<&Counters> for Totals {
    /// A forged count may be more than `active` holds: it stops there, and is found impossible.
    fn from(counters: &Counters) -> Self {
        Self {
            active: Nanos(u64::try_from(counters.active.total()).unwrap_or(u64::MAX)),
            memory: ByteNanos(counters.memory.total()),
            cpu: MilliCpuNanos(counters.cpu.total()),
        }
    }
}
