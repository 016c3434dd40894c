//! Any state file: a state that can be counted on and saved again, or the reason why there is none.

use guestmeter::agent::state::{self, SLOT_BYTES, Stored};
use guestmeter::meter::{Event, Rate};
use guestmeter::units::{Bytes, MilliCpu, Nanos};
use guestmeter::wire::message::Id;

/// The boot that the state must belong to.
const BOOT: Id = Id([7; 16]);

/// The first byte says what the rest is: a file, the payload of one slot, or those of two, half each.
pub fn check(data: &[u8]) {
    let Some((how, rest)) = data.split_first() else { return };
    let file = match how % 3 {
        0 => rest.to_vec(),
        1 => slot(1, rest),
        _ => two_slots(rest),
    };
    if let Ok(found) = state::decode(&file, BOOT) {
        assert_eq!(found.stored.boot_id, BOOT);
        assert!(found.slot < 2);
        goes_on(found.stored);
    }
}

fn two_slots(payloads: &[u8]) -> Vec<u8> {
    let (first, second) = payloads.split_at(payloads.len() / 2);
    let mut file = slot(1, first);
    file.resize(SLOT_BYTES, 0);
    file.extend(slot(2, second));
    file
}

fn slot(generation: u64, payload: &[u8]) -> Vec<u8> {
    let payload = payload.get(..payload.len().min(SLOT_BYTES - 24)).unwrap_or_default();
    let length = u32::try_from(payload.len()).expect("less than a slot");
    let mut slot = b"GMST\x01\0\0\0".to_vec();
    slot.extend(generation.to_le_bytes());
    slot.extend(length.to_le_bytes());
    const ISO_HDLC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
    let mut crc = ISO_HDLC.digest();
    crc.update(&slot);
    crc.update(payload);
    slot.extend(crc.finalize().to_le_bytes());
    slot.extend(payload);
    slot
}

/// A checksum proves nothing about the values: the meter goes on from any of them.
fn goes_on(stored: Stored) {
    let mut meter = stored.session.meter;
    let rate = Rate { memory: Bytes::mib(1024), cpu: MilliCpu(1000) };
    for event in [Event::Tick, Event::Checkpoint, Event::Resume, Event::Release] {
        let (from, before) = (meter.last().map_or(Nanos::ZERO, |(from, _)| from), *meter.usage());
        for now in [from, from.saturating_add(Nanos::from_secs(7)), Nanos(u64::MAX), Nanos::ZERO] {
            meter.observe(now, rate, event);
        }
        assert!(meter.usage().active.whole >= before.active.whole);
        assert!(meter.usage().memory.whole >= before.memory.whole);
        assert!(meter.usage().cpu.whole >= before.cpu.whole);
    }
}
