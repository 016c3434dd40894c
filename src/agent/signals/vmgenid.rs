//! VMGenID: the kernel takes its value to itself, but counts the interrupt that announces a new one.
//!
//! No file gives the identifier, and the `NEW_VMGENID` event was in one kernel only. Which interrupt it is depends on
//! the VMM, told by the device's ACPI id; a guess would take some other device's events for resumes.

use super::Absent;
use crate::kernel::file::{KernelError, KernelFile, PAGE, list, read_once};
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};

/// Interrupts looked through; a microVM has dozens.
const INTERRUPTS_MAX: usize = 4096;

/// The interrupt's counter.
#[derive(Debug)]
pub(in crate::agent) struct Vmgenid {
    file: KernelFile,
    device: String,
}

impl Vmgenid {
    /// Finds the device and opens its counter; needs no privilege.
    pub(super) fn open(sys: &Path) -> Result<Self, Absent> {
        let (device, counter) = find(sys).map_err(|error| Absent(error.to_string()))??;
        let file = KernelFile::open(counter).map_err(|error| Absent(format!("{device}: {error}")))?;
        let vmgenid = Self { file, device };
        match vmgenid.count() {
            Ok(_) => Ok(vmgenid),
            Err(error) => Err(Absent(format!("{}: {error}", vmgenid.device))),
        }
    }

    /// How often it came since the VM booted.
    pub(in crate::agent) fn read(&self) -> Option<u64> {
        self.count().ok()
    }

    /// The device and its counter, for a person.
    pub(in crate::agent) fn describe(&self) -> String {
        format!("{} by {}", self.device, self.file.path().display())
    }

    fn count(&self) -> Result<u64, KernelError> {
        let mut page = [MaybeUninit::uninit(); PAGE];
        sum(self.file.read_page(&mut page)?).ok_or_else(|| self.file.parse_error("is no count of interrupts"))
    }
}

/// `       1  EN     enabled      unmasked` of an ACPI event, or `1,0` of an interrupt, by CPU.
fn sum(text: &[u8]) -> Option<u64> {
    let counts = std::str::from_utf8(text).ok()?.split_ascii_whitespace().next()?;
    counts.split(',').try_fold(0_u64, |sum, count| sum.checked_add(count.parse().ok()?))
}

/// The device's name and its counter's path.
fn find(sys: &Path) -> Result<Result<(String, PathBuf), Absent>, KernelError> {
    let bus = sys.join("bus/acpi/devices");
    for name in list(&bus).unwrap_or_default() {
        let Ok(ids) = read_once(bus.join(&name).join("modalias")) else { continue };
        if !is_vmgenid(&ids) {
            continue;
        }
        // The first id is the VMM's own, the rest says what the device is compatible with.
        let counter = match ids.split(':').nth(1) {
            Some("QEMUVGID") => Some(sys.join("firmware/acpi/interrupts/gpe05")),
            // All that Firecracker's event device announces is VMGenID and VMClock, each at a restore and never else:
            // the first stands for both.
            Some("FCVMGID" | "VMGENCTR") => interrupt(sys, "ACPI:Ged")?,
            _ => None,
        };
        return Ok(match counter {
            Some(counter) => Ok((name, counter)),
            None => Err(Absent(format!("{name} ({ids}): which interrupt announces it is not known"))),
        });
    }
    // Where the device tree describes it, the kernel's driver names its interrupt.
    Ok(match interrupt(sys, "vmgenid")? {
        Some(counter) => Ok(("vmgenid".to_owned(), counter)),
        None => Err(Absent("this VM has no such device".to_owned())),
    })
}

/// `acpi:VMGENCTR:VM_GEN_COUNTER:`; the specification writes it in mixed case, the kernel in capitals.
fn is_vmgenid(modalias: &str) -> bool {
    let is = |id: &str| ["VM_GEN_COUNTER", "VMGENCTR"].iter().any(|known| id.eq_ignore_ascii_case(known));
    modalias.split(':').skip(1).any(is)
}

