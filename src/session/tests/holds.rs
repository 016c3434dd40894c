//! A checkpoint holds the count.

use super::lives::*;
use super::world::*;
use super::*;
use crate::wire::message::{Epoch, Signal};

#[test]
fn a_checkpoint_holds_and_only_a_resume_or_a_release_ends_it() {
    let mut world = named();
    let report = one_report(&world.ask(at(3_000), checkpoint(1)));
    assert_eq!((report.reason, report.tail.held), (Reason::Checkpoint, true));
    assert!(one_report(&world.ask(at(4_000), Request::Read)).tail.held);
    world.ask(at(4_000), ack(1, 3));
    world.wake(at(9_000), None);
    let report = one_report(&world.ask(at(10_000), paused(2)));
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
