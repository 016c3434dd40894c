//! Whole rows, put by their key: what reconciliation posts, which may tell a row anew.

use super::entry::{RowPut, Sample, Size, check_name, check_size, row_id, signed};
use super::error::LedgerCause;
use super::events::Fault;
use super::usage::Book;
use crate::units::Nanos;
use crate::wire::message::Id;
use sqlx::AnyConnection;

/// A row of either book.
struct Put<'a> {
    book: Book,
    sandbox: &'a str,
    epoch: Id,
    org: &'a str,
    size: Size,
    started_at: Nanos,
    ended_at: Option<Nanos>,
}

/// As [`Change::Row`](super::Change::Row) says. The caller holds the sandbox's account.
pub(super) async fn row(
    connection: &mut AnyConnection,
    sandbox: &str,
    row: &RowPut,
    pruned: Nanos,
) -> Result<(), Fault> {
    let RowPut { epoch, ref org, size, started_at, ended_at } = *row;
    if ended_at.is_none() {
        end_imported(connection, sandbox, started_at).await?;
    }
    let put = Put { book: Book::Cell, sandbox, epoch, org, size, started_at, ended_at };
    put.run(connection, pruned).await
}

/// As [`Change::Sample`](super::Change::Sample) says.
pub(super) async fn sample(
    connection: &mut AnyConnection,
    sandbox: &str,
    sample: &Sample,
    pruned: Nanos,
) -> Result<(), Fault> {
    let Sample { epoch, ref org, size, started_at, ended_at } = *sample;
    let put = Put { book: Book::Edge, sandbox, epoch, org, size, started_at, ended_at: Some(ended_at) };
    put.run(connection, pruned).await
}

/// Whoever wrote it, it is the worker's sandbox now: no later row of its own could open.
async fn end_imported(connection: &mut AnyConnection, sandbox: &str, at: Nanos) -> Result<(), Fault> {
    let sql = "UPDATE scale_event SET ended_at = CASE WHEN started_at > $2 THEN started_at ELSE $2 END \
               WHERE sandbox = $1 AND ended_at IS NULL AND epoch IS NULL";
    sqlx::query(sql).bind(sandbox).bind(signed("started_at", at.0)?).execute(connection).await?;
    Ok(())
}

impl Put<'_> {
    async fn run(&self, connection: &mut AnyConnection, pruned: Nanos) -> Result<(), Fault> {
        check_name("org", self.org)?;
        check_size(self.size)?;
        let id = row_id(self.epoch, self.started_at);
        let (table, what) = match self.book {
            Book::Cell => ("scale_event", "row"),
            Book::Edge => ("usage_sample", "sample"),
        };
        let what = format!("{what} {id}");
        if self.ended_at.is_some_and(|end| end < self.started_at) {
            return Err(LedgerCause::Invalid { what, fault: "it ends before it begins" }.into());
        }
        let done = sqlx::query(sqlx::AssertSqlSafe(self.sql(table, pruned)))
            .bind(id.as_str())
            .bind(self.sandbox)
            .bind(self.epoch.0.to_vec())
            .bind(self.org)
            .bind(signed("memory", self.size.memory.0)?)
            .bind(signed("CPU", self.size.cpu.0)?)
            .bind(signed("started_at", self.started_at.0)?)
            .bind(self.ended_at.map(|end| signed("ended_at", end.0)).transpose()?)
            .execute(connection)
            .await?;
        if done.rows_affected() == 1 {
            return Ok(());
        }
        Err(if self.started_at < pruned {
            LedgerCause::Pruned {
                before: pruned.0,
                fault: "what began before it and is not there is not taken",
            }
        } else {
            LedgerCause::Conflict { id: what, fault: "sandbox" }
        }
        .into())
    }

    /// What is gone to a prune must not come back; what is still there may change.
    fn sql(&self, table: &str, pruned: Nanos) -> String {
        if self.started_at < pruned {
            return format!(
                "UPDATE {table} SET org = $4, memory_mib = $5, cpu_millis = $6, ended_at = $8 \
                 WHERE id = $1 AND sandbox = $2 AND epoch = $3 AND started_at = $7"
            );
        }
        format!(
            "INSERT INTO {table} (id, sandbox, epoch, org, memory_mib, cpu_millis, started_at, ended_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (id) DO UPDATE SET org = excluded.org, \
             memory_mib = excluded.memory_mib, cpu_millis = excluded.cpu_millis, ended_at = excluded.ended_at \
             WHERE {table}.sandbox = excluded.sandbox"
        )
    }
}

/// As [`Change::Cut`](super::Change::Cut) says.
pub(super) async fn cut(
    connection: &mut AnyConnection,
    sandbox: &str,
    epoch: Id,
    at: Nanos,
) -> Result<(), Fault> {
    let rows = "UPDATE scale_event SET ended_at = CASE WHEN started_at > $3 THEN started_at ELSE $3 END \
                WHERE sandbox = $1 AND epoch = $2 AND (ended_at IS NULL OR ended_at > $3)";
    let samples = "UPDATE usage_sample SET ended_at = CASE WHEN started_at > $3 THEN started_at ELSE $3 END \
                   WHERE sandbox = $1 AND epoch = $2 AND ended_at > $3";
    for sql in [rows, samples] {
        sqlx::query(sql)
            .bind(sandbox)
            .bind(epoch.0.to_vec())
            .bind(signed("at", at.0)?)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
