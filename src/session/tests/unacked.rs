//! What waits for an ack, and what an ack frees.

use super::lives::*;
use super::world::*;
use super::*;
use crate::meter::Counters;
use crate::wire::message::{Boundary, Epoch};

#[test]
fn what_the_old_epoch_used_last_waits_as_a_segment_until_it_is_acked() {
    let mut world = named();
    world.ask(at(3_000), ack(1, 1));
    world.ask(at(4_000), paused(2));
    let [tail] = segments(&mut world, 4_000).try_into().unwrap();
    assert_eq!((tail.epoch.number, tail.seq, tail.boundary), (1, 2, crate::wire::message::Boundary::Resume));
    assert_eq!((tail.usage.active.whole, tail.rate.map(|rate| rate.memory)), (4, Some(Bytes::mib(512))));
    assert!(matches!(replies(&world.ask(at(5_000), ack(1, 1))).as_slice(), [Reply::Acked(_)]));
    assert_eq!(segments(&mut world, 5_000).len(), 1, "an ack of what came before frees nothing");
    assert!(matches!(replies(&world.ask(at(5_000), ack(1, 2))).as_slice(), [Reply::Acked(_)]));
    assert!(segments(&mut world, 5_000).is_empty());
}

#[test]
fn a_capacity_change_ends_a_segment_that_is_named_with_its_epoch() {
    let mut world = World::greeted();
    world.capacity = capacity(1024);
    world.wake(at(3_000), Some(Event::Hotplug));
    let [segment] = segments(&mut world, 3_000).try_into().unwrap();
    assert_eq!((segment.epoch, segment.boundary), (Epoch::default(), Boundary::Event));
    world.ask(at(4_000), fresh(1));
    let [segment] = segments(&mut world, 4_000).try_into().unwrap();
    assert_eq!((segment.epoch.number, segment.usage.memory.whole), (1, 3 * 512));
}

#[test]
fn an_epoch_that_was_never_named_leaves_nothing_and_that_is_counted() {
    let mut world = World::greeted();
    world.capacity = capacity(1024);
    world.wake(at(3_000), Some(Event::Hotplug));
    let report = one_report(&world.ask(at(4_000), paused(1)));
    assert!(segments(&mut world, 4_000).is_empty());
    assert_eq!(report.tail.segments_dropped, 1);
    assert_eq!(report.usage.since(&report.base), Counters::default(), "a template's past is nobody's");
}

/// Seed 241324 of the simulation: the ack of a segment freed the epoch's tail, which had the same number.
#[test]
fn an_ack_of_a_segment_that_was_given_out_frees_none_that_comes_later() {
    let mut world = named();
    world.capacity = capacity(64);
    world.wake(at(3_000), Some(Event::Hotplug));
    let given = segments(&mut world, 3_500);
    assert_eq!(given.len(), 1);
    world.ask(at(6_000), paused(2));
    for _ in 0..2 {
        world.ask(at(6_500), ack(1, given[0].seq));
        let tail = segments(&mut world, 7_000);
        assert_eq!(tail.iter().map(|segment| segment.usage.active.whole).collect::<Vec<_>>(), [6]);
    }
}

/// Seed 36926 of the simulation: it freed what was never delivered.
#[test]
fn an_ack_from_the_future_of_an_older_epoch_is_refused() {
    let mut world = named();
    world.ask(at(4_000), paused(2));
    assert_eq!(one_refusal(&world.ask(at(5_000), ack(1, 3))), RefusalCode::UnknownEpoch);
    assert_eq!(segments(&mut world, 5_000).len(), 1);
    assert!(matches!(replies(&world.ask(at(5_000), ack(1, 2))).as_slice(), [Reply::Acked(_)]));
}

#[test]
fn acks_of_what_is_not_here_are_named_errors_and_the_connection_stays() {
    let mut world = World::greeted();
    world.ask(at(1_500), Request::Read);
    let provisional = Request::Ack(Ack { epoch: Id::default(), seq: 1 });
    assert_eq!(one_refusal(&world.ask(at(2_000), provisional)), RefusalCode::UnknownEpoch);
    world.ask(at(2_000), fresh(1));
    assert_eq!(one_refusal(&world.ask(at(2_000), ack(1, 3))), RefusalCode::UnknownEpoch, "of the future");
    assert_eq!(one_refusal(&world.ask(at(2_000), ack(9, 1))), RefusalCode::UnknownEpoch, "of no epoch here");
    let actions = world.ask(at(2_000), ack(1, 2));
    assert!(matches!(actions.as_slice(), [Action::Save, Action::Send { reply: Reply::Acked(_), .. }]));
}
