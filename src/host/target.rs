//! Where an agent is reached: `vsock://CID:PORT`, `hvsock://PATH:PORT`, `unix://PATH`. Decides by the text alone.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The port an agent listens at where none is stated.
pub const PORT_DEFAULT: u32 = 1020;
/// `sun_path` of `sockaddr_un` has 108 bytes, its NUL included.
const UNIX_PATH_BYTES_MAX: usize = 107;

/// `VMADDR_CID_HYPERVISOR` of `linux/vm_sockets.h`.
const CID_HYPERVISOR: u32 = 0;
/// `VMADDR_CID_HOST`.
const CID_HOST: u32 = 2;
/// `VMADDR_CID_ANY`, and `VMADDR_PORT_ANY` likewise.
const ANY: u32 = u32::MAX;

/// The address of one agent.
///
/// ```
/// use guestmeter::host::Target;
///
/// let target: Target = "vsock://42".parse()?;
/// assert_eq!(target, Target::Vsock { cid: 42, port: 1020 });
/// assert_eq!(target.to_string(), "vsock://42:1020");
/// # Ok::<(), guestmeter::host::TargetError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// `vsock://CID:PORT`: a VM of the kernel's vhost-vsock.
    Vsock {
        /// The VM's context id, from 3 (1 is this machine itself, where loopback is on).
        cid: u32,
        /// The port in the guest.
        port: u32,
    },
    /// `hvsock://PATH:PORT`: a VM whose VMM bridges vsock to a Unix socket (Firecracker, Cloud Hypervisor,
    /// vhost-device-vsock).
    Hybrid {
        /// The VMM's socket.
        path: PathBuf,
        /// The port in the guest.
        port: u32,
    },
    /// `unix://PATH`: an agent on this machine, without a VM.
    Unix(PathBuf),
}

/// Why a text is no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("target {text:?}: {fault}")]
pub struct TargetError {
    text: String,
    fault: TargetFault,
}

impl TargetError {
    /// What is wrong, for whoever shows the text already.
    #[must_use]
    pub fn fault(&self) -> &TargetFault {
        &self.fault
    }
}

