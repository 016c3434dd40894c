//! The small image comes up on both kernels, and a resize through the VMM reaches the guest.

use crate::rig::{HUNG, MIB, Machine, Vm};

fn mem_total_bytes(vm: &mut Vm) -> u64 {
    let kib = vm.sh("awk '/^MemTotal:/ { print $2 }' /proc/meminfo");
    kib.parse::<u64>().expect("MemTotal is a number") * 1024
}

fn boots_and_resizes(machine: Machine, kernel: &str) {
    let mut vm = machine.online_movable().memory(0).boot();
    assert_eq!(vm.plugged(), 0);
    follows_a_resize(&mut vm, kernel);
}

/// From whatever is plugged.
pub(crate) fn follows_a_resize(vm: &mut Vm, kernel: &str) {
    assert!(vm.sh("uname -r").starts_with(kernel), "the kernel asked for");
    let before = mem_total_bytes(vm) - vm.plugged();
    for mib in [130, 300, 128, 0] {
        vm.resize(0, mib);
        vm.wait("MemTotal to follow", HUNG, |vm| mem_total_bytes(vm) == before + mib * MIB);
    }
}

#[test]
fn small_image_boots_and_follows_a_resize_on_6_12() {
    boots_and_resizes(Machine::new("6.12"), "6.12.");
}

#[test]
fn small_image_boots_and_follows_a_resize_on_6_1() {
    boots_and_resizes(Machine::new("6.1"), "6.1.");
}
