//! `/proc/iomem`: which memory the virtio-mem driver has added, and where its devices' regions are.
//!
//! Addresses read as zero unless the file was opened with `CAP_SYS_ADMIN`; a descriptor keeps what it was opened with.

use crate::units::Bytes;

/// No machine has more ranges of RAM that is not virtio-mem's.
const RANGES_MAX: usize = 4096;
/// What is kept of a name.
const NAME_MAX: usize = 64;

/// Addresses `start..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The first address.
    pub start: u64,
    /// The first address behind it.
    pub end: u64,
}

impl Span {
    /// Its length.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        Bytes(self.end.saturating_sub(self.start))
    }

    /// Whether the two share an address.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// What is taken from the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IoMemory {
    /// Σ `System RAM (virtio_mem)`.
    pub added: Bytes,
    /// The virtio-mem devices' regions: name and addresses.
    pub regions: Vec<(String, Span)>,
    /// All system RAM, virtio-mem's and others' included.
    pub system_ram: Vec<Span>,
    /// Lines named `System RAM` and no more, below nothing: boot's, or a DIMM's.
    pub plain_ram: Vec<Span>,
    /// System RAM that some other driver has added (dax/kmem), or that lies below some other resource.
    pub foreign: Vec<(String, Span)>,
    /// What is wrong with the first line that could not be read.
    pub unreadable: Option<String>,
}

/// `Ok(None)`: the addresses are hidden from who opened the file.
///
/// # Errors
/// Says what is wrong with the text: no line of it can be read. One that cannot costs itself.
pub fn parse(text: &[u8]) -> Result<Option<IoMemory>, String> {
    let (mut found, mut parent, mut shown) = (IoMemory::default(), None, false);
    let mut any = false;
    for text in text.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
        let top = !text.starts_with(b" ");
        match line(text.trim_ascii()) {
            Ok((span, name)) => {
                any = true;
                shown |= span != (Span { start: 0, end: 1 });
                if top {
                    parent = Some((name, span));
                }
                found.take(name, span, top, parent)?;
            }
            Err(what) => {
                // What lies below it is below nothing that is known.
                parent = parent.filter(|_| !top);
                found.unreadable.get_or_insert(what);
            }
        }
    }
    match (any, shown) {
        (false, _) => Err(found.unreadable.unwrap_or_else(|| "no line in it".to_owned())),
        (true, false) => Ok(None),
        (true, true) => {
            found.regions.dedup();
            Ok(Some(found))
        }
    }
}

/// `start-last : name`; the name is whatever bytes the kernel has left there.
fn line(text: &[u8]) -> Result<(Span, &[u8]), String> {
    let shown = || String::from_utf8_lossy(text.get(..80).unwrap_or(text)).into_owned();
    let parts = text.iter().position(|byte| *byte == b':').and_then(|colon| text.split_at_checked(colon));
    let (range, name) = parts.ok_or_else(|| format!("no range and name: {:?}", shown()))?;
    let range = std::str::from_utf8(range).unwrap_or_default().trim();
    let ends =
        range.split_once('-').and_then(|(start, last)| Some((hexadecimal(start)?, hexadecimal(last)?)));
    let (start, last) = ends.ok_or_else(|| format!("no addresses: {:?}", shown()))?;
    let end = last.checked_add(1).filter(|_| start <= last);
    let end = end.ok_or_else(|| format!("no range: {:?}", shown()))?;
    Ok((Span { start, end }, name.trim_ascii_start().strip_prefix(b":").unwrap_or(name).trim_ascii()))
}

/// Digits alone: `from_str_radix` takes a sign too.
fn hexadecimal(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(text, 16).ok().filter(|_| digits)
}

