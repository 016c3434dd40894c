//! The socket that guests come in by.

use super::gate::Gate;
use super::{Incoming, Place};
use crate::host::target::Target;
use crate::host::transport::Stream;
use crate::host::vsock::VsockListener;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, chmod, chownat, fchmod, fstat, lstat, openat, unlink,
};
use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};
use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

/// Connections that wait to be taken.
const BACKLOG: i32 = 64;
/// After a failure that more descriptors or memory would mend.
const RETRY: Duration = Duration::from_millis(100);

/// For the lock of a directory: a second in all.
const LOCK_ATTEMPTS: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Why nothing can be listened at.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody listens there.
    #[error("{}: somebody listens there already", .0.display())]
    InUse(PathBuf),
    /// Something else has that name.
    #[error("{}: exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// The system refused the path.
    #[error("{}: {error}", .path.display())]
    Path {
        /// Where.
        path: PathBuf,
        /// What it says.
        error: io::Error,
    },
    /// The system refused the port.
    #[error("vsock port {port}: {error}")]
    Vsock {
        /// The port.
        port: u32,
        /// What it says.
        error: io::Error,
    },
}

/// Whose a Unix socket is, and who may connect to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Its owner's number; this process's where it is not said.
    pub uid: Option<u32>,
    /// Its group's.
    pub gid: Option<u32>,
    /// Its permission bits; to connect takes the one to write.
    pub mode: u32,
}

impl Default for Access {
    fn default() -> Self {
        Self { uid: None, gid: None, mode: 0o600 }
    }
}

/// A socket that guests connect to. A Unix socket's file is removed with it.
pub struct Listener {
    socket: Bound,
    place: Place,
    gate: Gate,
}

enum Bound {
    Unix { listener: UnixListener, agent: Target, _name: Name },
    Vsock(VsockListener),
}

impl Listener {
    /// Binds for this process's own user alone: see [`Listener::bind_for`].
    ///
    /// # Errors
    /// Somebody listens there, or the system refuses.
    pub fn bind(place: Place) -> Result<Self, ListenError> {
        Self::bind_for(place, Access::default())
    }

    /// Binds; must be called inside a tokio runtime. A Unix socket may be connected to by whom `access` says: its VMM has to
    /// be among them, or root. One that is left over is replaced, unless somebody listens at it.
    ///
    /// # Errors
    /// Somebody listens there, or the system refuses.
    pub fn bind_for(place: Place, access: Access) -> Result<Self, ListenError> {
        let socket = match &place {
            Place::Hybrid { path, agent } => {
                let (listener, name) = bind_unix(path, access)?;
                Bound::Unix { listener, agent: agent.clone(), _name: name }
            }
            Place::Vsock { port } => {
                let bound = VsockListener::bind(*port, BACKLOG);
                Bound::Vsock(bound.map_err(|error| ListenError::Vsock { port: *port, error })?)
            }
        };
        Ok(Self { socket, place, gate: Gate::default() })
    }

    /// The next connection that may come in. Others are closed: of a guest that has its share of connections, or of
    /// none.
    ///
    /// # Errors
    /// The socket is of no more use.
    pub async fn accept(&mut self) -> Result<Incoming, ListenError> {
        loop {
            let (stream, guest) = match self.connection().await {
                Ok(connection) => connection,
                Err(error) if passes(&error) => {
                    sleep(RETRY).await;
                    continue;
                }
                Err(error) => return Err(self.fail(error)),
            };
            let pass =
                guest.and_then(|guest| self.gate.enter(&guest, Instant::now()).map(|pass| (guest, pass)));
            if let Some((guest, pass)) = pass {
                return Ok(Incoming::new(guest, stream, pass));
            }
            drop(stream);
            // However many knock, those inside are served.
            yield_now().await;
        }
    }

    async fn connection(&self) -> io::Result<(Box<dyn Stream>, Option<Target>)> {
        match &self.socket {
            Bound::Vsock(listener) => {
                let (stream, cid) = listener.accept().await?;
                Ok((Box::new(stream), Target::guest(cid)))
            }
            Bound::Unix { listener, agent, .. } => {
                let (stream, _) = listener.accept().await?;
                Ok((Box::new(stream), Some(agent.clone())))
            }
        }
    }

    fn fail(&self, error: io::Error) -> ListenError {
        match &self.place {
            Place::Hybrid { path, .. } => ListenError::Path { path: path.clone(), error },
            Place::Vsock { port } => ListenError::Vsock { port: *port, error },
        }
    }
}

/// Whether the next connection may fare better.
fn passes(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(
        errno,
        Some(Errno::CONNABORTED | Errno::INTR | Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
    )
}

/// The file of a socket that is ours; removed if it still is.
struct Name {
    path: PathBuf,
    file: (u64, u64),
}

impl Drop for Name {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.file) {
            // What is left over, the next one to listen replaces.
            let _ = unlink(&self.path);
        }
    }
}

