//! `/proc/iomem`: which memory the virtio-mem driver has added, and where its devices' regions are.
//!
//! Addresses read as zero unless the file was opened with `CAP_SYS_ADMIN`; a descriptor keeps what it was opened with.

use crate::units::Bytes;
use procfs::{FromBufRead, Iomem};

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
    /// All system RAM, virtio-mem's included.
    pub system_ram: Vec<Span>,
}

/// `Ok(None)`: the addresses are hidden from who opened the file.
///
/// # Errors
/// Says what is wrong with the text.
pub fn parse(text: &[u8]) -> Result<Option<IoMemory>, String> {
    let Iomem(lines) = Iomem::from_buf_read(text).map_err(|error| error.to_string())?;
    if lines.is_empty() {
        return Err("no line in it".to_owned());
    }
    if lines.iter().all(|(_, line)| line.address == (0, 0)) {
        return Ok(None);
    }
    let mut found = IoMemory::default();
    let mut parent: Option<(&str, Span)> = None;
    for (indent, line) in &lines {
        let (start, last) = line.address;
        let end = last.checked_add(1).filter(|_| start <= last);
        let Some(end) = end else { return Err(format!("no range: {start:x}-{last:x} : {}", line.name)) };
        let span = Span { start, end };
        if *indent == 0 {
            parent = Some((&line.name, span));
        }
        match line.name.as_str() {
            "System RAM (virtio_mem)" => {
                let sum = found.added.checked_add(span.bytes()).filter(|sum| *sum <= Bytes::PHYSICAL_MAX);
                found.added = sum.ok_or("more virtio-mem memory than 4 PiB")?;
                found.system_ram.push(span);
                if let Some((name, region)) = parent
                    && name.starts_with("virtio")
                    && found.regions.last().is_none_or(|(last, _)| last != name)
                {
                    found.regions.push((name.to_owned(), region));
                }
            }
            name if name.starts_with("System RAM") && !nested(&found.system_ram, &span) => {
                found.system_ram.push(span);
            }
            name if *indent == 0 && name.strip_prefix("virtio").is_some_and(is_number) => {
                found.regions.push((name.to_owned(), span));
            }
            _ => {}
        }
    }
    found.regions.dedup();
    Ok(Some(found))
}

fn nested(spans: &[Span], span: &Span) -> bool {
    spans.last().is_some_and(|last| last.overlaps(span))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
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
}
