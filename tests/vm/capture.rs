//! Writes `tests/fixtures/<kernel>-<case>`: the kernel files of real guests beside what the VMM said of them.
//!
//! Not a test: `cargo test --test vm -- --ignored --test-threads=1 capture` makes the trees anew.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::rig::{MIB, Machine, Vm};

/// KPF_OFFLINE of `/proc/kpageflags`: pages the guest has but may not use.
const OFFLINE_BIT: u64 = 1 << 23;
const BOOT_BYTES: u64 = 512 * MIB;

/// What is known of a guest beyond what can be read in it.
struct Case<'a> {
    name: &'a str,
    policy: &'a str,
    balloon_mib: u64,
    /// `present − managed` in pages, from before anything was plugged.
    reserved_pages: u64,
}

impl<'a> Case<'a> {
    fn new(name: &'a str, policy: &'a str, reserved_pages: u64) -> Self {
        Self { name, policy, balloon_mib: 0, reserved_pages }
    }
}

fn reserved_pages(vm: &mut Vm) -> u64 {
    let sums = vm.sh("awk '$1 == \"present\" { p += $2 } $1 == \"managed\" { m += $2 } END { print p - m }' /proc/zoneinfo");
    sums.parse::<u64>().expect("a number of pages")
}

/// Takes the guest's files and keeps them if the VMM said the same before and after.
fn capture(vm: &mut Vm, case: &Case<'_>) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(case.name);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("a fixture directory");
    let before = vm.memory_devices();
    let tar = vm.run("sh /collect");
    assert_eq!(tar.code, 0, "collect: {}", tar.stderr);
    pipe(Command::new("tar").arg("-xf").arg("-").arg("-C").arg(&dir), &tar.stdout);
    let flags = vm.run("gzip -1 </proc/kpageflags");
    std::fs::write(
        dir.join("kpageflags.offline"),
        offline_runs(&pipe(Command::new("gzip").arg("-dc"), &flags.stdout)),
    )
    .expect("kpageflags.offline written");
    let after = vm.memory_devices();
    assert_eq!(before, after, "the VMM's sizes moved while {} was captured", case.name);
    let mut expected = format!(
        "case={}\npolicy={}\nboot_bytes={BOOT_BYTES}\nrequested_bytes={}\nvmm_plugged_bytes={}\nballoon_bytes={}\nreserved_pages={}\n",
        case.name,
        case.policy,
        before.iter().map(|device| device.requested_bytes).sum::<u64>(),
        before.iter().map(|device| device.plugged_bytes).sum::<u64>(),
        case.balloon_mib * MIB,
        case.reserved_pages,
    );
    for device in &before {
        let (id, requested, plugged) = (&device.id, device.requested_bytes, device.plugged_bytes);
        expected.push_str(&format!("{id}.requested_bytes={requested}\n{id}.vmm_plugged_bytes={plugged}\n"));
    }
    std::fs::write(dir.join("expected"), expected).expect("expected written");
}

/// The whole file is 8 bytes a page up to the highest address; what matters of it fits in a few lines:
/// `pages N`, then `first_pfn count` for each run of offline pages.
fn offline_runs(flags: &[u8]) -> String {
    let mut text = format!("pages {}\n", flags.len() / 8);
    let mut run: Option<(usize, usize)> = None;
    let words = flags.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes")));
    for (pfn, word) in words.chain([0]).enumerate() {
        match (word & OFFLINE_BIT != 0, &mut run) {
            (true, Some((_, count))) => *count += 1,
            (true, None) => run = Some((pfn, 1)),
            (false, Some((first, count))) => {
                text.push_str(&format!("{first} {count}\n"));
                run = None;
            }
            (false, None) => {}
        }
    }
    text
}

fn pipe(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("tar and gzip start");
    let mut stdin = child.stdin.take().expect("a pipe");
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).expect("the whole input taken"));
        let output = child.wait_with_output().expect("an end");
        assert!(output.status.success());
        output.stdout
    })
}

