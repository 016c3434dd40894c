//! A simulated guest: whatever happens to it, `plugged` is right where it is called exact, and in its bounds where not.

use super::*;
use crate::kernel::{
    BalloonDevice, Block, Blocks, BootMemory, IoMemory, KernelError, Layout, MemoryFacts, Span,
    VirtioDevices, Zones,
};
use proptest::prelude::*;
use std::sync::Arc;

const PAGE: u64 = 4096;
const BLOCK: u64 = 128 << 20;
const SUB_BLOCK: u64 = 2 << 20;
const REGION: u64 = 4 << 30;
const BOOT: u64 = 512 << 20;

#[derive(Clone, Debug)]
struct Guest {
    reserved_pages: u64,
    /// Sub-blocks plugged, and whether the block is online.
    blocks: Vec<(u64, bool)>,
    balloon_mib: u64,
    deflate_on_oom: bool,
}

#[derive(Clone, Debug)]
enum Happening {
    /// A block comes, with so many sub-blocks plugged.
    Add(u64),
    /// The last block goes.
    Remove,
    /// Sub-blocks of one block are plugged or unplugged.
    Plug(usize, u64),
    /// Root sets one block on- or offline.
    Switch(usize),
    Balloon(u64),
    /// Boot memory given back to the allocator.
    GiveBack(u64),
}

impl Guest {
    fn new(deflate_on_oom: bool) -> Self {
        Self { reserved_pages: 28_576, blocks: Vec::new(), balloon_mib: 0, deflate_on_oom }
    }

    fn happen(&mut self, happening: &Happening) {
        let count = self.blocks.len();
        match *happening {
            Happening::Add(plugged) if count < 8 => self.blocks.push((plugged, true)),
            Happening::Remove => drop(self.blocks.pop()),
            Happening::Plug(at, plugged) if count > 0 => self.blocks[at % count].0 = plugged,
            Happening::Switch(at) if count > 0 => self.blocks[at % count].1 ^= true,
            Happening::Balloon(mib) => self.balloon_mib = mib,
            Happening::GiveBack(pages) => self.reserved_pages = self.reserved_pages.saturating_sub(pages),
            _ => {}
        }
    }

    fn plugged(&self) -> Bytes {
        Bytes(self.blocks.iter().map(|(plugged, _)| plugged * SUB_BLOCK).sum())
    }

    fn zones(&self) -> Zones {
        let online = self.blocks.iter().filter(|(_, online)| *online);
        let (mut present, mut managed) = (BOOT / PAGE, BOOT / PAGE - self.reserved_pages);
        for (plugged, _) in online {
            present += BLOCK / PAGE;
            managed += plugged * SUB_BLOCK / PAGE;
        }
        if !self.deflate_on_oom {
            managed -= self.balloon_mib * 256;
        }
        Zones { present_pages: present, managed_pages: managed }
    }

    fn memory_blocks(&self) -> Blocks {
        let spans = (0..BOOT / BLOCK).map(|index| (index * BLOCK, true));
        let added =
            self.blocks.iter().enumerate().map(|(at, (_, online))| (REGION + at as u64 * BLOCK, *online));
        let block = |(start, online)| Block { span: Span { start, end: start + BLOCK }, online };
        Blocks { block_size: Bytes(BLOCK), blocks: spans.chain(added).map(block).collect() }
    }

    fn added(&self) -> Bytes {
        Bytes(self.blocks.len() as u64 * BLOCK)
    }

    fn facts(&self, privileged: bool) -> MemoryFacts {
        let zones = self.zones();
        let regions = vec![("virtio1".to_owned(), Span { start: REGION, end: REGION * 2 })];
        let iomem = IoMemory { added: self.added(), regions, ..IoMemory::default() };
        let balloon = Some(BalloonDevice { deflate_on_oom: self.deflate_on_oom });
        let boot = BootMemory {
            bytes: Bytes(BOOT),
            source: Source::FirmwareMemmap,
            spans: vec![Span { start: 0, end: BOOT }],
            precision: BootPrecision::Exact,
        };
        let layout = Layout {
            boot: Ok(boot),
            blocks: Ok(self.memory_blocks()),
            virtio: Ok(VirtioDevices {
                memory: vec![("virtio1".to_owned(), "config".into())],
                without_driver: Vec::new(),
                balloon,
            }),
        };
        MemoryFacts {
            page_size: PAGE,
            layout: Arc::new(layout),
            iomem: Ok(privileged.then_some(iomem)),
            zones: Ok(zones),
            steady: true,
            mem_total: Ok(Bytes(zones.managed_pages * PAGE)),
            ballooned: Some(Ok(Bytes::mib(self.balloon_mib))),
            device_config: None,
        }
    }

