//! A guest that is about to be paused, and hosts that do not agree about it.

use super::{Agent, Client, frame, hello, named};
use guestmeter::units::Nanos;
use guestmeter::wire::message::{
    Ack, Checkpoint, Id, Reason, Refusal, RefusalCode, Reply, Report, Request, Resume, WaitSettled, Watch,
};
use std::io::Write;

fn checkpoint(number: u8) -> Request {
    Request::Checkpoint(Checkpoint { epoch: Id([number; 16]), number: number.into() })
}

fn held(client: &mut Client, number: u8) -> Report {
    client.send(checkpoint(number));
    let report = client.report();
    assert_eq!((report.reason, report.tail.held), (Reason::Checkpoint, true));
    report
}

fn refusal(client: &mut Client, request: Request) -> Refusal {
    client.send(request);
    match client.receive() {
        Some(Reply::Error(refusal)) => refusal,
        other => panic!("no Error but {other:?}"),
    }
}

#[test]
fn nothing_that_was_open_at_a_checkpoint_stays_open() {
    let agent = Agent::start();
    let mut asker = agent.greet();
    asker.resume(named(1, false, None));
    let (mut watcher, mut waiter) = (agent.greet(), agent.greet());
    watcher.send(Request::Watch(Watch { interval: Nanos::from_secs(3600) }));
    watcher.report();
    let never = Some(guestmeter::units::Bytes::mib(1 << 30));
    let hour = Nanos::from_secs(3600);
    waiter.send(Request::WaitSettled(WaitSettled { expected: never, quiet: hour, timeout: hour }));

    let last = held(&mut asker, 1);
    assert!(watcher.receive().is_none(), "closed");
    let waited = waiter.receive();
    assert!(
        matches!(&waited, Some(Reply::Error(refusal)) if refusal.code == RefusalCode::Busy),
        "{waited:?}"
    );
    assert!(waiter.receive().is_none(), "closed");

    let (epoch, seq) = (last.identity.epoch.id, last.identity.seq);
    asker.send(Request::Ack(Ack { epoch, seq }));
    assert!(matches!(asker.receive(), Some(Reply::Acked(_))));
    assert!(asker.receive().is_none(), "closed, though this end says no word of it");

    let mut late = agent.greet();
    let watch = Request::Watch(Watch { interval: Nanos::SECOND });
    assert_eq!(refusal(&mut late, watch).code, RefusalCode::Busy);
    assert!(late.read().tail.held, "a reading is no watch");
    let next = late.resume(named(2, true, None));
    assert_eq!((next.reason, next.tail.held), (Reason::Resume, false));
}

#[test]
fn a_peer_that_stops_in_mid_frame_holds_up_nobody_and_is_gone_at_a_checkpoint() {
    let agent = Agent::start();
    let mut halves = [(); 2].map(|()| {
        let mut client = agent.greet();
        let whole = frame(Request::Resume(named(9, true, None)));
        client.stream.write_all(&whole[..whole.len() / 2]).unwrap();
        client
    });
    let mut host = agent.greet();
    let named = host.resume(named(1, false, None));
    assert_eq!(host.read().identity.epoch, named.identity.epoch, "half a Resume names nothing");
    held(&mut host, 1);
    for half in &mut halves {
        assert!(half.receive().is_none(), "closed");
    }
}

#[test]
fn of_two_hosts_that_both_name_a_guest_the_higher_number_wins_and_the_other_one_hears_it() {
    let agent = Agent::start();
    let (mut one, mut other) = (agent.greet(), agent.greet());
    one.resume(named(5, false, None));
    let won = other.resume(named(7, true, None));
    assert_eq!(won.identity.epoch.number, 7);

    for stale in [named(6, true, None), Resume { number: 7, ..named(8, true, None) }] {
        let refusal = refusal(&mut one, Request::Resume(stale));
        assert_eq!((refusal.code, refusal.latest), (RefusalCode::StaleEpoch, Some(7)), "{}", refusal.text);
    }
    let refusal = refusal(&mut one, checkpoint(5));
    assert_eq!((refusal.code, refusal.latest), (RefusalCode::StaleEpoch, Some(7)), "{}", refusal.text);
    let still = one.read();
    assert_eq!(
        (still.identity.epoch, still.base),
        (won.identity.epoch, won.base),
        "nothing of it has changed"
    );
    assert!(!still.tail.held);
    one.send(hello(1, 1));
    assert!(matches!(one.receive(), Some(Reply::Welcome(welcome)) if welcome.epoch.number == 7));
}
