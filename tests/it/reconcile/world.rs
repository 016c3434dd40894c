//! A small true world: one VM, its platform and its host, and the evidence that each life of it leaves.

use guestmeter::host::reconcile::{
    Answer, Call, Claim, Confirmed, Evidence, Lifecycle, Minted, Requested, Told, Totals, VmState,
};
use guestmeter::units::{Bytes, MilliCpu, Nanos};
use guestmeter::wire::message::Id;
use proptest::prelude::*;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
const POLL: u64 = 5 * SECOND;
/// 2026-01-05 10:40 UTC.
pub const START: u64 = 1_767_609_600 * SECOND;

/// What happens next.
#[derive(Clone, Debug)]
pub enum Act {
    /// It runs for so many ms, and is polled.
    Run(u64),
    /// It runs for so many ms, and answers nobody.
    Silent(u64),
    /// The platform asks for another size; virtio-mem gives it so many ms later.
    Scale(u64, u64),
    /// Checkpoint, pause for so many ms, resume. Whether the agent is asked for a checkpoint.
    Pause(u64, bool),
    /// A pause that nobody announces.
    Bare(u64),
    /// The VMM is asked.
    Vmm,
    /// The agent loses its state; the host finds it unnamed, and names it so many ms later.
    Adopt(u64),
    /// It dies, the VMM says so a poll later, and nobody else; another one starts so many ms after that.
    Die(u64),
    /// It is destroyed, and another one starts under its id so many ms later.
    Reboot(u64),
}

pub fn act() -> impl Strategy<Value = Act> {
    let ms = || prop_oneof![4 => 1..30_000u64, 1 => 30_000..1_000_000u64];
    prop_oneof![
        6 => ms().prop_map(Act::Run),
        1 => ms().prop_map(Act::Silent),
        2 => (size(), 0..8_000u64).prop_map(|(mib, ms)| Act::Scale(mib, ms)),
        2 => (ms(), any::<bool>()).prop_map(|(ms, asked)| Act::Pause(ms, asked)),
        1 => ms().prop_map(Act::Bare),
        1 => Just(Act::Vmm),
        1 => (0..3_000u64).prop_map(Act::Adopt),
        1 => (0..30_000u64).prop_map(Act::Die),
        1 => ms().prop_map(Act::Reboot),
    ]
}

fn size() -> impl Strategy<Value = u64> {
    prop_oneof![Just(1024u64), Just(4096), Just(8192), Just(16384)]
}

/// The world, its clock in ns since 1970.
pub struct World {
    pub now: u64,
    pub evidence: Vec<Evidence>,
    /// What ran for how long: MiB · ns, and ns.
    pub true_memory: u128,
    pub true_active: u64,
    /// How often a life began or ended.
    pub edges: u64,
    pub bare: bool,
    /// Time in which it ran, and died unheard.
    pub unseen: u64,
    /// Time in which it ran without a name.
    pub unnamed: u64,
    /// When anything last showed that it runs.
    heard: u64,
    /// When a named guest was last heard.
    claimed: u64,
    pub acts: Vec<Act>,
    pub delays: Vec<u64>,
    delay: usize,
    requested: u64,
    plugged: u64,
    /// When plugged becomes requested.
    plugging: Option<u64>,
    number: u64,
    boot: u8,
    seq: u64,
    usage: Totals,
    base: Totals,
    polled: u64,
}

impl World {
    /// Runs `acts` from a start to a destroy. `delays` in ms are those of the network, taken in turn.
    pub fn run(acts: &[Act], delays: &[u64]) -> Self {
        let mut world = Self {
            now: START,
            evidence: Vec::new(),
            true_memory: 0,
            true_active: 0,
            edges: 0,
            bare: false,
            unseen: 0,
            unnamed: 0,
            heard: START,
            claimed: START,
            acts: acts.to_vec(),
            delays: delays.to_vec(),
            delay: 0,
            requested: 4096,
            plugged: 4096,
            plugging: None,
            number: 0,
            boot: 0,
            seq: 0,
            usage: Totals::default(),
            base: Totals::default(),
            polled: 0,
        };
        world.start();
        for act in acts {
            world.act(act);
        }
        world.destroy();
        world
    }

