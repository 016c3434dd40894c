//! A checkpoint holds the count.

use super::lives::*;
use super::world::*;
use super::*;
use crate::wire::message::{Checkpoint, Epoch, Signal};

#[test]
fn a_checkpoint_holds_and_only_a_resume_or_a_release_ends_it() {
    let mut world = named();
    let report = one_report(&world.ask(at(3_000), checkpoint(1)));
    assert_eq!((report.reason, report.tail.held), (Reason::Checkpoint, true));
    assert!(one_report(&world.ask(at(4_000), Request::Read)).tail.held);
    world.ask(at(4_000), ack(1, 3));
    world.wake(at(9_000), Some(Event::Connected(HOST_AGAIN)));
    world.ask_from(HOST_AGAIN, at(9_000), hello(1, 1));
    let report = one_report(&world.ask_from(HOST_AGAIN, at(10_000), paused(2)));
    assert!(!report.tail.held);
    assert_eq!(report.usage.suspended, Nanos::from_secs(1), "since the last observation");
    assert_eq!(report.usage.active.whole, 9, "the hold's ticks within the cap were counted");

    let mut world = named();
    world.ask(at(3_000), checkpoint(1));
    let report = one_report(&world.ask(at(4_000), fresh(2)));
    assert_eq!(
        (report.tail.held, report.usage.suspended),
        (false, Nanos::ZERO),
        "given up: nothing was paused"
    );
    assert_eq!(report.usage.active.whole, 4);
}

#[test]
fn a_jump_past_the_cap_while_held_is_a_resume_that_the_host_then_names_in_place() {
    let mut world = named();
    world.ask(at(3_000), checkpoint(1));
    world.wake(at(63_000), None);
    assert_eq!(world.session.saved().epoch, Epoch::default());
    assert_eq!(world.session.saved().resume.map(|resume| resume.signal), Some(Signal::Clock));
    world.wake(at(63_000), Some(Event::Connected(HOST_AGAIN)));
    world.ask_from(HOST_AGAIN, at(63_000), hello(1, 1));
    let report = one_report(&world.ask_from(HOST_AGAIN, at(64_000), paused(2)));
    assert_eq!(report.usage.suspended, Nanos::from_secs(60));
    assert_eq!((report.reason, report.identity.epoch.number), (Reason::Resume, 2));
    let since = report.usage.since(&report.base);
    assert_eq!((since.active.whole, since.active.carry), (1, 0), "the second before its name is its own");
}

#[test]
fn a_checkpoint_of_another_epoch_is_refused_and_does_not_hold() {
    let mut world = World::greeted();
    assert_eq!(one_refusal(&world.ask(at(2_000), checkpoint(1))), RefusalCode::UnknownEpoch, "name it first");
    world.ask(at(2_000), fresh(2));
    assert_eq!(one_refusal(&world.ask(at(2_000), checkpoint(1))), RefusalCode::StaleEpoch);
    assert_eq!(one_refusal(&world.ask(at(2_000), checkpoint(3))), RefusalCode::UnknownEpoch);
    assert!(!world.session.saved().meter.held());
}

#[test]
fn a_resume_that_comes_with_others_ends_a_hold_before_time_is_counted() {
    for before in [checkpoint(9), paused(1)] {
        let mut world = named();
        world.ask(at(3_000), checkpoint(1));
        world.session.step(at(4_000), Event::Request { from: HOST, request: before.clone() });
        world.session.step(at(4_000), Event::Request { from: HOST, request: paused(3) });
        world.ask(at(4_000), paused(2));
        let usage = *world.session.saved().meter.usage();
        assert_eq!((usage.active.whole, usage.suspended), (3, Nanos::from_secs(1)), "{before:?}");
        assert_eq!(world.session.saved().epoch.number, 3, "the late one is refused");
    }
}

