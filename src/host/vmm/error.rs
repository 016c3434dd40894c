//! What can go wrong between the host and one VMM: which socket, which request, and why.

use super::address::{VmmAddress, VmmKind};
use crate::host::error::Kind;
use crate::host::text::Safe;
use std::future::Future;
use std::io;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// A question that a VMM did not answer.
#[derive(Debug, thiserror::Error)]
#[error("{address}: {request}: {cause}")]
pub struct VmmError {
    /// Whom it was meant for.
    pub address: VmmAddress,
    /// What was under way: `connecting`, a QMP command, an HTTP request.
    pub request: &'static str,
    /// Why it failed.
    #[source]
    pub cause: VmmCause,
}

/// Why a VMM did not answer.
#[derive(Debug, thiserror::Error)]
pub enum VmmCause {
    /// The path does not exist.
    #[error("there is no socket at this path")]
    NoSocket,
    /// A socket without a process behind it.
    #[error("nobody listens at this socket")]
    NobodyAtSocket,
    /// The system refused the connection.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// Connected, and not greeted.
    #[error(
        "no greeting within {0:?}: a QMP socket serves one client at a time, and another one may be connected"
    )]
    NoGreeting(Duration),
    /// Nothing came in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The VMM closed the connection.
    #[error("the connection was closed before the answer was whole")]
    Closed,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    /// What answers is something else.
    #[error("this is not {}: {said}", .expected.name())]
    NotThisVmm {
        /// What it should be.
        expected: VmmKind,
        /// What gives it away.
        said: Said,
    },
    /// The VMM said no.
    #[error("refused ({code}): {}", Safe(.text))]
    Refused {
        /// Its own code: an HTTP status, a QMP error class.
        code: String,
        /// Its own words, cut short.
        text: String,
    },
    /// There is no VM in it yet, or no longer.
    #[error("its VM does not run: {}", Safe(.0))]
    NotRunning(String),
    /// The answer is more than any such answer.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// The answer is not what it should be.
    #[error("an answer that cannot be true or read: {}", Safe(.0))]
    Malformed(String),
    /// Only QEMU tells of changes.
    #[error("{} tells of no changes; it has to be asked", .0.name())]
    NoEvents(VmmKind),
}

/// What gives another program away.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// It calls itself something else.
    Name(String),
    /// Its first line is no greeting of QMP.
    Line(String),
    /// Its answer is no HTTP, for this reason.
    NoHttp(String),
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => write!(f, "it says that it is \"{}\"", Safe(name)),
            Self::Line(line) => write!(f, "its first line is \"{}\"", Safe(line)),
            Self::NoHttp(why) => write!(f, "its answer is no HTTP: {}", Safe(why)),
        }
    }
}

/// The most that is kept of a foreign text.
const TEXT_CHARACTERS_MAX: usize = 300;

/// A foreign text, cut to what a person reads.
pub(super) fn cut(text: &str) -> String {
    match text.char_indices().nth(TEXT_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

impl VmmCause {
    /// Who can mend it.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::NoSocket
            | Self::NobodyAtSocket
            | Self::NoGreeting(_)
            | Self::TimedOut(_)
            | Self::Closed
            | Self::Broken(_)
            | Self::NotRunning(_) => Kind::TryAgain,
            Self::NotThisVmm { .. } | Self::Refused { .. } | Self::TooLong(_) | Self::Malformed(_) => {
                Kind::Peer
            }
            Self::Connect(_) | Self::NoEvents(_) => Kind::Ours,
        }
    }

    /// What a person may do about it, where that is not plain.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoSocket | Self::NobodyAtSocket => {
                Some("is the VM running, and is this its VMM's API socket?")
            }
            Self::NoGreeting(_) => {
                Some("is it a QMP socket, and guestmeter's alone? A second client needs a second -qmp")
            }
            Self::TimedOut(_) => Some("is the VMM stopped, or busy with a snapshot?"),
            Self::NotThisVmm { .. } => Some("does the address begin with the VMM's own scheme?"),
            Self::Connect(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Some("run it as a user who may open the VMM's socket")
            }
            _ => None,
        }
    }
}

/// A failure that does not know yet whose it is.
#[derive(Debug)]
pub struct Failed {
    /// What was under way.
    pub request: &'static str,
    /// Why it failed.
    pub cause: VmmCause,
}

impl Failed {
    pub(super) fn at(self, address: &VmmAddress) -> VmmError {
        VmmError { address: address.clone(), request: self.request, cause: self.cause }
    }
}

/// How long a whole question may still take.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    end: Instant,
    after: Duration,
}

impl Limit {
    /// `after` from now.
    #[must_use]
    pub fn new(after: Duration) -> Self {
        let now = Instant::now();
        // Past the end of the clock there is no limit that anybody would see.
        let end = now.checked_add(after).unwrap_or_else(|| now + Duration::from_hours(24 * 365));
        Self { end, after }
    }

    /// `work` in time, with the name of the request on whatever comes of it.
    pub(super) async fn hold<T>(
        self,
        request: &'static str,
        work: impl Future<Output = Result<T, VmmCause>>,
    ) -> Result<T, Failed> {
        let result = timeout_at(self.end, work).await.unwrap_or(Err(VmmCause::TimedOut(self.after)));
        result.map_err(|cause| Failed { request, cause })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        let long = "ü".repeat(301);
        assert_eq!(cut(&long), format!("{}…", "ü".repeat(300)));
    }

    #[test]
    fn the_socket_the_request_and_the_cause_are_named_and_no_terminal_is_steered() {
        let failed = Failed {
            request: "GET /machine-config",
            cause: VmmCause::Refused { code: "400".to_owned(), text: "no\u{1b}[2J".to_owned() },
        };
        let error = failed.at(&"firecracker:///run/fc.sock".parse().unwrap());
        assert_eq!(
            error.to_string(),
            "firecracker:///run/fc.sock: GET /machine-config: refused (400): no\\u{1b}[2J"
        );
    }

    #[tokio::test]
    async fn a_limit_past_the_end_of_the_clock_is_none() {
        let limit = Limit::new(Duration::MAX);
        assert_eq!(limit.hold("x", async { Ok(7) }).await.unwrap(), 7);
    }
}
