//! VMClock: a page that the VMM shares with the guest, and changes when the guest was stopped or restored.
//!
//! `struct vmclock_abi` of Linux's `linux/vmclock-abi.h`. Sibling clones see the same values: it says that the VM was
//! restored, not who it is.

use super::Absent;
use super::page::Page;
use crate::agent::poller::{Poller, Watched};
use crate::kernel::KernelError;
use crate::session;
use rustix::fs::{Mode, OFlags};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{Ordering, fence};

/// The device's name, under `/dev` and among stored descriptors.
pub(in crate::agent) const NAME: &str = "vmclock0";

/// "VCLK".
const MAGIC: u32 = 0x4b4c_4356;
const VERSION: u32 = 1;
/// Up to and with `flags`: what the kernel's own driver requires.
const BYTES_MIN: u32 = 32;
/// Up to and with `vm_generation_counter`.
const BYTES_WITH_GENERATION: u32 = 112;
/// `VMCLOCK_FLAG_VM_GEN_COUNTER_PRESENT`.
const FLAG_GENERATION: u64 = 1 << 8;
/// `VMCLOCK_FLAG_NOTIFICATION_PRESENT`: the VMM tells the kernel of each change.
const FLAG_NOTIFICATION: u64 = 1 << 9;
/// Readings of a page that changes under them; a VMM changes it while the guest stands still.
const TRIES: u32 = 64;

/// The page.
#[derive(Debug)]
pub(in crate::agent) struct Vmclock {
    page: Page,
    /// Whether the page is long enough to have one.
    has_generation: bool,
    file: Descriptor,
}

#[derive(Debug)]
enum Descriptor {
    Closed,
    Open(OwnedFd),
    /// Never read: the kernel holds it readable until it is, but tells each change once to who waits for edges.
    Watched {
        _told: Watched,
    },
}

/// Opens the device; needs privilege unless a rule of udev's gives it away.
pub(in crate::agent) fn open(dev: &Path) -> Result<OwnedFd, KernelError> {
    let path = dev.join(NAME);
    // What has the name and is no such device must not make the agent wait.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    rustix::fs::open(&path, flags, Mode::empty()).map_err(|cause| KernelError::Open { path, cause })
}

impl Vmclock {
    /// Maps the device: the one that was `given`, else the one under `dev`.
    pub(super) fn open(dev: &Path, given: Option<OwnedFd>) -> Result<Self, Absent> {
        let file = given.map_or_else(|| open(dev), Ok).map_err(|error| Absent(error.to_string()))?;
        let page = Page::map(&file, BYTES_MIN as usize)
            .map_err(|error| Absent(format!("mapping {}: {error}", dev.join(NAME).display())))?;
        let (magic, bytes) = (page.u32_at::<0>(), page.u32_at::<4>());
        // `version` is the lower half of its word; kinds of clocks are in the upper.
        let version = page.u32_at::<8>() & 0xffff;
        if magic != MAGIC || version != VERSION || bytes < BYTES_MIN {
            let what = format!("magic {magic:#x}, version {version}, {bytes} bytes");
            return Err(Absent(format!("{} is no VMClock: {what}", dev.join(NAME).display())));
        }
        Ok(Self { page, has_generation: bytes >= BYTES_WITH_GENERATION, file: Descriptor::Open(file) })
    }

    /// Both counters of one moment; `None` if it changed under every reading.
    pub(in crate::agent) fn read(&self) -> Option<session::Vmclock> {
        for _ in 0..TRIES {
            // `seq_count`, odd while the VMM writes.
            let before = self.page.u32_at::<12>();
            fence(Ordering::Acquire);
            let disruption = self.page.u64_at::<16>();
            let counted = self.has_generation && self.flags() & FLAG_GENERATION != 0;
            let generation = counted.then(|| self.page.u64_at::<104>());
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && before == self.page.u32_at::<12>() {
                return Some(session::Vmclock { disruption, generation });
            }
            std::hint::spin_loop();
        }
        None
    }

    /// Lets a change wake the loop, where VMM and kernel (7.0 on) tell of it; else it is seen at the next wake-up. The
    /// descriptor is closed where it is of no use.
    pub(super) fn watch(&mut self, poller: &mut Poller) {
        if let Descriptor::Open(file) = std::mem::replace(&mut self.file, Descriptor::Closed)
            && self.flags() & FLAG_NOTIFICATION != 0
            && let Ok(told) = poller.watch(file)
        {
            self.file = Descriptor::Watched { _told: told };
        }
    }

    /// What is in it, for a person.
    pub(in crate::agent) fn describe(&self) -> String {
        let Some(session::Vmclock { disruption, generation }) = self.read() else {
            return "is being changed".to_owned();
        };
        let generation = generation.map_or_else(|| "none".to_owned(), |generation| generation.to_string());
        let tells = if self.flags() & FLAG_NOTIFICATION != 0 { "" } else { "not " };
        format!("disruption marker {disruption}, generation {generation}, changes are {tells}announced")
    }

