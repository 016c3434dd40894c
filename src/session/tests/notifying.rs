//! The agent speaks first, and stops once it was heard.

use super::world::*;
use super::*;
use crate::wire::message::{Epoch, Resume};

const LINE: ConnectionId = ConnectionId(70);

fn world() -> World {
    let mut world = World::greeted();
    let saved = world.session.saved().clone();
    world.session = Session::new(myself(), TICK, Limits::default(), Some(saved));
    world
}

fn dials(actions: &[Action]) -> usize {
    actions.iter().filter(|action| matches!(action, Action::Dial)).count()
}

fn notified(actions: &[Action]) -> Vec<(u64, Reason)> {
    let notify = |reply| match reply {
        Reply::Notify(notify) => Some((notify.report.identity.seq, notify.report.reason)),
        _ => None,
    };
    replies(actions).into_iter().filter_map(notify).collect()
}

fn resume(number: u8, paused: bool) -> Request {
    Request::Resume(Resume {
        epoch: Id([number; 16]),
        number: number.into(),
        paused,
        sandbox: "s".to_owned(),
        at: Nanos::ZERO,
        mark: None,
        requested: Some(Bytes::mib(64)),
        boot: None,
    })
}

/// Named, connected and greeted; the boot's notification superseded by the name.
fn named() -> World {
    let mut world = world();
    assert_eq!(dials(&world.wake(at(2_000), Some(Event::Connected(HOST)))), 1);
    world.wake(at(2_000), Some(Event::DialFailed));
    world.ask(at(2_000), hello(1, 1));
    world.ask(at(2_000), resume(1, false));
    world
}

#[test]
fn a_start_is_told_again_with_the_same_number_until_it_is_superseded() {
    let mut world = world();
    assert_eq!(dials(&world.wake(at(2_000), None)), 1);
    assert_eq!(notified(&world.wake(at(2_000), Some(Event::Dialed(LINE)))), [(1, Reason::Boot)]);
    assert_eq!(closes(&world.wake(at(7_000), None)), [CloseCause::Unheard]);
    assert_eq!(dials(&world.wake(at(7_900), None)), 0, "a pause of 1 s at least");
    assert_eq!(dials(&world.wake(at(8_300), None)), 1, "and a quarter of jitter at most");
    assert_eq!(notified(&world.wake(at(8_300), Some(Event::Dialed(ConnectionId(71))))), [(1, Reason::Boot)]);
    let refused =
        world.wake(at(8_300), Some(Event::Request { from: ConnectionId(71), request: Request::Read }));
    assert_eq!(refusals(&refused).len(), 1, "it is no place to ask");
    assert!(world.session.notifying().is_some());
}

#[test]
fn an_ack_on_any_connection_ends_it() {
    let mut world = named();
    world.capacity = capacity(64);
    world.capacity.memory.state = crate::capacity::MemoryState::Settled;
    assert_eq!(dials(&world.wake(at(4_000), None)), 1, "memory has settled after the resume");
    assert_eq!(world.session.notifying(), Some((world.session.saved().epoch, 3, Reason::Settled)));
    assert_eq!(notified(&world.wake(at(4_000), Some(Event::Dialed(LINE)))), [(3, Reason::Settled)]);
    let ack = Request::Ack(Ack { epoch: Id([1; 16]), seq: 3 });
    let actions = world.wake(at(4_100), Some(Event::Request { from: LINE, request: ack.clone() }));
    assert!(matches!(replies(&actions).as_slice(), [Reply::Acked(_)]));
    assert_eq!(closes(&actions), [CloseCause::Heard]);
    assert_eq!(world.session.notifying(), None);
    assert_eq!(dials(&world.wake(at(400_000), None)), 0);

    let mut world = named();
    world.capacity.memory.state = crate::capacity::MemoryState::Short;
    world.wake(at(4_000), None);
    world.ask(at(4_000), ack);
    assert_eq!(world.session.notifying(), None);
}

#[test]
fn a_noticed_resume_is_told_at_once_and_superseded_by_its_name() {
    let mut world = named();
    world.signals.vmgenid = Some(4);
    world.wake(at(3_000), None);
    world.signals.vmgenid = Some(5);
    let actions = world.wake(at(30_000), None);
    assert_eq!(dials(&actions), 1);
    assert_eq!(world.session.notifying(), Some((Epoch::default(), 1, Reason::Resume)));
    assert_eq!(notified(&world.wake(at(30_000), Some(Event::Dialed(LINE)))), [(1, Reason::Resume)]);
    world.wake(at(30_100), Some(Event::Connected(ConnectionId(9))));
    world.wake(at(30_100), Some(Event::Request { from: ConnectionId(9), request: hello(1, 1) }));
    let actions =
        world.wake(at(30_100), Some(Event::Request { from: ConnectionId(9), request: resume(2, true) }));
    assert_eq!(closes(&actions), [CloseCause::Heard]);
    assert_eq!(world.session.notifying(), None);
}

#[test]
fn nobody_at_the_other_end_is_tried_ever_less_often() {
    let mut world = world();
    let mut millis = 2_000;
    let mut attempts = 0;
    while millis < 3_600_000 {
        let actions = world.wake(at(millis), None);
        if dials(&actions) == 1 {
            attempts += 1;
            world.wake(at(millis), Some(Event::DialFailed));
        }
        let next = world.session.deadline().0.div_ceil(1_000_000);
        assert!(next > millis, "no busy loop");
        millis = next;
    }
    assert!((16..=24).contains(&attempts), "{attempts} in an hour");
}

#[test]
fn a_reset_asks_the_host_once_and_not_at_once() {
    let mut world = named();
    world.capacity.memory.state = crate::capacity::MemoryState::Settled;
    assert_eq!(dials(&world.wake(at(3_000), None)), 1);
    world.ask(at(3_000), Request::Ack(Ack { epoch: Id([1; 16]), seq: 3 }));
    world.wake(at(3_000), Some(Event::DialFailed));
    let reset = Event::Closed { connection: HOST, reset: true };
    let actions = world.wake(at(3_000), Some(reset));
    assert_eq!(dials(&actions), 0);
    let due = world.session.deadline().0.div_ceil(1_000_000);
    assert!(due <= 4_000, "{due}");
    assert_eq!(dials(&world.wake(at(due), None)), 1);
    assert_eq!(world.session.notifying().map(|(_, _, reason)| reason), Some(Reason::Query));
}

#[test]
fn at_the_end_the_line_is_closed_and_nothing_more_is_said() {
    let mut world = world();
    world.wake(at(2_000), None);
    world.wake(at(2_000), Some(Event::Dialed(LINE)));
    let actions = world.wake(at(3_000), Some(Event::Shutdown));
    assert_eq!(closes(&actions), [CloseCause::Shutdown]);
    assert_eq!(dials(&actions), 0);
}
