//! The state file: two slots, written in turn, so that a write cut short leaves the one before it.
//!
//! It lives under /run: a tmpfs rolls back with the RAM, which keeps it consistent with a snapshot. [`StateFile`] opens
//! and writes it; [`decode`] is its format.

mod file;
mod slot;

pub use file::{StateError, StateFile};
pub use slot::{FILE_BYTES_MAX, FORMAT, Found, SLOT_BYTES, SlotError, Stored, Unusable, decode};
