//! The protocol between host and agent, version 1. This page is its normative spec.
//!
//! # Frame
//! A 16-byte header, little endian, then the payload:
//!
//! | offset | field | value |
//! |---|---|---|
//! | 0 | magic | `GMTR` |
//! | 4 | format, u8 | 1: the layout of this header |
//! | 5 | kind, u8 | which message; replies have the high bit |
//! | 6 | flags, u16 | 0; anything else is refused |
//! | 8 | length, u32 | of the payload, at most 16,384 bytes |
//! | 12 | crc32, u32 | IEEE, over bytes 0–11 and the payload |
//!
//! A wrong magic, length or CRC: the reader goes to the next magic and counts what it skipped; more than 64 KiB
//! skipped, or 64 wrong CRCs (headers may overlap, and each costs one), without a frame closes the connection. A stale header that claims a length holds back what follows until
//! that many bytes have come, at most one frame's worth; the reader's time limits end the wait.
//!
//! # Payload
//! [postcard](https://postcard.jamesmunns.com/wire-format) of the struct in [`message`] with the fields in their
//! order: unsigned integers are LEB128 varints (`u8` is one byte), `Option` is 0 or 1 and the value, strings and
//! lists carry their length, enums are the variant's number as a varint, 16-byte ids are 16 bytes. Times are
//! nanoseconds, memory is bytes, CPU is millicpu (1000 = one vCPU). Bytes behind the last known field are ignored.
//! A [`message::Tail`] follows the fields of `Report` and `Notify` where it says anything.
//!
//! | kind | message | payload | answer |
//! |---|---|---|---|
//! | 0x01 | `Hello` | [`message::Hello`] | `Welcome`, or `Error` (`Version`) and the end |
//! | 0x02 | `Read` | none | `Report` |
//! | 0x03 | `Resume` | [`message::Resume`] | `Report` |
//! | 0x04 | `Checkpoint` | [`message::Checkpoint`] | `Report` |
//! | 0x05 | `Ack` | [`message::Ack`] | `Acked` |
//! | 0x06 | `WaitSettled` | [`message::WaitSettled`] | `Report`, or `Error` (`Timeout`) |
//! | 0x07 | `Watch` | [`message::Watch`] | `Report`, and one more at each change |
//! | 0x08 | `Segments` | [`message::SegmentsAfter`] | `Segments` |
//! | 0x81 | `Welcome` | [`message::Welcome`] | |
//! | 0x82 | `Report` | [`message::Report`] | |
//! | 0x83 | `Segments` | [`message::Segments`] | |
//! | 0x84 | `Acked` | [`message::Acked`] | |
//! | 0x85 | `Error` | [`message::Refusal`] | |
//! | 0x86 | `Notify` | [`message::Notify`]: the agent speaks first, on a connection that it opened | `Ack` |
//!
//! # Conversation
//! - `Hello` comes first, and may be followed at once by requests of version 1 in the same write.
//! - Answers come in the order of the requests of their connection. A `WaitSettled` that waits delays the answers
//!   behind it; only a watch's reports may come between.
//! - An unknown kind is skipped and answered `Error` (`Unsupported`); a payload that does not fit, `Malformed`.
//! - `Ack` holds whether or not its answer arrives.
//! - Limits: 4 connections, 2 s to `Hello`, 60 s idle; the lengths in [`codec`]. How versions may change:
//!   [`version`].
//!
//! Whoever writes an implementation of their own begins with [`book`].

#[doc = include_str!("book.md")]
pub mod book {}
mod append;
pub mod codec;
pub mod frame;
pub mod message;
pub mod version;

pub(crate) use append::append;

pub use codec::{DecodeError, EncodeError, decode, decode_request, encode};
pub use frame::{Decoder, Frame, FrameError};
