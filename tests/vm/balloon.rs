//! Balloons and given-back boot memory: what moves `MemTotal` without moving what is plugged.

use crate::rig::template::{bare, bare_6_1, two_nodes};
use crate::rig::{MIB, Machine, Saved};
use std::time::Duration;

/// A balloon inflated before the agent first looks: the count of offline pages has to see through it.
fn seen_through(template: &Saved, deflate_on_oom: bool) {
    let mut vm = template.restore(42);
    vm.plug_balloon(deflate_on_oom);
    vm.resize(0, 300);
    vm.inflate(64);
    vm.wait_quiet(Duration::from_secs(1));
    let reading = vm.witness_exact("");
    assert_eq!(reading.bytes("memory.ballooned_bytes"), 64 * MIB);
    vm.witness_exact("--device-config");
    vm.inflate(0);
    vm.witness_exact("");
}

#[test]
fn a_balloon_lowers_no_plugged_memory() {
    seen_through(bare(), false);
}

#[test]
fn a_balloon_that_deflates_on_oom_lowers_no_plugged_memory() {
    seen_through(bare(), true);
}

#[test]
fn a_balloon_is_seen_through_on_6_1() {
    seen_through(bare_6_1(), false);
}

#[test]
fn a_running_agent_sees_through_a_balloon_and_through_its_own_death() {
    let mut vm = Machine::new("6.12").online_movable().balloon().memory(0).vsock(42).boot();
    vm.start_agent("");
    assert_eq!(vm.read_exact().bytes("memory.plugged_bytes"), 0);
    vm.resize(0, 300);
    vm.wait_quiet(Duration::from_secs(1));
    vm.read_exact();
    vm.inflate(64);
    let before = vm.read_exact();
    assert_eq!(before.bytes("memory.ballooned_bytes"), 64 * MIB);
    vm.kill_agent();
    vm.inflate(128);
    vm.start_agent("");
    let after = vm.read_exact();
    assert_eq!(after.bytes("memory.ballooned_bytes"), 128 * MIB);
    assert_eq!(after.bytes("identity.instance"), before.bytes("identity.instance") + 1);
    assert!(after.bytes("usage.active.seconds") >= before.bytes("usage.active.seconds"));
}

/// Huge pages of boot memory's node give page structures back for good: `reserved` shrinks by 80 pages.
#[test]
fn boot_memory_given_back_by_huge_pages_is_not_plugged() {
    let mut vm = two_nodes().restore(42);
    vm.start_agent("");
    vm.resize(1, 300);
    vm.wait_quiet(Duration::from_secs(1));
    let before = vm.read_exact();
    let pages = "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages";
    assert_eq!(vm.sh(&format!("echo 10 >{pages}; cat {pages}")), "10");
    let after = vm.read_exact();
    let given_back = after.bytes("memory.mem_total_bytes") - before.bytes("memory.mem_total_bytes");
    assert_eq!(given_back, 80 * 4096);
    assert_eq!(after.bytes("memory.plugged_bytes"), 300 * MIB);
    assert!(vm.sh("cat /run/agent.log").contains("boot memory holds back"), "the jump is reported");
}
