//! One connection's bytes: in to the decoder, out from a queue; both bounded.

use super::listener::Peer;
use super::poller::{Poller, Watched};
use crate::units::Nanos;
use crate::wire::message::{Refusal, Request};
use crate::wire::{self, Decoder, FrameError};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

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

impl Gone {
    /// A reset is what a restore does to a connection; so does a peer that dies.
    pub(super) fn is_reset(&self) -> bool {
        let Self::Failed(error) = self else { return false };
        matches!(Errno::from_io_error(error), Some(Errno::CONNRESET | Errno::NOTCONN))
    }
}

/// What came in.
#[derive(Debug)]
pub(super) enum Received {
    /// To be served.
    Request(Request),
    /// Not served, and why.
    Unserved(Refusal),
    /// The peer has closed its half.
    Ended,
}

/// What reading once has given.
enum Read {
    Bytes,
    Nothing,
    End,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Watched,
    pub(super) peer: Peer,
    decoder: Decoder,
    /// Bytes that the decoder has, and the socket still.
    peeked: usize,
    /// The decoder may hold a whole frame that was not taken yet.
    unread: bool,
    unsent: Vec<u8>,
    sent: usize,
    /// The peer has closed its half.
    ended: bool,
    /// Of the decoder's garbage, what was told.
    garbage_told: u64,
    /// Set once closed: when to give up sending.
    closing: Option<Nanos>,
}

impl Connection {
    pub(super) fn new(poller: &mut Poller, stream: OwnedFd, peer: Peer) -> io::Result<Self> {
        Ok(Self::over(poller.watch(stream)?, peer))
    }

    /// One that is watched already.
    pub(super) fn over(stream: Watched, peer: Peer) -> Self {
        Self {
            stream,
            peer,
            decoder: Decoder::new(),
            peeked: 0,
            unread: false,
            unsent: Vec::new(),
            sent: 0,
            ended: false,
            garbage_told: 0,
            closing: None,
        }
    }

    /// Whether bytes may be read, where they are `wanted`, or written, where there are any, or it has failed.
    pub(super) fn has_news(&self, wanted: bool) -> bool {
        let reads = wanted && self.closing.is_none();
        (reads && (self.unread || self.stream.is_readable()))
            || (!self.is_flushed() && self.stream.is_writable())
    }

    /// The next frame, read from the socket if the decoder has none.
    pub(super) fn next_frame(&mut self) -> Result<Option<Received>, Gone> {
        loop {
            if let Some(received) = self.decoded()? {
                return Ok(Some(received));
            }
            match self.receive()? {
                Read::Bytes => {}
                Read::Nothing => return Ok(None),
                Read::End => return Ok(Some(Received::Ended)),
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

    /// Bytes that were no frame, and were not told before.
    pub(super) fn take_garbage(&mut self) -> u64 {
        let all = self.decoder.garbage_bytes();
        all.saturating_sub(std::mem::replace(&mut self.garbage_told, all))
    }

    /// Reads once.
    ///
    /// The bytes stay in the socket until the answer is out: on vsock, taking the last of them sends the peer a credit
    /// update, whose interrupts would come first (`virtio_transport_stream_do_dequeue`).
    // Not inlined: the loop would stand on the buffer.
    #[inline(never)]
    fn receive(&mut self) -> Result<Read, Gone> {
        if !self.stream.is_readable() {
            return Ok(Read::Nothing);
        }
        if self.ended {
            return self.peer_reads().map(|()| Read::Nothing);
        }
        self.take_peeked()?;
        let mut space = [MaybeUninit::uninit(); READ_BYTES];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match recv(self.stream.descriptor(), space.as_mut_slice(), flags) {
            Ok((([], _), _)) => {
                self.peer_reads()?;
                self.ended = true;
                Ok(Read::End)
            }
            Ok(((bytes, rest), _)) => {
                self.decoder.push(bytes);
                self.peeked = bytes.len();
                if !rest.is_empty() {
                    self.stream.all_read();
                }
                Ok(Read::Bytes)
            }
            Err(Errno::AGAIN) => {
                self.stream.nothing_to_read();
                Ok(Read::Nothing)
            }
            Err(Errno::INTR) => Ok(Read::Nothing),
            Err(error) => Err(Gone::Failed(error.into())),
        }
    }

    /// Whether a peer that sends no more may still read: of one that does not, a vsock tells nothing but that sending
    /// fails, were it only of nothing (`vsock_connectible_sendmsg`).
    fn peer_reads(&mut self) -> Result<(), Gone> {
        self.stream.end_seen();
        match send(self.stream.descriptor(), &[], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(_) | Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => Ok(()),
            Err(Errno::PIPE | Errno::NOTCONN) => Err(Gone::ByPeer),
            Err(error) => Err(Gone::Failed(error.into())),
        }
    }

    /// Takes from the socket what the decoder has.
    #[inline(never)]
    pub(super) fn take_peeked(&mut self) -> Result<(), Gone> {
        let mut space = [MaybeUninit::uninit(); READ_BYTES];
        while let Some(space) = space.get_mut(..self.peeked).filter(|space| !space.is_empty()) {
            match recv(self.stream.descriptor(), space, RecvFlags::DONTWAIT) {
                Ok((([], _), _)) => return Err(Gone::ByPeer),
                Ok(((taken, _), _)) => self.peeked = self.peeked.saturating_sub(taken.len()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(Gone::Failed(error.into())),
            }
        }
        Ok(())
    }

    /// Where replies are encoded to; [`Connection::flush`] sends them.
    pub(super) fn outgoing(&mut self) -> &mut Vec<u8> {
        &mut self.unsent
    }

    /// Sends what the socket takes.
    pub(super) fn flush(&mut self) -> Result<(), Gone> {
        while let Some(rest) = self.unsent.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match send(self.stream.descriptor(), rest, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(sent) => self.sent += sent,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN | Errno::NOBUFS) => {
                    self.stream.no_room().map_err(Gone::Failed)?;
                    break;
                }
                Err(error) => return Err(Gone::Failed(error.into())),
            }
        }
        if self.is_flushed() {
            self.stream.all_written().map_err(Gone::Failed)?;
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
