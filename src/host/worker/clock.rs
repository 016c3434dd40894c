//! The worker's time: Unix nanoseconds that never step.
//!
//! Spans are measured on `CLOCK_BOOTTIME`; the Unix time is derived from it, and follows the machine's clock by at most
//! 500 parts in a million. So a step of the machine's clock changes no bill: it shows as an offset, and is caught up
//! with too slowly for any tolerance to notice. What the platform says in the machine's time is brought into this one.

use crate::units::Nanos;
use rustix::time::{ClockId, Timespec, clock_gettime};
use std::sync::{Mutex, PoisonError};

/// As fast as the kernel's own slewing.
const SLEW_PPM: u64 = 500;
/// What one look finds beyond its slewing is a step.
const STEP_LEAST: Nanos = Nanos(100_000_000);
/// Clocks read further apart than this are not of one moment.
const APART_MAX: Nanos = Nanos(100_000);
/// Readings, if each is interrupted.
const TRIES: u32 = 8;

/// The worker's time.
pub struct Clock(Mutex<Timeline>);

/// One look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// `CLOCK_BOOTTIME`: for spans.
    pub boot: Nanos,
    /// The worker's Unix time: for the books.
    pub unix: Nanos,
    /// The machine's Unix time − the worker's, in ns.
    pub offset_ns: i64,
    /// The last step of the machine's clock, and how many there were.
    pub step: Step,
}

/// A step of the machine's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Which one; 0 while there was none.
    pub number: u64,
    /// By how much, in ns.
    pub by_ns: i64,
}

/// Two clocks side by side, without reading any.
#[derive(Clone, Copy, Debug)]
struct Timeline {
    /// Of the last look.
    boot: Nanos,
    unix: Nanos,
    offset_ns: i64,
    step: Step,
}

impl Clock {
    /// Begins with the machine's own time.
    #[must_use]
    pub fn start() -> Self {
        let (boot, machine) = machine();
        Self(Mutex::new(Timeline { boot, unix: machine, offset_ns: 0, step: Step::default() }))
    }

    /// A look.
    pub fn now(&self) -> Now {
        // Under the lock: two looks must not overtake each other.
        let mut timeline = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (boot, machine) = machine();
        timeline.look(boot, machine)
    }
}

impl Now {
    /// An instant of the machine's clock, in the worker's time.
    #[must_use]
    pub fn translate(&self, machine: Nanos) -> Nanos {
        Nanos(machine.0.saturating_add_signed(self.offset_ns.saturating_neg()))
    }
}

impl Timeline {
    fn look(&mut self, boot: Nanos, machine: Nanos) -> Now {
        let passed = boot.saturating_sub(self.boot);
        let kept = self.unix.saturating_add(passed);
        let found = difference(machine, kept);
        let most = i64::try_from(passed.0.saturating_mul(SLEW_PPM) / 1_000_000).unwrap_or(i64::MAX);
        let slewed = found.clamp(most.saturating_neg(), most);
        let moved = found.saturating_sub(self.offset_ns);
        if moved.unsigned_abs() > STEP_LEAST.0.saturating_add(most.unsigned_abs()) {
            self.step = Step { number: self.step.number.saturating_add(1), by_ns: moved };
        }
        self.boot = boot.max(self.boot);
        self.unix = Nanos(kept.0.saturating_add_signed(slewed));
        self.offset_ns = found.saturating_sub(slewed);
        Now { boot: self.boot, unix: self.unix, offset_ns: self.offset_ns, step: self.step }
    }
}

fn difference(later: Nanos, earlier: Nanos) -> i64 {
    let magnitude = |nanos| i64::try_from(nanos).unwrap_or(i64::MAX);
    match later.0.checked_sub(earlier.0) {
        Some(ahead) => magnitude(ahead),
        None => magnitude(earlier.0.saturating_sub(later.0)).saturating_neg(),
    }
}

/// `CLOCK_BOOTTIME` and `CLOCK_REALTIME`, of one moment.
fn machine() -> (Nanos, Nanos) {
    together(|clock| nanos(clock_gettime(clock)))
}

