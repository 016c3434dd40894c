//! Samples that adjoin from hour to hour, kept as one: a silent year is as short as an hour.

use super::credit::HOUR;
use super::decision::Sample;
use crate::units::Nanos;
use crate::wire::message::Id;
use serde::{Deserialize, Serialize};

/// Samples in the order in which they were put.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Runs(Vec<Run>);

/// A sample, and those behind it of the same epoch and size: each begins on the hour where the one before it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Run {
    first: Sample,
    /// Of the last one.
    end: Nanos,
}

impl Runs {
    /// Adds a sample.
    pub fn put(&mut self, sample: Sample) {
        match self.0.last_mut() {
            Some(last) if last.goes_on_with(&sample) => last.end = sample.end,
            _ => self.0.push(Run { first: sample, end: sample.end }),
        }
    }

    /// Whether any of `epoch` starts at `start` or later.
    pub fn has_from(&self, epoch: Id, start: Nanos) -> bool {
        self.0.iter().any(|run| run.first.epoch == epoch && run.last_start() >= start)
    }

    /// Drops those of `epoch` that start at `start` or later.
    pub fn drop_from(&mut self, epoch: Id, start: Nanos) {
        self.0.retain(|run| run.first.epoch != epoch || run.first.start < start);
        for run in self.0.iter_mut().filter(|run| run.first.epoch == epoch) {
            let kept = next_hour(start.saturating_sub(Nanos(1))).max(run.first.end);
            run.end = run.end.min(kept);
        }
    }

    /// None of `epoch` reaches beyond `at`.
    pub fn clip(&mut self, epoch: Id, at: Nanos) {
        self.0.retain(|run| run.first.epoch != epoch || run.first.start < at);
        for run in self.0.iter_mut().filter(|run| run.first.epoch == epoch) {
            run.end = run.end.min(at);
            run.first.end = run.first.end.min(at);
        }
    }

    /// Forgets those of `epoch` that end at `until` or before; the latest end of them.
    pub fn forget(&mut self, epoch: Id, until: Nanos) -> Option<Nanos> {
        let mut last = None;
        self.0.retain_mut(|run| {
            if run.first.epoch != epoch || run.first.end > until {
                return true;
            }
            let kept = run.samples().find(|sample| sample.end > until);
            last = last.max(Some(kept.map_or(run.end, |kept| kept.start)));
            run.first = kept.unwrap_or(run.first);
            kept.is_some()
        });
        last
    }

    /// Forgets those of epochs that are not `known`.
    pub fn forget_others(&mut self, known: impl Fn(Id) -> bool) {
        self.0.retain(|run| known(run.first.epoch));
    }

    /// Those that are not in `other` as they are.
    pub fn not_in<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = Sample> + 'a {
        let changed = self.0.iter().filter(|run| !other.0.contains(run));
        changed
            .flat_map(Run::samples)
            .filter(|sample| other.find(sample.epoch, sample.start) != Some(*sample))
    }

    /// The one with this key.
    pub fn find(&self, epoch: Id, start: Nanos) -> Option<Sample> {
        self.0.iter().filter(|run| run.first.epoch == epoch).find_map(|run| run.starting_at(start))
    }
}

impl Run {
    fn goes_on_with(&self, next: &Sample) -> bool {
        let Sample { epoch, start, end, size } = *next;
        let same = (self.first.epoch, self.first.size, self.end) == (epoch, size, start);
        same && is_hour(start) && start < end && end <= next_hour(start)
    }

    fn samples(&self) -> impl Iterator<Item = Sample> + use<> {
        let Self { first, end } = *self;
        let next = move |before: &Sample| {
            let start = before.end;
            (start < end).then(|| Sample { start, end: next_hour(start).min(end), ..first })
        };
        std::iter::successors(Some(first), next)
    }

    fn starting_at(&self, start: Nanos) -> Option<Sample> {
        if start == self.first.start {
            return Some(self.first);
        }
        let inside = start >= self.first.end && start < self.end && is_hour(start);
        inside.then(|| Sample { start, end: next_hour(start).min(self.end), ..self.first })
    }

    /// Where the last one starts.
    fn last_start(&self) -> Nanos {
        if self.end <= self.first.end {
            return self.first.start;
        }
        let before = self.end.saturating_sub(Nanos(1));
        Nanos(before.0 - before.0 % HOUR.0)
    }
}

fn is_hour(at: Nanos) -> bool {
    at.0.is_multiple_of(HOUR.0)
}

/// The first one after `at`.
fn next_hour(at: Nanos) -> Nanos {
    Nanos((at.0 / HOUR.0).saturating_add(1).saturating_mul(HOUR.0))
}
