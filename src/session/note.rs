//! What the session wants said in the log, as text for a person.

use crate::meter::{Rate, Slice};
use crate::units::{Bytes, Nanos};
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
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dropped(slice) => write!(
                f,
                "{} of {} since the last observation counted, {} dropped (rule {:?})",
                slice.counted,
                slice.to.saturating_sub(slice.from.unwrap_or(Nanos::ZERO)),
                slice.dropped.active,
                slice.rule
            ),
            Self::Backwards(slice) => write!(
                f,
                "the monotonic clock went back from {} to {}: nothing counted",
                slice.from.unwrap_or(Nanos::ZERO),
                slice.to
            ),
            Self::MemoryUnknown(counted) => {
                write!(f, "boot or plugged memory is unknown here: {counted} is counted instead")
            }
            Self::Capacity { from, to } => {
                write!(f, "capacity changed: {}, {} -> {}, {}", from.memory, from.cpu, to.memory, to.cpu)
            }
        }
    }
}
