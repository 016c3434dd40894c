//! The system calls that a restore costs the guest: from noticing it to the last byte of its report.

use crate::rig::{Ear, Machine, Platform, Vm};
use guestmeter::wire::message::Reason;

const CALLS_MAX: usize = 60;
/// The count of VMGenID's interrupt, before and after.
const COUNTER: &str = "/sys/firmware/acpi/interrupts/gpe05";

/// The agent's calls until now, as strace writes them: process, call, descriptors with their paths.
fn calls(vm: &mut Vm) -> Vec<String> {
    let trace = vm.sh("cat /run/trace");
    trace.lines().map(|line| line.split_once(' ').map_or(line, |(_, call)| call.trim()).to_owned()).collect()
}

fn is_noticing(call: &str) -> bool {
    call.contains(COUNTER) && call.contains("\"       1")
}

/// What the agent itself does from noticing to telling: the wake-up that notices, and from the wake-up of the dial that
/// the host answered on. Between the two, where an earlier dial came to nothing, it only waits for the host.
fn path(since: &[String]) -> Vec<&str> {
    let sleeps = |call: &String| call.starts_with("epoll_");
    let noticing = since.iter().position(sleeps).unwrap_or(since.len());
    let dial = since.iter().rposition(|call| call.starts_with("connect(")).expect("a dial");
    let dialing = since[..dial].iter().rposition(sleeps).unwrap_or(0);
    since[..noticing].iter().chain(&since[dialing.max(noticing)..]).map(String::as_str).collect()
}

/// Nothing is started, and nothing written but to sockets and under /run.
fn touches_little(call: &str) {
    let name = call.split('(').next().unwrap_or(call);
    let starts = ["clone", "clone3", "fork", "vfork", "execve", "execveat"];
    assert!(!starts.contains(&name), "started: {call}");
    let opens_to_write = ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"].iter().any(|flag| call.contains(flag));
    assert!(!opens_to_write || call.contains("\"/run/"), "opened: {call}");
    if ["write", "pwrite64", "writev", "pwritev", "pwritev2", "rename", "ftruncate"].contains(&name) {
        let allowed = ["</run/", "<socket:", "<anon_inode:"];
        assert!(allowed.iter().any(|to| call.contains(to)), "written: {call}");
    }
}

#[test]
fn a_restore_is_noticed_and_told_in_few_calls_with_nothing_started() {
    let machine = Machine::new("6.12").systemd().online_movable().memory(130).vmgenid();
    let mut vm = machine.portable(42).boot();
    vm.sh("systemctl stop guestmeterd.socket guestmeterd.service");
    let agent = "/usr/bin/guestmeterd --tick 1s --state /run/traced --notify vsock://2:1020";
    vm.sh(&format!("strace -f -qq -y -o /run/trace {agent} >/dev/null 2>/run/agent.log </dev/null &"));
    let mut platform = Platform::new();
    platform.read(&mut vm);
    let (life, _) = platform.adopt(&mut vm, "sandbox");
    platform.checkpoint(&mut vm, &life);
    let saved = vm.save();
    drop(vm);
    // The host listens before the guest runs: one that does not is dialed again after a second, by no fault of the guest.
    let mut vm = saved.restore_paused(43);
    let ear = Ear::new(&vm);
    vm.cont();
    ear.hears(&mut vm, "of the restore", |report| report.reason == Reason::Resume);
    let next = platform.mint("sandbox");
    platform.resume(&mut vm, &next);

    let calls = calls(&mut vm);
    let noticed = calls.iter().position(|call| is_noticing(call)).expect("the trace was read");
    let since = &calls[noticed..];
    // A dial that finds no vsock device yet comes to nothing: the report is the first thing that is sent.
    let told = since.iter().position(|call| call.starts_with("sendto(")).expect("a report");
    let named = since.iter().skip(told + 1).position(|call| call.starts_with("sendto(")).expect("an answer");
    since[..=told + 1 + named].iter().for_each(|call| touches_little(call));
    let path = path(&since[..=told]);
    let report = path.join("\n");
    assert!(path.len() < CALLS_MAX, "{} calls:\n{report}", path.len());
    assert!(report.contains("</run/traced>"), "the state is saved before the report leaves:\n{report}");
    eprintln!("count system calls from noticing a restore to its report: {}", path.len());
}