/// What was read on either side of another task's turn would be that far apart, and at the start for minutes: it is only
/// slewed away. So it is read again, and of all tries the closest is taken.
fn together(mut read: impl FnMut(ClockId) -> Nanos) -> (Nanos, Nanos) {
    let mut closest: Option<(Nanos, (Nanos, Nanos))> = None;
    for _ in 0..TRIES {
        let before = read(ClockId::Boottime);
        let machine = read(ClockId::Realtime);
        let apart = read(ClockId::Boottime).saturating_sub(before);
        if closest.is_none_or(|(least, _)| apart < least) {
            closest = Some((apart, (before, machine)));
        }
        if apart <= APART_MAX {
            break;
        }
    }
    closest.map_or((Nanos::ZERO, Nanos::ZERO), |(_, clocks)| clocks)
}

/// Before 1970 is 1970.
fn nanos(time: Timespec) -> Nanos {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let rest = u64::try_from(time.tv_nsec).unwrap_or(0);
    Nanos(seconds.saturating_mul(Nanos::SECOND.0).saturating_add(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Nanos = Nanos::from_secs(1_780_000_000);

    fn timeline() -> Timeline {
        Timeline { boot: Nanos::from_secs(100), unix: START, offset_ns: 0, step: Step::default() }
    }

    fn seconds(count: u64) -> Nanos {
        Nanos::from_secs(count)
    }

    #[test]
    fn a_steady_clock_is_followed_exactly() {
        let mut timeline = timeline();
        for passed in 1..1000 {
            let now = timeline.look(seconds(100 + passed), seconds(1_780_000_000 + passed));
            assert_eq!((now.unix, now.offset_ns), (seconds(1_780_000_000 + passed), 0));
            assert_eq!(now.step, Step::default());
        }
    }

    #[test]
    fn a_step_either_way_moves_no_span() {
        for step in [3_600_000_000_000_i64, -3_600_000_000_000, 150_000_000] {
            let mut timeline = timeline();
            let before = timeline.look(seconds(105), seconds(1_780_000_005));
            let machine = Nanos(seconds(1_780_000_010).0.saturating_add_signed(step));
            let after = timeline.look(seconds(110), machine);
            assert_eq!(after.step, Step { number: 1, by_ns: step });
            let span = after.unix.0 - before.unix.0;
            assert!(span.abs_diff(5_000_000_000) <= 2_500_000, "{span}");
            // The platform stamps its call with the machine's clock.
            assert_eq!(after.translate(machine), after.unix);
            let again = timeline.look(seconds(115), Nanos(machine.0 + 5_000_000_000));
            assert_eq!(again.step.number, 1);
        }
    }

    #[test]
    fn an_offset_is_caught_up_with_slowly() {
        let mut timeline = timeline();
        let mut offset = 0;
        for passed in 1..=1000 {
            let machine = Nanos(seconds(1_780_000_000 + passed).0 + 250_000_000);
            offset = timeline.look(seconds(100 + passed), machine).offset_ns;
        }
        assert_eq!(offset, 0);
    }

    #[test]
    fn the_clocks_of_this_machine_go_forward() {
        let clock = Clock::start();
        let (first, second) = (clock.now(), clock.now());
        assert!(second.boot >= first.boot && second.unix >= first.unix);
        assert!(first.offset_ns.abs() < 1_000_000_000);
    }

    /// Ten milliseconds pass before each reading of `pauses`; each reading takes 100 ns.
    fn read_with_pauses(pauses: &[u64]) -> (Nanos, Nanos) {
        let (mut readings, mut passed) = (0, 0);
        together(|clock| {
            passed += 100 + if pauses.contains(&readings) { 10_000_000 } else { 0 };
            readings += 1;
            Nanos(if clock == ClockId::Boottime { 5_000_000_000 } else { 900_000_000_000 } + passed)
        })
    }

    #[test]
    fn another_tasks_turn_between_two_readings_moves_no_clock_against_the_other() {
        for pauses in [&[][..], &[0], &[1], &[2], &[1, 4], &[1, 5, 7], &[2, 3, 4]] {
            let (boot, machine) = read_with_pauses(pauses);
            assert_eq!(machine.0 - boot.0, 895_000_000_100, "{pauses:?}");
        }
        let always: Vec<u64> = (0..24).collect();
        let (boot, machine) = read_with_pauses(&always);
        assert_eq!(machine.0 - boot.0, 895_010_000_100, "as good as it gets");
    }

    #[test]
    fn the_ends_of_time_are_no_panic() {
        let mut timeline = timeline();
        for (boot, machine) in [(0, 0), (u64::MAX, 0), (0, u64::MAX), (u64::MAX, u64::MAX)] {
            let now = timeline.look(Nanos(boot), Nanos(machine));
            let _ = now.translate(Nanos(u64::MAX));
            let _ = now.translate(Nanos(0));
        }
    }
}
