//! What a host without a ledger keeps of one sandbox, so that a script's calls around a pause add up: the epoch of the last
//! call and how far the counters were known. What `guestmeter resume` and `checkpoint` do with `--state`.
//!
//! An epoch is on disk before it is sent, and a mark before it is acknowledged: a call that was killed, or whose answer was
//! lost, is made again. The file is replaced by a whole new one at each change and locked while it is open.
//!
//! # The file
//! A JSON document of the schema [`STATE_SCHEMA`]: the last epoch with the event that it was minted for, the events before it,
//! and how far the counters of each boot were known, in the shapes of `read --json`; what may pass 2^53 is a decimal string.
//! Anything else is named ([`StateCause`]), and the file left as it is.
//!
//! ```json
//! {
//!   "schema": "guestmeter.state/1",
//!   "sandbox": "sb-7",
//!   "epoch": {"id": "0f1e2d3c4b5a69788796a5b4c3d2e1f0", "number": "1780936920000000000", "event": "e41", "answered": true},
//!   "followed_events": ["e40"],
//!   "marks": [{
//!     "boot_id": "c17643ce-0269-486e-b779-e3ef0c36cf86",
//!     "usage": {
//!       "active": {"seconds": 3900, "carry_ns": 999999999},
//!       "memory": {"mib_seconds": 2496000, "carry_byte_ns": "1048575999999999"},
//!       "cpu": {"millicpu_seconds": 5850000, "carry_millicpu_ns": "7"}
//!     }
//!   }]
//! }
//! ```
//!
//! # Example
//! ```no_run
//! use guestmeter::host::Client;
//! use guestmeter::host::state_file::{Call, StateFile};
//! use guestmeter::wire::message::Ack;
//! use std::{path::Path, time::Duration};
//!
//! # async fn hook() -> Result<(), Box<dyn std::error::Error>> {
//! let patience = Duration::from_secs(15);
//! let client = Client::new("vsock://42".parse()?, Duration::from_secs(5)).patient(patience);
//! let mut file = StateFile::open(Path::new("/var/lib/vm/sb-7.json"), "sb-7", patience).await?;
//! let mut last = file.checkpoint(&client, None).await?;
//! let identity = &last.reading.report.identity;
//! last.conversation.ack(Ack { epoch: identity.epoch.id, seq: identity.seq }).await?;
//! last.conversation.close().await?;
//! // Pause the VM, save it, let it run on; then:
//! let named = file.resume(&client, &Call { paused: true, ..Call::default() }).await?;
//! named.conversation.close().await?;
//! # Ok(())
//! # }
//! ```

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
