//! `guestmeter.report/1`: the JSON of a report, stable from the first release.
//!
//! Unknown is `null`. An integer that may pass 2^53 is a decimal string where its name ends in `_byte_ns` or
//! `_millicpu_ns`; every other one is a number.

use super::client::Reading;
use super::text::acts_on_terminal;
use crate::capacity::{Cpu, Memory};
use crate::meter::{Amounts, Event, Rule, Slice, Usage};
use crate::units::{Bytes, MilliCpu, Nanos};
use crate::wire::message::{Clock, EpochSource, Finding, Id, Identity, Reason, Resumed, Signal, Tail};
use serde::Serialize;

/// Names the shape; another shape gets another name.
pub const SCHEMA: &str = "guestmeter.report/1";
/// The shape of what `listen --json` prints.
pub const NOTIFICATION_SCHEMA: &str = "guestmeter.notification/1";

/// One line of `read --json`, without its newline.
///
/// # Errors
/// None that is known: the document has string keys only, and no floats.
pub fn report(reading: &Reading) -> serde_json::Result<String> {
    serde_json::to_string(&report_document(reading)).map(|text| unsteering(&text))
}

/// One line of `listen --json`: what a guest said unasked, and what its agent says of it, or why it could not be asked;
/// whether it was acknowledged, or why not.
///
/// # Errors
/// As for [`report`].
pub fn notification(
    hint: &Reading,
    evidence: Result<&Reading, &str>,
    acked: Result<(), &str>,
) -> serde_json::Result<String> {
    let document = NotificationDocument {
        schema: NOTIFICATION_SCHEMA,
        hint: report_document(hint),
        evidence: evidence.ok().map(report_document),
        error: evidence.err(),
        acked: acked.is_ok(),
        doubt: acked.err(),
    };
    serde_json::to_string(&document).map(|text| unsteering(&text))
}

/// The `usage` object alone, as `replay` prints it.
///
/// # Errors
/// As for [`report`].
pub fn usage(usage: &Usage) -> serde_json::Result<String> {
    serde_json::to_string(&usage_document(usage))
}

/// One slice of a trace and the event that closed it, as `replay --slices` prints it.
///
/// # Errors
/// As for [`report`].
pub fn slice(event: Event, slice: &Slice) -> serde_json::Result<String> {
    serde_json::to_string(&SliceDocument {
        from_ns: slice.from,
        to_ns: slice.to,
        event,
        rule: slice.rule,
        memory_bytes: slice.rate.memory,
        cpu_millis: slice.rate.cpu,
        counted_ns: slice.counted,
        suspended_ns: slice.suspended,
        dropped: amounts_document(slice.dropped),
    })
}

/// Escapes what a terminal may act on and JSON need not escape: the text of some fields is the guest's.
pub(super) fn unsteering(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if acts_on_terminal(character) {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                escaped.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            escaped.push(character);
        }
    }
    escaped
}

#[derive(Serialize)]
struct SliceDocument {
    from_ns: Option<Nanos>,
    to_ns: Nanos,
    event: Event,
    rule: Rule,
    memory_bytes: Bytes,
    cpu_millis: MilliCpu,
    counted_ns: Nanos,
    suspended_ns: Nanos,
    dropped: AmountsDocument,
}

#[derive(Serialize)]
struct NotificationDocument<'a> {
    schema: &'static str,
    hint: ReportDocument<'a>,
    evidence: Option<ReportDocument<'a>>,
    error: Option<&'a str>,
    acked: bool,
    doubt: Option<&'a str>,
}

#[derive(Serialize)]
struct ReportDocument<'a> {
    schema: &'static str,
    target: String,
    agent: AgentDocument<'a>,
    identity: IdentityDocument<'a>,
    reason: &'static str,
    clock: ClockDocument,
    memory: MemoryDocument,
    cpu: CpuDocument,
    usage: UsageDocument,
    base: UsageDocument,
    resume: Option<ResumeDocument>,
    held: bool,
    findings: Vec<&'static str>,
    segments: SegmentsDocument,
}