/// Named, and watched by a second host while a third waits for memory.
fn watched() -> World {
    let mut world = named();
    for (from, request) in
        [(HOST_AGAIN, watch(60_000)), (ConnectionId(91), wait_settled(Some(4_096), 0, 60_000))]
    {
        world.wake(at(2_000), Some(Event::Connected(from)));
        world.ask_from(from, at(2_000), hello(1, 1));
        world.ask_from(from, at(2_000), request);
    }
    world
}

fn close(connection: ConnectionId, cause: CloseCause) -> Action {
    Action::Close { connection, cause }
}

#[test]
fn a_checkpoint_leaves_nothing_open_but_its_askers_connection_for_the_ack() {
    let mut world = watched();
    let actions = world.ask(at(3_000), checkpoint(1));
    let waited = refusals(&actions);
    assert_eq!(waited.len(), 1);
    assert!(waited[0].text.contains("holds the count for a pause"), "{}", waited[0].text);
    let refused = Action::Send { to: ConnectionId(91), reply: Reply::Error(waited[0].clone()) };
    for expected in [close(HOST_AGAIN, CloseCause::Held), refused, close(ConnectionId(91), CloseCause::Held)]
    {
        assert!(actions.contains(&expected), "{expected:?} is not among {actions:?}");
    }
    assert!(matches!(replies(&world.ask(at(4_500), ack(1, 3))).as_slice(), [Reply::Acked(_)]));
    assert!(closes(&world.wake(at(6_499), None)).is_empty());
    assert_eq!(world.session.deadline(), at(6_500).monotonic);
    assert_eq!(closes(&world.wake(at(6_500), None)), [CloseCause::Idle]);
    assert_eq!(world.session.connections(), 0);
}

#[test]
fn a_watch_or_a_wait_while_held_is_refused_and_one_after_the_resume_is_not() {
    let mut world = named();
    world.ask(at(3_000), checkpoint(1));
    assert_eq!(one_refusal(&world.ask(at(3_500), watch(1_000))), RefusalCode::Busy);
    assert_eq!(one_refusal(&world.ask(at(3_600), wait_settled(None, 0, 60_000))), RefusalCode::Busy);
    world.ask(at(4_000), paused(2));
    one_report(&world.ask(at(4_500), watch(1_000)));
    assert!(closes(&world.wake(at(7_000), None)).is_empty());
}

#[test]
fn a_pause_that_is_over_by_the_time_of_the_look_closes_nothing() {
    let mut world = watched();
    world.session.step(at(3_000), Event::Request { from: HOST, request: checkpoint(1) });
    assert!(closes(&world.ask(at(3_000), paused(2))).is_empty());
    let next = Request::Checkpoint(Checkpoint { epoch: id(2), number: 2 });
    let closed = closes(&world.ask_from(HOST_AGAIN, at(4_000), next));
    assert_eq!(closed.len(), 2, "who asked for the last one is spared no more: {closed:?}");
}

#[test]
fn a_connection_from_before_the_pause_that_may_be_dead_makes_room_for_a_new_one() {
    let mut world = named();
    let hosts = |from: u64| (from..from + 3).map(ConnectionId);
    for from in hosts(20) {
        world.wake(at(2_500), Some(Event::Connected(from)));
        world.ask_from(from, at(2_500), hello(1, 1));
    }
    assert_eq!(closes(&world.wake(at(2_600), Some(Event::Connected(HOST_AGAIN)))), [CloseCause::Busy]);
    world.ask(at(3_000), paused(2));
    for (from, evicted) in hosts(30).zip(hosts(20)) {
        let actions = world.wake(at(3_200), Some(Event::Connected(from)));
        assert_eq!(actions, [close(evicted, CloseCause::Idle)]);
        world.ask_from(from, at(3_200), hello(1, 1));
    }
    let busy = world.wake(at(3_300), Some(Event::Connected(HOST_AGAIN)));
    assert_eq!(closes(&busy), [CloseCause::Busy], "all were used since");
}