    fn scan(&self) -> Scan {
        let online = self.blocks.iter().filter(|(_, online)| *online);
        let unplugged: u64 = online.map(|(plugged, _)| (BLOCK - plugged * SUB_BLOCK) / PAGE).sum();
        Scan {
            offline_pages: unplugged + self.balloon_mib * 256,
            zones: self.zones(),
            added: self.added(),
            blocks: self.memory_blocks(),
            ballooned: Some(Bytes::mib(self.balloon_mib)),
        }
    }
}

/// How the count of offline pages goes, where one is asked for.
#[derive(Clone, Copy, Debug)]
enum Count {
    Right,
    /// Of the moment before the last thing happened.
    Stale,
    Failed,
    /// There is no kpageflags.
    Unavailable,
}

/// What happens between two looks: one thing, or two.
fn happenings() -> impl Strategy<Value = (Happening, Option<Happening>, Count)> {
    let count = prop_oneof![3 => Just(Count::Right), 1 => Just(Count::Stale), 1 => Just(Count::Failed)];
    (happening(), prop::option::of(happening()), count)
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        3 => (1..=64u64).prop_map(Happening::Add),
        1 => Just(Happening::Remove),
        3 => (0..8usize, 1..=64u64).prop_map(|(at, plugged)| Happening::Plug(at, plugged)),
        1 => (0..8usize).prop_map(Happening::Switch),
        2 => (0..100u64).prop_map(Happening::Balloon),
        1 => prop_oneof![Just(80u64), Just(512), Just(1024), 1..2000u64].prop_map(Happening::GiveBack),
    ]
}

fn look(
    tracker: &mut Tracker,
    now: Nanos,
    guest: &Guest,
    before: &Guest,
    count: Count,
    privileged: bool,
) -> Memory {
    let facts = guest.facts(privileged);
    let failed = || KernelError::Unstable { path: "/proc/zoneinfo".into(), tries: 4 };
    let scan = tracker.needs_scan(&facts).map(|reason| {
        let scan = match count {
            Count::Right => Ok(guest.scan()),
            Count::Stale => Ok(before.scan()),
            Count::Failed => Err(failed()),
            Count::Unavailable => {
                Err(KernelError::Open { path: "/proc/kpageflags".into(), cause: rustix::io::Errno::NOENT })
            }
        };
        (reason, scan.and_then(|scan| if privileged { Ok(scan) } else { Err(failed()) }))
    });
    tracker.observe(now, &facts, scan).0
}

