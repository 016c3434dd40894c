//! `/sys/bus/virtio/devices`: the memory and balloon devices this guest was given.

use super::file::{KernelError, list, read_once};
use std::path::{Path, PathBuf};

/// Virtio device id of the traditional memory balloon (virtio spec 5.5).
const BALLOON: u32 = 5;
/// Virtio device id of virtio-mem (virtio spec 5.15).
const MEMORY: u32 = 24;
/// `VIRTIO_BALLOON_F_DEFLATE_ON_OOM`: the feature's place in the `features` text.
const DEFLATE_ON_OOM: usize = 2;

/// What was found on the bus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VirtioDevices {
    /// virtio-mem devices: name (`virtio1`) and the `config` file of their PCI parent.
    pub memory: Vec<(String, PathBuf)>,
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
/// The bus cannot be listed, or a device's id is no number. No bus at all is no device.
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
        let id_path = device.join("device");
        let id = read_once(&id_path)?;
        let id = u32::from_str_radix(id.trim_start_matches("0x"), 16)
            .map_err(|_| KernelError::Parse { path: id_path, what: format!("no device id: {id:?}") })?;
        match id {
            MEMORY => found.memory.push((name, device.join("../config"))),
            BALLOON => {
                let features = KernelFeatures::read(&device)?;
                found.balloon = Some(BalloonDevice { deflate_on_oom: features.has(DEFLATE_ON_OOM) });
            }
            _ => {}
        }
    }
    Ok(found)
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
