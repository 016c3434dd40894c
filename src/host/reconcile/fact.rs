//! Evidence in the host's order: what is kept of it, so that a late piece can be put where it belongs.

use super::evidence::{Answer, Call, Claim, Evidence, Lifecycle, Segment};
use crate::units::Nanos;
use serde::{Deserialize, Serialize};

/// A piece of evidence without what only the moment of its arrival needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Fact {
    Claim(Claim),
    Segment(Segment),
    Answer(Answer),
    Call(Lifecycle),
}

/// Facts are taken in by this order, whichever came first.
pub(super) type Key = (Nanos, u8, u64, u64);

impl Fact {
    /// `None` for the clock: it only says how late it is.
    pub fn of(evidence: &Evidence) -> Option<Self> {
        Some(match evidence {
            Evidence::Report(told) => Self::Claim(told.claim),
            Evidence::Segment(segment) => Self::Segment(*segment),
            Evidence::Vmm(answer) => Self::Answer(*answer),
            Evidence::Lifecycle(call) => Self::Call(*call),
            Evidence::Clock(_) => return None,
        })
    }

    /// When it was, by the host's clock.
    pub fn at(&self) -> Nanos {
        match self {
            Self::Claim(claim) => claim.received,
            Self::Segment(segment) => segment.received,
            Self::Answer(answer) => answer.received,
            Self::Call(call) => call.at,
        }
    }

    /// At one instant a life ends before the next begins, and a request comes before what answers it.
    pub fn key(&self) -> Key {
        let (rank, one, two) = match self {
            Self::Call(Lifecycle { call, .. }) => match call {
                Call::Pausing { .. } => (0, 0, 0),
                Call::Destroyed { .. } => (0, 1, 0),
                Call::Started { epoch, .. } | Call::Resumed { epoch, .. } | Call::Named { epoch } => {
                    (1, epoch.number, 0)
                }
                Call::Scaled { size } => (2, size.memory_mib.unwrap_or(0), size.cpu.map_or(0, |cpu| cpu.0)),
            },
            Self::Answer(answer) => (3, answer.memory.map_or(0, |memory| memory.0), 0),
            Self::Segment(segment) => (4, segment.seq, segment.usage.active.0),
            Self::Claim(claim) => (5, claim.seq, claim.usage.active.0),
        };
        (self.at(), rank, one, two)
    }
}
