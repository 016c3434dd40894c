//! Numbers and foreign text as a person reads them. Rounds for the eye only; `--json` has the exact values.

use crate::units::{Bytes, MilliCpu, Nanos};
use std::fmt;

/// Text from the guest, without what a terminal would act on.
pub(super) struct Safe<'a>(pub(super) &'a str);

impl fmt::Display for Safe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            if acts_on_terminal(character) {
                write!(f, "{}", character.escape_unicode())?;
            } else {
                write!(f, "{character}")?;
            }
        }
        Ok(())
    }
}

/// Controls, and marks that turn the direction of text or show nothing: a name could pretend to be another.
pub(super) fn acts_on_terminal(character: char) -> bool {
    let invisible = matches!(
        character,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
    );
    invisible || character.is_control()
}

/// `512 MiB`, `511.5 MiB`, `64 GiB`, `4 KiB`.
pub(super) fn memory(bytes: Bytes) -> String {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    match bytes.0 {
        0 => "0".to_owned(),
        small if small < KIB => format!("{small} B"),
        small if small < MIB => format!("{} KiB", tenths(small, KIB)),
        large if large >= 10 * GIB && large % GIB == 0 => format!("{} GiB", grouped(large / GIB)),
        any => format!("{} MiB", tenths(any, MIB)),
    }
}

/// `2 vCPU`, `0.25 vCPU`.
pub(super) fn vcpus(cpu: MilliCpu) -> String {
    format!("{} vCPU", thousandths(cpu.0))
}

/// `12.345 s`, `2m 05s`, `1h 42m 05s`, `3d 04h 05m`.
pub(super) fn span(span: Nanos) -> String {
    let milliseconds = span.0 / 1_000_000;
    let seconds = milliseconds / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0 if span.0 == 0 => "0 s".to_owned(),
        0 if milliseconds == 0 => format!("{} µs", thousandths(span.0)),
        0..60 => format!("{}.{:03} s", seconds, milliseconds % 1000),
        60..3600 => format!("{minutes}m {:02}s", seconds % 60),
        3600..86_400 => format!("{hours}h {:02}m {:02}s", minutes % 60, seconds % 60),
        _ => format!("{days}d {:02}h {:02}m", hours % 24, minutes % 60),
    }
}

/// `7,761.5 GiB·s` from MiB·s: 1024 of them, never 10^9.
pub(super) fn gib_seconds(mib_seconds: u64) -> String {
    format!("{} GiB·s", tenths(mib_seconds, 1024))
}

/// `12.3 vCPU·s` from millicpu·s.
pub(super) fn vcpu_seconds(millicpu_seconds: u64) -> String {
    format!("{} vCPU·s", tenths(millicpu_seconds, 1000))
}

/// A difference of two clocks, signed: `+1.2 ms`.
pub(super) fn skew(nanos: i64) -> String {
    let sign = if nanos < 0 { '-' } else { '+' };
    let size = nanos.unsigned_abs();
    if size < 1_000_000_000 {
        format!("{sign}{} ms", tenths(size, 1_000_000))
    } else {
        format!("{sign}{}", span(Nanos(size)))
    }
}

/// `amount / unit` with one decimal where it is not whole, rounded to the nearest.
fn tenths(amount: u64, unit: u64) -> String {
    if amount.is_multiple_of(unit) {
        return grouped(amount / unit);
    }
    let tenths = (u128::from(amount) * 10 + u128::from(unit) / 2) / u128::from(unit);
    let whole = u64::try_from(tenths / 10).unwrap_or(u64::MAX);
    format!("{}.{}", grouped(whole), tenths % 10)
}

/// `amount / 1000` without trailing zeros.
fn thousandths(amount: u64) -> String {
    let (whole, rest) = (amount / 1000, amount % 1000);
    if rest == 0 {
        return grouped(whole);
    }
    let fraction = format!("{rest:03}");
    format!("{}.{}", grouped(whole), fraction.trim_end_matches('0'))
}

/// `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index != 0 && index % 3 == first {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_whole_where_it_is_whole() {
        let cases = [
            (0, "0"),
            (4096, "4 KiB"),
            (512 << 20, "512 MiB"),
            ((512 << 20) - (1 << 19), "511.5 MiB"),
            (8 << 30, "8,192 MiB"),
            (64 << 30, "64 GiB"),
            ((64 << 30) + (2 << 20), "65,538 MiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(memory(Bytes(bytes)), text);
        }
    }

    #[test]
    fn spans_say_as_much_as_matters() {
        let cases = [
            (0, "0 s"),
            (1_500, "1.5 µs"),
            (12_345_678_901, "12.345 s"),
            (125_000_000_000, "2m 05s"),
            (6_125_000_000_000, "1h 42m 05s"),
            (277_500_000_000_000, "3d 05h 05m"),
        ];
        for (nanos, text) in cases {
            assert_eq!(span(Nanos(nanos)), text);
        }
    }

    #[test]
    fn the_ends_of_the_types_are_shown_and_not_stepped_over() {
        assert_eq!(memory(Bytes(u64::MAX)), "17,592,186,044,416.0 MiB");
        assert_eq!(vcpus(MilliCpu(u64::MAX)), "18,446,744,073,709,551.615 vCPU");
        assert_eq!(skew(i64::MIN), "-106751d 23h 47m");
        assert_eq!(gib_seconds(u64::MAX), "18,014,398,509,481,984.0 GiB·s");
    }

    #[test]
    fn foreign_text_cannot_steer_a_terminal() {
        assert_eq!(
            Safe("a\u{1b}[2Jb\r\n\u{9b}\u{202e}ü").to_string(),
            "a\\u{1b}[2Jb\\u{d}\\u{a}\\u{9b}\\u{202e}ü"
        );
    }
}
