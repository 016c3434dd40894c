//! The agent's decisions: what is counted, who is answered what, when to wake next.
//!
//! A state machine without clock, file or socket: [`Session::step`] takes an instant and an event and returns
//! actions; the edge carries them out in order. One wake-up of the edge is:
//!
//! 1. read the clocks once; that instant is the `now` of everything below;
//! 2. step with what came in ([`Event::Connected`], [`Event::Request`], [`Event::Closed`], …) and [`Event::Timer`];
//! 3. if any step asked for a [`Action::Look`], take the deepest look asked for and step [`Event::Observed`];
//! 4. sleep until [`Session::deadline`].
//!
//! A report is made only from an [`Event::Observed`] of [`Depth::Full`], so it is never older than its request.

mod answer;
mod connection;
mod note;
mod saved;
mod settle;
mod table;

#[cfg(test)]
mod tests;

pub use note::Note;
pub use saved::Saved;

use crate::capacity::Capacity;
use crate::meter::{self, Rate, Rule};
use crate::units::{Bytes, Nanos};
use crate::wire::message::{Agent, Clock, Id, Refusal, Reply, Request};
use connection::Connection;
pub(crate) use table::Table;

/// How much of everything is allowed. All times are on `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; one more is answered `Busy` and closed.
    pub connections: usize,
    /// Time until `Hello`.
    pub handshake: Nanos,
    /// Time without a request, where nothing is owed and nothing is watched.
    pub idle: Nanos,
    /// Answers owed on one connection; one more closes it.
    pub owed: usize,
    /// The shortest `Watch` interval; a shorter one is lengthened to it.
    pub watch_interval_min: Nanos,
    /// The longest; a longer one is shortened to it.
    pub watch_interval_max: Nanos,
    /// How often memory is looked at while a `WaitSettled` is pending.
    pub settle_poll: Nanos,
    /// The longest `WaitSettled`; a longer timeout is shortened to it.
    pub settle_timeout_max: Nanos,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4,
            handshake: Nanos::from_secs(2),
            idle: Nanos::from_secs(60),
            owed: 16,
            watch_interval_min: Nanos(100_000_000),
            watch_interval_max: Nanos::from_secs(3600),
            settle_poll: Nanos(250_000_000),
            settle_timeout_max: Nanos::from_secs(3600),
        }
    }
}

/// One connection; the edge never uses a number twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// How much of the kernel was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// What tells whether the capacity changed.
    Hot,
    /// All that a report holds.
    Full,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The kernel was looked at.
    Observed {
        /// What was seen.
        capacity: Capacity,
        /// How closely.
        depth: Depth,
    },
    /// A peer connected, and may.
    Connected(ConnectionId),
    /// A peer asked.
    Request {
        /// Who.
        from: ConnectionId,
        /// What.
        request: Request,
    },
    /// A peer sent a frame that is not served: it is told why, in its turn.
    Unserved {
        /// Who.
        from: ConnectionId,
        /// Why.
        refusal: Refusal,
    },
    /// A connection is gone.
    Closed(ConnectionId),
    /// Time passed.
    Timer,
    /// The agent was told to stop.
    Shutdown,
}

/// What the edge has to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Look at the kernel and step [`Event::Observed`] at the same instant.
    Look(Depth),
    /// Write [`Session::saved`]; what follows depends on it.
    Save,
    /// Send.
    Send {
        /// To whom.
        to: ConnectionId,
        /// What.
        reply: Reply,
    },
    /// Close once what was sent before is out.
    Close {
        /// Which.
        connection: ConnectionId,
        /// Why.
        cause: CloseCause,
    },
    /// Tell the person who reads the log.
    Log(Note),
}

/// Why the agent closes a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseCause {
    /// No `Hello` in time.
    #[error("no Hello in time")]
    Handshake,
    /// Nothing asked for too long.
    #[error("idle for too long")]
    Idle,
    /// Too many connections.
    #[error("too many connections")]
    Busy,
    /// No common protocol version.
    #[error("no common protocol version")]
    Version,
    /// Too many requests before their answers.
    #[error("too many unanswered requests")]
    Unanswered,
    /// The agent stops.
    #[error("the agent stops")]
    Shutdown,
}

/// Who answers: fixed from start to exit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Myself {
    /// This build. Its `protocol` is replaced by what each connection agreed on.
    pub agent: Agent,
    /// The kernel's boot id.
    pub boot_id: Id,
}

/// The state machine.
#[derive(Debug)]
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
}

