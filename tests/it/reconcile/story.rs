//! A sandbox told step by step, in seconds, and what is in its books then.

use super::ledger::{HOUR, Ledger};
use guestmeter::host::reconcile::{
    Account, Answer, Call, Claim, Confirmed, Decision, Evidence, Lifecycle, Minted, Policy, Requested,
    Segment, Told, Totals, Verdict, VmState, reconcile,
};
use guestmeter::units::{Bytes, MilliCpu, Nanos};
use guestmeter::wire::message::Id;

pub const SECOND: u64 = 1_000_000_000;
/// An hour's beginning.
const T: u64 = 500_000 * HOUR;

pub struct Story {
    pub account: Account,
    pub ledger: Ledger,
    pub policy: Policy,
}

impl Story {
    /// Started at 0 s with 4096 MiB, as epoch 1.
    pub fn started() -> Self {
        let mut story =
            Self { account: Account::new("sb", "org"), ledger: Ledger::default(), policy: Policy::default() };
        story.call(0, Call::Started { epoch: epoch(1), size: size(4096) });
        story
    }

    pub fn tell(&mut self, evidence: &Evidence) -> Decision {
        let decision = reconcile(&mut self.account, evidence, &self.policy);
        self.ledger.commit(&decision);
        self.ledger.check();
        decision
    }

    /// Where there are thousands: the books are checked at the end.
    pub fn call_unchecked(&mut self, second: u64, call: Call) -> Decision {
        let call = Evidence::Lifecycle(Lifecycle { at: at(second), call });
        let decision = reconcile(&mut self.account, &call, &self.policy);
        self.ledger.commit(&decision);
        decision
    }

    pub fn call(&mut self, second: u64, call: Call) -> Decision {
        self.tell(&Evidence::Lifecycle(Lifecycle { at: at(second), call }))
    }

    pub fn claim(&mut self, claim: Claim) -> Decision {
        self.tell(&Evidence::Report(Told { claim, copy_of: None }))
    }

    /// The last segment of an epoch, read at `second`.
    pub fn tail(&mut self, epoch: Minted, second: u64, usage: Totals) -> Decision {
        self.tell(&Evidence::Segment(Segment {
            epoch: epoch.id,
            seq: 20,
            received: at(second),
            usage,
            last: true,
        }))
    }

    pub fn vmm(&mut self, second: u64, state: VmState, mib: u64) -> Decision {
        self.tell(&Evidence::Vmm(Answer {
            received: at(second),
            state,
            memory: Some(Bytes::mib(mib)),
            memory_max: Some(Bytes::mib(8192)),
            vcpus: Some(2),
        }))
    }

    pub fn clock(&mut self, second: u64) -> Decision {
        self.tell(&Evidence::Clock(at(second)))
    }

    /// (start, end, MiB) in seconds.
    pub fn samples(&self) -> Vec<(u64, u64, u64)> {
        let seconds = |at: Nanos| (at.0 - T) / SECOND;
        let of = |sample: &guestmeter::host::reconcile::Sample| {
            (seconds(sample.start), seconds(sample.end), sample.size.memory_mib)
        };
        self.ledger.samples().iter().map(of).collect()
    }

    pub fn rows(&self) -> Vec<(u64, Option<u64>, u64)> {
        let seconds = |at: Nanos| (at.0 - T) / SECOND;
        let rows = self.ledger.rows();
        rows.iter().map(|row| (seconds(row.start), row.end.map(seconds), row.size.memory_mib)).collect()
    }
}

pub fn at(second: u64) -> Nanos {
    Nanos(T + second * SECOND)
}

pub fn epoch(number: u8) -> Minted {
    Minted { id: Id([number; 16]), number: number.into() }
}

pub fn size(mib: u64) -> Requested {
    Requested { memory_mib: Some(mib), cpu: Some(MilliCpu(1000)) }
}

/// Of epoch 1, boot 1, asked for and read at `second`: it has counted `active` seconds with `mib`.
pub fn claim(second: u64, active: u64, mib: u64) -> Claim {
    let span = Nanos(active * SECOND);
    Claim {
        epoch: epoch(1).id,
        boot_id: Id([0xb1; 16]),
        seq: second + 1,
        asked: Some(at(second)),
        received: at(second),
        usage: Totals { active: span, memory: Bytes::mib(mib) * span, cpu: MilliCpu(1000) * span },
        base: Totals::default(),
        dropped: Nanos::ZERO,
        dropped_base: Nanos::ZERO,
        size: Confirmed { memory: Some(Bytes::mib(mib)), cpu: Some(MilliCpu(1000)) },
        segments_dropped: 0,
        segments_waiting: 0,
        checkpoint: false,
        restarted: false,
        jumped: false,
        rebased: false,
    }
}

pub fn names(decision: &Decision) -> Vec<&'static str> {
    decision.verdicts.iter().map(Verdict::name).collect()
}
