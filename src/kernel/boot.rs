//! Nominal boot RAM, virtio-mem excluded, and how sure it is: half of its sources know but a part.

use super::blocks::Blocks;
use super::file::{KernelError, KernelFile, TEXT_MAX, list, read_once, sorted};
use super::iomem::{IoMemory, Span};
use super::virtio::VirtioDevices;
use crate::capacity::{BootPrecision, Source};
use crate::units::Bytes;
use std::path::Path;

/// Boot RAM as found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootMemory {
    /// How much.
    pub bytes: Bytes,
    /// From where.
    pub source: Source,
    /// Where it is.
    pub spans: Vec<Span>,
    /// What `bytes` is of what the VM was given.
    pub precision: BootPrecision,
}

/// Holes that end below this are RAM that the firmware keeps: legacy video and ROM, ACPI tables on WSL2.
const LOW: u64 = 16 << 20;
/// The gap for devices below 4 GiB is larger: what is smaller is the firmware's.
const HOLE: u64 = 64 << 20;
/// Where conventional memory of a PC ends: whoever has RAM below it was booted as one.
const CONVENTIONAL: u64 = 1 << 20;
/// No memory map has more entries.
const ENTRIES_MAX: usize = 4096;

/// Reads the first source there is: firmware memmap, iomem, device tree, memory blocks (unless some of them may be
/// virtio-mem's).
///
/// # Errors
/// None of them says anything; the first one's error.
pub fn read(
    sys: &Path,
    iomem: Option<&IoMemory>,
    blocks: Option<&Blocks>,
    virtio: Option<&VirtioDevices>,
) -> Result<BootMemory, KernelError> {
    let first = match from_memmap(sys, iomem) {
        Ok(found) => return Ok(found),
        Err(error) => error,
    };
    if let Some(found) = iomem.and_then(|iomem| from_iomem(sys, iomem)) {
        return Ok(found);
    }
    if let Ok(found) = from_device_tree(sys) {
        return Ok(found);
    }
    let all_boot = virtio.is_some_and(|virtio| virtio.memory.is_empty() && virtio.without_driver.is_empty());
    let Some(blocks) = blocks.filter(|_| all_boot) else { return Err(first) };
    let spans: Vec<Span> = blocks.blocks.iter().map(|block| block.span).collect();
    let bytes = sum(&spans).ok_or(first)?;
    Ok(BootMemory { bytes, source: Source::MemoryBlocks, spans, precision: BootPrecision::UpperBound })
}

/// `/sys/firmware/memmap` entries of type `System RAM`, without what a driver has added.
fn from_memmap(sys: &Path, iomem: Option<&IoMemory>) -> Result<BootMemory, KernelError> {
    let directory = sys.join("firmware/memmap");
    let driven: Vec<Span> = iomem.map(driven).unwrap_or_default();
    let mut spans = Vec::new();
    let mut unreadable = false;
    for name in list(&directory)?.into_iter().take(ENTRIES_MAX) {
        match entry(&directory.join(name)) {
            Ok(Some(span)) if !driven.iter().any(|other| other.overlaps(&span)) => spans.push(span),
            Ok(_) => {}
            Err(_) => unreadable = true,
        }
    }
    let found = filled(spans, Source::FirmwareMemmap, unreadable || is_efi(sys));
    found
        .ok_or_else(|| KernelError::Parse { path: directory, what: "no entry of type System RAM".to_owned() })
}

/// Of a driver: the regions of virtio-mem, and what dax/kmem brought.
fn driven(iomem: &IoMemory) -> Vec<Span> {
    let foreign = iomem.foreign.iter().filter(|(name, _)| name != "System RAM");
    iomem.regions.iter().chain(foreign).map(|(_, span)| *span).collect()
}

