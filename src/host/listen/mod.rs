//! Where guests speak first: notifications, heard as hints.
//!
//! Any process of a guest can dial its host and say anything. So a notification is never evidence: it is a hint to dial
//! the agent back, at a port that only a privileged process of the guest can hold, and to read what it says there. What
//! a notification may do is bounded: connections at once, from one guest and in all; how often one guest may cause a
//! question; bytes and time until it has said what it has to say.
//!
//! ```no_run
//! use guestmeter::host::{Client, TIMEOUT_DEFAULT};
//! use guestmeter::host::listen::{Listener, Place, confirm};
//!
//! # async fn hear() -> Result<(), Box<dyn std::error::Error>> {
//! // Firecracker and Cloud Hypervisor connect here when the guest of /run/vm/v.sock dials port 1020 of CID 2.
//! let mut listener = Listener::bind(Place::hybrid("/run/vm/v.sock_1020".into())?)?;
//! loop {
//!     let mut incoming = listener.accept().await?;
//!     let hint = incoming.notify().await?;
//!     let evidence = Client::new(incoming.target().clone(), TIMEOUT_DEFAULT).read().await?;
//!     match confirm(&hint.report, &evidence.report) {
//!         // Once what it says is committed:
//!         Ok(ack) => incoming.ack(ack).await?,
//!         // Not acknowledged, it will be said again.
//!         Err(doubt) => eprintln!("{}: {doubt}", incoming.target()),
//!     }
//!     incoming.close().await?;
//! }
//! # }
//! ```

mod gate;
mod socket;

use super::connection::{Peer, name};
use super::error::{Cause, ClientError, Step};
use super::target::{PORT_DEFAULT, Target};
use super::transport::Stream;
use crate::wire::message::{Ack, EpochSource, Notify, Reply, Report, Request};
use gate::Pass;
pub use socket::{Access, ListenError, Listener};
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;

/// How long a notification may take to arrive once its connection is open, and its ack to be answered.
const NOTIFY_MAX: Duration = Duration::from_secs(5);
/// How long the other end may take to close.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// Where to listen, and whom to dial back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The Unix socket that a VMM connects to when its guest dials this host.
    Hybrid {
        /// The socket.
        path: PathBuf,
        /// The guest's agent.
        agent: Target,
    },
    /// A port of AF_VSOCK, dialled by all guests of this machine's kernel; the CID tells which one.
    Vsock {
        /// The port.
        port: u32,
    },
}

/// A path that does not say which VM it is of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{path}: a VMM connects to the path of its vsock socket, an underscore and the port; this is no such path"
)]
pub struct PlaceError {
    path: String,
}

impl Place {
    /// `X_1020`, where the VMM's own socket is `X`: `hvsock://X` is the agent.
    ///
    /// # Errors
    /// No such path, or one that makes no target: relative, or too long.
    pub fn hybrid(path: PathBuf) -> Result<Self, PlaceError> {
        let text = path.display().to_string();
        let agent = text.rsplit_once('_').and_then(|(vmm, port)| {
            port.parse::<u32>().ok()?;
            format!("hvsock://{vmm}:{PORT_DEFAULT}").parse().ok()
        });
        match agent {
            Some(agent) => Ok(Self::Hybrid { path, agent }),
            None => Err(PlaceError { path: text }),
        }
    }
}

/// A connection that a guest has opened. It says [`Incoming::notify`], or nothing of use.
pub struct Incoming {
    peer: Peer,
    /// Keeps its guest from having more than its share.
    pass: Pass,
}

impl Incoming {
    fn new(agent: Target, stream: Box<dyn Stream>, pass: Pass) -> Self {
        Self { peer: Peer::new(agent, stream), pass }
    }

    /// Whom to dial back: the agent of the guest that this came from.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.peer.target
    }

    /// What it has to say, in at most five seconds.
    ///
    /// # Errors
    /// It says nothing in time, or not this protocol.
    pub async fn notify(&mut self) -> Result<Notify, ClientError> {
        let step = Step::Notification;
        match self.peer.receive(Instant::now() + NOTIFY_MAX, NOTIFY_MAX, step).await? {
            Reply::Notify(notify) => Ok(*notify),
            other => Err(self.peer.fail(Cause::Unexpected { message: name(&other), step })),
        }
    }

    /// Says that what was heard is committed. It holds even where its answer does not arrive.
    ///
    /// # Errors
    /// The agent refuses it, or is gone.
    pub async fn ack(&mut self, ack: Ack) -> Result<(), ClientError> {
        let deadline = Instant::now() + NOTIFY_MAX;
        self.peer.send(Request::Ack(ack), NOTIFY_MAX).await?;
        let step = Step::Acked;
        loop {
            match self.peer.receive(deadline, NOTIFY_MAX, step).await? {
                Reply::Acked(acked) if (acked.epoch, acked.seq) == (ack.epoch, ack.seq) => return Ok(()),
                // Something newer, said before the ack was read: it will be said again.
                Reply::Notify(_) => {}
                Reply::Error(refusal) => return Err(self.peer.fail(Cause::Refused(refusal))),
                other => return Err(self.peer.fail(Cause::Unexpected { message: name(&other), step })),
            }
        }
    }

    /// Closes it, and keeps its place taken until its guest may come again.
    ///
    /// # Errors
    /// The other end is not closed in time.
    pub async fn close(self) -> Result<(), ClientError> {
        let ended = self.peer.end(CLOSE_MAX).await;
        self.pass.wait().await;
        ended
    }
}

