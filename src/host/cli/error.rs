//! Why a command stopped, and the exit code that says so (protocol.md, sysexits.h).

use crate::host::replay::{ReplayCause, ReplayError};
use std::io;

/// Something was found: a short plug, numbers that do not hold.
pub(super) const FOUND: u8 = 1;
/// The command line is wrong.
pub(super) const USAGE: u8 = 2;
/// A file is not what it should be.
const BAD_DATA: u8 = 65;
/// A file cannot be opened.
const NO_INPUT: u8 = 66;
/// A target cannot be reached.
pub(super) const UNREACHABLE: u8 = 69;
/// The system refused something.
const SYSTEM: u8 = 71;
/// Output cannot be written.
const INPUT_OUTPUT: u8 = 74;

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
    /// A trace that is none.
    #[error(transparent)]
    Replay(ReplayError),
    /// A question that ended without an answer: a fault of this program.
    #[error("a task of this program failed: {0}")]
    Task(tokio::task::JoinError),
    /// The demo could not be shown.
    #[cfg(feature = "agent")]
    #[error(transparent)]
    Demo(#[from] super::demo::DemoError),
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

impl CliError {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Output(_) => INPUT_OUTPUT,
            Self::Runtime(_) | Self::Json(_) | Self::Task(_) => SYSTEM,
            #[cfg(feature = "agent")]
            Self::Demo(super::demo::DemoError::Interrupted) => INTERRUPTED,
            #[cfg(feature = "agent")]
            Self::Demo(_) => UNREACHABLE,
            Self::Open { .. } => NO_INPUT,
            Self::Replay(ReplayError { cause: ReplayCause::Read(_), .. }) => INPUT_OUTPUT,
            Self::Replay(_) => BAD_DATA,
        }
    }
}
