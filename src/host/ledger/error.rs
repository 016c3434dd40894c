//! What can go wrong between the host and its ledger: which database, and why.

use super::location::{Location, LocationError};
use std::time::Duration;

/// A question or a posting that failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LedgerError {
    /// The text names no ledger.
    #[error("--db: {0}")]
    Location(#[from] LocationError),
    /// A ledger that did not do as asked.
    #[error("{location}: {cause}")]
    Failed {
        /// Which ledger.
        location: Location,
        /// Why.
        #[source]
        cause: LedgerCause,
    },
}

/// Why a ledger did not do as asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LedgerCause {
    /// No file, and none is to be made.
    #[error("there is no ledger at this path")]
    Missing,
    /// No connection.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// It did not answer in time; whether it did as asked is not known.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// Another program holds it.
    #[error("locked by another program for longer than {0:?}")]
    Locked(Duration),
    /// No room.
    #[error("its disk is full: {0}")]
    Full(String),
    /// It cannot be written.
    #[error("read-only, or not writable by this user: {0}")]
    ReadOnly(String),
    /// A later guestmeter has been here.
    #[error("its schema is {found}, this guestmeter knows {known}: install a newer one")]
    Newer {
        /// Of the database.
        found: i64,
        /// Of this program.
        known: i64,
    },
    /// A schema that nobody has released.
    #[error("its schema {version} is not what this guestmeter made: {fault}")]
    Schema {
        /// Which one.
        version: i64,
        /// How it differs.
        fault: String,
    },
    /// Not a database, or a broken one.
    #[error("not a ledger, or damaged: {0}")]
    Damaged(String),
    /// A value that no ledger takes.
    #[error("{what}: {fault}")]
    Invalid {
        /// Which value.
        what: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// It says otherwise already.
    #[error("{id}: the ledger has it with other values: {fault}")]
    Conflict {
        /// Of which entry.
        id: String,
        /// What differs.
        fault: &'static str,
    },
    /// It breaks a rule of the database: a second open row, an end before its start.
    #[error("the ledger's rules refuse it: {0}")]
    Refused(String),
    /// Only hourly totals are left of that time.
    #[error("before {before} (Unix ns) only hourly totals are kept: {fault}")]
    Pruned {
        /// The instant.
        before: u64,
        /// What that hinders.
        fault: &'static str,
    },
    /// What the database program says.
    #[error("{0}")]
    Database(String),
}

/// Who can mend it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedgerFault {
    /// It may work the next time.
    TryAgain,
    /// What was handed in is wrong.
    Data,
    /// The database or its place need a person.
    Operator,
}

impl LedgerError {
    /// Who can mend it.
    #[must_use]
    pub fn fault(&self) -> LedgerFault {
        match self {
            Self::Location(_) => LedgerFault::Data,
            Self::Failed { cause, .. } => cause.fault(),
        }
    }
}

impl LedgerCause {
    /// Who can mend it.
    #[must_use]
    pub fn fault(&self) -> LedgerFault {
        match self {
            Self::Unreachable(_) | Self::TimedOut(_) | Self::Locked(_) => LedgerFault::TryAgain,
            Self::Invalid { .. } | Self::Conflict { .. } | Self::Refused(_) | Self::Pruned { .. } => {
                LedgerFault::Data
            }
            _ => LedgerFault::Operator,
        }
    }

    /// Sorts what the driver says; `patience` is how long a lock was waited for.
    pub(super) fn of(error: &sqlx::Error, patience: Duration) -> Self {
        match error {
            sqlx::Error::Database(database) => {
                let code = database.code().unwrap_or_default();
                let said = database.message().to_owned();
                match code.parse::<i32>() {
                    Ok(number) if code.len() < 5 => Self::of_sqlite(number, said, patience),
                    _ => Self::of_postgres(&code, said, patience),
                }
            }
            sqlx::Error::PoolTimedOut => Self::TimedOut(patience),
            sqlx::Error::Io(io) => Self::Unreachable(io.to_string()),
            sqlx::Error::Tls(tls) => Self::Unreachable(tls.to_string()),
            sqlx::Error::Protocol(said) => Self::Unreachable(said.clone()),
            sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => Self::Unreachable(error.to_string()),
            other => Self::Database(other.to_string()),
        }
    }

    /// <https://sqlite.org/rescode.html>: the low byte is the primary code.
    fn of_sqlite(code: i32, said: String, patience: Duration) -> Self {
        match code & 0xff {
            5 | 6 => Self::Locked(patience),
            3 | 8 | 23 => Self::ReadOnly(said),
            13 => Self::Full(said),
            11 | 26 => Self::Damaged(said),
            19 => Self::Refused(said),
            10 | 14 => Self::Unreachable(said),
            _ => Self::Database(said),
        }
    }

    /// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
    fn of_postgres(code: &str, said: String, patience: Duration) -> Self {
        match code {
            "55P03" | "40P01" | "40001" => Self::Locked(patience),
            "57014" => Self::TimedOut(patience),
            "25006" | "42501" => Self::ReadOnly(said),
            "53100" => Self::Full(said),
            "XX001" | "XX002" => Self::Damaged(said),
            _ if code.starts_with("23") => Self::Refused(said),
            _ if ["08", "28", "3D", "53", "57"].iter().any(|class| code.starts_with(class)) => {
                Self::Unreachable(said)
            }
            _ => Self::Database(said),
        }
    }
}
