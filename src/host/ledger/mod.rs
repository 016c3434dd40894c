//! The ledger: both books, in SQLite (embedded, one file) or PostgreSQL (a cell with many workers), by the same code.
//!
//! The **cell's book** is [`ScaleEvent`]s: what the host says a sandbox had. The **edge's book** is [`Sample`]s: what the
//! guest counted. Beside them: orgs with their plans, [`Account`]s, [`Event`]s with their first answers, minted epochs,
//! and [`Verdict`]s. Instants are nanoseconds since the Unix epoch, sums are exact integers, nothing is a float.
//!
//! # How a worker uses it
//! 1. [`Ledger::begin_event`] records a call of the platform and mints its epoch, committed before the guest hears of
//!    it. A repeated call gets the same epoch, and the answer if there is one.
//! 2. The worker asks the guest, and decides from the [`Account`] and what it heard.
//! 3. [`Ledger::post`] applies the decision in one transaction: account, changes and answer, or nothing. A decision made
//!    from an account that has changed since is [`Posted::Stale`]: read, decide and post again. So any number of workers
//!    may post at once, and one that dies at any instruction has posted all of a decision or nothing of it.
//! 4. Only then is the guest acked, and the platform answered.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let url = format!("sqlite:{}", directory.path().join("ledger.db").display());
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! use guestmeter::host::ledger::{Change, Event, Ledger, NewAccount, Posted, Posting, RowPut, Size};
//! use guestmeter::units::{Mib, MilliCpu, Nanos};
//!
//! let ledger = Ledger::open(&url).await?; // "sqlite:/var/lib/guestmeter/ledger.db", "postgres://…"
//! let now = Nanos::from_secs(1_780_000_000);
//! let started = Event {
//!     id: "call-1".into(), sandbox: "sb-1".into(), kind: "started".into(), at: now, mints: true,
//! };
//! let begun = ledger.begin_event(&started).await?;
//! let epoch = begun.epoch.ok_or("an event that mints has an epoch")?;
//!
//! let account = ledger.account("sb-1").await?;
//! let posting = Posting {
//!     sandbox: "sb-1".into(),
//!     account: NewAccount {
//!         expected_version: account.map_or(0, |account| account.version),
//!         org: "org-1".into(), mark: None, state: Vec::new(), updated_at: now,
//!     },
//!     answers: None,
//!     changes: vec![Change::Row(RowPut {
//!         epoch: epoch.id, org: "org-1".into(), started_at: now, ended_at: None,
//!         size: Size { memory: Mib(4096), cpu: MilliCpu(1000) },
//!     })],
//! };
//! let posted = ledger.post_one(&posting).await?;
//! assert_eq!(posted, Posted::Done { version: 1 });
//!
//! let hour = Nanos(now.0 + 3_600_000_000_000);
//! let usage = ledger.usage("org-1", now, hour, hour).await?;
//! assert_eq!(usage.memory().0, 4096 * 3_600_000_000_000);
//! # Ok(())
//! # })
//! # }
//! ```
//!
//! # Why a question takes the same time however long the books are
//! See [`usage`].

mod accounts;
mod entry;
mod error;
mod events;
mod export;
mod import;
mod line;
mod location;
mod open;
mod post;
mod prune;
mod put;
mod rows;
pub mod usage;

pub use entry::{
    Account, Answer, Begun, CPU_MAX, Change, Event, MEMORY_MAX, Minted, NAME_MAX, NewAccount, Posted,
    Posting, RowPut, Sample, SampleRow, ScaleEvent, Size, TEXT_MAX, Verdict,
};
pub use error::{LedgerCause, LedgerError, LedgerFault};
pub use export::{ExportError, Exported};
pub use import::{ImportError, Imported};
pub(crate) use line::Instant;
pub use line::{LINE_MAX, parse_instant};
pub use location::{Engine, Location, LocationError};
pub use open::{Access, Limits};
pub use prune::{PRUNE_AGE_MIN, Pruned};
pub use usage::{Book, SandboxTotal, SizeTotal, Usage};

use sqlx::AnyPool;
use std::sync::Arc;
use tokio::sync::Mutex;

/// An open ledger. Cheap to clone; every clone is the same ledger.
#[derive(Clone)]
pub struct Ledger {
    pool: AnyPool,
    location: Location,
    /// Which file an embedded one is.
    file: Option<(u64, u64)>,
    limits: Limits,
    /// SQLite has one writer: waiting here is fair, waiting in the database is not.
    turn: Arc<Mutex<()>>,
}

impl Ledger {
    /// Where it is.
    #[must_use]
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Ends its connections; what is under way ends first.
    pub async fn close(self) {
        self.pool.close().await;
    }

    fn failed(&self, cause: LedgerCause) -> LedgerError {
        LedgerError::Failed { location: self.location.clone(), cause }
    }

    /// As [`LedgerCause::of`].
    fn cause(&self, error: &sqlx::Error) -> LedgerCause {
        LedgerCause::of(error, self.limits.lock)
    }
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Ledger").field(&self.location).finish()
    }
}