/// Device and inode.
fn identity(path: &Path) -> Result<(u64, u64), Errno> {
    lstat(path).map(|stat| (stat.st_dev, stat.st_ino))
}

fn bind_unix(path: &Path, access: Access) -> Result<(UnixListener, Name), ListenError> {
    let fail = |error: io::Error| ListenError::Path { path: path.to_owned(), error };
    let address = SockAddr::unix(path).map_err(fail)?;
    // Two that find the same socket left over must not remove each other's new one.
    let _lock = lock_folder(path).map_err(fail)?;
    let socket = unix_socket().map_err(fail)?;
    // Before it has a name, so that nobody else can be quicker.
    fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(|error| fail(error.into()))?;
    match socket.bind(&address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_stale(path, &address)?;
            socket.bind(&address).map_err(fail)?;
        }
        other => other.map_err(fail)?,
    }
    if access != Access::default() {
        give_away(path, access).map_err(|error| fail(error.into()))?;
    }
    let file = identity(path).map_err(|error| fail(error.into()))?;
    let name = Name { path: path.to_owned(), file };
    socket.listen(BACKLOG).map_err(fail)?;
    let listener = UnixListener::from_std(socket.into()).map_err(fail)?;
    Ok((listener, name))
}

/// Never anything but a socket, whatever has been put in its place.
fn give_away(path: &Path, access: Access) -> Result<(), Errno> {
    let file = openat(CWD, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::Socket {
        return Err(Errno::NOTSOCK);
    }
    let (uid, gid) = (access.uid.map(Uid::from_raw), access.gid.map(Gid::from_raw));
    chownat(&file, "", uid, gid, AtFlags::EMPTY_PATH)?;
    // A descriptor that is only a path cannot be changed by itself before Linux 6.6.
    chmod(format!("/proc/self/fd/{}", file.as_raw_fd()), Mode::from_raw_mode(access.mode & 0o777))
}

/// Held until dropped; others hold it for as long as a bind takes.
fn lock_folder(path: &Path) -> io::Result<File> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = File::open(folder.unwrap_or(Path::new(".")))?;
    for _ in 0..LOCK_ATTEMPTS {
        match folder.try_lock() {
            Ok(()) => return Ok(folder),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "its directory is locked by another process"))
}

fn unix_socket() -> io::Result<Socket> {
    Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)
}

/// Removes a socket that nobody listens at; never anything else.
fn remove_stale(path: &Path, address: &SockAddr) -> Result<(), ListenError> {
    let fail = |error: io::Error| ListenError::Path { path: path.to_owned(), error };
    let stat = lstat(path).map_err(|error| fail(error.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(ListenError::NotASocket(path.to_owned()));
    }
    match unix_socket().and_then(|socket| socket.connect(address)) {
        Ok(()) => Err(ListenError::InUse(path.to_owned())),
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => unlink(path).map_err(|error| fail(error.into())),
            // Its backlog is full: somebody does listen.
            io::ErrorKind::WouldBlock => Err(ListenError::InUse(path.to_owned())),
            _ => Err(fail(error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn place(path: &Path) -> Place {
        Place::Hybrid { path: path.to_owned(), agent: "unix:///nowhere".parse().unwrap() }
    }

    #[tokio::test]
    async fn a_socket_is_private_and_goes_with_its_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v.sock_1020");
        let listener = Listener::bind(place(&path)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_is_whose_and_for_whom_it_is_said_to_be() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v.sock_1020");
        let group = Access { mode: 0o660, ..Access::default() };
        let owned = Access { uid: Some(4321), gid: Some(8765), ..group };
        let root = rustix::process::geteuid().is_root();
        let expected = if root {
            (4321, 8765)
        } else {
            (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
        };
        let listener = Listener::bind_for(place(&path), if root { owned } else { group }).unwrap();
        let file = std::fs::metadata(&path).unwrap();
        assert_eq!((file.permissions().mode() & 0o777, (file.uid(), file.gid())), (0o660, expected));
        drop(listener);
        assert!(!path.exists());
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(give_away(&path, owned), Err(Errno::NOTSOCK));
    }

    #[tokio::test]
    async fn what_is_left_over_is_replaced_and_what_is_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let listener = Listener::bind(place(&path)).unwrap();
        assert!(matches!(Listener::bind(place(&path)), Err(ListenError::InUse(_))));
        // Whoever took its name away keeps it.
        std::fs::remove_file(&path).unwrap();
        let other = Listener::bind(place(&path)).unwrap();
        drop(listener);
        assert!(path.exists());
        drop(other);
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(Listener::bind(place(&path)), Err(ListenError::NotASocket(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn a_place_that_is_none_is_named() {
        let error = Listener::bind(place(Path::new("/nowhere/at/all"))).err().unwrap();
        assert!(error.to_string().starts_with("/nowhere/at/all: No such file"), "{error}");
    }
}
