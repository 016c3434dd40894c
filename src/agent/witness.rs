//! Looks at the kernel: as little as tells whether anything changed, or all that a report holds.

use crate::capacity::{
    Baseline, Capacity, CpuCounters, Memory, Remark, SettleTimes, Stated, Tracker, effective, entitlement,
    layout_agrees, limits_remarks,
};
use crate::kernel::{CpuFacts, KernelError, MemoryFacts, Options, Sources};
use crate::units::{Bytes, Nanos};
use std::os::fd::OwnedFd;

/// How often a reading is taken again when block states and iomem do not agree.
const TRIES: u32 = 4;

/// How closely to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Look {
    /// `sysinfo(2)`, the quota and the set: whether anything changed.
    Tick,
    /// All that a report holds.
    Full,
}

/// What was seen.
#[derive(Clone, Debug)]
pub struct Sight {
    /// The capacity now.
    pub capacity: Capacity,
    /// What a person should know.
    pub remarks: Vec<Remark>,
}

/// The open kernel files and what was last seen in them.
#[derive(Debug)]
pub struct Witness {
    sources: Sources,
    tracker: Tracker,
    counters: CpuCounters,
    last: Option<Last>,
    /// A hotplug event came since blocks and CPUs were last read.
    stale: bool,
    /// No hotplug event comes.
    blind: bool,
}

#[derive(Debug)]
struct Last {
    capacity: Capacity,
    total_ram: Option<Bytes>,
    cpu: CpuFacts,
}

impl Witness {
    /// Opens the kernel's files; of those that need privilege, descriptors may be `given`. `saved` is a baseline of
    /// this boot.
    #[must_use]
    pub fn open(options: Options, given: Vec<(String, OwnedFd)>, saved: Option<Baseline>) -> Self {
        let tracker = Tracker::new(SettleTimes::default(), saved);
        let sources = Sources::open(options, given);
        let counters = CpuCounters::default();
        Self { sources, tracker, counters, last: None, stale: false, blind: false }
    }

    /// A hotplug event came: the next look, however close, reads blocks and CPUs again.
    pub fn hotplugged(&mut self) {
        self.stale = true;
    }

    /// Whether hotplug events come: without them each full look reads blocks and CPUs again.
    pub fn hears_hotplug(&mut self, hears: bool) {
        // What came while nobody heard it.
        self.stale |= self.blind && hears;
        self.blind = !hears;
    }

    /// Looks; `now` is `CLOCK_MONOTONIC`.
    pub fn look(&mut self, now: Nanos, look: Look) -> Sight {
        if look == Look::Tick
            && let Some(sight) = self.tick(now)
        {
            return sight;
        }
        // Where the event of a driver that starts to run is not heard.
        if std::mem::take(&mut self.stale) || self.blind || self.sources.awaits_driver() {
            self.sources.reread_layout();
        }
        let total_ram = self.sources.total_ram();
        let (memory, mut remarks) = self.memory(now);
        let facts = self.sources.read_cpu();
        let (cpu, of_cpu) = entitlement(now, &facts, &mut self.counters);
        remarks.extend(of_cpu);
        let capacity = Capacity { memory, cpu };
        self.last = Some(Last { capacity: capacity.clone(), total_ram, cpu: facts });
        Sight { capacity, remarks }
    }

    /// The VM runs again: memory may move from here on, towards what the host asked virtio-mem for.
    pub fn resumed(&mut self, stated: Stated) {
        let boot_before = self.tracker.stated().boot;
        self.tracker.set_stated(stated);
        self.tracker.resumed();
        if stated.boot != boot_before {
            // All of memory is to be judged by it.
            self.last = None;
        }
        if let Some(last) = self.last.as_mut() {
            // What the device had asked for before the pause may be out of date: until it is read again the host's word counts.
            last.capacity.memory.requested = stated.requested;
        }
    }

    /// What boot RAM holds back, to be saved.
    #[must_use]
    pub fn baseline(&self) -> Option<&Baseline> {
        self.tracker.baseline()
    }

    /// The files, for `doctor`.
    pub(super) fn sources(&mut self) -> &mut Sources {
        &mut self.sources
    }

    /// A few system calls where nothing changed; `None` where memory has to be read again.
    fn tick(&mut self, now: Nanos) -> Option<Sight> {
        if self.stale || self.tracker.is_waiting() {
            return None;
        }
        let total_ram = self.sources.total_ram();
        let last = self.last.as_mut().filter(|last| total_ram.is_some() && last.total_ram == total_ram)?;
        self.tracker.settle(now, &mut last.capacity.memory);
        let limits = self.sources.read_limits();
        let mut remarks = limits_remarks(&last.cpu, &limits);
        remarks.extend(self.counters.remarks());
        let limits = limits.unwrap_or_default();
        last.capacity.cpu.quota = limits.quota;
        last.capacity.cpu.effective = effective(&last.cpu, &limits);
        Some(Sight { capacity: last.capacity.clone(), remarks })
    }

    fn memory(&mut self, now: Nanos) -> (Memory, Vec<Remark>) {
        let (mut facts, mut contradiction) = self.read_stated();
        let mut scan = None;
        if let Some(reason) = self.tracker.needs_scan(&facts) {
            // A jump may be a block whose event has not come yet: look at the blocks before the pages.
            self.sources.reread_layout();
            (facts, contradiction) = self.read_stated();
            if self.tracker.needs_scan(&facts).is_some() {
                let counted: Result<_, KernelError> = self.sources.scan_offline_pages();
                (facts, contradiction) = self.read_stated();
                scan = Some((reason, counted));
            }
        }
        let (memory, mut remarks) = self.tracker.observe(now, &facts, scan);
        remarks.extend(contradiction);
        (memory, remarks)
    }

    /// The facts, with the host's word in them.
    fn read_stated(&mut self) -> (MemoryFacts, Option<Remark>) {
        let mut facts = self.read_agreeing();
        let contradiction = self.tracker.stated().hold(&mut facts);
        (facts, contradiction)
    }

    fn read_agreeing(&mut self) -> MemoryFacts {
        let mut facts = self.sources.read_memory();
        for _ in 1..TRIES {
            if layout_agrees(&facts) {
                break;
            }
            self.sources.reread_layout();
            facts = self.sources.read_memory();
        }
        facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Roots;

    #[test]
    fn what_no_event_tells_of_is_read_again_with_each_report() {
        let folder = tempfile::tempdir().unwrap();
        let online = folder.path().join("devices/system/cpu/online");
        std::fs::create_dir_all(online.parent().unwrap()).unwrap();
        std::fs::write(&online, "0-3\n").unwrap();
        let roots = Roots { proc: "/proc".into(), sys: folder.path().to_owned() };
        let options = Options { roots, cgroup: None, device_config: false };
        let mut witness = Witness::open(options, Vec::new(), None);
        let seen = |witness: &mut Witness| witness.look(Nanos::SECOND, Look::Full).capacity.cpu.online;
        assert_eq!(seen(&mut witness), Some(4));
        std::fs::write(&online, "0-1\n").unwrap();
        assert_eq!(seen(&mut witness), Some(4), "an event would have told");
        witness.hears_hotplug(false);
        assert_eq!(seen(&mut witness), Some(2));
        std::fs::write(&online, "0\n").unwrap();
        witness.hears_hotplug(true);
        assert_eq!(seen(&mut witness), Some(1), "it changed while nobody heard");
    }
}
