//! What the five calls say, and what they are answered.

use crate::host::ledger::parse_instant;
use crate::host::worker::order::{Call, Expected, Phase};
use crate::units::Nanos;
use crate::wire::message::Id;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// `started`: it boots.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Started {
    /// The platform's own id for this call, at most 256 bytes. Repeated with it, the call gets its first answer.
    pub event_id: String,
    /// When it happened.
    #[schema(value_type = Instant)]
    pub at: At,
    /// The epoch that it ends; null where there was none.
    #[schema(value_type = Option<String>, example = "4f1c0c2be9a84d0f8ad1b5f8a1c0d9e7")]
    #[serde(deserialize_with = "epoch_or_null")]
    pub epoch: Option<Id>,
    /// Boot memory and virtio-mem that the VMM was asked for.
    pub memory_mib: u64,
    /// CPU entitlement, 1000 for one vCPU; without it a vCPU for each GiB, at least one.
    pub cpu_millis: Option<u64>,
    /// How long the answer may take; 0: it is not to wait for the guest.
    pub deadline_ms: Option<u64>,
}

/// `scaled`: the VMM was asked for another size.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Scaled {
    /// The platform's own id for this call, at most 256 bytes. Repeated with it, the call gets its first answer.
    pub event_id: String,
    /// When it happened.
    #[schema(value_type = Instant)]
    pub at: At,
    /// The epoch that it belongs to.
    #[schema(value_type = String, example = "4f1c0c2be9a84d0f8ad1b5f8a1c0d9e7")]
    #[serde(deserialize_with = "epoch")]
    pub epoch: Id,
    /// Boot memory and virtio-mem that the VMM was asked for.
    pub memory_mib: u64,
    /// CPU entitlement, 1000 for one vCPU; without it a vCPU for each GiB, at least one.
    pub cpu_millis: Option<u64>,
}

/// `pausing`: it is about to be paused.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Pausing {
    /// The platform's own id for this call, at most 256 bytes. Repeated with it, the call gets its first answer.
    pub event_id: String,
    /// When it happened.
    #[schema(value_type = Instant)]
    pub at: At,
    /// The epoch that it ends.
    #[schema(value_type = String, example = "4f1c0c2be9a84d0f8ad1b5f8a1c0d9e7")]
    #[serde(deserialize_with = "epoch")]
    pub epoch: Id,
    /// How long the snapshot may be held up: then the answer is `unconfirmed`.
    pub deadline_ms: Option<u64>,
}

/// `resumed`: it runs again.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Resumed {
    /// The platform's own id for this call, at most 256 bytes. Repeated with it, the call gets its first answer.
    pub event_id: String,
    /// When it happened.
    #[schema(value_type = Instant)]
    pub at: At,
    /// The epoch that it ends; null where there was none, as for a clone.
    #[schema(value_type = Option<String>, example = "4f1c0c2be9a84d0f8ad1b5f8a1c0d9e7")]
    #[serde(deserialize_with = "epoch_or_null")]
    pub epoch: Option<Id>,
    /// Whether it was paused; `false` where a snapshot was given up.
    #[serde(default = "yes")]
    #[schema(default = true)]
    pub paused: bool,
    /// Boot memory and virtio-mem that the VMM was asked for; without it as before.
    pub memory_mib: Option<u64>,
    /// CPU entitlement, 1000 for one vCPU; without it as before.
    pub cpu_millis: Option<u64>,
    /// How long the answer may take; 0: it is not to wait for the guest.
    pub deadline_ms: Option<u64>,
}

/// `destroyed`: it is gone.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Destroyed {
    /// The platform's own id for this call, at most 256 bytes. Repeated with it, the call gets its first answer.
    pub event_id: String,
    /// When it happened.
    #[schema(value_type = Instant)]
    pub at: At,
    /// The epoch that it ends.
    #[schema(value_type = String, example = "4f1c0c2be9a84d0f8ad1b5f8a1c0d9e7")]
    #[serde(deserialize_with = "epoch")]
    pub epoch: Id,
}

/// An instant: RFC 3339, or whole nanoseconds since the Unix epoch.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
#[schema(example = "2026-06-08T16:42:00.5Z")]
#[allow(dead_code, reason = "the schema of what `At` reads")]
pub enum Instant {
    /// RFC 3339.
    Text(String),
    /// Nanoseconds.
    Nanoseconds(u64),
}

/// An instant of the machine's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At(pub Nanos);

/// The answer to each of the five calls, given after the commit. The first one is the one for ever.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Answer {
    /// Which sandbox.
    pub sandbox: String,
    /// Which call.
    pub call: Call,
    /// Its id.
    pub event_id: String,
    /// What the guest has to do with it.
    pub outcome: Outcome,
    /// Why the guest has not confirmed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The epoch from here on: the one that began, or the one that goes on or has ended.
    pub epoch: Option<EpochRef>,
    /// The guest's report (guestmeter.report/1), committed and acknowledged.
    #[schema(value_type = Option<Object>)]
    pub report: Option<Box<RawValue>>,
}

/// What the guest had to do with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is in the books. The call asks nothing of the guest.
    Recorded,
    /// The guest has answered, and its answer is in the books. After `pausing`: the VM may be paused and saved.
    Confirmed,
    /// The guest has not answered in time, or there is none that could. The books have what the platform said.
    Unconfirmed,
}

