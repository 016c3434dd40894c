//! A virtio-mem device, and what an agent sees of it.

use crate::capacity::{BootPrecision, Capacity, Cpu, Memory, MemoryState, Precision};
use crate::meter::Rate;
use crate::units::{Bytes, MilliCpu, Nanos};

/// Memory comes and goes by these, each with a hotplug event; less comes without.
pub(super) const BLOCK: Bytes = Bytes::mib(128);
/// Away from a known request for this long is short, or over.
const SETTLE: u64 = 10_000_000_000;
/// Unchanged for this long is settled where the request is unknown.
const QUIET: u64 = 2_000_000_000;

/// The device and its driver.
#[derive(Clone, Debug)]
pub(super) struct Device {
    pub(super) boot: Bytes,
    /// The most that it can have plugged.
    pub(super) most: Bytes,
    pub(super) requested: Bytes,
    pub(super) plugged: Bytes,
    /// What it gets, however much is requested.
    pub(super) reach: Bytes,
    /// Whether the guest can read the request from the device.
    pub(super) told: bool,
    told_by_host: Option<Bytes>,
    progress: Option<(Bytes, u64)>,
}

impl Device {
    pub(super) fn new(boot: Bytes, most: Bytes, told: bool) -> Self {
        Self {
            boot,
            most,
            requested: Bytes::ZERO,
            plugged: Bytes::ZERO,
            reach: most,
            told,
            told_by_host: None,
            progress: None,
        }
    }

    /// Where it is going.
    fn target(&self) -> Bytes {
        self.requested.min(self.reach)
    }

    pub(super) fn moves(&self) -> bool {
        self.plugged != self.target()
    }

    /// Goes on by a block, or by what is left; says whether there is a hotplug event for it.
    pub(super) fn step(&mut self) -> bool {
        let target = self.target();
        let left = if target > self.plugged {
            target.saturating_sub(self.plugged)
        } else {
            self.plugged.saturating_sub(target)
        };
        let step = left.min(BLOCK);
        self.plugged = if target > self.plugged {
            self.plugged.saturating_add(step)
        } else {
            self.plugged.saturating_sub(step)
        };
        step == BLOCK
    }

    /// The host's word, after a resume: memory is judged anew against it.
    pub(super) fn resumed(&mut self, requested: Option<Bytes>) {
        self.told_by_host = requested;
        self.progress = None;
    }

    /// What the agent's process knew is gone with it.
    pub(super) fn forget(&mut self) {
        self.told_by_host = None;
        self.progress = None;
    }

    pub(super) fn rate(&self, cpu: MilliCpu) -> Rate {
        Rate { memory: self.boot.saturating_add(self.plugged), cpu }
    }

    /// What a look sees at `now`, on the guest's monotonic clock.
    pub(super) fn look(&mut self, now: u64, cpu: MilliCpu) -> Capacity {
        let plugged = Some(self.plugged);
        let requested = if self.told { Some(self.requested) } else { self.told_by_host };
        let memory = Memory {
            boot: Some(self.boot),
            boot_precision: Some(BootPrecision::Exact),
            requested,
            plugged,
            added: plugged,
            online: plugged,
            offline: Some(Bytes::ZERO),
            ballooned: None,
            mem_total: Some(self.boot.saturating_add(self.plugged)),
            state: self.state(now, requested),
            precision: Precision::Exact,
            lower: plugged,
            upper: plugged,
            sources: Vec::new(),
        };
        let cpu = Cpu {
            online: None,
            quota: None,
            weight: None,
            shares: None,
            effective: cpu,
            usage: None,
            steal: None,
            throttled: None,
        };
        Capacity { memory, cpu }
    }

    fn state(&mut self, now: u64, requested: Option<Bytes>) -> MemoryState {
        let since = match self.progress {
            Some((plugged, since)) if plugged == self.plugged => since,
            _ => now,
        };
        self.progress = Some((self.plugged, since));
        let still = now.saturating_sub(since);
        match requested {
            Some(requested) if self.plugged < requested && still < SETTLE => MemoryState::Plugging,
            Some(requested) if self.plugged < requested => MemoryState::Short,
            Some(requested) if self.plugged > requested && still < SETTLE => MemoryState::Unplugging,
            Some(requested) if self.plugged > requested => MemoryState::Over,
            Some(_) => MemoryState::Settled,
            None if still >= QUIET => MemoryState::Settled,
            None => MemoryState::Unknown,
        }
    }
}

/// Three amounts in their smallest units: active ns, byte·ns, millicpu·ns.
pub(super) type Three = [u128; 3];

/// `rate` over `span`.
pub(super) fn over(rate: Rate, span: u64) -> Three {
    let amounts = rate.over(Nanos(span));
    [u128::from(amounts.active.0), amounts.memory.0, amounts.cpu.0]
}

pub(super) fn add(a: Three, b: Three) -> Three {
    zip(a, b, u128::saturating_add)
}

/// `a − b`, zero where `b` is more.
pub(super) fn less(a: Three, b: Three) -> Three {
    zip(a, b, u128::saturating_sub)
}

pub(super) fn least(a: Three, b: Three) -> Three {
    zip(a, b, u128::min)
}

pub(super) fn most(a: Three, b: Three) -> Three {
    zip(a, b, u128::max)
}

/// Whether `a ≤ b` in each part.
pub(super) fn within(a: Three, b: Three) -> bool {
    a.iter().zip(b).all(|(a, b)| *a <= b)
}

fn zip([a, b, c]: Three, [d, e, f]: Three, with: impl Fn(u128, u128) -> u128) -> Three {
    [with(a, d), with(b, e), with(c, f)]
}
