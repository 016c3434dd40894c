//! The agent as an image ships it: started by systemd from the shipped units, unprivileged, over a passed socket.

use crate::rig::{MIB, Machine, Vm};
use std::time::Duration;

fn boot(kernel: &str) -> Vm {
    let mut vm = Machine::new(kernel).systemd().online_movable().memory(130).vsock(42).boot();
    vm.wait("the agent to be active", Duration::from_secs(60), |vm| {
        vm.run("systemctl is-active guestmeterd.service").text().trim() == "active"
    });
    vm
}

#[test]
fn the_shipped_units_serve_exact_readings_on_6_12() {
    let mut vm = boot("6.12");
    let reading = vm.read_exact();
    assert_eq!(reading.bytes("memory.plugged_bytes"), 130 * MIB);
    assert_eq!(vm.sh("ps -o user:20= -C guestmeterd").trim(), "guestmeter");
    for mib in [300, 2, 0] {
        vm.resize(0, mib);
        vm.wait_quiet(Duration::from_secs(1));
        vm.read_exact();
    }
    let failed = vm.sh("systemctl --failed --no-legend --plain");
    assert_eq!(failed, "", "units failed");
}

#[test]
fn the_shipped_units_serve_exact_readings_on_6_1() {
    let mut vm = boot("6.1");
    assert_eq!(vm.read_exact().bytes("memory.plugged_bytes"), 130 * MIB);
}

#[test]
fn systemd_restarts_a_killed_agent_and_nothing_is_lost() {
    let mut vm = boot("6.12");
    let before = vm.read_exact();
    for life in 1..=3 {
        vm.sh("systemctl kill -s KILL guestmeterd.service");
        vm.wait("the agent to be back", Duration::from_secs(30), |vm| {
            vm.run("systemctl is-active guestmeterd.service").text().trim() == "active"
                && vm.try_read().is_some()
        });
        let after = vm.read_exact();
        assert_eq!(after.text("identity.boot_id"), before.text("identity.boot_id"));
        assert_eq!(after.bytes("identity.instance"), before.bytes("identity.instance") + life);
        let wall = after.bytes("clock.monotonic_ns") - before.bytes("clock.monotonic_ns");
        let active = |reading: &crate::rig::Reading| {
            reading.bytes("usage.active.seconds") * 1_000_000_000 + reading.bytes("usage.active.carry_ns")
        };
        let dropped = |reading: &crate::rig::Reading| reading.bytes("usage.dropped.active_ns");
        // Exact: what was counted plus what was declared as dropped is the time that passed.
        let counted = active(&after) - active(&before) + dropped(&after) - dropped(&before);
        assert_eq!(counted, wall);
        assert_eq!(dropped(&after), dropped(&before), "a restart within two ticks drops nothing");
    }
    let stored = vm.sh("systemctl show -P NFileDescriptorStore guestmeterd.service");
    assert!(stored.parse::<u32>().expect("a number") <= 4, "descriptors pile up: {stored}");
}

/// Only the host's CID is let in: a process in the guest that dials through loopback has CID 1.
#[test]
fn a_process_in_the_guest_is_refused() {
    let mut vm = boot("6.12");
    vm.read_exact();
    let loopback = vm.sh("ls /sys/module | grep -x vsock_loopback");
    assert_eq!(loopback, "vsock_loopback", "without it nothing is shown");
    // `Hello` for version 1 and nonce 0, then `Read`: the host gets a Welcome and a Report for this.
    let answer = vm.run("socat -t5 - VSOCK-CONNECT:1:1020 </dev/null");
    assert_eq!(answer.stdout, b"", "a loopback peer was answered");
    vm.wait("the refusal in the log", Duration::from_secs(10), |vm| {
        vm.sh("journalctl -b -u guestmeterd --no-pager").contains("CID 1")
    });
    vm.read_exact();
}
