//! The agent's decisions: what is counted, who is answered what, when to wake next.
//!
//! A state machine without clock, file or socket: [`Session::step`] takes an instant and an event and returns
//! actions; the edge carries them out in order. One wake-up of the edge is:
//!
//! 1. read the clocks and the signals once; that instant is the `now` of everything below;
//! 2. step with [`Event::Signals`]: a resume is noticed before time is counted;
//! 3. step with what came in ([`Event::Connected`], [`Event::Request`], [`Event::Closed`], …) and [`Event::Timer`];
//! 4. if any step asked for a [`Action::Look`], take the deepest look asked for and step [`Event::Observed`]; send what
//!    that gave to be sent; the look that it may ask for in turn is taken with the next wake-up, a moment later;
//! 5. sleep until [`Session::deadline`].
//!
//! A report is made of an [`Event::Observed`] at the instant of its request. Its capacity is of a [`Depth::Full`] look;
//! only a resume is answered from a [`Depth::Hot`] one, which tells whether anything changed, and read fully right
//! behind.

mod answer;
mod connection;
mod epoch;
mod event;
mod limits;
mod note;
mod notification;
mod observe;
mod saved;
mod segments;
mod settle;
mod signals;
mod table;

#[cfg(test)]
mod tests;

pub use event::{Action, CloseCause, ConnectionId, Depth, Event};
pub use limits::Limits;
pub use note::Note;
pub use saved::Saved;
pub use signals::{Signals, Vmclock};

use crate::capacity::{Capacity, MemoryState, Stated};
use crate::meter::Rate;
use crate::units::{Bytes, Nanos};
use crate::wire::message::{Agent, Clock, Id};
use connection::Connection;
use epoch::Pending;
use notification::Notifier;
use signals::Noticed;
use std::collections::VecDeque;
pub(crate) use table::Table;

/// Who answers: fixed from start to exit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Myself {
    /// This build. Its `protocol` is replaced by what each connection agreed on.
    pub agent: Agent,
    /// The kernel's boot id.
    pub boot_id: Id,
}

/// The state machine.
#[derive(Clone, Debug)]
pub struct Session {
    limits: Limits,
    myself: Myself,
    tick: Nanos,
    saved: Saved,
    /// Whether the next observation is this boot's first.
    fresh: bool,
    seen: Option<Seen>,
    /// Capacity changes seen: tells a watcher's report that follows one.
    changes: u64,
    stopping: bool,
    connections: Table<Connection>,
    notifier: Notifier,
    /// When the host is to be asked whether something happened that the guest cannot tell.
    asking: Option<Nanos>,
    /// When the signals were last looked at, and when before that.
    signals_at: (Option<Nanos>, Option<Nanos>),
    /// A resume that the next look takes up.
    noticed: Option<Noticed>,
    /// Requests that the next look carries out.
    lifecycle: VecDeque<Pending>,
    /// The memory that a resume's answer has told as being at rest, before it was read closely.
    told_at_rest: Option<(MemoryState, Option<Bytes>)>,
    /// When it is looked at for that.
    settle_look: Nanos,
    /// An event of the kernel's dates the change that the next look finds.
    hotplugged: bool,
    /// Whether the current observation is this process's first: what passed before it is no jump of a clock.
    first: bool,
    /// What the current observation has done to the epoch.
    edge: Edge,
}

/// What one observation has done to the epoch.
#[derive(Clone, Copy, Debug, Default)]
struct Edge {
    /// One has ended.
    closed: bool,
    /// One has begun, or got its name.
    opened: bool,
    /// A checkpoint was taken.
    checkpointed: bool,
    /// When was looked before.
    previous: Option<Nanos>,
}

/// The last observation.
#[derive(Clone, Debug)]
struct Seen {
    at: Nanos,
    capacity: Capacity,
    rate: Rate,
    /// When memory was first seen as it is.
    unchanged_since: Nanos,
}

impl Session {
    /// Goes on from `saved`, or starts this boot's count where there is none.
    #[must_use]
    pub fn new(myself: Myself, tick: Nanos, limits: Limits, saved: Option<Saved>) -> Self {
        let fresh = saved.is_none();
        let saved = saved.map_or_else(|| Saved::fresh(tick), |saved| saved.restarted(tick));
        Self {
            limits,
            myself,
            tick,
            saved,
            fresh,
            seen: None,
            changes: 0,
            stopping: false,
            connections: Table::default(),
            notifier: Notifier::default(),
            asking: None,
            signals_at: (None, None),
            noticed: None,
            lifecycle: VecDeque::new(),
            told_at_rest: None,
            settle_look: Nanos::ZERO,
            hotplugged: false,
            first: true,
            edge: Edge::default(),
        }
    }