#[derive(Serialize)]
struct AgentDocument<'a> {
    version: &'a str,
    git: &'a str,
    protocol: u16,
    capabilities: &'a [String],
}

#[derive(Serialize)]
struct IdentityDocument<'a> {
    boot_id: String,
    sandbox: Option<&'a str>,
    epoch: EpochDocument,
    instance: u32,
    seq: u64,
}

#[derive(Serialize)]
struct EpochDocument {
    id: String,
    source: &'static str,
    number: u64,
}

#[derive(Serialize)]
struct ClockDocument {
    monotonic_ns: Nanos,
    boottime_ns: Nanos,
    realtime_unix_ns: Nanos,
    skew_ns: Option<i64>,
}

#[derive(Serialize)]
struct MemoryDocument {
    boot_bytes: Option<Bytes>,
    requested_bytes: Option<Bytes>,
    plugged_bytes: Option<Bytes>,
    added_bytes: Option<Bytes>,
    online_bytes: Option<Bytes>,
    offline_bytes: Option<Bytes>,
    ballooned_bytes: Option<Bytes>,
    total_bytes: Option<Bytes>,
    mem_total_bytes: Option<Bytes>,
    state: &'static str,
    precision: &'static str,
    lower_bytes: Option<Bytes>,
    upper_bytes: Option<Bytes>,
    sources: Vec<&'static str>,
}

#[derive(Serialize)]
struct CpuDocument {
    online: Option<u32>,
    quota_millis: Option<MilliCpu>,
    weight: Option<u32>,
    effective_millis: MilliCpu,
    usage_ns: Option<Nanos>,
    steal_ns: Option<Nanos>,
    throttled_ns: Option<Nanos>,
}

#[derive(Serialize)]
struct UsageDocument {
    active: ActiveDocument,
    memory: MemoryCountDocument,
    cpu: CpuCountDocument,
    suspended_ns: Nanos,
    uncertain_ns: Nanos,
    rebased: AmountsDocument,
    dropped: AmountsDocument,
    gaps: u64,
    anomalies: u64,
}

#[derive(Serialize)]
struct ActiveDocument {
    seconds: u64,
    carry_ns: u64,
}

#[derive(Serialize)]
struct MemoryCountDocument {
    mib_seconds: u64,
    carry_byte_ns: String,
}

#[derive(Serialize)]
struct CpuCountDocument {
    millicpu_seconds: u64,
    carry_millicpu_ns: String,
}

#[derive(Serialize)]
struct AmountsDocument {
    active_ns: Nanos,
    memory_byte_ns: String,
    cpu_millicpu_ns: String,
}

#[derive(Serialize)]
struct ResumeDocument {
    signal: &'static str,
    detected_monotonic_ns: Nanos,
    latency_ns: Option<Nanos>,
}

#[derive(Serialize)]
struct SegmentsDocument {
    waiting: u32,
    lost: u64,
}

fn report_document(reading: &Reading) -> ReportDocument<'_> {
    let Reading { target, agent, report, skew_ns } = reading;
    ReportDocument {
        schema: SCHEMA,
        target: target.to_string(),
        agent: AgentDocument {
            version: &agent.version,
            git: &agent.git,
            protocol: agent.protocol,
            capabilities: &agent.capabilities,
        },
        identity: identity_document(&report.identity),
        reason: reason_name(report.reason),
        clock: clock_document(report.clock, *skew_ns),
        memory: memory_document(&report.memory),
        cpu: cpu_document(&report.cpu),
        usage: usage_document(&report.usage),
        base: usage_document(&report.base),
        resume: report.resume.map(|resumed| resume_document(resumed, &report.tail)),
        held: report.tail.held,
        findings: report.tail.findings.iter().map(|finding| finding_name(*finding)).collect(),
        segments: SegmentsDocument { waiting: report.tail.segments_waiting, lost: report.tail.segments_lost },
    }
}

