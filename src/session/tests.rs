//! Stories with invented times.

mod changes;
mod clock_steps;
mod ends;
mod epochs;
mod holds;
mod lives;
mod marks;
mod notifying;
mod random;
mod resume_signals;
mod unacked;
mod world;

use super::*;
use crate::capacity::Capacity;
use crate::meter;
use crate::units::Bytes;
use crate::wire::message::{Ack, Finding, Reason, Refusal, RefusalCode, Reply, Request, Watch};
use world::*;

#[test]
fn the_first_wake_looks_fully_and_the_tick_is_re_armed_by_each_observation() {
    let mut world = World::new(None);
    assert_eq!(world.session.deadline(), Nanos::ZERO);
    world.wake(at(1_000), None);
    assert_eq!(world.looks, [Depth::Full]);
    assert_eq!(world.session.deadline(), at(6_000).monotonic);
    assert!(world.wake(at(5_999), None).is_empty(), "nothing is due, nothing is read or written");
    assert_eq!(world.wake(at(6_000), None), [Action::Save]);
    assert_eq!(world.looks, [Depth::Full, Depth::Hot]);
}

#[test]
fn a_report_is_made_of_a_full_look_and_saved_before_it_leaves() {
    let mut world = World::greeted();
    let looks = world.looks.len();
    let actions = world.ask(at(3_000), Request::Read);
    assert_eq!(world.looks.get(looks..), Some([Depth::Full].as_slice()));
    assert!(matches!(actions.as_slice(), [Action::Save, Action::Send { to: HOST, .. }]));
    let [report] = reports(&actions).try_into().unwrap();
    assert_eq!((report.reason, report.clock), (Reason::Query, at(3_000)));
    assert_eq!((report.identity.seq, report.identity.instance), (1, 1));
    assert_eq!(report.identity.epoch, crate::wire::message::Epoch::default());
    assert_eq!(report.usage.active.whole, 3, "1 s since boot, 2 s since");
    assert_eq!(world.session.saved().seq, 1);
}

#[test]
fn a_slice_ends_where_the_capacity_changes() {
    let mut world = World::greeted();
    world.capacity = capacity(1024);
    world.wake(at(3_000), Some(Event::Observed { capacity: capacity(1024), depth: Depth::Hot }));
    assert!(matches!(world.log.as_slice(), [Note::Capacity { .. }]));
    let [report] = reports(&world.ask(at(4_000), Request::Read)).try_into().unwrap();
    assert_eq!(report.usage.memory.whole, 3 * 512 + 1536, "the change counts from when it was seen");
}

#[test]
fn answers_come_in_the_order_of_the_requests() {
    let mut world = World::greeted();
    world.session.step(at(2_000), Event::Request { from: HOST, request: Request::Read });
    let refusal = RefusalCode::Unsupported.because("kind 99");
    world.session.step(at(2_000), Event::Unserved { from: HOST, refusal });
    world.session.step(at(2_000), Event::Request { from: HOST, request: hello(1, 1) });
    let actions = world.ask(at(2_000), Request::Read);
    assert!(matches!(
        replies(&actions).as_slice(),
        [Reply::Report(_), Reply::Error(_), Reply::Welcome(_), Reply::Report(_)]
    ));
    let sequence: Vec<u64> = reports(&actions).iter().map(|report| report.identity.seq).collect();
    assert_eq!(sequence, [1, 2]);
}

#[test]
fn before_hello_nothing_is_served_and_there_are_two_seconds_for_it() {
    let mut world = World::new(None);
    world.wake(at(1_000), Some(Event::Connected(HOST)));
    let actions = world.ask(at(2_000), Request::Read);
    assert!(matches!(refusals(&actions).as_slice(), [refusal] if refusal.code == RefusalCode::Handshake));
    assert_eq!(world.session.deadline(), at(3_000).monotonic, "the time does not start anew");
    assert_eq!(closes(&world.wake(at(3_000), None)), [CloseCause::Handshake]);
    assert_eq!(world.session.connections(), 0);
}

#[test]
fn a_newer_host_is_told_both_ranges() {
    let mut world = World::new(None);
    world.wake(at(1_000), Some(Event::Connected(HOST)));
    let actions = world.ask(at(1_000), hello(2, 3));
    let [refusal] = refusals(&actions).try_into().unwrap();
    assert_eq!(refusal.code, RefusalCode::Version);
    assert!(refusal.text.contains("1 to 1") && refusal.text.contains("2 to 3"), "{}", refusal.text);
    assert_eq!(closes(&actions), [CloseCause::Version]);
}

#[test]
fn a_newer_host_that_still_speaks_ours_is_served() {
    let mut world = World::new(None);
    world.wake(at(1_000), Some(Event::Connected(HOST)));
    let [reply] = replies(&world.ask(at(1_000), hello(1, 9))).try_into().unwrap();
    assert!(matches!(reply, Reply::Welcome(welcome) if welcome.agent.protocol == 1));
}

