//! A session, a kernel that is looked at whenever it asks, and a host that asks.

use super::*;
use crate::capacity::{BootPrecision, Cpu, Memory, MemoryState, Precision};
use crate::units::MilliCpu;
use crate::wire::message::{Hello, Report, WaitSettled, Watch};

pub(super) const TICK: Nanos = Nanos::from_secs(5);
pub(super) const HOST: ConnectionId = ConnectionId(1);
pub(super) const HOST_AGAIN: ConnectionId = ConnectionId(90);

pub(super) fn at(millis: u64) -> Clock {
    let monotonic = Nanos(millis * 1_000_000);
    let realtime_unix = Nanos::from_secs(1_700_000_000).saturating_add(monotonic);
    Clock { monotonic, boottime: monotonic, realtime_unix }
}

pub(super) fn myself() -> Myself {
    let agent = Agent {
        version: "0".to_owned(),
        git: "0".to_owned(),
        protocol: 1,
        capabilities: vec!["watch".to_owned()],
    };
    Myself { agent, boot_id: Id([9; 16]) }
}

pub(super) fn capacity(plugged_mib: u64) -> Capacity {
    let plugged = Some(Bytes::mib(plugged_mib));
    Capacity {
        memory: Memory {
            boot: Some(Bytes::mib(512)),
            boot_precision: Some(BootPrecision::Exact),
            requested: None,
            plugged,
            added: plugged,
            online: plugged,
            offline: Some(Bytes::ZERO),
            ballooned: None,
            mem_total: Some(Bytes::mib(400 + plugged_mib)),
            state: MemoryState::Unknown,
            precision: Precision::Exact,
            lower: plugged,
            upper: plugged,
            sources: Vec::new(),
        },
        cpu: Cpu {
            online: Some(2),
            quota: None,
            weight: None,
            shares: None,
            effective: MilliCpu(2000),
            usage: None,
            steal: None,
            throttled: None,
        },
    }
}

/// A session and a kernel that is looked at whenever it asks.
pub(super) struct World {
    pub(super) session: Session,
    pub(super) capacity: Capacity,
    pub(super) log: Vec<Note>,
    pub(super) looks: Vec<Depth>,
    pub(super) signals: Signals,
}

impl World {
    pub(super) fn new(saved: Option<Saved>) -> Self {
        let limits = Limits { notify: false, ..Limits::default() };
        let session = Session::new(myself(), TICK, limits, saved);
        Self {
            session,
            capacity: capacity(0),
            log: Vec::new(),
            looks: Vec::new(),
            signals: Signals::default(),
        }
    }

    /// One wake-up: the event, the timer, and the looks that they call for. Gives what reaches the edge.
    pub(super) fn wake(&mut self, now: Clock, event: Option<Event>) -> Vec<Action> {
        let mut actions = self.session.step(now, Event::Signals(self.signals));
        actions.extend(event.into_iter().flat_map(|event| self.session.step(now, event)));
        actions.extend(self.session.step(now, Event::Timer));
        for _ in 0..4 {
            let looks = |action: &Action| match action {
                Action::Look(depth) => Some(*depth),
                _ => None,
            };
            let Some(depth) = actions.iter().filter_map(looks).max() else { break };
            self.looks.push(depth);
            actions.retain(|action| !matches!(action, Action::Look(_)));
            let capacity = self.capacity.clone();
            actions.extend(self.session.step(now, Event::Observed { capacity, depth }));
        }
        self.log.extend(actions.iter().filter_map(|action| match action {
            Action::Log(note) => Some(note.clone()),
            _ => None,
        }));
        actions
    }

    pub(super) fn ask(&mut self, now: Clock, request: Request) -> Vec<Action> {
        self.ask_from(HOST, now, request)
    }

    pub(super) fn ask_from(&mut self, from: ConnectionId, now: Clock, request: Request) -> Vec<Action> {
        self.wake(now, Some(Event::Request { from, request }))
    }

    /// Connected and welcomed.
    pub(super) fn greeted() -> Self {
        let mut world = Self::new(None);
        world.wake(at(1_000), Some(Event::Connected(HOST)));
        let replies = replies(&world.ask(at(1_000), hello(1, 1)));
        assert!(matches!(replies.as_slice(), [Reply::Welcome(welcome)] if welcome.nonce == 77));
        world
    }
}

pub(super) fn closed(connection: ConnectionId) -> Event {
    Event::Closed { connection, reset: false }
}

pub(super) fn hello(version_min: u16, version_max: u16) -> Request {
    Request::Hello(Hello { version_min, version_max, nonce: 77 })
}

pub(super) fn replies(actions: &[Action]) -> Vec<Reply> {
    let reply = |action: &Action| match action {
        Action::Send { reply, .. } => Some(reply.clone()),
        _ => None,
    };
    actions.iter().filter_map(reply).collect()
}

pub(super) fn reports(actions: &[Action]) -> Vec<Report> {
    let report = |reply| match reply {
        Reply::Report(report) => Some(*report),
        _ => None,
    };
    replies(actions).into_iter().filter_map(report).collect()
}

pub(super) fn refusals(actions: &[Action]) -> Vec<Refusal> {
    let refusal = |reply| match reply {
        Reply::Error(refusal) => Some(refusal),
        _ => None,
    };
    replies(actions).into_iter().filter_map(refusal).collect()
}

pub(super) fn closes(actions: &[Action]) -> Vec<CloseCause> {
    let close = |action: &Action| match action {
        Action::Close { cause, .. } => Some(*cause),
        _ => None,
    };
    actions.iter().filter_map(close).collect()
}

pub(super) fn watch(millis: u64) -> Request {
    Request::Watch(Watch { interval: Nanos(millis * 1_000_000) })
}

pub(super) fn wait_settled(expected_mib: Option<u64>, quiet_ms: u64, timeout_ms: u64) -> Request {
    Request::WaitSettled(WaitSettled {
        expected: expected_mib.map(Bytes::mib),
        quiet: Nanos(quiet_ms * 1_000_000),
        timeout: Nanos(timeout_ms * 1_000_000),
    })
}
