//! Targets, sizes and spans as a person writes them on a command line.

use crate::host::mark;
use crate::host::state_file::Minted;
use crate::host::target::{Target, TargetError, TargetFault};
use crate::host::vmm::{VmmAddress, VmmAddressError, VmmAddressFault};
use crate::units::Bytes;
use crate::wire::codec::SANDBOX_MAX;
use crate::wire::message::Id;
use std::time::Duration;

const EVENT_BYTES_MAX: usize = 256;

/// A target; clap shows the text that is none before the fault.
pub(super) fn parse_target(text: &str) -> Result<Target, TargetFault> {
    text.parse().map_err(|error: TargetError| error.fault().clone())
}

/// A VMM's address, likewise.
pub(super) fn parse_vmm(text: &str) -> Result<VmmAddress, VmmAddressFault> {
    text.parse().map_err(|error: VmmAddressError| error.fault().clone())
}

/// `512M`, `1G`, `512MiB`, or bytes; always powers of two, as VMMs count memory.
pub(super) fn parse_size(text: &str) -> Result<Bytes, String> {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let number: u64 = match digits.parse() {
        Ok(number) => number,
        Err(_) if digits.is_empty() => return Err("a size begins with a whole number: 512M, 1G".to_owned()),
        Err(_) => return Err(format!("{digits} is too large")),
    };
    let unit = unit.trim_start();
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        "kb" | "mb" | "gb" | "tb" => {
            return Err(format!(
                "{unit} may mean powers of ten; write {}iB",
                unit.chars().next().unwrap_or('M')
            ));
        }
        _ => return Err(format!("{unit:?} is no unit; there are K, M, G, T and KiB, MiB, GiB, TiB")),
    };
    let bytes = number.checked_mul(1 << shift).map(Bytes).filter(|bytes| *bytes <= Bytes::PHYSICAL_MAX);
    bytes.ok_or_else(|| "more than any machine's memory (4 PiB)".to_owned())
}

/// An epoch that a host has minted: never zero.
pub(super) fn parse_epoch(text: &str) -> Result<Minted, String> {
    let shape = || "an epoch is ID:NUMBER: 32 hex digits, a colon, and a whole number".to_owned();
    let (id, number) = text.split_once(':').ok_or_else(shape)?;
    let id = mark::hex(id).ok_or_else(shape)?;
    let number = number.parse().map_err(|_| shape())?;
    if id == Id::default() || number == 0 {
        return Err("zero is how a provisional epoch is written".to_owned());
    }
    Ok(Minted { id, number })
}

/// Whose a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: Option<u32>,
}

pub(super) fn parse_owner(text: &str) -> Result<Owner, String> {
    let number = |text: &str| {
        // The last one means nobody in particular to the kernel.
        let number = text.parse().ok().filter(|number| *number != u32::MAX);
        number.ok_or_else(|| format!("{text:?} is no number of a user or group: write 1001 or 1001:1001"))
    };
    match text.split_once(':') {
        Some((uid, gid)) => Ok(Owner { uid: number(uid)?, gid: Some(number(gid)?) }),
        None => Ok(Owner { uid: number(text)?, gid: None }),
    }
}

pub(super) fn parse_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| "not permission bits in octal: write 600 or 660".to_owned())
}

pub(super) fn parse_event(text: &str) -> Result<String, String> {
    match text.len() {
        0 => Err("it is empty".to_owned()),
        1..=EVENT_BYTES_MAX if text.chars().any(char::is_control) => {
            Err("it has a control character".to_owned())
        }
        1..=EVENT_BYTES_MAX => Ok(text.to_owned()),
        length => Err(format!("it has {length} bytes; an event's id has at most {EVENT_BYTES_MAX}")),
    }
}

pub(super) fn parse_sandbox(text: &str) -> Result<String, String> {
    match text.len() {
        0 => Err("it is empty".to_owned()),
        1..=SANDBOX_MAX => Ok(text.to_owned()),
        length => Err(format!("it has {length} bytes; a name has at most {SANDBOX_MAX}")),
    }
}

/// `5s`, `250ms`, `1m30s`, `1h`.
pub(super) fn parse_span(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration =
        text.parse().map_err(|_| "not a span of time; write 5s, 250ms or 1m30s".to_owned())?;
    Duration::try_from(span).map_err(|_| "a span of time cannot be negative".to_owned())
}

/// A span that is waited for: longer than nothing, at most a day.
pub(super) fn parse_limit(text: &str) -> Result<Duration, String> {
    within(text, Duration::from_millis(1), Duration::from_hours(24), "1ms and 24h")
}

/// As an agent takes it; it would lengthen and shorten others without a word.
pub(super) fn parse_interval(text: &str) -> Result<Duration, String> {
    within(text, Duration::from_millis(100), Duration::from_hours(1), "100ms and 1h")
}

/// As an agent takes it.
pub(super) fn parse_settle_timeout(text: &str) -> Result<Duration, String> {
    within(text, Duration::from_millis(1), Duration::from_hours(1), "1ms and 1h")
}

fn within(text: &str, least: Duration, most: Duration, range: &str) -> Result<Duration, String> {
    let span = parse_span(text)?;
    if (least..=most).contains(&span) { Ok(span) } else { Err(format!("not within {range}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_two() {
        let cases = [
            ("0", 0),
            ("1048576", 1 << 20),
            ("512M", 512 << 20),
            ("512MiB", 512 << 20),
            ("512 mib", 512 << 20),
            ("1g", 1 << 30),
            ("4096T", 1 << 52),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Ok(Bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn a_size_that_is_none_is_told_why() {
        for (text, cause) in [
            ("", "begins with a whole number"),
            ("M", "begins with a whole number"),
            ("-1M", "begins with a whole number"),
            ("1.5G", "\".5G\" is no unit"),
            ("512MB", "MB may mean powers of ten; write MiB"),
            ("512X", "\"X\" is no unit"),
            ("5000T", "more than any machine's memory"),
            ("18446744073709551615G", "more than any machine's memory"),
            ("18446744073709551616", "too large"),
        ] {
            let error = parse_size(text).unwrap_err();
            assert!(error.contains(cause), "{text}: {error}");
        }
    }

    #[test]
    fn spans_have_units_and_ends() {
        assert_eq!(parse_span("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_limit("250ms"), Ok(Duration::from_millis(250)));
        assert!(parse_limit("0s").unwrap_err().contains("not within"));
        assert!(parse_limit("25h").unwrap_err().contains("not within"));
        assert!(parse_span("5").unwrap_err().contains("write 5s"));
        assert!(parse_span("-5s").is_err());
        assert!(parse_interval("99ms").unwrap_err().contains("not within 100ms and 1h"));
    }
}
