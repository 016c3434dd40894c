//! Capacity × time, exact: what one slice counts, drops and carries.
//!
//! The law, for each counter: `whole · unit + carry + dropped = observed + rebased`, where `observed` is
//! Σ max(0, Δ) · capacity over all slices but suspended ones. Splitting an interval changes nothing.

#![deny(clippy::float_arithmetic)]

mod count;
#[cfg(test)]
mod tests;

pub use count::{ACTIVE_UNIT, Amounts, CPU_UNIT, Count, Counters, MEMORY_UNIT, Usage};

use crate::units::{ByteNanos, Bytes, MilliCpu, MilliCpuNanos, Nanos};
use serde::{Deserialize, Serialize};

/// The capacity a slice is attributed to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// boot + plugged.
    pub memory: Bytes,
    /// Effective CPU entitlement.
    pub cpu: MilliCpu,
}

/// Why the meter is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// The first observation without a usable state.
    Start,
    /// The tick, or a request.
    Tick,
    /// The capacity changed.
    Capacity,
    /// The host is about to pause: count up to here, then hold.
    Checkpoint,
    /// A resume was noticed or named.
    Resume,
    /// A hold ends without a pause.
    Release,
}

/// The row of the table in [`Meter::observe`] that a slice fell into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The first observation.
    First,
    /// The clock went backwards.
    Backwards,
    /// Held, and a resume.
    HeldResume,
    /// Held, and a jump past the cap that can only be a resume.
    HeldJump,
    /// Held, within the cap.
    Held,
    /// A resume across more than the cap.
    ResumeGap,
    /// A resume within the cap.
    ResumeShort,
    /// More than the cap, for no known cause.
    Capped,
    /// An ordinary slice.
    Plain,
}

/// One closed slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Its start, on the guest's monotonic clock; `None` for the first one.
    pub from: Option<Nanos>,
    /// Its end.
    pub to: Nanos,
    /// The capacity that held at its start.
    pub rate: Rate,
    /// Which rule applied.
    pub rule: Rule,
    /// Time counted.
    pub counted: Nanos,
    /// Dropped by this slice, an old carry included.
    pub dropped: Amounts,
    /// Time put to `suspended`.
    pub suspended: Nanos,
}

/// The meter: a value, saved and restored as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meter {
    tick: Nanos,
    last: Option<(Nanos, Rate)>,
    held: bool,
    usage: Usage,
}

impl Meter {
    /// A meter that has seen nothing. `tick` is the longest time between two observations of a healthy agent.
    #[must_use]
    pub fn new(tick: Nanos) -> Self {
        Self { tick, last: None, held: false, usage: Usage::default() }
    }

    /// What has been counted so far.
    #[must_use]
    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    /// Whether a checkpoint holds the count until a resume or a release.
    #[must_use]
    pub fn held(&self) -> bool {
        self.held
    }

    /// The last observation: its instant, and the capacity that has held since.
    #[must_use]
    pub fn last(&self) -> Option<(Nanos, Rate)> {
        self.last
    }

    /// Changes the tick, as a restarted agent does whose configuration changed.
    pub fn set_tick(&mut self, tick: Nanos) {
        self.tick = tick;
    }

    /// Raises the counters to the host's high-water mark: not usage, and said so in `rebased`.
    pub fn rebase(&mut self, by: Amounts) {
        self.usage.raise(by);
    }

    /// The longest slice that is counted whole: two ticks.
    #[must_use]
    pub fn cap(&self) -> Nanos {
        self.tick.saturating_add(self.tick)
    }

