//! One open connection: `Hello` and the first request out in one write, `Welcome` checked, replies in. And the stream
//! of frames below it, which a notification is too.

use super::asked::Asked;
use super::error::{Cause, ClientError, Step};
use super::random;
use super::target::Target;
use super::transport::{self, Stream};
use crate::wire::frame::{CHECKSUMS_MAX, GARBAGE_MAX};
use crate::wire::message::{Hello, Message, Refusal, RefusalCode, Reply, Request, Welcome};
use crate::wire::{self, DecodeError, Decoder, FrameError, version};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

/// One frame and its header fit.
const READ_BYTES: usize = 32 * 1024;
/// What may come before an answer: the garbage that a decoder bears, and frames of a later agent.
const BYTES_PER_ANSWER_MAX: usize = 4 * GARBAGE_MAX;
const UNKNOWN_PER_ANSWER_MAX: u32 = 64;
/// Longer waits end no sooner: a hundred years.
const LIMIT_MAX: Duration = Duration::from_hours(24 * 36_525);

/// A connection whose `Welcome` has come.
pub(super) struct Connection {
    peer: Peer,
    pub(super) welcome: Welcome,
    /// When the first question left: connecting is no part of it.
    pub(super) asked: Asked,
}

/// The other end, with the bytes of it that are not a whole frame yet.
pub(super) struct Peer {
    pub(super) target: Target,
    stream: Box<dyn Stream>,
    decoder: Decoder,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects, and asks the first question where there is one. All of it takes at most `limit`.
    pub(super) async fn open(
        target: &Target,
        first: Option<&Request>,
        limit: Duration,
    ) -> Result<Self, ClientError> {
        let fail = |cause| ClientError { target: target.clone(), cause };
        let deadline = deadline_in(limit);
        let timed_out = |step| fail(Cause::TimedOut { step, after: limit });
        let nonce = random::number().map_err(|error| fail(Cause::Random(error)))?;
        let opening = opening(nonce, first).map_err(fail)?;

        let step = if matches!(target, Target::Hybrid { .. }) { Step::Bridging } else { Step::Connecting };
        let connecting = timeout_at(deadline, transport::connect(target)).await;
        let mut stream = connecting.map_err(|_| timed_out(step))?.map_err(fail)?;

        let asked = Asked::now();
        let sending = timeout_at(deadline, stream.write_all(&opening)).await;
        let sent = sending.map_err(|_| timed_out(Step::Sending))?;
        // A peer that refuses at once closes before it has read everything: what it said is still there.
        let unsent = sent.err();

        let mut peer = Peer::new(target.clone(), stream);
        let reply = match peer.receive(deadline, limit, Step::Welcome).await {
            Err(ClientError { cause: Cause::Closed(_), .. }) if unsent.is_some() => {
                let error = unsent.unwrap_or_else(|| io::ErrorKind::BrokenPipe.into());
                return Err(fail(Cause::Broken { step: Step::Sending, error }));
            }
            other => other?,
        };
        let welcome = welcomed(reply, nonce).map_err(fail)?;
        Ok(Self { peer, welcome, asked })
    }

    /// Asks another question.
    pub(super) async fn send(&mut self, request: Request, limit: Duration) -> Result<(), ClientError> {
        self.peer.send(request, limit).await
    }

    /// The next reply, in at most `limit`.
    pub(super) async fn receive(&mut self, step: Step, limit: Duration) -> Result<Reply, ClientError> {
        self.peer.receive(deadline_in(limit), limit, step).await
    }

    /// See [`Peer::end`].
    pub(super) async fn end(self, limit: Duration) -> Result<(), ClientError> {
        self.peer.end(limit).await
    }
}

impl Peer {
    pub(super) fn new(target: Target, stream: Box<dyn Stream>) -> Self {
        Self { target, stream, decoder: Decoder::new(), buffer: vec![0; READ_BYTES] }
    }

    pub(super) async fn send(&mut self, request: Request, limit: Duration) -> Result<(), ClientError> {
        let mut bytes = Vec::new();
        let message = Message::Request(request);
        wire::encode(&message, &mut bytes).map_err(|error| self.fail(Cause::Encode(error)))?;
        let step = Step::Sending;
        match tokio::time::timeout(limit, self.stream.write_all(&bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.fail(Cause::Broken { step, error })),
            Err(_) => Err(self.fail(Cause::TimedOut { step, after: limit })),
        }
    }

