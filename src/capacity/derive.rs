//! `plugged = added − hidden`, with bounds where a term is missing.

use super::tracker::Baseline;
use super::{Precision, Source};
use crate::kernel::{Block, MemoryFacts};
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

/// Whether there is no virtio-mem at all.
pub(super) fn is_plain(facts: &MemoryFacts) -> bool {
    let no_region = match &facts.iomem {
        Ok(Some(iomem)) => Some(iomem.regions.is_empty() && iomem.added == Bytes::ZERO),
        _ => None,
    };
    match &facts.layout.virtio {
        Ok(virtio) => virtio.memory.is_empty() && no_region != Some(false),
        Err(_) => no_region == Some(true),
    }
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
            let boot = facts.layout.boot.as_ref().ok().filter(|boot| boot.source != Source::MemoryBlocks)?;
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

/// The least plugged memory that explains `MemTotal`: boot RAM cannot give Linux more than all of itself.
fn floor(facts: &MemoryFacts) -> Bytes {
    match (&facts.mem_total, &facts.layout.boot) {
        (Ok(total), Ok(boot)) => total.saturating_sub(boot.bytes),
        _ => Bytes::ZERO,
    }
}

/// The derivation, with a baseline that is trusted or none.
pub(super) fn derive(facts: &MemoryFacts, baseline: Option<&Baseline>, granularity: Bytes) -> Derivation {
    if is_plain(facts) {
        return plain(facts);
    }
    let Some(added) = added(facts) else { return unknown(facts) };
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
    if added.bytes == Bytes::ZERO && added.by_iomem {
        bounded.online = Some(Bytes::ZERO);
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
        lower: Some(lower),
        upper: Some(plugged),
        precision: if lower == plugged && added.by_iomem { Precision::Exact } else { Precision::Bounded },
        sources,
    }
}

fn plain(facts: &MemoryFacts) -> Derivation {
    let source = if facts.layout.virtio.is_ok() { Source::VirtioBus } else { Source::Iomem };
    Derivation {
        added: Some(Bytes::ZERO),
        offline: Some(Bytes::ZERO),
        online: Some(Bytes::ZERO),
        lower: Some(Bytes::ZERO),
        upper: Some(Bytes::ZERO),
        precision: Precision::Exact,
        sources: vec![source],
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
