//! Opening: connections that give up in time, and the schema brought up to date.

use super::Ledger;
use super::error::{LedgerCause, LedgerError};
use super::location::{Engine, Location, LocationError};
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{Any, AnyConnection, ConnectOptions, Connection, Executor, Row, SqlSafeStr, Transaction};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};

/// What is to be done with a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Write; a file that is not there is made.
    Create,
    /// Write to one that is there.
    Write,
    /// Ask it, nothing else.
    Read,
}

/// How long a ledger may take, and how much of it is used at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// To get a connection.
    pub connect: Duration,
    /// To get a lock that another program holds.
    pub lock: Duration,
    /// For one posting or question in all.
    pub statement: Duration,
    /// Connections at most.
    pub connections: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            lock: Duration::from_secs(5),
            statement: Duration::from_secs(30),
            connections: 4,
        }
    }
}

impl Limits {
    /// For work that goes through all of a ledger: an import, an export, a prune.
    #[must_use]
    pub fn for_all_of_it() -> Self {
        Self { statement: Duration::from_hours(24), ..Self::default() }
    }
}

/// A schema in the package: what an upgrade adds is a further file, never a change of one.
const SQLITE: [(i64, &str, &str); 1] = [(1, "ledger", include_str!("migrations/sqlite/0001_ledger.sql"))];
const POSTGRES: [(i64, &str, &str); 1] = [(1, "ledger", include_str!("migrations/postgres/0001_ledger.sql"))];

impl Ledger {
    /// Opens `sqlite:PATH` or `postgres://…` for writing, makes the file if there is none, and brings the schema up to
    /// date.
    ///
    /// # Errors
    /// A text that names no ledger, or one that cannot be used, and why.
    pub async fn open(url: &str) -> Result<Self, LedgerError> {
        Self::open_with(url.parse()?, Access::Create, Limits::default()).await
    }

    /// As [`Ledger::open`], with a say in the rest.
    ///
    /// # Errors
    /// As for [`Ledger::open`].
    pub async fn open_with(location: Location, access: Access, limits: Limits) -> Result<Self, LedgerError> {
        sqlx::any::install_default_drivers();
        let failed = |cause| LedgerError::Failed { location: location.clone(), cause };
        if let Some(path) = location.path() {
            look_at_file(path, access).map_err(failed)?;
        }
        let engine = location.engine();
        // The file is there by now.
        let mode = if access == Access::Read { "ro" } else { "rw" };
        let url = location.url(mode).map_err(|error| LedgerError::Location(LocationError::Url(error)))?;
        let options = AnyConnectOptions::from_url(&url)
            .map(ConnectOptions::disable_statement_logging)
            .map_err(|error| failed(LedgerCause::of(&error, limits.lock)))?;
        let made_ready = async {
            // Alone and first: a pool says of every failure only that it took too long.
            let mut connection =
                options.connect().await.map_err(|error| LedgerCause::of(&error, limits.lock))?;
            prepare(&mut connection, engine, access, limits).await?;
            connection.close().await.map_err(|error| LedgerCause::of(&error, limits.lock))
        };
        let patience = limits.connect + limits.lock + limits.lock;
        match tokio::time::timeout(patience, made_ready).await {
            Ok(ready) => ready.map_err(failed)?,
            Err(_) => return Err(failed(LedgerCause::TimedOut(patience))),
        }
        let pool = AnyPoolOptions::new()
            .max_connections(limits.connections)
            .acquire_timeout(limits.connect)
            .after_connect(move |connection, _| {
                Box::pin(async move { settings(connection, engine, access, limits).await })
            })
            // A full disk ends a transaction of SQLite's by itself, which the driver does not see: on that connection none
            // could begin any more.
            .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
            .connect_lazy_with(options);
        let file = location.path().map(identity).transpose().map_err(failed)?;
        Ok(Self { pool, location, file, limits, turn: Arc::new(Mutex::new(())) })
    }

    /// Gives up on `work` in time. Whether a write that was given up has happened is not known.
    pub(super) async fn bounded<T>(
        &self,
        work: impl Future<Output = Result<T, LedgerCause>>,
    ) -> Result<T, LedgerError> {
        let patience = self.limits.connect + self.limits.lock + self.limits.statement;
        match tokio::time::timeout(patience, work).await {
            Ok(done) => done.map_err(|cause| self.failed(cause)),
            Err(_) => Err(self.failed(LedgerCause::TimedOut(patience))),
        }
    }

