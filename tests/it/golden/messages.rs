//! The messages that the golden files hold, one function per file.

use guestmeter::capacity::{BootPrecision, Cpu, Memory, MemoryState, Precision, Source};
use guestmeter::meter::{Amounts, Count, Rate, Usage};
use guestmeter::units::{ByteNanos, Bytes, MilliCpu, MilliCpuNanos, Nanos};
use guestmeter::wire::message::{
    Ack, Acked, Agent, Boundary, Checkpoint, Clock, Counters, Epoch, EpochSource, Finding, Hello, Id,
    Identity, Mark, Message, Notify, Reason, Refusal, RefusalCode, Reply, Report, Request, Resume, Resumed,
    Segment, Segments, SegmentsAfter, Signal, Tail, WaitSettled, Watch, Welcome,
};

const BOOT: Id = Id(*b"\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f");
const EPOCH: Id = Id(*b"\xa0\xa1\xa2\xa3\xa4\xa5\xa6\xa7\xa8\xa9\xaa\xab\xac\xad\xae\xaf");
const NAMED: Epoch = Epoch { id: EPOCH, source: EpochSource::Host, number: 42 };
const UNNAMED: Epoch = Epoch { id: Id([0; 16]), source: EpochSource::Provisional, number: 0 };
const NOW_UNIX: Nanos = Nanos::from_secs(1_790_000_000);
const SIZE: Bytes = Bytes::mib(3072);

/// Every golden file of one or more messages, by name.
pub(super) fn all() -> Vec<(&'static str, Vec<Message>)> {
    let request = |request| vec![Message::Request(request)];
    let reply = |reply| vec![Message::Reply(reply)];
    vec![
        ("hello", request(Request::Hello(Hello { version_min: 1, version_max: 300, nonce: u64::MAX }))),
        ("read", request(Request::Read)),
        ("resume", request(Request::Resume(resume()))),
        ("resume-fresh", request(Request::Resume(resume_fresh()))),
        ("checkpoint", request(Request::Checkpoint(checkpoint()))),
        ("ack", request(Request::Ack(Ack { epoch: EPOCH, seq: 128 }))),
        ("wait-settled", request(Request::WaitSettled(wait(Some(SIZE), Nanos::from_secs(10))))),
        ("wait-settled-quiet", request(Request::WaitSettled(wait(None, Nanos(u64::MAX))))),
        ("watch", request(Request::Watch(Watch { interval: Nanos::from_secs(5) }))),
        ("segments-after", request(Request::Segments(SegmentsAfter { epoch: EPOCH, seq: 127 }))),
        ("welcome", reply(Reply::Welcome(welcome()))),
        ("welcome-provisional", reply(Reply::Welcome(welcome_provisional()))),
        ("report", reply(Reply::Report(Box::new(report())))),
        ("report-unknown", reply(Reply::Report(Box::new(report_unknown())))),
        ("report-plain-vm", reply(Reply::Report(Box::new(report_plain_vm())))),
        ("report-variants", report_variants()),
        ("report-tail", reply(Reply::Report(Box::new(Report { tail: tail(), ..report_unknown() })))),
        ("notify-tail", reply(Reply::Notify(Box::new(notify_tail())))),
        ("segments", reply(Reply::Segments(segments()))),
        ("segments-none", reply(Reply::Segments(Segments { segments: vec![], more: false }))),
        ("acked", reply(Reply::Acked(Acked { epoch: EPOCH, seq: 128 }))),
        ("errors", errors()),
        ("notify", reply(Reply::Notify(Box::new(Notify { agent: agent(), report: report() })))),
    ]
}

pub(super) fn checkpoint() -> Checkpoint {
    Checkpoint { epoch: EPOCH, number: 42 }
}

fn wait(expected: Option<Bytes>, timeout: Nanos) -> WaitSettled {
    WaitSettled { expected, quiet: Nanos::from_secs(2), timeout }
}

fn counters() -> Counters {
    Counters {
        active: Count { whole: 86_400, carry: 999_999_999 },
        memory: Count { whole: 353_894_400, carry: 1_048_575_999_999_999 },
        cpu: Count { whole: 172_800_000, carry: 999_999_999 },
        cpu_used: Nanos::from_secs(4321),
    }
}

fn resume() -> Resume {
    Resume {
        epoch: EPOCH,
        number: 42,
        paused: true,
        sandbox: "sandbox-7".to_owned(),
        at: NOW_UNIX,
        mark: Some(Mark { boot_id: BOOT, counters: counters() }),
        requested: Some(SIZE),
        boot: Some(Bytes::mib(1024)),
    }
}

fn resume_fresh() -> Resume {
    Resume { paused: false, sandbox: "ß".to_owned(), mark: None, requested: None, boot: None, ..resume() }
}

fn agent() -> Agent {
    Agent {
        version: "0.1.0".to_owned(),
        git: "0123456789ab".to_owned(),
        protocol: 1,
        capabilities: vec!["watch".to_owned(), "wait-settled".to_owned()],
    }
}

