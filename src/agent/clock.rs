//! The only module of the agent that reads clocks.

use crate::units::Nanos;
use crate::wire::message::Clock;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Clocks read further apart than this were read on either side of something: a pause, or another task's turn.
const APART_MAX: Nanos = Nanos(50_000_000);
/// Readings, if each is interrupted: who is kept from running that much has no moment to tell of.
const TRIES: u32 = 4;

/// All three clocks, of one moment.
#[must_use]
pub(super) fn now() -> Clock {
    together(|clock| nanos(clock_gettime(clock)))
}

/// A VM that is stopped between two readings would seem to have stepped its time of day, and to step it back later.
fn together(mut read: impl FnMut(ClockId) -> Nanos) -> Clock {
    let mut monotonic = read(ClockId::Monotonic);
    let mut tries = 0;
    loop {
        let boottime = read(ClockId::Boottime);
        let realtime_unix = read(ClockId::Realtime);
        let after = read(ClockId::Monotonic);
        tries += 1;
        if after.saturating_sub(monotonic) <= APART_MAX || tries == TRIES {
            return Clock { monotonic, boottime, realtime_unix };
        }
        monotonic = after;
    }
}

/// A clock set before 1970 reads as its start.
fn nanos(time: Timespec) -> Nanos {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let below = u64::try_from(time.tv_nsec).unwrap_or(0);
    Nanos::from_secs(seconds).saturating_add(Nanos(below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_three_clocks_that_go_forward_and_agree_with_the_standard_library() {
        let first = now();
        std::thread::sleep(std::time::Duration::from_millis(5));
        let unix = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
        let before = unix();
        let second = now();
        let after = unix();
        assert!(second.monotonic.0 - first.monotonic.0 >= 5_000_000);
        assert!(second.boottime >= second.monotonic, "boot time includes suspend");
        // A second for a clock that is being set.
        let least = before.saturating_sub(1_000_000_000);
        assert!((least..after + 1_000_000_000).contains(&u128::from(second.realtime_unix.0)));
    }

    /// Four seconds pass before reading `pause`; each reading takes 100 ns.
    fn read_with_a_pause(pause: u64) -> Clock {
        let mut readings = 0;
        together(|clock| {
            readings += 1;
            let passed = readings * 100 + if readings > pause { 4_000_000_000 } else { 0 };
            let start = match clock {
                ClockId::Monotonic => 5,
                ClockId::Boottime => 70,
                _ => 900,
            };
            Nanos(start * 1_000_000_000 + passed)
        })
    }

    #[test]
    fn a_pause_between_two_readings_moves_no_clock_against_another() {
        for pause in 0..10 {
            let Clock { monotonic, boottime, realtime_unix } = read_with_a_pause(pause);
            for (other, apart) in [(boottime, 65_000_000_000), (realtime_unix, 895_000_000_000)] {
                let moved = (other.0 - monotonic.0).abs_diff(apart);
                assert!(moved < 1_000, "{moved} ns with a pause behind reading {pause}");
            }
        }
    }

    #[test]
    fn clocks_that_are_always_apart_are_read_all_the_same() {
        let mut at = Nanos::ZERO;
        let read = together(|_| {
            at = at.saturating_add(Nanos::SECOND);
            at
        });
        assert_eq!(read.monotonic.saturating_add(Nanos::from_secs(3)), at);
    }

    #[test]
    fn a_clock_before_1970_is_zero() {
        assert_eq!(nanos(Timespec { tv_sec: -5, tv_nsec: 0 }), Nanos::ZERO);
    }
}
