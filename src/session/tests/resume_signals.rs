//! Resumes that nobody announced, or that several signals tell of.

use super::lives::*;
use super::world::*;
use super::*;
use crate::wire::message::{Epoch, Signal};

#[test]
fn two_signals_of_one_resume_are_one_resume() {
    let mut world = named();
    world.signals = Signals { vmgenid: Some(0), ..vmclock(1) };
    world.wake(at(2_500), None);
    world.ask(at(3_000), checkpoint(1));
    world.signals = Signals { vmgenid: Some(0), ..vmclock(2) };
    world.wake(at(3_500), None);
    assert_eq!(world.session.saved().resume.map(|resume| resume.signal), Some(Signal::Vmclock));
    world.signals = Signals { vmgenid: Some(1), ..vmclock(2) };
    world.wake(at(4_000), None);
    let report = one_report(&world.ask(at(4_500), paused(2)));
    assert_eq!(report.resume.map(|resume| resume.detected), Some(at(3_500).monotonic));
    assert_eq!(report.resume.unwrap().latency_max, Some(Nanos(500_000_000)));
    assert_eq!(report.usage.since(&report.base).active.total(), 1_000_000_000);
    world.signals = Signals { vmgenid: Some(1), ..vmclock(3) };
    world.wake(at(5_000), None);
    assert_eq!(
        world.session.saved().epoch,
        Epoch::default(),
        "a device tells once of one resume: another one"
    );
}

#[test]
fn a_late_interrupt_after_the_host_named_the_resume_opens_nothing_and_a_changed_page_or_a_checkpoint_does() {
    let vmgenid = |count| Signals { vmgenid: Some(count), ..vmclock(1) };
    let named_at_3_s = || {
        let mut world = named();
        world.signals = vmgenid(0);
        world.wake(at(2_500), None);
        world.ask(at(3_000), paused(2));
        world
    };
    let mut world = named_at_3_s();
    world.signals = vmgenid(1);
    let actions = world.session.step(at(4_000), Event::Signals(world.signals));
    assert_eq!(actions, [Action::Save], "an agent that starts again must not take it for news");
    let mut world = World::new(Some(world.session.saved().clone()));
    world.signals = vmgenid(1);
    world.wake(at(15_000), None);
    assert_eq!(world.session.saved().epoch.number, 2);

    let mut world = named_at_3_s();
    world.signals = Signals { vmgenid: Some(0), ..vmclock(2) };
    world.wake(at(4_000), None);
    assert_eq!(world.session.saved().epoch, Epoch::default(), "the page was read with the host's word");

    let mut world = named_at_3_s();
    world.ask(at(5_000), checkpoint(2));
    world.signals = vmgenid(1);
    world.wake(at(5_500), None);
    assert_eq!(world.session.saved().epoch, Epoch::default());
}

#[test]
fn how_late_an_interrupt_may_be_does_not_hang_on_the_tick() {
    let limits = Limits { notify: false, ..Limits::default() };
    for (tick, millis, number) in [(Nanos(100_000_000), 9_000, 2), (Nanos::from_secs(3600), 20_000, 0)] {
        let mut world = named();
        world.session = Session::new(myself(), tick, limits, Some(world.session.saved().clone()));
        world.signals.vmgenid = Some(0);
        world.wake(at(3_000), Some(Event::Connected(HOST)));
        world.ask(at(3_000), hello(1, 1));
        world.ask(at(3_000), paused(2));
        world.signals.vmgenid = Some(1);
        world.wake(at(millis), None);
        assert_eq!(world.session.saved().epoch.number, number, "{tick:?}");
    }
}

#[test]
fn a_signal_is_read_before_time_is_counted_and_a_welcome_of_that_moment_tells_it() {
    let mut world = named();
    world.signals = vmclock(1);
    world.wake(at(3_000), None);
    world.signals = vmclock(2);
    let greeting = world.wake(at(103_000), Some(Event::Request { from: HOST, request: hello(1, 1) }));
    let [reply] = replies(&greeting).try_into().unwrap();
    assert!(matches!(reply, Reply::Welcome(welcome) if welcome.epoch == Epoch::default()));
    let usage = *world.session.saved().meter.usage();
    assert_eq!(usage.active.whole, 3, "how much of the 100 s ran is not known");
    assert_eq!(usage.dropped.active, Nanos::from_secs(100));
}

#[test]
fn a_restarted_agent_compares_the_signals_before_it_counts() {
    let mut world = named();
    world.signals = vmclock(1);
    world.wake(at(7_000), None);
    let saved = world.session.saved().clone();
    let mut world = World::new(Some(saved));
    world.signals = vmclock(2);
    world.wake(at(9_000), None);
    assert_eq!(world.session.saved().epoch, Epoch::default());
    assert_eq!(world.session.saved().resume.map(|resume| resume.signal), Some(Signal::Vmclock));
}

#[test]
fn a_reset_connection_is_a_resume_only_while_held() {
    let reset = |connection| Event::Closed { connection, reset: true };
    let mut world = named();
    world.wake(at(3_000), Some(reset(HOST)));
    assert_eq!(world.session.saved().epoch.number, 1);
    assert_eq!(world.session.saved().findings, [Finding::ConnectionReset]);
    let mut world = named();
    world.ask(at(3_000), checkpoint(1));
    world.wake(at(4_000), Some(reset(HOST)));
    let resumed = world.session.saved().resume.unwrap();
    assert_eq!((resumed.signal, resumed.latency_max), (Signal::VsockReset, Some(Nanos::from_secs(1))));
}

#[test]
fn a_clock_that_is_set_is_a_resume_only_while_held() {
    let set = |clock: Clock, seconds: u64| Clock {
        realtime_unix: clock.realtime_unix.saturating_add(Nanos::from_secs(seconds)),
        ..clock
    };
    let mut world = named();
    world.wake(set(at(3_000), 3_600), None);
    assert_eq!(
        (world.session.saved().epoch.number, world.session.saved().findings.as_slice()),
        (1, [Finding::ClockStep].as_slice())
    );
    let mut world = named();
    world.ask(at(3_000), checkpoint(1));
    world.wake(set(at(4_000), 3_600), None);
    assert_eq!(world.session.saved().resume.map(|resume| resume.signal), Some(Signal::Clock));
}

#[test]
fn a_jump_that_nobody_explains_is_counted_by_the_table_and_said() {
    let mut world = named();
    world.wake(at(62_000), None);
    assert_eq!(
        (world.session.saved().epoch.number, world.session.saved().findings.as_slice()),
        (1, [Finding::ClockJump].as_slice())
    );
    assert_eq!(world.session.saved().meter.usage().dropped.active, Nanos::from_secs(50));
}

#[test]
fn how_late_a_resume_is_known_at_most_is_the_time_since_the_last_look() {
    let mut world = World::greeted();
    world.ask(at(2_000), fresh(1));
    world.wake(at(7_000), None);
    let report = one_report(&world.ask(at(8_500), paused(2)));
    let resumed = report.resume.unwrap();
    assert_eq!((resumed.detected, resumed.latency_max), (at(8_500).monotonic, Some(Nanos(1_500_000_000))));
}
