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
    frames: Vec<Found>,
    garbage: usize,
    pending: usize,
    error: Option<FrameError>,
}

#[derive(Debug, PartialEq)]
struct Found {
    frame: Frame,
    /// Where it ends in the stream.
    end: usize,
}

impl Found {
    fn start(&self) -> usize {
        self.end.checked_sub(HEADER_LEN + self.frame.payload.len()).expect("no byte is in two frames")
    }
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
    let gone = consumed(&decoder, &frames);
    let pending = pushed.checked_sub(gone).expect("no byte is counted twice");
    match error {
        // How much was skipped when it gave up depends on how much was there.
        Some(_) => Outcome { frames, garbage: 0, pending: 0, error: error.map(without_length) },
        None => Outcome { frames, garbage: garbage(&decoder), pending, error },
    }
}

fn drain(decoder: &mut Decoder, frames: &mut Vec<Found>) -> Result<(), FrameError> {
    while let Some(frame) = decoder.next()? {
        assert!(frame.payload.len() <= PAYLOAD_MAX);
        let end = consumed(decoder, frames) + HEADER_LEN + frame.payload.len();
        frames.push(Found { frame, end });
    }
    Ok(())
}

fn consumed(decoder: &Decoder, frames: &[Found]) -> usize {
    let framed: usize = frames.iter().map(|found| HEADER_LEN + found.frame.payload.len()).sum();
    framed + garbage(decoder)
}

fn garbage(decoder: &Decoder) -> usize {
    usize::try_from(decoder.garbage_bytes()).expect("no more than was pushed")
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
    let end = bytes.len();
    let mut outcome = decode(&bytes, bytes.len());
    if outcome.frames.last().is_none_or(|last| last.end < end) {
        // What was left unfinished may claim as much as a frame can have.
        bytes.resize(end + HEADER_LEN + PAYLOAD_MAX, 0);
        outcome = decode(&bytes, bytes.len());
    }
    let found = outcome.frames.iter().any(|found| found.end == end && found.frame.payload == payload);
    // An unfinished frame whose checksum was made for what comes behind it takes that with it: it is whole.
    let taken = outcome.frames.iter().any(|found| found.start() < stream.len() && found.end > stream.len());
    assert!(found || taken || outcome.error.is_some(), "the frame behind it is lost");
    for Found { frame, end } in &outcome.frames {
        let payload = bytes.get(end - frame.payload.len()..*end);
        assert_eq!(payload, Some(frame.payload.as_slice()), "a frame is where it was in the stream");
    }
}
