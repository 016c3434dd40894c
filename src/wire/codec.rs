//! Messages to frames and back: kinds, limits, and what a peer is told about a frame that is not served.

use super::append;
use super::frame::{self, FORMAT, Frame, FrameError};
use super::message::{Message, Notify, Refusal, RefusalCode, Reply, Report, Request, Tail};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest sandbox name, in bytes.
pub const SANDBOX_MAX: usize = 128;
/// The longest text of a refusal, in bytes.
pub const TEXT_MAX: usize = 1024;
/// The longest version, revision or capability, in bytes.
pub const WORD_MAX: usize = 64;
/// The most capabilities, and the most sources and findings of one report.
pub const LIST_MAX: usize = 32;
/// The most segments in one frame.
pub const SEGMENTS_MAX: usize = 64;

/// Why a message cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// It breaks a limit.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// It does not fit a frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The serializer failed.
    #[error("serializing: {0}")]
    Postcard(#[from] postcard::Error),
}

/// A field longer than the protocol allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} has {length} (at most {max})")]
pub struct LimitError {
    field: &'static str,
    length: usize,
    max: usize,
}

/// Why a whole frame is not a message. The connection can go on: the next frame is found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A header layout of another format.
    #[error("frame format {0} (this build reads {FORMAT})")]
    Format(u8),
    /// A flag nobody has defined.
    #[error("frame flags {0:#06x} (none are known)")]
    Flags(u16),
    /// A message nobody has defined, or not yet.
    #[error("message kind {0:#04x} is not known")]
    Kind(u8),
    /// The payload is no such message.
    #[error("payload of message kind {kind:#04x}: {cause}")]
    Payload {
        /// Which message it claims to be.
        kind: u8,
        /// What the deserializer says.
        cause: postcard::Error,
    },
    /// It breaks a limit.
    #[error("message kind {kind:#04x}: {cause}")]
    Limit {
        /// Which message.
        kind: u8,
        /// Which limit.
        cause: LimitError,
    },
}

impl DecodeError {
    /// What the sender of the frame is told.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let code = match self {
            Self::Kind(_) => RefusalCode::Unsupported,
            _ => RefusalCode::Malformed,
        };
        code.because(self.to_string())
    }
}

/// The kind byte of each message. Replies have the high bit.
mod kind {
    pub(super) const HELLO: u8 = 0x01;
    pub(super) const READ: u8 = 0x02;
    pub(super) const RESUME: u8 = 0x03;
    pub(super) const CHECKPOINT: u8 = 0x04;
    pub(super) const ACK: u8 = 0x05;
    pub(super) const WAIT_SETTLED: u8 = 0x06;
    pub(super) const WATCH: u8 = 0x07;
    pub(super) const SEGMENTS_AFTER: u8 = 0x08;
    pub(super) const WELCOME: u8 = 0x81;
    pub(super) const REPORT: u8 = 0x82;
    pub(super) const SEGMENTS: u8 = 0x83;
    pub(super) const ACKED: u8 = 0x84;
    pub(super) const ERROR: u8 = 0x85;
    pub(super) const NOTIFY: u8 = 0x86;
}

/// Appends `message` to `out` as one frame.
///
/// # Errors
/// A field over its limit, or a message over a frame's.
pub fn encode(message: &Message, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    check_limits(message)?;
    match message {
        Message::Request(request) => encode_request(request, out),
        Message::Reply(reply) => encode_reply(reply, out),
    }
}

fn encode_request(request: &Request, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    match request {
        Request::Hello(body) => pack(kind::HELLO, body, out),
        Request::Read => pack(kind::READ, &(), out),
        Request::Resume(body) => pack(kind::RESUME, body, out),
        Request::Checkpoint(body) => pack(kind::CHECKPOINT, body, out),
        Request::Ack(body) => pack(kind::ACK, body, out),
        Request::WaitSettled(body) => pack(kind::WAIT_SETTLED, body, out),
        Request::Watch(body) => pack(kind::WATCH, body, out),
        Request::Segments(body) => pack(kind::SEGMENTS_AFTER, body, out),
    }
}

fn encode_reply(reply: &Reply, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    match reply {
        Reply::Welcome(body) => pack(kind::WELCOME, body, out),
        Reply::Report(body) => pack_with_tail(kind::REPORT, body, &body.tail, out),
        Reply::Segments(body) => pack(kind::SEGMENTS, body, out),
        Reply::Acked(body) => pack(kind::ACKED, body, out),
        Reply::Error(body) => pack(kind::ERROR, body, out),
        Reply::Notify(body) => pack_with_tail(kind::NOTIFY, body, &body.report.tail, out),
    }
}

fn pack<T: Serialize>(kind: u8, body: &T, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    frame::encode_with(kind, out, |out| Ok(append(body, out)?))
}

/// A tail that says nothing takes no bytes.
fn pack_with_tail<T: Serialize>(
    kind: u8,
    body: &T,
    tail: &Tail,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    frame::encode_with(kind, out, |out| {
        append(body, out)?;
        if *tail != Tail::default() {
            append(tail, out)?;
        }
        Ok(())
    })
}

/// The message in `frame`; bytes behind it are ignored, for they are fields of a later build.
///
/// # Errors
/// A format, flag or kind that is not known, a payload that is no such message, a field over its limit.
pub fn decode(frame: &Frame) -> Result<Message, DecodeError> {
    match decode_request(frame) {
        Ok(request) => Ok(Message::Request(request)),
        Err(DecodeError::Kind(_)) => decode_reply(frame).map(Message::Reply),
        Err(error) => Err(error),
    }
}