    pub fn epoch(&self) -> Id {
        Id([u8::try_from(self.number % 256).unwrap(); 16])
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Run(ms) => {
                let end = self.now + ms * MS;
                while self.now < end {
                    let next = end.min(self.polled + POLL).max(self.now + 1);
                    self.advance(next - self.now);
                    if self.now >= self.polled + POLL {
                        self.poll(false);
                    }
                }
            }
            Act::Silent(ms) => self.advance(ms * MS),
            Act::Scale(mib, ms) => {
                self.requested = mib;
                self.call(Call::Scaled { size: self.size() });
                self.plugging = Some(self.now + ms * MS);
            }
            Act::Pause(ms, asked) => {
                self.call(Call::Pausing { epoch: Some(self.epoch()) });
                if asked {
                    self.poll(true);
                }
                self.now += ms * MS;
                self.mint();
                self.call(Call::Resumed { epoch: self.minted(), size: None, paused: true });
                self.named();
            }
            Act::Bare(ms) => {
                self.now += ms * MS;
                self.bare = true;
            }
            Act::Vmm => {
                let wait = self.wait();
                self.advance(wait);
                self.vmm(VmState::Running);
            }
            Act::Adopt(ms) => {
                let claimed = self.claimed;
                let before = std::mem::replace(&mut self.number, 0);
                self.base = self.usage;
                self.poll(false);
                self.advance(ms * MS);
                self.unnamed += self.now - claimed;
                self.number = before;
                self.mint();
                self.call(Call::Named { epoch: self.minted() });
                self.seq = 0;
                self.poll(false);
            }
            Act::Die(ms) => {
                self.unseen += self.now - self.heard;
                self.now += POLL;
                self.vmm(VmState::Gone);
                self.now += ms * MS;
                self.start();
            }
            Act::Reboot(ms) => {
                self.destroy();
                self.now += ms * MS;
                self.start();
            }
        }
    }

    fn vmm(&mut self, state: VmState) {
        let running = state == VmState::Running;
        self.evidence.push(Evidence::Vmm(Answer {
            received: Nanos(self.now),
            state,
            memory: running.then(|| Bytes::mib(self.plugged)),
            memory_max: running.then(|| Bytes::mib(65536)),
            vcpus: running.then_some(16),
        }));
        if running {
            self.heard = self.now;
        }
    }

    fn start(&mut self) {
        self.boot += 1;
        self.usage = Totals::default();
        self.plugged = self.requested;
        self.plugging = None;
        self.mint();
        self.heard = self.now;
        self.call(Call::Started { epoch: self.minted(), size: self.size() });
        self.named();
    }

    fn destroy(&mut self) {
        self.call(Call::Destroyed { epoch: Some(self.epoch()) });
        self.edges += 1;
    }

    fn mint(&mut self) {
        self.number += 1;
        self.claimed = self.now;
        self.edges += 2;
    }

    /// The guest learns its name, and answers with its first report.
    fn named(&mut self) {
        self.base = self.usage;
        self.seq = 0;
        self.poll(false);
    }

    fn size(&self) -> Requested {
        Requested { memory_mib: Some(self.requested), cpu: Some(MilliCpu(1000)) }
    }

    fn minted(&self) -> Minted {
        Minted { id: self.epoch(), number: self.number }
    }

    fn call(&mut self, call: Call) {
        self.evidence.push(Evidence::Lifecycle(Lifecycle { at: Nanos(self.now), call }));
        // No two things happen at one instant.
        self.advance(1000);
    }

    fn wait(&mut self) -> u64 {
        self.delay += 1;
        1 + self.delays[self.delay % self.delays.len()] * MS
    }

    /// Asks, and is answered.
    fn poll(&mut self, checkpoint: bool) {
        let asked = Nanos(self.now);
        let there = self.wait();
        self.advance(there);
        self.seq += 1;
        let mut claim = Claim {
            epoch: self.epoch(),
            boot_id: Id([self.boot; 16]),
            seq: self.seq,
            asked: Some(asked),
            received: Nanos::ZERO,
            usage: self.usage,
            base: self.base,
            dropped: Nanos::ZERO,
            dropped_base: Nanos::ZERO,
            size: Confirmed { memory: Some(Bytes::mib(self.plugged)), cpu: Some(MilliCpu(1000)) },
            segments_dropped: 0,
            segments_waiting: 0,
            checkpoint,
            restarted: false,
            jumped: false,
            rebased: false,
        };
        let back = self.wait();
        self.advance(back);
        claim.received = Nanos(self.now);
        self.polled = self.now;
        self.heard = self.now;
        if self.number > 0 {
            self.claimed = self.now;
        }
        self.evidence.push(Evidence::Report(Told { claim, copy_of: None }));
    }

    /// It runs.
    fn advance(&mut self, mut span: u64) {
        if let Some(at) = self.plugging
            && at <= self.now + span
        {
            let before = at.saturating_sub(self.now);
            self.count(before);
            span -= before;
            self.plugged = self.requested;
            self.plugging = None;
        }
        self.count(span);
    }

    fn count(&mut self, span: u64) {
        let span = Nanos(span);
        self.now += span.0;
        self.true_active += span.0;
        self.true_memory += u128::from(self.plugged) * u128::from(span.0);
        let more =
            Totals { active: span, memory: Bytes::mib(self.plugged) * span, cpu: MilliCpu(1000) * span };
        self.usage = self.usage.plus(&more);
    }
}
