//! Bytes in, whole frames out; finds the next frame after garbage.

use crc::{CRC_32_ISO_HDLC, Crc, Table};

/// `GMTR`: how every frame begins.
pub const MAGIC: [u8; 4] = *b"GMTR";
/// The layout of the header; not the protocol version.
pub const FORMAT: u8 = 1;
/// Bytes of the header.
pub const HEADER_LEN: usize = 16;
/// The most bytes a payload may have.
pub const PAYLOAD_MAX: usize = 16_384;
/// The most bytes of garbage between two frames; beyond it the peer speaks something else.
pub const GARBAGE_MAX: usize = 65_536;
/// The most headers between two frames whose checksum is wrong: each may cost one over a whole frame, and they may overlap.
pub const CHECKSUMS_MAX: u32 = 64;

/// One frame whose checksum is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Layout of the header.
    pub format: u8,
    /// Which message.
    pub kind: u8,
    /// None is known yet.
    pub flags: u16,
    /// The message.
    pub payload: Vec<u8>,
}

/// Why a stream of frames ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// What comes in is no guestmeter protocol.
    #[error("{skipped} bytes without a frame (more than {GARBAGE_MAX}); the first were {}", Ascii(*.first))]
    Garbage {
        /// Bytes skipped since the last frame.
        skipped: usize,
        /// The first of them.
        first: [u8; 8],
    },
    /// It makes work.
    #[error("more than {CHECKSUMS_MAX} headers without a frame whose checksum is right")]
    Checksums,
    /// A payload that does not fit a frame.
    #[error("a payload of {0} bytes does not fit a frame of at most {PAYLOAD_MAX}")]
    TooLong(usize),
}

/// Appends one frame to `out`.
///
/// # Errors
/// A payload over [`PAYLOAD_MAX`].
pub fn encode(kind: u8, payload: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
    encode_with(kind, out, |out| {
        out.extend_from_slice(payload);
        Ok(())
    })
}

/// The same, of a payload that `append` appends. After an error, `out` is as it was.
pub(super) fn encode_with<E: From<FrameError>>(
    kind: u8,
    out: &mut Vec<u8>,
    append: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_LEN]);
    let done = append(out).and_then(|()| Ok(fill_header(kind, out.get_mut(start..).unwrap_or_default())?));
    if done.is_err() {
        out.truncate(start);
    }
    done
}

fn fill_header(kind: u8, frame: &mut [u8]) -> Result<(), FrameError> {
    let too_long = FrameError::TooLong(frame.len().saturating_sub(HEADER_LEN));
    let Some((header, payload)) = frame.split_first_chunk_mut::<HEADER_LEN>() else { return Err(too_long) };
    let length = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= PAYLOAD_MAX);
    let [l0, l1, l2, l3] = length.ok_or(too_long)?.to_le_bytes();
    let [m0, m1, m2, m3] = MAGIC;
    let head = [m0, m1, m2, m3, FORMAT, kind, 0, 0, l0, l1, l2, l3];
    let [c0, c1, c2, c3] = checksum(&head, payload).to_le_bytes();
    *header = [m0, m1, m2, m3, FORMAT, kind, 0, 0, l0, l1, l2, l3, c0, c1, c2, c3];
    Ok(())
}

/// Takes bytes as they come, gives frames as they are whole.
///
/// Holds at most one partial frame besides what the last [`Decoder::push`] brought, as long as [`Decoder::next`]
/// is called until it has no more.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
    skipped: usize,
    skipped_first: [u8; 8],
    /// Wrong checksums since the last frame.
    wrong: u32,
    garbage_total: u64,
}