    /// What must survive the agent, as of the last step.
    #[must_use]
    pub fn saved(&self) -> &Saved {
        &self.saved
    }

    /// The capacity last seen.
    #[must_use]
    pub fn capacity(&self) -> Option<&Capacity> {
        self.seen.as_ref().map(|seen| &seen.capacity)
    }

    /// Connections that were let in.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Whether a connection may ask more before it is answered; the edge leaves its bytes unread until then.
    #[must_use]
    pub fn accepts(&self, id: ConnectionId) -> bool {
        self.notifier.owns(id)
            || self.connections.get(id).is_some_and(|connection| connection.owed.len() < self.limits.owed)
    }

    /// Takes one event at `now`.
    pub fn step(&mut self, now: Clock, event: Event) -> Vec<Action> {
        match event {
            Event::Signals(read) => self.signals(now, read),
            Event::Hotplug => {
                self.hotplugged = true;
                vec![Action::Look(Depth::Hot)]
            }
            Event::Observed { capacity, depth } => self.observed(now, capacity, depth),
            Event::Connected(id) => self.connected(now.monotonic, id),
            Event::Request { from, request } if self.notifier.owns(from) => {
                self.notifier_asked(now.monotonic, from, request)
            }
            Event::Request { from, request } => self.requested(now, from, request),
            Event::Unserved { from, refusal } => self.unserved(now, from, refusal),
            Event::Ended(id) => self.ended(now, id),
            Event::Garbage { bytes } => {
                self.saved.garbage_bytes = self.saved.garbage_bytes.saturating_add(bytes);
                Vec::new()
            }
            Event::Closed { connection, reset } => self.closed(now.monotonic, connection, reset),
            Event::Dialed(id) => self.dialed(now.monotonic, id),
            Event::DialFailed => {
                self.dial_failed(now.monotonic);
                Vec::new()
            }
            Event::Timer => self.timer(now.monotonic),
            Event::Shutdown => {
                self.stopping = true;
                let mut actions = Vec::new();
                self.close_notifier(&mut actions);
                actions.push(Action::Look(Depth::Full));
                actions
            }
        }
    }

    /// When [`Event::Timer`] is due; zero before the first observation.
    #[must_use]
    pub fn deadline(&self) -> Nanos {
        let tick = self.seen.as_ref().map_or(Nanos::ZERO, |seen| seen.at.saturating_add(self.tick));
        let settle = self.saved.settling.map(|_| self.settle_look);
        let limits = self.limits_now();
        let connections =
            self.connections.values().filter_map(|connection| connection.deadline(&limits, self.changes));
        let others = [settle, self.asking, self.notifier.deadline()];
        connections.chain(others.into_iter().flatten()).fold(tick, std::cmp::min)
    }

    /// While the count is held a connection is soon idle.
    fn limits_now(&self) -> Limits {
        let limits = self.limits;
        let idle = if self.saved.meter.held() { limits.idle_held.min(limits.idle) } else { limits.idle };
        Limits { idle, ..limits }
    }

    /// A reset that breaks the notification connection is the retry's matter, unless a hold makes it a resume.
    fn closed(&mut self, now: Nanos, id: ConnectionId, reset: bool) -> Vec<Action> {
        let notifying = self.notifier_closed(now, id);
        let known = self.connections.remove(id).is_some();
        if reset && (known || (notifying && self.saved.meter.held())) {
            self.connection_reset(now)
        } else {
            Vec::new()
        }
    }

    fn timer(&mut self, now: Nanos) -> Vec<Action> {
        let mut actions = Vec::new();
        let limits = self.limits_now();
        self.connections.retain(|id, connection| match connection.overdue(now, &limits) {
            Some(cause) => {
                actions.push(Action::Close { connection: id, cause });
                false
            }
            None => true,
        });
        self.drive_notifier(now, &mut actions);
        let due = self.connections.values().any(|connection| connection.wants_look(now, self.changes))
            || self.asking.is_some_and(|at| at <= now);
        let settling = self.saved.settling.is_some() && self.settle_look <= now;
        match &self.seen {
            None => {
                // What an earlier agent was told of.
                let stated = self.saved.stated;
                actions.extend((stated != Stated::default()).then_some(Action::Resumed(stated)));
                actions.push(Action::Look(Depth::Full));
            }
            Some(_) if due => actions.push(Action::Look(Depth::Full)),
            Some(seen) if seen.at.saturating_add(self.tick) <= now || settling => {
                actions.push(Action::Look(Depth::Hot));
            }
            Some(_) => {}
        }
        actions
    }
}
