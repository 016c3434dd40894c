//! What can go wrong between the host and one agent, told apart by who can mend it.

use super::json::hex;
use super::target::Target;
use super::text::Safe;
use crate::wire::message::{Epoch, EpochSource, Refusal, RefusalCode};
use crate::wire::{DecodeError, EncodeError, version};
use std::io;
use std::time::Duration;

/// A request that failed: which target, and why.
#[derive(Debug, thiserror::Error)]
#[error("{target}: {cause}")]
pub struct ClientError {
    /// Whom it was meant for.
    pub target: Target,
    /// Why it failed.
    #[source]
    pub cause: Cause,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The path of the target does not exist.
    #[error("there is no socket at this path")]
    NoSocket,
    /// A Unix socket without a process behind it.
    #[error("nobody listens at this socket")]
    NobodyAtSocket,
    /// A guest without a listener.
    #[error("nobody listens at port {port} in the guest")]
    NobodyAtPort {
        /// The port.
        port: u32,
    },
    /// No guest.
    #[error("no VM has CID {cid} on this machine")]
    NoGuest {
        /// The context id.
        cid: u32,
    },
    /// The kernel gave up: a guest that is there answers at once.
    #[error("no VM with CID {cid} took the connection: it is not there, or does not run")]
    Unanswered {
        /// The context id.
        cid: u32,
    },
    /// The system refused the connection.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// The VMM's socket did not answer `OK`.
    #[error("the VMM's socket answered {0:?} to CONNECT, not OK and a port")]
    Hybrid(String),
    /// Nothing came in time.
    #[error("no answer within {} while {step}", Seconds(*.after))]
    TimedOut {
        /// What was waited for.
        step: Step,
        /// How long.
        after: Duration,
    },
    /// The peer closed the connection.
    #[error("the peer closed the connection while {0}")]
    Closed(Step),
    /// The connection broke.
    #[error("the connection broke while {step}: {error}")]
    Broken {
        /// When.
        step: Step,
        /// What the system says.
        error: io::Error,
    },
    /// Bytes that are no frames.
    #[error("it speaks another protocol: its first bytes are \"{0}\"")]
    OtherProtocol(String),
    /// Much that is no answer.
    #[error("it sent more than {most} {what} and no answer while {step}")]
    Flood {
        /// When.
        step: Step,
        /// Of what.
        what: &'static str,
        /// How many are borne.
        most: usize,
    },
    /// A frame that is no message.
    #[error("a frame that cannot be read: {0}")]
    Decode(#[from] DecodeError),
    /// An answer to somebody else's `Hello`.
    #[error(
        "its Welcome has nonce {received:#018x}, Hello had {sent:#018x}: stale bytes of another connection"
    )]
    Nonce {
        /// In `Hello`.
        sent: u64,
        /// In `Welcome`.
        received: u64,
    },
    /// A version that was not offered.
    #[error("it chose protocol version {0}; this guestmeter speaks {MIN} to {CURRENT}", MIN = version::MIN, CURRENT = version::CURRENT)]
    Version(u16),
    /// The agent said no.
    #[error("{}", Refused(.0))]
    Refused(Refusal),
    /// A message out of turn.
    #[error("it sent {message} while {step}")]
    Unexpected {
        /// Which message.
        message: &'static str,
        /// When.
        step: Step,
    },
    /// An answer for another life of the guest than the one that was named.
    #[error("the guest is in {found}, not in {wanted}")]
    OtherEpoch {
        /// Which life was named.
        wanted: Box<Life>,
        /// Which one it tells of.
        found: Box<Life>,
    },
    /// No host has named the guest's epoch.
    #[error("the guest's epoch is provisional: no host has named it")]
    Unnamed,
    /// A request that cannot be sent.
    #[error("the request cannot be sent: {0}")]
    Encode(#[from] EncodeError),
    /// No random bytes for the nonce.
    #[error("no random number from the system: {0}")]
    Random(io::Error),
}

/// What was going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Opening the connection.
    Connecting,
    /// `CONNECT` was written to the VMM's socket.
    Bridging,
    /// A request is being written.
    Sending,
    /// `Hello` was sent.
    Welcome,
    /// A request was sent.
    Report,
    /// `WaitSettled` was sent.
    Settled,
    /// `Ack` was sent.
    Acked,
    /// `Segments` was sent.
    Segments,
    /// This end was closed.
    Closing,
    /// An exchange of several messages.
    Exchange,
    /// A peer connected, to speak first.
    Notification,
}

/// Who can mend it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It may be there the next time.
    TryAgain,
    /// What is at the other end is not, or is no longer, an agent this host can talk to.
    Peer,
    /// Agent and host are of two minds about which life of the guest this is.
    Epoch,
    /// The fault is on this machine.
    Ours,
}

