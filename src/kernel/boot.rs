//! Nominal boot RAM: what the firmware told the kernel, virtio-mem excluded.

use super::blocks::Blocks;
use super::file::{KernelError, KernelFile, TEXT_MAX, list, read_once, sorted};
use super::iomem::Span;
use crate::capacity::Source;
use crate::units::Bytes;
use std::path::Path;

/// Boot RAM as found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootMemory {
    /// How much.
    pub bytes: Bytes,
    /// From where.
    pub source: Source,
    /// Where it is; empty when only the amount is known.
    pub spans: Vec<Span>,
    /// UEFI keeps some for itself: less than the VM was given, until the host states it.
    pub lower_bound: bool,
}

/// Reads the first source there is: firmware memmap, device tree, memory blocks.
///
/// # Errors
/// None of the three says anything; the first one's error.
pub fn read(sys: &Path, regions: &[Span], blocks: Option<&Blocks>) -> Result<BootMemory, KernelError> {
    let first = match from_memmap(sys, regions) {
        Ok(found) => return Ok(found),
        Err(error) => error,
    };
    if let Ok(found) = from_device_tree(sys) {
        return Ok(found);
    }
    let Some(blocks) = blocks else { return Err(first) };
    let spans: Vec<Span> = blocks
        .blocks
        .iter()
        .map(|block| block.span)
        .filter(|span| !regions.iter().any(|region| region.overlaps(span)))
        .collect();
    let bytes = sum(&spans).ok_or(first)?;
    Ok(BootMemory { bytes, source: Source::MemoryBlocks, spans, lower_bound: false })
}

/// Σ `/sys/firmware/memmap` entries of type `System RAM`, rounded up to MiB: the legacy hole below 1 MiB is RAM too.
fn from_memmap(sys: &Path, regions: &[Span]) -> Result<BootMemory, KernelError> {
    let directory = sys.join("firmware/memmap");
    let mut spans = Vec::new();
    for name in list(&directory)? {
        let entry = directory.join(name);
        if read_once(entry.join("type"))? != "System RAM" {
            continue;
        }
        let (start, last) = (address(&entry.join("start"))?, address(&entry.join("end"))?);
        let end = last.checked_add(1).filter(|end| start < *end && *end <= Bytes::PHYSICAL_MAX.0);
        let Some(end) = end else {
            return Err(KernelError::Parse { path: entry, what: format!("no range: {start:#x}-{last:#x}") });
        };
        let span = Span { start, end };
        if !regions.iter().any(|region| region.overlaps(&span)) {
            spans.push(span);
        }
    }
    let spans = sorted(spans);
    if spans.windows(2).any(|pair| matches!(pair, [a, b] if a.overlaps(b))) {
        return Err(KernelError::Parse { path: directory, what: "entries overlap".to_owned() });
    }
    let exact = sum(&spans).ok_or_else(|| KernelError::Parse {
        path: directory,
        what: "no entry of type System RAM".to_owned(),
    })?;
    Ok(BootMemory {
        bytes: Bytes(exact.0.next_multiple_of(Bytes::MIB.0)),
        source: Source::FirmwareMemmap,
        spans,
        lower_bound: sys.join("firmware/efi").exists(),
    })
}

fn address(path: &Path) -> Result<u64, KernelError> {
    let text = read_once(path)?;
    let digits = text.strip_prefix("0x").unwrap_or(&text);
    u64::from_str_radix(digits, 16)
        .map_err(|_| KernelError::Parse { path: path.to_owned(), what: format!("no address: {text:?}") })
}

/// `/sys/firmware/devicetree/base/memory@*/reg`: big-endian cells, see the Devicetree Specification 2.3.6.
fn from_device_tree(sys: &Path) -> Result<BootMemory, KernelError> {
    let base = sys.join("firmware/devicetree/base");
    let (address_cells, size_cells) = (cells(&base, "#address-cells"), cells(&base, "#size-cells"));
    let mut spans = Vec::new();
    for name in list(&base)?.into_iter().filter(|name| name == "memory" || name.starts_with("memory@")) {
        let file = KernelFile::open(base.join(name).join("reg"))?;
        let mut reg = Vec::new();
        file.read_into(&mut reg)?;
        debug_assert!(reg.len() <= TEXT_MAX);
        let entry_len = (address_cells + size_cells) * 4;
        for entry in reg.chunks_exact(entry_len) {
            let (start, size) = entry.split_at(address_cells * 4);
            let (start, size) = (big_endian(start), big_endian(size));
            let end = start.checked_add(size).filter(|end| *end <= Bytes::PHYSICAL_MAX.0);
            let end = end.ok_or_else(|| file.parse_error(format!("{start:#x} + {size:#x}")))?;
            spans.push(Span { start, end });
        }
    }
    let bytes = sum(&spans)
        .ok_or_else(|| KernelError::Parse { path: base, what: "no memory node in it".to_owned() })?;
    Ok(BootMemory { bytes, source: Source::DeviceTree, spans, lower_bound: false })
}

fn cells(base: &Path, name: &str) -> usize {
    let mut bytes = [0; 256];
    let value = KernelFile::open(base.join(name))
        .and_then(|file| file.read_short(&mut bytes).map(big_endian))
        .unwrap_or(2);
    if value == 1 { 1 } else { 2 }
}

fn big_endian(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, byte| (value << 8) | u64::from(*byte))
}

fn sum(spans: &[Span]) -> Option<Bytes> {
    let total = spans.iter().try_fold(Bytes::ZERO, |total, span| total.checked_add(span.bytes()))?;
    (total > Bytes::ZERO && total <= Bytes::PHYSICAL_MAX).then_some(total)
}