/// One entry of the memory map; `None` where it is not RAM.
fn entry(entry: &Path) -> Result<Option<Span>, KernelError> {
    if read_once(entry.join("type"))? != "System RAM" {
        return Ok(None);
    }
    let (start, last) = (address(&entry.join("start"))?, address(&entry.join("end"))?);
    let end = last.checked_add(1).filter(|end| start < *end && *end <= Bytes::PHYSICAL_MAX.0);
    let Some(end) = end else {
        return Err(KernelError::Parse {
            path: entry.to_owned(),
            what: format!("no range: {start:#x}-{last:#x}"),
        });
    };
    Ok(Some(Span { start, end }))
}

/// iomem's top `System RAM`: the whole of it on a PC, elsewhere without what firmware and device tree keep.
fn from_iomem(sys: &Path, iomem: &IoMemory) -> Option<BootMemory> {
    let pc = iomem.plain_ram.iter().any(|span| span.start < CONVENTIONAL);
    let in_part =
        !pc || iomem.unreadable.is_some() || is_efi(sys) || sys.join("firmware/devicetree").exists();
    let within = |span: &Span| span.end <= Bytes::PHYSICAL_MAX.0;
    filled(iomem.plain_ram.iter().copied().filter(within).collect(), Source::Iomem, in_part)
}

/// UEFI keeps some for itself.
fn is_efi(sys: &Path) -> bool {
    sys.join("firmware/efi").exists()
}

/// Sums RAM with its low holes filled, rounded up to MiB; small holes elsewhere may be RAM too: then it is a lower bound.
fn filled(spans: Vec<Span>, source: Source, in_part: bool) -> Option<BootMemory> {
    let mut merged: Vec<Span> = Vec::new();
    let mut in_part = in_part;
    for span in sorted(spans) {
        match merged.last_mut() {
            Some(last) if span.start <= last.end || span.start <= LOW => last.end = last.end.max(span.end),
            Some(last) => {
                in_part |= span.start - last.end < HOLE;
                merged.push(span);
            }
            None if span.start < CONVENTIONAL => merged.push(Span { start: 0, end: span.end }),
            None => merged.push(span),
        }
    }
    let bytes = sum(&merged)?.0.next_multiple_of(Bytes::MIB.0);
    let precision = if in_part { BootPrecision::LowerBound } else { BootPrecision::Exact };
    Some(BootMemory { bytes: Bytes(bytes), source, spans: merged, precision })
}

fn address(path: &Path) -> Result<u64, KernelError> {
    let text = read_once(path)?;
    let digits = text.strip_prefix("0x").unwrap_or(&text);
    u64::from_str_radix(digits, 16)
        .map_err(|_| KernelError::Parse { path: path.to_owned(), what: format!("no address: {text:?}") })
}

