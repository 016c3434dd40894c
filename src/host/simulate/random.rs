//! Chance, from a seed alone: without its `std` feature `fastrand` cannot even ask the system for entropy.

use crate::wire::message::Id;

/// A stream of draws.
#[derive(Clone, Debug)]
pub(super) struct Random(fastrand::Rng);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// A seed of its own.
    pub(super) fn seed(mut self) -> u64 {
        self.0.u64(..)
    }

    /// Below `end`; zero where that is zero.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.0.u64(..end) }
    }

    /// From `start` to before `end`.
    pub(super) fn between(&mut self, start: u64, end: u64) -> u64 {
        start.saturating_add(self.below(end.saturating_sub(start)))
    }

    /// True once in `times`; never where that is zero.
    pub(super) fn once_in(&mut self, times: u64) -> bool {
        times != 0 && self.below(times) == 0
    }

    /// A span around `typical`: from a 64th of it to four times it, short ones as likely as long ones.
    pub(super) fn around(&mut self, typical: u64) -> u64 {
        let least = (typical >> 6) << self.below(8);
        least.saturating_add(self.below(least.saturating_add(1)))
    }

    pub(super) fn id(&mut self) -> Id {
        let mut bytes = [0; 16];
        self.0.fill(&mut bytes);
        // All zero is what is provisional.
        if let Some(last) = bytes.last_mut() {
            *last |= 1;
        }
        Id(bytes)
    }

    /// One of them.
    pub(super) fn choose<T: Copy>(&mut self, first: T, others: &[T]) -> T {
        let at = self.0.usize(..=others.len());
        others.get(at).copied().unwrap_or(first)
    }
}
