//! The format of the state file, without the file.
//!
//! A slot is `magic "GMST" | format u16 = 4 | reserved u16 | generation u64 | length u32 | crc32 u32 (IEEE, over the first
//! 20 bytes and the payload)`, little endian, then the payload: a postcard [`Stored`].

use super::file::StateError;
use crate::capacity::Baseline;
use crate::session::Saved;
use crate::wire::append;
use crate::wire::frame::crc32;
use crate::wire::message::Id;
use serde::{Deserialize, Serialize};

const MAGIC: [u8; 4] = *b"GMST";
/// Rises with every change of [`Stored`] or what is in it.
pub const FORMAT: u16 = 4;
const HEADER_BYTES: usize = 24;
/// One slot. Its room is taken when the file is opened.
pub const SLOT_BYTES: usize = 16_384;
/// The whole file; what lies beyond is not read.
pub const FILE_BYTES_MAX: usize = 2 * SLOT_BYTES;

/// Why a state was not taken up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// There is none.
    #[error("there is no state of an earlier agent")]
    Empty,
    /// It belongs to another boot.
    #[error("the state belongs to another boot")]
    OtherBoot,
    /// Neither slot is whole.
    #[error("slot 0: {0}; slot 1: {1}")]
    Damaged(SlotError, SlotError),
}

/// What is wrong with a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlotError {
    /// Never written.
    #[error("never written")]
    Blank,
    /// Shorter than it says.
    #[error("cut short")]
    Short,
    /// Not a slot.
    #[error("bad magic")]
    Magic,
    /// Written by another version.
    #[error("unknown format {0}")]
    Format(u16),
    /// Longer than a slot.
    #[error("absurd length {0}")]
    Length(u32),
    /// Torn or overwritten.
    #[error("bad checksum")]
    Checksum,
    /// Whole, but not a state.
    #[error("not a state")]
    Payload,
}

/// What a slot holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// The boot it belongs to.
    pub boot_id: Id,
    /// What the session needs.
    pub session: Saved,
    /// What boot memory holds back.
    pub baseline: Option<Baseline>,
}

/// A state that was taken up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What was saved last.
    pub stored: Stored,
    /// Rises with each write.
    pub generation: u64,
    /// Which slot it came from.
    pub slot: usize,
    /// What is wrong with the other slot, if it was ever written.
    pub damaged: Option<SlotError>,
}

/// Finds the last whole state of this boot in the bytes of a state file. Any bytes may be given.
///
/// # Errors
/// Says why there is none.
pub fn decode(file: &[u8], boot_id: Id) -> Result<Found, Unusable> {
    let second = file.get(SLOT_BYTES..).unwrap_or_default();
    let first = file.get(..SLOT_BYTES).unwrap_or(file);
    let slots = [decode_slot(first), decode_slot(second)];
    let problems = slots.each_ref().map(|slot| slot.as_ref().err().copied());
    let newest = slots
        .into_iter()
        .enumerate()
        .filter_map(|(slot, decoded)| decoded.ok().map(|(generation, stored)| (generation, slot, stored)))
        .filter(|(_, _, stored)| stored.boot_id == boot_id)
        .max_by_key(|(generation, _, _)| *generation);
    if let Some((generation, slot, stored)) = newest {
        let damaged = problems.into_iter().flatten().find(|problem| *problem != SlotError::Blank);
        return Ok(Found { stored, generation, slot, damaged });
    }
    match problems {
        [Some(SlotError::Blank), Some(SlotError::Blank)] => Err(Unusable::Empty),
        [Some(first), Some(second)] => Err(Unusable::Damaged(first, second)),
        _ => Err(Unusable::OtherBoot),
    }
}

fn decode_slot(slot: &[u8]) -> Result<(u64, Stored), SlotError> {
    let header: &[u8; HEADER_BYTES] = match slot.first_chunk() {
        Some(header) if header.iter().all(|byte| *byte == 0) => return Err(SlotError::Blank),
        Some(header) => header,
        None if slot.is_empty() => return Err(SlotError::Blank),
        None => return Err(SlotError::Short),
    };
    let mut fields = header.as_slice();
    if take::<4>(&mut fields) != MAGIC {
        return Err(SlotError::Magic);
    }
    let format = u16::from_le_bytes(take(&mut fields));
    if format != FORMAT {
        return Err(SlotError::Format(format));
    }
    let _reserved: [u8; 2] = take(&mut fields);
    let generation = u64::from_le_bytes(take(&mut fields));
    let length = u32::from_le_bytes(take(&mut fields));
    let checksum = u32::from_le_bytes(take(&mut fields));
    let bytes = usize::try_from(length).map_err(|_| SlotError::Length(length))?;
    if bytes > SLOT_BYTES - HEADER_BYTES {
        return Err(SlotError::Length(length));
    }
    let payload = slot.get(HEADER_BYTES..HEADER_BYTES + bytes).ok_or(SlotError::Short)?;
    if crc(header, payload) != checksum {
        return Err(SlotError::Checksum);
    }
    let stored = postcard::from_bytes(payload).map_err(|_| SlotError::Payload)?;
    Ok((generation, stored))
}

/// The next `N` bytes of a header whose length was checked; zeros past its end.
fn take<const N: usize>(fields: &mut &[u8]) -> [u8; N] {
    match fields.split_first_chunk() {
        Some((taken, rest)) => {
            *fields = rest;
            *taken
        }
        None => [0; N],
    }
}

