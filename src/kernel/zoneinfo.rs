//! `/proc/zoneinfo`: pages that exist and pages that the allocator has, over all zones of all nodes.

/// Sums over all zones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Zones {
    /// Σ `present`: pages of online memory.
    pub present_pages: u64,
    /// Σ `managed`: those the buddy allocator was given.
    pub managed_pages: u64,
}

/// No machine has more: 4 PiB in 4 KiB pages.
const PAGES_MAX: u64 = 1 << 40;

/// # Errors
/// Says what is wrong with the text.
pub fn parse(text: &[u8]) -> Result<Zones, String> {
    let mut zones = Zones::default();
    let (mut presents, mut manageds) = (0, 0);
    let mut unreadable = None;
    for line in text.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii_start();
        // Of hundreds of lines these are a few: most are told by their first letter.
        if !matches!(line, [b'p' | b'm', ..]) {
            continue;
        }
        match (field(line, b"present "), field(line, b"managed ")) {
            (Ok(Some(pages)), _) => {
                zones.present_pages = add(zones.present_pages, pages)?;
                presents += 1;
            }
            (_, Ok(Some(pages))) => {
                zones.managed_pages = add(zones.managed_pages, pages)?;
                manageds += 1;
            }
            (Ok(None), Ok(None)) => {}
            // It costs itself: a zone that lacks one of the two is seen below.
            (Err(what), _) | (_, Err(what)) => {
                unreadable.get_or_insert(what);
            }
        }
    }
    if let Some(what) = unreadable.filter(|_| presents == 0 || presents != manageds) {
        return Err(what);
    }
    match (presents, manageds) {
        (0, _) => Err("no zone in it".to_owned()),
        (p, m) if p != m => Err(format!("cut short: {p} zones with present, {m} with managed")),
        _ if zones.managed_pages > zones.present_pages => Err(format!(
            "more managed pages ({}) than present ones ({})",
            zones.managed_pages, zones.present_pages
        )),
        _ => Ok(zones),
    }
}

fn field(line: &[u8], name: &[u8]) -> Result<Option<u64>, String> {
    let Some(value) = line.strip_prefix(name) else { return Ok(None) };
    let value = std::str::from_utf8(value.trim_ascii()).unwrap_or_default();
    let pages = value.parse().ok().filter(|pages| *pages <= PAGES_MAX);
    pages.map(Some).ok_or_else(|| format!("no page count: {:?}", String::from_utf8_lossy(line).trim()))
}

fn add(sum: u64, pages: u64) -> Result<u64, String> {
    sum.checked_add(pages).filter(|sum| *sum <= PAGES_MAX).ok_or_else(|| "more pages than 4 PiB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_of_all_nodes_are_summed() {
        let text = b"Node 0, zone DMA\n        present  3998\n        managed  3840\nNode 1, zone Movable\n        present  100\n        managed  99\n";
        assert_eq!(parse(text), Ok(Zones { present_pages: 4098, managed_pages: 3939 }));
    }

    #[test]
    fn nonsense_is_named() {
        assert!(parse(b"").unwrap_err().contains("no zone"));
        assert!(parse(b"  present  1\n").unwrap_err().contains("cut short"));
        assert!(parse(b"  present  x\n  managed  1\n").unwrap_err().contains("no page count"));
        assert!(parse(b"  present  18446744073709551615\n").unwrap_err().contains("no page count"));
        assert!(parse(b"  present  1\n  managed  2\n").unwrap_err().contains("more managed"));
    }

    #[test]
    fn a_line_that_cannot_be_read_costs_itself() {
        let text = b"  present  10\n  managed  9\n\xFF\xFE\n  present  \xFF\n  present  2\n  managed  1\n";
        assert_eq!(parse(text), Ok(Zones { present_pages: 12, managed_pages: 10 }));
    }
}
