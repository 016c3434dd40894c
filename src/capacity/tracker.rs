//! What is remembered between readings: the reserved baseline, and since when memory stands still.

use super::derive::{self, Derivation};
use super::remark::{self, Judged, Remark, hold_to_total, judge};
use super::{Memory, MemoryState, Source, Stated};
use crate::kernel::{Blocks, KernelError, MemoryFacts, Zones};
use crate::units::{Bytes, Nanos};
use serde::{Deserialize, Serialize};

/// The sub-block virtio-mem plugs in where the device does not say: a huge page.
const SUB_BLOCK: Bytes = Bytes::mib(2);

/// What boot RAM holds back from the allocator, and what was seen with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// `present − managed` of boot RAM alone.
    pub reserved_pages: u64,
    /// `present` of boot RAM alone.
    pub boot_pages: u64,
    /// Where it was taken from.
    pub source: Source,
    mem_total: Bytes,
    added: Bytes,
    balloon: Bytes,
}

/// A count of offline pages over all online system RAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Pages with `KPF_OFFLINE`.
    pub offline_pages: u64,
    /// The zones before and after it.
    pub zones: Zones,
    /// What was added then.
    pub added: Bytes,
    /// The memory blocks before and after it.
    pub blocks: Blocks,
    /// What the balloon held before and after it.
    pub ballooned: Option<Bytes>,
}

/// Why offline pages have to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanReason {
    /// Memory was plugged before the first reading.
    NoBaseline,
    /// The derived size is no multiple of the sub-block, or not between nothing and what was added.
    Implausible,
    /// `MemTotal` moved, and neither the balloon nor added memory explains it.
    MemTotalMoved,
    /// Memory was added or removed, and `MemTotal` may have moved for another reason too.
    AddedMoved,
    /// Boot RAM has other pages than before.
    BootMemoryMoved,
    /// The count failed last time.
    Untrusted,
}

/// How long memory has to stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettleTimes {
    /// Without a known request: this long unchanged is settled.
    pub quiet: Nanos,
    /// With one: this long unchanged away from it is short or over.
    pub settle: Nanos,
}

