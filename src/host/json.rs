//! `guestmeter.report/1`: the JSON of a report, stable from the first release.
//!
//! Unknown is `null`. What may pass 2^53 is a decimal string: integers whose names end in `_ns`, but for `carry_ns`, which
//! is less than a second; and an epoch's number, which may be a Unix time. Every other integer is a number.

use super::client::Reading;
use super::json_integer::Wide;
use super::text::acts_on_terminal;
use crate::capacity::{BootPrecision, Cpu, Memory};
use crate::meter::{Amounts, Event, Rule, Slice, Usage};
use crate::units::{Bytes, MilliCpu, Nanos};
use crate::wire::message::{Clock, EpochSource, Finding, Id, Identity, Reason, Resumed, Signal};
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
        from_ns: slice.from.map(nanos),
        to_ns: nanos(slice.to),
        event,
        rule: slice.rule,
        memory_bytes: slice.rate.memory,
        cpu_millis: slice.rate.cpu,
        counted_ns: nanos(slice.counted),
        suspended_ns: nanos(slice.suspended),
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
    from_ns: Option<Wide<u64>>,
    to_ns: Wide<u64>,
    event: Event,
    rule: Rule,
    memory_bytes: Bytes,
    cpu_millis: MilliCpu,
    counted_ns: Wide<u64>,
    suspended_ns: Wide<u64>,
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
    segments_waiting: u32,
    segments_dropped: u64,
    garbage_bytes: u64,
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
    number: Wide<u64>,
}

#[derive(Serialize)]
struct ClockDocument {
    monotonic_ns: Wide<u64>,
    boottime_ns: Wide<u64>,
    realtime_unix_ns: Wide<u64>,
    skew_ns: Option<Wide<i64>>,
}

#[derive(Serialize)]
struct MemoryDocument {
    boot_bytes: Option<Bytes>,
    boot_precision: Option<&'static str>,
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
    shares: Option<u32>,
    effective_millis: MilliCpu,
    usage_ns: Option<Wide<u64>>,
    steal_ns: Option<Wide<u64>>,
    throttled_ns: Option<Wide<u64>>,
}

#[derive(Serialize)]
struct UsageDocument {
    active: ActiveDocument,
    memory: MemoryCountDocument,
    cpu: CpuCountDocument,
    suspended_ns: Wide<u64>,
    uncertain_ns: Wide<u64>,
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
    carry_byte_ns: Wide<u64>,
}

#[derive(Serialize)]
struct CpuCountDocument {
    millicpu_seconds: u64,
    carry_millicpu_ns: Wide<u64>,
}

#[derive(Serialize)]
struct AmountsDocument {
    active_ns: Wide<u64>,
    memory_byte_ns: Wide<u128>,
    cpu_millicpu_ns: Wide<u128>,
}

#[derive(Serialize)]
struct ResumeDocument {
    signal: &'static str,
    detected_monotonic_ns: Wide<u64>,
    latency_max_ns: Option<Wide<u64>>,
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
        resume: report.resume.map(resume_document),
        held: report.tail.held,
        findings: report.tail.findings.iter().map(|finding| finding_name(*finding)).collect(),
        segments_waiting: report.tail.segments_waiting,
        segments_dropped: report.tail.segments_dropped,
        garbage_bytes: report.tail.garbage_bytes,
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
            number: Wide(identity.epoch.number),
        },
        instance: identity.instance,
        seq: identity.seq,
    }
}

fn clock_document(clock: Clock, skew_ns: Option<i64>) -> ClockDocument {
    ClockDocument {
        monotonic_ns: nanos(clock.monotonic),
        boottime_ns: nanos(clock.boottime),
        realtime_unix_ns: nanos(clock.realtime_unix),
        skew_ns: skew_ns.map(Wide),
    }
}

fn memory_document(memory: &Memory) -> MemoryDocument {
    MemoryDocument {
        boot_bytes: memory.boot,
        boot_precision: memory.boot_precision.map(BootPrecision::name),
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
        shares: cpu.shares,
        effective_millis: cpu.effective,
        usage_ns: cpu.usage.map(nanos),
        steal_ns: cpu.steal.map(nanos),
        throttled_ns: cpu.throttled.map(nanos),
    }
}

fn usage_document(usage: &Usage) -> UsageDocument {
    UsageDocument {
        active: ActiveDocument { seconds: usage.active.whole, carry_ns: usage.active.carry },
        memory: MemoryCountDocument {
            mib_seconds: usage.memory.whole,
            carry_byte_ns: Wide(usage.memory.carry),
        },
        cpu: CpuCountDocument { millicpu_seconds: usage.cpu.whole, carry_millicpu_ns: Wide(usage.cpu.carry) },
        suspended_ns: nanos(usage.suspended),
        uncertain_ns: nanos(usage.uncertain),
        rebased: amounts_document(usage.rebased),
        dropped: amounts_document(usage.dropped),
        gaps: usage.gaps,
        anomalies: usage.anomalies,
    }
}

fn amounts_document(amounts: Amounts) -> AmountsDocument {
    AmountsDocument {
        active_ns: nanos(amounts.active),
        memory_byte_ns: Wide(amounts.memory.0),
        cpu_millicpu_ns: Wide(amounts.cpu.0),
    }
}

fn resume_document(resumed: Resumed) -> ResumeDocument {
    ResumeDocument {
        signal: signal_name(resumed.signal),
        detected_monotonic_ns: nanos(resumed.detected),
        latency_max_ns: resumed.latency_max.map(nanos),
    }
}

fn nanos(span: Nanos) -> Wide<u64> {
    Wide(span.0)
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
        Finding::MarkIgnored => "mark_ignored",
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