/// The last observation.
#[derive(Clone, Debug)]
struct Seen {
    at: Nanos,
    capacity: Capacity,
    rate: Rate,
    /// When plugged, or where it is unknown MemTotal, was first seen as it is.
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
        self.connections.get(id).is_some_and(|connection| connection.owed.len() < self.limits.owed)
    }

    /// Takes one event at `now`.
    pub fn step(&mut self, now: Clock, event: Event) -> Vec<Action> {
        match event {
            Event::Observed { capacity, depth } => self.observed(now, capacity, depth),
            Event::Connected(id) => self.connected(now.monotonic, id),
            Event::Request { from, request } => self.requested(now, from, request),
            Event::Unserved { from, refusal } => self.unserved(now, from, refusal),
            Event::Closed(id) => {
                self.connections.remove(id);
                Vec::new()
            }
            Event::Timer => self.timer(now.monotonic),
            Event::Shutdown => {
                self.stopping = true;
                vec![Action::Look(Depth::Full)]
            }
        }
    }

    /// When [`Event::Timer`] is due; zero before the first observation.
    #[must_use]
    pub fn deadline(&self) -> Nanos {
        let tick = self.seen.as_ref().map_or(Nanos::ZERO, |seen| seen.at.saturating_add(self.tick));
        self.connections
            .values()
            .filter_map(|connection| connection.deadline(&self.limits))
            .fold(tick, std::cmp::min)
    }

    fn timer(&mut self, now: Nanos) -> Vec<Action> {
        let mut actions = Vec::new();
        let limits = self.limits;
        self.connections.retain(|id, connection| match connection.overdue(now, &limits) {
            Some(cause) => {
                actions.push(Action::Close { connection: id, cause });
                false
            }
            None => true,
        });
        let due = self.connections.values().any(|connection| connection.wants_look(now));
        match &self.seen {
            None => actions.push(Action::Look(Depth::Full)),
            Some(_) if due => actions.push(Action::Look(Depth::Full)),
            Some(seen) if seen.at.saturating_add(self.tick) <= now => {
                actions.push(Action::Look(Depth::Hot));
            }
            Some(_) => {}
        }
        actions
    }

    fn observed(&mut self, now: Clock, capacity: Capacity, depth: Depth) -> Vec<Action> {
        let mut notes = Vec::new();
        let rate = self.rate(&capacity, &mut notes);
        let before = self.seen.as_ref().map(|seen| seen.rate);
        let event = match before {
            _ if self.fresh => meter::Event::Start,
            Some(before) if before != rate => meter::Event::Capacity,
            _ => meter::Event::Tick,
        };
        self.fresh = false;
        let slice = self.saved.meter.observe(now.monotonic, rate, event);
        match slice.rule {
            Rule::Backwards => notes.push(Note::Backwards(slice)),
            _ if !slice.dropped.is_zero() => notes.push(Note::Dropped(slice)),
            _ => {}
        }
        if let Some(before) = before.filter(|before| *before != rate) {
            notes.push(Note::Capacity { from: before, to: rate });
        }
        let moved = self.see(now.monotonic, capacity, rate);
        if moved || before.is_some_and(|before| before != rate) {
            self.changes = self.changes.wrapping_add(1);
        }

        let mut replies = Vec::new();
        if depth == Depth::Full {
            self.answer_all(now, &mut replies);
        } else if moved && self.connections.values().any(Connection::waits) {
            replies.push(Action::Look(Depth::Full));
        }
        let mut actions: Vec<Action> = notes.into_iter().map(Action::Log).collect();
        actions.push(Action::Save);
        actions.append(&mut replies);
        actions
    }

    /// Remembers an observation; says whether memory moved.
    fn see(&mut self, at: Nanos, capacity: Capacity, rate: Rate) -> bool {
        let size = |memory: &crate::capacity::Memory| (memory.plugged, memory.mem_total);
        let moved =
            self.seen.as_ref().is_none_or(|seen| size(&seen.capacity.memory) != size(&capacity.memory));
        let unchanged_since = match &self.seen {
            Some(seen) if !moved => seen.unchanged_since.min(at),
            _ => at,
        };
        self.seen = Some(Seen { at, capacity, rate, unchanged_since });
        moved
    }

    /// Unknown memory is counted by the best number there is, and said; never as zero without a word.
    fn rate(&self, capacity: &Capacity, notes: &mut Vec<Note>) -> Rate {
        let cpu = capacity.cpu.effective;
        if let Some(memory) = capacity.memory.total() {
            return Rate { memory, cpu };
        }
        let last = self.seen.as_ref().map(|seen| seen.rate.memory);
        let memory = capacity.memory.mem_total.or(last).unwrap_or(Bytes::ZERO);
        if last != Some(memory) {
            notes.push(Note::MemoryUnknown(memory));
        }
        Rate { memory, cpu }
    }
}