/// The counter of the first interrupt that a driver requested under `action`.
fn interrupt(sys: &Path, action: &str) -> Result<Option<PathBuf>, KernelError> {
    let directory = sys.join("kernel/irq");
    let mut numbers: Vec<u32> = match list(&directory) {
        Ok(names) => names.iter().filter_map(|name| name.parse().ok()).collect(),
        Err(KernelError::Open { cause: rustix::io::Errno::NOENT, .. }) => Vec::new(),
        Err(error) => return Err(error),
    };
    numbers = crate::kernel::file::sorted(numbers);
    let found = numbers.into_iter().take(INTERRUPTS_MAX).map(|number| directory.join(number.to_string()));
    // One that goes away meanwhile is not the one.
    let mut found =
        found.filter(|path| read_once(path.join("actions")).is_ok_and(|actions| actions == action));
    Ok(found.next().map(|path| path.join("per_cpu_count")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sysfs of these files.
    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    fn refused(files: &[(&str, &str)]) -> String {
        Vmgenid::open(tree(files).path()).unwrap_err().to_string()
    }

    #[test]
    fn qemus_is_counted_as_its_acpi_event() {
        let count = "firmware/acpi/interrupts/gpe05";
        let sys = tree(&[
            ("bus/acpi/devices/LNXSYBUS:00/modalias", "acpi:LNXSYBUS:\n"),
            ("bus/acpi/devices/QEMUVGID:00/modalias", "acpi:QEMUVGID:VM_GEN_COUNTER:\n"),
            ("firmware/acpi/interrupts/gpe04", "      77  EN     enabled      unmasked\n"),
            (count, "       0  EN     enabled      unmasked\n"),
        ]);
        let vmgenid = Vmgenid::open(sys.path()).unwrap();
        assert_eq!(vmgenid.read(), Some(0));
        std::fs::write(sys.path().join(count), "       1  EN     enabled      unmasked\n").unwrap();
        assert_eq!(vmgenid.read(), Some(1));
        let text = vmgenid.describe();
        assert!(text.contains("QEMUVGID:00") && text.contains(count), "{text}");
    }

    #[test]
    fn firecrackers_is_counted_as_the_first_of_its_event_devices_interrupts() {
        for (device, ids) in [
            ("VMGENCTR:00", "acpi:VMGENCTR:VM_GEN_COUNTER:\n"),
            ("FCVMGID:00", "acpi:FCVMGID:VM_GEN_COUNTER:\n"),
        ] {
            let sys = tree(&[
                (&format!("bus/acpi/devices/{device}/modalias"), ids),
                ("kernel/irq/9/actions", "ttyS0\n"),
                ("kernel/irq/9/per_cpu_count", "15,3\n"),
                ("kernel/irq/24/actions", "ACPI:Ged\n"),
                ("kernel/irq/24/per_cpu_count", "2,1\n"),
                ("kernel/irq/100/actions", "ACPI:Ged\n"),
                ("kernel/irq/100/per_cpu_count", "40,40\n"),
            ]);
            assert_eq!(Vmgenid::open(sys.path()).unwrap().read(), Some(3), "{device}");
        }
    }

    #[test]
    fn in_a_device_tree_it_is_counted_by_its_drivers_interrupt() {
        let sys = tree(&[
            ("kernel/irq/2/actions", "\n"),
            ("kernel/irq/3/actions", "vmgenid\n"),
            ("kernel/irq/3/per_cpu_count", "1\n"),
        ]);
        assert_eq!(Vmgenid::open(sys.path()).unwrap().read(), Some(1));
    }

    #[test]
    fn where_it_is_not_or_not_known_it_is_absent_and_the_reason_is_said() {
        assert!(refused(&[]).contains("no such device"));
        let event_device = [("kernel/irq/9/actions", "ACPI:Ged\n"), ("kernel/irq/9/per_cpu_count", "1\n")];
        assert!(refused(&event_device).contains("no such device"), "another VMM's events are none of it");
        let other = [("bus/acpi/devices/X/modalias", "acpi:HYPERVGC:vm_gen_counter:\n"), event_device[0]];
        assert!(refused(&other).contains("HYPERVGC") && refused(&other).contains("not known"));
        let qemu = ("bus/acpi/devices/QEMUVGID:00/modalias", "acpi:QEMUVGID:VM_GEN_COUNTER:\n");
        assert!(refused(&[qemu]).contains("gpe05"));
        for garbage in
            ["", "\n", "x", "-1 EN", "1,,2", "18446744073709551616", "18446744073709551615,1", "\u{fffd}"]
        {
            let error = refused(&[qemu, ("firmware/acpi/interrupts/gpe05", garbage)]);
            assert!(error.contains("gpe05") && error.contains("no count"), "{garbage:?}: {error}");
        }
    }
}
