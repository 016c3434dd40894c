//! `<N>`-prefixed lines on standard error, as the journal wants them; each place in the code is rate-limited.

use super::clock;
use crate::units::Nanos;
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};

/// Lines that one place may print in one window.
const LINES_PER_WINDOW: u32 = 5;
/// A window.
const WINDOW: Nanos = Nanos::from_secs(30);
/// Places that are told apart; more of them share the last one.
const PLACES_MAX: usize = 64;
/// What a line may take.
const LINE_BYTES_MAX: usize = 1024;

/// Starts logging. A second call changes nothing: `demo` runs the agent in a process that may log already.
pub(super) fn start() {
    static LOGGER: Logger = Logger { limiter: Mutex::new(Limiter::new()) };
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

struct Logger {
    limiter: Mutex<Limiter>,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Info && metadata.target().starts_with("guestmeter")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let place = (record.module_path_static().unwrap_or_default(), record.line().unwrap_or_default());
        let mut limiter = self.limiter.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(suppressed) = limiter.admit(place, clock::now().monotonic) else { return };
        drop(limiter);
        let text = line(priority(record.level()), record.args(), suppressed);
        // Nobody is left to tell if standard error is gone.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }

    fn flush(&self) {}
}

/// syslog's numbers, which the journal reads from the prefix.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

fn line(priority: u8, text: &std::fmt::Arguments<'_>, suppressed: u32) -> String {
    let mut line = String::new();
    // Writing to a `String` does not fail.
    let _ = write!(line, "<{priority}>{text}");
    if line.len() > LINE_BYTES_MAX {
        let end = (0..=LINE_BYTES_MAX).rev().find(|end| line.is_char_boundary(*end)).unwrap_or(0);
        line.truncate(end);
        line.push('…');
    }
    // A line break from outside would forge a line of its own.
    let mut line = line.replace(['\n', '\r'], " ");
    if suppressed > 0 {
        let _ = write!(line, " ({suppressed} more like this were left out)");
    }
    line.push('\n');
    line
}

type Place = (&'static str, u32);

/// Counts lines per place in the code.
struct Limiter {
    places: Vec<Window>,
}

struct Window {
    place: Place,
    since: Nanos,
    printed: u32,
    suppressed: u32,
}

impl Limiter {
    const fn new() -> Self {
        Self { places: Vec::new() }
    }

    /// `None` to leave the line out; else how many were left out before it.
    fn admit(&mut self, place: Place, now: Nanos) -> Option<u32> {
        let found = self.places.iter().position(|window| window.place == place);
        let index = match found {
            Some(index) => index,
            None if self.places.len() < PLACES_MAX => {
                self.places.push(Window { place, since: now, printed: 0, suppressed: 0 });
                self.places.len() - 1
            }
            None => PLACES_MAX - 1,
        };
        let window = self.places.get_mut(index)?;
        if now.saturating_sub(window.since) >= WINDOW {
            window.since = now;
            window.printed = 0;
        }
        if window.printed >= LINES_PER_WINDOW {
            window.suppressed = window.suppressed.saturating_add(1);
            return None;
        }
        window.printed += 1;
        Some(std::mem::take(&mut window.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_may_print_five_lines_a_window_and_says_what_it_left_out() {
        let mut limiter = Limiter::new();
        let here = ("here", 1);
        for _ in 0..5 {
            assert_eq!(limiter.admit(here, Nanos::ZERO), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(limiter.admit(here, Nanos::SECOND), None);
        }
        assert_eq!(limiter.admit(("there", 1), Nanos::SECOND), Some(0), "another place is not held up");
        assert_eq!(limiter.admit(here, WINDOW), Some(7));
        assert_eq!(limiter.admit(here, WINDOW), Some(0));
    }

    #[test]
    fn places_without_end_take_no_memory_without_end() {
        let mut limiter = Limiter::new();
        for line in 0..10_000 {
            limiter.admit(("everywhere", line), Nanos::ZERO);
        }
        assert_eq!(limiter.places.len(), PLACES_MAX);
    }

    #[test]
    fn a_line_is_one_line_of_bounded_length() {
        assert_eq!(line(4, &format_args!("a\nb\rc"), 0), "<4>a b c\n");
        assert_eq!(line(6, &format_args!("x"), 3), "<6>x (3 more like this were left out)\n");
        let long = "é".repeat(5_000);
        assert!(line(6, &format_args!("{long}"), 0).len() < LINE_BYTES_MAX + 8);
    }
}