    /// Begins to write; dropped before [`Writing::commit`], nothing was written.
    pub(super) async fn write(&self) -> Result<Writing<'_>, LedgerCause> {
        self.same_file()?;
        let (turn, begin) = match self.location.engine() {
            Engine::Sqlite => (Some(self.turn.lock().await), "BEGIN IMMEDIATE"),
            Engine::Postgres => (None, "BEGIN"),
        };
        let transaction = match self.pool.begin_with(begin).await {
            Ok(transaction) => transaction,
            Err(error) => return Err(self.cause_of_begin(&error).await),
        };
        Ok(Writing { transaction, _turn: turn, patience: self.limits.lock })
    }

    /// SQLite would go on with a file that nobody finds any more.
    pub(super) fn same_file(&self) -> Result<(), LedgerCause> {
        match self.location.path() {
            Some(path) if identity(path).ok() != self.file => Err(LedgerCause::Unreachable(
                "its file was removed or replaced since it was opened".to_owned(),
            )),
            _ => Ok(()),
        }
    }

    /// Asks the database itself why there is no connection: the pool does not say.
    pub(super) async fn cause_of_begin(&self, error: &sqlx::Error) -> LedgerCause {
        if !matches!(error, sqlx::Error::PoolTimedOut) {
            return self.cause(error);
        }
        let options = self.pool.connect_options();
        match tokio::time::timeout(self.limits.connect, options.connect()).await {
            Ok(Err(error)) => self.cause(&error),
            _ => LedgerCause::TimedOut(self.limits.connect),
        }
    }
}

/// A transaction, and with SQLite the turn to have one.
pub(super) struct Writing<'a> {
    transaction: Transaction<'static, Any>,
    _turn: Option<MutexGuard<'a, ()>>,
    patience: Duration,
}

impl Writing<'_> {
    pub(super) fn connection(&mut self) -> &mut AnyConnection {
        &mut self.transaction
    }

    pub(super) async fn commit(self) -> Result<(), LedgerCause> {
        self.transaction.commit().await.map_err(|error| LedgerCause::of(&error, self.patience))
    }

    /// Waits for the end of it, so that the next one need not.
    pub(super) async fn rollback(self) -> Result<(), LedgerCause> {
        self.transaction.rollback().await.map_err(|error| LedgerCause::of(&error, self.patience))
    }
}

/// The system says why a file cannot be used; SQLite says only that it cannot.
fn look_at_file(path: &Path, access: Access) -> Result<(), LedgerCause> {
    let mut options = OpenOptions::new();
    options.read(true);
    if access != Access::Read {
        options.write(true).create(access == Access::Create);
    }
    match options.open(path).and_then(|file| file.metadata()) {
        Ok(metadata) if metadata.is_dir() => Err(LedgerCause::Damaged("it is a directory".to_owned())),
        Ok(_) => Ok(()),
        Err(error) => Err(match error.kind() {
            io::ErrorKind::NotFound if access != Access::Create => LedgerCause::Missing,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                LedgerCause::ReadOnly(error.to_string())
            }
            io::ErrorKind::IsADirectory => LedgerCause::Damaged("it is a directory".to_owned()),
            io::ErrorKind::StorageFull => LedgerCause::Full(error.to_string()),
            _ => LedgerCause::Unreachable(error.to_string()),
        }),
    }
}

/// Device and inode.
fn identity(path: &Path) -> Result<(u64, u64), LedgerCause> {
    let metadata = std::fs::metadata(path).map_err(|error| LedgerCause::Unreachable(error.to_string()))?;
    Ok((metadata.dev(), metadata.ino()))
}

/// What each connection gives up after, and how safely it writes.
async fn settings(
    connection: &mut AnyConnection,
    engine: Engine,
    access: Access,
    limits: Limits,
) -> Result<(), sqlx::Error> {
    let (lock, statement) = (limits.lock.as_millis(), limits.statement.as_millis());
    let sql = match engine {
        // FULL: what was committed is acked to the guest, which then forgets it. A power failure must not undo it.
        Engine::Sqlite => {
            format!(
                "PRAGMA busy_timeout = {lock}; PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 67108864"
            )
        }
        Engine::Postgres => {
            let read_only = if access == Access::Read { "on" } else { "off" };
            format!(
                "SET lock_timeout = {lock}; SET statement_timeout = {statement}; \
                 SET idle_in_transaction_session_timeout = {}; SET default_transaction_read_only = {read_only}; \
                 SET default_transaction_isolation = 'read committed'",
                statement + lock
            )
        }
    };
    connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(sql))).await.map(drop)
}

