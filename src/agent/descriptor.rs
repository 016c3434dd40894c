//! Two things that Rust cannot check of a descriptor, each with its reason.
#![allow(unsafe_code, reason = "taking a descriptor by number, and watching one, have no safe interface")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches a descriptor for readiness. Must be called inside the runtime.
pub(super) fn watch(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open and is the same descriptor until it is dropped; `AsyncFd` owns it from here on, and
    // nothing in the agent exchanges it through `get_mut`.
    unsafe { Ok(AsyncFd::register_with_interest(descriptor, interest)?) }
}

/// Takes over all descriptors that systemd passed, with their names. To be called once, before anything else opens a
/// descriptor.
pub(super) fn passed() -> io::Result<Vec<(String, OwnedFd)>> {
    let numbers = sd_notify::listen_fds_with_names()?;
    // SAFETY: `listen_fds_with_names` checked that each number is open, systemd made them for this process (LISTEN_PID),
    // and the agent's start is their only taker.
    Ok(numbers.map(|(number, name)| (name, unsafe { OwnedFd::from_raw_fd(number) })).collect())
}
