//! Opens and parses kernel files: text in, [`MemoryFacts`] and [`CpuFacts`] out, each fact with its cause when missing.
//!
//! Rooted at a path, so that a fixture tree can stand in. Files are opened once and read again through the same
//! descriptors: one opened with privilege keeps what it was opened with.

mod blocks;
mod boot;
mod cgroup;
mod cpulist;
mod device_config;
pub(crate) mod file;
mod iomem;
mod kpageflags;
mod sources;
mod text;
mod virtio;
mod zoneinfo;

pub use blocks::{Block, Blocks};
pub use boot::BootMemory;
pub use cgroup::{CgroupFacts, CgroupIdentity};
pub use cpulist::CpuList;
pub use device_config::DeviceConfig;
pub use file::KernelError;
pub use iomem::{IoMemory, Span};
pub use sources::{Options, Roots, Sources};
pub use virtio::{BalloonDevice, VirtioDevices};
pub use zoneinfo::Zones;

use crate::units::{Bytes, Nanos};
use std::sync::Arc;

/// Everything about memory that one reading found.
#[derive(Clone, Debug)]
pub struct MemoryFacts {
    /// Bytes of a page.
    pub page_size: u64,
    /// What changes with a hotplug event only.
    pub layout: Arc<Layout>,
    /// `/proc/iomem`; `None` where addresses are hidden.
    pub iomem: Result<Option<IoMemory>, KernelError>,
    /// `/proc/zoneinfo`.
    pub zones: Result<Zones, KernelError>,
    /// Whether two readings of zoneinfo around all the others were equal.
    pub steady: bool,
    /// `MemTotal`.
    pub mem_total: Result<Bytes, KernelError>,
    /// What the balloon holds; `None` without a balloon.
    pub ballooned: Option<Result<Bytes, KernelError>>,
    /// The devices' own word, where it was asked for.
    pub device_config: Option<Result<Vec<DeviceConfig>, KernelError>>,
}

impl MemoryFacts {
    /// Whether `later` finds the same, by all that moves with memory.
    fn is_again(&self, later: &Self) -> bool {
        self.mem_total.is_ok()
            && self.mem_total == later.mem_total
            && self.zones == later.zones
            && self.ballooned == later.ballooned
            && self.iomem == later.iomem
            && self.device_config == later.device_config
            && Arc::ptr_eq(&self.layout, &later.layout)
    }
}

/// What changes with a hotplug event only.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Boot RAM.
    pub boot: Result<BootMemory, KernelError>,
    /// Memory blocks.
    pub blocks: Result<Blocks, KernelError>,
    /// Virtio devices.
    pub virtio: Result<VirtioDevices, KernelError>,
}

/// Everything about CPUs that one reading found.
#[derive(Clone, Debug)]
pub struct CpuFacts {
    /// `/sys/devices/system/cpu/online`.
    pub online: Result<CpuList, KernelError>,
    /// CPUs this process may run on: never zero.
    pub affinity: u32,
    /// A cgroup was named: the whole guest's use is not its.
    pub named: bool,
    /// The watched cgroup.
    pub cgroup: Result<CgroupFacts, KernelError>,
    /// `steal` of the `cpu` line of `/proc/stat`, and all time that was not idle.
    pub stat: Result<CpuStat, KernelError>,
}

/// Two sums of the `cpu` line of `/proc/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuStat {
    /// Time the host withheld.
    pub steal: Nanos,
    /// Time the guest ran.
    pub busy: Nanos,
}
