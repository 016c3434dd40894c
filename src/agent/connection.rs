//! One connection's bytes: in to the decoder, out from a queue; both bounded.

use super::descriptor;
use super::listener::Peer;
use crate::units::Nanos;
use crate::wire::message::{Refusal, Request};
use crate::wire::{self, Decoder, FrameError};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Read at once; what follows waits in the socket, where it slows its sender.
const READ_BYTES: usize = 4096;
/// Replies that a peer may leave unread before it is given up; the system's own buffers come on top.
const UNSENT_BYTES_MAX: usize = 64 * 1024;
/// How long a connection that was closed may take to read its last frames.
const LINGER: Nanos = Nanos::SECOND;

/// Why a connection is over, seen from its socket.
#[derive(Debug, thiserror::Error)]
pub(super) enum Gone {
    /// The peer closed it.
    #[error("closed by the peer")]
    ByPeer,
    /// The system's word.
    #[error("{0}")]
    Failed(io::Error),
    /// The peer speaks something else.
    #[error(transparent)]
    Garbage(#[from] FrameError),
    /// The peer reads too slowly.
    #[error("{0} bytes of replies are unread")]
    Slow(usize),
}

/// What came in.
#[derive(Debug)]
pub(super) enum Received {
    /// To be served.
    Request(Request),
    /// Not served, and why.
    Unserved(Refusal),
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: AsyncFd<OwnedFd>,
    pub(super) peer: Peer,
    decoder: Decoder,
    /// The decoder may hold a whole frame that was not taken yet.
    pub(super) unread: bool,
    unsent: Vec<u8>,
    sent: usize,
    /// Set once closed: when to give up sending.
    closing: Option<Nanos>,
}

impl Connection {
    /// Must be called inside the runtime.
    pub(super) fn new(stream: OwnedFd, peer: Peer) -> io::Result<Self> {
        Ok(Self {
            stream: descriptor::watch(stream, Interest::READABLE | Interest::WRITABLE)?,
            peer,
            decoder: Decoder::new(),
            unread: false,
            unsent: Vec::new(),
            sent: 0,
            closing: None,
        })
    }

    /// Ready once bytes can be read, where they are `wanted`, or written, where there are any.
    pub(super) fn poll_ready(&self, cx: &mut Context<'_>, wanted: bool) -> Poll<()> {
        let readable = wanted && self.closing.is_none() && self.stream.poll_read_ready(cx).is_ready();
        let writable = !self.is_flushed() && self.stream.poll_write_ready(cx).is_ready();
        if readable || writable { Poll::Ready(()) } else { Poll::Pending }
    }

    /// The next frame, read from the socket if the decoder has none.
    pub(super) fn next_frame(&mut self) -> Result<Option<Received>, Gone> {
        loop {
            if let Some(received) = self.decoded()? {
                return Ok(Some(received));
            }
            if !self.receive()? {
                return Ok(None);
            }
        }
    }

    fn decoded(&mut self) -> Result<Option<Received>, Gone> {
        let frame = self.decoder.next()?;
        self.unread = frame.is_some();
        Ok(frame.map(|frame| match wire::decode_request(&frame) {
            Ok(request) => Received::Request(request),
            Err(error) => Received::Unserved(error.refusal()),
        }))
    }

    /// Reads once; says whether there was something.
    fn receive(&mut self) -> Result<bool, Gone> {
        let mut bytes = [0; READ_BYTES];
        let received = self
            .stream
            .try_io(Interest::READABLE, |stream| Ok(recv(stream, &mut bytes[..], RecvFlags::DONTWAIT)?));
        match received {
            Ok((0, _)) => Err(Gone::ByPeer),
            Ok((length, _)) => {
                self.decoder.push(bytes.get(..length).unwrap_or_default());
                Ok(true)
            }
            Err(error) if is_transient(&error) => Ok(false),
            Err(error) => Err(Gone::Failed(error)),
        }
    }

    /// Where replies are encoded to; [`Connection::flush`] sends them.
    pub(super) fn outgoing(&mut self) -> &mut Vec<u8> {
        &mut self.unsent
    }

    /// Sends what the socket takes.
    pub(super) fn flush(&mut self) -> Result<(), Gone> {
        while let Some(rest) = self.unsent.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let sent = self.stream.try_io(Interest::WRITABLE, |stream| {
                Ok(send(stream, rest, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?)
            });
            match sent {
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_transient(&error) => break,
                Err(error) => return Err(Gone::Failed(error)),
            }
        }
        self.unsent.drain(..self.sent);
        self.sent = 0;
        // One burst must not hold its memory for ever.
        self.unsent.shrink_to(READ_BYTES);
        if self.unsent.len() > UNSENT_BYTES_MAX {
            return Err(Gone::Slow(self.unsent.len()));
        }
        Ok(())
    }

    /// No more requests; what is queued may still go out.
    pub(super) fn close(&mut self, now: Nanos) {
        self.closing.get_or_insert(now.saturating_add(LINGER));
    }

    /// Whether it was closed.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Whether nothing is left to do for a connection that was closed.
    pub(super) fn is_done(&self, now: Nanos) -> bool {
        self.closing.is_some_and(|until| self.is_flushed() || until <= now)
    }

    /// When to give up on a connection that was closed.
    pub(super) fn deadline(&self) -> Option<Nanos> {
        self.closing
    }

    fn is_flushed(&self) -> bool {
        self.unsent.len() == self.sent
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
        || error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error())
}
