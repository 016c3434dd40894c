//! One connection: its handshake, what it is owed, what it watches.

use super::{CloseCause, Limits};
use crate::units::{Bytes, Nanos};
use crate::wire::message::{Hello, Refusal, Reply};
use std::collections::VecDeque;

/// An answer that has not gone out, in the order of the requests.
#[derive(Clone, Debug)]
pub(super) enum Owed {
    /// `Welcome`, in this version, as of when it leaves: a resume may just have been noticed.
    Welcome(Hello, u16),
    /// Known already.
    Ready(Reply),
    /// Known once the next look has carried out what was asked.
    Lifecycle,
    /// No common version: said, then closed.
    Incompatible(Refusal),
    /// A report.
    Report,
    /// A report, then one each `interval`.
    Watch { interval: Nanos },
    /// A report once memory has settled.
    Settled(Wait),
}

/// A `WaitSettled` that is not answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    pub(super) expected: Option<Bytes>,
    pub(super) quiet: Nanos,
    pub(super) asked_at: Nanos,
    pub(super) until: Nanos,
    pub(super) next_look: Nanos,
}

/// A `Watch` that runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    pub(super) interval: Nanos,
    /// When a report is due in any case.
    pub(super) due: Nanos,
    /// When one may tell of a change.
    pub(super) change_from: Nanos,
    /// The session's count of changes at the last report.
    pub(super) changes: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Connection {
    /// The agreed version; `None` before `Hello`.
    pub(super) version: Option<u16>,
    pub(super) opened_at: Nanos,
    pub(super) active_at: Nanos,
    pub(super) owed: VecDeque<Owed>,
    pub(super) watch: Option<Watch>,
    /// The peer sends nothing more, and may still read.
    pub(super) ended: bool,
    /// It asked for the checkpoint, and may still ack.
    pub(super) checkpointed: bool,
}

impl Watch {
    /// When the next report is due, given how many changes there were.
    pub(super) fn next(&self, changes: u64) -> Nanos {
        if self.changes == changes { self.due } else { self.due.min(self.change_from) }
    }
}

impl Connection {
    pub(super) fn new(now: Nanos) -> Self {
        Self {
            version: None,
            opened_at: now,
            active_at: now,
            owed: VecDeque::new(),
            watch: None,
            ended: false,
            checkpointed: false,
        }
    }

    /// Whether it must go, and why.
    pub(super) fn overdue(&self, now: Nanos, limits: &Limits) -> Option<CloseCause> {
        if self.version.is_none() {
            return (self.opened_at.saturating_add(limits.handshake) <= now).then_some(CloseCause::Handshake);
        }
        let quiet = self.owed.is_empty() && self.watch.is_none();
        (quiet && self.active_at.saturating_add(limits.idle) <= now).then_some(CloseCause::Idle)
    }

    /// Whether nothing is owed to a peer that has closed its half: what it watched, it watches no more.
    pub(super) fn is_over(&self) -> bool {
        self.ended && self.owed.is_empty()
    }

    /// When something is due on it.
    pub(super) fn deadline(&self, limits: &Limits, changes: u64) -> Option<Nanos> {
        if self.version.is_none() {
            return Some(self.opened_at.saturating_add(limits.handshake));
        }
        let wait = self.wait().map(|wait| wait.next_look.min(wait.until));
        let watch = self.watch.map(|watch| watch.next(changes));
        match (wait, watch) {
            (None, None) => Some(self.active_at.saturating_add(limits.idle)),
            (wait, watch) => wait.into_iter().chain(watch).min(),
        }
    }

    /// Whether a report may be due.
    pub(super) fn wants_look(&self, now: Nanos, changes: u64) -> bool {
        self.watch.is_some_and(|watch| watch.next(changes) <= now)
            || self.wait().is_some_and(|wait| wait.next_look.min(wait.until) <= now)
    }

    /// Whether a watcher is to hear of a change now.
    pub(super) fn tells_of_change(&self, now: Nanos, changes: u64) -> bool {
        self.watch.is_some_and(|watch| watch.changes != changes && watch.change_from <= now)
    }

    /// Whether a `WaitSettled` holds up its answers.
    pub(super) fn waits(&self) -> bool {
        self.wait().is_some()
    }

    fn wait(&self) -> Option<&Wait> {
        match self.owed.front() {
            Some(Owed::Settled(wait)) => Some(wait),
            _ => None,
        }
    }
}
