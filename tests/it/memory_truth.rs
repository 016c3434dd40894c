//! What the kernel's files cannot tell is labelled: inputs found outside (bug reports, kernel sources, real machines), as
//! changes of the captured guests.

use crate::fixtures::write_kpageflags;
use guestmeter::agent::witness::{Look, Sight, Witness};
use guestmeter::capacity::{BootPrecision, Precision, Remark, Source, Stated};
use guestmeter::kernel::{Options, Roots};
use guestmeter::units::{Bytes, Nanos};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A tree in a temporary folder: gone with it.
struct Tree(tempfile::TempDir);

impl Tree {
    fn empty() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        for name in ["proc", "sys/bus"] {
            fs::create_dir_all(tree.at(name)).unwrap();
        }
        tree
    }

    /// A captured guest, with the flags of its pages.
    fn of(fixture: &str) -> Self {
        let (tree, from) =
            (Self::empty(), Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(fixture));
        let copied = Command::new("cp").arg("-a").arg(from.join(".")).arg(tree.0.path()).status().unwrap();
        assert!(copied.success());
        write_kpageflags(&from, &File::create(tree.at("proc/kpageflags")).unwrap());
        tree
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> &Self {
        fs::create_dir_all(self.at(name).parent().unwrap()).unwrap();
        fs::write(self.at(name), text).unwrap();
        self
    }

    fn change(&self, name: &str, change: impl Fn(String) -> String) -> &Self {
        let text = fs::read_to_string(self.at(name)).unwrap();
        self.write(name, change(text))
    }

    fn drop(&self, name: &str) -> &Self {
        fs::remove_dir_all(self.at(name)).or_else(|_| fs::remove_file(self.at(name))).unwrap();
        self
    }

    fn hide_iomem(&self) -> &Self {
        self.write("proc/iomem", "00000000-00000000 : System RAM\n00000000-00000000 : Reserved\n")
    }

    fn block(&self, index: u64) -> &Self {
        self.write(&format!("sys/devices/system/memory/memory{index}/state"), "online\n")
    }

    /// 2 GiB that dax/kmem has brought online at 18 GiB and more.
    fn kmem(&self) -> &Self {
        let (start, size) = (0x4_9000_0000u64, 2u64 << 30);
        let span = format!("{start:x}-{:x}", start + size - 1);
        let lines = format!("{span} : CXL Window 0\n  {span} : dax0.0\n    {span} : System RAM (kmem)\n");
        self.change("proc/iomem", |text| text + &lines);
        for index in start >> 27..(start + size) >> 27 {
            self.block(index);
        }
        let pages = size / 4096;
        let zone = format!("Node 1, zone  Movable\n        present  {pages}\n        managed  {pages}\n");
        self.change("proc/zoneinfo", |text| text + &zone);
        self.change("proc/meminfo", |text| {
            let (first, rest) = text.split_once('\n').unwrap();
            let total: u64 = first.split_whitespace().nth(1).unwrap().parse().unwrap();
            format!("MemTotal: {} kB\n{rest}", total + (size >> 10))
        })
    }

    fn options(&self) -> Options {
        let roots = Roots { proc: self.at("proc"), sys: self.at("sys") };
        Options { roots, ..Options::default() }
    }

    fn look(&self) -> Sight {
        let sight = Witness::open(self.options(), Vec::new(), None).look(Nanos::SECOND, Look::Full);
        let lines: Vec<String> = sight.remarks.iter().map(ToString::to_string).collect();
        assert!(lines.iter().all(|line| !line.contains('\n')), "a remark is one line: {lines:?}");
        sight
    }
}

fn plugged(sight: &Sight) -> (Precision, Option<Bytes>) {
    (sight.capacity.memory.precision, sight.capacity.memory.plugged)
}

fn holds(sight: &Sight, truth: Bytes) -> bool {
    let memory = &sight.capacity.memory;
    memory.lower.is_none_or(|lower| lower <= truth) && memory.upper.is_none_or(|upper| truth <= upper)
}

#[test]
fn the_changed_guests_are_exact_unchanged() {
    for (fixture, mib) in [("6.12-130", 130), ("6.12-plain", 0), ("6.12-0", 0), ("6.12-two-devices", 388)] {
        let sight = Tree::of(fixture).look();
        assert_eq!(sight.capacity.memory.boot_precision, Some(BootPrecision::Exact), "{fixture}");
        assert_eq!(sight.capacity.memory.precision, Precision::Exact, "{fixture}");
        if mib != 388 {
            assert_eq!(sight.capacity.memory.plugged, Some(Bytes::mib(mib)), "{fixture}");
        }
        assert_eq!(sight.remarks, [], "{fixture}");
    }
}