fn check(memory: &Memory, guest: &Guest) -> Result<(), TestCaseError> {
    let truth = guest.plugged();
    let (lower, upper) = (memory.lower.unwrap_or(Bytes::ZERO), memory.upper.unwrap_or(Bytes::PHYSICAL_MAX));
    prop_assert!(lower <= truth && truth <= upper, "{truth} is not in {lower} to {upper}: {guest:?}");
    if memory.precision == Precision::Exact {
        prop_assert_eq!(
            (memory.plugged, memory.lower, memory.upper),
            (Some(truth), Some(truth), Some(truth))
        );
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_wrong_number_is_never_called_exact(
        happenings in prop::collection::vec(happenings(), 1..40),
        deflate in any::<bool>(),
        privileged in prop::bool::weighted(0.8),
        late in 0..10usize,
    ) {
        let mut guest = Guest::new(deflate);
        let mut tracker = Tracker::default();
        let mut now = Nanos::ZERO;
        for (at, (happening, second, count)) in happenings.iter().enumerate() {
            let before = guest.clone();
            guest.happen(happening);
            if let Some(second) = second {
                guest.happen(second);
            }
            // What cancels out to the byte moves no number of the kernel: nobody can see it.
            if (guest.zones(), guest.added()) == (before.zones(), before.added()) {
                guest = before.clone();
            }
            now = now.saturating_add(Nanos::SECOND);
            if at >= late {
                check(&look(&mut tracker, now, &guest, &before, *count, privileged), &guest)?;
            }
        }
        // With nothing in the way, the next look is exact wherever every block is online.
        let memory = look(&mut tracker, now, &guest, &guest, Count::Right, privileged);
        check(&memory, &guest)?;
        let online = guest.blocks.iter().all(|(_, online)| *online);
        prop_assert_eq!(memory.precision == Precision::Exact, privileged && online);
    }
}

/// From the huge-pages VM test: a block came online after its pages were counted, and its unplugged part was taken
/// for boot memory's.
#[test]
fn a_count_from_before_a_block_came_is_no_baseline() {
    let mut guest = Guest::new(false);
    guest.blocks = vec![(64, true), (64, true)];
    let before = guest.clone();
    guest.blocks.push((22, true));
    let mut stale = before.scan();
    (stale.zones, stale.added) = (guest.zones(), guest.added());
    let mut tracker = Tracker::default();
    let (memory, remarks) =
        tracker.observe(Nanos::ZERO, &guest.facts(true), Some((ScanReason::NoBaseline, Ok(stale))));
    assert_eq!(memory.precision, Precision::Bounded);
    assert!(matches!(remarks.as_slice(), [Remark::ScanFailed { .. }]), "{remarks:?}");
    assert!(tracker.is_waiting(), "it is tried again");
}

#[test]
fn a_restarted_agent_goes_on_from_its_saved_baseline_under_a_balloon() {
    let mut guest = Guest::new(false);
    let mut tracker = Tracker::default();
    look(&mut tracker, Nanos::ZERO, &guest, &guest, Count::Failed, true);
    let saved = tracker.baseline().cloned();
    guest.happen(&Happening::Add(40));
    guest.happen(&Happening::Balloon(64));
    let mut restarted = Tracker::new(SettleTimes::default(), saved);
    let memory = look(&mut restarted, Nanos::ZERO, &guest, &guest, Count::Unavailable, true);
    assert_eq!((memory.precision, memory.plugged), (Precision::Exact, Some(Bytes::mib(80))));
    assert!(memory.sources.contains(&Source::SavedBaseline));
}

#[test]
fn states_follow_the_request_and_the_time() {
    let mut guest = Guest::new(false);
    let mut tracker = Tracker::default();
    let mut state = |guest: &Guest, seconds: u64, requested: Option<u64>| {
        tracker.set_stated(Stated { requested: requested.map(Bytes::mib), boot: None });
        look(&mut tracker, Nanos::from_secs(seconds), guest, guest, Count::Right, true).state
    };
    assert_eq!(state(&guest, 0, None), MemoryState::Unknown, "one look has no history");
    assert_eq!(state(&guest, 2, None), MemoryState::Settled);
    assert_eq!(state(&guest, 3, Some(128)), MemoryState::Plugging);
    guest.happen(&Happening::Add(32));
    assert_eq!(state(&guest, 4, Some(128)), MemoryState::Plugging);
    assert_eq!(state(&guest, 14, Some(128)), MemoryState::Short);
    assert_eq!(state(&guest, 15, Some(64)), MemoryState::Settled);
    assert_eq!(state(&guest, 16, Some(0)), MemoryState::Unplugging, "asked for just now");
    assert_eq!(state(&guest, 25, Some(0)), MemoryState::Unplugging);
    assert_eq!(state(&guest, 26, Some(0)), MemoryState::Over);
    assert_eq!(state(&guest, 27, Some(256)), MemoryState::Plugging, "asked for just now");
    assert_eq!(state(&guest, 37, Some(256)), MemoryState::Short);
    assert_eq!(state(&guest, 38, None), MemoryState::Settled);
    guest.happen(&Happening::Plug(0, 16));
    assert_eq!(state(&guest, 39, Some(0)), MemoryState::Unplugging);
    assert_eq!(state(&guest, 40, None), MemoryState::Unplugging);
}

/// From a real guest: 64 huge pages gave exactly a sub-block of boot memory back while a block with 44 MiB came, and 46
/// was called exact for good.
#[test]
fn boot_memory_given_back_while_a_block_comes_is_not_called_plugged() {
    let mut guest = Guest::new(false);
    let mut tracker = Tracker::default();
    look(&mut tracker, Nanos::ZERO, &guest, &guest, Count::Right, true);
    guest.happen(&Happening::GiveBack(512));
    guest.happen(&Happening::Add(22));
    assert_eq!(tracker.needs_scan(&guest.facts(true)), Some(ScanReason::AddedMoved));
    let memory = look(&mut tracker, Nanos::SECOND, &guest, &guest, Count::Failed, true);
    assert_eq!(memory.precision, Precision::Bounded, "not counted yet");
    let memory = look(&mut tracker, Nanos::SECOND, &guest, &guest, Count::Right, true);
    assert_eq!((memory.precision, memory.plugged), (Precision::Exact, Some(Bytes::mib(44))));
}

#[test]
fn memory_that_nobody_plugged_is_never_called_exact() {
    let mut guest = Guest::new(false);
    guest.happen(&Happening::Add(40));
    let mut facts = guest.facts(true);
    facts.mem_total = Ok(Bytes::mib(700));
    let (memory, remarks) = Tracker::default().observe(Nanos::ZERO, &facts, None);
    assert_eq!(memory.precision, Precision::Bounded);
    assert!(memory.upper >= Some(Bytes::mib(188)), "boot and plugged hold MemTotal: {memory:?}");
    assert!(remarks.iter().any(|remark| matches!(remark, Remark::MoreThanAll { .. })), "{remarks:?}");
}
