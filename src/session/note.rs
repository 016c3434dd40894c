//! What the session wants said in the log, as text for a person.

use crate::meter::{Rate, Rule, Slice};
use crate::units::{Bytes, Nanos};
use crate::wire::message::{Epoch, Signal};
use std::fmt;

/// What is worth a log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A slice left time out of the count.
    Dropped(Slice),
    /// The monotonic clock went back.
    Backwards(Slice),
    /// boot + plugged is unknown; this much is counted instead.
    MemoryUnknown(Bytes),
    /// The capacity changed.
    Capacity {
        /// Until now.
        from: Rate,
        /// From now on.
        to: Rate,
    },
    /// A resume that nobody announced.
    Noticed(Signal),
    /// The host named the epoch.
    Named {
        /// The epoch.
        epoch: Epoch,
        /// Whose it is.
        sandbox: String,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dropped(slice) => {
                let span = slice.to.saturating_sub(slice.from.unwrap_or(Nanos::ZERO));
                let since = if slice.rule == Rule::First { "boot" } else { "the last observation" };
                let (counted, span) = (Seconds(slice.counted), Seconds(span));
                let dropped = Seconds(slice.dropped.active);
                write!(f, "{span} passed since {since}: {counted} counted, {dropped} dropped")
            }
            Self::Backwards(slice) => {
                let (from, to) = (Seconds(slice.from.unwrap_or(Nanos::ZERO)), Seconds(slice.to));
                write!(f, "the monotonic clock went back from {from} to {to}: nothing is counted")
            }
            Self::MemoryUnknown(counted) => {
                write!(f, "boot or plugged memory is unknown here: {counted} is counted instead")
            }
            Self::Noticed(signal) => {
                let how = match signal {
                    Signal::Host => "the host says so",
                    Signal::Vmclock => "VMClock moved",
                    Signal::VsockReset => "a connection was reset while held",
                    Signal::Vmgenid => "VMGenID moved",
                    Signal::Clock => "a clock jumped while held",
                };
                write!(f, "the VM was resumed ({how}): its epoch is provisional until the host names it")
            }
            Self::Named { epoch, sandbox } => {
                write!(f, "epoch {} (number {}) of sandbox {sandbox:?}", epoch.id, epoch.number)
            }
            Self::Capacity { from, to } => {
                write!(f, "capacity changed: {}, {} -> {}, {}", from.memory, from.cpu, to.memory, to.cpu)
            }
        }
    }
}

/// A span as a person reads it, cut to milliseconds.
pub(super) struct Seconds(pub(super) Nanos);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.0 / 1_000_000;
        write!(f, "{}.{:03} s", millis / 1000, millis % 1000)
    }
}
