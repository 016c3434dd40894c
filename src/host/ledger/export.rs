//! A ledger as JSON Lines, which another one can import: one moment of it, however long the writing takes.

use super::Ledger;
use super::entry::unsigned;
use super::error::{LedgerCause, LedgerError};
use super::events::Fault;
use super::line::Line;
use super::location::Engine;
use super::rows;
use crate::units::Nanos;
use sqlx::any::AnyRow;
use sqlx::{Any, Row, Transaction};
use std::io::{self, Write};

/// Rows that are in memory at once.
const PAGE: i64 = 2000;

/// What an export wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Lines.
    pub lines: u64,
    /// Of the time before this instant the ledger has hourly totals only, which are not exported.
    pub pruned_before: Nanos,
}

/// Why an export stopped.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The output.
    #[error(transparent)]
    Output(#[from] io::Error),
}

impl Ledger {
    /// Writes orgs, scale events and samples. The writing blocks.
    ///
    /// # Errors
    /// A ledger that cannot be asked, or an output that cannot be written.
    pub async fn export(&self, output: &mut impl Write) -> Result<Exported, ExportError> {
        let begin = match self.location().engine() {
            Engine::Sqlite => "BEGIN",
            Engine::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        };
        let mut transaction = match self.pool.begin_with(begin).await {
            Ok(transaction) => transaction,
            Err(error) => return Err(self.failed(self.cause_of_begin(&error).await).into()),
        };
        let before = sqlx::query_scalar("SELECT before FROM pruned").fetch_one(&mut *transaction).await;
        let before = before.map_err(|error| self.failed(self.cause(&error)))?;
        let before = unsigned(before).map_err(|cause| self.failed(cause))?;
        let mut exported = Exported { lines: 0, pruned_before: Nanos(before) };
        let orgs = "SELECT id, plan FROM org";
        self.table(&mut transaction, orgs, output, &mut exported, |row| {
            Ok(Line::Org { id: row.try_get(0)?, plan: row.try_get(1)? })
        })
        .await?;
        self.table(&mut transaction, rows::SCALE_COLUMNS, output, &mut exported, |row| {
            rows::scale_event(row).map(Line::of_scale)
        })
        .await?;
        self.table(&mut transaction, rows::SAMPLE_COLUMNS, output, &mut exported, |row| {
            rows::sample_row(row).map(Line::of_sample)
        })
        .await?;
        transaction.rollback().await.map_err(|error| self.failed(self.cause(&error)))?;
        Ok(exported)
    }

    /// All rows of a table whose first column is its key, page by page.
    async fn table(
        &self,
        transaction: &mut Transaction<'static, Any>,
        columns: &str,
        output: &mut impl Write,
        exported: &mut Exported,
        line: impl Fn(&AnyRow) -> Result<Line, Fault>,
    ) -> Result<(), ExportError> {
        let mut after = String::new();
        loop {
            let sql = sqlx::AssertSqlSafe(format!("{columns} WHERE id > $1 ORDER BY id LIMIT $2"));
            let page = sqlx::query(sql).bind(after.as_str()).bind(PAGE).fetch_all(&mut **transaction).await;
            let page = page.map_err(|error| self.failed(self.cause(&error)))?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.try_get(0).map_err(|error| self.failed(self.cause(&error)))?;
            for row in &page {
                let line = line(row).map_err(|fault| self.failed(fault.of(self)))?;
                let text = serde_json::to_string(&line)
                    .map_err(|error| self.failed(LedgerCause::Database(error.to_string())))?;
                writeln!(output, "{text}")?;
                exported.lines += 1;
            }
        }
    }
}
