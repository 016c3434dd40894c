//! `kill -9` of the agent in each phase of a life: what it had said still holds, and nothing is counted twice.

use crate::plugging::{WANTED_MIB, let_it_grow, saved_short_of_breath};
use crate::rig::template::{TICK, with_vmgenid};
use crate::rig::{Ear, Platform, Vm, passed, used};
use guestmeter::capacity::MemoryState;
use guestmeter::units::Bytes;
use guestmeter::wire::message::{EpochSource, Reason, Report, Resume, Signal};

fn kill_and_restart(vm: &mut Vm) {
    vm.kill_agent();
    vm.restart_agent("");
}

/// Dead and back within the cap: the same life goes on.
fn survives(platform: &Platform, vm: &mut Vm, before: &Report) -> Report {
    kill_and_restart(vm);
    let after = platform.read(vm);
    let (was, is) = (&before.identity, &after.identity);
    assert_eq!((is.epoch, &is.sandbox, is.boot_id), (was.epoch, &was.sandbox, was.boot_id));
    assert_eq!(is.instance, was.instance + 1);
    assert!(is.seq > was.seq, "a number is never used twice: {} after {}", is.seq, was.seq);
    assert_eq!((after.base, after.resume, after.tail.held), (before.base, before.resume, before.tail.held));
    assert_eq!(after.tail.findings, before.tail.findings);
    passed(before, &after);
    after
}

#[test]
fn a_kill_in_any_phase_loses_nothing_undeclared() {
    let mut platform = Platform::new();
    let mut vm = with_vmgenid().restore(42);

    // Unnamed yet.
    let unnamed = platform.read(&mut vm);
    let after = survives(&platform, &mut vm, &unnamed);
    assert_eq!(after.identity.epoch.source, EpochSource::Provisional);

    // Named and counting, its first report unacknowledged.
    let life = Resume { paused: false, ..platform.mint("sandbox") };
    let named = platform.try_resume(&vm, &life).expect("named");
    assert_eq!(named.base, unnamed.base, "named in place");
    let after = survives(&platform, &mut vm, &named);
    platform.ack(&mut vm, &after);
    let again = platform.resume(&mut vm, &life);
    assert_eq!(
        (again.base, again.identity.epoch),
        (named.base, named.identity.epoch),
        "asked again: the same life"
    );

    // Held, before the pause.
    let last = platform.checkpoint(&mut vm, &life);
    let held = survives(&platform, &mut vm, &last);
    assert!(held.tail.held);

    // Dead while it is saved: what wakes up finds the trace, and the pause stays out of the count.
    vm.kill_agent();
    let saved = vm.save();
    drop(vm);
    let mut vm = saved.restore(43);
    vm.restart_agent("");
    let noticed = platform.read(&mut vm);
    assert_eq!(noticed.identity.epoch.source, EpochSource::Provisional);
    assert_eq!(noticed.resume.map(|resume| resume.signal), Some(Signal::Vmgenid));
    assert_eq!(passed(&held, &noticed).dropped, 0);
    assert!(!noticed.tail.held);

    // Noticed, but not named yet.
    let provisional = survives(&platform, &mut vm, &noticed);
    let next = platform.mint("sandbox");
    let first = platform.resume(&mut vm, &next);
    assert_eq!((first.base, first.resume), (provisional.base, provisional.resume), "named in place, once");

    // Right after the `Resume`.
    let after = survives(&platform, &mut vm, &first);
    std::thread::sleep(TICK * 2);
    let later = platform.read(&mut vm);
    assert_eq!((later.identity.epoch, later.base), (after.identity.epoch, after.base), "one resume, not two");
    assert_eq!(used(&later).as_nanos(), passed(&first, &later).counted + used(&first).as_nanos());
    passed(&unnamed, &later);
}

/// Killed while memory is plugged, what it had to tell still unheard: the one after it tells it.
#[test]
fn a_kill_while_memory_is_plugged_still_tells_that_it_has_settled() {
    let mut platform = Platform::new();
    let saved = saved_short_of_breath(&mut platform);
    let mut vm = saved.restore_paused(42);
    vm.request(0, WANTED_MIB);
    vm.cont();
    let life = Resume { requested: Some(Bytes::mib(WANTED_MIB)), ..platform.mint("sandbox") };
    let plugging = platform.resume(&mut vm, &life);
    assert_eq!(plugging.memory.state, MemoryState::Plugging, "{:?}", plugging.memory);

    vm.kill_agent();
    let ear = Ear::new(&vm);
    vm.restart_agent("--device-config");
    let back = ear.hears(&mut vm, "of the agent's start", |report| report.reason == Reason::Boot);
    assert_eq!((back.identity.epoch, back.base), (plugging.identity.epoch, plugging.base));
    assert_eq!(back.identity.instance, plugging.identity.instance + 1);
    let_it_grow(&mut vm);
    let settled = ear.hears_settled(&mut vm);
    assert_eq!((settled.identity.epoch, settled.base), (plugging.identity.epoch, plugging.base));
    assert_eq!(settled.memory.plugged, Some(Bytes::mib(WANTED_MIB)));
    passed(&plugging, &settled);
}

/// Killed between the pause and the host's word, where only the clock can tell.
#[test]
fn a_kill_under_a_hold_whose_pause_only_the_clock_shows() {
    let mut platform = Platform::new();
    let mut vm = with_vmgenid().restore(42);
    let (life, _) = platform.adopt(&mut vm, "sandbox");
    let last = platform.checkpoint(&mut vm, &life);
    vm.kill_agent();
    vm.frozen_for(TICK * 3);
    vm.restart_agent("");
    let noticed = platform.read(&mut vm);
    assert_eq!(noticed.resume.map(|resume| resume.signal), Some(Signal::Clock));
    let gone = passed(&last, &noticed);
    assert!(gone.suspended >= (TICK * 3).as_nanos(), "{gone:?}");
    assert_eq!((gone.counted, gone.dropped), (used(&noticed).as_nanos(), 0), "{gone:?}");
}

/// Dead for longer than the cap while it counts: the rest is dropped, and said.
#[test]
fn a_long_death_is_declared() {
    let mut platform = Platform::new();
    let mut vm = with_vmgenid().restore(42);
    let (_, born) = platform.adopt(&mut vm, "sandbox");
    vm.kill_agent();
    std::thread::sleep(TICK * 3);
    vm.restart_agent("");
    let back = platform.read(&mut vm);
    let gone = passed(&born, &back);
    assert_eq!(back.usage.gaps, born.usage.gaps + 1);
    assert!(gone.dropped > 0 && gone.suspended == 0, "{gone:?}");
    assert_eq!((back.identity.epoch, back.base), (born.identity.epoch, born.base));
}