#[test]
fn the_fifth_connection_is_told_that_it_is_one_too_many() {
    let mut world = World::new(None);
    for number in 1..=4 {
        let id = ConnectionId(number);
        assert!(closes(&world.wake(at(1_000), Some(Event::Connected(id)))).is_empty());
    }
    let actions = world.wake(at(1_000), Some(Event::Connected(ConnectionId(5))));
    assert!(matches!(refusals(&actions).as_slice(), [refusal] if refusal.code == RefusalCode::Busy));
    assert_eq!(closes(&actions), [CloseCause::Busy]);
    world.wake(at(1_000), Some(closed(ConnectionId(2))));
    assert!(closes(&world.wake(at(1_000), Some(Event::Connected(ConnectionId(6))))).is_empty());
}

#[test]
fn an_idle_connection_is_closed_and_a_watching_one_is_not() {
    let mut world = World::greeted();
    world.ask(at(50_000), Request::Read);
    assert!(closes(&world.wake(at(109_999), None)).is_empty());
    assert_eq!(closes(&world.wake(at(110_000), None)), [CloseCause::Idle]);

    let mut world = World::greeted();
    world.ask(at(1_000), watch(100_000));
    assert!(closes(&world.wake(at(99_000), None)).is_empty());
}

#[test]
fn requests_beyond_the_limit_close_the_connection() {
    let mut world = World::greeted();
    let mut actions = Vec::new();
    for asked in 0..=16 {
        assert_eq!(world.session.accepts(HOST), asked < 16);
        actions.extend(world.session.step(at(2_000), Event::Request { from: HOST, request: Request::Read }));
    }
    assert_eq!(closes(&actions), [CloseCause::Unanswered]);
    assert!(world.ask(at(2_000), Request::Read).iter().all(|action| !matches!(action, Action::Send { .. })));
}

#[test]
fn a_watcher_hears_at_once_then_each_interval_and_is_told_of_a_change() {
    let mut world = World::greeted();
    assert_eq!(reports(&world.ask(at(2_000), watch(1_000))).len(), 1);
    assert_eq!(world.session.deadline(), at(3_000).monotonic);
    assert!(reports(&world.wake(at(2_500), None)).is_empty());
    let [report] = reports(&world.wake(at(3_000), None)).try_into().unwrap();
    assert_eq!(report.reason, Reason::Query);
    world.capacity = capacity(2);
    let [report] = reports(&world.wake(at(4_000), None)).try_into().unwrap();
    assert_eq!((report.reason, report.memory.plugged), (Reason::Capacity, Some(Bytes::mib(2))));
    let [report] = reports(&world.wake(at(5_000), None)).try_into().unwrap();
    assert_eq!(report.reason, Reason::Query);
}

#[test]
fn a_watch_is_kept_within_its_limits() {
    let mut world = World::greeted();
    world.ask(at(2_000), Request::Watch(Watch { interval: Nanos::ZERO }));
    assert_eq!(world.session.deadline(), at(2_100).monotonic);
    world.ask(at(2_000), Request::Watch(Watch { interval: Nanos(u64::MAX) }));
    assert_eq!(world.session.deadline(), at(7_000).monotonic, "the tick");
}

#[test]
fn settled_is_what_was_expected() {
    let mut world = World::greeted();
    assert!(replies(&world.ask(at(2_000), wait_settled(Some(128), 0, 10_000))).is_empty());
    assert_eq!(world.session.deadline(), at(2_250).monotonic, "looked at often while it is waited for");
    world.capacity = capacity(64);
    assert!(replies(&world.wake(at(2_250), None)).is_empty());
    world.capacity = capacity(128);
    let [report] = reports(&world.wake(at(2_500), None)).try_into().unwrap();
    assert_eq!((report.reason, report.memory.plugged), (Reason::Settled, Some(Bytes::mib(128))));
}

#[test]
fn bounds_around_what_was_expected_are_not_settled() {
    let mut world = World::greeted();
    world.capacity = capacity(128);
    world.capacity.memory.precision = crate::capacity::Precision::Bounded;
    world.capacity.memory.lower = Some(Bytes::ZERO);
    assert!(replies(&world.ask(at(2_000), wait_settled(Some(128), 0, 1_000))).is_empty());
    let [refusal] = refusals(&world.wake(at(3_000), None)).try_into().unwrap();
    assert!(refusal.text.contains("plugged 0 MiB to 128 MiB"), "{}", refusal.text);
}

#[test]
fn without_an_expectation_settled_is_quiet_counted_from_the_request() {
    let mut world = World::greeted();
    assert!(replies(&world.ask(at(60_000), wait_settled(None, 1_000, 10_000))).is_empty());
    world.capacity = capacity(2);
    assert!(replies(&world.wake(at(60_750), None)).is_empty());
    assert!(replies(&world.wake(at(61_500), None)).is_empty(), "0.75 s since the change");
    assert_eq!(reports(&world.wake(at(61_750), None)).len(), 1);
}

