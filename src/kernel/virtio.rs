//! `/sys/bus/virtio/devices`: the memory and balloon devices this guest was given.

use super::file::{KernelError, list, read_once};
use std::path::{Path, PathBuf};

/// Virtio device id of the traditional memory balloon (virtio spec 5.5).
const BALLOON: u32 = 5;
/// Virtio device id of virtio-mem (virtio spec 5.15).
const MEMORY: u32 = 24;
/// Device status (virtio spec 2.1): the driver runs.
const DRIVER_OK: u32 = 4;
/// The device gave up.
const NEEDS_RESET: u32 = 64;
/// The driver gave up.
const FAILED: u32 = 128;
/// `VIRTIO_BALLOON_F_DEFLATE_ON_OOM`: the feature's place in the `features` text.
const DEFLATE_ON_OOM: usize = 2;

/// What was found on the bus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VirtioDevices {
    /// virtio-mem devices: name (`virtio1`) and the `config` file of their PCI parent.
    pub memory: Vec<(String, PathBuf)>,
    /// Those that no driver runs, or whose id cannot be read: they may hold plugged memory that Linux does not know.
    pub without_driver: Vec<String>,
    /// Whether there is a balloon, and whether deflate-on-oom was negotiated.
    pub balloon: Option<BalloonDevice>,
}

/// A balloon device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BalloonDevice {
    /// Then inflating does not lower `managed`.
    pub deflate_on_oom: bool,
}

/// Reads the bus.
///
/// # Errors
/// The bus cannot be listed, or a balloon's features cannot be read. No bus at all is no device.
pub fn read(sys: &Path) -> Result<VirtioDevices, KernelError> {
    let directory = sys.join("bus/virtio/devices");
    let names = match list(&directory) {
        Ok(names) => names,
        Err(KernelError::Open { cause: rustix::io::Errno::NOENT, .. }) if sys.join("bus").is_dir() => {
            Vec::new()
        }
        Err(error) => return Err(error),
    };
    let mut found = VirtioDevices::default();
    for name in names {
        let device = directory.join(&name);
        let id = read_once(device.join("device")).ok();
        let id = id.and_then(|id| u32::from_str_radix(id.trim_start_matches("0x"), 16).ok());
        let Some(id) = id else {
            // It may be virtio-mem, unless it went away meanwhile.
            if device.exists() {
                found.without_driver.push(name);
            }
            continue;
        };
        match id {
            MEMORY => {
                if !has_driver(&device) {
                    found.without_driver.push(name.clone());
                }
                found.memory.push((name, device.join("../config")));
            }
            BALLOON => {
                let features = KernelFeatures::read(&device)?;
                found.balloon = Some(BalloonDevice { deflate_on_oom: features.has(DEFLATE_ON_OOM) });
            }
            _ => {}
        }
    }
    Ok(found)
}

/// A status that cannot be read is no word that one runs.
fn has_driver(device: &Path) -> bool {
    let status = read_once(device.join("status")).unwrap_or_default();
    let status = u32::from_str_radix(status.trim_start_matches("0x"), 16).unwrap_or(0);
    status & (DRIVER_OK | NEEDS_RESET | FAILED) == DRIVER_OK
}

/// The negotiated features, one character each.
struct KernelFeatures(String);

impl KernelFeatures {
    fn read(device: &Path) -> Result<Self, KernelError> {
        read_once(device.join("features")).map(Self)
    }

    fn has(&self, feature: usize) -> bool {
        self.0.as_bytes().get(feature) == Some(&b'1')
    }
}