fn welcome() -> Welcome {
    Welcome {
        agent: agent(),
        boot_id: BOOT,
        sandbox: Some("sandbox-7".to_owned()),
        epoch: NAMED,
        seq: 17,
        nonce: u64::MAX,
    }
}

fn welcome_provisional() -> Welcome {
    Welcome { sandbox: None, epoch: UNNAMED, seq: 0, ..welcome() }
}

fn segments() -> Segments {
    let segment = |seq, rate, boundary, [a, b, c, d]: [u64; 4]| Segment {
        epoch: NAMED,
        seq,
        rate,
        boundary,
        usage: Counters {
            active: Count { whole: a, carry: 2 },
            memory: Count { whole: b, carry: 4 },
            cpu: Count { whole: c, carry: 6 },
            cpu_used: Nanos(d),
        },
    };
    let rate = |mib, cpu| Some(Rate { memory: Bytes::mib(mib), cpu: MilliCpu(cpu) });
    Segments {
        segments: vec![
            segment(200, rate(4096, 2000), Boundary::Event, [1, 3, 5, 7]),
            segment(201, rate(4095, 1999), Boundary::Observation, [11, 13, 15, 17]),
            segment(202, None, Boundary::Resume, [21, 23, 25, 27]),
        ],
        more: true,
    }
}

fn errors() -> Vec<Message> {
    let codes = [
        RefusalCode::Unsupported,
        RefusalCode::Version,
        RefusalCode::Malformed,
        RefusalCode::Handshake,
        RefusalCode::StaleEpoch,
        RefusalCode::UnknownEpoch,
        RefusalCode::Busy,
        RefusalCode::Timeout,
        RefusalCode::Internal,
    ];
    let refusal = |(at, code): (usize, RefusalCode)| {
        let latest = (code == RefusalCode::StaleEpoch).then_some(42);
        Message::Reply(Reply::Error(Refusal { code, text: format!("because {at}"), latest }))
    };
    codes.into_iter().enumerate().map(refusal).collect()
}

fn usage() -> Usage {
    let Counters { active, memory, cpu, cpu_used } = counters();
    Usage {
        active,
        memory,
        cpu,
        cpu_used,
        suspended: Nanos::from_secs(7200),
        uncertain: Nanos::from_secs(3),
        rebased: Amounts {
            active: Nanos::from_secs(5),
            memory: Bytes::mib(4096) * Nanos::from_secs(5),
            cpu: MilliCpu(2000) * Nanos::from_secs(5),
            cpu_used: Nanos(7),
        },
        dropped: Amounts {
            active: Nanos((1 << 63) + 1),
            memory: ByteNanos((1 << 127) + 1),
            cpu: MilliCpuNanos(44_000_000_000_000),
            cpu_used: Nanos(44),
        },
        gaps: 2,
        anomalies: 1,
    }
}

fn base() -> Usage {
    Usage {
        active: Count { whole: 43_200, carry: 1 },
        memory: Count { whole: 176_947_200, carry: 2 },
        cpu: Count { whole: 86_400_000, carry: 3 },
        cpu_used: Nanos::from_secs(2000),
        suspended: Nanos::from_secs(3600),
        gaps: 1,
        ..Usage::default()
    }
}

/// A report with every field set, as a sandbox sends it after a resume.
pub(crate) fn report() -> Report {
    Report {
        identity: Identity {
            boot_id: BOOT,
            sandbox: Some("sandbox-7".to_owned()),
            epoch: NAMED,
            instance: 3,
            seq: 17,
        },
        reason: Reason::Resume,
        clock: Clock {
            monotonic: Nanos(86_407_000_000_005),
            boottime: Nanos(90_007_000_000_005),
            realtime_unix: Nanos(NOW_UNIX.0 + 7),
        },
        memory: Memory {
            boot: Some(Bytes::mib(1024)),
            boot_precision: Some(BootPrecision::LowerBound),
            requested: Some(SIZE),
            plugged: Some(SIZE),
            added: Some(Bytes::mib(3200)),
            online: Some(Bytes::mib(3070)),
            offline: Some(Bytes::mib(128)),
            ballooned: Some(Bytes::mib(64)),
            mem_total: Some(Bytes::mib(4000)),
            state: MemoryState::Settled,
            precision: Precision::Bounded,
            lower: Some(Bytes::mib(3070)),
            upper: Some(SIZE),
            sources: vec![
                Source::FirmwareMemmap,
                Source::Iomem,
                Source::MemoryBlocks,
                Source::Zoneinfo,
                Source::DeviceConfig,
            ],
        },
        cpu: Cpu {
            online: Some(2),
            quota: Some(MilliCpu(1500)),
            weight: Some(100),
            shares: Some(1024),
            effective: MilliCpu(1500),
            usage: Some(Nanos::from_secs(4321)),
            steal: Some(Nanos::from_secs(9)),
            throttled: Some(Nanos::from_secs(1)),
        },
        usage: usage(),
        base: base(),
        resume: Some(Resumed {
            signal: Signal::Vmclock,
            detected: Nanos::from_secs(86_407),
            latency_max: Some(Nanos(1_500_000_000)),
        }),
        tail: Tail::default(),
    }
}