/// `/sys/firmware/devicetree/base/memory@*/reg`: big-endian cells, see the Devicetree Specification 2.3.6. A lower bound:
/// Firecracker leaves the first 2 MiB out, and a node that cannot be read is left out here.
fn from_device_tree(sys: &Path) -> Result<BootMemory, KernelError> {
    let base = sys.join("firmware/devicetree/base");
    let (address_cells, size_cells) = (cells(&base, "#address-cells"), cells(&base, "#size-cells"));
    let mut spans = Vec::new();
    let names = list(&base)?.into_iter().filter(|name| name == "memory" || name.starts_with("memory@"));
    for name in names.take(ENTRIES_MAX) {
        let mut reg = Vec::new();
        let read = KernelFile::open(base.join(name).join("reg")).and_then(|file| file.read_into(&mut reg));
        if read.is_err() {
            continue;
        }
        debug_assert!(reg.len() <= TEXT_MAX);
        for entry in reg.chunks_exact((address_cells + size_cells) * 4).take(ENTRIES_MAX) {
            let (start, size) = entry.split_at(address_cells * 4);
            let (start, size) = (big_endian(start), big_endian(size));
            let end = start.checked_add(size).filter(|end| start < *end && *end <= Bytes::PHYSICAL_MAX.0);
            spans.extend(end.map(|end| Span { start, end }));
        }
    }
    let spans = sorted(spans);
    let bytes = sum(&spans)
        .ok_or_else(|| KernelError::Parse { path: base, what: "no memory node in it".to_owned() })?;
    Ok(BootMemory { bytes, source: Source::DeviceTree, spans, precision: BootPrecision::LowerBound })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(entries: &[(&str, &str, &str)]) -> tempfile::TempDir {
        let sys = tempfile::tempdir().unwrap();
        for (at, (start, end, kind)) in entries.iter().enumerate() {
            let entry = sys.path().join(format!("firmware/memmap/{at}"));
            std::fs::create_dir_all(&entry).unwrap();
            for (name, text) in [("start", start), ("end", end), ("type", kind)] {
                std::fs::write(entry.join(name), format!("{text}\n")).unwrap();
            }
        }
        sys
    }

    fn of(entries: &[(&str, &str, &str)], iomem: Option<&IoMemory>) -> (u64, Source, BootPrecision) {
        let found = read(tree(entries).path(), iomem, None, None).unwrap();
        (found.bytes.0 >> 20, found.source, found.precision)
    }

    const LOW_RAM: (&str, &str, &str) = ("0x0", "0x9ffff", "System RAM");

    /// WSL 11822.
    #[test]
    fn low_holes_are_ram() {
        let high = ("0x100000000", "0x3fbbfffff", "System RAM");
        let wsl = [
            LOW_RAM,
            ("0x100000", "0x1fffff", "ACPI Tables"),
            ("0x200000", "0xf7ffffff", "System RAM"),
            high,
        ];
        assert_eq!(of(&wsl, None), (16_188, Source::FirmwareMemmap, BootPrecision::Exact));
    }

    #[test]
    fn holes_further_up_make_a_lower_bound_and_the_devices_gap_does_not() {
        let holed =
            [LOW_RAM, ("0x100000", "0x3ffffff", "System RAM"), ("0x4100000", "0x7ffffff", "System RAM")];
        assert_eq!(of(&holed, None).2, BootPrecision::LowerBound);
        let gap =
            [LOW_RAM, ("0x100000", "0xbfffffff", "System RAM"), ("0x100000000", "0x13fffffff", "System RAM")];
        assert_eq!(of(&gap, None), (4096, Source::FirmwareMemmap, BootPrecision::Exact));
    }

    #[test]
    fn an_entry_that_cannot_be_read_costs_itself_and_the_precision() {
        let torn = [LOW_RAM, ("0x100000", "0xfffffff", "System RAM"), ("zz", "0x1fffffff", "System RAM")];
        assert_eq!(of(&torn, None), (256, Source::FirmwareMemmap, BootPrecision::LowerBound));
    }

    #[test]
    fn without_a_memory_map_iomem_tells_and_is_sure_on_a_pc_alone() {
        let of_text = |text: &[u8]| of(&[], crate::kernel::iomem::parse(text).unwrap().as_ref());
        let pc = b"00001000-0009fbff : System RAM\n00100000-cfffffff : System RAM\n100000000-1687fffff : System RAM\n";
        assert_eq!(of_text(pc), (5000, Source::Iomem, BootPrecision::Exact));
        assert_eq!(
            of_text(b"80200000-9fffffff : System RAM\n"),
            (510, Source::Iomem, BootPrecision::LowerBound)
        );
        assert_eq!(of_text(&[pc, &b"1687fffff : Sys\n"[..]].concat()).2, BootPrecision::LowerBound);
    }

    #[test]
    fn blocks_are_an_upper_bound_and_only_where_none_can_be_virtio_mems() {
        let sys = tempfile::tempdir().unwrap();
        let block = super::super::blocks::Block { span: Span { start: 0, end: 512 << 20 }, online: true };
        let blocks = Blocks { block_size: Bytes::mib(512), blocks: vec![block] };
        let mut virtio = VirtioDevices::default();
        let found = read(sys.path(), None, Some(&blocks), Some(&virtio)).unwrap();
        assert_eq!((found.bytes, found.precision), (Bytes::mib(512), BootPrecision::UpperBound));
        virtio.memory.push(("virtio1".to_owned(), "config".into()));
        assert!(read(sys.path(), None, Some(&blocks), Some(&virtio)).is_err(), "they cannot be told apart");
        assert!(read(sys.path(), None, Some(&blocks), None).is_err());
    }
}
