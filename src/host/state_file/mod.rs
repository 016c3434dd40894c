//! What a host without a ledger keeps of one sandbox, so that a script's calls around a pause add up: the epoch of the last
//! call and how far the counters were known. What `guestmeter resume` and `checkpoint` do with `--state`.
//!
//! An epoch is on disk before it is sent, and a mark before it is acknowledged. The file is a JSON document of the schema
//! [`STATE_SCHEMA`]; it is replaced by a whole new one at each change and locked while it is open.

mod error;
mod file;
mod life;
mod record;
#[cfg(test)]
mod tests;

pub use error::{StateCause, StateFileError};
pub use file::StateFile;
pub(in crate::host) use life::unix_now;
pub use life::{Call, Closed, LifeError, Named};
pub use record::{Minted, Record, STATE_SCHEMA};