/// Firecracker's arm64 tree leaves out the first 2 MiB of DRAM (vmm/src/arch/aarch64/fdt.rs).
#[test]
fn a_device_tree_is_a_lower_bound() {
    let tree = Tree::empty();
    let cells = |words: &[u32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
    tree.write("sys/firmware/devicetree/base/memory@ram/reg", cells(&[0, 0x8020_0000, 0, 0x1fe0_0000]));
    tree.write("sys/devices/system/memory/block_size_bytes", "8000000\n");
    for index in 16..20 {
        tree.block(index);
    }
    tree.write("proc/meminfo", "MemTotal: 490000 kB\n");
    let sight = tree.look();
    assert_eq!(
        (sight.capacity.memory.boot, sight.capacity.memory.boot_precision),
        (Some(Bytes::mib(510)), Some(BootPrecision::LowerBound))
    );
    assert!(
        sight.remarks.iter().any(|remark| matches!(remark, Remark::BootInPart { .. })),
        "{:?}",
        sight.remarks
    );
}

/// CONFIG_FIRMWARE_MEMMAP off (firecracker 4688).
#[test]
fn without_a_memory_map_boot_is_iomems_else_the_blocks_upper_bound() {
    let tree = Tree::of("6.12-plain");
    tree.drop("sys/firmware/memmap");
    let sight = tree.look();
    assert_eq!(
        (sight.capacity.memory.boot, sight.capacity.memory.boot_precision),
        (Some(Bytes::mib(512)), Some(BootPrecision::Exact))
    );
    let sight = tree.hide_iomem().block(4).look();
    assert_eq!(
        (sight.capacity.memory.boot, sight.capacity.memory.boot_precision),
        (Some(Bytes::mib(640)), Some(BootPrecision::UpperBound))
    );
}

/// Docker's `MaskedPaths`.
#[test]
fn boot_is_unknown_where_virtio_mems_blocks_cannot_be_told_from_its() {
    let tree = Tree::of("6.12-1024");
    let sight = tree.drop("sys/firmware").hide_iomem().look();
    assert_eq!((sight.capacity.memory.boot, sight.capacity.memory.boot_precision), (None, None));
    assert_eq!(sight.capacity.memory.precision, Precision::Bounded);
    assert!(holds(&sight, Bytes::mib(1024)), "{:?}", sight.capacity.memory);
}

#[test]
fn memory_of_dax_kmem_is_named_and_in_neither_number() {
    for (fixture, mib) in [("6.12-130", 130), ("6.12-plain", 0)] {
        let tree = Tree::of(fixture);
        for seen in ["with its name", "as blocks alone"] {
            let sight = if seen == "with its name" { tree.kmem().look() } else { tree.hide_iomem().look() };
            let memory = &sight.capacity.memory;
            assert_eq!(
                (memory.boot, memory.precision),
                (Some(Bytes::mib(512)), Precision::Bounded),
                "{fixture} {seen}"
            );
            assert!(holds(&sight, Bytes::mib(mib)), "{fixture} {seen}: {memory:?}");
            let named = sight.remarks.iter().any(|remark| matches!(remark, Remark::Foreign { .. }));
            assert_eq!(named, seen == "with its name" || mib == 0, "{fixture} {seen}: {:?}", sight.remarks);
        }
    }
}

/// MemTotal is more than anybody has given.
#[test]
fn memory_that_is_in_no_source_makes_a_reading_not_exact() {
    for fixture in ["6.12-plain", "6.12-0", "6.12-130"] {
        let tree = Tree::of(fixture);
        tree.change("proc/meminfo", |text| {
            format!("MemTotal: 9999999 kB\n{}", text.split_once('\n').unwrap().1)
        });
        let sight = tree.look();
        assert_eq!(sight.capacity.memory.precision, Precision::Bounded, "{fixture}");
        let memory = &sight.capacity.memory;
        assert!(memory.upper.is_none() || memory.total() >= memory.mem_total, "{fixture}: {memory:?}");
    }
}

/// Stable 60858c00e5f0: a freed name in iomem.
#[test]
fn a_name_that_is_no_text_spoils_no_other_line() {
    let tree = Tree::of("6.12-130");
    let mut text = fs::read(tree.at("proc/iomem")).unwrap();
    text.extend(
        b"2000000000-20ffffffff : Persistent Memory\n  2010000000-20ffffffff : \xFF_\xFF^7_\n\xFF\xFE\n",
    );
    let sight = tree.write("proc/iomem", text).look();
    assert_eq!(plugged(&sight), (Precision::Exact, Some(Bytes::mib(130))));
    assert!(matches!(sight.remarks.as_slice(), [Remark::LineLeftOut(_)]), "{:?}", sight.remarks);
}

/// After kexec, or where probing failed, the device may have what was plugged (cloud-hypervisor 7012).
#[test]
fn a_device_without_a_running_driver_makes_plugged_unknown() {
    for status in ["0x00000001\n", "0x0000000b\n", "0x0000008f\n", "0x0000004f\n", "", "x"] {
        for fixture in ["6.12-0", "6.12-130"] {
            let tree = Tree::of(fixture);
            let sight = tree.write("sys/bus/virtio/devices/virtio1/status", status).look();
            assert_eq!(plugged(&sight), (Precision::Bounded, None), "{fixture}, status {status:?}");
            let named = |remark: &Remark| matches!(remark, Remark::WithoutDriver(name) if name == "virtio1");
            assert!(sight.remarks.iter().any(named), "{fixture}, status {status:?}: {:?}", sight.remarks);
        }
    }
    let tree = Tree::of("6.12-0");
    tree.change("proc/iomem", |text| {
        text.lines()
            .filter(|line| !line.contains(" : virtio1"))
            .fold(String::new(), |all, line| all + line + "\n")
    });
    assert_eq!(plugged(&tree.look()), (Precision::Bounded, None), "a driver that shows no region");
}

/// The module may be loaded after the agent has started, and makes no memory event when nothing is plugged.
#[test]
fn a_driver_that_comes_late_is_seen_at_the_next_look() {
    let tree = Tree::of("6.12-0");
    let status = "sys/bus/virtio/devices/virtio1/status";
    tree.write(status, "0x00000001\n");
    let mut witness = Witness::open(tree.options(), Vec::new(), None);
    assert_eq!(plugged(&witness.look(Nanos::SECOND, Look::Full)), (Precision::Bounded, None));
    tree.write(status, "0x0000000f\n");
    assert_eq!(plugged(&witness.look(Nanos::SECOND, Look::Full)), (Precision::Exact, Some(Bytes::ZERO)));
}

#[test]
fn nothing_to_read_is_unknown_and_never_zero() {
    let tree = Tree::empty();
    tree.write("proc/meminfo", "MemTotal:        2097152 kB\nMemFree:         2080000 kB\n");
    let sight = tree.look();
    assert_eq!(plugged(&sight), (Precision::Bounded, None));
    assert_eq!((sight.capacity.memory.added, sight.capacity.memory.boot_precision), (None, None));
    let tree = Tree::of("6.12-plain");
    assert_eq!(
        plugged(&tree.drop("sys/bus").look()),
        (Precision::Bounded, None),
        "no bus: no word of virtio-mem"
    );
    let tree = Tree::of("6.12-plain");
    assert_eq!(plugged(&tree.drop("proc/zoneinfo").look()), (Precision::Bounded, None));
}

/// WSL 11822: ACPI tables at 1 to 2 MiB lie inside RAM.
#[test]
fn holes_low_in_ram_are_ram() {
    let tree = Tree::of("6.12-plain");
    tree.drop("sys/firmware/memmap");
    let map = [
        "0x0 0x9ffff System RAM",
        "0x100000 0x1fffff ACPI Tables",
        "0x200000 0xf7ffffff System RAM",
        "0x100000000 0x3fbbfffff System RAM",
    ];
    for (at, entry) in map.iter().enumerate() {
        let parts: Vec<&str> = entry.splitn(3, ' ').collect();
        for (name, text) in ["start", "end", "type"].iter().zip(parts) {
            tree.write(&format!("sys/firmware/memmap/{at}/{name}"), format!("{text}\n"));
        }
    }
    let sight = tree.look();
    assert_eq!(
        (sight.capacity.memory.boot, sight.capacity.memory.boot_precision),
        (Some(Bytes::mib(16_188)), Some(BootPrecision::Exact))
    );
}

/// What the host says goes before what the guest can find, and is held against it.
#[test]
fn boot_memory_that_the_host_states_is_reported_as_its_word() {
    let told = |tree: &Tree, mib: u64| {
        let mut witness = Witness::open(tree.options(), Vec::new(), None);
        witness.look(Nanos::SECOND, Look::Full);
        witness.resumed(Stated { requested: None, boot: Some(Bytes::mib(mib)) });
        witness.look(Nanos::SECOND, Look::Tick)
    };
    let contradiction =
        |sight: &Sight| sight.remarks.iter().any(|remark| matches!(remark, Remark::BootContradicted { .. }));
    let sight = told(&Tree::of("6.12-130"), 512);
    let memory = &sight.capacity.memory;
    assert_eq!((memory.boot, memory.boot_precision), (Some(Bytes::mib(512)), Some(BootPrecision::Exact)));
    assert!(memory.sources.contains(&Source::Host) && !memory.sources.contains(&Source::FirmwareMemmap));
    assert_eq!((plugged(&sight), contradiction(&sight)), ((Precision::Exact, Some(Bytes::mib(130))), false));

    // More than there is: it was the host that gave it, and what speaks against it is said.
    let sight = told(&Tree::of("6.12-130"), 600);
    assert_eq!((sight.capacity.memory.boot, contradiction(&sight)), (Some(Bytes::mib(600)), true));
    // Less than Linux has: no exact number.
    let sight = told(&Tree::of("6.12-plain"), 64);
    assert_eq!((sight.capacity.memory.precision, contradiction(&sight)), (Precision::Bounded, true));

    // Where the guest cannot tell boot's blocks from virtio-mem's, the total is known all the same, within bounds.
    let masked = Tree::of("6.12-1024");
    masked.drop("sys/firmware").hide_iomem();
    let sight = told(&masked, 512);
    assert_eq!(sight.capacity.memory.boot, Some(Bytes::mib(512)));
    assert!(
        sight.capacity.memory.precision == Precision::Bounded && holds(&sight, Bytes::mib(1024)),
        "{sight:?}"
    );
}