impl Cause {
    /// Who can mend it.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::NoSocket
            | Self::NobodyAtSocket
            | Self::NobodyAtPort { .. }
            | Self::NoGuest { .. }
            | Self::Unanswered { .. }
            | Self::TimedOut { .. }
            | Self::Closed(_)
            | Self::Broken { .. }
            | Self::Nonce { .. } => Kind::TryAgain,
            Self::Refused(refusal) => match refusal.code {
                RefusalCode::Busy | RefusalCode::Timeout | RefusalCode::Internal => Kind::TryAgain,
                RefusalCode::StaleEpoch | RefusalCode::UnknownEpoch => Kind::Epoch,
                _ => Kind::Peer,
            },
            Self::Hybrid(_)
            | Self::OtherProtocol(_)
            | Self::Flood { .. }
            | Self::Decode(_)
            | Self::Version(_)
            | Self::Unexpected { .. } => Kind::Peer,
            Self::OtherEpoch { .. } | Self::Unnamed => Kind::Epoch,
            Self::Connect(_) | Self::Encode(_) | Self::Random(_) => Kind::Ours,
        }
    }

    /// The number that the guest has heard last, where it refuses an epoch for being no later.
    #[must_use]
    pub fn latest(&self) -> Option<u64> {
        match self {
            Self::Refused(Refusal { code: RefusalCode::StaleEpoch, latest, .. }) => *latest,
            _ => None,
        }
    }

    /// What a person may do about it, where that is not plain.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoSocket => Some("is the VM running, and is this its VMM's socket?"),
            Self::NobodyAtPort { .. } => {
                Some("is guestmeterd.socket enabled in the image, and has the guest booted?")
            }
            Self::NoGuest { .. } => {
                Some("is the VM running, and is vhost_vsock loaded? A restored VM may have another CID")
            }
            Self::Hybrid(_) => Some("is this the VMM's vsock socket, and not its API socket?"),
            Self::OtherProtocol(_) => Some("is this guestmeterd's port? Its default is 1020"),
            Self::TimedOut { .. } => Some("is the VM paused, or the port another program's?"),
            Self::Version(_) => Some("install a guestmeter on the host that is as new as the guest's agent"),
            Self::Refused(refusal) => match refusal.code {
                RefusalCode::Version => {
                    Some("install a guestmeter on the host that is as new as the guest's agent")
                }
                RefusalCode::Unsupported => Some("the guest's agent is older than this guestmeter"),
                RefusalCode::StaleEpoch => Some("a later life of this guest was named before"),
                RefusalCode::UnknownEpoch => Some("`guestmeter read` shows the epoch the guest is in"),
                _ => None,
            },
            Self::OtherEpoch { .. } => Some("it was resumed, restored or named by another host meanwhile"),
            Self::Unnamed => {
                Some("name it first: `guestmeter resume --sandbox NAME --not-paused`, or give --state here")
            }
            Self::Connect(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Some("run it as a user who may open the VMM's socket")
            }
            _ => None,
        }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connecting => "connecting",
            Self::Bridging => "the VMM's socket was asked for the port",
            Self::Sending => "the request was being sent",
            Self::Welcome => "its Welcome was awaited",
            Self::Report => "its report was awaited",
            Self::Settled => "memory was awaited to settle",
            Self::Acked => "the answer to Ack was awaited",
            Self::Segments => "its segments were awaited",
            Self::Closing => "its end of the connection was awaited",
            Self::Exchange => "the exchange was under way",
            Self::Notification => "its notification was awaited",
        })
    }
}

/// A refusal's text comes from the guest: it is shown without what a terminal would act on.
struct Refused<'a>(&'a Refusal);

impl std::fmt::Display for Refused<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Refusal { code, text, .. } = self.0;
        let (min, max) = (version::MIN, version::CURRENT);
        match code {
            RefusalCode::Version => write!(
                f,
                "no common protocol version: this guestmeter speaks {min} to {max}; the agent says: {}",
                Safe(text)
            ),
            RefusalCode::Unsupported => write!(f, "the agent does not know this request: {}", Safe(text)),
            RefusalCode::StaleEpoch => write!(f, "the epoch is out of date: {}", Safe(text)),
            RefusalCode::UnknownEpoch => write!(f, "the guest is not in this epoch: {}", Safe(text)),
            _ => write!(f, "the agent refused ({code:?}): {}", Safe(text)),
        }
    }
}

/// One life of a guest, as an error names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// Its epoch; of a provisional one the id is zero, and where the number does not matter, that is.
    pub epoch: Epoch,
    /// Its sandbox, where it matters.
    pub sandbox: Option<String>,
}

impl std::fmt::Display for Life {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.epoch.source {
            EpochSource::Provisional => f.write_str("a provisional epoch")?,
            EpochSource::Host if self.epoch.number == 0 => write!(f, "epoch {}", hex(self.epoch.id))?,
            EpochSource::Host => write!(f, "epoch {} ({})", self.epoch.number, hex(self.epoch.id))?,
        }
        match &self.sandbox {
            Some(sandbox) => write!(f, " of sandbox {}", Safe(sandbox)),
            None => Ok(()),
        }
    }
}

/// A span as it was given on the command line: `5s`, `250ms`.
struct Seconds(Duration);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0)
    }
}
