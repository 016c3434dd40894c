//! What an explanation starts from: both books of one sandbox as they stand, and what else is known to have happened.

use crate::host::reconcile::Size;
use crate::units::Nanos;
use crate::wire::message::Id;

/// Everything known of one sandbox. Of the books, all rows that overlap the window; where there are rows before and
/// behind it, they help.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Whose.
    pub sandbox: String,
    /// The plan of who pays; `None` where it is unknown.
    pub plan: Option<String>,
    /// The cell's book: scale events.
    pub cell: Vec<Entry>,
    /// The edge's book: usage samples.
    pub edge: Vec<Entry>,
    /// What happened, as far as anybody wrote it down.
    pub happened: Vec<Happening>,
    /// What another system has charged.
    pub charged: Vec<Charge>,
    /// Memory sizes that have a price, in MiB; with none, every size has.
    pub tiers_mib: Vec<u64>,
}

/// A row of a book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: String,
    /// Its start.
    pub start: Nanos,
    /// Its end; `None` while it is open.
    pub end: Option<Nanos>,
    /// What it charges for.
    pub size: Size,
    /// Its epoch, where this host gave it one.
    pub epoch: Option<Id>,
}

/// Something that happened to the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    /// When, by the host's clock.
    pub at: Nanos,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A cold boot.
    Started,
    /// Another size was requested.
    Scaled,
    /// A pause began.
    Pausing,
    /// A pause ended.
    Resumed,
    /// A pause was given up: the VM ran on.
    RanOn,
    /// The VM was ended.
    Destroyed,
    /// The host worker began anew.
    WorkerStarted,
    /// The host found something when it reconciled.
    Found(Found),
    /// The guest was heard.
    Report {
        /// Its boot.
        boot_id: String,
        /// Counted since that boot.
        active: Nanos,
        /// Dropped since that boot.
        dropped: Nanos,
        /// Another sandbox that this boot was seen under before.
        also_of: Option<String>,
    },
}

/// What the host found, as far as it explains a difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The guest left out so much.
    Dropped(Nanos),
    /// The guest ran without a name.
    Unnamed,
    /// The guest had counted less than the host's interval.
    Low,
    /// The guest's counter was behind.
    Rollback,
    /// The counter began again.
    Reset,
    /// This boot is another sandbox's too.
    Clone,
    /// Nothing was heard of the guest.
    Silent,
    /// A pause that nobody announced, by the guest's word or the VMM's.
    Paused,
}

/// What another system has charged for a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// The window's start.
    pub from: Nanos,
    /// Its end.
    pub to: Nanos,
    /// Running time.
    pub active: Nanos,
}

impl What {
    /// A call of the platform, by its name.
    #[must_use]
    pub fn of_call(kind: &str) -> Option<Self> {
        Some(match kind {
            "started" => Self::Started,
            "scaled" => Self::Scaled,
            "pausing" => Self::Pausing,
            "resumed" => Self::Resumed,
            "ran_on" => Self::RanOn,
            "destroyed" => Self::Destroyed,
            _ => return None,
        })
    }
}

impl Found {
    /// What a verdict of this name and detail (as the ledger keeps it) tells; `None` for one that explains nothing.
    #[must_use]
    pub fn of(name: &str, detail: &serde_json::Value) -> Option<Self> {
        let active = Nanos(detail.get("active").and_then(serde_json::Value::as_u64).unwrap_or(0));
        match (name, detail.get("cause").and_then(serde_json::Value::as_str)) {
            ("gap", Some("unnamed")) => Some(Self::Unnamed),
            ("gap", Some("pause")) => Some(Self::Paused),
            ("gap", Some("cap" | "resume" | "start")) => Some(Self::Dropped(active)),
            ("guest_low", _) => Some(Self::Low),
            ("rollback", _) => Some(Self::Rollback),
            ("reset", _) => Some(Self::Reset),
            ("clone", _) => Some(Self::Clone),
            ("requested_only", _) => Some(Self::Silent),
            _ => None,
        }
    }
}

impl Books {
    /// Puts rows and happenings in order.
    pub(super) fn arrange(&mut self) {
        self.cell.sort_by_key(|entry| (entry.start, entry.end));
        self.edge.sort_by_key(|entry| (entry.start, entry.end));
        self.happened.sort_by_key(|happening| happening.at);
    }
}

impl Entry {
    /// How long it is; `None` while it is open.
    pub(super) fn length(&self) -> Option<Nanos> {
        self.end.map(|end| end.saturating_sub(self.start))
    }

    /// The part of it within `[from, to)`; what is open goes on until `now`.
    pub(super) fn within(&self, from: Nanos, to: Nanos, now: Nanos) -> Option<(Nanos, Nanos)> {
        let start = self.start.max(from);
        let end = self.end.unwrap_or(now).min(to);
        (start < end).then_some((start, end))
    }
}