fn crc(header: &[u8; HEADER_BYTES], payload: &[u8]) -> u32 {
    let (covered, _) = header.split_at(HEADER_BYTES - 4);
    crc32(&[covered, payload])
}

/// Makes one slot's bytes in `slot`, over what was in it. The tuple has the layout of [`Stored`].
pub(super) fn encode_slot(
    slot: &mut Vec<u8>,
    generation: u64,
    boot_id: Id,
    session: &Saved,
    baseline: Option<&Baseline>,
) -> Result<(), StateError> {
    slot.clear();
    slot.extend_from_slice(&MAGIC);
    slot.extend_from_slice(&FORMAT.to_le_bytes());
    slot.extend_from_slice(&[0; 2]);
    slot.extend_from_slice(&generation.to_le_bytes());
    // Length and checksum, once they are known.
    slot.extend_from_slice(&[0; 8]);
    append(&(boot_id, session, baseline), slot).map_err(|_| StateError::TooLarge { bytes: usize::MAX })?;
    let bytes = slot.len() - HEADER_BYTES;
    let length = u32::try_from(bytes).ok().filter(|_| slot.len() <= SLOT_BYTES);
    let length = length.ok_or(StateError::TooLarge { bytes })?;
    let Some((header, payload)) = slot.split_first_chunk_mut::<HEADER_BYTES>() else {
        return Err(StateError::TooLarge { bytes });
    };
    let [.., l0, l1, l2, l3, _, _, _, _] = header;
    [*l0, *l1, *l2, *l3] = length.to_le_bytes();
    let checksum = crc(header, payload).to_le_bytes();
    if let Some(end) = header.last_chunk_mut() {
        *end = checksum;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Nanos;
    use proptest::prelude::*;

    const BOOT: Id = Id([7; 16]);

    fn saved(seq: u64) -> Saved {
        let mut saved = Saved::fresh(Nanos::from_secs(5));
        saved.seq = seq;
        saved
    }

    fn slot(generation: u64, boot_id: Id, seq: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_slot(&mut bytes, generation, boot_id, &saved(seq), None).unwrap();
        bytes
    }

    fn file(first: &[u8], second: &[u8]) -> Vec<u8> {
        let mut bytes = first.to_vec();
        bytes.resize(SLOT_BYTES, 0);
        bytes.extend_from_slice(second);
        bytes
    }

    #[test]
    fn the_newer_slot_wins_wherever_it_lies() {
        let older = slot(4, BOOT, 40);
        let newer = slot(5, BOOT, 50);
        for (bytes, place) in [(file(&older, &newer), 1), (file(&newer, &older), 0)] {
            let found = decode(&bytes, BOOT).unwrap();
            assert_eq!((found.stored.session.seq, found.slot, found.damaged), (50, place, None));
        }
    }

    #[test]
    fn a_torn_slot_leaves_the_other_and_is_named() {
        let older = slot(4, BOOT, 40);
        let mut torn = slot(5, BOOT, 50);
        *torn.last_mut().unwrap() ^= 1;
        let found = decode(&file(&older, &torn), BOOT).unwrap();
        assert_eq!(found.stored.session.seq, 40);
        assert_eq!(found.damaged, Some(SlotError::Checksum));
    }

    /// Literal bytes: a layout that changed without its format's number would be read as other numbers.
    #[test]
    fn the_bytes_of_this_format_are_what_they_were() {
        let hex = include_str!("../../../tests/golden/state-4.hex");
        let told = include_str!("../../../tests/golden/state-4.txt");
        let digits: String = hex.lines().filter(|line| !line.starts_with('#')).collect();
        let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2).unwrap(), 16).unwrap();
        let bytes: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect();
        let found = decode(&bytes, BOOT).unwrap();
        assert_eq!(FORMAT, 4, "a new format has golden bytes of its own");
        assert_eq!(format!("{:?}\n", found.stored), told);
        let mut again = Vec::new();
        let Stored { boot_id, session, baseline } = &found.stored;
        encode_slot(&mut again, found.generation, *boot_id, session, baseline.as_ref()).unwrap();
        assert_eq!(again, bytes);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let whole = slot(1, BOOT, 1);
        let short = whole.get(..whole.len() - 1).unwrap();
        let mut format = whole.clone();
        format[4] = 9;
        let mut length = whole.clone();
        length[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
        let cases: [(&[u8], SlotError); 5] = [
            (short, SlotError::Short),
            (b"short", SlotError::Short),
            (b"garbage that is longer than a header", SlotError::Magic),
            (&format, SlotError::Format(9)),
            (&length, SlotError::Length(u32::MAX)),
        ];
        for (bytes, error) in cases {
            assert_eq!(decode(bytes, BOOT), Err(Unusable::Damaged(error, SlotError::Blank)));
        }
        assert_eq!(decode(b"", BOOT), Err(Unusable::Empty));
        assert_eq!(decode(&[0; FILE_BYTES_MAX], BOOT), Err(Unusable::Empty));
        assert_eq!(decode(&whole, Id([8; 16])), Err(Unusable::OtherBoot));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(&bytes, BOOT).is_err());
        }

        #[test]
        fn a_changed_bit_is_never_taken_for_the_newer_state(at in 0usize..80, bit in 0u8..8) {
            let older = slot(4, BOOT, 40);
            let mut newer = slot(5, BOOT, 50);
            let at = at % newer.len();
            newer[at] ^= 1 << bit;
            prop_assert_eq!(decode(&file(&newer, &older), BOOT).unwrap().stored.session.seq, 40);
        }
    }
}
