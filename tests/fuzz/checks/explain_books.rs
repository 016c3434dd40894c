//! Any text: books that can be explained to the nanosecond, or an error that names the line and can be shown.

use guestmeter::host::explain::{Amount, Question, explain, lines};
use guestmeter::host::reconcile::Policy;
use guestmeter::units::Nanos;

/// Two windows: a day of 2026, which the seeds lie in, and all of time.
const DAY: (u64, u64) = (1_780_876_800_000_000_000, 1_780_963_200_000_000_000);
const END: u64 = i64::MAX.unsigned_abs();

pub fn check(input: &[u8]) {
    for (from, to) in [DAY, (0, END)] {
        let mut books = match lines::read(input, "books", "sb-1") {
            Ok(books) => books,
            Err(error) => {
                let text = error.to_string();
                assert!(text.starts_with("books:"), "{text}");
                assert!(!text.contains(char::is_control), "{text:?}");
                return;
            }
        };
        let question = Question::new(Nanos(from), Nanos(to), Nanos(END), &Policy::default());
        let explained = explain(&mut books, &question);
        let mut at = question.from;
        for span in &explained.timeline {
            assert!(
                at <= span.from && span.from < span.to && span.to <= question.to,
                "{span:?} after {at:?}"
            );
            at = span.to;
        }
        // Nothing to explain where there is nothing to compare.
        if explained.timeline.is_empty() {
            assert_eq!(explained.difference(), Amount::default());
        }
    }
}
