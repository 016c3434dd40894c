//! `plugged = added − hidden`, with bounds where a term is missing.

use super::tracker::Baseline;
use super::{BootPrecision, Precision, Source};
use crate::kernel::{Block, BootMemory, IoMemory, MemoryFacts, Span, VirtioDevices};
use crate::units::Bytes;

/// What one reading says of virtio-mem, before the device's own word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Derivation {
    pub(super) added: Option<Bytes>,
    pub(super) offline: Option<Bytes>,
    pub(super) online: Option<Bytes>,
    pub(super) lower: Option<Bytes>,
    pub(super) upper: Option<Bytes>,
    pub(super) precision: Precision,
    pub(super) sources: Vec<Source>,
}

/// The virtio-mem memory that Linux has added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Added {
    pub(super) bytes: Bytes,
    pub(super) offline: Bytes,
    /// Said by iomem; else by the memory blocks outside boot RAM.
    pub(super) by_iomem: bool,
}

/// Whether the memory blocks and iomem tell of the same memory: blocks are read on events only and can be stale.
#[must_use]
pub fn layout_agrees(facts: &MemoryFacts) -> bool {
    let (Ok(Some(iomem)), Ok(blocks)) = (&facts.iomem, &facts.layout.blocks) else { return true };
    let spans: u64 = virtio_blocks(facts).unwrap_or_default().iter().map(|block| block.span.bytes().0).sum();
    blocks.blocks.is_empty() || Bytes(spans) == iomem.added
}

/// Whether there is no virtio-mem at all, by the bus: iomem knows nothing of a device without a driver.
pub(super) fn is_plain(facts: &MemoryFacts) -> bool {
    let shown =
        matches!(&facts.iomem, Ok(Some(iomem)) if !iomem.regions.is_empty() || iomem.added > Bytes::ZERO);
    let none = |virtio: &VirtioDevices| virtio.memory.is_empty() && virtio.without_driver.is_empty();
    facts.layout.virtio.as_ref().is_ok_and(none) && !shown
}

/// Whether Linux knows of all that was plugged: every device has its driver, and all memory there is its owner.
pub(super) fn is_known(facts: &MemoryFacts) -> bool {
    let Ok(virtio) = &facts.layout.virtio else { return false };
    let shown = match &facts.iomem {
        Ok(Some(iomem)) => iomem.regions.len() >= virtio.memory.len() && accounted(facts, iomem),
        _ => true,
    };
    virtio.without_driver.is_empty() && shown
}

/// Whether boot RAM, virtio-mem and what others have added explain every block and every page.
fn accounted(facts: &MemoryFacts, iomem: &IoMemory) -> bool {
    let (Ok(boot), Ok(blocks)) = (&facts.layout.boot, &facts.layout.blocks) else { return false };
    let foreign = foreign(facts);
    let regions = iomem.regions.iter().chain(&foreign).map(|(_, span)| span);
    let owners: Vec<&Span> = regions.chain(&boot.spans).collect();
    let owned = blocks.blocks.iter().all(|block| owners.iter().any(|owner| owner.overlaps(&block.span)));
    let most = boot.bytes.0.saturating_add(iomem.added.0).saturating_add(total(&foreign).0);
    let present = match &facts.zones {
        // Between two moments the zones may be ahead of the lines.
        Ok(zones) => !facts.steady || zones.present_pages.saturating_mul(facts.page_size) <= most,
        // That nothing was added needs their word; a bound does not.
        Err(_) => iomem.added > Bytes::ZERO,
    };
    owned && present
}

/// Boot RAM where it is known which memory that is.
fn located_boot(facts: &MemoryFacts) -> Option<&BootMemory> {
    let boot = facts.layout.boot.as_ref().ok();
    boot.filter(|boot| boot.source != Source::MemoryBlocks && !boot.spans.is_empty())
}

