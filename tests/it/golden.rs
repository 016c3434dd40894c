//! The bytes of protocol version 1, pinned. The files were written by a second implementation, from the spec alone.
//!
//! A file is hex digits with `#` comments, one or more frames long. Files are only ever added.

mod decoded;
mod messages;

pub(crate) use messages::report as full_report;

use guestmeter::capacity::{BootPrecision, MemoryState, Source};
use guestmeter::wire::message::{Finding, Message, Reason, RefusalCode, Reply, Request, Signal};
use guestmeter::wire::{DecodeError, Decoder, Frame, decode, encode};
use serde::de::DeserializeOwned;
use std::collections::{BTreeSet, HashSet};
use std::mem::discriminant;
use std::path::PathBuf;

/// What reading a report costs on the wire: a day-old sandbox with every field set, header included.
const TYPICAL_REPORT_MAX: usize = 348;

/// The files that hold no message of their own.
const FRAME_RULES: [&str; 7] = [
    "appended-fields",
    "refused-crc",
    "refused-flags",
    "refused-format",
    "refused-kind",
    "refused-limit",
    "refused-payload",
];

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

fn golden(name: &str) -> Vec<u8> {
    let path = directory().join(format!("{name}.hex"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let digits = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let bytes = digits.flat_map(str::split_ascii_whitespace).map(|byte| u8::from_str_radix(byte, 16));
    bytes.collect::<Result<_, _>>().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The bytes of every file, for other tests to begin from.
pub(crate) fn every_file() -> Vec<Vec<u8>> {
    let messages = messages::all();
    messages.iter().map(|(name, _)| *name).chain(FRAME_RULES).map(golden).collect()
}

/// The frames of a file, with nothing left over, and the bytes that were skipped as garbage.
fn frames(name: &str) -> (Vec<Frame>, u64) {
    let mut decoder = Decoder::new();
    decoder.push(&golden(name));
    let frames: Vec<Frame> = std::iter::from_fn(|| decoder.next().unwrap()).collect();
    assert!(!decoder.is_mid_frame(), "{name}: bytes left over");
    (frames, decoder.garbage_bytes())
}

fn refusal(name: &str) -> DecodeError {
    let (frames, garbage) = frames(name);
    assert_eq!((frames.len(), garbage), (1, 0), "{name}");
    decode(&frames[0]).unwrap_err()
}

#[test]
fn every_message_encodes_to_its_golden_bytes() {
    for (name, messages) in messages::all() {
        let mut bytes = Vec::new();
        for message in &messages {
            encode(message, &mut bytes).unwrap();
        }
        assert_eq!(bytes, golden(name), "{name}: do not change the file, it is what the field speaks");
    }
}

#[test]
fn every_golden_file_decodes_to_its_message() {
    for (name, messages) in messages::all() {
        let (frames, garbage) = frames(name);
        assert_eq!(garbage, 0, "{name}");
        let decoded: Vec<Message> = frames.iter().map(|frame| decode(frame).unwrap()).collect();
        assert_eq!(decoded, messages, "{name}");
    }
}

#[test]
fn every_golden_file_is_tested_and_warns_its_reader() {
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(directory()).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("\n# If a test fails on this file, do not change the file:"), "{path:?}");
        assert_eq!(path.extension().unwrap(), "hex", "{path:?}");
        files.insert(path.file_stem().unwrap().to_str().unwrap().to_owned());
    }
    let messages = messages::all();
    let tested = messages.iter().map(|(name, _)| *name).chain(FRAME_RULES);
    assert_eq!(files, tested.map(str::to_owned).collect());
}

#[test]
fn every_kind_of_message_has_a_golden_file() {
    let messages = messages::all();
    let kinds: BTreeSet<u8> =
        messages.iter().flat_map(|(name, _)| frames(name).0).map(|frame| frame.kind).collect();
    let known = (0..=u8::MAX).filter(|&kind| {
        let frame = Frame { format: 1, kind, flags: 0, payload: vec![] };
        !matches!(decode(&frame), Err(DecodeError::Kind(_)))
    });
    assert_eq!(kinds, known.collect());
}

/// How many variants the enum has: postcard numbers them from 0.
fn variants<T: DeserializeOwned>() -> usize {
    (0..128u8).filter(|number| postcard::from_bytes::<T>(&[*number]).is_ok()).count()
}

#[test]
fn every_variant_of_an_enum_stands_in_a_golden_file() {
    let (mut sources, mut findings) = (BTreeSet::new(), BTreeSet::new());
    let (mut reasons, mut states, mut signals, mut codes) =
        (HashSet::new(), HashSet::new(), HashSet::new(), HashSet::new());
    let mut boots = HashSet::new();
    for message in messages::all().into_iter().flat_map(|(_, messages)| messages) {
        match message {
            Message::Reply(Reply::Report(report)) => {
                sources.extend(report.memory.sources);
                findings.extend(report.tail.findings);
                boots.extend(report.memory.boot_precision.as_ref().map(discriminant));
                reasons.insert(discriminant(&report.reason));
                states.insert(discriminant(&report.memory.state));
                signals.extend(report.resume.map(|resume| discriminant(&resume.signal)));
            }
            Message::Reply(Reply::Error(refusal)) => {
                codes.insert(discriminant(&refusal.code));
            }
            _ => {}
        }
    }
    assert_eq!(sources.len(), variants::<Source>());
    assert_eq!(findings.len(), variants::<Finding>());
    assert_eq!(boots.len(), variants::<BootPrecision>());
    assert_eq!(reasons.len(), variants::<Reason>());
    assert_eq!(states.len(), variants::<MemoryState>());
    assert_eq!(signals.len(), variants::<Signal>());
    assert_eq!(codes.len(), variants::<RefusalCode>());
}

#[test]
fn appended_fields_are_ignored() {
    let (frames, _) = frames("appended-fields");
    assert_eq!(decode(&frames[0]).unwrap(), Message::Request(Request::Checkpoint(messages::checkpoint())));
}

#[test]
fn a_wrong_checksum_is_skipped_and_the_frame_behind_it_found() {
    let (frames, garbage) = frames("refused-crc");
    assert_eq!(garbage, 16);
    assert_eq!(
        frames.iter().map(|frame| decode(frame).unwrap()).collect::<Vec<_>>(),
        [Message::Request(Request::Read)]
    );
}

#[test]
fn what_is_refused_is_named() {
    for (name, text) in [
        ("refused-flags", "frame flags 0x0100 (none are known)"),
        ("refused-format", "frame format 2 (this build reads 1)"),
        ("refused-kind", "message kind 0x7f is not known"),
        ("refused-limit", "message kind 0x03: sandbox has 129 (at most 128)"),
        ("refused-payload", "payload of message kind 0x04: Hit the end of buffer, expected more data"),
    ] {
        assert_eq!(refusal(name).to_string(), text, "{name}");
    }
}

#[test]
fn a_typical_report_stays_small() {
    let mut bytes = Vec::new();
    encode(&Message::Reply(Reply::Report(Box::new(messages::report()))), &mut bytes).unwrap();
    assert!(bytes.len() <= TYPICAL_REPORT_MAX, "{} bytes", bytes.len());
}
