//! Looks at the kernel: as little as tells whether anything changed, or all that a report holds.

use crate::capacity::{Baseline, Capacity, Memory, Remark, SettleTimes, Tracker, entitlement, layout_agrees};
use crate::kernel::{KernelError, MemoryFacts, Options, Sources};
use crate::units::{Bytes, MilliCpu, Nanos};
use std::os::fd::OwnedFd;

/// How often a reading is taken again when block states and iomem do not agree.
const TRIES: u32 = 4;

/// How closely to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Look {
    /// `sysinfo(2)` and the quota: whether anything changed.
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
    last: Option<Last>,
    /// A hotplug event came since blocks and CPUs were last read.
    stale: bool,
    /// No hotplug event comes.
    blind: bool,
}

#[derive(Debug)]
struct Last {
    capacity: Capacity,
    /// The device itself says what is requested of it.
    device_tells: bool,
    total_ram: Option<Bytes>,
    cpus: MilliCpu,
}

impl Witness {
    /// Opens the kernel's files; of those that need privilege, descriptors may be `given`. `saved` is a baseline of
    /// this boot.
    #[must_use]
    pub fn open(options: Options, given: Vec<(String, OwnedFd)>, saved: Option<Baseline>) -> Self {
        let tracker = Tracker::new(SettleTimes::default(), saved);
        Self { sources: Sources::open(options, given), tracker, last: None, stale: false, blind: false }
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
        if std::mem::take(&mut self.stale) || self.blind {
            self.sources.reread_layout();
        }
        let total_ram = self.sources.total_ram();
        let (memory, device_tells, remarks) = self.memory(now);
        let steal_before = self.last.as_ref().and_then(|last| last.capacity.cpu.steal).unwrap_or(Nanos::ZERO);
        let facts = self.sources.read_cpu();
        let cpu = entitlement(&facts, steal_before);
        let cpus = match cpu.quota {
            Some(_) => entitlement(&facts.without_quota(), steal_before).effective,
            None => cpu.effective,
        };
        let capacity = Capacity { memory, cpu };
        self.last = Some(Last { capacity: capacity.clone(), device_tells, total_ram, cpus });
        Sight { capacity, remarks }
    }

    /// The VM runs again: memory may move from here on, towards what the host asked virtio-mem for.
    pub fn resumed(&mut self, requested: Option<Bytes>) {
        self.tracker.set_requested(requested);
        self.tracker.resumed();
        if let Some(last) = self.last.as_mut().filter(|last| !last.device_tells) {
            last.capacity.memory.requested = requested;
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

    /// Two system calls where nothing changed; `None` where memory has to be read again.
    fn tick(&mut self, now: Nanos) -> Option<Sight> {
        if self.stale || self.tracker.is_waiting() {
            return None;
        }
        let total_ram = self.sources.total_ram();
        let last = self.last.as_mut().filter(|last| total_ram.is_some() && last.total_ram == total_ram)?;
        self.tracker.settle(now, &mut last.capacity.memory);
        let quota = self.sources.read_quota().unwrap_or(last.capacity.cpu.quota);
        last.capacity.cpu.quota = quota;
        last.capacity.cpu.effective = quota.map_or(last.cpus, |quota| quota.min(last.cpus));
        Some(Sight { capacity: last.capacity.clone(), remarks: Vec::new() })
    }

    fn memory(&mut self, now: Nanos) -> (Memory, bool, Vec<Remark>) {
        let mut facts = self.read_agreeing();
        let mut scan = None;
        if let Some(reason) = self.tracker.needs_scan(&facts) {
            // A jump may be a block whose event has not come yet: look at the blocks before the pages.
            self.sources.reread_layout();
            facts = self.read_agreeing();
            if self.tracker.needs_scan(&facts).is_some() {
                let counted: Result<_, KernelError> = self.sources.scan_offline_pages();
                facts = self.read_agreeing();
                scan = Some((reason, counted));
            }
        }
        let (memory, remarks) = self.tracker.observe(now, &facts, scan);
        (memory, matches!(facts.device_config, Some(Ok(_))), remarks)
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
