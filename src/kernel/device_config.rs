//! virtio-mem's own word, read through the PCI configuration access capability (virtio spec 4.1.4.9).
//!
//! Mapping the BAR fails under `CONFIG_IO_STRICT_DEVMEM`; this window works with the driver bound. It writes the
//! window's address to configuration space, so it is opt-in. The ISR register is never touched: reading clears it.

use super::file::{KernelError, KernelFile};
use crate::units::Bytes;

/// Vendor-specific PCI capability.
const PCI_CAP_VENDOR: u8 = 0x09;
/// `VIRTIO_PCI_CAP_COMMON_CFG`, `…_DEVICE_CFG`, `…_PCI_CFG`.
const CAP_COMMON: u8 = 1;
const CAP_DEVICE: u8 = 4;
const CAP_WINDOW: u8 = 5;
/// `config_generation` in `struct virtio_pci_common_cfg`.
const CONFIG_GENERATION: u32 = 21;
/// How often a torn reading is tried again.
const TRIES: u32 = 8;

/// `struct virtio_mem_config`, as far as it is used (virtio spec 5.15.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceConfig {
    /// The device's granularity.
    pub block_size: Bytes,
    /// Where its region begins.
    pub address: u64,
    /// How long its region is.
    pub region_size: Bytes,
    /// What it has given.
    pub plugged: Bytes,
    /// What it was asked to give.
    pub requested: Bytes,
}

/// The window into one device.
#[derive(Debug)]
pub struct Window {
    file: KernelFile,
    at: u64,
    common: Place,
    device: Place,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    bar: u8,
    offset: u32,
}

impl Window {
    /// Finds the capabilities in the configuration space that `file` is.
    ///
    /// # Errors
    /// It cannot be read (unprivileged readers get 64 bytes) or has no such capability.
    pub fn new(file: KernelFile) -> Result<Self, KernelError> {
        let mut space = [0; 256];
        let read = file.read_at(&mut space, 0)?;
        if read < space.len() {
            return Err(
                file.parse_error(format!("only {read} of 256 bytes are readable: needs CAP_SYS_ADMIN"))
            );
        }
        let (mut common, mut device, mut window) = (None, None, None);
        let mut at = usize::from(space[0x34] & 0xFC);
        for _ in 0..48 {
            let Some(capability) = space.get(at..).and_then(|tail| tail.first_chunk::<20>()) else { break };
            let &[id, next, _, kind, bar, _, _, _, o0, o1, o2, o3, ..] = capability;
            let place = Place { bar, offset: u32::from_le_bytes([o0, o1, o2, o3]) };
            match (id, kind) {
                (PCI_CAP_VENDOR, CAP_COMMON) => common = common.or(Some(place)),
                (PCI_CAP_VENDOR, CAP_DEVICE) => device = device.or(Some(place)),
                (PCI_CAP_VENDOR, CAP_WINDOW) => window = window.or(Some(at as u64)),
                _ => {}
            }
            at = usize::from(next & 0xFC);
            if at == 0 {
                break;
            }
        }
        match (common, device, window) {
            (Some(common), Some(device), Some(at)) => Ok(Self { file, at, common, device }),
            _ => Err(file.parse_error("no virtio PCI configuration access capability")),
        }
    }

    /// Reads the device's configuration, whole.
    ///
    /// # Errors
    /// The window cannot be used, or the configuration changed under every reading.
    pub fn read(&self) -> Result<DeviceConfig, KernelError> {
        for _ in 0..TRIES {
            let before = self.word(self.common, CONFIG_GENERATION, 1)?;
            let config = DeviceConfig {
                block_size: Bytes(self.long(0x00)?),
                address: self.long(0x10)?,
                region_size: Bytes(self.long(0x18)?),
                plugged: Bytes(self.long(0x28)?),
                requested: Bytes(self.long(0x30)?),
            };
            // The plugged size is the driver's own doing and bumps no generation: read it twice instead.
            let steady = self.long(0x28)? == config.plugged.0;
            if steady && self.word(self.common, CONFIG_GENERATION, 1)? == before {
                return self.check(config);
            }
        }
        Err(KernelError::Unstable { path: self.file.path().to_owned(), tries: TRIES })
    }

    fn check(&self, config: DeviceConfig) -> Result<DeviceConfig, KernelError> {
        let sane = config.block_size.0.is_power_of_two()
            && config.region_size <= Bytes::PHYSICAL_MAX
            && config.plugged <= config.region_size
            && config.requested <= config.region_size;
        if sane {
            Ok(config)
        } else {
            Err(self.file.parse_error(format!("absurd configuration: {config:?}")))
        }
    }

    /// A 64-bit field, as two halves.
    fn long(&self, offset: u32) -> Result<u64, KernelError> {
        let low = self.word(self.device, offset, 4)?;
        let high = self.word(self.device, offset + 4, 4)?;
        Ok(u64::from(low) | u64::from(high) << 32)
    }

    /// `struct virtio_pci_cfg_cap`: bar @4, offset @8, length @12, data window @16.
    fn word(&self, place: Place, offset: u32, length: u32) -> Result<u32, KernelError> {
        self.file.write_at(&[place.bar], self.at + 4)?;
        self.file.write_at(&place.offset.saturating_add(offset).to_le_bytes(), self.at + 8)?;
        self.file.write_at(&length.to_le_bytes(), self.at + 12)?;
        let mut data = [0; 4];
        let wanted = usize::try_from(length).unwrap_or(4).min(4);
        let at = usize::try_from(self.at + 16).unwrap_or(usize::MAX);
        let buffer = data.get_mut(..wanted).unwrap_or_default();
        if self.file.read_at(buffer, at)? != wanted {
            return Err(self.file.parse_error("the data window is cut short"));
        }
        Ok(u32::from_le_bytes(data))
    }
}