fn tail() -> Tail {
    use Finding as F;
    Tail {
        held: true,
        findings: vec![F::Clone, F::Rollback, F::MarkIgnored, F::ClockStep, F::ClockJump, F::ConnectionReset],
        segments_waiting: 3,
        segments_dropped: 300,
        garbage_bytes: 70_000,
    }
}

fn notify_tail() -> Notify {
    Notify { agent: agent(), report: Report { tail: Tail { held: true, ..Tail::default() }, ..report() } }
}

fn report_unknown() -> Report {
    Report {
        identity: Identity { boot_id: BOOT, sandbox: None, epoch: UNNAMED, instance: 1, seq: 1 },
        reason: Reason::Query,
        clock: Clock::default(),
        memory: Memory {
            boot: None,
            boot_precision: None,
            requested: None,
            plugged: None,
            added: None,
            online: None,
            offline: None,
            ballooned: None,
            mem_total: None,
            state: MemoryState::Unknown,
            precision: Precision::Exact,
            lower: None,
            upper: None,
            sources: vec![],
        },
        cpu: Cpu {
            online: None,
            quota: None,
            weight: None,
            shares: None,
            effective: MilliCpu(0),
            usage: None,
            steal: None,
            throttled: None,
        },
        usage: Usage::default(),
        base: Usage::default(),
        resume: None,
        tail: Tail::default(),
    }
}

/// A VM without virtio-mem, 5 s after its boot.
fn report_plain_vm() -> Report {
    let now = Nanos::from_secs(5);
    let unknown = report_unknown();
    Report {
        identity: Identity { seq: 2, ..unknown.identity },
        clock: Clock { monotonic: now, boottime: now, realtime_unix: NOW_UNIX },
        memory: Memory {
            boot: Some(Bytes::mib(512)),
            boot_precision: Some(BootPrecision::Exact),
            requested: None,
            plugged: Some(Bytes::ZERO),
            added: Some(Bytes::ZERO),
            online: Some(Bytes::ZERO),
            offline: Some(Bytes::ZERO),
            ballooned: None,
            mem_total: Some(Bytes::mib(469)),
            state: MemoryState::Settled,
            precision: Precision::Exact,
            lower: Some(Bytes::ZERO),
            upper: Some(Bytes::ZERO),
            sources: vec![Source::FirmwareMemmap, Source::Meminfo, Source::VirtioBus],
        },
        cpu: Cpu {
            online: Some(1),
            effective: MilliCpu(1000),
            usage: Some(Nanos::from_secs(4321)),
            steal: Some(Nanos::ZERO),
            ..unknown.cpu
        },
        usage: Usage {
            active: Count { whole: 5, carry: 0 },
            memory: Count { whole: 2560, carry: 0 },
            cpu: Count { whole: 5000, carry: 0 },
            ..Usage::default()
        },
        ..unknown
    }
}

/// One report per reason; the other enums run along in the order of their numbers.
fn report_variants() -> Vec<Message> {
    use {MemoryState as M, Reason as R, Signal as S};
    let every = [
        (R::Query, M::Settled, Some(S::Host)),
        (R::Boot, M::Plugging, Some(S::Vmclock)),
        (R::Resume, M::Unplugging, Some(S::VsockReset)),
        (R::Capacity, M::Short, Some(S::Vmgenid)),
        (R::Checkpoint, M::Over, Some(S::Clock)),
        (R::Settled, M::Unknown, None),
        (R::Shutdown, M::Settled, None),
    ];
    (0u64..).zip(every).map(|(seq, (reason, state, signal))| variant(seq, reason, state, signal)).collect()
}

fn variant(seq: u64, reason: Reason, state: MemoryState, signal: Option<Signal>) -> Message {
    let (source, precision) = match seq % 2 {
        0 => (EpochSource::Provisional, Precision::Exact),
        _ => (EpochSource::Host, Precision::Bounded),
    };
    let latency_max = (seq % 2 == 1).then_some(Nanos(seq));
    let boot_precision = match seq % 4 {
        1 => Some(BootPrecision::Exact),
        2 => Some(BootPrecision::LowerBound),
        3 => Some(BootPrecision::UpperBound),
        _ => None,
    };
    let sources = if seq == 0 { every_source() } else { vec![] };
    let unknown = report_unknown();
    let epoch = Epoch { source, ..UNNAMED };
    Message::Reply(Reply::Report(Box::new(Report {
        identity: Identity { boot_id: Id::default(), epoch, instance: 0, seq, sandbox: None },
        reason,
        memory: Memory { state, boot_precision, precision, sources, ..unknown.memory.clone() },
        resume: signal.map(|signal| Resumed { signal, detected: Nanos(seq), latency_max }),
        ..unknown
    })))
}

fn every_source() -> Vec<Source> {
    vec![
        Source::FirmwareMemmap,
        Source::DeviceTree,
        Source::Host,
        Source::Iomem,
        Source::MemoryBlocks,
        Source::Zoneinfo,
        Source::Kpageflags,
        Source::SavedBaseline,
        Source::Meminfo,
        Source::Vmstat,
        Source::DeviceConfig,
    ]
}
