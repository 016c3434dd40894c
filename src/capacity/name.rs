//! How the enums are spelt, in `--once` and in JSON.

use super::{BootPrecision, MemoryState, Precision, Source};

impl MemoryState {
    /// Its spelling.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::Plugging => "plugging",
            Self::Unplugging => "unplugging",
            Self::Short => "short",
            Self::Over => "over",
            Self::Unknown => "unknown",
        }
    }
}

impl Precision {
    /// Its spelling.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Bounded => "bounded",
        }
    }
}

impl BootPrecision {
    /// Its spelling.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::LowerBound => "lower_bound",
            Self::UpperBound => "upper_bound",
        }
    }
}

impl Source {
    /// Its spelling.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FirmwareMemmap => "firmware_memmap",
            Self::DeviceTree => "device_tree",
            Self::Host => "host",
            Self::Iomem => "iomem",
            Self::MemoryBlocks => "memory_blocks",
            Self::Zoneinfo => "zoneinfo",
            Self::Kpageflags => "kpageflags",
            Self::SavedBaseline => "saved_baseline",
            Self::Meminfo => "meminfo",
            Self::Vmstat => "vmstat",
            Self::DeviceConfig => "device_config",
            Self::VirtioBus => "virtio_bus",
        }
    }
}
