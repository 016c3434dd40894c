//! The connection that the agent opens itself: to the host, or for tests to a Unix socket. One at a time, never waited for.

use super::address::NotifyAddress;
use super::listener::{Peer, unix_socket};
use super::poller::{Poller, Watched};
use crate::units::Nanos;
use nix::sys::socket::VsockAddr;
use rustix::io::Errno;
use rustix::net::sockopt::socket_error;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, getpeername, socket_with};
use std::os::fd::AsRawFd;
use vsock::VMADDR_CID_HOST;

/// How long a connection may take to open. The kernel gives up after 2 s by itself.
const PATIENCE: Nanos = Nanos::from_secs(3);

/// Who is notified, and the connection that is being opened.
#[derive(Debug)]
pub(super) struct Notifier {
    address: NotifyAddress,
    dialing: Option<Dialing>,
    /// A failure was said, and no success came since.
    complained: bool,
}

#[derive(Debug)]
struct Dialing {
    socket: Watched,
    until: Nanos,
}

/// How an attempt stands.
#[derive(Debug)]
pub(super) enum Dialed {
    /// It goes on.
    Pending,
    /// The connection, and who is at its end.
    Open(Watched, Peer),
    /// It came to nothing.
    Failed,
}

impl Notifier {
    pub(super) fn new(address: NotifyAddress) -> Self {
        Self { address, dialing: None, complained: false }
    }

    /// Begins to open a connection.
    pub(super) fn dial(&mut self, now: Nanos, poller: &mut Poller) {
        match connect(&self.address, poller) {
            Ok(socket) => {
                self.dialing = Some(Dialing { socket, until: now.saturating_add(PATIENCE) });
            }
            Err(error) => self.failed(error),
        }
    }

    /// Begins nothing more, and lets go of what it began.
    pub(super) fn hang_up(&mut self) {
        self.dialing = None;
    }

    /// How the attempt stands at `now`; the end of it is told once.
    pub(super) fn dialed(&mut self, now: Nanos) -> Dialed {
        let Some(dialing) = self.dialing.take() else { return Dialed::Failed };
        match outcome(&dialing) {
            Ok(true) => {
                self.complained = false;
                let peer = match self.address {
                    NotifyAddress::Unix(_) => Peer::Unix,
                    _ => Peer::Vsock(VMADDR_CID_HOST),
                };
                return Dialed::Open(dialing.socket, peer);
            }
            Ok(false) if dialing.until > now => {
                self.dialing = Some(dialing);
                return Dialed::Pending;
            }
            Ok(false) => self.failed(Errno::TIMEDOUT),
            Err(error) => self.failed(error),
        }
        Dialed::Failed
    }

    /// When an attempt that goes on is given up.
    pub(super) fn deadline(&self) -> Option<Nanos> {
        self.dialing.as_ref().map(|dialing| dialing.until)
    }

    /// Said once until it works: a host without a listener is nothing unusual.
    fn failed(&mut self, error: Errno) {
        if !std::mem::replace(&mut self.complained, true) {
            log::warn!("{} cannot be notified ({error}); it is tried again, ever more rarely", self.address);
        }
    }
}

/// Whether it is connected. A vsock that is not says nothing until it rings; then it is one or the other.
fn outcome(dialing: &Dialing) -> Result<bool, Errno> {
    let socket = dialing.socket.descriptor();
    socket_error(socket)??;
    match getpeername(socket) {
        Ok(_) => Ok(true),
        Err(Errno::NOTCONN) if !dialing.socket.is_writable() => Ok(false),
        Err(error) => Err(error),
    }
}

fn connect(address: &NotifyAddress, poller: &mut Poller) -> Result<Watched, Errno> {
    let (socket, begun) = match address {
        NotifyAddress::None => return Err(Errno::DESTADDRREQ),
        NotifyAddress::Unix(path) => {
            let socket = unix_socket()?;
            let begun = rustix::net::connect(&socket, &SocketAddrUnix::new(path.as_path())?);
            (socket, begun)
        }
        NotifyAddress::Host { port } => {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = socket_with(AddressFamily::VSOCK, SocketType::STREAM, flags, None)?;
            let begun =
                nix::sys::socket::connect(socket.as_raw_fd(), &VsockAddr::new(VMADDR_CID_HOST, *port));
            (socket, begun.map_err(|error| Errno::from_raw_os_error(error as i32)))
        }
    };
    match begun {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(error),
    }
    // Only now: a socket that is not connected is ready, to say so.
    let watched = poller.watch(socket).and_then(|mut socket| socket.no_room().map(|()| socket));
    watched.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}