/// Memory that is neither boot's nor virtio-mem's: dax/kmem, CXL, DIMMs that the memory map does not have.
pub(super) fn foreign(facts: &MemoryFacts) -> Vec<(String, Span)> {
    let Some(boot) = located_boot(facts) else { return Vec::new() };
    let plain = |span: &Span| ("System RAM".to_owned(), *span);
    let mut found: Vec<(String, Span)> = match (&facts.iomem, &facts.layout.blocks) {
        (Ok(Some(iomem)), _) => {
            iomem.foreign.iter().cloned().chain(iomem.plain_ram.iter().map(plain)).collect()
        }
        // Beside virtio-mem's own blocks it could not be told apart.
        (_, Ok(blocks)) if is_plain(facts) => {
            blocks.blocks.iter().map(|block| ("memory block".to_owned(), block.span)).collect()
        }
        _ => Vec::new(),
    };
    found.retain(|(_, span)| !boot.spans.iter().any(|own| own.overlaps(span)));
    found
}

pub(super) fn total(spans: &[(String, Span)]) -> Bytes {
    Bytes(spans.iter().fold(0, |sum, (_, span)| span.bytes().0.saturating_add(sum)))
}

/// The memory blocks of virtio-mem devices; `None` where they cannot be told from boot RAM.
fn virtio_blocks(facts: &MemoryFacts) -> Option<Vec<Block>> {
    let blocks = &facts.layout.blocks.as_ref().ok()?.blocks;
    let mine: Vec<Block> = match &facts.iomem {
        Ok(Some(iomem)) => {
            let inside =
                |block: &&Block| iomem.regions.iter().any(|(_, region)| region.overlaps(&block.span));
            blocks.iter().filter(inside).copied().collect()
        }
        _ => {
            let boot = located_boot(facts)?;
            let outside = |block: &&Block| !boot.spans.iter().any(|span| span.overlaps(&block.span));
            blocks.iter().filter(outside).copied().collect()
        }
    };
    Some(mine)
}

pub(super) fn added(facts: &MemoryFacts) -> Option<Added> {
    let sum = |blocks: &[Block]| Bytes(blocks.iter().map(|block| block.span.bytes().0).sum());
    let mine = virtio_blocks(facts)?;
    let offline: Vec<Block> = mine.iter().filter(|block| !block.online).copied().collect();
    Some(match &facts.iomem {
        Ok(Some(iomem)) => Added { bytes: iomem.added, offline: sum(&offline), by_iomem: true },
        _ => Added { bytes: sum(&mine), offline: sum(&offline), by_iomem: false },
    })
}

/// The part of the balloon that lowers `managed`.
pub(super) fn balloon_in_managed(facts: &MemoryFacts) -> Option<Bytes> {
    match (&facts.ballooned, deflates_on_oom(facts)) {
        (None, _) | (Some(_), true) => Some(Bytes::ZERO),
        (Some(Ok(held)), false) => Some(*held),
        (Some(Err(_)), false) => None,
    }
}

pub(super) fn deflates_on_oom(facts: &MemoryFacts) -> bool {
    let virtio = facts.layout.virtio.as_ref().ok();
    virtio.and_then(|virtio| virtio.balloon).is_some_and(|balloon| balloon.deflate_on_oom)
}

/// Whether `Σ managed · page = MemTotal`: deferred initialisation breaks that, and with it the derivation.
pub(super) fn managed_is_total(facts: &MemoryFacts) -> bool {
    match (&facts.zones, &facts.mem_total) {
        (Ok(zones), Ok(total)) => zones.managed_pages.checked_mul(facts.page_size) == Some(total.0),
        _ => false,
    }
}

/// `plugged` as derived, whatever it is worth: `added − ((present − managed − reserved) · page − balloon)`.
pub(super) fn derived(facts: &MemoryFacts, added: Bytes, baseline: &Baseline) -> Option<i128> {
    let zones = facts.zones.as_ref().ok()?;
    let balloon = balloon_in_managed(facts)?;
    let pages = i128::from(zones.present_pages)
        - i128::from(zones.managed_pages)
        - i128::from(baseline.reserved_pages);
    let hidden = pages * i128::from(facts.page_size) - i128::from(balloon.0);
    Some(i128::from(added.0) - hidden)
}

