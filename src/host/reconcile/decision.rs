//! What follows from a piece of evidence: what to post, what to acknowledge, what to ask next.

use super::size::Size;
use super::verdict::{Impossible, Verdict};
use crate::units::Nanos;
use crate::wire::message::{Ack, Id};
use serde::{Deserialize, Serialize};

/// To be committed in one transaction with the account; the ack is sent after that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Rows of `scale_event`, each the whole row: it replaces the one with its key. Those that end come before the one
    /// that is open, so that at no time two are.
    pub rows: Vec<Row>,
    /// Usage samples, each the whole sample: it replaces the one with its key.
    pub samples: Vec<Sample>,
    /// The end of an epoch became known so late that not all it changes could be listed.
    pub cut: Option<Cut>,
    /// What to acknowledge to the guest once all this is committed.
    pub ack: Option<Ack>,
    /// What was found.
    pub verdicts: Vec<Verdict>,
    /// The guest must be named, with the account's mark, before anything of it is credited.
    pub name: bool,
    /// Segments wait in the guest; to be read before the ack is sent, which frees them.
    pub segments: bool,
}

/// A row of `scale_event`, without the sandbox. Its key is (epoch, start).
///
/// One that proved wrong is posted again with `end = start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The epoch that it began in. An epoch that is no edge of life leaves it as it is.
    pub epoch: Id,
    /// Its start.
    pub start: Nanos,
    /// Its end; `None` while it is open.
    pub end: Option<Nanos>,
    /// What is billed.
    pub size: Size,
}

/// A usage sample, without the sandbox. Its key is (epoch, start). It never crosses an hour.
///
/// One that proved wrong is posted again with `end = start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// The epoch.
    pub epoch: Id,
    /// Its start.
    pub start: Nanos,
    /// Its end.
    pub end: Nanos,
    /// What is billed.
    pub size: Size,
}

/// Rows and samples of `epoch` that reach beyond `at` end there, or where they start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The epoch.
    pub epoch: Id,
    /// Its end.
    pub at: Nanos,
}

impl Decision {
    /// Whether nothing changes in the books.
    #[must_use]
    pub fn posts_nothing(&self) -> bool {
        self.rows.is_empty() && self.samples.is_empty() && self.cut.is_none()
    }

    /// Whether the evidence was credited nothing because of what was found.
    #[must_use]
    pub fn blocked(&self) -> bool {
        self.verdicts.iter().any(Verdict::blocks)
    }

    /// Whether the guest is not in the life that its name stands for: an older copy of itself, or a time that the
    /// host's interval cannot hold.
    pub(super) fn wants_another_name(&self) -> bool {
        self.verdicts.iter().any(|verdict| {
            matches!(
                verdict,
                Verdict::Rollback { named: false, .. } | Verdict::Impossible(Impossible::Time { .. })
            )
        })
    }
}
