//! Old rows into hourly totals, in steps that are each all or nothing: a prune may be killed, and run again.

use super::Ledger;
use super::entry::{Size, placeholders, signed};
use super::error::{LedgerCause, LedgerError};
use super::events::Fault;
use super::location::Engine;
use super::post::PRUNE_LOCK;
use super::rows;
use super::usage::{Book, HOUR, REACHES};
use crate::units::Nanos;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};
use std::collections::BTreeMap;

/// Nothing younger is pruned: a sample of the last hours may still grow, and a late call may still move an end.
pub const PRUNE_AGE_MIN: Nanos = Nanos::from_secs(24 * 3600);

/// Rows of one step.
const STEP_ROWS: i64 = 2000;

/// What a prune did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Scale events that became totals.
    pub scale_events: u64,
    /// Samples that became totals.
    pub samples: u64,
    /// Answered calls and verdicts that were forgotten.
    pub notes: u64,
}

/// One hour of one sandbox at one size.
type Hours = BTreeMap<(String, i64, String, Size), i64>;

impl Ledger {
    /// Replaces the rows that ended at or before `before` by hourly totals, and forgets the calls and verdicts of that
    /// time. From then on nothing new that began earlier is taken, and windows before it are whole hours.
    /// `on_step` hears of the rows that are done.
    ///
    /// # Errors
    /// An instant that is not on the hour, or less than [`PRUNE_AGE_MIN`] before `now`.
    pub async fn prune(
        &self,
        before: Nanos,
        now: Nanos,
        mut on_step: impl FnMut(u64),
    ) -> Result<Pruned, LedgerError> {
        let fault = if !before.0.is_multiple_of(HOUR.0) {
            Some("not on the hour")
        } else if before > now.saturating_sub(PRUNE_AGE_MIN) {
            Some("less than 24 h ago")
        } else {
            None
        };
        if let Some(fault) = fault {
            return Err(self.failed(LedgerCause::Invalid { what: "before".to_owned(), fault }));
        }
        self.bounded(self.close_the_past(before)).await?;
        let mut pruned = Pruned::default();
        for (book, reach) in
            [Book::Cell, Book::Edge].into_iter().flat_map(|book| REACHES.map(|reach| (book, reach)))
        {
            loop {
                let rows = self.bounded(self.step(book, reach, before)).await?;
                match book {
                    Book::Cell => pruned.scale_events += rows,
                    Book::Edge => pruned.samples += rows,
                }
                on_step(rows);
                if rows == 0 {
                    break;
                }
            }
        }
        pruned.notes = self.bounded(self.forget_notes(before)).await?;
        Ok(pruned)
    }

    /// After this has committed, no posting is under way that does not know.
    async fn close_the_past(&self, before: Nanos) -> Result<(), LedgerCause> {
        let mut writing = self.write().await?;
        if self.location().engine() == Engine::Postgres {
            sqlx::query("SELECT pg_advisory_xact_lock($1)")
                .bind(PRUNE_LOCK)
                .execute(writing.connection())
                .await
                .map_err(|error| self.cause(&error))?;
        }
        sqlx::query("UPDATE pruned SET before = $1 WHERE before < $1")
            .bind(signed("before", before.0)?)
            .execute(writing.connection())
            .await
            .map_err(|error| self.cause(&error))?;
        writing.commit().await
    }

    async fn step(&self, book: Book, reach: i64, before: Nanos) -> Result<u64, LedgerCause> {
        let mut writing = self.write().await?;
        let rows = step(writing.connection(), book, reach, before).await.map_err(|fault| fault.of(self))?;
        writing.commit().await?;
        Ok(rows)
    }

    async fn forget_notes(&self, before: Nanos) -> Result<u64, LedgerCause> {
        let mut writing = self.write().await?;
        let mut notes = 0;
        for sql in
            ["DELETE FROM event WHERE at < $1 AND answer IS NOT NULL", "DELETE FROM verdict WHERE at < $1"]
        {
            let done = sqlx::query(sql).bind(signed("before", before.0)?).execute(writing.connection()).await;
            notes += done.map_err(|error| self.cause(&error))?.rows_affected();
        }
        writing.commit().await?;
        Ok(notes)
    }
}

async fn step(connection: &mut AnyConnection, book: Book, reach: i64, before: Nanos) -> Result<u64, Fault> {
    let delete = match book {
        Book::Cell => {
            "DELETE FROM scale_event WHERE id IN (SELECT id FROM scale_event WHERE reach = $3 AND started_at < $1 \
             AND ended_at <= $1 ORDER BY started_at LIMIT $2) \
             RETURNING org, sandbox, memory_mib, cpu_millis, started_at, ended_at"
        }
        Book::Edge => {
            "DELETE FROM usage_sample WHERE id IN (SELECT id FROM usage_sample WHERE reach = $3 AND started_at < $1 \
             AND ended_at <= $1 ORDER BY started_at LIMIT $2) \
             RETURNING org, sandbox, memory_mib, cpu_millis, started_at, ended_at"
        }
    };
    // Oldest first along an index: what stays is near the end of it. Of two prunes the second finds a row gone.
    let rows = sqlx::query(delete)
        .bind(signed("before", before.0)?)
        .bind(STEP_ROWS)
        .bind(reach)
        .fetch_all(&mut *connection)
        .await?;
    let mut hours = Hours::new();
    for row in &rows {
        add(&mut hours, row)?;
        if hours.len() > 50_000 {
            flush(connection, book, &mut hours).await?;
        }
    }
    flush(connection, book, &mut hours).await?;
    Ok(u64::try_from(rows.len()).unwrap_or(u64::MAX))
}

/// Adds a row to its hours, each with what of the row lies in it.
fn add(hours: &mut Hours, row: &AnyRow) -> Result<(), Fault> {
    let (org, sandbox): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    let size = rows::size(row, 2)?;
    let (start, end): (i64, i64) = (row.try_get(4)?, row.try_get(5)?);
    let length = signed("hour", HOUR.0)?;
    let mut from = start;
    while from < end {
        let hour = from / length;
        let to = hour.saturating_add(1).saturating_mul(length).min(end);
        let total = hours.entry((org.clone(), hour, sandbox.clone(), size)).or_default();
        *total = total.saturating_add(to.saturating_sub(from));
        from = to;
    }
    Ok(())
}

async fn flush(connection: &mut AnyConnection, book: Book, hours: &mut Hours) -> Result<(), Fault> {
    let book: i64 = match book {
        Book::Cell => 0,
        Book::Edge => 1,
    };
    let totals: Vec<_> = std::mem::take(hours).into_iter().collect();
    for page in totals.chunks(1000) {
        let sql = format!(
            "INSERT INTO hour_total (book, org, hour, sandbox, memory_mib, cpu_millis, active_ns) VALUES {} \
             ON CONFLICT (book, org, hour, sandbox, memory_mib, cpu_millis) DO UPDATE SET active_ns = \
             hour_total.active_ns + excluded.active_ns",
            placeholders(page.len(), 7)
        );
        let mut insert = sqlx::query(sqlx::AssertSqlSafe(sql));
        for ((org, hour, sandbox, size), active) in page {
            insert = insert.bind(book).bind(org.as_str()).bind(*hour).bind(sandbox.as_str());
            insert =
                insert.bind(signed("memory", size.memory.0)?).bind(signed("CPU", size.cpu.0)?).bind(*active);
        }
        insert.execute(&mut *connection).await?;
    }
    Ok(())
}
