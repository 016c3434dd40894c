//! Spans of time as a configuration file writes them: `5s`, `250ms`, `1m30s`.

use serde::{Deserialize, Deserializer, de};
use std::time::Duration;

/// What no setting may exceed.
const LONGEST: Duration = Duration::from_hours(24);

/// For `#[serde(deserialize_with)]`: longer than nothing, at most a day.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).map_err(de::Error::custom)
}

fn parse(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration =
        text.parse().map_err(|_| format!("{text:?} is not a span of time; write 5s, 250ms or 1m30s"))?;
    let span = Duration::try_from(span).map_err(|_| "a span of time cannot be negative".to_owned())?;
    let fits = (Duration::from_millis(1)..=LONGEST).contains(&span);
    if fits { Ok(span) } else { Err(format!("{text:?} is not within 1ms and 24h")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_units_and_ends() {
        assert_eq!(parse("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
        for text in ["0s", "25h", "-1s", "5", "soon", ""] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
