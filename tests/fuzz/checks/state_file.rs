//! Any state file: a state that can be counted on and saved again, or the reason why there is none.

use guestmeter::agent::state::{self, FORMAT, Found, SLOT_BYTES, Stored};
use guestmeter::capacity::{Capacity, Cpu, Memory, MemoryState, Precision};
use guestmeter::meter::{Event, Rate};
use guestmeter::session::{self, Action, ConnectionId, Depth, Limits, Myself, Session, Signals};
use guestmeter::units::{Bytes, MilliCpu, Nanos};
use guestmeter::wire;
use guestmeter::wire::message::{
    Agent, Checkpoint, Clock, Hello, Id, Message, Reply, Request, Resume, SegmentsAfter,
};

/// The boot that the state must belong to.
const BOOT: Id = Id([7; 16]);

/// The first byte says what the rest is: a file, the payload of one slot, or those of two, half each.
pub fn check(data: &[u8]) {
    if let Some(found) = found(data) {
        assert_eq!(found.stored.boot_id, BOOT);
        assert!(found.slot < 2);
        goes_on(found.stored.clone());
        is_served(found.stored);
    }
}

/// The state in it, if there is one.
pub fn found(data: &[u8]) -> Option<Found> {
    let (how, rest) = data.split_first()?;
    let file = match how % 3 {
        0 => rest.to_vec(),
        1 => slot(1, rest),
        _ => two_slots(rest),
    };
    state::decode(&file, BOOT).ok()
}

fn two_slots(payloads: &[u8]) -> Vec<u8> {
    let (first, second) = payloads.split_at(payloads.len() / 2);
    let mut file = slot(1, first);
    file.resize(SLOT_BYTES, 0);
    file.extend(slot(2, second));
    file
}

fn slot(generation: u64, payload: &[u8]) -> Vec<u8> {
    let payload = payload.get(..payload.len().min(SLOT_BYTES - 24)).unwrap_or_default();
    let length = u32::try_from(payload.len()).expect("less than a slot");
    let mut slot = b"GMST".to_vec();
    slot.extend(FORMAT.to_le_bytes());
    slot.extend([0; 2]);
    slot.extend(generation.to_le_bytes());
    slot.extend(length.to_le_bytes());
    const ISO_HDLC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
    let mut crc = ISO_HDLC.digest();
    crc.update(&slot);
    crc.update(payload);
    slot.extend(crc.finalize().to_le_bytes());
    slot.extend(payload);
    slot
}

/// A checksum proves nothing about the values: the meter goes on from any of them.
fn goes_on(stored: Stored) {
    let mut meter = stored.session.meter;
    let rate = Rate { memory: Bytes::mib(1024), cpu: MilliCpu(1000) };
    for event in [Event::Tick, Event::Checkpoint, Event::Resume, Event::Release] {
        let (from, before) = (meter.last().map_or(Nanos::ZERO, |(from, _)| from), *meter.usage());
        for now in [from, from.saturating_add(Nanos::from_secs(7)), Nanos(u64::MAX), Nanos::ZERO] {
            meter.observe(now, rate, event);
        }
        assert!(meter.usage().active.whole >= before.active.whole);
        assert!(meter.usage().memory.whole >= before.memory.whole);
        assert!(meter.usage().cpu.whole >= before.cpu.whole);
    }
}

/// A session goes on from it too, and all it says can be sent.
fn is_served(stored: Stored) {
    let agent = Agent { version: "0".into(), git: "0".into(), protocol: 1, capabilities: Vec::new() };
    let number = stored.session.epoch.number.saturating_add(1);
    let epoch = stored.session.epoch.id;
    let myself = Myself { agent, boot_id: BOOT };
    let mut session = Session::new(myself, Nanos::from_secs(5), Limits::default(), Some(stored.session));
    let host = ConnectionId(1);
    let resume = Resume {
        epoch: Id([3; 16]),
        number,
        paused: true,
        sandbox: "s".into(),
        at: Nanos::ZERO,
        mark: None,
        requested: None,
        boot: Some(Bytes::mib(64)),
    };
    let requests = [
        Request::Hello(Hello { version_min: 1, version_max: 1, nonce: 0 }),
        Request::Read,
        Request::Checkpoint(Checkpoint { epoch, number }),
        Request::Segments(SegmentsAfter { epoch, seq: 0 }),
        Request::Resume(resume),
        Request::Read,
    ];
    for seconds in [0, 1, 100] {
        let now = Clock { monotonic: Nanos::from_secs(seconds), ..Clock::default() };
        let mut actions = session.step(now, session::Event::Signals(Signals::default()));
        actions.extend(session.step(now, session::Event::Connected(host)));
        for request in requests.clone() {
            actions.extend(session.step(now, session::Event::Request { from: host, request }));
        }
        let observed = session::Event::Observed { capacity: capacity(), depth: Depth::Full };
        actions.extend(session.step(now, observed));
        let replies = actions.into_iter().filter_map(|action| match action {
            Action::Send { reply, .. } => Some(reply),
            _ => None,
        });
        let replies: Vec<Reply> = replies.collect();
        assert!(seconds > 0 || replies.len() >= requests.len(), "{replies:?}");
        for reply in replies {
            wire::encode(&Message::Reply(reply), &mut Vec::new()).expect("a reply can be sent");
        }
    }
}

fn capacity() -> Capacity {
    let some = Some(Bytes::mib(64));
    Capacity {
        memory: Memory {
            boot: some,
            boot_precision: None,
            requested: None,
            plugged: some,
            added: some,
            online: some,
            offline: None,
            ballooned: None,
            mem_total: some,
            state: MemoryState::Settled,
            precision: Precision::Exact,
            lower: some,
            upper: some,
            sources: Vec::new(),
        },
        cpu: Cpu {
            online: Some(1),
            quota: None,
            weight: None,
            shares: None,
            effective: MilliCpu(1000),
            usage: None,
            steal: None,
            throttled: None,
        },
    }
}
