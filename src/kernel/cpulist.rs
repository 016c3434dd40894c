//! CPU lists as the kernel writes them: `0-3,8`.

use super::file::{KernelError, KernelFile, PAGE};

/// sysfs ends a list at a page, cgroup files go on; with 8192 CPUs no list is longer.
const TEXT_MAX: usize = 64 << 10;
/// Of a part that makes no sense, this much is shown.
const SHOWN_MAX: usize = 32;
/// More CPUs than any kernel is built for (`NR_CPUS` is 8192 at most).
const CPU_MAX: u32 = 65_536;

/// Ranges of CPUs, in order, not overlapping.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuList(Vec<(u32, u32)>);

impl CpuList {
    /// # Errors
    /// Says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        if text.trim().is_empty() {
            return Ok(Self(ranges));
        }
        for part in text.trim().split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let range = first.parse().ok().zip(last.parse().ok());
            let behind =
                ranges.last().is_none_or(|(_, before)| range.is_some_and(|(first, _)| first > *before));
            match range {
                Some((first, last)) if first <= last && last < CPU_MAX && behind => {
                    ranges.push((first, last))
                }
                _ => {
                    let shown: String = part.chars().take(SHOWN_MAX).collect();
                    return Err(format!("no CPU list: {shown:?}"));
                }
            }
        }
        Ok(Self(ranges))
    }

    /// Reads a file that is a list: one `pread(2)` where a page holds it.
    ///
    /// # Errors
    /// What the kernel says, or a text that is no list.
    pub(crate) fn read(file: &KernelFile) -> Result<Self, KernelError> {
        let mut page = [0; PAGE];
        let filled = file.read_at(&mut page, 0)?;
        let mut whole = Vec::new();
        let text = match page.get(..filled) {
            Some(text) if filled < PAGE => text,
            _ => {
                file.read_into(&mut whole)?;
                whole.as_slice()
            }
        };
        if text.len() > TEXT_MAX {
            return Err(KernelError::TooLong { path: file.path().to_owned(), max: TEXT_MAX });
        }
        let text = std::str::from_utf8(text).map_err(|_| file.parse_error("no CPU list: not text"))?;
        Self::parse(text).map_err(|what| file.parse_error(what))
    }

    /// How many CPUs are in it.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// How many CPUs are in both.
    #[must_use]
    pub fn common(&self, other: &Self) -> u32 {
        let (mut mine, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut common = 0;
        while let (Some(a), Some(b)) = (mine.peek(), theirs.peek()) {
            common += (a.1.min(b.1) + 1).saturating_sub(a.0.max(b.0));
            // What ends first meets nothing more.
            if a.1 <= b.1 {
                mine.next()
            } else {
                theirs.next()
            };
        }
        common
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_counted_and_intersected() {
        let list = CpuList::parse("0-3,8,10-11\n").unwrap();
        assert_eq!(list.count(), 7);
        assert_eq!(list.common(&CpuList::parse("2-8").unwrap()), 3);
        assert_eq!(CpuList::parse("\n").unwrap().count(), 0);
        assert_eq!(list.common(&list), 7);
        assert_eq!(list.common(&CpuList::parse("4-7,9,12").unwrap()), 0);
    }

    #[test]
    fn nonsense_is_named() {
        for text in ["a", "3-1", "0-4294967295", "1,1", "0-3,2", "-", "0-3,", ",", "1,,2"] {
            assert!(CpuList::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_list_may_fill_a_page_and_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("online");
        for (cpus, step) in [(1, 1), (256, 2), (1640, 2), (8192, 2), (4096, 1)] {
            let list: Vec<String> = (0..cpus).step_by(step).map(|cpu| cpu.to_string()).collect();
            std::fs::write(&path, list.join(",") + "\n").unwrap();
            let read = CpuList::read(&KernelFile::open(&path).unwrap()).unwrap();
            assert_eq!(read.count() as usize, list.len(), "{cpus} CPUs");
        }
        std::fs::write(&path, "9".repeat(1 << 20)).unwrap();
        let refused = CpuList::read(&KernelFile::open(&path).unwrap()).unwrap_err();
        assert!(refused.to_string().contains("online"), "{refused}");
    }
}
