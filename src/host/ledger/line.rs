//! One line of an import or export: JSON, strict.

use super::entry::{CPU_MAX, MEMORY_MAX, SampleRow, ScaleEvent, Size};
use crate::units::{Mib, MilliCpu, Nanos};
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// The longest line, in bytes.
pub const LINE_MAX: u64 = 16 * 1024;

#[derive(Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Line {
    Org {
        id: String,
        #[serde(deserialize_with = "present")]
        plan: Option<String>,
    },
    Scale {
        id: String,
        sandbox: String,
        org: String,
        memory_mib: u64,
        cpu_millis: u64,
        started_at: Instant,
        #[serde(deserialize_with = "present")]
        ended_at: Option<Instant>,
    },
    Sample {
        id: String,
        sandbox: String,
        org: String,
        memory_mib: u64,
        cpu_millis: u64,
        started_at: Instant,
        ended_at: Instant,
    },
}

/// `null` is a value; a field that is not there is none.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Option::deserialize(deserializer)
}

/// RFC 3339 or integer Unix nanoseconds; written as RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instant(pub(crate) Nanos);

/// What a database can hold: until the year 2262.
const INSTANT_MAX: u64 = i64::MAX.unsigned_abs();

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InstantVisitor)
    }
}

struct InstantVisitor;

impl Visitor<'_> for InstantVisitor {
    type Value = Instant;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "an instant from 1970 to 2262: RFC 3339 (\"2026-06-08T16:42:00Z\") or integer Unix nanoseconds",
        )
    }

    fn visit_u64<E: Error>(self, nanos: u64) -> Result<Instant, E> {
        if nanos > INSTANT_MAX {
            return Err(E::invalid_value(Unexpected::Unsigned(nanos), &self));
        }
        Ok(Instant(Nanos(nanos)))
    }

    fn visit_i64<E: Error>(self, nanos: i64) -> Result<Instant, E> {
        u64::try_from(nanos)
            .map_err(|_| E::invalid_value(Unexpected::Signed(nanos), &self))
            .and_then(|nanos| self.visit_u64(nanos))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Instant, E> {
        parse_rfc3339(text).map(Instant).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match jiff::Timestamp::from_nanosecond(i128::from(self.0.0)) {
            Ok(instant) => serializer.collect_str(&instant),
            Err(_) => serializer.serialize_u64(self.0.0),
        }
    }
}

/// An instant that a ledger can hold, as a person writes it: RFC 3339 or integer Unix nanoseconds.
#[must_use]
pub fn parse_instant(text: &str) -> Option<Nanos> {
    match text.parse::<u64>() {
        Ok(nanos) => (nanos <= INSTANT_MAX).then_some(Nanos(nanos)),
        Err(_) => parse_rfc3339(text),
    }
}

fn parse_rfc3339(text: &str) -> Option<Nanos> {
    let instant: jiff::Timestamp = text.parse().ok()?;
    let nanos = u64::try_from(instant.as_nanosecond()).ok()?;
    (nanos <= INSTANT_MAX).then_some(Nanos(nanos))
}

/// What a line says, if a ledger can hold it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Org { id: String, plan: Option<String> },
    Scale(ScaleEvent),
    Sample(SampleRow),
}

impl Line {
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        // Serde would take an array of the fields' values too.
        if !text.trim_ascii_start().starts_with(b"{") {
            return Err("not a JSON object".to_owned());
        }
        serde_json::from_slice(text).map_err(|error| error.to_string())
    }

    pub(super) fn entry(self) -> Result<Entry, String> {
        match self {
            Self::Org { id, plan } => {
                name("id", &id)?;
                plan.as_deref().map_or(Ok(()), |plan| name("plan", plan))?;
                Ok(Entry::Org { id, plan })
            }
            Self::Scale { id, sandbox, org, memory_mib, cpu_millis, started_at, ended_at } => {
                let size = row(&id, &sandbox, &org, (memory_mib, cpu_millis), (started_at, ended_at))?;
                let (started_at, ended_at) = (started_at.0, ended_at.map(|end| end.0));
                Ok(Entry::Scale(ScaleEvent { id, sandbox, epoch: None, org, size, started_at, ended_at }))
            }
            Self::Sample { id, sandbox, org, memory_mib, cpu_millis, started_at, ended_at } => {
                let size = row(&id, &sandbox, &org, (memory_mib, cpu_millis), (started_at, Some(ended_at)))?;
                let (started_at, ended_at) = (started_at.0, ended_at.0);
                Ok(Entry::Sample(SampleRow { id, sandbox, epoch: None, org, size, started_at, ended_at }))
            }
        }
    }

    pub(super) fn of_scale(row: ScaleEvent) -> Self {
        Self::Scale {
            id: row.id,
            sandbox: row.sandbox,
            org: row.org,
            memory_mib: row.size.memory.0,
            cpu_millis: row.size.cpu.0,
            started_at: Instant(row.started_at),
            ended_at: row.ended_at.map(Instant),
        }
    }

    pub(super) fn of_sample(row: SampleRow) -> Self {
        Self::Sample {
            id: row.id,
            sandbox: row.sandbox,
            org: row.org,
            memory_mib: row.size.memory.0,
            cpu_millis: row.size.cpu.0,
            started_at: Instant(row.started_at),
            ended_at: Instant(row.ended_at),
        }
    }
}

