//! Feeds recorded observations to the meter: JSON Lines in, slices and usage out.
//!
//! One object a line: `{"at_ns":N,"memory_bytes":N,"cpu_millis":N,"event":"start|tick|capacity|checkpoint|resume|release"}`.
//! All fields are required; one `start`, first; `at_ns` is monotonic; `tick_ns` may stand in the first line. What ends in
//! `_ns` may be a decimal string too.
//! Memory is constant: a line is forgotten once it is counted.

use super::json_integer::Wide;
use super::json_lines::{JsonLines, LineError};
use crate::meter::{Event, Meter, Rate, Slice, Usage};
use crate::units::{Bytes, MilliCpu, Nanos};
use serde::Deserialize;
use std::io::{self, BufRead};

/// The tick where neither the trace nor the caller names one: the agent's default.
pub const TICK_DEFAULT: Nanos = Nanos::from_secs(5);
/// The longest line, in bytes.
pub const LINE_MAX: u64 = 4096;

/// Why a trace stopped. Nothing after that line was counted.
#[derive(Debug, thiserror::Error)]
#[error("{name}:{line}: {cause}")]
pub struct ReplayError {
    /// The file, or `-`.
    pub name: String,
    /// The line, from 1.
    pub line: u64,
    /// What is wrong.
    pub cause: ReplayCause,
}

