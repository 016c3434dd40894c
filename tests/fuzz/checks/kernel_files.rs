//! Any kernel files: a capacity whose numbers fit each other and a report, or unknown; never a panic.

use guestmeter::agent::witness::{Look, Witness};
use guestmeter::capacity::{Capacity, Memory, Precision};
use guestmeter::kernel::{Options, Roots};
use guestmeter::units::{Bytes, Nanos};
use guestmeter::wire::codec::LIST_MAX;
use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use tempfile::TempDir;

/// A guest with 8 MiB of boot memory and 8 MiB in a virtio-mem block, a balloon and both cgroup versions' files.
const FILES: [(&str, &[u8]); 35] = [
    ("proc/iomem", b"00000000-007fffff : System RAM\n01000000-01ffffff : virtio0\n  01000000-017fffff : System RAM (virtio_mem)\n"),
    ("proc/zoneinfo", b"Node 0, zone DMA32\n        present  4096\n        managed  3584\n"),
    ("proc/meminfo", b"MemTotal:          14336 kB\n"),
    ("proc/vmstat", b"balloon_inflate 0\nballoon_deflate 0\n"),
    ("proc/stat", b"cpu  10 0 20 300 4 0 5 6 0 0\ncpu0 10 0 20 300 4 0 5 6 0 0\nctxt 1\nbtime 1790000000\nprocesses 1\nprocs_running 1\nprocs_blocked 0\n"),
    ("proc/kpageflags", &[0; 48 << 10]),
    ("sys/devices/system/cpu/online", b"0-1\n"),
    ("sys/devices/system/memory/block_size_bytes", b"800000\n"),
    ("sys/devices/system/memory/memory0/state", b"online\n"),
    ("sys/devices/system/memory/memory2/state", b"online\n"),
    ("sys/firmware/memmap/0/start", b"0x0\n"),
    ("sys/firmware/memmap/0/end", b"0x7fffff\n"),
    ("sys/firmware/memmap/0/type", b"System RAM\n"),
    ("sys/firmware/memmap/1/start", b"0xfeffc000\n"),
    ("sys/firmware/memmap/1/end", b"0xfeffffff\n"),
    ("sys/firmware/memmap/1/type", b"Reserved\n"),
    ("sys/firmware/devicetree/base/#address-cells", b"\0\0\0\x02"),
    ("sys/firmware/devicetree/base/#size-cells", b"\0\0\0\x02"),
    ("sys/firmware/devicetree/base/memory@0/reg", b"\0\0\0\0\0\0\0\0\0\0\0\0\0\x80\0\0"),
    ("sys/devices/pci0/config", &CONFIG),
    ("sys/devices/pci0/virtio0/device", b"0x0018\n"),
    ("sys/devices/pci0/virtio0/features", b"1000000000000000000000000000000010000000000000000000000000000000\n"),
    ("sys/devices/pci1/virtio1/device", b"0x0005\n"),
    ("sys/devices/pci1/virtio1/features", b"0000000000000000000000000000000010000000000000000000000000000000\n"),
    ("sys/fs/cgroup/cgroup.controllers", b"cpuset cpu io memory\n"),
    ("sys/fs/cgroup/box/cpu.max", b"150000 100000\n"),
    ("sys/fs/cgroup/box/cpu.weight", b"100\n"),
    ("sys/fs/cgroup/box/cpu.stat", b"usage_usec 1000\nthrottled_usec 10\n"),
    ("sys/fs/cgroup/box/cpuset.cpus.effective", b"0\n"),
    ("sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", b"-1\n"),
    ("sys/fs/cgroup/cpu/box/cpu.cfs_period_us", b"100000\n"),
    ("sys/fs/cgroup/cpu/box/cpu.shares", b"1024\n"),
    ("sys/fs/cgroup/cpu/box/cpu.stat", b"nr_throttled 1\nthrottled_time 5\n"),
    ("sys/fs/cgroup/cpu/box/cpuacct.usage", b"123456789\n"),
    ("sys/fs/cgroup/cpu/box/cpuset.cpus.effective", b"0-1\n"),
];

/// PCI configuration space with the capabilities of a virtio device: common, device, window.
const CONFIG: [u8; 256] = {
    let mut space = [0; 256];
    space[0x34] = 0x40;
    [space[0x40], space[0x41], space[0x43]] = [9, 0x54, 1];
    [space[0x54], space[0x55], space[0x57]] = [9, 0x68, 4];
    [space[0x68], space[0x69], space[0x6b]] = [9, 0, 5];
    space
};

