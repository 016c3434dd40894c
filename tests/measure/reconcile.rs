//! Feeds reports of a healthy fleet to `reconcile`, and checks what it says of each: `reconcile REPORTS [SANDBOXES]`.
//! `tests/measure/reconcile` runs it, and counts.

use guestmeter::capacity::{Cpu, Memory, MemoryState, Precision};
use guestmeter::host::reconcile::{
    Account, Call, Claim, Evidence, Lifecycle, Minted, Policy, Requested, Told, reconcile,
};
use guestmeter::meter::{Count, Usage};
use guestmeter::units::{Bytes, MilliCpu, Nanos};
use guestmeter::wire::message::{Clock, Epoch, EpochSource, Id, Identity, Reason, Report, Tail};

const MEMORY: Bytes = Bytes::mib(4096);
const START: Nanos = Nanos::from_secs(1_767_609_600);
const POLL: Nanos = Nanos::from_secs(5);

struct Sandbox {
    account: Account,
    report: Report,
}

fn main() {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let reports = numbers.first().copied().unwrap_or(1_000_000);
    let fleet = numbers.get(1).copied().unwrap_or(100);
    let policy = Policy::default();
    let mut sandboxes: Vec<Sandbox> = (1..=fleet).map(|number| sandbox(number, &policy)).collect();
    let mut agreed: u64 = 0;
    let mut told: u64 = 0;
    for round in 1.. {
        let at = Nanos(START.0 + POLL.0 * round);
        for sandbox in sandboxes.iter_mut().take(usize::try_from(reports - told).unwrap_or(usize::MAX)) {
            agreed += poll(sandbox, round, at, &policy);
            told += 1;
        }
        if told == reports {
            break;
        }
    }
    assert_eq!(agreed, reports, "a healthy fleet agrees");
}

fn sandbox(number: u64, policy: &Policy) -> Sandbox {
    let mut account = Account::new(format!("sb-{number}"), "org");
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_le_bytes());
    let epoch = Minted { id: Id(id), number };
    let size = Requested { memory_mib: Some(4096), cpu: Some(MilliCpu(2000)) };
    let started = Lifecycle { at: START, call: Call::Started { epoch, size } };
    reconcile(&mut account, &Evidence::Lifecycle(started), policy);
    let report = report(Epoch { id: epoch.id, source: EpochSource::Host, number });
    Sandbox { account, report }
}

fn poll(sandbox: &mut Sandbox, round: u64, at: Nanos, policy: &Policy) -> u64 {
    let report = &mut sandbox.report;
    let active = Nanos(POLL.0 * round);
    report.identity.seq = round;
    report.usage.active = Count::from_total(active.0.into());
    report.usage.memory = Count::from_total((MEMORY * active).0);
    report.usage.cpu = Count::from_total((MilliCpu(2000) * active).0);
    let received = Nanos(at.0 + 300_000);
    let claim = Claim::of(report, Some(at), received);
    let decision = reconcile(&mut sandbox.account, &Evidence::Report(Told { claim, copy_of: None }), policy);
    u64::from(decision.ack.is_some() && decision.verdicts.iter().all(|verdict| verdict.name() == "agree"))
}

fn report(epoch: Epoch) -> Report {
    Report {
        identity: Identity { boot_id: Id([1; 16]), sandbox: Some("sb".into()), epoch, instance: 1, seq: 1 },
        reason: Reason::Query,
        clock: Clock::default(),
        memory: Memory {
            boot: Some(Bytes::mib(1024)),
            requested: Some(Bytes::mib(3072)),
            plugged: Some(Bytes::mib(3072)),
            added: None,
            online: None,
            offline: None,
            ballooned: None,
            mem_total: None,
            state: MemoryState::Settled,
            precision: Precision::Exact,
            lower: None,
            upper: None,
            sources: Vec::new(),
        },
        cpu: Cpu {
            online: Some(2),
            quota: None,
            weight: None,
            shares: None,
            effective: MilliCpu(2000),
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
