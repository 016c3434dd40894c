//! Stretches of epochs that the host has not acknowledged: a bounded ring.

use crate::wire::message::{Epoch, Id, Segment};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Fits one frame, and a state slot several times.
pub(super) const SEGMENTS_MAX: usize = 32;

/// Segments in the order of their ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ring {
    segments: VecDeque<Segment>,
    /// Since boot: for want of room, or of a name.
    dropped: u64,
}

impl Ring {
    pub(super) fn push(&mut self, segment: Segment) {
        if self.segments.len() >= SEGMENTS_MAX {
            self.make_room();
        }
        self.segments.push_back(segment);
    }

    /// Down to what the ring holds.
    pub(super) fn trim(&mut self) {
        while self.segments.len() > SEGMENTS_MAX {
            self.make_room();
        }
    }

    /// Merges the two oldest of one epoch, whose later totals hold for both; drops the oldest where there are none.
    fn make_room(&mut self) {
        let epochs = |at: usize| Some((self.segments.get(at)?.epoch.id, self.segments.get(at + 1)?.epoch.id));
        let pair = (0..self.segments.len()).find(|at| epochs(*at).is_some_and(|(one, next)| one == next));
        match pair {
            Some(at) => {
                self.segments.remove(at);
                if let Some(merged) = self.segments.get_mut(at) {
                    merged.rate = None;
                }
            }
            None => {
                self.segments.pop_front();
                self.dropped = self.dropped.saturating_add(1);
            }
        }
    }

    /// Frees those of `epoch` up to `seq`.
    pub(super) fn free(&mut self, epoch: Id, seq: u64) {
        self.segments.retain(|segment| segment.epoch.id != epoch || segment.seq > seq);
    }

    /// The last number that `epoch` has here: no host can have committed a later one.
    pub(super) fn last(&self, epoch: Id) -> Option<u64> {
        self.segments.iter().filter(|segment| segment.epoch.id == epoch).map(|segment| segment.seq).max()
    }

    /// Gives those of the provisional epoch the name it got.
    pub(super) fn name(&mut self, epoch: Epoch) {
        for segment in self.segments.iter_mut().filter(|segment| segment.epoch.id == Id::default()) {
            segment.epoch = epoch;
        }
    }

    /// A provisional epoch that ends without a name is credited to nobody; that too is counted.
    pub(super) fn discard_unnamed(&mut self) {
        let before = self.segments.len();
        self.segments.retain(|segment| segment.epoch.id != Id::default());
        let discarded = before - self.segments.len();
        self.dropped = self.dropped.saturating_add(u64::try_from(discarded).unwrap_or(u64::MAX));
    }

    /// All but those of `epoch` up to `seq`, oldest first.
    pub(super) fn after(&self, epoch: Id, seq: u64) -> Vec<Segment> {
        self.segments
            .iter()
            .filter(|segment| segment.epoch.id != epoch || segment.seq > seq)
            .copied()
            .collect()
    }

    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.segments.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::Rate;
    use crate::wire::message::{Boundary, Counters, EpochSource};

    fn segment(epoch: u8, seq: u64) -> Segment {
        let mut usage = Counters::default();
        usage.active.whole = seq;
        Segment {
            epoch: Epoch { id: Id([epoch; 16]), source: EpochSource::Host, number: u64::from(epoch) },
            seq,
            rate: Some(Rate::default()),
            boundary: Boundary::Event,
            usage,
        }
    }

    fn ring(segments: impl IntoIterator<Item = Segment>) -> Ring {
        let mut ring = Ring::default();
        segments.into_iter().for_each(|segment| ring.push(segment));
        ring
    }

    #[test]
    fn a_full_ring_merges_the_two_oldest_of_one_epoch() {
        let ring = ring([segment(1, 1)].into_iter().chain((1..=32).map(|seq| segment(2, seq))));
        let kept = ring.after(Id::default(), 0);
        assert_eq!((kept.len(), ring.dropped()), (32, 0));
        assert_eq!(kept[0], segment(1, 1));
        assert_eq!(kept[1], Segment { rate: None, ..segment(2, 2) }, "the later totals, mixed");
    }

    #[test]
    fn a_full_ring_without_a_pair_drops_the_oldest_and_counts_it() {
        let ring = ring((1..=33).map(|epoch| segment(epoch, 1)));
        assert_eq!((ring.after(Id::default(), 0)[0].epoch.number, ring.dropped()), (2, 1));
    }

    #[test]
    fn an_ack_frees_up_to_its_number_in_its_epoch_alone() {
        let mut ring = ring([segment(1, 5), segment(2, 3), segment(2, 4)]);
        ring.free(Id([2; 16]), 3);
        assert_eq!(ring.after(Id::default(), 0), [segment(1, 5), segment(2, 4)]);
        assert_eq!(ring.after(Id([1; 16]), 5), [segment(2, 4)]);
        assert_eq!((ring.last(Id([1; 16])), ring.last(Id([3; 16]))), (Some(5), None));
    }
}