impl Decoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes that belonged to no frame, since the start.
    #[must_use]
    pub fn garbage_bytes(&self) -> u64 {
        self.garbage_total
    }

    /// Whether a frame has begun that is not whole yet.
    #[must_use]
    pub fn is_mid_frame(&self) -> bool {
        self.buffer.len() > self.start
    }

    /// What was skipped since the last frame: how many bytes, and the first of them.
    #[must_use]
    pub fn skipped(&self) -> (usize, [u8; 8]) {
        (self.skipped, self.skipped_first)
    }

    /// The next whole frame; `None` until more is pushed.
    ///
    /// # Errors
    /// More than [`GARBAGE_MAX`] bytes, or [`CHECKSUMS_MAX`] wrong checksums, without a frame.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator would end at the first None; this goes on"
    )]
    pub fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            self.seek_magic()?;
            let rest = self.buffer.get(self.start..).unwrap_or_default();
            match parse(rest) {
                Parsed::Incomplete => return Ok(None),
                Parsed::Garbage => self.skip(1)?,
                Parsed::WrongChecksum => {
                    self.skip(1)?;
                    self.wrong += 1;
                    if self.wrong > CHECKSUMS_MAX {
                        return Err(FrameError::Checksums);
                    }
                }
                Parsed::Whole(frame, length) => {
                    self.start += length;
                    self.skipped = 0;
                    self.wrong = 0;
                    return Ok(Some(frame));
                }
            }
        }
    }

    /// Moves to the next thing that is, or may become, a magic.
    fn seek_magic(&mut self) -> Result<(), FrameError> {
        let rest = self.buffer.get(self.start..).unwrap_or_default();
        let found = (0..rest.len()).find(|&at| {
            rest.get(at..).is_some_and(|tail| tail.iter().zip(MAGIC).all(|(byte, magic)| *byte == magic))
        });
        self.skip(found.unwrap_or(rest.len()))
    }

    fn skip(&mut self, count: usize) -> Result<(), FrameError> {
        let garbage = self.buffer.get(self.start..self.start + count).unwrap_or_default();
        for (slot, byte) in self.skipped_first.iter_mut().skip(self.skipped).zip(garbage) {
            *slot = *byte;
        }
        self.start += count;
        self.skipped = self.skipped.saturating_add(count);
        self.garbage_total = self.garbage_total.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        if self.skipped > GARBAGE_MAX {
            return Err(FrameError::Garbage { skipped: self.skipped, first: self.skipped_first });
        }
        Ok(())
    }
}

enum Parsed {
    Incomplete,
    Garbage,
    WrongChecksum,
    Whole(Frame, usize),
}

fn parse(bytes: &[u8]) -> Parsed {
    let Some((head, body)) = bytes.split_first_chunk::<HEADER_LEN>() else { return Parsed::Incomplete };
    let &[_, _, _, _, format, kind, f0, f1, l0, l1, l2, l3, c0, c1, c2, c3] = head;
    let length = match usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])) {
        Ok(length) if length <= PAYLOAD_MAX => length,
        _ => return Parsed::Garbage,
    };
    let Some(payload) = body.get(..length) else { return Parsed::Incomplete };
    let head12 = head.first_chunk::<12>().copied().unwrap_or_default();
    if checksum(&head12, payload) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Parsed::WrongChecksum;
    }
    let flags = u16::from_le_bytes([f0, f1]);
    Parsed::Whole(Frame { format, kind, flags, payload: payload.to_vec() }, HEADER_LEN + length)
}

/// CRC-32 (IEEE) over the first 12 bytes of the header and the payload.
fn checksum(head: &[u8; 12], payload: &[u8]) -> u32 {
    crc32(&[head, payload])
}

/// IEEE, one table of 1 KiB: faster ones are as large as the agent's own logic.
pub(crate) fn crc32(parts: &[&[u8]]) -> u32 {
    static CRC: Crc<u32, Table<1>> = Crc::<u32, Table<1>>::new(&CRC_32_ISO_HDLC);
    let mut digest = CRC.digest();
    for part in parts {
        digest.update(part);
    }
    digest.finalize()
}

/// Bytes as a person recognises a protocol by: `SSH-2.0-`.
#[derive(Clone, Copy)]
pub struct Ascii(pub [u8; 8]);

