//! The agent as an image ships it: started by systemd from the shipped units, unprivileged, over a passed socket.

use crate::boot::follows_a_resize;
use crate::notifying::{accept, listen, notified};
use crate::rig::template::with_systemd;
use crate::rig::{HUNG, MIB, Machine, Vm};
use guestmeter::host::Client;
use guestmeter::wire;
use guestmeter::wire::message::{Hello, Message, Reason, Request};
use std::io::{Read, Write};
use std::time::Duration;

/// Past 30 s, and short of the minute after which the agent closes what is idle.
const LONG_PAUSE: Duration = Duration::from_secs(40);

pub(crate) fn boot(kernel: &str) -> Vm {
    let mut vm = Machine::new(kernel).systemd().online_movable().memory(130).vsock(42).boot();
    vm.wait("the agent to be active", HUNG, |vm| {
        vm.run("systemctl is-active guestmeterd.service").text().trim() == "active"
    });
    vm
}

/// A boot whose agent's units were left out of it, and are started now: its first life.
pub(crate) fn start() -> Vm {
    let mut vm = with_systemd().restore(42);
    vm.sh("systemctl start guestmeterd.socket guestmeterd.service");
    vm
}

/// The shipped unit with another tick.
fn restart_with(vm: &mut Vm, tick: &str) {
    vm.sh("mkdir -p /run/systemd/system/guestmeterd.service.d");
    let unit = format!(r"[Service]\nExecStart=\nExecStart=/usr/bin/guestmeterd --tick {tick}\n");
    vm.sh(&format!("printf '{unit}' >/run/systemd/system/guestmeterd.service.d/tick.conf"));
    vm.sh("systemctl daemon-reload && systemctl restart guestmeterd.service");
}

#[test]
fn a_booted_image_follows_a_resize_and_its_units_serve_exact_readings_on_6_12() {
    let mut vm = boot("6.12");
    let reading = vm.read_exact();
    assert_eq!(reading.bytes("memory.plugged_bytes"), 130 * MIB);
    follows_a_resize(&mut vm, "6.12.");
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
fn a_booted_image_follows_a_resize_and_its_units_serve_exact_readings_on_6_1() {
    let mut vm = boot("6.1");
    assert_eq!(vm.read_exact().bytes("memory.plugged_bytes"), 130 * MIB);
    follows_a_resize(&mut vm, "6.1.");
}

#[test]
fn systemd_restarts_a_killed_agent_and_nothing_is_lost() {
    let mut vm = start();
    // However long a busy machine takes for a restart, it is within two ticks.
    restart_with(&mut vm, "60s");
    let before = vm.read_exact();
    for life in 1..=3 {
        vm.sh("systemctl kill -s KILL guestmeterd.service");
        vm.wait("the agent to be back", HUNG, |vm| {
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

/// systemd's watchdogs run on the clock that jumps: with one of 30 s it killed the agent as this pause ended.
#[test]
fn a_long_pause_over_which_the_clock_jumps_ends_neither_the_agent_nor_a_connection() {
    let mut vm = start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let client = Client::new(vm.target().parse().expect("a target"), HUNG);
    let mut conversation = runtime.block_on(client.converse()).expect("a connection");
    let before = runtime.block_on(conversation.read()).expect("a report").report;
    vm.frozen_for(LONG_PAUSE);
    let after = runtime.block_on(conversation.read()).expect("the open connection still answers").report;
    let passed = after.clock.monotonic.0 - before.clock.monotonic.0;
    assert!(u128::from(passed) >= LONG_PAUSE.as_nanos(), "the clock stood: {passed} ns");
    assert_eq!(after.identity.instance, before.identity.instance);
    assert_eq!(vm.sh("systemctl show -P NRestarts guestmeterd.service").trim(), "0");
}

/// The tests beside this one read, restart and resume in the same sandbox.
#[test]
fn the_sandbox_is_shut_and_the_host_is_told_through_it() {
    let mut vm = start();
    let host = listen(&vm);
    let mut stream = accept(&host);
    assert_eq!(notified(&mut stream).report.reason, Reason::Boot);

    let pid = vm.sh("systemctl show -P MainPID guestmeterd.service").trim().to_owned();
    let status = vm.sh(&format!("cat /proc/{pid}/status"));
    for (field, value) in [("Seccomp", "2"), ("NoNewPrivs", "1"), ("Threads", "1")] {
        assert!(status.contains(&format!("{field}:\t{value}\n")), "{field}: {status}");
    }
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(status.contains(&format!("{set}:\t0000000000000000\n")), "{set}: {status}");
    }
    for namespace in ["net", "user", "mnt"] {
        let of = |vm: &mut Vm, pid: &str| vm.sh(&format!("readlink /proc/{pid}/ns/{namespace}"));
        assert_ne!(of(&mut vm, &pid), of(&mut vm, "1"), "{namespace}");
    }
    assert_eq!(vm.sh(&format!("cat /proc/{pid}/oom_score_adj")).trim(), "-900");
    assert_eq!(vm.sh("cat /sys/fs/cgroup/guestmeterd.service/memory.min").trim(), "2097152");
    let log = vm.sh("journalctl -b -u guestmeterd --no-pager");
    assert!(log.contains("confined: ") && !log.contains("not confined"), "{log}");
    eprintln!("count KiB private dirty in the shipped sandbox: {}", private_dirty(&mut vm, &pid));
}

fn private_dirty(vm: &mut Vm, pid: &str) -> u64 {
    let text = vm.sh(&format!("awk '/^Private_Dirty/ {{ print $2 }}' /proc/{pid}/smaps_rollup"));
    text.trim().parse().expect("a number of KiB")
}

#[test]
fn hotplug_events_come_through_the_sandbox() {
    let mut vm = start();
    restart_with(&mut vm, "1h");
    vm.read_exact();
    // Three blocks of 128 MiB: nobody looks for an hour but by their events.
    vm.resize(0, 130 + 384);
    let grown = (512 + 130 + 384) * MIB;
    vm.wait("the growth in the log", HUNG, |vm| {
        vm.sh("journalctl -b -u guestmeterd --no-pager").contains(&format!("-> {grown} B"))
    });
}

/// Only the host's CID is let in: a process in the guest that dials through loopback has CID 1.
#[test]
fn a_process_in_the_guest_is_refused() {
    let mut vm = start();
    vm.read_exact();
    let loopback = vm.sh("ls /sys/module | grep -x vsock_loopback");
    assert_eq!(loopback, "vsock_loopback", "without it nothing is shown");
    let mut asked = Vec::new();
    let hello = Hello { version_min: 1, version_max: 1, nonce: 0 };
    for request in [Request::Hello(hello), Request::Read] {
        wire::encode(&Message::Request(request), &mut asked).expect("a request");
    }
    // The host has a Welcome and a Report for these very bytes.
    let mut host = vm.dial(1020);
    host.write_all(&asked).expect("a question");
    host.read_exact(&mut [0; 64]).expect("an answer to the host");
    drop(host);
    let escaped: String = asked.iter().map(|byte| format!(r"\x{byte:02x}")).collect();
    let answer = vm.run(&format!("printf '{escaped}' | socat -t5 - VSOCK-CONNECT:1:1020"));
    assert_eq!(answer.stdout, b"", "a loopback peer was answered");
    vm.wait("the refusal in the log", HUNG, |vm| {
        vm.sh("journalctl -b -u guestmeterd --no-pager").contains("CID 1")
    });
    vm.read_exact();
}
