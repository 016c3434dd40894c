//! Pauses of a machine that stays where it is: by the VMM, whose guest's clock stands, and of the VMM itself, whose
//! guest's clock runs on.

use crate::rig::template::{RUN, TICK, with_vmgenid};
use crate::rig::{Ear, Platform, Vm, passed, used};
use guestmeter::wire::message::{EpochSource, Finding, Reason, Report, Resume, Signal};
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_secs(2);
/// Past the cap of two ticks, by more than the slice that it falls in.
const JUMP: Duration = Duration::from_secs(4 * TICK.as_secs());

/// The most that a guest's clock can say of a pause and what is around it, where it stands in the pause: what the host's
/// says without it. It was set by the guest's kernel against an emulated timer: it may be off by 0.1 %.
fn beside(pause: Duration, start: Instant) -> u128 {
    let ran = start.elapsed().checked_sub(pause).expect("the pause is over");
    (ran + ran / 1000).as_nanos()
}

/// Checkpoint, pause, `Resume`: the life's last report and the next one's first.
fn pauses_and_resumes(
    platform: &mut Platform,
    vm: &mut Vm,
    life: &Resume,
    pause: fn(&mut Vm),
) -> (Report, Resume, Report) {
    let last = platform.checkpoint(vm, life);
    assert_eq!((last.reason, last.tail.held), (Reason::Checkpoint, true));
    pause(vm);
    let next = platform.mint(&life.sandbox);
    let first = platform.resume(vm, &next);
    assert_eq!((first.reason, first.tail.held), (Reason::Resume, false));
    assert_eq!(first.identity.epoch.id, next.epoch);
    assert_eq!(first.tail.findings, []);
    (last, next, first)
}

#[test]
fn a_pause_after_a_checkpoint_is_not_counted_whether_the_clock_stands_or_runs_on() {
    let mut vm = with_vmgenid().restore(42);
    let mut platform = Platform::new();
    let (life, born) = platform.adopt(&mut vm, "sandbox");
    std::thread::sleep(RUN);

    let start = Instant::now();
    let (last, life, first) = pauses_and_resumes(&mut platform, &mut vm, &life, |vm| vm.stopped_for(PAUSE));
    let stopped = passed(&last, &first);
    let ran = beside(PAUSE, start);
    assert!(stopped.clock <= ran, "the clock stood: {stopped:?} of {ran} ns");
    assert_eq!(stopped.dropped, 0, "{stopped:?}");
    assert_eq!(first.resume.map(|resume| resume.signal), Some(Signal::Host), "nothing else could tell");
    assert_eq!((first.identity.seq, first.base), (1, first.usage), "the new life begins at its resume");

    let (last, _, first) = pauses_and_resumes(&mut platform, &mut vm, &life, |vm| vm.frozen_for(JUMP));
    let frozen = passed(&last, &first);
    assert!(frozen.suspended >= JUMP.as_nanos(), "the clock ran on, and the hold tells: {frozen:?}");
    assert_eq!(frozen.dropped, 0, "{frozen:?}");
    // The agent's own tick may have noticed it before the host spoke: the life began then.
    let signal = first.resume.map(|resume| resume.signal);
    assert!(matches!(signal, Some(Signal::Host | Signal::Clock)), "{signal:?}");
    assert_eq!(used(&first).as_nanos(), frozen.counted, "what is counted is the new life's");

    let end = platform.read(&mut vm);
    let whole = passed(&born, &end);
    assert_eq!(whole.suspended, stopped.suspended + frozen.suspended);
    assert_eq!(end.usage.gaps, born.usage.gaps);
    // The tail of each life is delivered again with what ran after its last report, and all lives are all that ran.
    let tails = platform.segments(&mut vm).into_iter().map(|tail| tail.usage.active.total());
    assert_eq!(tails.sum::<u128>() + used(&end).as_nanos(), used(&born).as_nanos() + whole.counted);
}