fn identity_document(identity: &Identity) -> IdentityDocument<'_> {
    IdentityDocument {
        boot_id: identity.boot_id.to_string(),
        sandbox: identity.sandbox.as_deref(),
        epoch: EpochDocument {
            id: hex(identity.epoch.id),
            source: match identity.epoch.source {
                EpochSource::Provisional => "provisional",
                EpochSource::Host => "host",
            },
            number: identity.epoch.number,
        },
        instance: identity.instance,
        seq: identity.seq,
    }
}

fn clock_document(clock: Clock, skew_ns: Option<i64>) -> ClockDocument {
    ClockDocument {
        monotonic_ns: clock.monotonic,
        boottime_ns: clock.boottime,
        realtime_unix_ns: clock.realtime_unix,
        skew_ns,
    }
}

fn memory_document(memory: &Memory) -> MemoryDocument {
    MemoryDocument {
        boot_bytes: memory.boot,
        requested_bytes: memory.requested,
        plugged_bytes: memory.plugged,
        added_bytes: memory.added,
        online_bytes: memory.online,
        offline_bytes: memory.offline,
        ballooned_bytes: memory.ballooned,
        total_bytes: memory.total(),
        mem_total_bytes: memory.mem_total,
        state: memory.state.name(),
        precision: memory.precision.name(),
        lower_bytes: memory.lower,
        upper_bytes: memory.upper,
        sources: memory.sources.iter().map(|source| source.name()).collect(),
    }
}

fn cpu_document(cpu: &Cpu) -> CpuDocument {
    CpuDocument {
        online: cpu.online,
        quota_millis: cpu.quota,
        weight: cpu.weight,
        effective_millis: cpu.effective,
        usage_ns: cpu.usage,
        steal_ns: cpu.steal,
        throttled_ns: cpu.throttled,
    }
}

fn usage_document(usage: &Usage) -> UsageDocument {
    UsageDocument {
        active: ActiveDocument { seconds: usage.active.whole, carry_ns: usage.active.carry },
        memory: MemoryCountDocument {
            mib_seconds: usage.memory.whole,
            carry_byte_ns: usage.memory.carry.to_string(),
        },
        cpu: CpuCountDocument {
            millicpu_seconds: usage.cpu.whole,
            carry_millicpu_ns: usage.cpu.carry.to_string(),
        },
        suspended_ns: usage.suspended,
        uncertain_ns: usage.uncertain,
        rebased: amounts_document(usage.rebased),
        dropped: amounts_document(usage.dropped),
        gaps: usage.gaps,
        anomalies: usage.anomalies,
    }
}

fn amounts_document(amounts: Amounts) -> AmountsDocument {
    AmountsDocument {
        active_ns: amounts.active,
        memory_byte_ns: amounts.memory.0.to_string(),
        cpu_millicpu_ns: amounts.cpu.0.to_string(),
    }
}

fn resume_document(resumed: Resumed, tail: &Tail) -> ResumeDocument {
    ResumeDocument {
        signal: signal_name(resumed.signal),
        detected_monotonic_ns: resumed.detected,
        latency_ns: tail.latency,
    }
}

pub(super) fn signal_name(signal: Signal) -> &'static str {
    match signal {
        Signal::Host => "host",
        Signal::Vmclock => "vmclock",
        Signal::VsockReset => "vsock_reset",
        Signal::Vmgenid => "vmgenid",
        Signal::Clock => "clock",
    }
}

pub(super) fn finding_name(finding: Finding) -> &'static str {
    match finding {
        Finding::Clone => "clone",
        Finding::Rollback => "rollback",
        Finding::ForeignMark => "foreign_mark",
        Finding::ClockStep => "clock_step",
        Finding::ClockJump => "clock_jump",
        Finding::ConnectionReset => "connection_reset",
    }
}

pub(super) fn reason_name(reason: Reason) -> &'static str {
    match reason {
        Reason::Query => "query",
        Reason::Boot => "boot",
        Reason::Resume => "resume",
        Reason::Capacity => "capacity",
        Reason::Checkpoint => "checkpoint",
        Reason::Settled => "settled",
        Reason::Shutdown => "shutdown",
    }
}

/// 32 hex digits.
pub(super) fn hex(id: Id) -> String {
    id.0.iter().map(|byte| format!("{byte:02x}")).collect()
}
