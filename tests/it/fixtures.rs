//! Real guests' kernel files, each tree with what the VMM said of the same moment, and trees that no kernel wrote.

use guestmeter::agent::witness::{Look, Witness};
use guestmeter::capacity::{Memory, Precision};
use guestmeter::kernel::{Options, Roots};
use guestmeter::units::{Bytes, Nanos};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const OFFLINE_FLAG: u64 = 1 << 23;

fn trees() -> Vec<PathBuf> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let entries = fs::read_dir(fixtures).unwrap().map(|entry| entry.unwrap().path());
    let mut trees: Vec<PathBuf> = entries.filter(|path| path.join("expected").exists()).collect();
    trees.sort();
    assert!(trees.len() >= 14, "only {trees:?}");
    trees
}

fn expected(tree: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(tree.join("expected")).unwrap();
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// `/proc/kpageflags` as long as it was, from the runs that the fixture keeps of it.
fn kpageflags(tree: &Path) -> File {
    let file = tempfile::tempfile().unwrap();
    write_kpageflags(tree, &file);
    file
}

pub(crate) fn write_kpageflags(tree: &Path, file: &File) {
    for line in fs::read_to_string(tree.join("kpageflags.offline")).unwrap().lines() {
        let numbers: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        match numbers[..] {
            [pages] => file.set_len(pages * 8).unwrap(),
            [first, count] => {
                let flags = OFFLINE_FLAG.to_ne_bytes().repeat(usize::try_from(count).unwrap());
                file.write_all_at(&flags, first * 8).unwrap();
            }
            _ => panic!("{}: {line}", tree.display()),
        }
    }
}

fn read(proc: PathBuf, sys: PathBuf, given: Vec<(String, OwnedFd)>) -> Memory {
    let options = Options { roots: Roots { proc, sys }, ..Options::default() };
    Witness::open(options, given, None).look(Nanos::SECOND, Look::Full).capacity.memory
}

fn read_tree(tree: &Path, given: Vec<(String, OwnedFd)>) -> Memory {
    read(tree.join("proc"), tree.join("sys"), given)
}

fn assert_true_to(memory: &Memory, truth: Bytes, tree: &Path) {
    let (lower, upper) = (memory.lower.unwrap(), memory.upper.unwrap());
    assert!(lower <= truth && truth <= upper, "{}: {truth} is not in {lower} to {upper}", tree.display());
    if memory.precision == Precision::Exact {
        assert_eq!(memory.plugged, Some(truth), "{}", tree.display());
    }
}

#[test]
fn real_guests_are_read_as_the_vmm_knows_them() {
    let mut exact = 0;
    for tree in trees() {
        let expected = expected(&tree);
        let bytes = |key: &str| Bytes(expected[key].parse().unwrap());
        let memory = read_tree(&tree, vec![("kpageflags".to_owned(), kpageflags(&tree).into())]);
        assert_true_to(&memory, bytes("vmm_plugged_bytes"), &tree);
        assert_eq!(memory.boot, Some(bytes("boot_bytes")), "{}", tree.display());
        assert_eq!(memory.ballooned, Some(bytes("balloon_bytes")), "{}", tree.display());
        let offline = memory.offline.unwrap() > Bytes::ZERO;
        assert_eq!(memory.precision == Precision::Exact, !offline, "{}: {memory:?}", tree.display());
        exact += usize::from(!offline);
    }
    assert!(exact >= 12, "{exact} exact");
}

/// What an unprivileged agent sees: no flags of pages, and an iomem without addresses.
#[test]
fn without_privilege_the_bounds_hold() {
    for tree in trees() {
        let truth = Bytes(expected(&tree)["vmm_plugged_bytes"].parse().unwrap());
        assert_true_to(&read_tree(&tree, Vec::new()), truth, &tree);
        let hidden = tempfile::tempfile().unwrap();
        hidden.write_all_at(b"00000000-00000000 : System RAM\n00000000-00000000 : Reserved\n", 0).unwrap();
        let memory = read_tree(&tree, vec![("iomem".to_owned(), hidden.into())]);
        assert_true_to(&memory, truth, &tree);
        let plain = tree.ends_with("6.12-plain");
        assert_eq!(memory.precision == Precision::Exact, plain, "{}", tree.display());
    }
}

/// Each file of a real tree replaced by something no kernel writes: never a panic, never a wrong number called exact.
#[test]
fn hostile_files_are_refused_or_bounded() {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/6.12-130");
    let truth = Bytes(expected(&tree)["vmm_plugged_bytes"].parse().unwrap());
    let long = "100000000-107ffffff : System RAM (virtio_mem)\n".repeat(1_000_000);
    let whole = |name: &str| fs::read(tree.join("proc").join(name)).unwrap();
    for name in ["iomem", "zoneinfo", "meminfo", "vmstat", "stat"] {
        let text = whole(name);
        let texts: [&[u8]; 8] = [
            b"",
            b"\n",
            &text[..text.len() / 2],
            b"present 18446744073709551615\nmanaged 18446744073709551615\n",
            b"MemTotal: 99999999999999999999 kB\n",
            b"0-ffffffffffffffff : System RAM (virtio_mem)\n",
            &[0xFF; 70_000],
            long.as_bytes(),
        ];
        for (at, hostile) in texts.into_iter().enumerate() {
            let proc = tempfile::tempdir().unwrap();
            for other in ["iomem", "zoneinfo", "meminfo", "vmstat", "stat"] {
                let text = if other == name { hostile.to_vec() } else { whole(other) };
                fs::write(proc.path().join(other), text).unwrap();
            }
            let given = vec![("kpageflags".to_owned(), kpageflags(&tree).into())];
            let memory = read(proc.path().to_owned(), tree.join("sys"), given);
            let within = memory.lower.is_none_or(|lower| lower <= truth)
                && memory.upper.is_none_or(|upper| truth <= upper);
            let exact = memory.precision == Precision::Exact;
            // None of them is the whole of an `iomem`.
            assert!(within && !(exact && name == "iomem"), "{name}, text {at}: {memory:?}");
            if exact {
                assert_eq!(memory.plugged, Some(truth), "{name}, text {at}");
            }
        }
    }
}

#[test]
fn a_kernel_without_the_files_knows_nothing_and_says_so() {
    let empty = tempfile::tempdir().unwrap();
    let memory = read(empty.path().to_owned(), empty.path().to_owned(), Vec::new());
    assert_eq!((memory.plugged, memory.boot, memory.mem_total), (None, None, None));
    assert_eq!(memory.precision, Precision::Bounded);
    assert_eq!(memory.total(), None);
}

/// A look that is asked for together with a hotplug event must not hide the event.
#[test]
fn cpus_are_read_again_after_an_event_however_close_the_look() {
    let sys = tempfile::tempdir().unwrap();
    let online = sys.path().join("devices/system/cpu/online");
    fs::create_dir_all(online.parent().unwrap()).unwrap();
    fs::write(&online, "0-3\n").unwrap();
    let roots = Roots { proc: sys.path().join("proc"), sys: sys.path().to_owned() };
    let mut witness = Witness::open(Options { roots, ..Options::default() }, Vec::new(), None);
    let cpus = |witness: &mut Witness, look| witness.look(Nanos::SECOND, look).capacity.cpu.online;
    assert_eq!(cpus(&mut witness, Look::Full), Some(4));
    for (list, count) in [("0-1\n", 2), ("0\n", 1)] {
        fs::write(&online, list).unwrap();
        witness.hotplugged();
        let look = if count == 2 { Look::Full } else { Look::Tick };
        assert_eq!(cpus(&mut witness, look), Some(count));
    }
}
