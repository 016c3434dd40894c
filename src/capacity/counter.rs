//! A cumulative value of the kernel's that may slip: what is said of it never goes below what was sure.

use crate::units::Nanos;

/// Two looks may follow each other at once, and the kernel counts in ticks.
const SLACK: Nanos = Nanos::SECOND;
/// No CPU counts this much more at once, whatever happened to the guest meanwhile: a year.
const WILD: Nanos = Nanos::from_secs(366 * 24 * 3600);

/// One counter of CPU time.
#[derive(Clone, Debug, Default)]
pub struct Counter {
    /// The last value that could be counted in the time that had passed, and when it was read.
    sure: Nanos,
    at: Nanos,
    /// The last value that was said.
    said: Option<Nanos>,
    /// The last value that was read.
    read: Nanos,
    slips: u32,
}

impl Counter {
    /// What to say of `read`, read at `now` (`CLOCK_MONOTONIC`, at least the time since boot), counted by `cpus`.
    ///
    /// Where the kernel goes back, down to what was sure its word is taken: what it said in between was wild.
    pub fn take(&mut self, now: Nanos, read: Nanos, cpus: u32) -> Option<Nanos> {
        let times = |each: Nanos| Nanos(each.0.saturating_mul(u64::from(cpus.max(1))));
        let passed = times(now.saturating_sub(self.at).saturating_add(SLACK));
        let most = passed.max(times(WILD).min(Nanos(u64::MAX / 2)));
        // The first is the kernel's word unless it is beyond all sense: who knows how many CPUs there were.
        let room = if self.said.is_none() { most } else { passed };
        let more = read.0.checked_sub(self.sure.0).map(Nanos);
        let wild = more.is_some_and(|more| more > most);
        if read < self.read || wild && self.read != read {
            self.slips = self.slips.saturating_add(1);
        }
        self.read = read;
        match more {
            Some(more) if more <= room => {
                (self.sure, self.at) = (read, now);
                self.said = Some(read);
            }
            Some(_) if wild => {}
            Some(_) => self.said = Some(read),
            None => self.said = Some(self.sure),
        }
        self.said
    }

    /// How often it went back, or further than it can.
    #[must_use]
    pub fn slips(&self) -> u32 {
        self.slips
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;

    fn taken(reads: &[(u64, u64)]) -> (Vec<Option<u64>>, u32) {
        let mut counter = Counter::default();
        let said = reads
            .iter()
            .map(|(now, read)| counter.take(Nanos::from_secs(*now), Nanos(*read), 2).map(|said| said.0));
        (said.collect(), counter.slips())
    }

    #[test]
    fn what_goes_back_is_held() {
        let (said, slips) = taken(&[(HOUR, 100), (HOUR + 1, 70), (HOUR + 2, 80), (HOUR + 3, 130)]);
        assert_eq!(said, [Some(100), Some(100), Some(100), Some(130)]);
        assert_eq!(slips, 1);
    }

    #[test]
    fn a_wild_value_is_not_said_and_does_not_stay() {
        for wild in [u64::MAX, u64::MAX - 5, 1 << 63] {
            let (said, slips) = taken(&[(HOUR, 100), (HOUR + 1, wild), (HOUR + 2, wild), (HOUR + 3, 130)]);
            assert_eq!(said, [Some(100), Some(100), Some(100), Some(130)]);
            assert_eq!(slips, 2, "up and down");
            assert_eq!(taken(&[(HOUR, wild), (HOUR + 1, 100)]), (vec![None, Some(100)], 2));
        }
    }

    #[test]
    fn the_first_may_be_of_more_cpus_than_are_left() {
        let first = 100 * HOUR * 1_000_000_000;
        assert_eq!(taken(&[(HOUR, first), (HOUR + 1, first - 5)]), (vec![Some(first), Some(first)], 1));
    }

    /// Too much for the time, and not beyond all sense: the kernel's word, as long as it stands by it.
    #[test]
    fn a_jump_is_said_and_taken_back() {
        let jump = 10 * HOUR * 1_000_000_000;
        let (said, slips) = taken(&[(HOUR, 100), (HOUR + 1, jump), (HOUR + 2, 130), (HOUR + 3, 120)]);
        assert_eq!(said, [Some(100), Some(jump), Some(130), Some(130)]);
        assert_eq!(slips, 2);
    }
}
