//! Who else asks: a second worker, and those who ask what no correct host would.

use super::channel::ToGuest;
use super::conversation::Question;
use super::host::OTHER;
use super::world::{World, tell};
use crate::units::Nanos;
use crate::wire::message::{Ack, Checkpoint, Hello, Id, Request, Resume, SegmentsAfter};

impl World {
    /// A second worker asks too, or watches.
    pub(super) fn second_worker(&mut self, index: usize) {
        let question = if self.random.once_in(3) { Question::Watch } else { Question::Read };
        self.ask(index, OTHER, question);
    }

    /// Requests that no correct host would make now.
    pub(super) fn stranger(&mut self, index: usize) {
        let Some(vm) = self.accounts.get(index).map(|account| account.vm) else { return };
        let Some(request) = self.strange_request(index) else { return };
        let connection = self.connect(vm, None);
        self.send_guest(connection, ToGuest::Open);
        if !self.random.once_in(8) {
            let hello = Hello { version_min: 1, version_max: 1, nonce: 0 };
            self.send_guest(connection, ToGuest::Request(Request::Hello(hello)));
        }
        tell!(self, "a stranger → vm {vm}: {request:?}");
        self.send_guest(connection, ToGuest::Request(request));
        // Half of them never hang up, as a peer that stopped in mid-frame.
        if self.random.once_in(2) {
            self.send_guest(connection, ToGuest::Close { reset: false });
        } else {
            self.disturb(index);
        }
    }

    fn strange_request(&mut self, index: usize) -> Option<Request> {
        let unknown = self.random.id();
        let kind = self.random.below(7);
        let account = self.accounts.get_mut(index)?;
        let current = account.books.rows.last().filter(|row| row.confirmed)?.epoch;
        let older = account.books.rows.iter().rev().nth(1).map_or(current, |row| row.epoch);
        let seq = u64::MAX / 2;
        Some(match kind {
            0 => Request::Ack(Ack { epoch: Id::default(), seq: 1 }),
            1 => Request::Ack(Ack { epoch: unknown, seq: 1 }),
            2 => Request::Ack(Ack { epoch: current.id, seq }),
            3 => Request::Checkpoint(Checkpoint { epoch: unknown, number: current.number + 1 }),
            4 if older != current => {
                Request::Checkpoint(Checkpoint { epoch: older.id, number: older.number })
            }
            5 => Request::Resume(Resume {
                epoch: unknown,
                number: current.number.saturating_sub(1),
                paused: true,
                sandbox: "stranger".to_owned(),
                at: Nanos::ZERO,
                mark: None,
                requested: None,
                boot: None,
            }),
            _ => Request::Segments(SegmentsAfter { epoch: unknown, seq }),
        })
    }
}
