//! What comes into the session, and what it wants done.

use super::{Note, Signals};
use crate::capacity::{Capacity, Stated};
use crate::wire::message::{Refusal, Reply, Request};

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
    /// The traces that resumes leave, as they are now: the first event of every wake-up.
    Signals(Signals),
    /// The kernel told of memory or a CPU that came or went.
    Hotplug,
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
    /// A peer has closed its half: it asks for nothing more, and may still read.
    Ended(ConnectionId),
    /// Bytes came that were no frame, and were skipped.
    Garbage {
        /// How many.
        bytes: u64,
    },
    /// A connection is gone.
    Closed {
        /// Which.
        connection: ConnectionId,
        /// It was reset, not closed by the peer.
        reset: bool,
    },
    /// The notification connection is open, under a number of its own.
    Dialed(ConnectionId),
    /// The notification connection cannot be opened.
    DialFailed,
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
    /// The VM runs again and memory may move: its state is to be judged anew from the next look on.
    Resumed(Stated),
    /// Open the notification connection, and step [`Event::Dialed`] or [`Event::DialFailed`].
    Dial,
    /// Give up what [`Action::Dial`] began.
    HangUp,
    /// Write [`super::Session::saved`]; what follows depends on it.
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
    /// The peer has closed its half, and was answered.
    #[error("the peer asks for nothing more")]
    Ended,
    /// The VM is about to be paused: what is open then is in its snapshot.
    #[error("a checkpoint holds the count")]
    Held,
    /// The agent stops.
    #[error("the agent stops")]
    Shutdown,
    /// The host has heard what it was to hear.
    #[error("the host has heard")]
    Heard,
    /// The host did not ack in time.
    #[error("no ack in time")]
    Unheard,
}