/// What is wrong with a line of a trace.
#[derive(Debug, thiserror::Error)]
pub enum ReplayCause {
    /// There is no line of a trace.
    #[error(transparent)]
    Line(#[from] LineError),
    /// The slice could not be shown.
    #[error("writing: {0}")]
    Write(io::Error),
    /// The line is no observation.
    #[error("not an observation: {0}")]
    Json(#[from] serde_json::Error),
    /// The file has no line.
    #[error("empty: a trace begins with a start")]
    Empty,
    /// The first observation must be a `start`.
    #[error("the first event is {0:?}, not a start")]
    NoStart(Event),
    /// Only the first observation may be one.
    #[error("a second start")]
    SecondStart,
    /// The tick belongs to the first line.
    #[error("tick_ns belongs in the first line")]
    LateTick,
    /// A tick of nothing would drop everything.
    #[error("tick_ns is 0")]
    ZeroTick,
    /// The clock of a trace is monotonic.
    #[error("at_ns goes back: {at} after {before}")]
    Backwards {
        /// The line's instant.
        at: u64,
        /// The instant of the line before.
        before: u64,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Observation {
    at_ns: Wide<u64>,
    memory_bytes: u64,
    cpu_millis: u64,
    event: Event,
    tick_ns: Option<Wide<u64>>,
}

/// Counts the trace in `input`, called `name` in errors; `tick` goes before the trace's own. Each slice is given to
/// `on_slice` with its event as it closes; an error of that ends the replay.
///
/// # Errors
/// The first line that does not fit, by its number.
pub fn replay(
    input: impl BufRead,
    name: &str,
    tick: Option<Nanos>,
    mut on_slice: impl FnMut(Event, &Slice) -> io::Result<()>,
) -> Result<Usage, ReplayError> {
    let mut meter: Option<Meter> = None;
    let mut lines = JsonLines::new(input, LINE_MAX);
    let fault = |line, cause| ReplayError { name: name.to_owned(), line, cause };
    loop {
        let counted = match lines.next() {
            Ok(Some([])) => continue,
            Ok(Some(text)) => count(&mut meter, text, tick),
            Ok(None) => break,
            Err(cause) => Err(cause.into()),
        };
        counted
            .and_then(|(event, slice)| on_slice(event, &slice).map_err(ReplayCause::Write))
            .map_err(|cause| fault(lines.number, cause))?;
    }
    match meter {
        Some(meter) => Ok(*meter.usage()),
        None => Err(fault(lines.number, ReplayCause::Empty)),
    }
}

fn count(meter: &mut Option<Meter>, text: &[u8], tick: Option<Nanos>) -> Result<(Event, Slice), ReplayCause> {
    let seen: Observation = serde_json::from_slice(text)?;
    let now = Nanos(seen.at_ns.0);
    let rate = Rate { memory: Bytes(seen.memory_bytes), cpu: MilliCpu(seen.cpu_millis) };
    let Some(meter) = meter else {
        if seen.event != Event::Start {
            return Err(ReplayCause::NoStart(seen.event));
        }
        let tick = tick.or(seen.tick_ns.map(|tick| Nanos(tick.0))).unwrap_or(TICK_DEFAULT);
        if tick == Nanos::ZERO {
            return Err(ReplayCause::ZeroTick);
        }
        return Ok((seen.event, meter.insert(Meter::new(tick)).observe(now, rate, seen.event)));
    };
    match meter.last() {
        _ if seen.event == Event::Start => Err(ReplayCause::SecondStart),
        _ if seen.tick_ns.is_some() => Err(ReplayCause::LateTick),
        Some((before, _)) if now < before => {
            Err(ReplayCause::Backwards { at: seen.at_ns.0, before: before.0 })
        }
        _ => Ok((seen.event, meter.observe(now, rate, seen.event))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(trace: &str) -> Result<Usage, ReplayError> {
        replay(trace.as_bytes(), "trace", None, |_, _| Ok(()))
    }

    fn line(at: u64, event: &str) -> String {
        format!(r#"{{"at_ns":{at},"memory_bytes":1073741824,"cpu_millis":1000,"event":"{event}"}}"#)
    }

    #[test]
    fn a_trace_is_counted_slice_by_slice() {
        let trace = [line(0, "start"), line(4_500_000_000, "tick"), line(9_000_000_000, "tick")].join("\n");
        let mut slices = Vec::new();
        let usage = replay(trace.as_bytes(), "trace", None, |event, slice| {
            slices.push((event, slice.counted));
            Ok(())
        });
        assert_eq!(usage.unwrap().active.whole, 9);
        assert_eq!(
            slices,
            [
                (Event::Start, Nanos::ZERO),
                (Event::Tick, Nanos(4_500_000_000)),
                (Event::Tick, Nanos(4_500_000_000))
            ]
        );
    }

    #[test]
    fn the_tick_comes_from_the_caller_then_the_trace() {
        let first = line(0, "start").replace('}', r#","tick_ns":1000000000}"#);
        let trace = [first, line(10_000_000_000, "tick")].join("\n");
        assert_eq!(run(&trace).unwrap().active.whole, 2);
        let wide = replay(trace.as_bytes(), "trace", Some(Nanos::from_secs(20)), |_, _| Ok(()));
        assert_eq!(wide.unwrap().active.whole, 10);
    }

    #[test]
    fn errors_name_the_line_and_the_cause() {
        let start = line(5, "start");
        for (trace, wanted) in [
            (String::new(), "trace:1: empty"),
            ("hello".to_owned(), "trace:1: not an observation"),
            (line(5, "tick"), "trace:1: the first event is Tick"),
            (line(5, "nap"), "trace:1: not an observation: unknown variant `nap`"),
            (format!("{start}\n{start}"), "trace:2: a second start"),
            (format!("{start}\n\n{}", line(4, "tick")), "trace:3: at_ns goes back: 4 after 5"),
            (start.replace(r#""cpu_millis":1000,"#, ""), "missing field `cpu_millis`"),
            (start.replace('}', r#","ram":1}"#), "unknown field `ram`"),
            (start.replace('}', r#","tick_ns":0}"#), "tick_ns is 0"),
            (start.replace(":5,", ":-5,"), "invalid value"),
            (format!("{start}\n{}", line(6, "tick").replace('}', r#","tick_ns":9}"#)), "tick_ns belongs"),
            (format!("\u{feff}{start}"), "trace:1: a byte-order mark (UTF-8) stands before the text"),
            ("x".repeat(5000), "trace:1: longer than 4096 bytes"),
        ] {
            let error = run(&trace).unwrap_err().to_string();
            assert!(error.contains(wanted), "{trace}: {error}");
        }
    }
}
