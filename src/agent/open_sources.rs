//! `open-sources`, for `ExecStartPre=+`: opens what needs privilege and leaves it in systemd's descriptor store.
//!
//! systemd before 253 has no `OpenFile=`. The store outlives the agent, so a restart needs no privilege either.

use super::cli::Options;
use super::clock;
use super::once::kernel_options;
use super::passed::SOURCE_PREFIX;
use super::signals::vmclock;
use super::supervisor::Supervisor;
use crate::kernel::{KernelError, Sources};
use rustix::io::Errno;
use std::io;
use std::os::fd::AsFd;

/// Why nothing was stored.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// Not started by systemd.
    #[error(
        "open-sources: NOTIFY_SOCKET is not set; it belongs into ExecStartPre=+ of a unit with NotifyAccess=all"
    )]
    NoSupervisor,
    /// The socket cannot be used.
    #[error("open-sources: NOTIFY_SOCKET: {0}")]
    Supervisor(io::Error),
    /// One source was not taken.
    #[error("open-sources: {name} cannot be stored: {source}")]
    Store {
        /// Which.
        name: String,
        /// The system's word.
        source: io::Error,
    },
}

/// Stores every privileged source that can be opened; the others are named in the log and do without.
pub(super) fn store(options: &Options) -> Result<(), StoreError> {
    super::log::start();
    let supervisor = Supervisor::from_env(clock::now().monotonic).map_err(StoreError::Supervisor)?;
    if !supervisor.is_there() {
        return Err(StoreError::NoSupervisor);
    }
    let vmclock = (vmclock::NAME.to_owned(), vmclock::open(&options.dev_root));
    for (name, opened) in Sources::privileged(&kernel_options(options)).into_iter().chain([vmclock]) {
        match opened {
            Ok(descriptor) => supervisor
                .store(&format!("{SOURCE_PREFIX}{name}"), descriptor.as_fd())
                .map_err(|source| StoreError::Store { name, source })?,
            // Most VMs have no VMClock.
            Err(KernelError::Open { cause: Errno::NOENT, .. }) if name == vmclock::NAME => {}
            Err(error) => log::warn!("{name} is not stored: {error}"),
        }
    }
    Ok(())
}
