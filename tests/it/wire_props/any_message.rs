//! Any message the protocol allows, any value in every field; lists stay short, for their limits have tests of
//! their own.
//!
//! The larger strategies are boxed: whole, they overflow a test thread's stack.

use guestmeter::capacity::{BootPrecision, Cpu, Memory, MemoryState, Precision, Source};
use guestmeter::meter::{Amounts, Count, Rate, Usage};
use guestmeter::units::{ByteNanos, Bytes, MilliCpu, MilliCpuNanos, Nanos};
use guestmeter::wire::message::{
    Ack, Acked, Agent, Boundary, Checkpoint, Clock, Counters, Epoch, EpochSource, Finding, Hello, Id,
    Identity, Mark, Message, Notify, Reason, Refusal, RefusalCode, Reply, Report, Request, Resume, Resumed,
    Segment, Segments, SegmentsAfter, Signal, Tail, WaitSettled, Watch, Welcome,
};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

pub(super) fn message() -> BoxedStrategy<Message> {
    prop_oneof![request().prop_map(Message::Request), reply().prop_map(Message::Reply)].boxed()
}

fn request() -> BoxedStrategy<Request> {
    let counters = (id(), counters()).prop_map(|(boot_id, counters)| Mark { boot_id, counters });
    let resume = (id(), number(), any::<bool>(), sandbox(), nanos(), option::of(counters), size(), size())
        .prop_map(|(epoch, number, paused, sandbox, at, mark, requested, boot)| Resume {
            epoch,
            number,
            paused,
            sandbox,
            at,
            mark,
            requested,
            boot,
        });
    prop_oneof![
        (any::<u16>(), any::<u16>(), number()).prop_map(|(version_min, version_max, nonce)| {
            Request::Hello(Hello { version_min, version_max, nonce })
        }),
        Just(Request::Read),
        resume.prop_map(Request::Resume),
        (id(), number()).prop_map(|(epoch, number)| Request::Checkpoint(Checkpoint { epoch, number })),
        (id(), number()).prop_map(|(epoch, seq)| Request::Ack(Ack { epoch, seq })),
        (option::of(bytes()), nanos(), nanos()).prop_map(|(expected, quiet, timeout)| {
            Request::WaitSettled(WaitSettled { expected, quiet, timeout })
        }),
        nanos().prop_map(|interval| Request::Watch(Watch { interval })),
        (id(), number()).prop_map(|(epoch, seq)| Request::Segments(SegmentsAfter { epoch, seq })),
    ]
    .boxed()
}

fn reply() -> BoxedStrategy<Reply> {
    let welcome = (agent(), id(), option::of(sandbox()), epoch(), number(), number()).prop_map(
        |(agent, boot_id, sandbox, epoch, seq, nonce)| Welcome { agent, boot_id, sandbox, epoch, seq, nonce },
    );
    let segments = (prop::collection::vec(segment(), 0..6), any::<bool>())
        .prop_map(|(segments, more)| Segments { segments, more });
    prop_oneof![
        welcome.prop_map(Reply::Welcome),
        report().prop_map(|report| Reply::Report(Box::new(report))),
        segments.prop_map(Reply::Segments),
        (id(), number()).prop_map(|(epoch, seq)| Reply::Acked(Acked { epoch, seq })),
        (refusal_code(), "\\PC{0,200}", option::of(number()))
            .prop_map(|(code, text, latest)| Reply::Error(Refusal { code, text, latest })),
        (agent(), report()).prop_map(|(agent, report)| Reply::Notify(Box::new(Notify { agent, report }))),
    ]
    .boxed()
}

/// Integers of every encoded length.
fn number() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..64u32).prop_map(|(number, shift)| number >> shift)
}

fn wide_number() -> impl Strategy<Value = u128> {
    (any::<u128>(), 0..128u32).prop_map(|(number, shift)| number >> shift)
}

fn bytes() -> impl Strategy<Value = Bytes> {
    number().prop_map(Bytes)
}

fn size() -> impl Strategy<Value = Option<Bytes>> {
    option::of(bytes())
}

fn nanos() -> impl Strategy<Value = Nanos> {
    number().prop_map(Nanos)
}

fn id() -> impl Strategy<Value = Id> {
    any::<[u8; 16]>().prop_map(Id)
}

/// At most 128 bytes: a character has at most four.
fn sandbox() -> impl Strategy<Value = String> {
    "\\PC{0,32}"
}

fn agent() -> BoxedStrategy<Agent> {
    let word = || "\\PC{0,16}";
    (word(), word(), any::<u16>(), prop::collection::vec(word(), 0..4))
        .prop_map(|(version, git, protocol, capabilities)| Agent { version, git, protocol, capabilities })
        .boxed()
}

fn epoch() -> impl Strategy<Value = Epoch> {
    (id(), select(vec![EpochSource::Provisional, EpochSource::Host]), number())
        .prop_map(|(id, source, number)| Epoch { id, source, number })
}

fn count<const UNIT: u64>() -> impl Strategy<Value = Count<UNIT>> {
    (number(), number()).prop_map(|(whole, carry)| Count { whole, carry })
}

fn counters() -> impl Strategy<Value = Counters> {
    (count(), count(), count(), nanos()).prop_map(|(active, memory, cpu, cpu_used)| Counters {
        active,
        memory,
        cpu,
        cpu_used,
    })
}

fn amounts() -> impl Strategy<Value = Amounts> {
    (nanos(), wide_number(), wide_number(), nanos()).prop_map(|(active, memory, cpu, cpu_used)| Amounts {
        active,
        memory: ByteNanos(memory),
        cpu: MilliCpuNanos(cpu),
        cpu_used,
    })
}

