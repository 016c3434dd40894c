//! `guestmeter.report/1`, against a document written by hand from the protocol's page.

use guestmeter::capacity::{BootPrecision, Cpu, Memory, MemoryState, Precision, Source};
use guestmeter::host::{Reading, json};
use guestmeter::meter::{Amounts, Count, Usage};
use guestmeter::units::{ByteNanos, Bytes, MilliCpu, MilliCpuNanos, Nanos};
use guestmeter::wire::message::{
    Agent, Clock, Epoch, EpochSource, Finding, Id, Identity, Reason, Report, Resumed, Signal, Tail,
};

fn reading() -> Reading {
    let amounts = |active, memory, cpu| Amounts {
        active: Nanos(active),
        memory: ByteNanos(memory),
        cpu: MilliCpuNanos(cpu),
        cpu_used: Nanos::ZERO,
    };
    let usage = Usage {
        active: Count { whole: 3900, carry: 999_999_999 },
        memory: Count { whole: 2_496_000, carry: 1_048_575_999_999_999 },
        cpu: Count { whole: 5_850_000, carry: 7 },
        cpu_used: Nanos::ZERO,
        suspended: Nanos(11),
        uncertain: Nanos(12),
        rebased: amounts(1, u128::MAX, 2),
        dropped: amounts(u64::MAX, 3, u128::MAX),
        gaps: 4,
        anomalies: 5,
    };
    Reading {
        target: "vsock://42".parse().unwrap(),
        agent: Agent {
            version: "0.1.0".to_owned(),
            git: "0123456789ab".to_owned(),
            protocol: 1,
            capabilities: vec!["watch".to_owned(), "wait-settled".to_owned()],
        },
        report: Report {
            identity: Identity {
                boot_id: Id([
                    0xc1, 0x76, 0x43, 0xce, 0x02, 0x69, 0x48, 0x6e, 0xb7, 0x79, 0xe3, 0xef, 0x0c, 0x36, 0xcf,
                    0x86,
                ]),
                sandbox: Some("sb \"7\"\u{1b}".to_owned()),
                epoch: Epoch { id: Id([0x0a; 16]), source: EpochSource::Host, number: 17 },
                instance: 2,
                seq: 31,
            },
            reason: Reason::Capacity,
            clock: Clock {
                monotonic: Nanos(7_428_656_269_738),
                boottime: Nanos(7_428_656_269_928),
                realtime_unix: Nanos(1_795_493_553_162_328_648),
            },
            memory: Memory {
                boot: Some(Bytes::mib(512)),
                boot_precision: Some(BootPrecision::LowerBound),
                requested: Some(Bytes::mib(130)),
                plugged: Some(Bytes::mib(128)),
                added: Some(Bytes::mib(256)),
                online: Some(Bytes::mib(127)),
                offline: Some(Bytes::ZERO),
                ballooned: Some(Bytes(4096)),
                mem_total: Some(Bytes(555_886_592)),
                state: MemoryState::Plugging,
                precision: Precision::Bounded,
                lower: Some(Bytes::mib(126)),
                upper: Some(Bytes::mib(128)),
                sources: vec![Source::Iomem, Source::Zoneinfo, Source::SavedBaseline],
            },
            cpu: Cpu {
                online: Some(2),
                quota: Some(MilliCpu(1500)),
                weight: Some(100),
                shares: Some(1024),
                effective: MilliCpu(1500),
                usage: Some(Nanos(81)),
                steal: Some(Nanos(82)),
                throttled: Some(Nanos(83)),
            },
            usage,
            base: Usage::default(),
            resume: Some(Resumed {
                signal: Signal::VsockReset,
                detected: Nanos(99),
                latency_max: Some(Nanos(7)),
            }),
            tail: Tail {
                held: true,
                findings: vec![Finding::Clone, Finding::ClockStep],
                segments_waiting: 3,
                segments_dropped: 1 << 40,
                garbage_bytes: 5,
            },
        },
        skew_ns: Some(-125_770),
    }
}

const TAIL: &str = r#""held":true,"findings":["clone","clock_step"],"segments_waiting":3,"segments_dropped":1099511627776,"garbage_bytes":5"#;

const ZERO_USAGE: &str = concat!(
    r#"{"active":{"seconds":0,"carry_ns":0},"memory":{"mib_seconds":0,"carry_byte_ns":"0"},"#,
    r#""cpu":{"millicpu_seconds":0,"carry_millicpu_ns":"0"},"suspended_ns":"0","uncertain_ns":"0","#,
    r#""rebased":{"active_ns":"0","memory_byte_ns":"0","cpu_millicpu_ns":"0"},"#,
    r#""dropped":{"active_ns":"0","memory_byte_ns":"0","cpu_millicpu_ns":"0"},"gaps":0,"anomalies":0}"#,
);