    /// Closes this end and waits until the other one has too: then nothing is left under way.
    pub(super) async fn end(mut self, limit: Duration) -> Result<(), ClientError> {
        let ending = async {
            // One that is gone already cannot be shut down, and need not be.
            let _ = self.stream.shutdown().await;
            while let Ok(1..) = self.stream.read(&mut self.buffer).await {}
        };
        let timed_out = Cause::TimedOut { step: Step::Closing, after: limit };
        let ended = tokio::time::timeout(limit, ending).await;
        ended.map_err(|_| ClientError { target: self.target, cause: timed_out })
    }

    pub(super) fn fail(&self, cause: Cause) -> ClientError {
        ClientError { target: self.target.clone(), cause }
    }

    /// The next reply until `deadline`, which is `limit` from when it began to be waited for. A peer that goes on sending
    /// something else is given up all the same, and holds up nobody.
    pub(super) async fn receive(
        &mut self,
        deadline: Instant,
        limit: Duration,
        step: Step,
    ) -> Result<Reply, ClientError> {
        let (mut bytes, mut unknown) = (0, 0);
        loop {
            if Instant::now() >= deadline {
                return Err(self.silent(Cause::TimedOut { step, after: limit }));
            }
            if let Some(reply) = self.next_reply(step, &mut unknown)? {
                return Ok(reply);
            }
            let read = timeout_at(deadline, self.stream.read(&mut self.buffer)).await;
            let count = match read {
                Ok(Ok(0)) => return Err(self.silent(Cause::Closed(step))),
                Ok(Ok(count)) => count,
                Ok(Err(error)) => return Err(self.silent(Cause::Broken { step, error })),
                Err(_) => return Err(self.silent(Cause::TimedOut { step, after: limit })),
            };
            bytes += count;
            if bytes > BYTES_PER_ANSWER_MAX {
                return Err(self.fail(Cause::Flood { step, what: "bytes", most: BYTES_PER_ANSWER_MAX }));
            }
            self.decoder.push(self.buffer.get(..count).unwrap_or_default());
            // What is always ready to be read would let nobody else of this thread have a turn.
            tokio::task::yield_now().await;
        }
    }

    /// The next reply among the bytes that have come; `unknown` are the frames before it that say nothing to this host.
    fn next_reply(&mut self, step: Step, unknown: &mut u32) -> Result<Option<Reply>, ClientError> {
        loop {
            let frame = match self.decoder.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(None),
                Err(FrameError::Garbage { first, .. }) => {
                    return Err(self.fail(Cause::OtherProtocol(first.escape_ascii().to_string())));
                }
                Err(FrameError::Checksums) => {
                    let most = usize::try_from(CHECKSUMS_MAX).unwrap_or(usize::MAX);
                    return Err(self.fail(Cause::Flood { step, what: "frames with a wrong checksum", most }));
                }
                Err(error @ FrameError::TooLong(_)) => return Err(self.fail(Cause::Encode(error.into()))),
            };
            match wire::decode(&frame) {
                Ok(Message::Reply(reply)) => return Ok(Some(reply)),
                Ok(Message::Request(_)) => {
                    let message = "a host's request";
                    return Err(self.fail(Cause::Unexpected { message, step }));
                }
                // A later agent may say more than this host knows of.
                Err(DecodeError::Kind(_)) if *unknown < UNKNOWN_PER_ANSWER_MAX => *unknown += 1,
                Err(DecodeError::Kind(_)) => {
                    let most = usize::try_from(UNKNOWN_PER_ANSWER_MAX).unwrap_or(usize::MAX);
                    return Err(self.fail(Cause::Flood { step, what: "frames of unknown kinds", most }));
                }
                Err(error) => return Err(self.fail(Cause::Decode(error))),
            }
        }
    }

    /// Why nothing came: bytes that are no frame tell more than their end does.
    fn silent(&self, cause: Cause) -> ClientError {
        let (skipped, first) = self.decoder.skipped();
        debug_assert!(skipped <= GARBAGE_MAX, "the decoder ends what is longer");
        if skipped == 0 {
            return self.fail(cause);
        }
        let seen = first.get(..skipped.min(first.len())).unwrap_or_default();
        self.fail(Cause::OtherProtocol(seen.escape_ascii().to_string()))
    }
}

