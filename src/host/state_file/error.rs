//! Why a state file cannot be used.

use super::record::STATE_SCHEMA;
use crate::host::json_lines::ByteOrderMark;
use crate::host::mark::MarkError;
use crate::host::text::Safe;
use std::io;
use std::path::PathBuf;

/// A state file that cannot be used: which, and why. It is left as it is.
#[derive(Debug, thiserror::Error)]
#[error("{}: {cause}", .path.display())]
pub struct StateFileError {
    /// The file.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub cause: StateCause,
}

/// Why a state file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateCause {
    /// The system does not open it.
    #[error("the state file cannot be opened: {0}")]
    Open(io::Error),
    /// There is none, and nothing says whose it would be.
    #[error(
        "there is no such state file: name the guest first, with `guestmeter resume --sandbox NAME --state FILE`"
    )]
    Missing,
    /// It would be replaced, and what it points to would not.
    #[error("the state file is a symbolic link, which is not followed")]
    Link,
    /// A directory, a device, a pipe.
    #[error("the state file is not a regular file")]
    NotAFile,
    /// Two commands for one sandbox at once.
    #[error("the state file is in use by another guestmeter")]
    InUse,
    /// Far more than one ever has.
    #[error("it has more than {0} bytes, which no state file has")]
    TooLong(u64),
    /// Saved by an editor that puts its mark before text.
    #[error(transparent)]
    ByteOrderMark(#[from] ByteOrderMark),
    /// Something else.
    #[error("it is no state file: {}", Safe(&.0.to_string()))]
    Json(#[from] serde_json::Error),
    /// Of another shape.
    #[error("its schema is {:?}, not {STATE_SCHEMA:?}", Safe(.0).to_string())]
    Schema(String),
    /// A field that makes no sense.
    #[error("it is no state file: {field} is {:?}", Safe(.text).to_string())]
    Field {
        /// Which.
        field: &'static str,
        /// What it says.
        text: String,
    },
    /// A mark of it makes no sense.
    #[error("it is no state file: a mark: {0}")]
    Mark(#[from] MarkError),
    /// What is known of one sandbox is not another's.
    #[error("it is of sandbox {}, not of {}", Safe(.found), Safe(.wanted))]
    Sandbox {
        /// Whose it should be.
        wanted: String,
        /// Whose it is.
        found: String,
    },
    /// An event that is over.
    #[error("event {} is over: {} came after it", Safe(.event), match .last { Some(last) => format!("event {}", Safe(last)), None => "another call".to_owned() })]
    Followed {
        /// Which.
        event: String,
        /// What came after it.
        last: Option<String>,
    },
    /// No epoch was minted here, and the guest is in one of somebody else's.
    #[error("it has no epoch, but another host has named the guest: epoch {0}")]
    NoEpoch(u64),
    /// Numbers are used up.
    #[error("no epoch number is above {0}")]
    NoNumber(u64),
    /// No random bits for an epoch.
    #[error("no random number from the system: {0}")]
    Random(io::Error),
    /// It cannot be written; nothing was sent that depends on it.
    #[error("the state file cannot be written: {0}")]
    Write(io::Error),
}
