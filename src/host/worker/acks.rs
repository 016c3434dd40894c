//! What is to be acknowledged to one guest: the latest report of its epoch, and what it keeps of earlier ones. Pure.

use crate::wire::message::{Ack, Id};

/// Epochs of one guest that are remembered; what is forgotten, the guest tells again.
const EPOCHS_MAX: usize = 64;

/// One an epoch, in the order in which they came up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::host) struct Acks(Vec<Ack>);

impl Acks {
    /// Of one epoch the latest holds for all before it.
    pub(in crate::host) fn add(&mut self, ack: Ack) {
        match self.0.iter_mut().find(|one| one.epoch == ack.epoch) {
            Some(one) => one.seq = one.seq.max(ack.seq),
            None => {
                if self.0.len() >= EPOCHS_MAX {
                    self.0.remove(0);
                }
                // Whoever has no name yet takes no ack.
                if ack.epoch != Id::default() {
                    self.0.push(ack);
                }
            }
        }
    }

    pub(super) fn extend(&mut self, acks: impl IntoIterator<Item = Ack>) {
        acks.into_iter().for_each(|ack| self.add(ack));
    }

    /// The next one to be sent; it stays until it is done.
    pub(super) fn first(&self) -> Option<Ack> {
        self.0.first().copied()
    }

    /// It was sent, or the guest has nothing that it would free.
    pub(super) fn done(&mut self, ack: Ack) {
        self.0.retain(|one| *one != ack);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(in crate::host) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl IntoIterator for Acks {
    type Item = Ack;
    type IntoIter = std::vec::IntoIter<Ack>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(epoch: u8, seq: u64) -> Ack {
        Ack { epoch: Id([epoch; 16]), seq }
    }

    #[test]
    fn of_each_epoch_the_latest_is_sent_once() {
        let mut acks = Acks::default();
        acks.extend([ack(1, 5), ack(2, 1), ack(1, 7), ack(1, 6), ack(0, 9)]);
        assert_eq!(acks.clone().into_iter().collect::<Vec<_>>(), [ack(1, 7), ack(2, 1)]);
        while let Some(first) = acks.first() {
            acks.done(first);
        }
        assert!(acks.is_empty());
    }

    #[test]
    fn a_guest_of_many_epochs_fills_no_memory() {
        let mut acks = Acks::default();
        acks.extend((1..=255).map(|epoch| ack(epoch, 1)));
        assert_eq!((acks.0.len(), acks.0[63]), (EPOCHS_MAX, ack(255, 1)));
    }
}
