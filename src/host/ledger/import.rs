//! JSON Lines into a ledger: all of a file or nothing, and a second time nothing.

use super::Ledger;
use super::accounts::set_plan;
use super::entry::{SampleRow, ScaleEvent, placeholders, signed};
use super::error::{LedgerCause, LedgerError, LedgerFault};
use super::events::Fault;
use super::line::{Entry, LINE_MAX, Line};
use super::open::Writing;
use super::post::pruned_before;
use super::rows;
use super::usage::Book;
use crate::host::json_lines::{JsonLines, LineError};
use crate::host::text::Safe;
use crate::units::Nanos;
use sqlx::{AnyConnection, Row};
use std::collections::HashSet;
use std::io::{self, BufRead};

/// Rows that go into one statement.
const BATCH: usize = 500;

/// What an import did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Lines with something on them.
    pub lines: u64,
    /// Orgs that were stated.
    pub orgs: u64,
    /// Scale events that are new or ended.
    pub scale_events: u64,
    /// Samples that are new or grew.
    pub samples: u64,
    /// Rows that the ledger had already.
    pub unchanged: u64,
}

/// Why an import stopped. The ledger is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be read.
    #[error("{name}:{line}: reading: {error}")]
    Read {
        /// The file.
        name: String,
        /// From 1.
        line: u64,
        /// What the system says.
        error: io::Error,
    },
    /// A line that does not fit.
    #[error("{name}:{line}: {fault}")]
    Line {
        /// The file.
        name: String,
        /// From 1.
        line: u64,
        /// Why not.
        fault: String,
    },
    /// The ledger's fault.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// A row of either book, with the line it came from.
struct Pending {
    line: u64,
    row: ScaleEvent,
}

impl Ledger {
    /// Takes all lines of `input`, called `name` in errors, in one transaction. `on_bytes` hears how much of it has
    /// been read. The reading blocks.
    ///
    /// A row whose id is there must be the same. But one that was open may have an end now, and a sample may have
    /// grown; the earlier state of either is nothing new.
    ///
    /// # Errors
    /// The first line that does not fit, by its number.
    pub async fn import(
        &self,
        input: impl BufRead,
        name: &str,
        on_bytes: impl FnMut(u64),
    ) -> Result<Imported, ImportError> {
        let mut writing = self.write().await.map_err(|cause| self.failed(cause))?;
        let mut import = Import {
            ledger: self,
            name,
            pruned: Nanos::ZERO,
            cell: Vec::new(),
            edge: Vec::new(),
            done: Imported::default(),
        };
        let known = pruned_before(writing.connection(), self.location().engine(), &mut None).await;
        import.pruned = known.map_err(|fault| self.failed(fault.of(self)))?;
        match import.all(&mut writing, input, on_bytes).await {
            Ok(()) => {
                writing.commit().await.map_err(|cause| self.failed(cause))?;
                Ok(import.done)
            }
            Err(error) => {
                // What stopped it is worth more than that the rollback failed too.
                let _ = writing.rollback().await;
                Err(error)
            }
        }
    }
}

struct Import<'a> {
    ledger: &'a Ledger,
    name: &'a str,
    pruned: Nanos,
    cell: Vec<Pending>,
    edge: Vec<Pending>,
    done: Imported,
}