fn row(
    id: &str,
    sandbox: &str,
    org: &str,
    (memory_mib, cpu_millis): (u64, u64),
    (start, end): (Instant, Option<Instant>),
) -> Result<Size, String> {
    name("id", id)?;
    name("sandbox", sandbox)?;
    name("org", org)?;
    if end.is_some_and(|end| end.0 < start.0) {
        return Err("ended_at is before started_at".to_owned());
    }
    let size = Size { memory: Mib(memory_mib), cpu: MilliCpu(cpu_millis) };
    if size.memory > MEMORY_MAX {
        return Err(format!("memory_mib {memory_mib} is more than 4 PiB"));
    }
    if size.cpu > CPU_MAX {
        return Err(format!("cpu_millis {cpu_millis} is more than four million vCPUs"));
    }
    Ok(size)
}

fn name(field: &str, text: &str) -> Result<(), String> {
    super::entry::check_name(field, text).map_err(|cause| cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Entry, String> {
        Line::parse(text.as_bytes()).and_then(Line::entry)
    }

    const SAMPLE: &str = r#"{"type":"sample","id":"u1","sandbox":"s","org":"o","memory_mib":1024,"cpu_millis":1000,"started_at":"2026-06-08T16:42:00.000000001+02:00","ended_at":1780929720000000001}"#;

    #[test]
    fn instants_are_rfc3339_or_nanoseconds() {
        let Ok(Entry::Sample(row)) = parse(SAMPLE) else { panic!("{:?}", parse(SAMPLE)) };
        assert_eq!(row.started_at, row.ended_at);
        assert_eq!(row.started_at, Nanos(1_780_929_720_000_000_001));
    }

    #[test]
    fn a_line_reads_as_it_was_written() {
        for text in [
            SAMPLE.to_owned(),
            SAMPLE.replace("sample", "scale"),
            r#"{"type":"org","id":"o","plan":null}"#.to_owned(),
        ] {
            let line: Line = serde_json::from_str(&text).unwrap();
            let written = serde_json::to_string(&line).unwrap();
            assert_eq!(serde_json::from_str::<Line>(&written).unwrap(), line, "{written}");
        }
    }

    #[test]
    fn what_is_no_line_is_told_why() {
        let scale = SAMPLE.replace("sample", "scale");
        for (text, cause) in [
            (String::new(), "not a JSON object"),
            (r#"["org","o",null]"#.to_owned(), "not a JSON object"),
            ("{".to_owned(), "EOF"),
            (SAMPLE.replace("sample", "span"), "unknown variant `span`"),
            (SAMPLE.replace(r#""org":"o","#, ""), "missing field `org`"),
            (SAMPLE.replace(r#""org""#, r#""orgs":1,"org""#), "unknown field `orgs`"),
            (scale.replace(r#","ended_at":1780929720000000001"#, ""), "missing field `ended_at`"),
            (SAMPLE.replace("1780929720000000001", "null"), "invalid type: null"),
            (SAMPLE.replace("1780929720000000001", "-1"), "an instant from 1970 to 2262"),
            (SAMPLE.replace("1780929720000000001", "9223372036854775808"), "an instant from 1970 to 2262"),
            (SAMPLE.replace("1780929720000000001", "17e17"), "an instant from 1970 to 2262"),
            (SAMPLE.replace("1780929720000000001", r#""2026-06-08 16:42""#), "an instant from 1970 to 2262"),
            (SAMPLE.replace("1780929720000000001", "1780929720000000000"), "ended_at is before started_at"),
            (SAMPLE.replace(r#""u1""#, r#""""#), "id: empty"),
            (SAMPLE.replace(r#""s""#, r#""a\u001b[2J""#), "sandbox: a control character"),
            (SAMPLE.replace(r#""o""#, &format!("{:?}", "o".repeat(257))), "org: longer than 256 bytes"),
            (SAMPLE.replace("1024", "4294967297"), "more than 4 PiB"),
            (SAMPLE.replace("1024", "-1"), "invalid value"),
            (SAMPLE.replace("1000", "4294967297"), "more than four million vCPUs"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(cause), "{text}: {error}");
        }
    }
}
