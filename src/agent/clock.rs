//! The only module of the agent that reads clocks.

use crate::units::Nanos;
use crate::wire::message::Clock;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// All three clocks, read together.
#[must_use]
pub(super) fn now() -> Clock {
    Clock {
        monotonic: nanos(clock_gettime(ClockId::Monotonic)),
        boottime: nanos(clock_gettime(ClockId::Boottime)),
        realtime_unix: nanos(clock_gettime(ClockId::Realtime)),
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
        let second = now();
        assert!(second.monotonic.0 - first.monotonic.0 >= 5_000_000);
        assert!(second.boottime >= second.monotonic, "boot time includes suspend");
        let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        assert!(unix.as_nanos().abs_diff(u128::from(second.realtime_unix.0)) < 1_000_000_000);
    }

    #[test]
    fn a_clock_before_1970_is_zero() {
        assert_eq!(nanos(Timespec { tv_sec: -5, tv_nsec: 0 }), Nanos::ZERO);
    }
}
