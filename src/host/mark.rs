//! The host's high-water mark, read back from the JSON of an earlier report.

use super::json::SCHEMA;
use super::json_lines::ByteOrderMark;
use super::text::Safe;
use crate::meter::{ACTIVE_UNIT, CPU_UNIT, Count, MEMORY_UNIT};
use crate::units::Nanos;
use crate::wire::message::{Counters, Id, Mark};
use serde::{Deserialize, Serialize};

/// Why a text holds no mark.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    /// No line in it.
    #[error("it is empty")]
    Empty,
    /// Saved by an editor that puts its mark before text.
    #[error(transparent)]
    ByteOrderMark(#[from] ByteOrderMark),
    /// Not the JSON of a report.
    #[error("its last line is no report: {}", Safe(&.0.to_string()))]
    Json(#[from] serde_json::Error),
    /// Of another shape.
    #[error("its schema is {:?}, not {SCHEMA:?}", Safe(.0).to_string())]
    Schema(String),
    /// Not a kernel's boot id.
    #[error("identity.boot_id {:?} is no UUID", Safe(.0).to_string())]
    BootId(String),
    /// A carry that is no number, or not less than a whole unit.
    #[error("{field} {:?} is not a number below {unit}", Safe(.text).to_string())]
    Carry {
        /// Which.
        field: &'static str,
        /// What it says.
        text: String,
        /// One whole.
        unit: u64,
    },
    /// What a guest counts before it is named, no host has billed.
    #[error("it is of a guest that no host had named, so it is no host's mark")]
    Unnamed,
    /// Another sandbox's mark: what a clone's parent has used is not the clone's.
    #[error("it is of sandbox {}, not of {}", Safe(.found), Safe(.wanted))]
    Sandbox {
        /// Whose it should be.
        wanted: String,
        /// Whose it is.
        found: String,
    },
}

/// The mark in the last line of `text`, which `read --json`, `checkpoint --json` or `resume --json` has printed for
/// this sandbox.
///
/// # Errors
/// It is no report, or not one of this sandbox in an epoch that a host has named.
pub fn mark(text: &str, sandbox: &str) -> Result<Mark, MarkError> {
    let line = text.lines().rfind(|line| !line.trim().is_empty()).ok_or(MarkError::Empty)?;
    ByteOrderMark::refuse(line.as_bytes())?;
    let document: Document = serde_json::from_str(line)?;
    if document.schema != SCHEMA {
        return Err(MarkError::Schema(document.schema));
    }
    let Identity { boot_id, sandbox: found, epoch } = document.identity;
    let found = found.filter(|_| epoch.source == "host").ok_or(MarkError::Unnamed)?;
    if found != sandbox {
        return Err(MarkError::Sandbox { wanted: sandbox.to_owned(), found });
    }
    mark_of(boot_id, document.usage)
}

pub(super) fn mark_of(boot_id: String, counted: Counted) -> Result<Mark, MarkError> {
    let Counted { active, memory, cpu } = counted;
    let counters = Counters {
        active: count::<ACTIVE_UNIT>("active.carry_ns", active.seconds, active.carry_ns.to_string())?,
        memory: count::<MEMORY_UNIT>("memory.carry_byte_ns", memory.mib_seconds, memory.carry_byte_ns)?,
        cpu: count::<CPU_UNIT>("cpu.carry_millicpu_ns", cpu.millicpu_seconds, cpu.carry_millicpu_ns)?,
        cpu_used: Nanos::ZERO,
    };
    let boot_id = uuid(&boot_id).ok_or(MarkError::BootId(boot_id))?;
    Ok(Mark { boot_id, counters })
}

/// 32 hex digits.
pub(super) fn hex(digits: &str) -> Option<Id> {
    if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(digits, 16).ok().map(|number| Id(number.to_be_bytes()))
}

/// 32 hex digits with hyphens as the kernel sets them.
fn uuid(text: &str) -> Option<Id> {
    let parts: Vec<&str> = text.split('-').collect();
    let lengths = parts.iter().map(|part| part.len());
    if lengths.eq([8, 4, 4, 4, 12]) { hex(&parts.concat()) } else { None }
}

fn count<const UNIT: u64>(field: &'static str, whole: u64, carry: String) -> Result<Count<UNIT>, MarkError> {
    match carry.parse() {
        Ok(carry) if carry < UNIT => Ok(Count { whole, carry }),
        _ => Err(MarkError::Carry { field, text: carry, unit: UNIT }),
    }
}

#[derive(Deserialize)]
struct Document {
    schema: String,
    identity: Identity,
    usage: Counted,
}

#[derive(Deserialize)]
struct Identity {
    boot_id: String,
    sandbox: Option<String>,
    epoch: Epoch,
}

#[derive(Deserialize)]
struct Epoch {
    source: String,
}

/// Counters as a report's JSON has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counted {
    active: Active,
    memory: Memory,
    cpu: Cpu,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Active {
    seconds: u64,
    carry_ns: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Memory {
    mib_seconds: u64,
    carry_byte_ns: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Cpu {
    millicpu_seconds: u64,
    carry_millicpu_ns: String,
}

impl From<&Counters> for Counted {
    fn from(counters: &Counters) -> Self {
        let Counters { active, memory, cpu, .. } = counters;
        Self {
            active: Active { seconds: active.whole, carry_ns: active.carry },
            memory: Memory { mib_seconds: memory.whole, carry_byte_ns: memory.carry.to_string() },
            cpu: Cpu { millicpu_seconds: cpu.whole, carry_millicpu_ns: cpu.carry.to_string() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: &str = "c17643ce-0269-486e-b779-e3ef0c36cf86";

    fn line(sandbox: &str, source: &str, boot: &str, carry: &str) -> String {
        format!(
            r#"{{"schema":"guestmeter.report/1","identity":{{"boot_id":"{boot}","sandbox":{sandbox},
            "epoch":{{"id":"00","source":"{source}","number":3}},"seq":1}},"later":[],"usage":{{
            "active":{{"seconds":3900,"carry_ns":999999999}},
            "memory":{{"mib_seconds":2496000,"carry_byte_ns":"{carry}"}},
            "cpu":{{"millicpu_seconds":5850000,"carry_millicpu_ns":"7"}}}}}}"#
        )
        .replace('\n', " ")
    }

    #[test]
    fn the_last_line_counts_to_the_last_carry() {
        let old = line("\"a\"", "host", BOOT, "1");
        let new = line("\"a\"", "host", BOOT, "1048575999999999");
        let mark = mark(&format!("{old}\n{new}\n\n"), "a").unwrap();
        assert_eq!(mark.boot_id.to_string(), BOOT);
        let Counters { active, memory, cpu, .. } = mark.counters;
        assert_eq!((active.whole, active.carry), (3900, 999_999_999));
        assert_eq!((memory.whole, memory.carry), (2_496_000, 1_048_575_999_999_999));
        assert_eq!((cpu.whole, cpu.carry), (5_850_000, 7));
    }

    #[test]
    fn what_is_no_mark_is_told_why() {
        let good = line("\"a\"", "host", BOOT, "1");
        for (text, cause) in [
            (String::new(), "it is empty"),
            ("{".to_owned(), "its last line is no report: EOF"),
            ("[]".to_owned(), "its last line is no report"),
            (good.replace("report/1", "report/2"), "its schema is \"guestmeter.report/2\""),
            (line("\"b\"", "host", BOOT, "1"), "it is of sandbox b, not of a"),
            (line("null", "host", BOOT, "1"), "no host had named"),
            (line("\"a\"", "provisional", BOOT, "1"), "no host had named"),
            (line("\"a\"", "host", &BOOT[1..], "1"), "is no UUID"),
            (line("\"a\"", "host", &BOOT.replace('c', "g"), "1"), "is no UUID"),
            (line("\"a\"", "host", BOOT, "-1"), "is not a number below 1048576000000000"),
            (line("\"a\"", "host", BOOT, "1048576000000000"), "memory.carry_byte_ns"),
            (good.replace("3900", "-1"), "its last line is no report"),
            (good.replace("3900", "1e99"), "its last line is no report"),
        ] {
            let error = mark(&text, "a").unwrap_err().to_string();
            assert!(error.contains(cause), "{text}: {error}");
        }
    }

    #[test]
    fn an_id_is_32_digits() {
        assert_eq!(
            hex("000102030405060708090a0b0c0d0e0F"),
            Some(Id([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]))
        );
        assert_eq!(hex("+00102030405060708090a0b0c0d0e0f"), None);
        assert_eq!(hex("0"), None);
    }
}