async fn prepare(
    connection: &mut AnyConnection,
    engine: Engine,
    access: Access,
    limits: Limits,
) -> Result<(), LedgerCause> {
    let cause = |error: sqlx::Error| LedgerCause::of(&error, limits.lock);
    settings(connection, engine, access, limits).await.map_err(cause)?;
    let migrator = migrator(engine);
    let applied = applied(connection, engine).await.map_err(cause)?;
    if is_current(&migrator, &applied)? {
        return Ok(());
    }
    if access == Access::Read {
        return Err(if applied.is_empty() {
            LedgerCause::Damaged("there is no ledger in it".to_owned())
        } else {
            LedgerCause::Schema {
                version: applied.last().map_or(0, |(version, _)| *version),
                fault: "it is older; open it for writing once, as an import or a worker does".to_owned(),
            }
        });
    }
    match engine {
        Engine::Sqlite => {
            use_wal(connection, limits).await?;
            // Another process may do the same: it waits for this transaction, and finds it done.
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(cause)?;
            own_file(&mut transaction).await.map_err(cause)??;
            migrate(&migrator, &mut transaction, limits).await?;
            transaction.commit().await.map_err(cause)
        }
        // The migrator takes an advisory lock.
        Engine::Postgres => migrate(&migrator, connection, limits).await,
    }
}

fn migrator(engine: Engine) -> Migrator {
    let set = match engine {
        Engine::Sqlite => SQLITE,
        Engine::Postgres => POSTGRES,
    };
    let migration = |(version, name, sql): (i64, &'static str, &'static str)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(set.into_iter().map(migration).collect())
}

/// Versions and checksums of the schemas that are there.
async fn applied(connection: &mut AnyConnection, engine: Engine) -> Result<Vec<(i64, Vec<u8>)>, sqlx::Error> {
    let exists = match engine {
        Engine::Sqlite => {
            "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = '_sqlx_migrations'"
        }
        Engine::Postgres => {
            "SELECT CAST(CASE WHEN to_regclass('_sqlx_migrations') IS NULL THEN 0 ELSE 1 END AS BIGINT)"
        }
    };
    let exists: i64 = sqlx::query_scalar(exists).fetch_one(&mut *connection).await?;
    if exists == 0 {
        return Ok(Vec::new());
    }
    let rows = sqlx::query("SELECT version, checksum FROM _sqlx_migrations ORDER BY version")
        .fetch_all(&mut *connection)
        .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

fn is_current(migrator: &Migrator, applied: &[(i64, Vec<u8>)]) -> Result<bool, LedgerCause> {
    let known = migrator.iter().map(|migration| migration.version).max().unwrap_or(0);
    for (version, checksum) in applied {
        match migrator.iter().find(|migration| migration.version == *version) {
            None if *version > known => return Err(LedgerCause::Newer { found: *version, known }),
            Some(migration) if *migration.checksum == **checksum => {}
            _ => {
                let fault = "another program, or a release that never was, made it".to_owned();
                return Err(LedgerCause::Schema { version: *version, fault });
            }
        }
    }
    Ok(applied.len() == migrator.iter().count())
}

/// A file with somebody else's tables is left alone.
async fn own_file(connection: &mut AnyConnection) -> Result<Result<(), LedgerCause>, sqlx::Error> {
    let applied = applied(connection, Engine::Sqlite).await?;
    let tables = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table'";
    let tables: i64 = sqlx::query_scalar(tables).fetch_one(connection).await?;
    if tables > 0 && applied.is_empty() {
        return Ok(Err(LedgerCause::Damaged("it is another program's database".to_owned())));
    }
    Ok(Ok(()))
}

/// Readers and the writer do not wait for each other. SQLite does not wait by itself here.
async fn use_wal(connection: &mut AnyConnection, limits: Limits) -> Result<(), LedgerCause> {
    let give_up = tokio::time::Instant::now() + limits.lock;
    loop {
        let error = match sqlx::query("PRAGMA journal_mode = WAL").fetch_one(&mut *connection).await {
            Ok(_) => return Ok(()),
            Err(error) => LedgerCause::of(&error, limits.lock),
        };
        if !matches!(error, LedgerCause::Locked(_)) || tokio::time::Instant::now() >= give_up {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn migrate(
    migrator: &Migrator,
    connection: &mut AnyConnection,
    limits: Limits,
) -> Result<(), LedgerCause> {
    migrator.run_direct(None, connection, false).await.map_err(|error| match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            LedgerCause::of(&error, limits.lock)
        }
        MigrateError::VersionMissing(found) => LedgerCause::Newer {
            found,
            known: migrator.iter().map(|migration| migration.version).max().unwrap_or(0),
        },
        MigrateError::VersionMismatch(version) | MigrateError::Dirty(version) => {
            LedgerCause::Schema { version, fault: error.to_string() }
        }
        other => LedgerCause::Database(other.to_string()),
    })
}
