//! The longest of everything: it fits a frame, and one more is refused on both sides by the field's name.

use super::{frames, payload_of};
use crate::golden;
use guestmeter::capacity::Source;
use guestmeter::meter::{Amounts, Count, Rate, Usage};
use guestmeter::units::{ByteNanos, Bytes, MilliCpu, MilliCpuNanos, Nanos};
use guestmeter::wire::codec::{LIST_MAX, SANDBOX_MAX, SEGMENTS_MAX, TEXT_MAX, WORD_MAX};
use guestmeter::wire::frame::{HEADER_LEN, PAYLOAD_MAX};
use guestmeter::wire::message::{
    Agent, Boundary, Counters, Epoch, EpochSource, Id, Message, Notify, RefusalCode, Reply, Report, Request,
    Resume, Segment, Segments, Welcome,
};
use guestmeter::wire::{DecodeError, Frame, decode, encode};

const EPOCH: Epoch = Epoch { id: Id([0xff; 16]), source: EpochSource::Host, number: u64::MAX };
const COUNTERS: Counters = Counters {
    active: Count { whole: u64::MAX, carry: u64::MAX },
    memory: Count { whole: u64::MAX, carry: u64::MAX },
    cpu: Count { whole: u64::MAX, carry: u64::MAX },
    cpu_used: Nanos(u64::MAX),
};

/// What may be too long, and by how much it is here.
#[derive(Default)]
struct Excess {
    sandbox: usize,
    text: usize,
    version: usize,
    git: usize,
    capability: usize,
    capabilities: usize,
    sources: usize,
    segments: usize,
}

impl Excess {
    fn resume(&self) -> Message {
        let sandbox = "x".repeat(SANDBOX_MAX + self.sandbox);
        let at = Nanos(u64::MAX);
        let (epoch, number) = (EPOCH.id, EPOCH.number);
        Message::Request(Request::Resume(Resume {
            epoch,
            number,
            paused: true,
            sandbox,
            at,
            mark: None,
            requested: None,
            boot: None,
        }))
    }

    fn agent(&self) -> Agent {
        Agent {
            version: "v".repeat(WORD_MAX + self.version),
            git: "g".repeat(WORD_MAX + self.git),
            protocol: u16::MAX,
            capabilities: vec!["c".repeat(WORD_MAX + self.capability); LIST_MAX + self.capabilities],
        }
    }

    fn welcome(&self) -> Message {
        Message::Reply(Reply::Welcome(Welcome {
            agent: self.agent(),
            boot_id: EPOCH.id,
            sandbox: Some("x".repeat(SANDBOX_MAX + self.sandbox)),
            epoch: EPOCH,
            seq: u64::MAX,
            nonce: u64::MAX,
        }))
    }

    fn long_report(&self) -> Report {
        let amounts = Amounts {
            active: Nanos(u64::MAX),
            memory: ByteNanos(u128::MAX),
            cpu: MilliCpuNanos(u128::MAX),
            cpu_used: Nanos(u64::MAX),
        };
        let usage = Usage {
            active: COUNTERS.active,
            memory: COUNTERS.memory,
            cpu: COUNTERS.cpu,
            cpu_used: COUNTERS.cpu_used,
            suspended: Nanos(u64::MAX),
            uncertain: Nanos(u64::MAX),
            rebased: amounts,
            dropped: amounts,
            gaps: u64::MAX,
            anomalies: u64::MAX,
        };
        let mut report = golden::full_report();
        report.identity.sandbox = Some("x".repeat(SANDBOX_MAX + self.sandbox));
        report.memory.sources = vec![Source::DeviceConfig; LIST_MAX + self.sources];
        Report { usage, base: usage, ..report }
    }

    fn report(&self) -> Message {
        Message::Reply(Reply::Report(Box::new(self.long_report())))
    }

    fn notify(&self) -> Message {
        Message::Reply(Reply::Notify(Box::new(Notify { agent: self.agent(), report: self.long_report() })))
    }

    fn segments(&self) -> Message {
        let segment = Segment {
            epoch: EPOCH,
            seq: u64::MAX,
            rate: Some(Rate { memory: Bytes(u64::MAX), cpu: MilliCpu(u64::MAX) }),
            boundary: Boundary::Resume,
            usage: COUNTERS,
        };
        let segments = vec![segment; SEGMENTS_MAX + self.segments];
        Message::Reply(Reply::Segments(Segments { segments, more: true }))
    }

    fn error(&self) -> Message {
        let text = "t".repeat(TEXT_MAX + self.text);
        Message::Reply(Reply::Error(RefusalCode::Internal.because(text)))
    }
}

#[test]
fn the_longest_messages_fit_a_frame() {
    let at = Excess::default();
    for message in [at.resume(), at.welcome(), at.report(), at.notify(), at.segments(), at.error()] {
        let mut bytes = Vec::new();
        encode(&message, &mut bytes).unwrap();
        assert!(bytes.len() <= HEADER_LEN + PAYLOAD_MAX);
        let got: Vec<Message> = frames(&bytes).iter().map(|frame| decode(frame).unwrap()).collect();
        assert_eq!(got, [message]);
    }
}

#[test]
fn one_more_is_refused_on_both_sides() {
    let none = Excess::default;
    for (message, named) in [
        (Excess { sandbox: 1, ..none() }.resume(), "sandbox has 129 (at most 128)"),
        (Excess { sandbox: 1, ..none() }.welcome(), "sandbox has 129 (at most 128)"),
        (Excess { sandbox: 1, ..none() }.report(), "sandbox has 129 (at most 128)"),
        (Excess { sandbox: 1, ..none() }.notify(), "sandbox has 129 (at most 128)"),
        (Excess { version: 1, ..none() }.welcome(), "agent.version has 65 (at most 64)"),
        (Excess { version: 1, ..none() }.notify(), "agent.version has 65 (at most 64)"),
        (Excess { git: 1, ..none() }.welcome(), "agent.git has 65 (at most 64)"),
        (Excess { capability: 1, ..none() }.welcome(), "a capability has 65 (at most 64)"),
        (Excess { capabilities: 1, ..none() }.notify(), "agent.capabilities has 33 (at most 32)"),
        (Excess { sources: 1, ..none() }.report(), "memory.sources has 33 (at most 32)"),
        (Excess { sources: 1, ..none() }.notify(), "memory.sources has 33 (at most 32)"),
        (Excess { segments: 1, ..none() }.segments(), "segments has 65 (at most 64)"),
        (Excess { text: 1, ..none() }.error(), "text has 1025 (at most 1024)"),
    ] {
        let mut bytes = Vec::new();
        assert_eq!(encode(&message, &mut bytes).unwrap_err().to_string(), named);
        assert!(bytes.is_empty(), "half a frame was left in the buffer");
        let (kind, payload) = payload_of(&message);
        let error = decode(&Frame { format: 1, kind, flags: 0, payload }).unwrap_err();
        assert!(matches!(error, DecodeError::Limit { .. }), "{error}");
        assert!(error.to_string().ends_with(named), "{error}");
    }
}
