//! Signals that end the agent, taken by a descriptor; and SIGPIPE, which must not.

use super::poller::{Poller, Watched};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::io;

/// Blocks SIGPIPE for this thread: a reader of the log that goes away must not take the count with it.
///
/// # Errors
/// The system refuses what it does not refuse.
pub(super) fn survive_broken_pipes() -> io::Result<()> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGPIPE);
    Ok(mask.thread_block()?)
}

/// SIGTERM and SIGINT.
#[derive(Debug)]
pub(super) struct StopSignals {
    descriptor: Watched,
}

impl StopSignals {
    /// Blocks them, so that they come here and nowhere else. To be called by the one thread.
    pub(super) fn new(poller: &mut Poller) -> io::Result<Self> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGTERM);
        mask.add(Signal::SIGINT);
        mask.thread_block()?;
        let descriptor = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { descriptor: poller.watch(descriptor.into())? })
    }

    /// From the first of them on: it is not taken, for there is no way back.
    pub(super) fn came(&self) -> bool {
        self.descriptor.is_readable()
    }
}