struct Tree {
    root: TempDir,
    changed: Vec<&'static (&'static str, &'static [u8])>,
}

thread_local! {
    static TREE: RefCell<Option<Tree>> = const { RefCell::new(None) };
}

/// `files` is what `head -v` prints of some files of the tree: `==> path <==`, a newline, the text. A path without
/// any text is removed. The others are as in [`FILES`].
pub fn check(files: &[u8]) {
    TREE.with_borrow_mut(|tree| {
        let tree = tree.get_or_insert_with(Tree::new);
        tree.change(files);
        // The window into PCI configuration space takes hundreds of system calls: only where it is what is tried.
        look(tree.root.path(), tree.changed.iter().any(|(path, _)| path.ends_with("config")));
        tree.change_back();
    });
}

impl Tree {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        let devices = root.path().join("sys/bus/virtio/devices");
        fs::create_dir_all(&devices).expect("room for a tree");
        for (pci, name) in [("pci0", "virtio0"), ("pci1", "virtio1")] {
            symlink(root.path().join("sys/devices").join(pci).join(name), devices.join(name))
                .expect("a link");
        }
        let mut tree = Self { root, changed: FILES.iter().collect() };
        for (path, _) in &FILES {
            let directory = tree.root.path().join(path);
            fs::create_dir_all(directory.parent().expect("a file is in a directory"))
                .expect("room for a tree");
        }
        tree.change_back();
        tree
    }

    fn change(&mut self, files: &[u8]) {
        let mut rest = files;
        while let Some(at) = find(rest, b"==> ") {
            rest = rest.get(at + 4..).unwrap_or_default();
            let Some(end) = find(rest, b" <==\n") else { return };
            let (path, text) = rest.split_at(end);
            let text = text.get(5..).unwrap_or_default();
            let text = text.get(..find(text, b"==> ").unwrap_or(text.len())).unwrap_or_default();
            let known = FILES.iter().find(|(known, _)| known.as_bytes() == path);
            // A damaged path is some file's too: damage is what a fuzzer does.
            let Some(file) = known.or_else(|| FILES.get(path.len() % FILES.len())) else { continue };
            let path = self.root.path().join(file.0);
            self.changed.push(file);
            match text {
                [] => drop(fs::remove_file(path)),
                _ => fs::write(path, text).expect("room for a file"),
            }
        }
    }

    /// Also what the check itself wrote: the window into a PCI configuration space is written to.
    fn change_back(&mut self) {
        for (path, text) in
            self.changed.drain(..).chain(FILES.iter().filter(|(path, _)| path.ends_with("config")))
        {
            fs::write(self.root.path().join(path), text).expect("room for a file");
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn look(root: &Path, device_config: bool) {
    let roots = Roots { proc: root.join("proc"), sys: root.join("sys") };
    let options = Options { roots, cgroup: Some("box".into()), device_config };
    let mut witness = Witness::open(options, Vec::new(), None);
    for (seconds, look) in [(1, Look::Full), (2, Look::Tick), (30, Look::Tick)] {
        if seconds == 30 {
            witness.hotplugged();
        }
        let sight = witness.look(Nanos::from_secs(seconds), look);
        fits(&sight.capacity);
        for remark in &sight.remarks {
            assert!(!remark.to_string().is_empty());
        }
    }
}

fn fits(Capacity { memory, cpu }: &Capacity) {
    let Memory { plugged, added, online, lower, upper, .. } = memory;
    assert_eq!(plugged, upper, "{memory:?}");
    assert!(lower.is_none() || upper.is_none() || lower <= upper, "{memory:?}");
    assert!(online.is_none() || upper.is_none() || online <= upper, "{memory:?}");
    if memory.precision == Precision::Exact {
        assert!(plugged.is_some() && lower == upper, "{memory:?}");
    }
    for bytes in [memory.boot, *plugged, *added, memory.ballooned, memory.mem_total] {
        assert!(bytes.is_none_or(|bytes| bytes <= Bytes::PHYSICAL_MAX), "{memory:?}");
    }
    assert!(memory.sources.len() <= LIST_MAX, "it does not fit a report: {memory:?}");
    assert!(cpu.quota.is_none_or(|quota| cpu.effective <= quota), "{cpu:?}");
    assert!(cpu.effective.0 > 0 || cpu.quota.is_some(), "{cpu:?}");
}
