//! Saved to a file and restored in a new VMM: noticed by what tells of it, named by the host, and billed once.

use crate::rig::template::{PLUGGED_MIB, RUN, TICK, with_vmclock, with_vmgenid, without_traces};
use crate::rig::{Ear, HUNG, MIB, Platform, Saved, Vm, mark, passed, used};
use guestmeter::units::Bytes;
use guestmeter::wire::message::{EpochSource, Finding, Reason, Report, Resume, Signal};

/// A life in a machine of `template`, checkpointed and saved; the machine is gone.
fn saved_life(template: &Saved, platform: &mut Platform) -> (Resume, Report, Saved) {
    let mut vm = template.restore(42);
    let (life, _) = platform.adopt(&mut vm, "sandbox");
    std::thread::sleep(RUN);
    let last = platform.checkpoint(&mut vm, &life);
    // Saved in the middle of a wake-up, it would go on there, and may meet the reset connection before the trace.
    vm.wait_asleep();
    (life, last, vm.save())
}

/// The provisional life that the guest opens by itself, waited for.
fn noticed(platform: &Platform, vm: &mut Vm) -> Report {
    let mut report = platform.read(vm);
    vm.wait("the restore to be noticed", HUNG, |vm| {
        report = platform.read(vm);
        report.identity.epoch.source == EpochSource::Provisional
    });
    report
}

/// Restored under another CID: the guest notices, opens a provisional life, and the host's `Resume` names it.
fn noticed_and_named(template: &Saved, signal: Signal) {
    let mut platform = Platform::new();
    let (_, last, saved) = saved_life(template, &mut platform);
    let mut vm = saved.restore(43);
    let ear = Ear::new(&vm);
    let provisional = noticed(&platform, &mut vm);
    let told = provisional.resume.expect("a resume");
    assert_eq!(told.signal, signal);
    let latency = provisional.resume.and_then(|it| it.latency_max).expect("how late it was noticed at most");
    assert!(u128::from(latency.0) <= (2 * TICK).as_nanos(), "{latency}");
    assert!(!provisional.tail.held);
    let gone = passed(&last, &provisional);
    assert_eq!((gone.dropped, gone.counted), (0, used(&provisional).as_nanos()), "{gone:?}");
    let refused = platform.try_ack(&vm, &provisional).expect_err("nobody has named it");
    assert!(refused.to_string().contains("provisional"), "{refused}");
    let notified = ear.hears(&mut vm, "of the restore", |report| report.reason == Reason::Resume);
    assert_eq!(notified.identity.epoch.source, EpochSource::Provisional);
    assert_eq!((notified.resume, notified.base), (provisional.resume, provisional.base));

    let next = platform.mint("sandbox");
    let named = platform.resume(&mut vm, &next);
    assert_eq!(named.identity.epoch.id, next.epoch);
    assert_eq!((named.base, named.resume), (provisional.base, provisional.resume), "named in place");
    assert!(named.identity.seq > provisional.identity.seq);
    assert_eq!(named.memory.plugged, Some(Bytes::mib(PLUGGED_MIB)));
    assert_eq!(vm.plugged(), PLUGGED_MIB * MIB);
    assert_eq!(named.tail.findings, []);
    // One restore is one resume, whatever else tells of it.
    std::thread::sleep(TICK * 2);
    let later = platform.read(&mut vm);
    assert_eq!((later.identity.epoch, later.base), (named.identity.epoch, named.base));
    passed(&last, &later);
}

#[test]
fn a_restore_is_noticed_by_vmgenid() {
    noticed_and_named(with_vmgenid(), Signal::Vmgenid);
}

#[test]
fn a_restore_is_noticed_by_vmclock() {
    noticed_and_named(with_vmclock(), Signal::Vmclock);
}

/// Where nothing tells the guest, the host does; until then the count goes on under its hold.
#[test]
fn a_restore_without_a_trace_is_the_hosts_to_tell() {
    let mut platform = Platform::new();
    let (life, last, saved) = saved_life(without_traces(), &mut platform);
    let mut vm = saved.restore(43);
    std::thread::sleep(TICK);
    let unaware = platform.read(&mut vm);
    assert_eq!(unaware.identity.epoch.id, life.epoch);
    assert!(unaware.tail.held, "only a resume ends a hold");
    let next = platform.mint("sandbox");
    let first = platform.resume(&mut vm, &next);
    assert_eq!(first.resume.map(|resume| resume.signal), Some(Signal::Host));
    assert_eq!((first.identity.seq, first.base), (1, first.usage));
    assert!(!first.tail.held);
    assert_eq!(first.tail.segments_waiting, 1, "what ran before the host spoke is the old life's tail");
    assert_eq!(passed(&last, &first).dropped, 0);
    assert_eq!(vm.plugged(), PLUGGED_MIB * MIB);
    assert_eq!(first.memory.plugged, Some(Bytes::mib(PLUGGED_MIB)));
}

/// The host's counter went on; then last week's snapshot comes back under the same sandbox.
#[test]
fn an_older_snapshot_is_named_a_rollback_and_raised_to_the_mark() {
    let mut platform = Platform::new();
    let mut vm = with_vmgenid().restore(42);
    let (life, _) = platform.adopt(&mut vm, "sandbox");
    let old = platform.checkpoint(&mut vm, &life);
    let saved = vm.save();
    vm.go_on();
    let life = platform.mint("sandbox");
    platform.resume(&mut vm, &life);
    vm.wait("the guest to use what is billed then", HUNG, |vm| used(&platform.read(vm)) >= RUN);
    let newest = platform.checkpoint(&mut vm, &life);
    assert!(used(&newest) >= RUN);
    drop(vm);

    let mut vm = saved.restore(42);
    let behind = noticed(&platform, &mut vm);
    // Of its new life any amount may have passed by now.
    assert_eq!(behind.base.active, old.usage.active, "the snapshot is older");
    let next = Resume { mark: Some(mark(&newest)), ..platform.mint("sandbox") };
    let first = platform.resume(&mut vm, &next);
    assert_eq!(first.tail.findings, [Finding::Rollback]);
    assert_eq!(guestmeter::wire::message::Counters::from(&first.base), mark(&newest).counters);
    let rebased = u128::from(first.usage.rebased.active.0);
    assert_eq!(rebased, newest.usage.active.total() - behind.base.active.total());
    passed(&old, &first);
    // What it counts now is told from what it had counted: the difference to the base is this life's alone.
    let now = platform.read(&mut vm);
    assert_eq!(used(&now).as_nanos(), passed(&behind, &now).counted + used(&behind).as_nanos());
    assert!(now.usage.active.total() >= newest.usage.active.total());
    // The same again is an ordinary request, its mark ignored.
    let again = platform.resume(&mut vm, &next);
    assert_eq!((again.base, again.usage.rebased), (now.base, now.usage.rebased));
}
