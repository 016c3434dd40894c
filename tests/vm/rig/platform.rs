//! The platform's end of a sandbox's life, by the library: epochs whose numbers rise, and what its own books say.

use super::HUNG;
use super::template::PLUGGED_MIB;
use super::vm::Vm;
use guestmeter::host::{Client, ClientError};
use guestmeter::units::{Bytes, Nanos};
use guestmeter::wire::message::{
    Ack, Checkpoint, Counters, Id, Mark, Report, Resume, Segment, SegmentsAfter,
};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::runtime::Runtime;

/// For one connection; a guest answers in milliseconds.
const TIMEOUT: Duration = Duration::from_secs(15);

pub(crate) struct Platform {
    runtime: Runtime,
    numbers: u64,
}

impl Platform {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Self { runtime: runtime.expect("a runtime"), numbers: 0 }
    }

    /// A life after a pause: an epoch of its own with the next number, at a template's memory.
    pub(crate) fn mint(&mut self, sandbox: &str) -> Resume {
        self.numbers += 1;
        let mut id = [0; 16];
        rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty()).expect("random bits");
        Resume {
            epoch: Id(id),
            number: self.numbers,
            paused: true,
            sandbox: sandbox.to_owned(),
            at: SystemTime::now().duration_since(UNIX_EPOCH).map(Nanos::from).expect("a clock after 1970"),
            mark: None,
            requested: Some(Bytes::mib(PLUGGED_MIB)),
            boot: None,
        }
    }

    /// A life that begins without a pause.
    pub(crate) fn adopt(&mut self, vm: &mut Vm, sandbox: &str) -> (Resume, Report) {
        let life = Resume { paused: false, ..self.mint(sandbox) };
        let report = self.resume(vm, &life);
        (life, report)
    }

    /// Names the guest's life; the answer is acknowledged.
    pub(crate) fn resume(&self, vm: &mut Vm, life: &Resume) -> Report {
        let report = self.try_resume(vm, life).unwrap_or_else(|error| fail(vm, &error));
        self.ack(vm, &report);
        report
    }

    pub(crate) fn try_resume(&self, vm: &Vm, life: &Resume) -> Result<Report, ClientError> {
        self.runtime.block_on(client(vm).resume(life)).map(|reading| reading.report)
    }

    /// Closes the life's count. When this returns, the machine may be stopped.
    pub(crate) fn checkpoint(&self, vm: &mut Vm, life: &Resume) -> Report {
        let report = self.try_checkpoint(vm, life).unwrap_or_else(|error| fail(vm, &error));
        self.ack(vm, &report);
        report
    }

    pub(crate) fn try_checkpoint(&self, vm: &Vm, life: &Resume) -> Result<Report, ClientError> {
        let checkpoint = Checkpoint { epoch: life.epoch, number: life.number };
        self.runtime.block_on(client(vm).checkpoint(checkpoint)).map(|reading| reading.report)
    }

    /// A report on demand, not acknowledged; asked for until there is one.
    pub(crate) fn read(&self, vm: &mut Vm) -> Report {
        let client = client(vm);
        let reading = self.runtime.block_on(client.retrying(|| client.read()));
        reading.unwrap_or_else(|error| fail(vm, &error)).report
    }

    pub(crate) fn ack(&self, vm: &mut Vm, report: &Report) {
        self.try_ack(vm, report).unwrap_or_else(|error| fail(vm, &error));
    }

    pub(crate) fn try_ack(&self, vm: &Vm, report: &Report) -> Result<(), ClientError> {
        let ack = Ack { epoch: report.identity.epoch.id, seq: report.identity.seq };
        self.runtime.block_on(client(vm).ack(ack))
    }

    /// What the guest keeps for the host.
    pub(crate) fn segments(&self, vm: &mut Vm) -> Vec<Segment> {
        let all = SegmentsAfter { epoch: Id::default(), seq: 0 };
        let segments = self.runtime.block_on(client(vm).segments(all));
        segments.unwrap_or_else(|error| fail(vm, &error)).segments
    }

    /// Whether memory settled within `limit`, and the last word on it.
    pub(crate) fn wait_settled(&self, vm: &mut Vm, limit: Duration) -> (bool, Report) {
        let outcome = self.runtime.block_on(client(vm).wait_settled(None, Duration::from_secs(1), limit));
        let outcome = outcome.unwrap_or_else(|error| fail(vm, &error));
        (outcome.settled, outcome.reading.report)
    }
}

fn client(vm: &Vm) -> Client {
    let target = vm.target().parse().expect("a target");
    Client::new(target, TIMEOUT).patient(HUNG)
}

fn fail(vm: &mut Vm, error: &ClientError) -> ! {
    let log = vm.agent_log();
    vm.fail(&format!("{error}\nagent: {log}"))
}

/// The high-water mark after this report.
pub(crate) fn mark(report: &Report) -> Mark {
    Mark { boot_id: report.identity.boot_id, counters: Counters::from(&report.usage) }
}

/// What passed between two reports of one boot, in ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Passed {
    /// By the guest's clock.
    pub(crate) clock: u128,
    pub(crate) counted: u128,
    pub(crate) suspended: u128,
    pub(crate) dropped: u128,
}

/// Every nanosecond of the guest's clock is counted, suspended or dropped: nothing is lost without a word, and nothing
/// is counted twice. Memory and CPU follow from the time where the capacity stayed.
pub(crate) fn passed(from: &Report, to: &Report) -> Passed {
    assert_eq!(from.identity.boot_id, to.identity.boot_id, "two boots have nothing between them");
    let (before, after) = (&from.usage, &to.usage);
    let rebased = after.rebased.active.0 - before.rebased.active.0;
    let passed = Passed {
        clock: u128::from(to.clock.monotonic.0 - from.clock.monotonic.0),
        counted: after.active.total() - before.active.total() - u128::from(rebased),
        suspended: u128::from(after.suspended.0 - before.suspended.0),
        dropped: u128::from(after.dropped.active.0 - before.dropped.active.0),
    };
    let sum = passed.counted + passed.suspended + passed.dropped;
    assert_eq!(sum, passed.clock, "{passed:?}\nfrom {before:?}\nto {after:?}");
    let (rebased, rebased_before) = (&after.rebased, &before.rebased);
    let (dropped, dropped_before) = (&after.dropped, &before.dropped);
    if from.memory.total() == to.memory.total() && from.cpu.effective == to.cpu.effective {
        let counted =
            after.memory.total() - before.memory.total() - (rebased.memory.0 - rebased_before.memory.0);
        let bytes = u128::from(to.memory.total().expect("memory is known").0);
        let memory = counted + dropped.memory.0 - dropped_before.memory.0;
        assert_eq!(memory, (passed.counted + passed.dropped) * bytes, "memory at {bytes} B");
        let counted = after.cpu.total() - before.cpu.total() - (rebased.cpu.0 - rebased_before.cpu.0);
        let cpu = counted + dropped.cpu.0 - dropped_before.cpu.0;
        assert_eq!(cpu, (passed.counted + passed.dropped) * u128::from(to.cpu.effective.0), "CPU");
    }
    passed
}

/// What this report's epoch has used: from its base on.
pub(crate) fn used(report: &Report) -> Duration {
    let active = report.usage.since(&report.base).active.total();
    Duration::from_nanos(u64::try_from(active).expect("fewer than 584 years"))
}