/// What is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetFault {
    /// None of the three schemes.
    #[error("it begins with none of vsock://, hvsock://, unix://")]
    Scheme,
    /// Not a context id.
    #[error("CID {0:?} is not a number from 1 to 4294967294")]
    Cid(String),
    /// A context id that no guest can have.
    #[error("CID {0} is {1}, never a guest")]
    NotAGuest(u32, &'static str),
    /// Where a listener is bound.
    #[error("any CID is for listening; a guest has one of its own")]
    Any,
    /// Not a port.
    #[error("port {0:?} is not a number from 1 to 4294967294")]
    Port(String),
    /// Nothing behind the scheme.
    #[error("the path is empty")]
    NoPath,
    /// A relative path would depend on where the command is run, and is mostly a missing slash.
    #[error("the path is not absolute; write {0}:///…")]
    Relative(&'static str),
    /// The system's limit.
    #[error("the path has {0} bytes; a Unix socket's has at most {UNIX_PATH_BYTES_MAX}")]
    Long(usize),
    /// A NUL byte cannot stand in a path.
    #[error("the path has a NUL byte in it")]
    Nul,
}

impl Target {
    /// The agent of the guest that has this CID, at the port where an agent listens; `None` for a CID that is no
    /// guest's.
    #[must_use]
    pub fn guest(cid: u32) -> Option<Self> {
        let port = PORT_DEFAULT;
        (!matches!(cid, CID_HYPERVISOR | CID_HOST | ANY)).then_some(Self::Vsock { cid, port })
    }

    /// The port in the guest; a plain Unix socket has none.
    #[must_use]
    pub fn port(&self) -> Option<u32> {
        match self {
            Self::Vsock { port, .. } | Self::Hybrid { port, .. } => Some(*port),
            Self::Unix(_) => None,
        }
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        parse(text).map_err(|fault| TargetError { text: text.to_owned(), fault })
    }
}

fn parse(text: &str) -> Result<Target, TargetFault> {
    if let Some(rest) = text.strip_prefix("vsock://") {
        return vsock(rest);
    }
    if let Some(rest) = text.strip_prefix("hvsock://") {
        return hybrid(rest);
    }
    let path = text.strip_prefix("unix://").ok_or(TargetFault::Scheme)?;
    socket_path(path, "unix").map(Target::Unix)
}

fn vsock(rest: &str) -> Result<Target, TargetFault> {
    let (cid, port) = match rest.split_once(':') {
        Some((cid, digits)) => (cid, port(digits)?),
        None => (rest, PORT_DEFAULT),
    };
    if cid == "any" {
        return Err(TargetFault::Any);
    }
    match number(cid).ok_or_else(|| TargetFault::Cid(cid.to_owned()))? {
        CID_HYPERVISOR => Err(TargetFault::NotAGuest(CID_HYPERVISOR, "the hypervisor")),
        CID_HOST => Err(TargetFault::NotAGuest(CID_HOST, "the host")),
        ANY => Err(TargetFault::Any),
        cid => Ok(Target::Vsock { cid, port }),
    }
}

/// A colon may stand in a path: only digits behind the last one are a port.
fn hybrid(rest: &str) -> Result<Target, TargetFault> {
    let (path, port) = match rest.rsplit_once(':') {
        Some((path, digits)) if !digits.contains('/') => (path, port(digits)?),
        _ => (rest, PORT_DEFAULT),
    };
    Ok(Target::Hybrid { path: socket_path(path, "hvsock")?, port })
}

fn port(digits: &str) -> Result<u32, TargetFault> {
    match number(digits) {
        Some(port) if port != 0 && port != ANY => Ok(port),
        _ => Err(TargetFault::Port(digits.to_owned())),
    }
}

/// Digits alone: `str::parse` would take a sign.
fn number(digits: &str) -> Option<u32> {
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

pub(super) fn socket_path(path: &str, scheme: &'static str) -> Result<PathBuf, TargetFault> {
    match path.len() {
        0 => Err(TargetFault::NoPath),
        _ if path.contains('\0') => Err(TargetFault::Nul),
        _ if !Path::new(path).is_absolute() => Err(TargetFault::Relative(scheme)),
        length if length > UNIX_PATH_BYTES_MAX => Err(TargetFault::Long(length)),
        _ => Ok(PathBuf::from(path)),
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vsock { cid, port } => write!(f, "vsock://{cid}:{port}"),
            Self::Hybrid { path, port } => write!(f, "hvsock://{}:{port}", path.display()),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> TargetFault {
        text.parse::<Target>().expect_err(text).fault
    }

    #[test]
    fn each_spelling_is_read_and_written_back() {
        for (text, written) in [
            ("vsock://3", "vsock://3:1020"),
            ("vsock://4294967294:1", "vsock://4294967294:1"),
            ("vsock://1:1020", "vsock://1:1020"),
            ("hvsock:///run/fc.sock", "hvsock:///run/fc.sock:1020"),
            ("hvsock:///run/fc.sock:52", "hvsock:///run/fc.sock:52"),
            ("hvsock:///run/a:b/v.sock", "hvsock:///run/a:b/v.sock:1020"),
            ("unix:///run/a:1", "unix:///run/a:1"),
        ] {
            let target: Target = text.parse().expect(text);
            assert_eq!(target.to_string(), written);
            assert_eq!(written.parse::<Target>().expect(written), target);
        }
    }

    #[test]
    fn what_is_no_guest_is_refused_by_name() {
        assert_eq!(fault("vsock://2"), TargetFault::NotAGuest(2, "the host"));
        assert_eq!(fault("vsock://0:1020"), TargetFault::NotAGuest(0, "the hypervisor"));
        assert_eq!(fault("vsock://any"), TargetFault::Any);
        assert_eq!(fault("vsock://4294967295:1020"), TargetFault::Any);
    }

    #[test]
    fn a_cid_that_dials_is_a_guest_to_dial_back_or_none() {
        assert_eq!(Target::guest(42), Some(Target::Vsock { cid: 42, port: 1020 }));
        assert_eq!(Target::guest(1), Some(Target::Vsock { cid: 1, port: 1020 }), "loopback");
        assert_eq!([0, 2, u32::MAX].map(Target::guest), [None, None, None]);
    }

    #[test]
    fn each_fault_is_told() {
        assert_eq!(fault("http://localhost"), TargetFault::Scheme);
        assert_eq!(fault(""), TargetFault::Scheme);
        assert_eq!(fault("vsock://"), TargetFault::Cid(String::new()));
        assert_eq!(fault("vsock://+3"), TargetFault::Cid("+3".into()));
        assert_eq!(fault("vsock://4294967296"), TargetFault::Cid("4294967296".into()));
        assert_eq!(fault("vsock://3:0"), TargetFault::Port("0".into()));
        assert_eq!(fault("vsock://3:"), TargetFault::Port(String::new()));
        assert_eq!(fault("hvsock:///run/v.sock:x"), TargetFault::Port("x".into()));
        assert_eq!(fault("hvsock://"), TargetFault::NoPath);
        assert_eq!(fault("unix://run/agent.sock"), TargetFault::Relative("unix"));
        assert_eq!(fault(&format!("unix:///{}", "x".repeat(107))), TargetFault::Long(108));
        assert_eq!(fault("unix:///a\0b"), TargetFault::Nul);
    }
}
