//! Where hosts connect: vsock, Unix sockets, sockets passed by systemd; and who may.

use super::address::Address;
use super::poller::{Poller, Watched};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, fchmod, lstat, unlink};
use rustix::io::Errno;
use rustix::net::sockopt::{socket_acceptconn, socket_domain};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with,
};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockListener, VsockStream};

/// Connections that wait for the agent; it answers in a tick's time at the very latest.
const BACKLOG: i32 = 16;

/// Why nothing can be listened at.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListenError {
    /// Somebody listens there.
    #[error("{0}: somebody listens there already")]
    InUse(Address),
    /// Something else has that name.
    #[error("{0}: exists and is not a socket")]
    NotASocket(Address),
    /// The system refused.
    #[error("{address}: {source}")]
    System {
        /// Where.
        address: Address,
        /// The system's word.
        source: io::Error,
    },
    /// systemd passed something else.
    #[error("passed descriptor {name:?} {cause}")]
    Passed {
        /// Its name in `LISTEN_FDNAMES`.
        name: String,
        /// What is wrong with it.
        cause: String,
    },
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// A CID.
    Vsock(u32),
    /// Whoever may open the socket's file.
    Unix,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vsock(cid) => write!(f, "CID {cid}"),
            Self::Unix => f.write_str("a Unix socket"),
        }
    }
}

