//! What must hold after every step of a world, each with a name and its bound.
//!
//! Written against the metering rules, not against the code that keeps them. In what follows *run* is the time a
//! guest really ran, on its own clock's rate (drift is its own term); a *slice* is what lies between two observations;
//! its Δ is what the guest's clock says of it, *r* its run. Where the clock was honest Δ = r; over a pause it may say
//! more (it *jumped*) or less (it *went back*).

use std::fmt;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// For each counter, exactly: `whole · unit + carry + dropped = observed + rebased`, where observed is
    /// Σ max(0, Δ) · capacity at the slice's start over all slices but suspended ones, summed by the world from the
    /// instants and capacities that it gave the agent. `carry < unit`. Checked after each slice; what a crash takes
    /// back, the sum takes back too.
    Conservation,
    /// Each slice follows a row of the table: it counts Δ (Δ ≤ cap), or cap (Δ > cap), or nothing; nothing only if
    /// the clock went back, a checkpoint holds, or a resume was noticed; the first counts min(Δ, tick). `suspended`
    /// grows only while held, and then by Δ. `uncertain` grows only with a resume. A slice counts at most
    /// min(Σ jumps in it, cap) more than r.
    Slice,
    /// Whole counters never go down within a lineage; over the named epochs of a (sandbox, boot) no report is below
    /// the mark that its `Resume` carried.
    Monotone,
    /// When a report leaves, the saved state has its epoch, base and counters, and at least its seq.
    SavedFirst,
    /// `base` of a named epoch is the same in every state of a lineage and in every report that the host gets from
    /// the sandbox that it was minted for; an epoch that a mark rebased has it from its first report on.
    BaseFixed,
    /// Within an epoch of a lineage each report has a seq of its own, above those of earlier wake-ups, and in the saved
    /// state; only a notification keeps one, and may leave behind others.
    SeqRises,
    /// At most 4 connections and a notification, 32 segments, 3 looks in a wake-up, 32 KiB of state; after a wake-up
    /// nothing is overdue. A change of capacity is counted at most a tick (and the delay of the wake-up) late.
    Bounded,
    /// When a checkpoint is answered and holds, no connection is left but its asker's, and until the hold ends nobody is
    /// dialled: what is open is in the snapshot.
    Quiet,
    /// A resume opens one epoch: signals open at most one provisional epoch for each restore (for two of which an agent
    /// that was dead in between may hear late), and one for each
    /// checkpoint (held, any jump is a resume). A VMGenID trace that is seen more than 10 s after, or
    /// after a checkpoint, or that two restores within 10 s have left, may open one more.
    OneResume,
    /// An honest guest is never judged `impossible`: between two reports of a life that no restore parts, counters
    /// grow by at most the host's time from sending the request of the earlier to receiving the later, + 0.1 %.
    NotImpossible,
    /// For each sandbox and counter: posted ≤ run · capacity + over. `over` is summed per slice of its VMs as
    /// max(0, counted − r · capacity): at most min(jumps, cap) of a pause that nobody announced, or that `uncertain`
    /// declares; a capacity that shrank since the slice began, for at most that slice; at most one tick again for each
    /// state file that was lost; and at most one tick of a first observation that reaches back over a fork. With what
    /// the host posts by its word alone (`requested_only`) it is no more running time than its own intervals + over.
    PostsNoMore,
    /// For each life of a sandbox (from the VMM's start or resume to its pause or end, as one epoch) that was named:
    /// posted ≥ run − unnamed − tail − dropped − suspended − backwards, where *unnamed* is the run before the epoch's
    /// base, *tail* that behind its last committed report or segment, *dropped* and *suspended* are the agent's own
    /// words, and *backwards* is Σ max(0, r − Δ).
    LosesNothingUndeclared,
    /// In a life that no fault touched, unnamed ≤ a tick, and tail ≤ a tick + a poll: the one per lifecycle edge.
    Prompt,
    /// When faults have ended, the tail of every named epoch that the agent still knows of is posted, unless its ring
    /// dropped segments: totals at its end, or the host's own interval where that is less.
    TailsArrive,
    /// Over a family of clones and their parent: Σ posted ≤ Σ run · capacity + Σ over; and an epoch named after a fork
    /// posts nothing of what ran before it.
    BilledOnce,
    /// When faults have ended, every VM that runs is named, acked and has no segment waiting, within ten minutes.
    Heals,
    /// Every message survives the wire unchanged.
    Wire,
}

impl Invariant {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Conservation => "conservation",
            Self::Slice => "slice",
            Self::Monotone => "monotone",
            Self::SavedFirst => "saved-first",
            Self::BaseFixed => "base-fixed",
            Self::SeqRises => "seq-rises",
            Self::Bounded => "bounded",
            Self::Quiet => "quiet",
            Self::OneResume => "one-resume",
            Self::NotImpossible => "not-impossible",
            Self::PostsNoMore => "posts-no-more",
            Self::LosesNothingUndeclared => "loses-nothing-undeclared",
            Self::Prompt => "prompt",
            Self::TailsArrive => "tails-arrive",
            Self::BilledOnce => "billed-once",
            Self::Heals => "heals",
            Self::Wire => "wire",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An invariant that did not hold, and with which numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Breach {
    pub(super) invariant: Invariant,
    pub(super) text: String,
}

/// `Ok` where it holds; the text is made only where it does not.
pub(super) fn hold(invariant: Invariant, holds: bool, text: impl FnOnce() -> String) -> Result<(), Breach> {
    if holds { Ok(()) } else { Err(Breach { invariant, text: text() }) }
}
