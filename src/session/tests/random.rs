//! Random sequences of events keep what the stories promise.

use super::world::*;
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Back(u64),
    Plug(u64),
    Connect,
    Close(u64),
    End(u64),
    Ask(u64, u8),
    Hotplug,
    Restart,
    Stop,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u64..20_000).prop_map(Step::Wait),
        1 => (0u64..5_000).prop_map(Step::Back),
        2 => (0u64..8).prop_map(|units| Step::Plug(units * 2)),
        2 => Just(Step::Connect),
        1 => (0u64..8).prop_map(Step::Close),
        1 => (0u64..8).prop_map(Step::End),
        8 => (0u64..8, 0u8..10).prop_map(|(who, what)| Step::Ask(who, what)),
        1 => Just(Step::Hotplug),
        1 => Just(Step::Restart),
        1 => Just(Step::Stop),
    ]
}

fn request(what: u8) -> Request {
    match what {
        0 => hello(1, 1),
        1 => hello(7, 9),
        2 => watch(WATCH_MILLIS),
        3 => wait_settled(Some(4), 0, 2_000),
        4 => wait_settled(None, 700, 2_000),
        5 => Request::Ack(Ack { epoch: Id([1; 16]), seq: 1 }),
        6 => hello(1, 3),
        _ => Request::Read,
    }
}

/// The interval of each watch.
const WATCH_MILLIS: u64 = 300;

/// What the outside saw of one agent instance.
#[derive(Default)]
struct Seen {
    /// Requests without an answer, per connection.
    open: BTreeMap<ConnectionId, i64>,
    /// What had been waited when it began to watch.
    watching: BTreeMap<ConnectionId, u64>,
}

proptest! {
    #[test]
    fn any_sequence_keeps_the_promises(steps in proptest::collection::vec(step(), 1..120)) {
        let mut world = World::new(None);
        let mut seen = Seen::default();
        let mut millis = 10_000u64;
        let mut waited = 0;
        let mut connections = 0u64;
        let mut seq = 0;
        let mut active = 0;
        for step in steps {
            let event = match step {
                Step::Wait(span) => { millis += span; waited += span; None }
                Step::Back(span) => { millis = millis.saturating_sub(span); None }
                Step::Plug(mib) => { world.capacity = capacity(mib); None }
                Step::Connect => {
                    connections += 1;
                    Some(Event::Connected(ConnectionId(connections)))
                }
                Step::Close(who) => {
                    seen.open.remove(&ConnectionId(who));
                    Some(closed(ConnectionId(who)))
                }
                Step::End(who) => Some(Event::Ended(ConnectionId(who))),
                Step::Ask(who, what) => {
                    let from = ConnectionId(who);
                    if world.session.accepts(from) {
                        *seen.open.entry(from).or_default() += 1;
                        if what == 2 { seen.watching.entry(from).or_insert(waited); }
                        Some(Event::Request { from, request: request(what) })
                    } else { None }
                }
                Step::Hotplug => Some(Event::Observed { capacity: world.capacity.clone(), depth: Depth::Hot }),
                Step::Restart => {
                    world = World::new(Some(world.session.saved().clone()));
                    seen = Seen::default();
                    None
                }
                Step::Stop => Some(Event::Shutdown),
            };
            let stopping = matches!(event, Some(Event::Shutdown));
            let actions = world.wake(at(millis), event);

            let mut saved = false;
            for action in &actions {
                match action {
                    Action::Save => saved = true,
                    Action::Send { to, reply } => {
                        if let Reply::Report(report) = reply {
                            prop_assert!(saved, "a report left before the state it depends on");
                            seq += 1;
                            prop_assert_eq!(report.identity.seq, seq);
                            prop_assert_eq!(report.memory.plugged, world.capacity.memory.plugged);
                            prop_assert_eq!(report.clock, at(millis));
                            let now = report.usage.active.total();
                            prop_assert!(now >= active, "usage went down");
                            active = now;
                        }
                        // Unasked comes why nobody more is served, to who has just come, and what is watched: each interval, and
                        // of one change in each.
                        if matches!(reply, Reply::Error(Refusal { code: RefusalCode::Busy, .. })) && *to == ConnectionId(connections) {
                            continue;
                        }
                        let open = seen.open.entry(*to).or_default();
                        *open -= 1;
                        let intervals = seen.watching.get(to).map_or(0, |since| 2 + 2 * ((waited - since) / WATCH_MILLIS));
                        prop_assert!(*open + i64::try_from(intervals).unwrap() >= 0, "more answers than requests");
                    }
                    Action::Close { connection, .. } => {
                        seen.open.remove(connection);
                        seen.watching.remove(connection);
                    }
                    Action::Look(_) => prop_assert!(false, "looks without end"),
                    Action::Log(_) | Action::Resumed(_) | Action::Dial | Action::HangUp => {}
                }
            }
            prop_assert!(world.session.connections() <= Limits::default().connections);
            prop_assert!(world.session.deadline() >= at(millis).monotonic, "nothing overdue is left undone");
            let owed: usize = world.session.connections.values().map(|connection| connection.owed.len()).sum();
            prop_assert!(owed <= 4 * Limits::default().owed);
            if stopping {
                prop_assert_eq!(world.session.connections(), 0);
                world = World::new(Some(world.session.saved().clone()));
                seen = Seen::default();
            }
        }
    }
}
