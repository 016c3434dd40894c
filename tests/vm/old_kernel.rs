//! Linux 5.10, which many Firecracker guests still are: sub-blocks of 4 MiB, and a driver that may refuse the device.

use crate::rig::{HUNG, MIB, Machine};
use std::time::Duration;

/// The driver plugs whole sub-blocks, and the device's blocks are half of one: it comes to rest beside an odd request.
#[test]
fn what_rests_beside_a_request_is_short_or_over_and_exact() {
    let machine = Machine::new("5.10").online_movable().memory(0).unplugged_accessible();
    let mut vm = machine.vsock(42).boot();
    vm.start_agent("--device-config");
    for (requested, plugged, state) in [
        (6, 4, "short"),
        (128, 128, "settled"),
        (300, 300, "settled"),
        (1024, 1024, "settled"),
        (770, 772, "over"),
    ] {
        vm.request(0, requested);
        vm.wait(&format!("{state} at {plugged} MiB"), HUNG, |vm| {
            // Exact all the while.
            let reading = vm.read_exact();
            reading.text("memory.state") == state && vm.plugged() == plugged * MIB
        });
        let derived = vm.witness_exact("");
        assert_eq!(derived.bytes("memory.plugged_bytes"), plugged * MIB);
        assert_eq!(derived.bytes("memory.boot_bytes"), 512 * MIB);
    }
}

/// QEMU's default is a device whose unplugged memory must not be touched, which this driver does not know of.
#[test]
fn a_device_that_its_driver_refuses_is_unknown_and_said_to_be_refused() {
    let mut vm = Machine::new("5.10").online_movable().memory(300).boot();
    vm.wait_quiet(Duration::from_millis(300));
    assert_eq!(vm.plugged(), 0, "the driver took it: nothing is shown");
    let reading = vm.witness("");
    assert_eq!((reading.is_exact(), reading.text("memory.plugged_bytes")), (false, ""));
    let doctor = vm.run("/usr/bin/guestmeterd doctor");
    assert_ne!(doctor.code, 0);
    let text = doctor.text();
    assert!(text.contains("has no running driver") && text.contains("unplugged-inaccessible"), "{text}");
}