#[test]
fn the_devices_request_is_the_expectation_where_none_is_stated() {
    let mut world = World::greeted();
    world.capacity.memory.requested = Some(Bytes::mib(128));
    assert!(replies(&world.ask(at(2_000), wait_settled(None, 0, 60_000))).is_empty());
    world.capacity = capacity(128);
    world.capacity.memory.requested = Some(Bytes::mib(128));
    assert_eq!(reports(&world.wake(at(2_250), None)).len(), 1);
}

#[test]
fn a_hotplug_event_does_not_wait_for_the_next_look() {
    let mut world = World::greeted();
    world.ask(at(2_000), wait_settled(Some(128), 0, 10_000));
    world.capacity = capacity(128);
    let event = Event::Observed { capacity: capacity(128), depth: Depth::Hot };
    assert_eq!(reports(&world.wake(at(2_010), Some(event))).len(), 1);
}

#[test]
fn what_does_not_settle_is_told_with_both_numbers_and_holds_up_only_what_is_behind_it() {
    let mut world = World::greeted();
    world.capacity = capacity(126);
    world.session.step(at(2_000), Event::Request { from: HOST, request: wait_settled(Some(128), 0, 3_000) });
    assert!(replies(&world.ask(at(2_000), Request::Read)).is_empty());
    assert!(replies(&world.wake(at(4_999), None)).is_empty());
    let actions = world.wake(at(5_000), None);
    assert!(matches!(replies(&actions).as_slice(), [Reply::Error(_), Reply::Report(_)]));
    let [refusal] = refusals(&actions).try_into().unwrap();
    assert_eq!(refusal.code, RefusalCode::Timeout);
    assert!(refusal.text.contains("126 MiB") && refusal.text.contains("128 MiB"), "{}", refusal.text);
}

#[test]
fn a_restart_goes_on_where_the_state_was_saved() {
    let mut world = World::greeted();
    world.ask(at(2_000), Request::Read);
    let mut world = World::new(Some(world.session.saved().clone()));
    world.wake(at(3_000), Some(Event::Connected(HOST)));
    world.ask(at(3_000), hello(1, 1));
    let [report] = reports(&world.ask(at(4_000), Request::Read)).try_into().unwrap();
    assert_eq!((report.identity.instance, report.identity.seq), (2, 2));
    assert_eq!(
        (report.usage.active.whole, report.usage.gaps),
        (4, 0),
        "the time without an agent is counted"
    );
}

#[test]
fn a_long_absence_is_capped_and_said() {
    let mut world = World::greeted();
    let saved = world.session.saved().clone();
    world = World::new(Some(saved));
    world.wake(at(61_000), None);
    assert!(
        matches!(world.log.as_slice(), [Note::Dropped(slice)] if slice.dropped.active == Nanos::from_secs(50))
    );
    assert!(world.log.iter().all(|note| note.to_string()
        == "60.000 s passed since the last observation: 10.000 s counted, 50.000 s dropped"));
}

#[test]
fn unknown_memory_is_counted_by_the_next_best_number_and_said_once() {
    let mut world = World::new(None);
    world.capacity.memory.boot = None;
    world.wake(at(1_000), None);
    world.wake(at(6_000), None);
    assert_eq!(world.log, [Note::MemoryUnknown(Bytes::mib(400))]);
    assert_eq!(world.session.saved().meter.usage().memory.whole, 6 * 400);
}

#[test]
fn a_clock_that_goes_back_counts_nothing_and_is_said() {
    let mut world = World::greeted();
    world.wake(at(6_000), None);
    world.wake(at(500), Some(Event::Observed { capacity: capacity(0), depth: Depth::Hot }));
    assert!(matches!(world.log.as_slice(), [Note::Backwards(_)]));
    assert_eq!(world.session.saved().meter.usage().anomalies, 1);
}

#[test]
fn at_the_end_all_are_answered_and_watchers_hear_the_last_word() {
    let mut world = World::greeted();
    let waiter = ConnectionId(2);
    world.ask(at(2_000), watch(60_000));
    world.wake(at(2_000), Some(Event::Connected(waiter)));
    for request in [hello(1, 1), wait_settled(Some(1), 0, 60_000), Request::Read] {
        world.wake(at(2_000), Some(Event::Request { from: waiter, request }));
    }
    let actions = world.wake(at(3_000), Some(Event::Shutdown));
    assert_eq!(actions.first(), Some(&Action::Save));
    let reasons: Vec<Reason> = reports(&actions).iter().map(|report| report.reason).collect();
    assert_eq!(reasons, [Reason::Shutdown, Reason::Query]);
    assert!(matches!(refusals(&actions).as_slice(), [refusal] if refusal.code == RefusalCode::Internal));
    assert_eq!(closes(&actions), [CloseCause::Shutdown, CloseCause::Shutdown]);
    assert_eq!(
        closes(&world.wake(at(3_000), Some(Event::Connected(ConnectionId(3))))),
        [CloseCause::Shutdown]
    );
}
