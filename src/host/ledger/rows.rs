//! The rows of both books, read back.

use super::Ledger;
use super::entry::{SampleRow, ScaleEvent, Size, Verdict, id_of, signed, unsigned};
use super::error::LedgerError;
use super::events::Fault;
use crate::units::{Mib, MilliCpu, Nanos};
use crate::wire::message::Id;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

pub(super) const SCALE_COLUMNS: &str =
    "SELECT id, sandbox, epoch, org, memory_mib, cpu_millis, started_at, ended_at FROM scale_event";
pub(super) const SAMPLE_COLUMNS: &str =
    "SELECT id, sandbox, epoch, org, memory_mib, cpu_millis, started_at, ended_at FROM usage_sample";

/// The most rows that one question about a sandbox gets.
const ROWS_MAX: i64 = 100_000;

impl Ledger {
    /// The sandbox's open row.
    ///
    /// # Errors
    /// A ledger that cannot be asked.
    pub async fn running(&self, sandbox: &str) -> Result<Option<ScaleEvent>, LedgerError> {
        self.bounded(async {
            let mut connection = self.ask().await?;
            open_row(&mut connection, sandbox).await.map_err(|fault| fault.of(self))
        })
        .await
    }

    /// A sandbox's rows of the cell's book that overlap `[from, to)`, oldest first.
    ///
    /// # Errors
    /// A ledger that cannot be asked.
    pub async fn scale_events(
        &self,
        sandbox: &str,
        from: Nanos,
        to: Nanos,
    ) -> Result<Vec<ScaleEvent>, LedgerError> {
        self.between(&overlapping(SCALE_COLUMNS), (sandbox, from, to), ROWS_MAX, scale_event).await
    }

    /// A sandbox's rows of the edge's book that overlap `[from, to)`, oldest first.
    ///
    /// # Errors
    /// A ledger that cannot be asked.
    pub async fn samples(
        &self,
        sandbox: &str,
        from: Nanos,
        to: Nanos,
    ) -> Result<Vec<SampleRow>, LedgerError> {
        self.between(&overlapping(SAMPLE_COLUMNS), (sandbox, from, to), ROWS_MAX, sample_row).await
    }

    /// What was found about a sandbox in `[from, to)`, oldest first.
    ///
    /// # Errors
    /// A ledger that cannot be asked.
    pub async fn verdicts(&self, sandbox: &str, from: Nanos, to: Nanos) -> Result<Vec<Verdict>, LedgerError> {
        let sql = "SELECT id, at, verdict, detail FROM verdict WHERE sandbox = $1 AND at >= $2 AND at < $3 \
                   ORDER BY at, id LIMIT $4";
        self.between(sql, (sandbox, from, to), ROWS_MAX, verdict).await
    }

    /// What `sql` finds of a sandbox between two instants, at most `most` of it: these are its $1 to $4.
    pub(super) async fn between<T>(
        &self,
        sql: &str,
        (sandbox, from, to): (&str, Nanos, Nanos),
        most: i64,
        read: impl Fn(&AnyRow) -> Result<T, Fault>,
    ) -> Result<Vec<T>, LedgerError> {
        self.bounded(async {
            let mut connection = self.ask().await?;
            let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
                .bind(sandbox)
                .bind(signed("from", from.0)?)
                .bind(signed("to", to.0)?)
                .bind(most)
                .fetch_all(&mut *connection)
                .await
                .map_err(|error| self.cause(&error))?;
            rows.iter().map(|row| read(row).map_err(|fault| fault.of(self))).collect()
        })
        .await
    }
}

/// Rows of a book that overlap a window.
fn overlapping(columns: &str) -> String {
    format!(
        "{columns} WHERE sandbox = $1 AND started_at < $3 AND (ended_at IS NULL OR ended_at > $2) \
         ORDER BY started_at, id LIMIT $4"
    )
}

async fn open_row(connection: &mut AnyConnection, sandbox: &str) -> Result<Option<ScaleEvent>, Fault> {
    let sql = sqlx::AssertSqlSafe(format!("{SCALE_COLUMNS} WHERE sandbox = $1 AND ended_at IS NULL"));
    let row = sqlx::query(sql).bind(sandbox).fetch_optional(connection).await?;
    row.map(|row| scale_event(&row)).transpose()
}

pub(super) fn scale_event(row: &AnyRow) -> Result<ScaleEvent, Fault> {
    let ended_at: Option<i64> = row.try_get(7)?;
    Ok(ScaleEvent {
        id: row.try_get(0)?,
        sandbox: row.try_get(1)?,
        epoch: epoch(row)?,
        org: row.try_get(3)?,
        size: size(row, 4)?,
        started_at: Nanos(unsigned(row.try_get(6)?)?),
        ended_at: ended_at.map(unsigned).transpose()?.map(Nanos),
    })
}

pub(super) fn sample_row(row: &AnyRow) -> Result<SampleRow, Fault> {
    Ok(SampleRow {
        id: row.try_get(0)?,
        sandbox: row.try_get(1)?,
        epoch: epoch(row)?,
        org: row.try_get(3)?,
        size: size(row, 4)?,
        started_at: Nanos(unsigned(row.try_get(6)?)?),
        ended_at: Nanos(unsigned(row.try_get(7)?)?),
    })
}

fn verdict(row: &AnyRow) -> Result<Verdict, Fault> {
    Ok(Verdict {
        id: row.try_get(0)?,
        at: Nanos(unsigned(row.try_get(1)?)?),
        verdict: row.try_get(2)?,
        detail: row.try_get(3)?,
    })
}

fn epoch(row: &AnyRow) -> Result<Option<Id>, Fault> {
    let bytes: Option<Vec<u8>> = row.try_get(2)?;
    Ok(bytes.map(id_of).transpose()?)
}

/// Memory in this column, CPU in the next.
pub(super) fn size(row: &AnyRow, column: usize) -> Result<Size, Fault> {
    Ok(Size {
        memory: Mib(unsigned(row.try_get(column)?)?),
        cpu: MilliCpu(unsigned(row.try_get(column + 1)?)?),
    })
}