impl Peer {
    /// The host is CID 2; a process in the guest that dials through loopback shows CID 1.
    pub(super) fn may_connect(self, allowed: &[u32]) -> bool {
        match self {
            Self::Vsock(cid) => cid == VMADDR_CID_HOST || allowed.contains(&cid),
            Self::Unix => true,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Vsock,
    Unix,
}

/// A listening socket.
pub(super) struct Listener {
    socket: Watched,
    family: Family,
    name: String,
    /// Removed at the end; systemd's are not ours to remove.
    bound: Option<PathBuf>,
}

impl Listener {
    /// Binds.
    pub(super) fn bind(poller: &mut Poller, address: &Address) -> Result<Self, ListenError> {
        let system = |source| ListenError::System { address: address.clone(), source };
        let (socket, family, bound) = match address {
            Address::Vsock { port } => {
                let socket = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, *port).map_err(system)?;
                (socket.into(), Family::Vsock, None)
            }
            Address::Unix(path) => (bind_unix(address, path)?, Family::Unix, Some(path.clone())),
        };
        Self::watch(poller, socket, family, address.to_string(), bound).map_err(system)
    }

    /// Takes a socket that systemd opened.
    pub(super) fn passed(poller: &mut Poller, name: String, socket: OwnedFd) -> Result<Self, ListenError> {
        let refuse = |cause: String| ListenError::Passed { name: name.clone(), cause };
        match socket_acceptconn(&socket) {
            Ok(true) => {}
            Ok(false) => return Err(refuse("does not listen (Accept=yes is not supported)".to_owned())),
            Err(error) => return Err(refuse(format!("is not a socket: {error}"))),
        }
        let family = match socket_domain(&socket) {
            Ok(AddressFamily::VSOCK) => Family::Vsock,
            Ok(AddressFamily::UNIX) => Family::Unix,
            Ok(_) => return Err(refuse("is neither a vsock nor a Unix socket".to_owned())),
            Err(error) => return Err(refuse(format!("has no known domain: {error}"))),
        };
        Self::watch(poller, socket, family, format!("socket {name:?} from systemd"), None)
            .map_err(|error| refuse(format!("cannot be waited for: {error}")))
    }

    fn watch(
        poller: &mut Poller,
        socket: OwnedFd,
        family: Family,
        name: String,
        bound: Option<PathBuf>,
    ) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self { socket: poller.watch(socket)?, family, name, bound })
    }

    /// Where it listens, for a person.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether somebody connects who was not taken yet.
    pub(super) fn is_called(&self) -> bool {
        self.socket.is_readable()
    }

    /// The next connection that waits.
    pub(super) fn accept(&self) -> io::Result<Option<(OwnedFd, Peer)>> {
        if !self.socket.is_readable() {
            return Ok(None);
        }
        let stream = match self.accept_stream() {
            Ok(stream) => stream,
            Err(Errno::AGAIN) => {
                self.socket.nothing_to_read();
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        match self.family {
            Family::Unix => Ok(Some((stream, Peer::Unix))),
            Family::Vsock => {
                let stream = VsockStream::from(stream);
                let peer = Peer::Vsock(stream.peer_addr()?.cid());
                Ok(Some((stream.into(), peer)))
            }
        }
    }

    fn accept_stream(&self) -> Result<OwnedFd, Errno> {
        let socket = self.socket.descriptor();
        // An accept that finds nobody there sleeps on vsock to the kernel's next tick, whatever it was told.
        if self.family == Family::Vsock && !is_readable(socket)? {
            return Err(Errno::AGAIN);
        }
        accept_with(socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(path) = &self.bound {
            // The next start removes it otherwise.
            let _ = unlink(path);
        }
    }
}

/// Only the agent's own user may connect: the mode is set before the name exists.
fn bind_unix(address: &Address, path: &Path) -> Result<OwnedFd, ListenError> {
    let system = |source: Errno| ListenError::System { address: address.clone(), source: source.into() };
    let name = SocketAddrUnix::new(path).map_err(system)?;
    let socket = unix_socket().map_err(system)?;
    fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(system)?;
    match bind(&socket, &name) {
        Ok(()) => {}
        Err(Errno::ADDRINUSE) => {
            remove_stale(address, path, &name)?;
            bind(&socket, &name).map_err(system)?;
        }
        Err(error) => return Err(system(error)),
    }
    listen(&socket, BACKLOG).map_err(system)?;
    Ok(socket)
}

/// A stream that blocks nowhere.
pub(super) fn unix_socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Removes the socket of an agent that was killed; never one that is listened at, nor anything else.
fn remove_stale(address: &Address, path: &Path, name: &SocketAddrUnix) -> Result<(), ListenError> {
    let system = |source: Errno| ListenError::System { address: address.clone(), source: source.into() };
    let stat = lstat(path).map_err(system)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(ListenError::NotASocket(address.clone()));
    }
    match connect(unix_socket().map_err(system)?, name) {
        Err(Errno::CONNREFUSED) => unlink(path).map_err(system),
        Ok(()) | Err(Errno::AGAIN) => Err(ListenError::InUse(address.clone())),
        Err(error) => Err(system(error)),
    }
}

fn is_readable(socket: &OwnedFd) -> Result<bool, Errno> {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    Ok(poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&at_once))? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Nanos;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_host_may_connect_and_loopback_may_not() {
        assert!(Peer::Vsock(2).may_connect(&[]));
        assert!(!Peer::Vsock(1).may_connect(&[]));
        assert!(!Peer::Vsock(42).may_connect(&[1]));
        assert!(Peer::Vsock(1).may_connect(&[42, 1]));
        assert!(Peer::Unix.may_connect(&[]));
    }

    #[test]
    fn a_unix_socket_is_private_goes_with_its_listener_and_a_stale_one_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        let address = Address::Unix(path.clone());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a dropped standard listener leaves its file: stale");
        let mut poller = Poller::new().unwrap();
        let listener = Listener::bind(&mut poller, &address).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(Listener::bind(&mut poller, &address), Err(ListenError::InUse(_))));
        // The other attempt has connected, to see whether somebody listens.
        poller.sleep(Nanos::ZERO).unwrap();
        assert!(listener.is_called());
        assert!(matches!(listener.accept(), Ok(Some((_, Peer::Unix)))));
        assert!(listener.accept().unwrap().is_none());
        assert!(!listener.is_called());
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_in_the_way_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("precious");
        std::fs::write(&path, "data").unwrap();
        let refused = Listener::bind(&mut Poller::new().unwrap(), &Address::Unix(path.clone()));
        assert!(matches!(refused, Err(ListenError::NotASocket(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"data");
    }

    #[test]
    fn what_systemd_passes_must_be_a_listening_socket() {
        let folder = tempfile::tempdir().unwrap();
        let mut poller = Poller::new().unwrap();
        let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for (socket, cause) in [
            (file, "is not a socket"),
            (OwnedFd::from(one), "does not listen"),
            (OwnedFd::from(tcp), "neither a vsock nor a Unix socket"),
        ] {
            let error = Listener::passed(&mut poller, "x".to_owned(), socket).err().unwrap().to_string();
            assert!(error.contains(cause), "{error}");
        }
        let unix = std::os::unix::net::UnixListener::bind(folder.path().join("s")).unwrap();
        Listener::passed(&mut poller, "x".to_owned(), OwnedFd::from(unix)).unwrap();
    }
}