fn usage() -> BoxedStrategy<Usage> {
    (counters(), nanos(), nanos(), amounts(), amounts(), number(), number())
        .prop_map(|(counters, suspended, uncertain, rebased, dropped, gaps, anomalies)| {
            let Counters { active, memory, cpu, cpu_used } = counters;
            Usage { active, memory, cpu, cpu_used, suspended, uncertain, rebased, dropped, gaps, anomalies }
        })
        .boxed()
}

fn segment() -> BoxedStrategy<Segment> {
    let rate = (bytes(), number()).prop_map(|(memory, cpu)| Rate { memory, cpu: MilliCpu(cpu) });
    let boundary = select(vec![Boundary::Event, Boundary::Observation, Boundary::Resume]);
    (epoch(), number(), option::of(rate), boundary, counters())
        .prop_map(|(epoch, seq, rate, boundary, usage)| Segment { epoch, seq, rate, boundary, usage })
        .boxed()
}

fn report() -> BoxedStrategy<Report> {
    let identity = (id(), option::of(sandbox()), epoch(), any::<u32>(), number()).prop_map(
        |(boot_id, sandbox, epoch, instance, seq)| Identity { boot_id, sandbox, epoch, instance, seq },
    );
    let clock = (nanos(), nanos(), nanos()).prop_map(|(monotonic, boottime, realtime_unix)| Clock {
        monotonic,
        boottime,
        realtime_unix,
    });
    let resumed = (signal(), nanos(), option::of(nanos()))
        .prop_map(|(signal, detected, latency_max)| Resumed { signal, detected, latency_max });
    (identity, reason(), clock, memory(), cpu(), usage(), usage(), option::of(resumed), tail())
        .prop_map(|(identity, reason, clock, memory, cpu, usage, base, resume, tail)| Report {
            identity,
            reason,
            clock,
            memory,
            cpu,
            usage,
            base,
            resume,
            tail,
        })
        .boxed()
}

fn tail() -> impl Strategy<Value = Tail> {
    let finding = select(vec![
        Finding::Clone,
        Finding::Rollback,
        Finding::MarkIgnored,
        Finding::ClockStep,
        Finding::ClockJump,
        Finding::ConnectionReset,
    ]);
    let findings = prop::collection::vec(finding, 0..6);
    (any::<bool>(), findings, any::<u32>(), number(), number()).prop_map(
        |(held, findings, segments_waiting, segments_dropped, garbage_bytes)| Tail {
            held,
            findings,
            segments_waiting,
            segments_dropped,
            garbage_bytes,
        },
    )
}

fn memory() -> BoxedStrategy<Memory> {
    let size = || option::of(bytes());
    let sizes = (size(), size(), size(), size(), size(), size(), size(), size(), size(), size());
    let precision = select(vec![Precision::Exact, Precision::Bounded]);
    let boot_precision =
        option::of(select(vec![BootPrecision::Exact, BootPrecision::LowerBound, BootPrecision::UpperBound]));
    (sizes, boot_precision, memory_state(), precision, prop::collection::vec(source(), 0..12))
        .prop_map(|(sizes, boot_precision, state, precision, sources)| {
            let (boot, requested, plugged, added, online, offline, ballooned, mem_total, lower, upper) =
                sizes;
            Memory {
                boot,
                boot_precision,
                requested,
                plugged,
                added,
                online,
                offline,
                ballooned,
                mem_total,
                state,
                precision,
                lower,
                upper,
                sources,
            }
        })
        .boxed()
}

fn cpu() -> BoxedStrategy<Cpu> {
    let quota = option::of(number().prop_map(MilliCpu));
    let small = || option::of(any::<u32>());
    let time = || option::of(nanos());
    (small(), quota, small(), small(), number(), time(), time(), time())
        .prop_map(|(online, quota, weight, shares, effective, usage, steal, throttled)| Cpu {
            online,
            quota,
            weight,
            shares,
            effective: MilliCpu(effective),
            usage,
            steal,
            throttled,
        })
        .boxed()
}

fn memory_state() -> impl Strategy<Value = MemoryState> {
    use MemoryState as M;
    select(vec![M::Settled, M::Plugging, M::Unplugging, M::Short, M::Over, M::Unknown])
}

fn source() -> impl Strategy<Value = Source> {
    use Source as S;
    select(vec![
        S::FirmwareMemmap,
        S::DeviceTree,
        S::Host,
        S::Iomem,
        S::MemoryBlocks,
        S::Zoneinfo,
        S::Kpageflags,
        S::SavedBaseline,
        S::Meminfo,
        S::Vmstat,
        S::DeviceConfig,
        S::VirtioBus,
    ])
}

fn reason() -> impl Strategy<Value = Reason> {
    use Reason as R;
    select(vec![R::Query, R::Boot, R::Resume, R::Capacity, R::Checkpoint, R::Settled, R::Shutdown])
}

fn signal() -> impl Strategy<Value = Signal> {
    use Signal as S;
    select(vec![S::Host, S::Vmclock, S::VsockReset, S::Vmgenid, S::Clock])
}

fn refusal_code() -> impl Strategy<Value = RefusalCode> {
    use RefusalCode as C;
    select(vec![
        C::Unsupported,
        C::Version,
        C::Malformed,
        C::Handshake,
        C::StaleEpoch,
        C::UnknownEpoch,
        C::Busy,
        C::Timeout,
        C::Internal,
    ])
}