#[test]
fn every_field_stands_where_the_protocol_says() {
    let expected = concat!(
        r#"{"schema":"guestmeter.report/1","target":"vsock://42:1020","#,
        r#""agent":{"version":"0.1.0","git":"0123456789ab","protocol":1,"capabilities":["watch","wait-settled"]},"#,
        r#""identity":{"boot_id":"c17643ce-0269-486e-b779-e3ef0c36cf86","sandbox":"sb \"7\"\u001b","#,
        r#""epoch":{"id":"0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a","source":"host","number":"17"},"instance":2,"seq":31},"#,
        r#""reason":"capacity","#,
        r#""clock":{"monotonic_ns":"7428656269738","boottime_ns":"7428656269928","#,
        r#""realtime_unix_ns":"1795493553162328648","skew_ns":"-125770"},"#,
        r#""memory":{"boot_bytes":536870912,"boot_precision":"lower_bound","requested_bytes":136314880,"plugged_bytes":134217728,"#,
        r#""added_bytes":268435456,"online_bytes":133169152,"offline_bytes":0,"ballooned_bytes":4096,"#,
        r#""total_bytes":671088640,"mem_total_bytes":555886592,"state":"plugging","precision":"bounded","#,
        r#""lower_bytes":132120576,"upper_bytes":134217728,"sources":["iomem","zoneinfo","saved_baseline"]},"#,
        r#""cpu":{"online":2,"quota_millis":1500,"weight":100,"shares":1024,"effective_millis":1500,"usage_ns":"81","#,
        r#""steal_ns":"82","throttled_ns":"83"},"#,
        r#""usage":{"active":{"seconds":3900,"carry_ns":999999999},"#,
        r#""memory":{"mib_seconds":2496000,"carry_byte_ns":"1048575999999999"},"#,
        r#""cpu":{"millicpu_seconds":5850000,"carry_millicpu_ns":"7"},"suspended_ns":"11","uncertain_ns":"12","#,
        r#""rebased":{"active_ns":"1","memory_byte_ns":"340282366920938463463374607431768211455","#,
        r#""cpu_millicpu_ns":"2"},"#,
        r#""dropped":{"active_ns":"18446744073709551615","memory_byte_ns":"3","#,
        r#""cpu_millicpu_ns":"340282366920938463463374607431768211455"},"gaps":4,"anomalies":5},"base":"#,
    );
    let expected = format!(
        r#"{expected}{ZERO_USAGE},"resume":{{"signal":"vsock_reset","detected_monotonic_ns":"99","latency_max_ns":"7"}},{TAIL}}}"#
    );
    assert_eq!(json::report(&reading()).unwrap(), expected);
}

#[test]
fn what_is_unknown_is_null_and_never_zero() {
    let mut reading = reading();
    let report = &mut reading.report;
    report.identity.sandbox = None;
    report.identity.epoch = Epoch::default();
    report.resume = None;
    report.tail = Tail::default();
    reading.skew_ns = None;
    let memory = &mut report.memory;
    memory.boot_precision = None;
    for unknown in [
        &mut memory.boot,
        &mut memory.requested,
        &mut memory.added,
        &mut memory.online,
        &mut memory.offline,
        &mut memory.ballooned,
        &mut memory.mem_total,
        &mut memory.lower,
        &mut memory.upper,
    ] {
        *unknown = None;
    }
    memory.state = MemoryState::Unknown;
    memory.sources.clear();
    report.cpu.online = None;
    report.cpu.quota = None;
    report.cpu.weight = None;
    report.cpu.shares = None;
    report.cpu.usage = None;
    report.cpu.steal = None;
    report.cpu.throttled = None;
    let text = json::report(&reading).unwrap();
    for part in [
        r#""sandbox":null,"epoch":{"id":"00000000000000000000000000000000","source":"provisional","number":"0"}"#,
        r#""skew_ns":null}"#,
        r#""memory":{"boot_bytes":null,"boot_precision":null,"requested_bytes":null,"plugged_bytes":134217728,"added_bytes":null,"#,
        r#""online_bytes":null,"offline_bytes":null,"ballooned_bytes":null,"total_bytes":null,"#,
        r#""mem_total_bytes":null,"state":"unknown","precision":"bounded","lower_bytes":null,"upper_bytes":null,"#,
        r#""sources":[]},"cpu":{"online":null,"quota_millis":null,"weight":null,"shares":null,"effective_millis":1500,"#,
        r#""usage_ns":null,"steal_ns":null,"throttled_ns":null}"#,
        r#""resume":null,"held":false,"findings":[],"segments_waiting":0,"segments_dropped":0,"garbage_bytes":0}"#,
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[test]
fn a_name_cannot_steer_the_terminal_and_stays_the_same_name() {
    let mut reading = reading();
    let name = "a\u{9b}2J\u{202e}b\u{7f}ü";
    reading.report.identity.sandbox = Some(name.to_owned());
    let text = json::report(&reading).unwrap();
    assert!(text.contains(r#""sandbox":"a\u009b2J\u202eb\u007fü""#), "{text}");
    let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(parsed["identity"]["sandbox"], name);
}

#[test]
fn each_word_is_the_protocols() {
    let mut reading = reading();
    for (reason, word) in [
        (Reason::Query, "query"),
        (Reason::Boot, "boot"),
        (Reason::Resume, "resume"),
        (Reason::Capacity, "capacity"),
        (Reason::Checkpoint, "checkpoint"),
        (Reason::Settled, "settled"),
        (Reason::Shutdown, "shutdown"),
    ] {
        reading.report.reason = reason;
        let text = json::report(&reading).unwrap();
        assert!(text.contains(&format!(r#""reason":"{word}""#)), "{text}");
    }
    for (signal, word) in [
        (Signal::Host, "host"),
        (Signal::Vmclock, "vmclock"),
        (Signal::Vmgenid, "vmgenid"),
        (Signal::Clock, "clock"),
    ] {
        reading.report.resume = Some(Resumed { signal, detected: Nanos(1), latency_max: None });
        let text = json::report(&reading).unwrap();
        assert!(text.contains(&format!(r#""resume":{{"signal":"{word}""#)), "{text}");
    }
    for (finding, word) in [
        (Finding::Clone, "clone"),
        (Finding::Rollback, "rollback"),
        (Finding::MarkIgnored, "mark_ignored"),
        (Finding::ClockStep, "clock_step"),
        (Finding::ClockJump, "clock_jump"),
        (Finding::ConnectionReset, "connection_reset"),
    ] {
        reading.report.tail.findings = vec![finding];
        let text = json::report(&reading).unwrap();
        assert!(text.contains(&format!(r#""findings":["{word}"]"#)), "{text}");
    }
}
