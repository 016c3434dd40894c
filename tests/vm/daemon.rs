//! The agent as a daemon in a guest, asked from the host over vsock.

use crate::rig::template::{bare, bare_6_1};
use crate::rig::{HUNG, MIB, Reading, Vm};
use std::time::Duration;

#[test]
fn the_host_reads_what_the_vmm_says() {
    let mut vm = bare().restore(42);
    vm.start_agent("--device-config");
    for mib in [0, 130, 384, 300, 0] {
        vm.resize(0, mib);
        vm.wait_quiet(Duration::from_secs(1));
        let reading = vm.read_exact();
        assert_eq!(reading.bytes("memory.requested_bytes"), mib * MIB);
        assert_eq!(reading.bytes("memory.total_bytes"), (512 + mib) * MIB);
    }
}

#[test]
fn memory_plugged_before_the_agent_starts_is_counted() {
    for template in [bare(), bare_6_1()] {
        let mut vm = template.restore(42);
        vm.resize(0, 130);
        vm.wait_quiet(Duration::from_secs(1));
        vm.start_agent("");
        let reading = vm.read_exact();
        assert_eq!(reading.bytes("memory.plugged_bytes"), 130 * MIB);
        assert!(reading.text("memory.sources").contains("kpageflags"), "{reading:?}");
    }
}

/// A block that comes has an event, and ends the slice at once; a part of a block has none, and waits for the tick.
#[test]
fn a_slice_ends_at_the_event_or_at_the_next_observation() {
    let mut vm = bare().restore(42);
    vm.start_agent("--tick 1h");
    vm.read_exact();
    vm.resize(0, 256);
    let grown = (512 + 256) * MIB;
    vm.wait("the events to be heard", HUNG, |vm| {
        vm.sh("cat /run/agent.log").contains(&format!("-> {grown} B"))
    });
    let before = vm.read_exact();
    vm.resize(0, 258);
    vm.resize(0, 260);
    vm.wait_quiet(Duration::from_millis(300));
    let after = vm.read_exact();
    let mib_seconds = after.bytes("usage.memory.mib_seconds") - before.bytes("usage.memory.mib_seconds");
    let seconds = after.bytes("usage.active.seconds") - before.bytes("usage.active.seconds");
    // The whole slice belongs to the capacity at its start, 768 MiB: the change was dated to the observation.
    assert!(mib_seconds <= 768 * (seconds + 1), "{mib_seconds} MiB·s in {seconds} s");
    assert_eq!(after.bytes("memory.plugged_bytes"), 260 * MIB);
}

/// Exact all the while; a state other than the request takes the agent its settle time (10 s) to say.
fn comes_to(vm: &mut Vm, state: &str) -> Reading {
    let mut last = vm.read_exact();
    vm.wait(&format!("the state {state}"), HUNG, |vm| {
        last = vm.read_exact();
        last.text("memory.state") == state
    });
    last
}

/// 4 MiB stay where a kernel page sits: the host takes them for given back.
#[test]
fn an_unplug_that_cannot_finish_is_over_and_one_in_reach_is_settled() {
    let mut vm = bare().restore(42);
    vm.online_by_policy();
    vm.start_agent("--device-config");
    vm.resize(0, 128);
    vm.sh("for i in $(seq 200); do mkdir -p /run/kernel-pages/$i; echo >/run/kernel-pages/$i/x; done");
    vm.request(0, 0);
    let stuck = comes_to(&mut vm, "over").bytes("memory.plugged_bytes");
    assert!(stuck > 0, "the unplug went through: nothing is shown");
    assert_eq!(vm.plugged(), stuck);
    vm.request(0, stuck / MIB);
    comes_to(&mut vm, "settled");
    vm.host_fails("wait-settled", &["--expect", "64M", "--timeout", "1s"], 1);
}

#[test]
fn growth_that_cannot_happen_is_short() {
    let mut vm = bare().restore(42);
    vm.start_agent("--device-config");
    // The driver stops adding while blocks that it added stay offline.
    vm.sh("echo offline >/sys/devices/system/memory/auto_online_blocks");
    vm.request(0, 2000);
    comes_to(&mut vm, "short");
}
