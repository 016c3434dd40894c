//! Why a command stopped, and the exit code that says so (protocol.md, sysexits.h).

use crate::host::LineError;
use crate::host::explain::lines::{LinesCause, LinesError};
use crate::host::ledger::{ImportError, LedgerCause, LedgerError, LedgerFault, LocationError};
use crate::host::listen::{ListenError, PlaceError};
use crate::host::mark::MarkError;
use crate::host::replay::{ReplayCause, ReplayError};
use crate::host::state_file::{StateCause, StateFileError};
use crate::host::tiers::TiersError;
use crate::host::worker::{ConfigFault, WorkerError};
use std::io;

/// Something was found: a short plug, numbers that do not hold.
pub(super) const FOUND: u8 = 1;
/// The command line is wrong.
pub(super) const USAGE: u8 = 2;
/// A file is not what it should be, or an epoch is not the guest's.
pub(super) const BAD_DATA: u8 = 65;
/// A file cannot be opened.
const NO_INPUT: u8 = 66;
/// A target cannot be reached.
pub(super) const UNREACHABLE: u8 = 69;
/// The system refused something.
const SYSTEM: u8 = 71;
/// Output cannot be written.
const INPUT_OUTPUT: u8 = 74;

/// Another has it now.
const TRY_AGAIN: u8 = 75;
/// A configuration that cannot be used.
const CONFIG: u8 = 78;

/// SIGINT or SIGTERM, as a shell says it.
#[cfg(feature = "agent")]
const INTERRUPTED: u8 = 130;

/// Why a command stopped before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// Standard output.
    #[error("writing the output: {0}")]
    Output(#[from] io::Error),
    /// No event loop.
    #[error("starting the event loop: {0}")]
    Runtime(io::Error),
    /// A file of the command line.
    #[error("{path}: {error}")]
    Open {
        /// As it stands on the command line.
        path: String,
        /// What the system says.
        error: io::Error,
    },
    /// The worker does not run.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// A trace that is none.
    #[error(transparent)]
    Replay(ReplayError),
    /// A mark that is none.
    #[error("the mark in {path}: {error}")]
    Mark {
        /// As it stands on the command line.
        path: String,
        /// Why not.
        error: MarkError,
    },
    /// A file that is far too long for a mark.
    #[error("the mark in {path}: it has more than {max} bytes")]
    MarkSize {
        /// As it stands on the command line.
        path: String,
        /// How long one may be.
        max: u64,
    },
    /// A path that does not say which VM it is of.
    #[error("{0}; say whom to dial back with --dial")]
    Place(#[from] PlaceError),
    /// One guest to dial back, where all are heard.
    #[error("--dial names one guest, but at vsock all are heard")]
    DialOne,
    /// One VMM, and more targets.
    #[error("--vmm is one VM's, but {0} targets are given")]
    VmmOne(usize),
    /// Nothing can be listened at.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A state file.
    #[error(transparent)]
    State(#[from] StateFileError),
    /// A question that ended without an answer: a fault of this program.
    #[error("a task of this program failed: {0}")]
    Task(tokio::task::JoinError),
    /// The demo could not be shown.
    #[cfg(feature = "agent")]
    #[error(transparent)]
    Demo(#[from] super::demo::DemoError),
    /// A ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A file that is no ledger's.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A file that is no books.
    #[error(transparent)]
    Lines(#[from] LinesError),
    /// A file that is no price table.
    #[error("{path}: {error}")]
    TierFile {
        /// As it stands on the command line.
        path: String,
        /// What is wrong with it.
        error: TiersError,
    },
    /// A sum that is no money.
    #[error("the price: {0}")]
    Price(#[from] TiersError),
    /// A command line that only the command itself can judge.
    #[error("{0}")]
    Usage(String),
    /// No line of output could be made.
    #[error("making the JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl From<ReplayError> for CliError {
    fn from(error: ReplayError) -> Self {
        match error.cause {
            ReplayCause::Write(error) => Self::Output(error),
            _ => Self::Replay(error),
        }
    }
}

impl From<LocationError> for CliError {
    fn from(error: LocationError) -> Self {
        Self::Ledger(error.into())
    }
}

impl CliError {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Output(_) => INPUT_OUTPUT,
            Self::Runtime(_) | Self::Json(_) | Self::Task(_) => SYSTEM,
            #[cfg(feature = "agent")]
            Self::Demo(super::demo::DemoError::Interrupted) => INTERRUPTED,
            #[cfg(feature = "agent")]
            Self::Demo(_) => UNREACHABLE,
            Self::Place(_) | Self::VmmOne(_) | Self::DialOne => USAGE,
            Self::Listen(_) => UNREACHABLE,
            Self::Worker(error) => of_worker(error),
            Self::Open { .. } => NO_INPUT,
            Self::Replay(ReplayError { cause: ReplayCause::Line(LineError::Read(_)), .. }) => INPUT_OUTPUT,
            Self::Replay(_) | Self::Mark { .. } | Self::MarkSize { .. } => BAD_DATA,
            Self::TierFile { .. } | Self::Price(_) => BAD_DATA,
            Self::Lines(LinesError { cause: LinesCause::Text(LineError::Read(_)), .. }) => INPUT_OUTPUT,
            Self::Lines(_) => BAD_DATA,
            Self::Import(ImportError::Read { .. }) => INPUT_OUTPUT,
            Self::Import(ImportError::Line { .. }) => BAD_DATA,
            Self::Import(ImportError::Ledger(error)) | Self::Ledger(error) => of_ledger(error),
            Self::Usage(_) => USAGE,
            Self::State(error) => of_state(&error.cause),
        }
    }
}

fn of_state(cause: &StateCause) -> u8 {
    match cause {
        StateCause::Open(_) | StateCause::Missing => NO_INPUT,
        StateCause::Write(_) => INPUT_OUTPUT,
        StateCause::InUse => TRY_AGAIN,
        StateCause::Random(_) => SYSTEM,
        _ => BAD_DATA,
    }
}

fn of_ledger(error: &LedgerError) -> u8 {
    let cause = match error {
        LedgerError::Location(_) => return USAGE,
        LedgerError::Failed { cause, .. } => cause,
    };
    match (cause, cause.fault()) {
        (LedgerCause::Missing, _) => NO_INPUT,
        (LedgerCause::Full(_) | LedgerCause::ReadOnly(_), _) => INPUT_OUTPUT,
        (LedgerCause::Database(_), _) => SYSTEM,
        // What the command line asked for is what is wrong: an hour that is none, a window that cuts one.
        (LedgerCause::Invalid { .. } | LedgerCause::Pruned { .. }, _) => USAGE,
        (_, LedgerFault::TryAgain) => UNREACHABLE,
        _ => BAD_DATA,
    }
}

fn of_worker(error: &WorkerError) -> u8 {
    match error {
        WorkerError::Config(error) if matches!(error.fault, ConfigFault::Read(_)) => NO_INPUT,
        WorkerError::Config(_) | WorkerError::Filter(_) => CONFIG,
        WorkerError::Ledger(error) => of_ledger(error),
        WorkerError::Directory { .. } => NO_INPUT,
        WorkerError::Serve(_) => UNREACHABLE,
        WorkerError::Signals(_) => SYSTEM,
    }
}
