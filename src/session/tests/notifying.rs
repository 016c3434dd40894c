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
fn an_ack_of_no_epoch_ends_the_repeats_of_a_provisional_report_on_its_own_line_alone() {
    let mut world = world();
    world.wake(at(2_000), None);
    world.wake(at(2_000), Some(Event::Dialed(LINE)));
    let ack = |seq| Request::Ack(Ack { epoch: Id::default(), seq });
    world.wake(at(2_100), Some(Event::Connected(HOST)));
    world.ask(at(2_100), hello(1, 1));
    assert_eq!(refusals(&world.ask(at(2_100), ack(1))).len(), 1, "no host can have committed it");
    for wrong in [0, 2, u64::MAX] {
        let actions = world.wake(at(2_200), Some(Event::Request { from: LINE, request: ack(wrong) }));
        assert_eq!((refusals(&actions).len(), world.session.notifying().is_some()), (1, true), "{wrong}");
    }
    let actions = world.wake(at(2_300), Some(Event::Request { from: LINE, request: ack(1) }));
    assert!(matches!(replies(&actions).as_slice(), [Reply::Acked(_)]));
    assert_eq!((closes(&actions), world.session.notifying()), (vec![CloseCause::Heard], None));
}

#[test]
fn while_held_nobody_is_dialled_and_the_line_is_closed_before_the_pause() {
    let checkpoint = |number| {
        use crate::wire::message::Checkpoint;
        Request::Checkpoint(Checkpoint { epoch: Id([number; 16]), number: number.into() })
    };
    let mut world = named();
    world.capacity = capacity(64);
    world.capacity.memory.state = crate::capacity::MemoryState::Settled;
    world.wake(at(4_000), None);
    world.wake(at(4_000), Some(Event::Dialed(LINE)));
    let actions = world.ask(at(4_500), checkpoint(1));
    let line = Action::Close { connection: LINE, cause: CloseCause::Heard };
    assert!(actions.contains(&line), "its checkpoint says more: {actions:?}");

    let mut dialling = named();
    dialling.capacity = world.capacity.clone();
    assert_eq!(dials(&dialling.wake(at(4_000), None)), 1);
    assert!(dialling.ask(at(4_500), checkpoint(1)).contains(&Action::HangUp), "nor is a dial under way");

    // Whatever happens in the hold, an agent that starts again in it too.
    world.session = Session::new(myself(), TICK, Limits::default(), Some(world.session.saved().clone()));
    world.capacity = capacity(128);
    for millis in [5_000, 9_000, 14_000] {
        assert_eq!(dials(&world.wake(at(millis), Some(Event::Hotplug))), 0, "{millis}");
    }
    world.signals.vmgenid = Some(4);
    world.wake(at(15_000), None);
    world.signals.vmgenid = Some(5);
    assert_eq!(dials(&world.wake(at(16_000), None)), 1, "a resume is told");
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
fn memory_that_a_first_look_took_for_settled_is_told_when_it_has_settled() {
    use crate::capacity::MemoryState::{Plugging, Settled};
    let mut world = named();
    world.capacity.memory.state = Settled;
    world.wake(at(4_000), None);
    for (number, closely) in [(2, Plugging), (3, Settled)] {
        world.session.step(at(5_000), Event::Request { from: HOST, request: resume(number, true) });
        let hot = Event::Observed { capacity: world.capacity.clone(), depth: Depth::Hot };
        let told = reports(&world.session.step(at(5_000), hot));
        assert_eq!(told.iter().map(|report| report.memory.state).collect::<Vec<_>>(), [Settled]);
        world.capacity.memory.state = closely;
        let full = Event::Observed { capacity: world.capacity.clone(), depth: Depth::Full };
        world.session.step(at(5_000), full);
        assert_eq!(world.session.notifying(), None);
        let begun = world.session.saved().clone();
        world.capacity.memory.state = Settled;
        world.wake(at(7_000), None);
        let told = world.session.notifying().map(|(_, _, reason)| reason);
        assert_eq!(told, (closely == Plugging).then_some(Reason::Settled), "{closely:?}");

        // An agent that starts again while memory moves owes that word too.
        if closely == Plugging {
            let mut again = World::new(None);
            again.session = Session::new(myself(), TICK, Limits::default(), Some(begun));
            again.capacity.memory.state = Plugging;
            again.wake(at(6_000), None);
            assert_eq!(again.session.notifying().map(|(_, _, reason)| reason), Some(Reason::Boot));
            again.capacity.memory.state = Settled;
            again.wake(at(7_000), None);
            assert_eq!(again.session.notifying().map(|(_, _, reason)| reason), Some(Reason::Settled));
        }
    }
}

#[test]
fn a_hint_behind_what_is_being_told_is_told_after_it() {
    let mut world = named();
    world.capacity.memory.state = crate::capacity::MemoryState::Settled;
    world.wake(at(3_000), None);
    world.wake(at(3_000), Some(Event::Connected(HOST_AGAIN)));
    world.ask_from(HOST_AGAIN, at(3_000), hello(1, 1));
    world.wake(at(3_000), Some(Event::Closed { connection: HOST_AGAIN, reset: true }));
    let told = world.session.notifying().map(|(_, seq, reason)| (seq, reason));
    assert_eq!(told, Some((3, Reason::Settled)));
    world.ask(at(3_100), Request::Ack(Ack { epoch: Id([1; 16]), seq: 3 }));
    assert_eq!(world.session.notifying(), None);
    world.wake(at(7_200), None);
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