#[test]
#[ignore = "writes fixtures"]
fn capture_6_12_sizes() {
    let mut vm = Machine::new("6.12").online_movable().append("hugetlb_free_vmemmap=on").memory(0).boot();
    let reserved = reserved_pages(&mut vm);
    for mib in [0, 128, 130, 300, 1024] {
        vm.resize(0, mib);
        vm.wait_quiet(Duration::from_secs(2));
        capture(&mut vm, &Case::new(&format!("6.12-{mib}"), "online_movable", reserved));
    }
    vm.resize(0, 130);
    vm.wait_quiet(Duration::from_secs(2));
    // The last block holds 2 MiB that are plugged and 126 that are not.
    vm.sh("cd /sys/devices/system/memory; last=$(ls -d memory[0-9]* | sort -t y -k 3 -n | tail -1); echo offline >$last/state");
    capture(&mut vm, &Case::new("6.12-130-block-offline", "online_movable", reserved));
}

#[test]
#[ignore = "writes fixtures"]
fn capture_6_12_plain() {
    let mut vm = Machine::new("6.12").boot();
    let reserved = reserved_pages(&mut vm);
    capture(&mut vm, &Case::new("6.12-plain", "none", reserved));
}

#[test]
#[ignore = "writes fixtures"]
fn capture_6_12_stuck_unplug() {
    let mut vm = Machine::new("6.12").memory(0).boot();
    let reserved = reserved_pages(&mut vm);
    vm.resize(0, 128);
    vm.sh("for i in $(seq 200); do mkdir -p /run/kernel-pages/$i; echo >/run/kernel-pages/$i/x; done");
    vm.request(0, 0);
    let stuck = vm.wait_quiet(Duration::from_secs(8));
    eprintln!("stuck at {} MiB", stuck / MIB);
    assert!(stuck > 0, "nothing stuck");
    capture(&mut vm, &Case::new("6.12-stuck-unplug", "contig-zones", reserved));
}

#[test]
#[ignore = "writes fixtures"]
fn capture_6_12_balloon() {
    for (name, machine) in [
        ("6.12-balloon", Machine::new("6.12").balloon()),
        ("6.12-balloon-deflate-on-oom", Machine::new("6.12").balloon_deflating_on_oom()),
    ] {
        let mut vm = machine.online_movable().memory(0).boot();
        let reserved = reserved_pages(&mut vm);
        vm.resize(0, 300);
        vm.inflate(64);
        vm.wait_quiet(Duration::from_secs(2));
        let case = Case { balloon_mib: 64, ..Case::new(name, "online_movable", reserved) };
        capture(&mut vm, &case);
    }
}

#[test]
#[ignore = "writes fixtures"]
fn capture_6_12_two_devices() {
    let mut vm = Machine::new("6.12").online_movable().memory(0).memory(0).boot();
    let reserved = reserved_pages(&mut vm);
    vm.resize(0, 130);
    vm.resize(1, 258);
    vm.wait_quiet(Duration::from_secs(2));
    capture(&mut vm, &Case::new("6.12-two-devices", "online_movable", reserved));
}

#[test]
#[ignore = "writes fixtures"]
fn capture_6_12_huge_pages() {
    let mut vm = Machine::new("6.12").online_movable().append("hugetlb_free_vmemmap=on").memory(0).boot();
    let reserved = reserved_pages(&mut vm);
    // Taken from boot memory, whose page structures go back to the allocator: `reserved` shrinks for good.
    vm.sh("echo 10 >/proc/sys/vm/nr_hugepages; grep -q 'HugePages_Total: *10' /proc/meminfo");
    vm.resize(0, 300);
    vm.wait_quiet(Duration::from_secs(2));
    capture(&mut vm, &Case::new("6.12-300-huge-pages", "online_movable", reserved));
}

#[test]
#[ignore = "writes fixtures"]
fn capture_6_1() {
    let mut vm = Machine::new("6.1").memory(0).boot();
    let reserved = reserved_pages(&mut vm);
    vm.resize(0, 300);
    vm.wait_quiet(Duration::from_secs(2));
    capture(&mut vm, &Case::new("6.1-300-offline", "offline", reserved));
    drop(vm);
    let mut vm = Machine::new("6.1").online_movable().memory(0).boot();
    let reserved = reserved_pages(&mut vm);
    vm.resize(0, 300);
    vm.wait_quiet(Duration::from_secs(2));
    capture(&mut vm, &Case::new("6.1-300", "online_movable", reserved));
}
