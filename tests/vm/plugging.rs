//! Memory that the VMM was asked to change while the guest could not see it.

use crate::rig::template::{PLUGGED_MIB, RUN, with_vmgenid};
use crate::rig::{Ear, MIB, Platform, Saved, Vm};
use guestmeter::capacity::MemoryState;
use guestmeter::units::Bytes;
use guestmeter::wire::message::{Reason, Resume};

/// The driver lets 1 GiB be offline before it stops adding.
pub(crate) const WANTED_MIB: u64 = 1600;
const ONLINE: &str = "/sys/devices/system/memory/auto_online_blocks";

/// Saved with the agent asking the device itself, and blocks that stay offline until told: growth stops half-way.
pub(crate) fn saved_short_of_breath(platform: &mut Platform) -> Saved {
    let mut vm = with_vmgenid().restore(42);
    vm.kill_agent();
    vm.restart_agent("--device-config");
    vm.sh(&format!("echo offline >{ONLINE}"));
    let (life, born) = platform.adopt(&mut vm, "sandbox");
    assert_eq!(born.memory.plugged, Some(Bytes::mib(PLUGGED_MIB)));
    platform.checkpoint(&mut vm, &life);
    vm.save()
}

/// What stopped growth is over.
pub(crate) fn let_it_grow(vm: &mut Vm) {
    vm.sh(&format!("echo online_movable >{ONLINE}"));
    vm.sh("for block in /sys/devices/system/memory/memory*; do grep -q offline $block/state && echo online_movable >$block/state; done; true");
}

#[test]
fn a_request_changed_while_paused_is_plugging_and_then_settled() {
    let mut platform = Platform::new();
    let saved = saved_short_of_breath(&mut platform);
    let mut vm = saved.restore_paused(42);
    let ear = Ear::new(&vm);
    vm.request(0, WANTED_MIB);
    vm.cont();
    let next = Resume { requested: Some(Bytes::mib(WANTED_MIB)), ..platform.mint("sandbox") };
    let first = platform.resume(&mut vm, &next);
    assert_eq!(first.reason, Reason::Resume);
    assert_eq!(first.memory.state, MemoryState::Plugging, "{:?}", first.memory);
    assert!(vm.plugged() < WANTED_MIB * MIB);

    let_it_grow(&mut vm);
    let settled = ear.hears_settled(&mut vm);
    assert_eq!(settled.identity.epoch.id, next.epoch);
    assert_eq!(settled.memory.state, MemoryState::Settled, "{:?}", settled.memory);
    assert_eq!(settled.memory.plugged, Some(Bytes::mib(WANTED_MIB)));
    assert_eq!(vm.plugged(), WANTED_MIB * MIB);
    assert_eq!(settled.base, first.base);
}

#[test]
fn a_request_changed_while_paused_that_cannot_be_met_ends_short() {
    let mut platform = Platform::new();
    let saved = saved_short_of_breath(&mut platform);
    let mut vm = saved.restore_paused(42);
    let ear = Ear::new(&vm);
    vm.request(0, WANTED_MIB);
    vm.cont();
    let next = Resume { requested: Some(Bytes::mib(WANTED_MIB)), ..platform.mint("sandbox") };
    let first = platform.resume(&mut vm, &next);
    assert_eq!(first.memory.state, MemoryState::Plugging, "{:?}", first.memory);
    let short = ear.hears_settled(&mut vm);
    assert_eq!(short.memory.state, MemoryState::Short, "{:?}", short.memory);
    assert_eq!(short.memory.plugged.map(|plugged| plugged.0), Some(vm.plugged()));
    let (settled, _) = platform.wait_settled(&mut vm, RUN);
    assert!(!settled);
}

/// The agent is not told by the device: the host's word in `Resume` is what it is judged by.
#[test]
fn a_request_changed_right_after_the_resume_settles_by_the_hosts_word() {
    let mut platform = Platform::new();
    let mut vm = with_vmgenid().restore(42);
    let ear = Ear::new(&vm);
    let next = Resume { requested: Some(Bytes::mib(WANTED_MIB)), ..platform.mint("sandbox") };
    let first = platform.resume(&mut vm, &next);
    assert_eq!(
        (first.memory.requested, first.memory.state),
        (Some(Bytes::mib(WANTED_MIB)), MemoryState::Plugging)
    );
    vm.request(0, WANTED_MIB);
    let settled = ear.hears_settled(&mut vm);
    assert_eq!(settled.memory.state, MemoryState::Settled);
    assert_eq!(settled.memory.total(), Some(Bytes::mib(512 + WANTED_MIB)));
}
