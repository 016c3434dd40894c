//! Questions to the books: an org's usage of a span, and both books of a span beside each other. Exact.
//!
//! For every row that overlaps `[from, to)`, `LEAST(COALESCE(ended_at, now), to) - GREATEST(started_at, from)` counts.
//!
//! # Why the time does not grow with the books
//! An index on the start of rows finds those that began before `to`, which are nearly all of a long history; one on
//! their end finds those that ended after `from`, which are nearly all of it for an old hour. Neither finds overlap.
//! So each row has a *reach*, an upper bound of its length in eight classes (open, up to 1 h, 8 h, 64 h, …), made by the
//! database itself. What overlaps the window began at most its reach before it: the question is eight short ranges of
//! an index on (org, reach, started_at), whatever came before or after. A range holds at most eight times what overlaps
//! the window; that number, and not the length of the history, is what an answer costs.
//!
//! Sums are made of two halves of 32 bits, which cannot overflow below two thousand million rows in one group; the
//! halves meet in 128 bits.
//!
//! Time before [`Ledger::prune`](super::Ledger::prune)'s instant is there in hourly totals, and they come from the same
//! statement as the rows: no prune falls between them. Such a window must begin and end on the hour.

use super::Ledger;
use super::entry::{Size, signed, unsigned};
use super::error::{LedgerCause, LedgerError};
use super::events::Fault;
use super::rows;
use crate::units::{MibNanos, MilliCpuNanos, Nanos};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};
use std::collections::BTreeMap;

/// One hour.
pub const HOUR: Nanos = Nanos::from_secs(3600);

/// The classes of rows with an end, as the schema and the statements below have them.
pub(super) const REACHES: [i64; 7] = [
    3_600_000_000_000,
    28_800_000_000_000,
    230_400_000_000_000,
    1_843_200_000_000_000,
    14_745_600_000_000_000,
    117_964_800_000_000_000,
    i64::MAX,
];

/// Which book.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Book {
    /// The host's: scale events.
    Cell,
    /// The guests': samples.
    Edge,
}

/// What an org used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// By size, in order of size.
    pub by_size: Vec<SizeTotal>,
}

/// How long an org's sandboxes had one size, all of them together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeTotal {
    /// What they had.
    pub size: Size,
    /// For how long, in nanoseconds: many sandboxes pass 64 bits.
    pub active_ns: u128,
}

/// What one sandbox had in a span, by both books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxTotal {
    /// Who pays.
    pub org: String,
    /// Whose.
    pub sandbox: String,
    /// Memory × time of the scale events.
    pub cell: MibNanos,
    /// Memory × time of the samples.
    pub edge: MibNanos,
}

impl Usage {
    /// Running time of all sandboxes, in nanoseconds.
    #[must_use]
    pub fn active_ns(&self) -> u128 {
        self.by_size.iter().fold(0, |sum, total| sum.saturating_add(total.active_ns))
    }

    /// Memory × time.
    #[must_use]
    pub fn memory(&self) -> MibNanos {
        let products = self.by_size.iter().map(|total| times(total.size.memory.0, total.active_ns));
        MibNanos(products.fold(0, u128::saturating_add))
    }

    /// CPU entitlement × time.
    #[must_use]
    pub fn cpu(&self) -> MilliCpuNanos {
        let products = self.by_size.iter().map(|total| times(total.size.cpu.0, total.active_ns));
        MilliCpuNanos(products.fold(0, u128::saturating_add))
    }
}

/// 33 bits by at most 95: no ledger reaches the end of the type.
fn times(factor: u64, span: u128) -> u128 {
    u128::from(factor).saturating_mul(span)
}