/// What no clock of this machine can step over stays a time that it can reach.
pub(super) fn deadline_in(limit: Duration) -> Instant {
    Instant::now() + limit.min(LIMIT_MAX)
}

/// `Hello` and the first request, for one write: an answer costs one round trip.
fn opening(nonce: u64, first: Option<&Request>) -> Result<Vec<u8>, Cause> {
    let hello = Hello { version_min: version::MIN, version_max: version::CURRENT, nonce };
    let mut bytes = Vec::new();
    wire::encode(&Message::Request(Request::Hello(hello)), &mut bytes)?;
    if let Some(first) = first {
        wire::encode(&Message::Request(first.clone()), &mut bytes)?;
    }
    Ok(bytes)
}

fn welcomed(reply: Reply, nonce: u64) -> Result<Welcome, Cause> {
    let welcome = match reply {
        Reply::Welcome(welcome) => welcome,
        Reply::Error(refusal) => return Err(Cause::Refused(refusal)),
        other => return Err(Cause::Unexpected { message: name(&other), step: Step::Welcome }),
    };
    if welcome.nonce != nonce {
        return Err(Cause::Nonce { sent: nonce, received: welcome.nonce });
    }
    let chosen = welcome.agent.protocol;
    if !(version::MIN..=version::CURRENT).contains(&chosen) {
        return Err(Cause::Version(chosen));
    }
    Ok(welcome)
}

/// What a reply is called in the protocol's spec.
pub(super) fn name(reply: &Reply) -> &'static str {
    match reply {
        Reply::Welcome(_) => "Welcome",
        Reply::Report(_) => "Report",
        Reply::Segments(_) => "Segments",
        Reply::Acked(_) => "Acked",
        Reply::Error(Refusal { code: RefusalCode::Unsupported, .. }) => "Error (Unsupported)",
        Reply::Error(_) => "Error",
        Reply::Notify(_) => "Notify",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::{Acked, Id};
    use std::cell::Cell;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    /// `timeout_at` looks at the bytes first: while some are there, it alone never fires.
    #[tokio::test]
    async fn a_deadline_that_has_passed_ends_what_is_waited_for_whatever_has_come() {
        let mut bytes = Vec::new();
        let acked = Acked { epoch: Id::default(), seq: 1 };
        wire::encode(&Message::Reply(Reply::Acked(acked)), &mut bytes).unwrap();
        let (ours, mut theirs) = tokio::io::duplex(4096);
        theirs.write_all(&bytes).await.unwrap();
        let mut peer = Peer::new("unix:///there".parse().unwrap(), Box::new(ours));
        let late = peer.receive(Instant::now(), Duration::ZERO, Step::Acked).await.unwrap_err();
        assert!(matches!(late.cause, Cause::TimedOut { step: Step::Acked, .. }), "{late}");
        let limit = Duration::from_secs(60);
        let reply = peer.receive(deadline_in(limit), limit, Step::Acked).await.unwrap();
        assert_eq!(reply, Reply::Acked(acked));
    }

    /// Bytes without end, none of them a frame's.
    struct Endless;

    impl AsyncRead for Endless {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            buffer.put_slice(&vec![b'x'; buffer.remaining()]);
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Endless {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_peer_that_always_has_bytes_leaves_others_their_turn() {
        let mut peer = Peer::new("unix:///there".parse().unwrap(), Box::new(Endless));
        let limit = Duration::from_secs(60);
        let ended = Cell::new(false);
        let hostile = async {
            let error = peer.receive(deadline_in(limit), limit, Step::Report).await.unwrap_err();
            ended.set(true);
            error
        };
        let (error, others_turn_came_first) = tokio::join!(biased; hostile, async { !ended.get() });
        assert!(matches!(error.cause, Cause::OtherProtocol(_)), "{error}");
        assert!(others_turn_came_first);
    }
}