/// Why a hint is not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// A provisional epoch is named, not acknowledged.
    #[error("its epoch is provisional: name it with `guestmeter resume`")]
    Provisional,
    /// The agent is of another boot.
    #[error("the agent is of another boot than the notification")]
    OtherBoot,
    /// The agent is in another epoch.
    #[error("the agent is in another epoch than the notification")]
    OtherEpoch,
    /// The agent has not said as much.
    #[error("the notification is of a report that the agent has not made")]
    Future,
}

/// What may be acknowledged of `hint`, by what the agent itself says: `evidence`, read after the hint had come.
///
/// # Errors
/// The agent does not say the same, or it is nothing that can be acknowledged.
pub fn confirm(hint: &Report, evidence: &Report) -> Result<Ack, Doubt> {
    let (hint, evidence) = (&hint.identity, &evidence.identity);
    if hint.epoch.source == EpochSource::Provisional {
        return Err(Doubt::Provisional);
    }
    if hint.boot_id != evidence.boot_id {
        return Err(Doubt::OtherBoot);
    }
    if hint.epoch != evidence.epoch {
        return Err(Doubt::OtherEpoch);
    }
    if hint.seq > evidence.seq {
        return Err(Doubt::Future);
    }
    Ok(Ack { epoch: hint.epoch.id, seq: hint.seq })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::{Epoch, Id, Message};
    use crate::wire::{Decoder, decode};

    /// The report of the protocol's golden bytes, in epoch 42.
    fn golden() -> Report {
        let text = include_str!("../../../tests/golden/v1/report.hex");
        let digits = text.lines().filter_map(|line| line.split('#').next());
        let bytes: Vec<u8> = digits
            .flat_map(str::split_ascii_whitespace)
            .map(|byte| u8::from_str_radix(byte, 16).unwrap())
            .collect();
        let mut decoder = Decoder::new();
        decoder.push(&bytes);
        match decode(&decoder.next().unwrap().unwrap()).unwrap() {
            Message::Reply(Reply::Report(report)) => *report,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_what_the_agent_says_too_is_acknowledged() {
        let (hint, mut evidence) = (golden(), golden());
        let Epoch { id, .. } = hint.identity.epoch;
        let ack = Ack { epoch: id, seq: hint.identity.seq };
        assert_eq!(confirm(&hint, &evidence), Ok(ack));
        evidence.identity.seq += 3;
        assert_eq!(confirm(&hint, &evidence), Ok(ack), "the agent has said more since");
        type Forge = fn(&mut Report);
        let forgeries: [(Forge, Doubt); 5] = [
            (|hint| hint.identity.epoch = Epoch::default(), Doubt::Provisional),
            (|hint| hint.identity.boot_id = Id([9; 16]), Doubt::OtherBoot),
            (|hint| hint.identity.epoch.id = Id([9; 16]), Doubt::OtherEpoch),
            (|hint| hint.identity.epoch.number += 1, Doubt::OtherEpoch),
            (|hint| hint.identity.seq = u64::MAX, Doubt::Future),
        ];
        for (forge, doubt) in forgeries {
            let mut forged = hint.clone();
            forge(&mut forged);
            assert_eq!(confirm(&forged, &evidence), Err(doubt));
        }
    }

    #[test]
    fn the_path_says_which_vm_it_is_of() {
        let place = Place::hybrid("/run/vm_7/v.sock_1020".into()).unwrap();
        let agent = "hvsock:///run/vm_7/v.sock:1020".parse().unwrap();
        assert_eq!(place, Place::Hybrid { path: "/run/vm_7/v.sock_1020".into(), agent });
        for path in ["/run/v.sock", "/run/vm_7/v.sock", "v.sock_1020", "_1020", ""] {
            let error = Place::hybrid(path.into()).unwrap_err();
            assert!(error.to_string().starts_with(path), "{error}");
        }
    }
}
