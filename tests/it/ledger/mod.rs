//! The real ledger, on a real SQLite and a real PostgreSQL: one suite for both.

mod command_line;
mod events;
mod kill;
mod measure;
mod model;
mod moving;
pub(crate) mod postgres;
mod posting;
mod pruning;
mod putting;
mod trouble;
mod usage;

use guestmeter::host::ledger::{
    Account, Change, Ledger, Location, NewAccount, Posted, Posting, RowPut, Sample, Size, Usage,
};
use guestmeter::units::{Mib, MilliCpu, Nanos};
use guestmeter::wire::message::Id;
use postgres::Server;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;

/// 2026-06-08 16:00:00 UTC: the hour of the seed's clip.
const HOUR_16: Nanos = Nanos(1_780_934_400_000_000_000);
const MINUTE: u64 = 60_000_000_000;
const HOUR: u64 = 60 * MINUTE;
/// Far after all that the tests do.
const LATER: Nanos = Nanos(2_000_000_000_000_000_000);

/// A database for one test, gone with it.
enum Db {
    Sqlite(TempDir),
    Postgres { _server: Arc<Server>, url: String },
}

impl Db {
    fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    fn postgres() -> Option<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let server = Server::shared()?;
        let name = format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let url = server.database(&name);
        Some(Self::Postgres { _server: server, url })
    }

    fn url(&self) -> String {
        match self {
            Self::Sqlite(folder) => format!("sqlite:{}", folder.path().join("ledger.db").display()),
            Self::Postgres { url, .. } => url.clone(),
        }
    }

    fn location(&self) -> Location {
        self.url().parse().unwrap()
    }

    async fn open(&self) -> Ledger {
        Ledger::open(&self.url()).await.unwrap()
    }

    /// SQL past the ledger: what the database itself says or refuses.
    async fn sql(&self, sql: &str) -> Result<Vec<String>, String> {
        use sqlx::{Connection, Row};
        sqlx::any::install_default_drivers();
        let mut connection =
            sqlx::AnyConnection::connect(&self.url()).await.map_err(|error| error.to_string())?;
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())).fetch_all(&mut connection).await;
        let rows = rows.map_err(|error| error.to_string())?;
        let text = |row: &sqlx::any::AnyRow| {
            row.try_get::<i64, _>(0).map(|number| number.to_string()).or_else(|_| row.try_get(0))
        };
        let texts = rows.iter().map(text).collect::<Result<_, _>>().map_err(|error| error.to_string());
        connection.close().await.map_err(|error| error.to_string())?;
        texts
    }
}

/// One thread, as the command line has.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// The test on each engine.
macro_rules! both {
    ($($(#[$attribute:meta])* async fn $name:ident($db:ident: &Db) $body:block)*) => {$(
        $(#[$attribute])*
        mod $name {
            use super::*;

            async fn test($db: &Db) $body

            #[test]
            fn sqlite() {
                block_on(test(&Db::sqlite()));
            }

            #[test]
            fn postgres() {
                if let Some(db) = Db::postgres() {
                    block_on(test(&db));
                }
            }
        }
    )*};
}
use both;

fn size(memory: u64, cpu: u64) -> Size {
    Size { memory: Mib(memory), cpu: MilliCpu(cpu) }
}

fn id(number: u64) -> Id {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    Id(bytes)
}

/// `minutes` and `seconds` after four o'clock.
fn at(minutes: u64, seconds: u64) -> Nanos {
    Nanos(HOUR_16.0 + minutes * MINUTE + seconds * 1_000_000_000)
}

fn row(epoch: u64, memory: u64, from: Nanos, to: Option<Nanos>) -> Change {
    Change::Row(RowPut {
        epoch: id(epoch),
        org: "o".into(),
        size: size(memory, 1000),
        started_at: from,
        ended_at: to,
    })
}

fn sample(epoch: u64, memory: u64, from: Nanos, to: Nanos) -> Change {
    Change::Sample(Sample {
        epoch: id(epoch),
        org: "o".into(),
        size: size(memory, 1000),
        started_at: from,
        ended_at: to,
    })
}

/// A posting from the account as it is.
async fn posting(ledger: &Ledger, sandbox: &str, changes: Vec<Change>) -> Posting {
    let account = ledger.account(sandbox).await.unwrap();
    Posting {
        sandbox: sandbox.into(),
        account: NewAccount {
            expected_version: account.as_ref().map_or(0, |account| account.version),
            org: "o".into(),
            mark: account.and_then(|account: Account| account.mark),
            state: Vec::new(),
            updated_at: HOUR_16,
        },
        answers: None,
        changes,
    }
}

/// Posts, and expects it to be done.
async fn post(ledger: &Ledger, sandbox: &str, changes: Vec<Change>) {
    let posted = ledger.post_one(&posting(ledger, sandbox, changes).await).await.unwrap();
    assert!(matches!(posted, Posted::Done { .. }), "{posted:?}");
}

/// Start and end of the sandbox's rows of the cell's book, in minutes after four.
async fn rows(ledger: &Ledger, sandbox: &str) -> Vec<(u64, u64, Option<u64>)> {
    let minutes = |instant: Nanos| (instant.0 - HOUR_16.0) / MINUTE;
    let rows = ledger.scale_events(sandbox, Nanos::ZERO, Nanos(i64::MAX as u64)).await.unwrap();
    rows.iter().map(|row| (row.size.memory.0, minutes(row.started_at), row.ended_at.map(minutes))).collect()
}

async fn usage(ledger: &Ledger, org: &str, from: Nanos, to: Nanos) -> Usage {
    ledger.usage(org, from, to, LATER).await.unwrap()
}