/// `derived` where it can be true: between nothing and what was added, in whole sub-blocks.
pub(super) fn plausible(derived: i128, added: Bytes, granularity: Bytes) -> Option<Bytes> {
    let bytes = u64::try_from(derived).ok()?;
    (bytes <= added.0 && bytes.is_multiple_of(granularity.0.max(1))).then_some(Bytes(bytes))
}

/// The least plugged memory that explains `MemTotal`: boot RAM cannot give Linux more than all of itself. Nothing where
/// boot RAM may be more than is known, or where memory of others cannot be told from virtio-mem's.
fn floor(facts: &MemoryFacts) -> Bytes {
    match (&facts.mem_total, &facts.layout.boot, &facts.iomem) {
        (Ok(total_ram), Ok(boot), Ok(Some(_))) if boot.precision != BootPrecision::LowerBound => {
            total_ram.saturating_sub(boot.bytes).saturating_sub(total(&foreign(facts)))
        }
        _ => Bytes::ZERO,
    }
}

/// The derivation, with a baseline that is trusted or none.
pub(super) fn derive(facts: &MemoryFacts, baseline: Option<&Baseline>, granularity: Bytes) -> Derivation {
    if is_plain(facts) {
        return plain(facts);
    }
    let Some(added) = added(facts).filter(|_| is_known(facts)) else { return unknown(facts) };
    let mut sources = vec![if added.by_iomem { Source::Iomem } else { Source::MemoryBlocks }];
    let mut bounded = Derivation {
        added: Some(added.bytes),
        offline: Some(added.offline),
        online: None,
        lower: Some(floor(facts).min(added.bytes)),
        upper: Some(added.bytes),
        precision: Precision::Bounded,
        sources: sources.clone(),
    };
    if added.bytes == Bytes::ZERO && added.by_iomem && layout_agrees(facts) && facts.mem_total.is_ok() {
        (bounded.lower, bounded.online) = (Some(Bytes::ZERO), Some(Bytes::ZERO));
        bounded.precision = Precision::Exact;
        return bounded;
    }
    if !facts.steady || !managed_is_total(facts) || !layout_agrees(facts) {
        return bounded;
    }
    let Some(baseline) = baseline else { return bounded };
    let plugged = derived(facts, added.bytes, baseline)
        .and_then(|derived| plausible(derived, added.bytes, granularity));
    let Some(plugged) = plugged else { return bounded };
    sources.extend([Source::Zoneinfo, baseline.source]);
    if facts.ballooned.is_some() && !deflates_on_oom(facts) {
        sources.push(Source::Vmstat);
    }
    let lower = plugged.saturating_sub(added.offline);
    Derivation {
        added: Some(added.bytes),
        offline: Some(added.offline),
        online: Some(lower),
        lower: Some(if added.by_iomem { lower } else { Bytes::ZERO }),
        upper: Some(plugged),
        precision: if lower == plugged && added.by_iomem { Precision::Exact } else { Precision::Bounded },
        sources,
    }
}

/// Nothing plugged, where the kernel says anything at all of its memory.
fn plain(facts: &MemoryFacts) -> Derivation {
    if facts.layout.boot.is_err() || facts.zones.is_err() || facts.mem_total.is_err() {
        return unknown(facts);
    }
    Derivation {
        added: Some(Bytes::ZERO),
        offline: Some(Bytes::ZERO),
        online: Some(Bytes::ZERO),
        lower: Some(Bytes::ZERO),
        upper: Some(Bytes::ZERO),
        precision: Precision::Exact,
        sources: vec![Source::VirtioBus],
    }
}

fn unknown(facts: &MemoryFacts) -> Derivation {
    Derivation {
        added: None,
        offline: None,
        online: None,
        lower: Some(floor(facts)),
        upper: None,
        precision: Precision::Bounded,
        sources: Vec::new(),
    }
}
