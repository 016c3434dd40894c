//! Peers that close their half, and bytes that are nobody's frame.

use super::*;

#[test]
fn a_peer_that_has_closed_its_half_gets_its_answers_and_is_closed_behind_them() {
    let mut world = World::greeted();
    world.ask(at(2_000), wait_settled(Some(2), 0, 9_000));
    world.ask(at(2_000), Request::Read);
    assert!(world.wake(at(2_000), Some(Event::Ended(HOST))).is_empty(), "two answers are owed");
    world.capacity = capacity(2);
    let actions = world.wake(at(2_250), None);
    assert_eq!((reports(&actions).len(), closes(&actions)), (2, vec![CloseCause::Ended]));
    assert!(matches!(actions.last(), Some(Action::Close { .. })), "the answer goes first");
    assert_eq!(world.session.connections(), 0);
}

#[test]
fn one_that_is_owed_nothing_is_closed_at_once_if_it_has_watched_too() {
    let mut world = World::greeted();
    assert_eq!(closes(&world.wake(at(2_000), Some(Event::Ended(HOST)))), [CloseCause::Ended]);
    assert_eq!(closes(&world.wake(at(2_000), Some(Event::Ended(HOST)))), [], "it is gone");

    let mut world = World::greeted();
    world.ask(at(2_000), watch(1_000));
    assert_eq!(closes(&world.wake(at(2_500), Some(Event::Ended(HOST)))), [CloseCause::Ended]);
    assert!(reports(&world.wake(at(3_000), None)).is_empty());
}

#[test]
fn garbage_is_counted_over_restarts_and_told() {
    let mut world = World::greeted();
    world.wake(at(2_000), Some(Event::Garbage { bytes: 60 }));
    world.session.step(at(2_000), Event::Garbage { bytes: 5 });
    assert_eq!(reports(&world.ask(at(2_000), Request::Read))[0].tail.garbage_bytes, 65);
    let mut world = World::new(Some(world.session.saved().clone()));
    world.wake(at(3_000), Some(Event::Connected(HOST)));
    world.ask(at(3_000), hello(1, 1));
    world.session.step(at(3_000), Event::Garbage { bytes: u64::MAX });
    assert_eq!(reports(&world.ask(at(3_000), Request::Read))[0].tail.garbage_bytes, u64::MAX);
}