impl Default for SettleTimes {
    fn default() -> Self {
        Self { quiet: Nanos::from_secs(2), settle: Nanos::from_secs(10) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Progress {
    plugged: Bytes,
    since: Nanos,
    moving: Option<MemoryState>,
    requested: Option<Bytes>,
    requested_since: Nanos,
}

/// Facts in, memory out; remembers what a single reading cannot say.
#[derive(Clone, Debug, Default)]
pub struct Tracker {
    times: SettleTimes,
    baseline: Option<Baseline>,
    untrusted: bool,
    waiting: bool,
    stated: Stated,
    progress: Option<Progress>,
}

impl Tracker {
    /// A tracker with a baseline that was saved earlier in this boot, or none.
    #[must_use]
    pub fn new(times: SettleTimes, saved: Option<Baseline>) -> Self {
        let baseline = saved.map(|saved| Baseline { source: Source::SavedBaseline, ..saved });
        Self { times, baseline, ..Self::default() }
    }

    /// The baseline, to be saved.
    #[must_use]
    pub fn baseline(&self) -> Option<&Baseline> {
        self.baseline.as_ref()
    }

    /// The host's word; of what is requested, the device's own goes before it.
    pub fn set_stated(&mut self, stated: Stated) {
        self.stated = stated;
    }

    /// What was set last.
    #[must_use]
    pub fn stated(&self) -> Stated {
        self.stated
    }

    /// The VM runs again: how long memory stood still before tells nothing of what it will do now.
    pub fn resumed(&mut self) {
        self.progress = None;
    }

    /// Whether offline pages have to be counted before `facts` can be judged.
    #[must_use]
    pub fn needs_scan(&self, facts: &MemoryFacts) -> Option<ScanReason> {
        let judgeable = !derive::is_plain(facts) && derive::is_known(facts);
        if !judgeable || !facts.steady || !derive::managed_is_total(facts) {
            return None;
        }
        let added = derive::added(facts).filter(|added| added.bytes > Bytes::ZERO)?;
        let Some(baseline) = &self.baseline else { return Some(ScanReason::NoBaseline) };
        if self.untrusted {
            return Some(ScanReason::Untrusted);
        }
        let derived = derive::derived(facts, added.bytes, baseline)?;
        if derive::plausible(derived, added.bytes, granularity(facts)).is_none() {
            return Some(ScanReason::Implausible);
        }
        if boot_pages(facts)? != baseline.boot_pages {
            return Some(ScanReason::BootMemoryMoved);
        }
        let total = i128::from(facts.mem_total.as_ref().ok()?.0);
        let balloon = i128::from(derive::balloon_in_managed(facts)?.0);
        let moved = total - i128::from(baseline.mem_total.0);
        let by_balloon = i128::from(baseline.balloon.0) - balloon;
        if added.by_iomem && added.bytes != baseline.added {
            // Boot memory may have moved in the same look, by as much as a sub-block of the new blocks.
            return Some(ScanReason::AddedMoved);
        }
        (added.bytes == baseline.added && moved != by_balloon).then_some(ScanReason::MemTotalMoved)
    }

    /// Judges `facts`, after the scan that [`Tracker::needs_scan`] asked for, if it did.
    pub fn observe(
        &mut self,
        now: Nanos,
        facts: &MemoryFacts,
        scan: Option<(ScanReason, Result<Scan, KernelError>)>,
    ) -> (Memory, Vec<Remark>) {
        let mut remarks = Vec::new();
        remark::of_facts(facts, &mut remarks);
        let moving = matches!(&scan, Some((_, Err(KernelError::Unstable { .. }))));
        self.waiting = moving || !facts.steady || !derive::layout_agrees(facts);
        self.rebase(facts, scan, &mut remarks);
        let trusted = self.baseline.as_ref().filter(|_| !self.untrusted);
        let derivation = derive::derive(facts, trusted, granularity(facts));
        if let Some(baseline) = self.baseline.as_mut().filter(|_| facts.steady && !self.untrusted) {
            baseline.note(facts);
        }
        let device = device_sums(facts);
        let judged = judge(&derivation, device.map(|(plugged, _)| plugged), &mut remarks);
        let judged = hold_to_total(facts, judged, &mut remarks);
        let requested = device.map(|(_, requested)| requested).or(self.stated.requested);
        let plain = derive::is_plain(facts) && judged.upper.is_some();
        let state = if plain { MemoryState::Settled } else { self.state(now, &judged, requested) };
        (memory(facts, derivation, judged, requested, state), remarks)
    }

    /// Whether the last reading was taken while memory moved, so that the next one may say more.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.waiting
    }

    /// The state alone, some time later, with nothing read again.
    pub fn settle(&mut self, now: Nanos, memory: &mut Memory) {
        let plain = memory.sources.contains(&Source::VirtioBus);
        if !plain {
            let judged = Judged { lower: memory.lower, upper: memory.upper, precision: memory.precision };
            memory.state = self.state(now, &judged, memory.requested);
        }
    }

    fn rebase(
        &mut self,
        facts: &MemoryFacts,
        scan: Option<(ScanReason, Result<Scan, KernelError>)>,
        remarks: &mut Vec<Remark>,
    ) {
        let fresh = match scan {
            Some((reason, Ok(scan))) => match Baseline::from_scan(facts, &scan) {
                Some(fresh) => fresh,
                None => {
                    self.untrusted = self.baseline.is_some();
                    self.waiting = true;
                    let cause = KernelError::Unstable { path: "/proc/zoneinfo".into(), tries: 1 };
                    return remarks.push(Remark::ScanFailed { reason, cause });
                }
            },
            // Nobody can count here: the baseline stands until a number contradicts it.
            Some((ScanReason::AddedMoved, Err(KernelError::Open { .. }))) => return,
            Some((reason, Err(cause))) => {
                self.untrusted = self.baseline.is_some();
                return remarks.push(Remark::ScanFailed { reason, cause });
            }
            None => match Baseline::from_nothing_added(facts) {
                Some(fresh) => fresh,
                None => return,
            },
        };
        let before = self.baseline.as_ref().map(|before| before.reserved_pages);
        if let Some(from) = before.filter(|from| *from != fresh.reserved_pages) {
            remarks.push(Remark::BaselineMoved { from, to: fresh.reserved_pages });
        }
        self.untrusted = false;
        self.baseline = Some(fresh);
    }

    fn state(&mut self, now: Nanos, judged: &Judged, requested: Option<Bytes>) -> MemoryState {
        let Some(plugged) = judged.upper else { return MemoryState::Unknown };
        let progress = match self.progress {
            Some(progress) if progress.plugged == plugged && progress.requested == requested => progress,
            // The request alone has changed: `short` and `over` are settled states of this one.
            Some(progress) if progress.plugged == plugged => {
                Progress { requested, requested_since: now, ..progress }
            }
            before => {
                let moving = before.map(|before| {
                    if plugged > before.plugged { MemoryState::Plugging } else { MemoryState::Unplugging }
                });
                Progress { plugged, since: now, moving, requested, requested_since: now }
            }
        };
        self.progress = Some(progress);
        let still = now.saturating_sub(progress.since);
        let at_rest = still.min(now.saturating_sub(progress.requested_since)) >= self.times.settle;
        let lower = judged.lower.unwrap_or(Bytes::ZERO);
        match requested {
            Some(requested) if plugged < requested && !at_rest => MemoryState::Plugging,
            Some(requested) if plugged < requested => MemoryState::Short,
            Some(requested) if lower > requested && !at_rest => MemoryState::Unplugging,
            Some(requested) if lower > requested => MemoryState::Over,
            Some(_) if lower == plugged => MemoryState::Settled,
            Some(_) => MemoryState::Unknown,
            None if still >= self.times.quiet => MemoryState::Settled,
            None => progress.moving.unwrap_or(MemoryState::Unknown),
        }
    }
}

/// Σ plugged and Σ requested of all devices.
fn device_sums(facts: &MemoryFacts) -> Option<(Bytes, Bytes)> {
    let configs = facts.device_config.as_ref()?.as_ref().ok()?;
    configs.iter().try_fold((Bytes::ZERO, Bytes::ZERO), |(plugged, requested), config| {
        Some((plugged.checked_add(config.plugged)?, requested.checked_add(config.requested)?))
    })
}

fn granularity(facts: &MemoryFacts) -> Bytes {
    let configs = facts.device_config.as_ref().and_then(|configs| configs.as_ref().ok());
    let least = configs.and_then(|configs| configs.iter().map(|config| config.block_size).min());
    least.unwrap_or(SUB_BLOCK).min(SUB_BLOCK)
}

/// `present` of boot RAM: what is not virtio-mem's and online.
fn boot_pages(facts: &MemoryFacts) -> Option<u64> {
    let added = derive::added(facts)?;
    let online = added.bytes.checked_sub(added.offline)?;
    facts.zones.as_ref().ok()?.present_pages.checked_sub(online.0 / facts.page_size)
}

impl Baseline {
    /// With nothing added, all that is held back is boot RAM's.
    fn from_nothing_added(facts: &MemoryFacts) -> Option<Self> {
        let added = derive::added(facts)?;
        if derive::is_plain(facts)
            || added.bytes > Bytes::ZERO
            || !facts.steady
            || !derive::is_known(facts)
            || !derive::managed_is_total(facts)
        {
            return None;
        }
        let zones = facts.zones.as_ref().ok()?;
        let balloon = derive::balloon_in_managed(facts)?.0 / facts.page_size;
        let reserved_pages = zones.present_pages.checked_sub(zones.managed_pages)?.checked_sub(balloon)?;
        Some(Self::with(facts, reserved_pages, zones.present_pages, Source::Zoneinfo))
    }

    /// `present − managed − offline + b`, `b` being the balloon where it does not lower `managed`: its pages are
    /// marked offline in either case.
    fn from_scan(facts: &MemoryFacts, scan: &Scan) -> Option<Self> {
        let held = facts.ballooned.as_ref().map(|held| held.as_ref().ok().copied());
        let same_moment = facts.layout.blocks.as_ref() == Ok(&scan.blocks)
            && facts.zones == Ok(scan.zones)
            && held == scan.ballooned.map(Some)
            && derive::layout_agrees(facts);
        let added = derive::added(facts).filter(|added| added.bytes == scan.added && same_moment)?;
        let beside = if derive::deflates_on_oom(facts) { scan.ballooned.unwrap_or(Bytes::ZERO).0 } else { 0 };
        let held_back = scan.zones.present_pages.checked_sub(scan.zones.managed_pages)?;
        let reserved_pages = (held_back + beside / facts.page_size).checked_sub(scan.offline_pages)?;
        let online = added.bytes.checked_sub(added.offline)?;
        let boot_pages = scan.zones.present_pages.checked_sub(online.0 / facts.page_size)?;
        Some(Self::with(facts, reserved_pages, boot_pages, Source::Kpageflags))
    }

    fn with(facts: &MemoryFacts, reserved_pages: u64, boot_pages: u64, source: Source) -> Self {
        let (mem_total, added, balloon) = Default::default();
        let mut baseline = Self { reserved_pages, boot_pages, source, mem_total, added, balloon };
        baseline.note(facts);
        baseline
    }

    /// Remembers what the next reading is compared with.
    fn note(&mut self, facts: &MemoryFacts) {
        if let (Ok(total), Some(added), Some(balloon)) =
            (&facts.mem_total, derive::added(facts), derive::balloon_in_managed(facts))
        {
            (self.mem_total, self.added, self.balloon) = (*total, added.bytes, balloon);
        }
    }
}

fn memory(
    facts: &MemoryFacts,
    derivation: Derivation,
    judged: Judged,
    requested: Option<Bytes>,
    state: MemoryState,
) -> Memory {
    let boot = facts.layout.boot.as_ref().ok();
    let mut sources: Vec<Source> = boot.map(|boot| boot.source).into_iter().collect();
    sources.extend(derivation.sources);
    if matches!(facts.device_config, Some(Ok(_))) && !derive::is_plain(facts) {
        sources.push(Source::DeviceConfig);
    }
    if facts.mem_total.is_ok() {
        sources.push(Source::Meminfo);
    }
    let mut sources = crate::kernel::file::sorted(sources);
    sources.dedup();
    Memory {
        boot: boot.map(|boot| boot.bytes),
        boot_precision: boot.map(|boot| boot.precision),
        requested,
        plugged: judged.upper,
        added: derivation.added,
        online: derivation.online,
        offline: derivation.offline,
        ballooned: facts.ballooned.as_ref().map_or(Some(Bytes::ZERO), |held| held.as_ref().ok().copied()),
        mem_total: facts.mem_total.as_ref().ok().copied(),
        state,
        precision: judged.precision,
        lower: judged.lower,
        upper: judged.upper,
        sources,
    }
}
