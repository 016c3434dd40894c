//! What goes into a ledger: the plain values of both books, of accounts and of events. Instants are [`Nanos`] since the
//! Unix epoch.

use super::error::LedgerCause;
use crate::units::{Bytes, Mib, MilliCpu, Nanos};
use crate::wire::message::{Id, Mark};

/// The longest name (sandbox, org, plan, event), in bytes.
pub const NAME_MAX: usize = 256;
/// The longest answer, account state or verdict detail, in bytes.
pub const TEXT_MAX: usize = 64 * 1024;
/// Most memory of a row: 4 PiB.
pub const MEMORY_MAX: Mib = Mib(1 << 32);
/// Most CPU of a row: four million vCPUs.
pub const CPU_MAX: MilliCpu = MilliCpu(1 << 32);

/// What a row bills for each nanosecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size {
    /// Memory.
    pub memory: Mib,
    /// CPU entitlement.
    pub cpu: MilliCpu,
}

impl Size {
    /// Of a capacity in bytes; a part of a MiB is not billed.
    #[must_use]
    pub const fn new(memory: Bytes, cpu: MilliCpu) -> Self {
        Self { memory: Mib(memory.0 >> 20), cpu }
    }
}

/// A row of the cell's book: what the host says a sandbox had, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScaleEvent {
    /// `<epoch>/<start>` of the worker's own, as given of an imported one.
    pub id: String,
    /// Whose.
    pub sandbox: String,
    /// The life it belongs to; `None` of an imported one.
    pub epoch: Option<Id>,
    /// Who pays.
    pub org: String,
    /// What it bills.
    pub size: Size,
    /// From when on.
    pub started_at: Nanos,
    /// Until when; `None` while it goes on.
    pub ended_at: Option<Nanos>,
}

/// A row of the edge's book: what the guest counted.
///
/// It covers `[started_at, ended_at)`, and `ended_at - started_at` is exactly what was counted: time that the guest left
/// out of a stretch is a hole before the next sample's start. A stretch at mixed capacities is several samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The life it belongs to.
    pub epoch: Id,
    /// Who pays.
    pub org: String,
    /// What it bills.
    pub size: Size,
    /// From when on. With the epoch, the key.
    pub started_at: Nanos,
    /// Until when, so far.
    pub ended_at: Nanos,
}

/// A sample with its id, as it stands in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleRow {
    /// `<epoch>/<start>` of the worker's own, as given of an imported one.
    pub id: String,
    /// Whose.
    pub sandbox: String,
    /// The life it belongs to; `None` of an imported one.
    pub epoch: Option<Id>,
    /// Who pays.
    pub org: String,
    /// What it bills.
    pub size: Size,
    /// From when on.
    pub started_at: Nanos,
    /// Until when.
    pub ended_at: Nanos,
}

/// What the ledger keeps of a sandbox between two decisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Whose.
    pub sandbox: String,
    /// Who pays.
    pub org: String,
    /// Rises with each posting; a posting made from another one is refused as stale.
    pub version: u64,
    /// The high-water mark to send with `Resume`.
    pub mark: Option<Mark>,
    /// Whatever else the next decision needs, in its own encoding.
    pub state: Vec<u8>,
    /// When it was last posted to.
    pub updated_at: Nanos,
}

/// What one decision puts into the ledger, all of it or nothing.
#[derive(Clone, Debug)]
pub struct Posting {
    /// Whose.
    pub sandbox: String,
    /// The account as it is from now on.
    pub account: NewAccount,
    /// The event that this answers, if one does. An event that has its answer lets nothing through.
    pub answers: Option<Answer>,
    /// What changes, in this order.
    pub changes: Vec<Change>,
}

/// An account as a posting leaves it.
#[derive(Clone, Debug)]
pub struct NewAccount {
    /// The version the decision was made from; 0 where there was no account.
    pub expected_version: u64,
    /// Who pays.
    pub org: String,
    /// The high-water mark.
    pub mark: Option<Mark>,
    /// At most [`TEXT_MAX`] bytes.
    pub state: Vec<u8>,
    /// Now.
    pub updated_at: Nanos,
}

/// One change of the books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// This row of the cell's book, whatever stood at its key (epoch, start). Rows that end go before the one that does
    /// not: two are never open. An imported row that is open ends where this one begins.
    Row(RowPut),
    /// This row of the edge's book, whatever stood at its key (epoch, start).
    Sample(Sample),
    /// Rows of the life, in both books, that reach beyond `at` end there, or where they start.
    Cut {
        /// The life.
        epoch: Id,
        /// Its end.
        at: Nanos,
    },
    /// Something was found. Kept once by its id.
    Verdict(Verdict),
}