/// Rows of a book cut to `[$2, $3)`, an open row ending at `$4`; `$5` to `$6` are the whole hours in it.
/// `which` narrows rows and hourly totals alike.
macro_rules! cut {
    ($table:literal, $book:literal, $columns:literal, $row_columns:literal, $row_which:literal, $which:literal) => {
        concat!(
            "SELECT ",
            $columns,
            ", CAST(SUM(ns >> 32) AS BIGINT), CAST(SUM(ns & 4294967295) AS BIGINT) FROM (",
            "SELECT ",
            $row_columns,
            ", ",
            "CASE WHEN e.ended_at IS NULL THEN $4 WHEN e.ended_at > $3 THEN $3 ELSE e.ended_at END ",
            "- CASE WHEN e.started_at > $2 THEN e.started_at ELSE $2 END AS ns ",
            // (reach, how long before the window it may have begun)
            "FROM (VALUES (0, 9223372036854775807), (3600000000000, 3600000000000), ",
            "(28800000000000, 28800000000000), (230400000000000, 230400000000000), ",
            "(1843200000000000, 1843200000000000), (14745600000000000, 14745600000000000), ",
            "(117964800000000000, 117964800000000000), (9223372036854775807, 9223372036854775807)) AS r ",
            "CROSS JOIN ",
            $table,
            " AS e ",
            "WHERE e.reach = r.column1 AND e.started_at < $3 AND e.started_at >= $2 - r.column2 ",
            $row_which,
            " UNION ALL SELECT ",
            $columns,
            ", active_ns FROM hour_total WHERE book = ",
            $book,
            " AND hour >= $5 AND hour < $6 ",
            $which,
            ") AS cut WHERE ns > 0 GROUP BY ",
            $columns,
            " ORDER BY ",
            $columns
        )
    };
}

const ORG_CELL: &str = cut!(
    "scale_event",
    "0",
    "memory_mib, cpu_millis",
    "e.memory_mib, e.cpu_millis",
    "AND e.org = $1",
    "AND org = $1"
);
const ORG_EDGE: &str = cut!(
    "usage_sample",
    "1",
    "memory_mib, cpu_millis",
    "e.memory_mib, e.cpu_millis",
    "AND e.org = $1",
    "AND org = $1"
);
// `$1` is used, since every parameter must be.
const ALL_CELL: &str = cut!(
    "scale_event",
    "0",
    "org, sandbox, memory_mib",
    "e.org, e.sandbox, e.memory_mib",
    "AND $1 = ''",
    "AND $1 = ''"
);
const ALL_EDGE: &str = cut!(
    "usage_sample",
    "1",
    "org, sandbox, memory_mib",
    "e.org, e.sandbox, e.memory_mib",
    "AND $1 = ''",
    "AND $1 = ''"
);

impl Ledger {
    /// What the cell's book says an org used in `[from, to)`; what is open goes on until `now`.
    ///
    /// # Errors
    /// A ledger that cannot be asked; a window that is not in whole hours where only hourly totals are kept.
    pub async fn usage(&self, org: &str, from: Nanos, to: Nanos, now: Nanos) -> Result<Usage, LedgerError> {
        self.usage_by(Book::Cell, org, from, to, now).await
    }

    /// What either book says an org used in `[from, to)`.
    ///
    /// # Errors
    /// As for [`Ledger::usage`].
    pub async fn usage_by(
        &self,
        book: Book,
        org: &str,
        from: Nanos,
        to: Nanos,
        now: Nanos,
    ) -> Result<Usage, LedgerError> {
        let sql = match book {
            Book::Cell => ORG_CELL,
            Book::Edge => ORG_EDGE,
        };
        self.bounded(async {
            let mut connection = self.ask().await?;
            let rows = cut(&mut connection, sql, org, Window { from, to, now }).await;
            let total = |row: &AnyRow| Ok(SizeTotal { size: rows::size(row, 0)?, active_ns: sum(row, 2)? });
            let by_size = rows.and_then(|rows| rows.iter().map(total).collect());
            Ok(Usage { by_size: by_size.map_err(|fault: Fault| fault.of(self))? })
        })
        .await
    }

