//! What holds for any message, any payload and any stream.

mod any_message;
mod limits;

use any_message::message;
use guestmeter::wire::frame::{HEADER_LEN, MAGIC, PAYLOAD_MAX};
use guestmeter::wire::message::{Message, Reply, Request, Tail};
use guestmeter::wire::{DecodeError, Decoder, Frame, decode, encode};
use proptest::prelude::*;
use proptest::sample::Index;

fn frames(bytes: &[u8]) -> Vec<Frame> {
    let mut decoder = Decoder::new();
    decoder.push(bytes);
    std::iter::from_fn(|| decoder.next().unwrap()).collect()
}

fn frame_of(message: &Message) -> Frame {
    let mut bytes = Vec::new();
    encode(message, &mut bytes).unwrap();
    let mut frames = frames(&bytes);
    assert_eq!(frames.len(), 1);
    frames.remove(0)
}

/// Kind and payload as a sender would make them that knows the spec's table but no limits.
fn payload_of(message: &Message) -> (u8, Vec<u8>) {
    let (kind, payload) = match message {
        Message::Request(Request::Hello(body)) => (0x01, postcard::to_allocvec(body)),
        Message::Request(Request::Read) => (0x02, Ok(vec![])),
        Message::Request(Request::Resume(body)) => (0x03, postcard::to_allocvec(body)),
        Message::Request(Request::Checkpoint(body)) => (0x04, postcard::to_allocvec(body)),
        Message::Request(Request::Ack(body)) => (0x05, postcard::to_allocvec(body)),
        Message::Request(Request::WaitSettled(body)) => (0x06, postcard::to_allocvec(body)),
        Message::Request(Request::Watch(body)) => (0x07, postcard::to_allocvec(body)),
        Message::Request(Request::Segments(body)) => (0x08, postcard::to_allocvec(body)),
        Message::Reply(Reply::Welcome(body)) => (0x81, postcard::to_allocvec(body)),
        Message::Reply(Reply::Report(body)) => (0x82, postcard::to_allocvec(body)),
        Message::Reply(Reply::Segments(body)) => (0x83, postcard::to_allocvec(body)),
        Message::Reply(Reply::Acked(body)) => (0x84, postcard::to_allocvec(body)),
        Message::Reply(Reply::Error(body)) => (0x85, postcard::to_allocvec(body)),
        Message::Reply(Reply::Notify(body)) => (0x86, postcard::to_allocvec(body)),
    };
    let mut payload = payload.unwrap();
    if let Some(tail) = tail_of(message).filter(|tail| **tail != Tail::default()) {
        payload.extend(postcard::to_allocvec(tail).unwrap());
    }
    (kind, payload)
}

fn tail_of(message: &Message) -> Option<&Tail> {
    match message {
        Message::Reply(Reply::Report(report)) => Some(&report.tail),
        Message::Reply(Reply::Notify(notify)) => Some(&notify.report.tail),
        _ => None,
    }
}

fn without_tail(message: &Message) -> Message {
    let mut message = message.clone();
    match &mut message {
        Message::Reply(Reply::Report(report)) => report.tail = Tail::default(),
        Message::Reply(Reply::Notify(notify)) => notify.report.tail = Tail::default(),
        _ => {}
    }
    message
}

/// Whatever is taken for a message is one that this build would send.
fn decodes_to_what_can_be_sent(frame: &Frame) -> Result<(), TestCaseError> {
    if let Ok(message) = decode(frame) {
        let again = frame_of(&message);
        prop_assert_eq!(again.kind, frame.kind);
        prop_assert_eq!(decode(&again), Ok(message));
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_message_comes_back(message in message()) {
        let frame = frame_of(&message);
        prop_assert!(frame.payload.len() <= PAYLOAD_MAX);
        prop_assert_eq!((frame.format, frame.flags), (1, 0));
        prop_assert_eq!((frame.kind, frame.payload.clone()), payload_of(&message));
        prop_assert_eq!(decode(&frame), Ok(message));
    }

    #[test]
    fn messages_come_back_in_order_however_the_stream_is_cut(
        messages in prop::collection::vec(message(), 1..6),
        cuts in prop::collection::vec(1..3000usize, 1..30),
    ) {
        let mut stream = Vec::new();
        for message in &messages {
            encode(message, &mut stream).unwrap();
        }
        let (mut decoder, mut got, mut rest) = (Decoder::new(), Vec::new(), stream.as_slice());
        for length in cuts.into_iter().cycle() {
            let (chunk, tail) = rest.split_at(length.min(rest.len()));
            decoder.push(chunk);
            while let Some(frame) = decoder.next().unwrap() {
                got.push(decode(&frame).unwrap());
            }
            rest = tail;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(got, messages);
        prop_assert_eq!((decoder.garbage_bytes(), decoder.is_mid_frame()), (0, false));
    }

    #[test]
    fn a_message_cut_short_anywhere_is_refused(message in message(), at in any::<Index>()) {
        let mut frame = frame_of(&message);
        prop_assume!(!frame.payload.is_empty());
        frame.payload.truncate(at.index(frame.payload.len()));
        // What an older build sends ends where the tail begins.
        prop_assume!(frame != frame_of(&without_tail(&message)));
        let refused = decode(&frame);
        prop_assert!(matches!(refused, Err(DecodeError::Payload { kind, .. }) if kind == frame.kind), "{:?}", refused);
    }

    #[test]
    fn appended_bytes_are_ignored(message in message(), appended in prop::collection::vec(any::<u8>(), 0..100)) {
        let mut frame = frame_of(&message);
        if tail_of(&message) == Some(&Tail::default()) {
            frame.payload.extend(postcard::to_allocvec(&Tail::default()).unwrap());
        }
        frame.payload.extend(appended);
        prop_assert_eq!(decode(&frame), Ok(message));
    }

    #[test]
    fn any_payload_is_a_message_or_an_error(kind: u8, payload in prop::collection::vec(any::<u8>(), 0..600)) {
        decodes_to_what_can_be_sent(&Frame { format: 1, kind, flags: 0, payload })?;
    }

    #[test]
    fn a_damaged_message_is_a_message_or_an_error(message in message(), damage in prop::collection::vec((any::<Index>(), any::<u8>()), 1..4)) {
        let mut frame = frame_of(&message);
        prop_assume!(!frame.payload.is_empty());
        for (at, byte) in damage {
            let at = at.index(frame.payload.len());
            frame.payload[at] = byte;
        }
        decodes_to_what_can_be_sent(&frame)?;
    }

    #[test]
    fn a_message_is_found_behind_what_a_restored_snapshot_left(stale in message(), cut in any::<Index>(), message in message()) {
        let mut stream = Vec::new();
        encode(&stale, &mut stream).unwrap();
        let missing = stream.split_off(1 + cut.index(stream.len() - 1));
        // A stale frame that lacks just what a frame begins with is whole again, to the cost of the one behind it.
        prop_assume!(!MAGIC.starts_with(&missing));
        encode(&message, &mut stream).unwrap();
        stream.resize(stream.len() + HEADER_LEN + PAYLOAD_MAX, 0);
        let found: Vec<Frame> = frames(&stream);
        prop_assert_eq!(found.iter().map(decode).collect::<Vec<_>>(), [Ok(message)]);
    }
}