/// The last words of a life that were not acknowledged come as a segment of its own epoch.
#[test]
fn a_life_whose_end_was_not_heard_is_delivered_later() {
    let mut vm = with_vmgenid().restore(42);
    let mut platform = Platform::new();
    let (life, born) = platform.adopt(&mut vm, "sandbox");
    vm.stopped_for(Duration::from_millis(200));
    let next = platform.mint("sandbox");
    let first = platform.resume(&mut vm, &next);
    assert_eq!(first.tail.segments_waiting, 1);
    let segments = platform.segments(&mut vm);
    let [tail] = segments.as_slice() else { panic!("{segments:?}") };
    assert_eq!(tail.epoch.id, life.epoch);
    assert_eq!(u128::from(tail.seq), u128::from(born.identity.seq) + 1);
    // A bare pause leaves no trace: what ran on either side of it is the old life's, up to the resume.
    assert_eq!(tail.usage, first.usage.since(&born.base));
    assert!(first.usage.uncertain.0 > 0, "a pause may hide in the last slice: {:?}", first.usage);

    let refused = platform.try_checkpoint(&vm, &life).expect_err("that life is over");
    assert!(refused.to_string().contains(&life.epoch.to_string()), "{refused}");
    let mut late = first.clone();
    late.identity.epoch.id = life.epoch;
    late.identity.seq = tail.seq;
    platform.ack(&mut vm, &late);
    assert_eq!(platform.segments(&mut vm), []);
}

/// Nobody told the agent: what the clock says past the cap is dropped and declared, and the host is asked.
#[test]
fn an_unannounced_jump_of_the_clock_is_dropped_past_the_cap_and_told() {
    let mut vm = with_vmgenid().restore(42);
    let mut platform = Platform::new();
    let ear = Ear::new(&vm);
    let (_, born) = platform.adopt(&mut vm, "sandbox");
    std::thread::sleep(RUN);
    drop(ear.so_far());
    let before = platform.read(&mut vm);
    vm.frozen_for(JUMP);
    let told = ear.hears(&mut vm, "of a jump", |report| report.tail.findings.contains(&Finding::ClockJump));
    assert_eq!(told.reason, Reason::Query);
    assert_eq!(told.identity.epoch, born.identity.epoch, "a hint opens no epoch");
    let jump = passed(&before, &told);
    assert!(jump.clock >= JUMP.as_nanos());
    // What had passed of the slice before the pause is at most a tick.
    assert!(jump.dropped + (3 * TICK).as_nanos() >= JUMP.as_nanos(), "{jump:?}");
    assert_eq!(told.usage.gaps, before.usage.gaps + 1);
    assert_eq!(jump.suspended, 0);
}

/// The same by the VMM: the guest has seen nothing, and nothing of it is counted either.
#[test]
fn an_unannounced_pause_by_the_vmm_goes_unseen_and_uncounted() {
    let mut vm = with_vmgenid().restore(42);
    let mut platform = Platform::new();
    let (_, born) = platform.adopt(&mut vm, "sandbox");
    let start = Instant::now();
    let before = platform.read(&mut vm);
    vm.stopped_for(PAUSE);
    let after = platform.read(&mut vm);
    let gone = passed(&before, &after);
    let ran = beside(PAUSE, start);
    assert!(gone.counted <= ran, "{gone:?} of {ran} ns");
    assert_eq!((gone.suspended, gone.dropped), (0, 0));
    assert_eq!(after.tail.findings, born.tail.findings);
    assert_eq!(after.identity.epoch, born.identity.epoch);
}

/// Checkpoint, and no snapshot after all: the hold ends as if it had not been.
#[test]
fn a_snapshot_that_is_given_up_costs_nothing() {
    let mut vm = with_vmgenid().restore(42);
    let mut platform = Platform::new();
    let (life, _) = platform.adopt(&mut vm, "sandbox");
    let last = platform.checkpoint(&mut vm, &life);
    std::thread::sleep(TICK);
    let (next, first) = platform.adopt(&mut vm, "sandbox");
    let held = passed(&last, &first);
    assert_eq!((held.suspended, held.dropped), (0, 0), "{held:?}");
    assert_eq!(first.identity.epoch.id, next.epoch);
    assert_eq!(first.identity.epoch.source, EpochSource::Host);
    assert!(!first.tail.held);
    let now = platform.read(&mut vm);
    assert_eq!(used(&now).as_nanos(), passed(&first, &now).clock, "the new life's own time alone");
}