/// The request in `frame`; a reply is an unknown kind. What only answers requests need not carry the rest.
///
/// # Errors
/// As [`decode`].
pub fn decode_request(frame: &Frame) -> Result<Request, DecodeError> {
    check_header(frame)?;
    let request = match frame.kind {
        kind::HELLO => Request::Hello(unpack(frame)?),
        kind::READ => Request::Read,
        kind::RESUME => Request::Resume(unpack(frame)?),
        kind::CHECKPOINT => Request::Checkpoint(unpack(frame)?),
        kind::ACK => Request::Ack(unpack(frame)?),
        kind::WAIT_SETTLED => Request::WaitSettled(unpack(frame)?),
        kind::WATCH => Request::Watch(unpack(frame)?),
        kind::SEGMENTS_AFTER => Request::Segments(unpack(frame)?),
        unknown => return Err(DecodeError::Kind(unknown)),
    };
    check_request(&request).map_err(|cause| DecodeError::Limit { kind: frame.kind, cause })?;
    Ok(request)
}

fn decode_reply(frame: &Frame) -> Result<Reply, DecodeError> {
    check_header(frame)?;
    let reply = match frame.kind {
        kind::WELCOME => Reply::Welcome(unpack(frame)?),
        kind::REPORT => {
            let (mut report, tail) = unpack_with_tail::<Box<Report>>(frame)?;
            report.tail = tail;
            Reply::Report(report)
        }
        kind::SEGMENTS => Reply::Segments(unpack(frame)?),
        kind::ACKED => Reply::Acked(unpack(frame)?),
        kind::ERROR => Reply::Error(unpack(frame)?),
        kind::NOTIFY => {
            let (mut notify, tail) = unpack_with_tail::<Box<Notify>>(frame)?;
            notify.report.tail = tail;
            Reply::Notify(notify)
        }
        unknown => return Err(DecodeError::Kind(unknown)),
    };
    check_reply(&reply).map_err(|cause| DecodeError::Limit { kind: frame.kind, cause })?;
    Ok(reply)
}

fn check_header(frame: &Frame) -> Result<(), DecodeError> {
    if frame.format != FORMAT {
        return Err(DecodeError::Format(frame.format));
    }
    if frame.flags != 0 {
        return Err(DecodeError::Flags(frame.flags));
    }
    Ok(())
}

fn unpack<T: DeserializeOwned>(frame: &Frame) -> Result<T, DecodeError> {
    take(frame, &frame.payload).map(|(body, _appended)| body)
}

fn unpack_with_tail<T: DeserializeOwned>(frame: &Frame) -> Result<(T, Tail), DecodeError> {
    let (body, rest) = take(frame, &frame.payload)?;
    match rest {
        [] => Ok((body, Tail::default())),
        rest => take(frame, rest).map(|(tail, _appended)| (body, tail)),
    }
}

fn take<'a, T: DeserializeOwned>(frame: &Frame, bytes: &'a [u8]) -> Result<(T, &'a [u8]), DecodeError> {
    postcard::take_from_bytes(bytes).map_err(|cause| DecodeError::Payload { kind: frame.kind, cause })
}

fn check_limits(message: &Message) -> Result<(), LimitError> {
    match message {
        Message::Request(request) => check_request(request),
        Message::Reply(reply) => check_reply(reply),
    }
}

fn check_request(request: &Request) -> Result<(), LimitError> {
    match request {
        Request::Resume(resume) => at_most("sandbox", resume.sandbox.len(), SANDBOX_MAX),
        _ => Ok(()),
    }
}

fn check_reply(reply: &Reply) -> Result<(), LimitError> {
    match reply {
        Reply::Acked(_) => Ok(()),
        Reply::Welcome(welcome) => {
            check_sandbox(welcome.sandbox.as_ref())?;
            check_agent(&welcome.agent)
        }
        Reply::Report(report) => check_report(report),
        Reply::Segments(body) => at_most("segments", body.segments.len(), SEGMENTS_MAX),
        Reply::Error(refusal) => at_most("text", refusal.text.len(), TEXT_MAX),
        Reply::Notify(notify) => {
            let Notify { agent, report } = notify.as_ref();
            check_agent(agent)?;
            check_report(report)
        }
    }
}

fn check_report(report: &Report) -> Result<(), LimitError> {
    check_sandbox(report.identity.sandbox.as_ref())?;
    at_most("memory.sources", report.memory.sources.len(), LIST_MAX)?;
    at_most("findings", report.tail.findings.len(), LIST_MAX)
}

fn check_agent(agent: &super::message::Agent) -> Result<(), LimitError> {
    at_most("agent.version", agent.version.len(), WORD_MAX)?;
    at_most("agent.git", agent.git.len(), WORD_MAX)?;
    at_most("agent.capabilities", agent.capabilities.len(), LIST_MAX)?;
    agent.capabilities.iter().try_for_each(|word| at_most("a capability", word.len(), WORD_MAX))
}

fn check_sandbox(sandbox: Option<&String>) -> Result<(), LimitError> {
    sandbox.map_or(Ok(()), |name| at_most("sandbox", name.len(), SANDBOX_MAX))
}

fn at_most(field: &'static str, length: usize, max: usize) -> Result<(), LimitError> {
    if length > max { Err(LimitError { field, length, max }) } else { Ok(()) }
}
