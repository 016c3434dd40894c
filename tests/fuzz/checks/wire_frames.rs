//! Any stream: the decoder accounts for every byte, wherever it is cut, and finds the next frame behind it.

use guestmeter::wire::frame::{self, GARBAGE_MAX, HEADER_LEN, PAYLOAD_MAX};
use guestmeter::wire::{Decoder, Frame, FrameError};

pub fn check(stream: &[u8]) {
    let whole = decode(stream, stream.len());
    let chunk = stream.last().map_or(1, |byte| usize::from(*byte) + 1);
    assert_eq!(decode(stream, chunk), whole, "cut every {chunk} bytes");
    if whole.error.is_none() {
        assert!(whole.pending < HEADER_LEN + PAYLOAD_MAX, "{} bytes are held back", whole.pending);
        a_frame_behind_it_is_found(stream);
    }
}

#[derive(Debug, PartialEq)]
struct Outcome {
    frames: Vec<Frame>,
    garbage: u64,
    pending: usize,
    error: Option<FrameError>,
}

fn decode(stream: &[u8], chunk: usize) -> Outcome {
    let mut decoder = Decoder::new();
    let (mut frames, mut pushed, mut error) = (Vec::new(), 0, None);
    for bytes in stream.chunks(chunk.max(1)) {
        decoder.push(bytes);
        pushed += bytes.len();
        error = drain(&mut decoder, &mut frames).err();
        if error.is_some() {
            break;
        }
    }
    let garbage = decoder.garbage_bytes();
    let framed: usize = frames.iter().map(|frame: &Frame| HEADER_LEN + frame.payload.len()).sum();
    let gone = framed + usize::try_from(garbage).expect("no more than was pushed");
    let pending = pushed.checked_sub(gone).expect("no byte is counted twice");
    match error {
        // How much was skipped when it gave up depends on how much was there.
        Some(_) => Outcome { frames, garbage: 0, pending: 0, error: error.map(without_length) },
        None => Outcome { frames, garbage, pending, error },
    }
}

fn drain(decoder: &mut Decoder, frames: &mut Vec<Frame>) -> Result<(), FrameError> {
    while let Some(frame) = decoder.next()? {
        assert!(frame.payload.len() <= PAYLOAD_MAX);
        frames.push(frame);
    }
    Ok(())
}

fn without_length(error: FrameError) -> FrameError {
    match error {
        FrameError::Garbage { skipped, first } => {
            assert!(skipped > GARBAGE_MAX);
            FrameError::Garbage { skipped: 0, first }
        }
        other => other,
    }
}

fn a_frame_behind_it_is_found(stream: &[u8]) {
    let payload = stream.get(..stream.len().min(300)).unwrap_or_default();
    let mut bytes = stream.to_vec();
    frame::encode(0x55, payload, &mut bytes).expect("it fits");
    let mut outcome = decode(&bytes, bytes.len());
    let found = |frame: &Frame| frame.kind == 0x55 && frame.payload == payload;
    if !outcome.frames.iter().any(found) {
        // What was left unfinished may claim as much as a frame can have.
        bytes.resize(bytes.len() + HEADER_LEN + PAYLOAD_MAX, 0);
        outcome = decode(&bytes, bytes.len());
    }
    assert!(outcome.frames.iter().any(found) || outcome.error.is_some(), "the frame behind it is lost");
}
