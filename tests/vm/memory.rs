//! Plugged memory as `--once` reads it from the kernel's files, against the VMM, to the byte.

use crate::rig::template::{bare, bare_6_1, two_nodes};
use crate::rig::{MIB, Machine, Vm};
use std::time::Duration;

/// Exact from the kernel's files alone, and the same with the device's own word.
fn exact_both_ways(vm: &mut Vm) {
    let derived = vm.witness_exact("");
    let told = vm.witness_exact("--device-config");
    assert_eq!(derived.text("memory.plugged_bytes"), told.text("memory.plugged_bytes"));
    assert!(told.text("memory.sources").contains("device_config"));
    let requested: u64 = vm.memory_devices().iter().map(|device| device.requested_bytes).sum();
    assert_eq!(told.bytes("memory.requested_bytes"), requested);
    assert_eq!(derived.text("memory.requested_bytes"), "", "nobody has told");
}

fn follows_sizes(vm: Vm) {
    follows(vm, &[0, 2, 126, 128, 130, 300, 1024, 384, 256, 130, 128, 0]);
}

fn follows(mut vm: Vm, sizes_mib: &[u64]) {
    for mib in sizes_mib {
        vm.request(0, *mib);
        vm.wait_quiet(Duration::from_secs(1));
        exact_both_ways(&mut vm);
    }
    let reading = vm.witness_exact("");
    assert_eq!(reading.bytes("memory.boot_bytes"), 512 * MIB);
}

#[test]
fn sizes_are_followed_when_movable_on_6_12() {
    follows_sizes(bare().restore(42));
}

#[test]
fn sizes_are_followed_in_contiguous_zones_on_6_12() {
    follows_sizes(Machine::new("6.12").memory(0).boot());
}

#[test]
fn a_device_of_large_blocks_is_followed() {
    let vm = Machine::new("6.12").online_movable().memory_in_blocks(0, 128).boot();
    follows(vm, &[0, 128, 512, 256, 0]);
}

#[test]
fn sizes_are_followed_when_movable_on_6_1() {
    follows_sizes(bare_6_1().restore(42));
}

#[test]
fn memory_that_the_kernel_leaves_offline_is_bounded_and_told_by_the_device() {
    let mut vm = Machine::new("6.1").memory(0).boot();
    vm.resize(0, 300);
    vm.wait_quiet(Duration::from_millis(300));
    let reading = vm.witness("");
    assert!(!reading.is_exact());
    assert_eq!(reading.bytes("memory.offline_bytes"), 384 * MIB);
    vm.witness_exact("--device-config");
}

#[test]
fn two_devices_are_summed() {
    let mut vm = two_nodes().restore(42);
    vm.resize(0, 130);
    vm.wait_quiet(Duration::from_secs(1));
    exact_both_ways(&mut vm);
    vm.resize(1, 258);
    vm.wait_quiet(Duration::from_millis(300));
    exact_both_ways(&mut vm);
    vm.resize(0, 0);
    vm.wait_quiet(Duration::from_millis(300));
    exact_both_ways(&mut vm);
}

#[test]
fn a_partly_plugged_block_offlined_by_root_is_bounded() {
    let mut vm = bare().restore(42);
    vm.resize(0, 130);
    vm.wait_quiet(Duration::from_millis(300));
    vm.sh("echo offline >/sys/devices/system/memory/memory33/state");
    let reading = vm.witness("");
    assert_eq!(reading.bytes("memory.offline_bytes"), 128 * MIB);
    assert!(!reading.is_exact());
    vm.witness_exact("--device-config");
}
