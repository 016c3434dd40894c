//! Lives in a row: what the guest has counted, against the host's own stopwatch. The tick is an hour, so that nothing but
//! the protocol counts.

use crate::rig::template::with_vmgenid;
use crate::rig::{Ear, Platform, Vm, passed, used};
use guestmeter::capacity::MemoryState;
use guestmeter::wire::message::{EpochSource, Reason, Report};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How many, where it is not said.
const CYCLES: u32 = 10;
/// Every fifth pause is a snapshot and a restore in a new VMM; of the others every second one is of the VMM itself.
const RESTORED_EVERY: u32 = 5;
const RUN: Duration = Duration::from_millis(250);
const PAUSE: Duration = Duration::from_millis(300);

/// What the host's clock says of all lives together.
#[derive(Debug, Default)]
struct Stopwatch {
    /// From `Resume` applied to `Checkpoint` answered.
    ran: Duration,
    /// From `Resume` sent: no life is longer.
    most: Duration,
    /// To `Checkpoint` sent: no life is shorter.
    least: Duration,
}

fn pause(vm: &mut Vm, ear: &mut Ear, cycle: u32) {
    if cycle.is_multiple_of(RESTORED_EVERY) {
        let saved = vm.save();
        *vm = saved.restore(42 + cycle);
        *ear = Ear::new(vm);
    } else if cycle.is_multiple_of(2) {
        vm.frozen_for(PAUSE);
    } else {
        vm.stopped_for(PAUSE);
    }
}

#[test]
fn cycles_add_up_to_the_hosts_stopwatch() {
    let cycles = std::env::var("GUESTMETER_CYCLES")
        .map_or(CYCLES, |number| number.parse().expect("a number of cycles"));
    let mut vm = with_vmgenid().restore(42);
    vm.kill_agent();
    let mut ear = Ear::new(&vm);
    vm.start_agent("--tick 1h --notify vsock://2:1020");
    // Nothing may be under way when the machine stops.
    ear.hears(&mut vm, "of the agent's start", |report| report.reason == Reason::Boot);
    let mut platform = Platform::new();
    let (mut life, _) = platform.adopt(&mut vm, "sandbox");
    let mut last = platform.checkpoint(&mut vm, &life);
    let before = last.clone();
    let (mut stopwatch, mut guest) = (Stopwatch::default(), Duration::ZERO);
    let mut lives = BTreeSet::new();
    for cycle in 1..=cycles {
        pause(&mut vm, &mut ear, cycle);
        life = platform.mint("sandbox");
        let sent = Instant::now();
        let first = platform.try_resume(&vm, &life).expect("named");
        let applied = Instant::now();
        platform.ack(&mut vm, &first);
        std::thread::sleep(RUN);
        let asked = Instant::now();
        let end = platform.try_checkpoint(&vm, &life).expect("held");
        stopwatch.ran += applied.elapsed();
        stopwatch.most += sent.elapsed();
        stopwatch.least += asked - applied;
        platform.ack(&mut vm, &end);
        one_life(&last, &first, &end, &ear);
        // A restore is noticed before it is named: the life is as long as its own base says.
        guest += used(&end) - used(&first);
        lives.insert(end.identity.epoch.id);
        last = end;
    }
    assert_eq!(lives.len(), usize::try_from(cycles).expect("a count"), "each cycle is one epoch");
    let whole = passed(&before, &last);
    assert_eq!((whole.dropped, last.usage.anomalies), (0, 0), "{whole:?}");
    let (by_guest, by_host) = (guest.as_nanos(), stopwatch.ran.as_nanos());
    eprintln!("count ns of {cycles} lives: {by_guest} by the guest, {by_host} by the host");
    // The guest's clock was set by its kernel against an emulated timer: it may be off by 0.1 %.
    let slack = stopwatch.most / 1000;
    assert!(guest <= stopwatch.most + slack && guest + slack >= stopwatch.least, "{guest:?}, {stopwatch:?}");
}

/// One resume, told in one answer, and a count that is the checkpoint's reading to the nanosecond.
fn one_life(last: &Report, first: &Report, end: &Report, ear: &Ear) {
    assert_eq!([first, end].map(|report| report.reason), [Reason::Resume, Reason::Checkpoint]);
    assert_eq!(first.memory.state, MemoryState::Settled, "so that no second report is due");
    assert_eq!((end.identity.epoch, end.resume), (first.identity.epoch, first.resume));
    assert_eq!(end.identity.seq, first.identity.seq + 1, "nothing was said in between");
    assert_eq!(end.tail.segments_dropped, 0, "no epoch came and went without a name");
    // What the guest noticed by itself, and said before the host spoke, was this resume.
    for report in ear.so_far() {
        let told = (report.reason, report.identity.epoch.source, report.resume);
        assert_eq!(told, (Reason::Resume, EpochSource::Provisional, first.resume));
    }
    let ran = passed(first, end);
    assert_eq!((ran.counted, ran.suspended), (ran.clock, 0), "{ran:?}");
    let between = passed(last, first);
    assert_eq!(between.counted, used(first).as_nanos(), "{between:?}");
}
