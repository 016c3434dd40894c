//! What Rust cannot check of a descriptor.
#![allow(unsafe_code, reason = "taking a descriptor by number has no safe interface")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// Takes over all descriptors that systemd passed, with their names. To be called once, before anything else opens a
/// descriptor.
pub(super) fn passed() -> io::Result<Vec<(String, OwnedFd)>> {
    let numbers = sd_notify::listen_fds_with_names()?;
    // SAFETY: `listen_fds_with_names` checked that each number is open, systemd made them for this process (LISTEN_PID),
    // and the agent's start is their only taker.
    Ok(numbers.map(|(number, name)| (name, unsafe { OwnedFd::from_raw_fd(number) })).collect())
}