/// An epoch's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EpochRef {
    /// 32 hex digits.
    pub id: String,
    /// Rises; it may be a Unix time in ns, which is more than a double holds.
    #[serde(with = "crate::host::json_integer::as_text")]
    #[schema(value_type = String, pattern = "^[0-9]{1,20}$")]
    pub number: u64,
}

/// What is wrong, in every answer that is not 200.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A name for a program.
    pub error: String,
    /// A sentence for a person.
    pub message: String,
    /// What might have come instead, for a call out of order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<Expected>,
}

/// Whether the worker does its work.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// Whether it does.
    pub healthy: bool,
    /// What hinders it.
    pub faults: Vec<String>,
}

/// A page of sandboxes.
#[derive(Debug, Serialize, ToSchema)]
pub struct SandboxList {
    /// In the order of their names.
    pub sandboxes: Vec<SandboxView>,
    /// Where the next page begins: `after`. Null at the end.
    pub next: Option<String>,
}

/// One sandbox as the worker sees it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SandboxView {
    /// Its name.
    pub sandbox: String,
    /// Who pays.
    pub org: String,
    /// Their plan.
    pub plan: Option<String>,
    /// Where its agent is.
    pub target: Option<String>,
    /// Where it is between two calls; null until the worker has read its books.
    pub phase: Option<Phase>,
    /// Its last epoch.
    pub epoch: Option<EpochRef>,
    /// Whether the guest has answered to that epoch.
    pub confirmed: bool,
    /// What is heard of its agent.
    pub agent: AgentState,
    /// Why the agent was not heard at the last attempt.
    pub fault: Option<String>,
    /// The last report.
    pub report: Option<ReportView>,
}

/// What is heard of an agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgentState {
    /// The descriptor names none.
    None,
    /// Not asked yet.
    #[default]
    Unknown,
    /// It answers, in the epoch that was named.
    Answering,
    /// It answers in an epoch that no host has named: never posted.
    Provisional,
    /// It answers in another epoch than the sandbox's.
    OtherEpoch,
    /// It has not answered of late.
    Silent,
}

/// The last report, in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ReportView {
    /// When it was received, in Unix nanoseconds, as a decimal string.
    pub received_unix_ns: String,
    /// Its number in its epoch.
    pub seq: u64,
    /// Whether the memory has settled.
    pub state: &'static str,
    /// Boot memory and what is plugged.
    pub total_bytes: Option<u64>,
    /// What virtio-mem has given.
    pub plugged_bytes: Option<u64>,
    /// What it was asked for.
    pub requested_bytes: Option<u64>,
    /// CPU entitlement.
    pub cpu_millis: u64,
    /// Running time since the epoch's base, in whole seconds.
    pub active_seconds: u64,
    /// Stretches that wait in the guest for an ack.
    pub segments_waiting: u32,
}

fn yes() -> bool {
    true
}

/// 32 hex digits.
fn epoch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Id, D::Error> {
    parse_epoch(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}

/// Must be there, though it may be null.
fn epoch_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Id>, D::Error> {
    let text: Option<String> = Option::deserialize(deserializer)?;
    text.map(|text| parse_epoch(&text)).transpose().map_err(de::Error::custom)
}

fn parse_epoch(text: &str) -> Result<Id, &'static str> {
    const WRONG: &str = "an epoch is 32 hex digits";
    if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(WRONG);
    }
    u128::from_str_radix(text, 16).map(|number| Id(number.to_be_bytes())).map_err(|_| WRONG)
}

impl<'de> Deserialize<'de> for At {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = At;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a time of RFC 3339, or whole nanoseconds since 1970")
            }

            fn visit_u64<E: de::Error>(self, nanos: u64) -> Result<At, E> {
                // The ledger counts in 63 bits.
                let fits = i64::try_from(nanos).is_ok();
                if fits { Ok(At(Nanos(nanos))) } else { Err(E::custom("a time beyond the year 2262")) }
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<At, E> {
                let wrong = || E::invalid_value(de::Unexpected::Str(text), &self);
                parse_instant(text).map(At).ok_or_else(wrong)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(body: &str) -> String {
        serde_json::from_str::<Resumed>(body).expect_err(body).to_string()
    }

    #[test]
    fn a_time_is_text_or_nanoseconds() {
        let at = |json: &str| serde_json::from_str::<At>(json).map(|at| at.0.0);
        assert_eq!(at("\"2026-06-08T16:42:00.5Z\"").unwrap(), 1_780_936_920_500_000_000);
        assert_eq!(at("\"2026-06-08T18:42:00.5+02:00\"").unwrap(), 1_780_936_920_500_000_000);
        assert_eq!(at("1780936920500000000").unwrap(), 1_780_936_920_500_000_000);
        for wrong in ["-1", "1.5", "\"soon\"", "\"1969-01-01T00:00:00Z\"", "18446744073709551615", "null"] {
            assert!(at(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_a_body_lacks_or_has_too_much_is_named() {
        let whole = r#"{"event_id":"e","at":1,"epoch":null}"#;
        let resumed: Resumed = serde_json::from_str(whole).unwrap();
        assert!(resumed.paused && resumed.epoch.is_none());
        assert!(fault(r#"{"event_id":"e","at":1}"#).contains("missing field `epoch`"));
        assert!(fault(r#"{"event_id":"e","at":1,"epoch":"12"}"#).contains("32 hex digits"));
        let more = whole.replace("null", "null,\"pause\":true");
        assert!(fault(&more).contains("unknown field `pause`"));
    }
}