impl std::fmt::Display for Ascii {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(kind, payload, &mut bytes).unwrap();
        bytes
    }

    fn decode_all(decoder: &mut Decoder) -> Vec<Frame> {
        std::iter::from_fn(|| decoder.next().unwrap()).collect()
    }

    #[test]
    fn a_frame_comes_back_whole() {
        let mut decoder = Decoder::new();
        decoder.push(&frame(7, b"hello"));
        let got = decoder.next().unwrap().unwrap();
        assert_eq!((got.format, got.kind, got.flags, got.payload.as_slice()), (1, 7, 0, &b"hello"[..]));
        assert_eq!(decoder.next().unwrap(), None);
        assert!(!decoder.is_mid_frame());
    }

    #[test]
    fn the_longest_payload_fits_and_one_more_byte_does_not() {
        let bytes = frame(1, &[0xAA; PAYLOAD_MAX]);
        let mut decoder = Decoder::new();
        decoder.push(&bytes);
        assert_eq!(decoder.next().unwrap().unwrap().payload.len(), PAYLOAD_MAX);
        let refused = encode(1, &[0; PAYLOAD_MAX + 1], &mut Vec::new());
        assert_eq!(refused, Err(FrameError::TooLong(PAYLOAD_MAX + 1)));
    }

    #[test]
    fn a_stale_half_frame_hides_no_later_one() {
        let whole = frame(1, &[9; 100]);
        let mut decoder = Decoder::new();
        decoder.push(&whole[..60]);
        assert_eq!(decoder.next().unwrap(), None);
        decoder.push(&frame(2, &[3; 200]));
        assert_eq!(decode_all(&mut decoder).iter().map(|f| f.kind).collect::<Vec<_>>(), [2]);
        assert_eq!(decoder.garbage_bytes(), 60);
    }

    #[test]
    fn a_stranger_is_told_apart_by_its_first_bytes() {
        let mut decoder = Decoder::new();
        decoder.push(b"SSH-2.0-OpenSSH");
        assert_eq!(decoder.next().unwrap(), None);
        decoder.push(&[b'x'; GARBAGE_MAX]);
        let error = decoder.next().unwrap_err();
        assert!(error.to_string().contains("SSH-2.0-"), "{error}");
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = frame(3, b"payload");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let mut decoder = Decoder::new();
            decoder.push(&bad);
            assert_eq!(decoder.next().unwrap(), None, "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn a_frame_is_found_after_any_garbage(garbage in prop::collection::vec(any::<u8>(), 0..5000), payload in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut decoder = Decoder::new();
            decoder.push(&garbage);
            let _ = decode_all(&mut decoder);
            decoder.push(&frame(5, &payload));
            decoder.push(&vec![0; HEADER_LEN + PAYLOAD_MAX]);
            prop_assert!(decode_all(&mut decoder).iter().any(|frame| frame.kind == 5 && frame.payload == payload));
        }

        #[test]
        fn where_the_stream_is_cut_changes_nothing(bytes in stream(), cuts in prop::collection::vec(1..200usize, 1..50)) {
            let mut whole = Decoder::new();
            whole.push(&bytes);
            let expected = decode_all(&mut whole);
            let (mut cut, mut got, mut rest) = (Decoder::new(), Vec::new(), bytes.as_slice());
            for length in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (chunk, tail) = rest.split_at((*length).min(rest.len()));
                cut.push(chunk);
                got.extend(decode_all(&mut cut));
                rest = tail;
            }
            prop_assert_eq!(got, expected);
            prop_assert_eq!(cut.garbage_bytes(), whole.garbage_bytes());
        }
    }

    /// Frames and garbage, in any order.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200).prop_map(|payload| frame(1, &payload)),
            prop::collection::vec(any::<u8>(), 0..50),
            Just(b"GMTR".to_vec()),
            Just(b"GMT".to_vec()),
        ];
        prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
    }
}
