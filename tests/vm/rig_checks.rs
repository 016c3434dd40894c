//! The rig itself: what a pause and a restore do to a guest, seen without the agent.

use crate::rig::template::{with_vmclock, with_vmgenid};
use crate::rig::{HUNG, MIB, Vm};
use crate::systemd;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_secs(1);

/// The guest's clock, to 10 ms.
fn uptime(vm: &mut Vm) -> Duration {
    let text = vm.sh("cut -d' ' -f1 /proc/uptime");
    Duration::from_secs_f64(text.parse().expect("seconds"))
}

/// How long the guest's clock says that `pause` took, and how long it took.
fn seen_by_the_guest(vm: &mut Vm, pause: impl FnOnce(&mut Vm)) -> (Duration, Duration) {
    let (start, before) = (Instant::now(), uptime(vm));
    pause(vm);
    let after = uptime(vm);
    (after - before, start.elapsed())
}

#[test]
fn a_clock_stands_while_the_vmm_pauses_and_jumps_when_the_vmm_is_stopped() {
    let mut vm = with_vmgenid().restore(42);
    let (seen, took) = seen_by_the_guest(&mut vm, |vm| vm.stopped_for(PAUSE));
    assert!(seen + PAUSE <= took, "stop: {seen:?} of {took:?}");
    let (seen, took) = seen_by_the_guest(&mut vm, |vm| vm.frozen_for(PAUSE));
    assert!(seen >= PAUSE, "SIGSTOP: {seen:?} of {took:?}");
}

#[test]
fn a_saved_guest_is_restored_as_often_as_one_likes() {
    let mut vm = with_vmgenid().restore(42);
    vm.sh("echo written >/run/before");
    let boot_id = vm.sh("cat /proc/sys/kernel/random/boot_id");
    let told = gpe_count(&mut vm);
    assert_eq!(told, 1, "the template had booted with another VMGenID, untold of");
    let (start, before) = (Instant::now(), uptime(&mut vm));
    let saved = vm.save();
    let until_saved = start.elapsed();
    std::thread::sleep(PAUSE);
    for cid in [42, 43] {
        let start = Instant::now();
        let mut clone = saved.restore(cid);
        let seen = uptime(&mut clone) - before;
        let ran = until_saved + start.elapsed();
        assert!(seen <= ran, "the clock stood while nothing ran, not {seen:?} of {ran:?}");
        assert_eq!(
            clone.sh("cat /run/before /proc/sys/kernel/random/boot_id"),
            format!("written\n{boot_id}")
        );
        assert_eq!(clone.plugged(), 130 * MIB);
        assert_eq!(gpe_count(&mut clone), told + 1, "the new VMM's VMGenID is told of once");
        clone.resize(0, 256);
        clone.resize(0, 0);
    }
    vm.go_on();
    assert_eq!(gpe_count(&mut vm), told, "the source keeps its VMGenID");
    assert_eq!(vm.plugged(), 130 * MIB);
}

fn gpe_count(vm: &mut Vm) -> u64 {
    let line = vm.sh("cat /sys/firmware/acpi/interrupts/gpe05");
    let count = line.split_whitespace().next().expect("a count");
    count.parse().expect("a number")
}

#[test]
fn a_request_changed_while_paused_is_there_after_the_restore() {
    let mut vm = with_vmgenid().restore_paused(42);
    vm.request(0, 384);
    assert_eq!(vm.plugged(), 130 * MIB, "nothing is plugged while nothing runs");
    vm.cont();
    vm.wait("the request to be met", HUNG, |vm| vm.plugged() == 384 * MIB);
}

fn disruption_marker(vm: &mut Vm) -> u64 {
    vm.sh("dd if=/dev/vmclock0 bs=8 skip=2 count=1 2>/dev/null | od -An -tu8")
        .trim()
        .parse()
        .expect("a number")
}

#[test]
fn the_vmclock_page_tells_of_a_restore_on_7_3() {
    let mut vm = with_vmclock().restore(42);
    let (marker, gpe) = (disruption_marker(&mut vm), gpe_count(&mut vm));
    vm.stopped_for(Duration::from_millis(200));
    assert_eq!(disruption_marker(&mut vm), marker, "a bare pause moves nothing");
    let saved = vm.save();
    drop(vm);
    let mut vm = saved.restore(42);
    assert_eq!(disruption_marker(&mut vm), marker + 1);
    assert_eq!(gpe_count(&mut vm), gpe + 1);
}

#[test]
fn a_systemd_guest_is_saved_with_its_disk() {
    let mut vm = systemd::start();
    vm.sh("echo written >/var/lib/before; sync; echo cached >>/var/lib/before");
    let saved = vm.save();
    drop(vm);
    let mut vm = saved.restore(43);
    assert_eq!(vm.sh("echo 3 >/proc/sys/vm/drop_caches; sync; cat /var/lib/before"), "written\ncached");
    assert_eq!(vm.plugged(), 130 * MIB);
    let new_cid = "the agent's socket, opened before, to answer under the new CID";
    vm.wait(new_cid, HUNG, |vm| vm.try_read().is_some());
}
