//! Integers that may pass 2^53, which a reader that has only doubles cannot hold: decimal strings in JSON.

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Written as a decimal string; read from one, or from a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wide<T>(pub(super) T);

impl<T: fmt::Display> Serialize for Wide<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Wide<u64> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = u64;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer from 0 to 2^64 - 1, as a number or a decimal string")
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<u64, E> {
                Ok(value)
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<u64, E> {
                Err(E::invalid_value(Unexpected::Signed(value), &self))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
                let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                let value = if digits { text.parse().ok() } else { None };
                value.ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Either).map(Self)
    }
}

/// For a field of a type that others see.
pub(super) mod as_text {
    use super::{Deserialize, Deserializer, Serialize, Serializer, Wide};

    pub(in crate::host) fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        Wide(value).serialize(serializer)
    }

    pub(in crate::host) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        Wide::deserialize(deserializer).map(|Wide(value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_so_is_a_number() {
        let text = serde_json::to_string(&Wide(u64::MAX)).unwrap();
        assert_eq!(text, r#""18446744073709551615""#);
        assert_eq!(serde_json::to_string(&Wide(-5_i64)).unwrap(), r#""-5""#);
        for read in [text.as_str(), "18446744073709551615"] {
            assert_eq!(serde_json::from_str::<Wide<u64>>(read).unwrap(), Wide(u64::MAX));
        }
        for wrong in [
            r#""18446744073709551616""#,
            r#""+1""#,
            r#""-1""#,
            r#""""#,
            r#"" 1""#,
            "-1",
            "1.5",
            "1e3",
            "null",
        ] {
            let error = serde_json::from_str::<Wide<u64>>(wrong).unwrap_err().to_string();
            assert!(error.contains("decimal string") || error.contains("null"), "{wrong}: {error}");
        }
    }
}