    /// Closes the slice since the last observation by the first row that fits, and opens one at `now` with `rate`.
    ///
    /// | case | counted | dropped | carry |
    /// |---|---|---|---|
    /// | first: Δ since boot, this observation's capacity | min(Δ, tick) | the rest | kept (it is zero) |
    /// | clock went backwards (a resume still counts as one) | 0 | 0 | kept |
    /// | held, and a resume | 0; Δ to `suspended` | 0 | kept |
    /// | held, Δ > cap: this is a resume | 0; Δ to `suspended` | 0 | kept |
    /// | held, Δ ≤ cap | Δ; the hold stays | 0 | kept |
    /// | resume, Δ > cap | 0 | Δ, and the old carry | zeroed |
    /// | resume, Δ ≤ cap | Δ, also to `uncertain` | 0 | kept |
    /// | Δ > cap | cap | Δ − cap, and the old carry | zeroed |
    /// | else | Δ | 0 | kept |
    pub fn observe(&mut self, now: Nanos, rate: Rate, event: Event) -> Slice {
        if event == Event::Release {
            self.held = false;
        }
        let (from, rate_then) = match self.last {
            Some((from, rate_then)) => (Some(from), rate_then),
            None => (None, rate),
        };
        let (rule, delta) = self.rule(from, now, event);
        let slice = self.apply(Slice {
            from,
            to: now,
            rate: rate_then,
            rule,
            counted: self.counted(rule, delta),
            dropped: Amounts::default(),
            suspended: if matches!(rule, Rule::HeldResume | Rule::HeldJump) { delta } else { Nanos::ZERO },
        });
        self.held = match rule {
            Rule::HeldResume | Rule::HeldJump => event == Event::Checkpoint,
            _ if event == Event::Resume => false,
            _ => self.held || event == Event::Checkpoint,
        };
        self.last = Some((now, rate));
        slice
    }

    fn rule(&self, from: Option<Nanos>, now: Nanos, event: Event) -> (Rule, Nanos) {
        let Some(from) = from else { return (Rule::First, now) };
        let Some(delta) = now.checked_sub(from) else { return (Rule::Backwards, Nanos::ZERO) };
        let rule = match (self.held, event == Event::Resume, delta > self.cap()) {
            (true, true, _) => Rule::HeldResume,
            (true, false, true) => Rule::HeldJump,
            (true, false, false) => Rule::Held,
            (false, true, true) => Rule::ResumeGap,
            (false, true, false) => Rule::ResumeShort,
            (false, false, true) => Rule::Capped,
            (false, false, false) => Rule::Plain,
        };
        (rule, delta)
    }

    fn counted(&self, rule: Rule, delta: Nanos) -> Nanos {
        match rule {
            Rule::First => delta.min(self.tick),
            Rule::Capped => self.cap(),
            Rule::Held | Rule::ResumeShort | Rule::Plain => delta,
            Rule::Backwards | Rule::HeldResume | Rule::HeldJump | Rule::ResumeGap => Nanos::ZERO,
        }
    }

    /// Books the slice; returns it with what it dropped.
    fn apply(&mut self, mut slice: Slice) -> Slice {
        let delta = slice.to.saturating_sub(slice.from.unwrap_or(Nanos::ZERO));
        let lost = delta.saturating_sub(slice.counted).saturating_sub(slice.suspended);
        let usage = &mut self.usage;
        if lost > Nanos::ZERO {
            let carried = Amounts {
                active: Nanos(usage.active.take_carry()),
                memory: ByteNanos(u128::from(usage.memory.take_carry())),
                cpu: MilliCpuNanos(u128::from(usage.cpu.take_carry())),
                cpu_used: Nanos::ZERO,
            };
            slice.dropped = carried.saturating_add(slice.rate.over(lost));
            usage.dropped = usage.dropped.saturating_add(slice.dropped);
            usage.gaps = usage.gaps.saturating_add(1);
        }
        let counted = slice.rate.over(slice.counted);
        usage.active.add(u128::from(counted.active.0));
        usage.memory.add(counted.memory.0);
        usage.cpu.add(counted.cpu.0);
        usage.suspended = usage.suspended.saturating_add(slice.suspended);
        match slice.rule {
            Rule::ResumeShort => usage.uncertain = usage.uncertain.saturating_add(slice.counted),
            Rule::Backwards => usage.anomalies = usage.anomalies.saturating_add(1),
            _ => {}
        }
        slice
    }
}

impl Rate {
    /// What this capacity comes to over `span`.
    #[must_use]
    pub fn over(self, span: Nanos) -> Amounts {
        Amounts { active: span, memory: self.memory * span, cpu: self.cpu * span, cpu_used: Nanos::ZERO }
    }
}