    fn flags(&self) -> u64 {
        self.page.u64_at::<24>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    /// A file with the page's fields, in a directory that stands for /dev.
    struct Device {
        folder: tempfile::TempDir,
        file: File,
    }

    impl Device {
        fn new(bytes: u32, flags: u64) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(NAME);
            std::fs::write(&path, [0; 4096]).unwrap();
            let device = Self { folder, file: File::options().write(true).open(path).unwrap() };
            device.put(0, &MAGIC.to_le_bytes());
            device.put(4, &bytes.to_le_bytes());
            // Version, and a kind of counter and of time beside it.
            device.put(8, &[1, 0, 0xff, 0]);
            device.put(24, &flags.to_le_bytes());
            device
        }

        fn put(&self, offset: u64, bytes: &[u8]) {
            self.file.write_all_at(bytes, offset).unwrap();
        }

        fn open(&self) -> Result<Vmclock, Absent> {
            Vmclock::open(self.folder.path(), None)
        }
    }

    fn read(disruption: u64, generation: Option<u64>) -> Option<session::Vmclock> {
        Some(session::Vmclock { disruption, generation })
    }

    #[test]
    fn both_counters_are_seen_as_they_change() {
        let device = Device::new(4096, FLAG_GENERATION);
        let vmclock = device.open().unwrap();
        assert_eq!(vmclock.read(), read(0, Some(0)));
        device.put(16, &7_u64.to_le_bytes());
        device.put(104, &u64::MAX.to_le_bytes());
        assert_eq!(vmclock.read(), read(7, Some(u64::MAX)));
    }

    #[test]
    fn a_generation_needs_its_flag_and_its_place() {
        for (bytes, flags) in [(4096, 0), (104, FLAG_GENERATION), (32, u64::MAX)] {
            let device = Device::new(bytes, flags);
            device.put(16, &1_u64.to_le_bytes());
            device.put(104, &9_u64.to_le_bytes());
            assert_eq!(device.open().unwrap().read(), read(1, None), "{bytes} bytes, flags {flags:#x}");
        }
    }

    #[test]
    fn a_page_that_is_being_changed_says_nothing_until_it_is_done() {
        let device = Device::new(4096, 0);
        let vmclock = device.open().unwrap();
        device.put(12, &3_u32.to_le_bytes());
        assert_eq!(vmclock.read(), None);
        device.put(16, &2_u64.to_le_bytes());
        device.put(12, &4_u32.to_le_bytes());
        assert_eq!(vmclock.read(), read(2, None));
    }

    #[test]
    fn a_writer_beside_the_reader_is_never_seen_halfway() {
        let device = Device::new(4096, FLAG_GENERATION);
        let vmclock = device.open().unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for value in 1..20_000_u32 {
                    device.put(12, &(2 * value - 1).to_le_bytes());
                    device.put(16, &u64::from(value).to_le_bytes());
                    device.put(104, &u64::from(value).to_le_bytes());
                    device.put(12, &(2 * value).to_le_bytes());
                }
            });
            let mut seen = 0;
            while !writer.is_finished() {
                if let Some(now) = vmclock.read() {
                    assert_eq!(now.generation, Some(now.disruption));
                    assert!(now.disruption >= seen);
                    seen = now.disruption;
                }
            }
        });
        assert_eq!(vmclock.read(), read(19_999, Some(19_999)));
    }

    #[test]
    fn what_is_no_vmclock_is_refused_and_named() {
        let refused = |device: &Device, cause: &str| {
            let error = device.open().unwrap_err().to_string();
            assert!(error.contains(NAME) && error.contains(cause), "{error}");
        };
        let device = Device::new(4096, 0);
        device.put(0, b"ZCLK");
        refused(&device, "is no VMClock");
        let device = Device::new(4096, 0);
        device.put(8, &[2, 0]);
        refused(&device, "version 2");
        refused(&Device::new(31, 0), "31 bytes");
        let device = Device::new(4096, 0);
        device.file.set_len(31).unwrap();
        refused(&device, "mapping");
        device.file.set_len(0).unwrap();
        refused(&device, "mapping");
    }

    #[test]
    fn what_is_no_file_is_refused_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        let refused = |what: &str, cause: &str| {
            let error = Vmclock::open(folder.path(), None).unwrap_err().to_string();
            assert!(error.contains(NAME) && error.contains(cause), "{what}: {error}");
        };
        refused("nothing", "opening");
        std::fs::create_dir(&path).unwrap();
        refused("a directory", "mapping");
        std::fs::remove_dir(&path).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        refused("a pipe", "mapping");
        for device in ["/dev/null", "/dev/zero"] {
            std::fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink(device, &path).unwrap();
            refused(device, if device == "/dev/null" { "mapping" } else { "is no VMClock" });
        }
    }

    #[test]
    fn a_short_file_is_read_as_far_as_it_goes() {
        let device = Device::new(32, 0);
        device.file.set_len(32).unwrap();
        device.put(16, &5_u64.to_le_bytes());
        assert_eq!(device.open().unwrap().read(), read(5, None));
    }

    #[test]
    fn a_file_that_cannot_be_waited_for_is_read_all_the_same() {
        let mut poller = Poller::new().unwrap();
        for flags in [0, FLAG_NOTIFICATION] {
            let device = Device::new(4096, flags);
            let mut vmclock = device.open().unwrap();
            vmclock.watch(&mut poller);
            assert_eq!(vmclock.describe().contains("not announced"), flags == 0);
            device.put(16, &3_u64.to_le_bytes());
            assert_eq!(vmclock.read(), read(3, None));
        }
    }
}