impl IoMemory {
    fn take(
        &mut self,
        name: &[u8],
        span: Span,
        top: bool,
        parent: Option<(&[u8], Span)>,
    ) -> Result<(), String> {
        let lossy = |name: &[u8]| String::from_utf8_lossy(name.get(..NAME_MAX).unwrap_or(name)).into_owned();
        if name == b"System RAM (virtio_mem)" {
            let sum = self.added.checked_add(span.bytes()).filter(|sum| *sum <= Bytes::PHYSICAL_MAX);
            self.added = sum.ok_or("more virtio-mem memory than 4 PiB")?;
            self.system_ram.push(span);
            let region = parent.filter(|(name, _)| name.starts_with(b"virtio"));
            if let Some((name, region)) = region.map(|(name, region)| (lossy(name), region))
                && self.regions.last().is_none_or(|(last, _)| *last != name)
            {
                self.regions.push((name, region));
            }
        } else if name.starts_with(b"System RAM") && !nested(&self.system_ram, &span) {
            if self.plain_ram.len() + self.foreign.len() >= RANGES_MAX {
                return Err(format!("more than {RANGES_MAX} ranges of system RAM"));
            }
            self.system_ram.push(span);
            if top && name == b"System RAM" {
                self.plain_ram.push(span);
            } else {
                self.foreign.push((lossy(name), span));
            }
        } else if top && name.strip_prefix(b"virtio").is_some_and(is_number) {
            self.regions.push((lossy(name), span));
        }
        Ok(())
    }
}

fn nested(spans: &[Span], span: &Span) -> bool {
    spans.last().is_some_and(|last| last.overlaps(span))
}

fn is_number(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtio_mem_children_are_summed_under_their_region() {
        let text = b"00001000-0009fbff : System RAM\n100000000-17fffffff : virtio1\n  100000000-107ffffff : System RAM (virtio_mem)\n  110000000-117ffffff : System RAM (virtio_mem)\n";
        let found = parse(text).unwrap().unwrap();
        assert_eq!(found.added, Bytes::mib(256));
        assert_eq!(
            found.regions,
            [("virtio1".to_owned(), Span { start: 0x1_0000_0000, end: 0x1_8000_0000 })]
        );
        assert_eq!(found.system_ram.len(), 3);
    }

    #[test]
    fn hidden_addresses_are_no_zero() {
        assert_eq!(parse(b"00000000-00000000 : System RAM\n00000000-00000000 : Reserved\n"), Ok(None));
    }

    #[test]
    fn nonsense_is_named() {
        assert!(parse(b"").is_err());
        assert!(parse(b"hello").is_err());
        assert!(parse(b"2-1 : System RAM\n").unwrap_err().contains("no range"));
        assert!(parse(b"0-ffffffffffffffff : System RAM\n").unwrap_err().contains("no range"));
    }

    /// A freed name in another resource (stable 60858c00e5f0), a torn line, a line of nothing.
    #[test]
    fn a_line_that_cannot_be_read_costs_itself_alone() {
        let bad: [&[u8]; 6] =
            [b"2000-2fff : \xFF_\xFF^7", b"zz", b"2000 : x", b"+2-3 : x", b"9-8 : x", b"\xFF\xFF"];
        for bad in bad {
            let text = [
                b"1000-1fff : System RAM\n",
                bad,
                b"\n5000-8fff : virtio1\n  5000-6fff : System RAM (virtio_mem)\n",
            ];
            let found = parse(&text.concat()).unwrap().unwrap();
            assert_eq!((found.added, found.plain_ram.len()), (Bytes(0x2000), 1), "{bad:?}");
            assert_eq!(found.unreadable.is_some(), !bad.starts_with(b"2000-"), "{bad:?}");
            assert!(found.unreadable.is_none_or(|what| !what.contains('\n')), "{bad:?}");
        }
    }

    /// Below a line that cannot be read no region is known.
    #[test]
    fn an_unreadable_region_is_not_the_one_before() {
        let text = b"1000-1fff : virtio0\n????\n  5000-6fff : System RAM (virtio_mem)\n";
        assert_eq!(parse(text).unwrap().unwrap().regions.len(), 1);
        assert_eq!(parse(text).unwrap().unwrap().added, Bytes(0x2000));
    }

    #[test]
    fn memory_of_another_driver_is_neither_boots_nor_virtio_mems() {
        let text = b"1000-1fff : System RAM\n5000-8fff : CXL Window 0\n  5000-6fff : dax0.0\n    5000-6fff : System RAM (kmem)\n";
        let found = parse(text).unwrap().unwrap();
        assert_eq!(found.added, Bytes::ZERO);
        assert_eq!(found.plain_ram, [Span { start: 0x1000, end: 0x2000 }]);
        assert_eq!(found.foreign, [("System RAM (kmem)".to_owned(), Span { start: 0x5000, end: 0x7000 })]);
        assert_eq!(found.system_ram.len(), 2);
    }
}
