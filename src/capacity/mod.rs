//! Facts in, capacity out: what the VM really has, with how sure that is.
//!
//! [`Memory`] and [`Cpu`] travel inside [`crate::wire`] reports, so their fields are frozen with protocol version 1.

mod counter;
mod cpu;
mod derive;
mod name;
mod remark;
mod stated;
#[cfg(test)]
mod tests;
mod tracker;

pub use cpu::{CpuCounters, effective, entitlement, limits_remarks};
pub use derive::layout_agrees;
pub use remark::Remark;
pub use stated::Stated;
pub use tracker::{Baseline, Scan, ScanReason, SettleTimes, Tracker};

use crate::units::{Bytes, MilliCpu, Nanos};
use serde::{Deserialize, Serialize};

/// What the VM has at one instant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// Memory, by the four numbers that are never one.
    pub memory: Memory,
    /// CPU entitlement and what was made of it.
    pub cpu: Cpu,
}

/// The memory numbers of one reading. `None` is unknown, never zero.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Nominal boot RAM, virtio-mem excluded.
    pub boot: Option<Bytes>,
    /// How sure `boot` is.
    pub boot_precision: Option<BootPrecision>,
    /// What the VMM asks of virtio-mem now: the device's word, else the host's.
    pub requested: Option<Bytes>,
    /// What virtio-mem has given. Where `precision` is bounded this is `upper`: offlining memory lowers no bill.
    pub plugged: Option<Bytes>,
    /// Virtio-mem memory that Linux has added: an upper bound of `plugged`.
    pub added: Option<Bytes>,
    /// The part of `plugged` that Linux can allocate from.
    pub online: Option<Bytes>,
    /// Span of virtio-mem memory blocks that are offline.
    pub offline: Option<Bytes>,
    /// Held by a virtio balloon.
    pub ballooned: Option<Bytes>,
    /// `MemTotal` of the kernel.
    pub mem_total: Option<Bytes>,
    /// Where `plugged` stands against `requested`.
    pub state: MemoryState,
    /// Whether `plugged` is exact.
    pub precision: Precision,
    /// The least that `plugged` can be.
    pub lower: Option<Bytes>,
    /// The most that `plugged` can be.
    pub upper: Option<Bytes>,
    /// What the numbers were taken from.
    pub sources: Vec<Source>,
}

/// The CPU numbers of one reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// CPUs that are online.
    pub online: Option<u32>,
    /// The tightest visible cgroup quota; `None` is no quota.
    pub quota: Option<MilliCpu>,
    /// cgroup v2 `cpu.weight` (1–10000): relative, never a cap.
    pub weight: Option<u32>,
    /// cgroup v1 `cpu.shares`: relative, never a cap.
    pub shares: Option<u32>,
    /// The entitlement: min(1000 · |online ∩ allowed|, quota).
    pub effective: MilliCpu,
    /// CPU time used by the watched cgroup, else by the whole guest.
    pub usage: Option<Nanos>,
    /// CPU time the host withheld.
    pub steal: Option<Nanos>,
    /// Time the watched cgroup was throttled.
    pub throttled: Option<Nanos>,
}

/// Where `plugged` stands against `requested`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemoryState {
    /// As requested, or unchanged over the quiet time where the request is unknown.
    Settled,
    /// Growing towards the request.
    Plugging,
    /// Shrinking towards the request.
    Unplugging,
    /// Came to rest below the request.
    Short,
    /// Came to rest above the request.
    Over,
    /// Not enough is known to say.
    Unknown,
}

/// How sure `plugged` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precision {
    /// Equal to the device's number, to the byte.
    Exact,
    /// Somewhere in `lower..=upper`.
    Bounded,
}

/// How sure the size of boot RAM is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BootPrecision {
    /// To the MiB.
    Exact,
    /// Firmware, a device tree or an unreadable entry keeps some of it.
    LowerBound,
    /// Whole memory blocks, of which the last may be there in part.
    UpperBound,
}

/// What a number was taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Source {
    /// `/sys/firmware/memmap`.
    FirmwareMemmap,
    /// The device tree's memory nodes.
    DeviceTree,
    /// The host said so.
    Host,
    /// `/proc/iomem`, with addresses.
    Iomem,
    /// `/sys/devices/system/memory`.
    MemoryBlocks,
    /// `/proc/zoneinfo`.
    Zoneinfo,
    /// `/proc/kpageflags`.
    Kpageflags,
    /// A baseline saved earlier in this boot.
    SavedBaseline,
    /// `/proc/meminfo`.
    Meminfo,
    /// `/proc/vmstat`.
    Vmstat,
    /// virtio-mem's configuration space.
    DeviceConfig,
    /// `/sys/bus/virtio/devices`: that there is no virtio-mem.
    VirtioBus,
}

impl Memory {
    /// The billing number: boot + plugged.
    #[must_use]
    pub fn total(&self) -> Option<Bytes> {
        self.boot?.checked_add(self.plugged?)
    }
}