    /// What every sandbox had in `[from, to)` by both books, in order of org and sandbox.
    ///
    /// # Errors
    /// As for [`Ledger::usage`].
    pub async fn totals(&self, from: Nanos, to: Nanos, now: Nanos) -> Result<Vec<SandboxTotal>, LedgerError> {
        self.bounded(async {
            let mut connection = self.ask().await?;
            let window = Window { from, to, now };
            let mut totals = BTreeMap::new();
            for (book, sql) in [(Book::Cell, ALL_CELL), (Book::Edge, ALL_EDGE)] {
                let rows = cut(&mut connection, sql, "", window).await.map_err(|fault| fault.of(self))?;
                for row in rows {
                    add(&mut totals, book, &row).map_err(|fault| fault.of(self))?;
                }
            }
            let total = |((org, sandbox), (cell, edge))| SandboxTotal { org, sandbox, cell, edge };
            Ok(totals.into_iter().map(total).collect())
        })
        .await
    }
}

#[derive(Clone, Copy)]
struct Window {
    from: Nanos,
    to: Nanos,
    now: Nanos,
}

async fn cut(
    connection: &mut AnyConnection,
    sql: &'static str,
    org: &str,
    window: Window,
) -> Result<Vec<AnyRow>, Fault> {
    let Window { from, to, now } = window;
    if from >= to {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(sql)
        .bind(org)
        .bind(signed("from", from.0)?)
        .bind(signed("to", to.0)?)
        .bind(signed("now", now.min(to).0)?)
        .bind(signed("from", from.0.div_ceil(HOUR.0))?)
        .bind(signed("to", to.0 / HOUR.0)?)
        .fetch_all(&mut *connection)
        .await?;
    // Afterwards, for the instant only rises: what it hinders now, it may have hindered then.
    let before: i64 = sqlx::query_scalar("SELECT before FROM pruned").fetch_one(connection).await?;
    let before = unsigned(before)?;
    let cuts_an_hour = |edge: Nanos| edge.0 < before && !edge.0.is_multiple_of(HOUR.0);
    if cuts_an_hour(from) || cuts_an_hour(to) {
        return Err(LedgerCause::Pruned { before, fault: "the window must begin and end on the hour" }.into());
    }
    Ok(rows)
}

/// The high halves in this column, the low ones in the next.
fn sum(row: &AnyRow, column: usize) -> Result<u128, Fault> {
    let (high, low) = (unsigned(row.try_get(column)?)?, unsigned(row.try_get(column + 1)?)?);
    Ok((u128::from(high) << 32).saturating_add(u128::from(low)))
}

type Totals = BTreeMap<(String, String), (MibNanos, MibNanos)>;

fn add(totals: &mut Totals, book: Book, row: &AnyRow) -> Result<(), Fault> {
    let memory = unsigned(row.try_get(2)?)?;
    let (cell, edge) = totals.entry((row.try_get(0)?, row.try_get(1)?)).or_default();
    let total = match book {
        Book::Cell => cell,
        Book::Edge => edge,
    };
    *total = total.saturating_add(MibNanos(times(memory, sum(row, 3)?)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schema_and_statements_have_the_same_classes() {
        let schemas = [
            include_str!("migrations/sqlite/0001_ledger.sql"),
            include_str!("migrations/postgres/0001_ledger.sql"),
        ];
        for reach in REACHES {
            assert!(ORG_CELL.contains(&format!("({reach}, {reach})")), "{reach}");
            for schema in schemas {
                // Once for each book.
                let ends = [format!("THEN {reach}\n"), format!("ELSE {reach}\n")];
                assert_eq!(
                    ends.iter().map(|end| schema.matches(end.as_str()).count()).sum::<usize>(),
                    2,
                    "{reach}"
                );
            }
        }
    }

    #[test]
    fn the_largest_sums_do_not_wrap() {
        let size = Size { memory: super::super::MEMORY_MAX, cpu: super::super::CPU_MAX };
        let total = SizeTotal { size, active_ns: u128::from(u64::MAX) << 30 };
        let usage = Usage { by_size: vec![total] };
        assert_eq!(usage.memory().0, total.active_ns << 32);
        assert_eq!(
            Usage { by_size: vec![SizeTotal { active_ns: u128::MAX, size }; 2] }.memory().0,
            u128::MAX
        );
    }
}