/// A row of the cell's book as it is to stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowPut {
    /// The life it belongs to.
    pub epoch: Id,
    /// Who pays.
    pub org: String,
    /// What it bills.
    pub size: Size,
    /// From when on. With the epoch, the key.
    pub started_at: Nanos,
    /// Until when; `None` while it goes on. Its start: it proved wrong.
    pub ended_at: Option<Nanos>,
}

/// Something the host found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Its key.
    pub id: String,
    /// When.
    pub at: Nanos,
    /// Its name, such as `plug_partial`.
    pub verdict: String,
    /// The amounts, in the writer's encoding.
    pub detail: String,
}

/// A call of the platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The platform's own id for it: a repeated call has the same.
    pub id: String,
    /// Whose.
    pub sandbox: String,
    /// `started`, `scaled`, `pausing`, `resumed`, `ran_on` (a pause was given up), `destroyed`.
    pub kind: String,
    /// When it happened, as the platform says.
    pub at: Nanos,
    /// Whether it begins a life, which needs an epoch.
    pub mints: bool,
}

/// An event as it stands in the ledger, committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Whether this call was the first.
    pub first: bool,
    /// The epoch minted for it, by its first call.
    pub epoch: Option<Minted>,
    /// Its answer, once it has one.
    pub answer: Option<String>,
}

/// An epoch of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Minted {
    /// 128 random bits.
    pub id: Id,
    /// Rises, and is unique across the ledger's sandboxes.
    pub number: u64,
    /// Whom it was minted for.
    pub sandbox: String,
    /// When.
    pub minted_at: Nanos,
}

/// The answer to an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The event. One that was not begun is recorded with it.
    pub event: Event,
    /// What was answered; at most [`TEXT_MAX`] bytes.
    pub text: String,
}

/// What became of a posting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Posted {
    /// Committed; the account has this version now.
    Done {
        /// The account's version.
        version: u64,
    },
    /// The event has this answer already; nothing was changed.
    Repeat(String),
    /// The account has another version than was expected; nothing was changed. Read it and decide again.
    Stale,
}

/// A name that a ledger takes: not empty, not long, nothing a terminal acts on.
pub(super) fn check_name(what: &str, name: &str) -> Result<(), LedgerCause> {
    let fault = match name {
        "" => "empty",
        long if long.len() > NAME_MAX => "longer than 256 bytes",
        text if text.chars().any(char::is_control) => "a control character in it",
        _ => return Ok(()),
    };
    Err(LedgerCause::Invalid { what: what.to_owned(), fault })
}

pub(super) fn check_text(what: &str, length: usize) -> Result<(), LedgerCause> {
    if length <= TEXT_MAX {
        return Ok(());
    }
    Err(LedgerCause::Invalid { what: what.to_owned(), fault: "longer than 64 KiB" })
}

pub(super) fn check_size(size: Size) -> Result<(), LedgerCause> {
    let fault = match size {
        Size { memory, .. } if memory > MEMORY_MAX => "more memory than 4 PiB",
        Size { cpu, .. } if cpu > CPU_MAX => "more CPU than four million vCPUs",
        _ => return Ok(()),
    };
    Err(LedgerCause::Invalid { what: "size".to_owned(), fault })
}

/// `<epoch>/<start>`: the key of a worker's own row.
pub(super) fn row_id(epoch: Id, started_at: Nanos) -> String {
    let mut id: String = epoch.0.iter().map(|byte| format!("{byte:02x}")).collect();
    id.push_str(&format!("/{}", started_at.0));
    id
}

/// Databases count in 63 bits.
pub(super) fn signed(what: &str, number: u64) -> Result<i64, LedgerCause> {
    i64::try_from(number).map_err(|_| LedgerCause::Invalid { what: what.to_owned(), fault: "beyond 63 bits" })
}

/// No column that is read so holds less than zero.
pub(super) fn unsigned(number: i64) -> Result<u64, LedgerCause> {
    u64::try_from(number).map_err(|_| LedgerCause::Damaged(format!("{number} where none below zero can be")))
}

/// 16 bytes, as the schema has them.
pub(super) fn id_of(bytes: Vec<u8>) -> Result<Id, LedgerCause> {
    let bytes: [u8; 16] = bytes
        .try_into()
        .map_err(|bytes: Vec<u8>| LedgerCause::Damaged(format!("an id of {} bytes", bytes.len())))?;
    Ok(Id(bytes))
}

/// `($1, $2), ($3, $4)`: what a statement of many rows has after VALUES.
pub(super) fn placeholders(rows: usize, columns: usize) -> String {
    let mut text = String::with_capacity(rows * columns * 7);
    for row in 0..rows {
        text.push_str(if row == 0 { "(" } else { ", (" });
        for column in 1..=columns {
            let comma = if column == 1 { "" } else { ", " };
            text.push_str(&format!("{comma}${}", row * columns + column));
        }
        text.push(')');
    }
    text
}
