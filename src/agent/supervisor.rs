//! What systemd is told: ready, alive, what the agent does, stopping; and descriptors to keep.
//!
//! One connected socket is kept, so that a watchdog message costs one system call.

use crate::units::Nanos;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use sd_notify::NotifyState;
use std::fmt::Write as _;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub(super) struct Supervisor {
    socket: Option<UnixDatagram>,
    watchdog: Option<Watchdog>,
    status: String,
    /// Serving, and not told: its queue was full.
    untold: bool,
}

#[derive(Clone, Copy, Debug)]
struct Watchdog {
    /// Half of what systemd waits.
    interval: Nanos,
    last: Nanos,
}

impl Supervisor {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`. Without the first there is nobody to tell.
    pub(super) fn from_env(now: Nanos) -> io::Result<Self> {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(Self::default());
        };
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        // systemd that does not read must not stop the count.
        socket.set_nonblocking(true)?;
        let watchdog = sd_notify::watchdog_enabled()
            .map(|limit| Watchdog { interval: Nanos(Nanos::from(limit).0 / 2), last: now });
        Ok(Self { socket: Some(socket), watchdog, status: String::new(), untold: false })
    }

    /// Whether anybody listens.
    pub(super) fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// When the next watchdog message must be out.
    pub(super) fn deadline(&self) -> Option<Nanos> {
        self.watchdog.map(|watchdog| watchdog.last.saturating_add(watchdog.interval))
    }

    /// Sends the watchdog message if the next wake-up would be too late for it.
    pub(super) fn alive(&mut self, now: Nanos, next_wake: Nanos) {
        if self.deadline().is_none_or(|due| due > now && due >= next_wake) {
            return;
        }
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.last = now;
        }
        self.tell(&[NotifyState::Watchdog]);
    }

    /// Serving.
    pub(super) fn ready(&mut self, status: &str) {
        status.clone_into(&mut self.status);
        self.untold = !self.tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// Serving, where that could not be told: the unit would be taken for one that never starts.
    pub(super) fn ready_again(&mut self) {
        if self.untold {
            self.untold = !self.tell(&[NotifyState::Ready, NotifyState::Status(&self.status)]);
        }
    }

    /// What `systemctl status` shows; sent when it changes.
    pub(super) fn status(&mut self, status: &str) {
        if self.socket.is_some() && self.status != status {
            status.clone_into(&mut self.status);
            self.tell(&[NotifyState::Status(status)]);
        }
    }

    /// On the way out.
    pub(super) fn stopping(&self) {
        self.tell(&[NotifyState::Stopping]);
    }

    /// Says whether it was told; where there is nobody to tell, too.
    fn tell(&self, states: &[NotifyState<'_>]) -> bool {
        let Some(socket) = &self.socket else { return true };
        let told = socket.send(message(states).as_bytes());
        if let Err(error) = &told {
            log::warn!("the service manager cannot be told {states:?}: {error}");
        }
        told.is_ok()
    }

    /// Gives a descriptor to the store under `name`, in place of those that bear it already.
    pub(super) fn store(&self, name: &str, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        let Some(socket) = &self.socket else { return Err(io::ErrorKind::NotConnected.into()) };
        socket.set_nonblocking(false)?;
        socket.send(format!("FDSTOREREMOVE=1\nFDNAME={name}\n").as_bytes())?;
        // By itself systemd drops what hangs up at once, as VMClock does where changes are not announced.
        let text = format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}\n");
        let descriptors = [descriptor];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        sendmsg(socket, &[IoSlice::new(text.as_bytes())], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

fn message(states: &[NotifyState<'_>]) -> String {
    let mut message = String::new();
    for state in states {
        // Writing to a `String` does not fail.
        let _ = writeln!(message, "{state}");
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_it_serves_is_told_once_there_is_room() {
        let (ours, systemd) = UnixDatagram::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        systemd.set_nonblocking(true).unwrap();
        while ours.send(b"x").is_ok() {}
        let mut supervisor = Supervisor { socket: Some(ours), ..Supervisor::default() };
        supervisor.ready("fine");
        supervisor.ready_again();
        let mut buffer = [0; 64];
        while let Ok(1) = systemd.recv(&mut buffer) {}
        assert!(systemd.recv(&mut buffer).is_err(), "it was told through a full queue");
        supervisor.ready_again();
        let length = systemd.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1\nSTATUS=fine\n");
        supervisor.ready_again();
        assert!(systemd.recv(&mut buffer).is_err(), "told once");
    }
}
