//! A tenant in the guest, with root and without, against the agent as it is shipped.

use crate::rig::{HUNG, Vm};
use crate::systemd::start;
use std::time::{Duration, Instant};

/// The shipped agent's.
const TICK: Duration = Duration::from_secs(5);
/// A full reread, which a tick without a change is far from.
const READS_PER_LOOK_MAX: u64 = 12;
/// No pause between two closer looks is as long.
const REST: Duration = Duration::from_secs(2);

/// The kernel's files that the agent has read: a busy machine makes them no more.
fn reads(vm: &mut Vm, pid: &str) -> u64 {
    let calls = vm.sh(&format!("awk '/^syscr:/ {{ print $2 }}' /proc/{pid}/io"));
    calls.parse().expect("a number of calls")
}

/// Hundredths of a second that the agent has run.
fn cpu_ticks(vm: &mut Vm, pid: &str) -> u64 {
    let stat = vm.sh(&format!("cut -d' ' -f14,15 /proc/{pid}/stat"));
    stat.split_whitespace().map(|ticks| ticks.parse::<u64>().expect("ticks")).sum()
}

#[test]
fn the_port_cannot_be_squatted() {
    let mut vm = start();
    vm.read_exact();
    let squat = "timeout 60 socat -u VSOCK-LISTEN:1020 /dev/null";
    let tenant = vm.run(&format!("setpriv --reuid=65534 --regid=65534 --clear-groups {squat}"));
    assert!(tenant.code != 0 && tenant.stderr.contains("Permission denied"), "{tenant:?}");
    let root = vm.run(squat);
    assert!(root.code != 0 && root.stderr.contains("Address already in use"), "{root:?}");
    // Killed, the agent leaves the port with systemd: there is no moment in which it is free.
    vm.sh("systemctl kill -s KILL guestmeterd.service");
    let between = vm.run(squat);
    assert!(between.code != 0 && between.stderr.contains("Address already in use"), "{between:?}");
    vm.wait("the agent to be back", HUNG, |vm| vm.try_read().is_some());
}

#[test]
fn floods_from_inside_neither_shut_the_host_out_nor_stay() {
    let mut vm = start();
    vm.read_exact();
    let pid = vm.sh("systemctl show -P MainPID guestmeterd.service").trim().to_owned();

    // Connections through loopback: each is refused before it takes a place.
    let dial = "timeout 20 socat - VSOCK-CONNECT:1:1020 </dev/zero >/dev/null 2>&1";
    let start = Instant::now();
    vm.sh(&format!("(for i in $(seq 60); do {dial} & done; wait) >/dev/null 2>&1 &"));
    for _ in 0..10 {
        vm.read_exact();
    }
    vm.wait("the flood to end", HUNG, |vm| vm.run("pidof socat").code != 0);
    let log = vm.sh("journalctl -b -u guestmeterd --no-pager");
    let refused = log.matches("CID 1 may not connect").count();
    // Five lines in 30 s are let through, wherever such a window begins.
    let most = 5 * (2 + usize::try_from(start.elapsed().as_secs() / 30).expect("a flood that ended"));
    assert!((1..=most).contains(&refused), "{refused} lines for 60 refusals");

    // Events that root makes up, each of which calls for a closer look.
    let (before, unread) = (cpu_ticks(&mut vm, &pid), reads(&mut vm, &pid));
    let event = "echo online >/sys/devices/system/memory/memory0/uevent";
    vm.sh(&format!("i=0; while [ $i -lt 2000 ]; do {event}; i=$((i+1)); done"));
    vm.read_exact();
    eprintln!("count hundredths of a second for 2000 events: {}", cpu_ticks(&mut vm, &pid) - before);
    let read = reads(&mut vm, &pid) - unread;
    assert!(read > 0, "without counting reads nothing is shown");
    eprintln!("count files read for 2000 events: {read}");
    // Once they end, so does the work.
    let (mut last, mut quiet) = (reads(&mut vm, &pid), Instant::now());
    vm.wait("the agent to be at rest", HUNG, |vm| {
        let now = reads(vm, &pid);
        if now != last {
            (last, quiet) = (now, Instant::now());
        }
        quiet.elapsed() > REST
    });
    let (start, ticks) = (Instant::now(), cpu_ticks(&mut vm, &pid));
    std::thread::sleep(Duration::from_secs(5));
    let (done, ticks) = (reads(&mut vm, &pid) - last, cpu_ticks(&mut vm, &pid) - ticks);
    eprintln!("count hundredths of a second in 5 s of rest: {ticks}, and {done} files read");
    let looks = 2 + start.elapsed().as_secs() / TICK.as_secs();
    assert!(done <= looks * READS_PER_LOOK_MAX, "{done} reads in {looks} looks");
    assert_eq!(vm.sh("systemctl show -P MainPID guestmeterd.service").trim(), pid, "the same life");
    let rss = vm.sh(&format!("awk '/^VmRSS/ {{ print $2 }}' /proc/{pid}/status"));
    assert!(rss.trim().parse::<u64>().expect("KiB") < 4096, "{rss} KiB");
    vm.read_exact();
}
