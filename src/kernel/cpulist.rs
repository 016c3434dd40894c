//! CPU lists as the kernel writes them: `0-3,8`.

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
        for part in text.trim().split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let range = first.parse().ok().zip(last.parse().ok());
            let behind =
                ranges.last().is_none_or(|(_, before)| range.is_some_and(|(first, _)| first > *before));
            match range {
                Some((first, last)) if first <= last && last < CPU_MAX && behind => {
                    ranges.push((first, last))
                }
                _ => return Err(format!("no CPU list: {part:?}")),
            }
        }
        Ok(Self(ranges))
    }

    /// How many CPUs are in it.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// How many CPUs are in both.
    #[must_use]
    pub fn common(&self, other: &Self) -> u32 {
        let pairs = self.0.iter().flat_map(|a| other.0.iter().map(move |b| (a.0.max(b.0), a.1.min(b.1))));
        pairs.filter(|(first, last)| first <= last).map(|(first, last)| last - first + 1).sum()
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
    }

    #[test]
    fn nonsense_is_named() {
        for text in ["a", "3-1", "0-4294967295", "1,1", "0-3,2", "-"] {
            assert!(CpuList::parse(text).is_err(), "{text}");
        }
    }
}
