//! Resumes that the guest notices by itself: VMClock, VMGenID, and a connection that dies.

use crate::rig::template::bare;
use crate::rig::{HUNG, Machine, Vm};
use crate::systemd;
use guestmeter::wire::message::{Hello, Message, Request};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

/// In the shipped sandbox, from a systemd guest: the unprivileged agent has VMClock from the descriptor store.
fn a_restore_is_noticed(mut vm: Vm, kernel: &str, signal: &str) {
    vm.wait("the agent to answer", HUNG, |vm| vm.try_read().is_some());
    // A second start, from what the first left.
    vm.sh("systemctl kill -s KILL guestmeterd.service");
    vm.wait("the agent to be back", HUNG, |vm| vm.try_read().is_some());
    let said = vm.sh("journalctl -b -u guestmeterd --no-pager");
    assert!(said.contains("resumes are noticed by VMGenID: QEMUVGID:00"), "{said}");
    assert_eq!(said.contains("resumes are noticed by VMClock: disruption marker"), kernel == "7.3", "{said}");
    // systemd drops what hangs up: VMClock does at once, where the VMM announces nothing.
    let expected = if kernel == "7.3" { "3" } else { "2" };
    vm.wait("the descriptor store to hold what it should", HUNG, |vm| {
        vm.sh("systemctl show -P NFileDescriptorStore guestmeterd.service") == expected
    });
    assert_eq!(vm.read_exact().text("resume"), "");

    let saved = vm.save();
    drop(vm);
    let mut vm = saved.restore(43);
    vm.wait("the resume to be noticed", HUNG, |vm| {
        vm.try_read().is_some_and(|reading| format!("{reading:?}").contains("resume.signal"))
    });
    let reading = vm.read_exact();
    assert_eq!(reading.text("resume.signal"), signal);
    assert_eq!(reading.text("identity.epoch.source"), "provisional");
}

#[test]
fn a_restore_is_noticed_by_vmgenid_on_6_12() {
    a_restore_is_noticed(systemd::start(), "6.12", "vmgenid");
}

#[test]
fn a_restore_is_noticed_by_vmclock_on_7_3() {
    let machine = Machine::new("7.3").systemd().online_movable().memory(130).vmgenid().vmclock();
    a_restore_is_noticed(machine.portable(42).boot(), "7.3", "vmclock");
}

/// An open connection that nobody uses.
fn idle_connection(vm: &Vm) -> UnixStream {
    let mut stream = vm.dial(1020);
    let mut hello = Vec::new();
    let request = Request::Hello(Hello { version_min: 1, version_max: 1, nonce: 1 });
    guestmeter::wire::encode(&Message::Request(request), &mut hello).unwrap();
    stream.write_all(&hello).unwrap();
    assert!(stream.read(&mut [0; 64]).unwrap() > 0);
    stream
}

fn a_reset_is_noticed_at_once(mut vm: Vm) {
    vm.start_agent("--tick 1h");
    let _idle = idle_connection(&vm);
    let saved = vm.save();
    drop(vm);
    let mut vm = saved.restore(43);
    vm.wait("the reset to be noticed", HUNG, |vm| {
        vm.sh("cat /run/agent.log").contains("connection of CID 2: ")
    });
}

#[test]
fn an_idle_connection_that_a_restore_resets_is_noticed_at_once_on_6_12() {
    a_reset_is_noticed_at_once(bare().restore(42));
}

#[test]
fn an_idle_connection_that_a_restore_resets_is_noticed_at_once_on_7_3() {
    a_reset_is_noticed_at_once(Machine::new("7.3").memory(0).portable(42).boot());
}
