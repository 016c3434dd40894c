//! Any frame, its checksum not looked at: a message that can be sent again, or an error that can be told.

use guestmeter::wire::message::{Message, Reply};
use guestmeter::wire::{Decoder, Frame, decode, encode};

/// `frame` as it is on the wire, so that golden bytes are seeds.
pub fn check(frame: &[u8]) {
    let Some((header, payload)) = frame.split_first_chunk::<16>() else { return };
    let &[_, _, _, _, format, kind, low, high, ..] = header;
    let flags = u16::from_le_bytes([low, high]);
    let frame = Frame { format, kind, flags, payload: payload.to_vec() };
    match decode(&frame) {
        Ok(message) => {
            let again = framed(&message);
            assert_eq!(again.kind, kind);
            assert_eq!(decode(&again), Ok(message));
        }
        Err(error) => {
            let refusal = Message::Reply(Reply::Error(error.refusal()));
            assert_eq!(decode(&framed(&refusal)), Ok(refusal));
        }
    }
}

fn framed(message: &Message) -> Frame {
    let mut bytes = Vec::new();
    encode(message, &mut bytes).expect("what can be read can be sent");
    let mut decoder = Decoder::new();
    decoder.push(&bytes);
    decoder.next().expect("no garbage").expect("a whole frame")
}