impl Import<'_> {
    async fn all(
        &mut self,
        writing: &mut Writing<'_>,
        input: impl BufRead,
        mut on_bytes: impl FnMut(u64),
    ) -> Result<(), ImportError> {
        let mut lines = JsonLines::new(input, LINE_MAX);
        loop {
            let text = match lines.next() {
                Ok(Some(text)) => text.to_owned(),
                Ok(None) => break,
                Err(LineError::Read(error)) => {
                    return Err(ImportError::Read { name: self.name.to_owned(), line: lines.number, error });
                }
                Err(fault) => return Err(self.refuse(lines.number, fault.to_string())),
            };
            on_bytes(lines.bytes);
            if !text.is_empty() {
                self.take(writing, lines.number, &text).await?;
            }
        }
        self.flush(writing.connection(), Book::Cell).await?;
        self.flush(writing.connection(), Book::Edge).await
    }

    async fn take(&mut self, writing: &mut Writing<'_>, line: u64, text: &[u8]) -> Result<(), ImportError> {
        let entry = Line::parse(text).and_then(Line::entry).map_err(|fault| self.refuse(line, fault))?;
        self.done.lines += 1;
        match entry {
            Entry::Org { id, plan } => {
                self.done.orgs += 1;
                let set = set_plan(writing.connection(), &id, plan.as_deref()).await;
                set.map_err(|fault| self.failed(line, fault))
            }
            Entry::Scale(row) => {
                self.cell.push(Pending { line, row });
                self.flush_if_full(writing, Book::Cell).await
            }
            Entry::Sample(sample) => {
                let SampleRow { id, sandbox, epoch, org, size, started_at, ended_at } = sample;
                let row = ScaleEvent { id, sandbox, epoch, org, size, started_at, ended_at: Some(ended_at) };
                self.edge.push(Pending { line, row });
                self.flush_if_full(writing, Book::Edge).await
            }
        }
    }

    async fn flush_if_full(&mut self, writing: &mut Writing<'_>, book: Book) -> Result<(), ImportError> {
        if self.pending(book).len() < BATCH {
            return Ok(());
        }
        self.flush(writing.connection(), book).await
    }

    fn pending(&mut self, book: Book) -> &mut Vec<Pending> {
        match book {
            Book::Cell => &mut self.cell,
            Book::Edge => &mut self.edge,
        }
    }

    /// New rows by one statement; what is there already, or is in another row's way, one by one in the file's order.
    async fn flush(&mut self, connection: &mut AnyConnection, book: Book) -> Result<(), ImportError> {
        let batch = std::mem::take(self.pending(book));
        let (pruned, mut ids) = (self.pruned, HashSet::new());
        // Only the first line of an id: a later state of a row must not come before an earlier one.
        let new: Vec<&Pending> = batch
            .iter()
            .filter(|pending| ids.insert(pending.row.id.as_str()) && pending.row.started_at >= pruned)
            .collect();
        let first = batch.first().map_or(0, |pending| pending.line);
        let mut inserted = insert(connection, book, &new).await.map_err(|fault| self.failed(first, fault))?;
        for Pending { line, row } in &batch {
            let changed = if inserted.remove(&row.id) {
                true
            } else {
                self.settle(connection, book, row).await.map_err(|fault| self.failed(*line, fault))?
            };
            match (changed, book) {
                (false, _) => self.done.unchanged += 1,
                (true, Book::Cell) => self.done.scale_events += 1,
                (true, Book::Edge) => self.done.samples += 1,
            }
        }
        Ok(())
    }

    /// A row that was not simply new: whether it changes the ledger.
    async fn settle(
        &self,
        connection: &mut AnyConnection,
        book: Book,
        row: &ScaleEvent,
    ) -> Result<bool, Fault> {
        let Some(known) = find(connection, book, &row.id).await? else {
            if row.started_at < self.pruned {
                let fault = "a row that began before it is not taken";
                return Err(LedgerCause::Pruned { before: self.pruned.0, fault }.into());
            }
            // Another row was in the way; a line since then may have ended it.
            let one = Pending { line: 0, row: row.clone() };
            if insert(connection, book, &[&one]).await?.is_empty() {
                let what = format!("sandbox {}", row.sandbox);
                return Err(LedgerCause::Invalid { what, fault: "it has an open row already" }.into());
            }
            return Ok(true);
        };
        let conflict = |fault| Err(LedgerCause::Conflict { id: row.id.clone(), fault }.into());
        if known.sandbox != row.sandbox {
            return conflict("sandbox");
        }
        if known.org != row.org {
            return conflict("org");
        }
        if known.size != row.size {
            return conflict("memory_mib or cpu_millis");
        }
        if known.started_at != row.started_at {
            return conflict("started_at");
        }
        match (book, known.ended_at, row.ended_at) {
            (_, before, now) if before == now => Ok(false),
            (Book::Cell, None, Some(end)) => end_row(connection, book, &row.id, end).await.map(|()| true),
            (Book::Cell, Some(_), None) => Ok(false),
            (Book::Edge, Some(before), Some(now)) if now < before => Ok(false),
            (Book::Edge, _, Some(end)) => end_row(connection, book, &row.id, end).await.map(|()| true),
            _ => conflict("ended_at"),
        }
    }

    fn refuse(&self, line: u64, fault: String) -> ImportError {
        // It quotes the file.
        ImportError::Line { name: self.name.to_owned(), line, fault: Safe(&fault).to_string() }
    }

    /// A line's fault names the line; the database's names the database.
    fn failed(&self, line: u64, fault: Fault) -> ImportError {
        match fault.of(self.ledger) {
            cause if cause.fault() == LedgerFault::Data => self.refuse(line, cause.to_string()),
            cause => self.ledger.failed(cause).into(),
        }
    }
}

/// The ids that were new.
async fn insert(
    connection: &mut AnyConnection,
    book: Book,
    rows: &[&Pending],
) -> Result<HashSet<String>, Fault> {
    if rows.is_empty() {
        return Ok(HashSet::new());
    }
    let into = match book {
        Book::Cell => "scale_event",
        Book::Edge => "usage_sample",
    };
    let sql = format!(
        "INSERT INTO {into} (id, sandbox, org, memory_mib, cpu_millis, started_at, ended_at) VALUES {} \
         ON CONFLICT DO NOTHING RETURNING id",
        placeholders(rows.len(), 7)
    );
    let mut insert = sqlx::query(sqlx::AssertSqlSafe(sql));
    for Pending { row, .. } in rows {
        insert = insert
            .bind(row.id.as_str())
            .bind(row.sandbox.as_str())
            .bind(row.org.as_str())
            .bind(signed("memory_mib", row.size.memory.0)?)
            .bind(signed("cpu_millis", row.size.cpu.0)?)
            .bind(signed("started_at", row.started_at.0)?)
            .bind(row.ended_at.map(|end| signed("ended_at", end.0)).transpose()?);
    }
    let inserted = insert.fetch_all(connection).await?;
    inserted.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

async fn find(connection: &mut AnyConnection, book: Book, id: &str) -> Result<Option<ScaleEvent>, Fault> {
    let columns = match book {
        Book::Cell => rows::SCALE_COLUMNS,
        Book::Edge => rows::SAMPLE_COLUMNS,
    };
    let sql = sqlx::AssertSqlSafe(format!("{columns} WHERE id = $1"));
    let row = sqlx::query(sql).bind(id).fetch_optional(connection).await?;
    row.map(|row| rows::scale_event(&row)).transpose()
}

async fn end_row(connection: &mut AnyConnection, book: Book, id: &str, end: Nanos) -> Result<(), Fault> {
    let sql = match book {
        Book::Cell => "UPDATE scale_event SET ended_at = $2 WHERE id = $1",
        Book::Edge => "UPDATE usage_sample SET ended_at = $2 WHERE id = $1",
    };
    sqlx::query(sql).bind(id).bind(signed("ended_at", end.0)?).execute(connection).await?;
    Ok(())
}
