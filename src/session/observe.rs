//! One look at the kernel: which slice it closes, which epoch it ends, who is told.

use super::connection::Connection;
use super::epoch::{Lifecycle, Pending};
use super::signals::{Known, Noticed};
use super::{Action, Depth, Edge, Note, Seen, Session};
use crate::capacity::{Capacity, Memory, MemoryState, Precision};
use crate::meter::{self, Rate, Rule};
use crate::units::{Bytes, Nanos};
use crate::wire::message::{Boundary, Clock, Finding, Id, Reason, Signal};

impl Session {
    pub(super) fn observed(&mut self, now: Clock, capacity: Capacity, depth: Depth) -> Vec<Action> {
        let mut notes = Vec::new();
        let rate = self.rate(&capacity, &mut notes);
        let before = self.saved.meter.last().map(|(_, rate)| rate);
        let changed = before.is_some_and(|before| before != rate);
        let boundary =
            if std::mem::take(&mut self.hotplugged) { Boundary::Event } else { Boundary::Observation };
        self.first = self.seen.is_none();
        let plugged = capacity.memory.plugged;
        let resized = self.seen.as_ref().is_some_and(|seen| seen.capacity.memory.plugged != plugged);
        let moved = self.see(now.monotonic, capacity, rate);
        if resized || changed {
            self.changes = self.changes.wrapping_add(1);
        }

        let epoch_before = self.saved.epoch;
        let previous = self.saved.meter.last().map(|(at, _)| at);
        self.edge = Edge { previous, ..Edge::default() };
        let carried_out = self.count(now, rate, changed, depth, &mut notes);
        if changed && !self.edge.closed {
            self.push_segment(before, boundary);
        }
        if let Some(before) = before.filter(|_| changed) {
            notes.push(Note::Capacity { from: before, to: rate });
        }
        notes.extend(self.epoch_note(epoch_before));
        self.notify_after(now, depth);

        let mut replies = Vec::new();
        self.answer_all(now, depth, &mut replies);
        let waits = depth == Depth::Hot && moved && self.connections.values().any(Connection::waits);
        let told = |connection: &Connection| connection.tells_of_change(now.monotonic, self.changes);
        let watched = depth == Depth::Hot && self.connections.values().any(told);
        if waits || watched || (carried_out && depth == Depth::Hot) {
            replies.push(Action::Look(Depth::Full));
        }
        self.drive_notifier(now.monotonic, &mut replies);
        let mut actions: Vec<Action> = notes.into_iter().map(Action::Log).collect();
        actions.push(Action::Save);
        actions.append(&mut replies);
        actions
    }

    /// Closes the slice by what ends it: a noticed resume, then what hosts have asked for, else the look alone.
    /// Says whether any of the first two did.
    fn count(&mut self, now: Clock, rate: Rate, changed: bool, depth: Depth, notes: &mut Vec<Note>) -> bool {
        let rate_then = self.saved.meter.last().map(|(_, rate)| rate);
        let mut carried_out = false;
        if let Some(noticed) = self.noticed.take() {
            self.slice(now, rate, meter::Event::Resume, notes);
            self.open_noticed(now.monotonic, rate_then, noticed);
            carried_out = true;
        }
        // All that is carried out now ends one slice: a resume is in it also where another request came before.
        let mut ends = Some(self.lifecycle_event(depth));
        while let Some(Pending { from, request }) =
            self.lifecycle.pop_front_if(|pending| pending.request.depth() <= depth)
        {
            let event = ends.take().unwrap_or_else(|| self.request_event(&request));
            self.slice(now, rate, event, notes);
            let reply = match request {
                Lifecycle::Resume(resume) => self.resume(now, rate_then, resume),
                Lifecycle::Checkpoint(checkpoint) => self.checkpoint(now, rate, from, checkpoint),
            };
            self.carried_out(from, reply);
            carried_out = true;
        }
        if !carried_out {
            let event = match changed {
                _ if self.fresh => meter::Event::Start,
                true => meter::Event::Capacity,
                false => meter::Event::Tick,
            };
            self.slice(now, rate, event, notes);
        }
        self.fresh = false;
        carried_out
    }

    fn slice(&mut self, now: Clock, rate: Rate, event: meter::Event, notes: &mut Vec<Note>) {
        let rate_then = self.saved.meter.last().map(|(_, rate)| rate);
        let slice = self.saved.meter.observe(now.monotonic, rate, event);
        match slice.rule {
            Rule::Backwards => notes.push(Note::Backwards(slice)),
            Rule::HeldJump => {
                let latency = now.monotonic.saturating_sub(slice.from.unwrap_or(now.monotonic));
                let known = Known::at(now.monotonic);
                self.open_noticed(
                    now.monotonic,
                    rate_then,
                    Noticed { signal: Signal::Clock, known, latency },
                );
            }
            Rule::Capped if !self.first => self.find_and_ask(now.monotonic, Finding::ClockJump),
            _ => {}
        }
        if !slice.dropped.is_zero() && slice.rule != Rule::Backwards {
            notes.push(Note::Dropped(slice));
        }
    }

    /// What the host is to hear of this observation.
    fn notify_after(&mut self, now: Clock, depth: Depth) {
        let Some(memory) = self.seen.as_ref().map(|seen| &seen.capacity.memory) else { return };
        let rest = (memory.state, memory.plugged);
        let at_rest = matches!(memory.state, MemoryState::Settled | MemoryState::Short | MemoryState::Over);
        let asked = depth == Depth::Full && self.asking.is_some_and(|at| at <= now.monotonic);
        let noticed = self.edge.closed && self.saved.epoch.id == Id::default();
        if noticed {
            self.notify(now, Reason::Resume);
        } else if self.first {
            self.notify(now, Reason::Boot);
        } else if self.saved.settling.is_some()
            && at_rest
            && !self.edge.opened
            && self.told_at_rest != Some(rest)
        {
            self.notify(now, Reason::Settled);
        } else if asked {
            self.notify(now, Reason::Query);
        }
        if asked || noticed {
            self.asking = None;
        }
        if let Some(since) = self.saved.settling {
            let look_again = since.saturating_add(self.limits.resume_poll_for) > now.monotonic;
            let poll = if look_again { self.limits.resume_poll } else { self.tick };
            self.settle_look = now.monotonic.saturating_add(poll);
            // The answer to a resume rests on a first look: the one right behind it has the last word.
            let first_look = self.edge.opened && depth == Depth::Hot;
            if at_rest && !first_look {
                self.saved.settling = None;
            }
            self.told_at_rest = (at_rest && first_look).then_some(rest);
        }
    }

    /// Remembers an observation; says whether memory moved. Where `plugged` is exact, boot memory that is given back
    /// moves `MemTotal` alone; where it is not, `MemTotal` may be all that tells of a change.
    fn see(&mut self, at: Nanos, capacity: Capacity, rate: Rate) -> bool {
        let size = |memory: &Memory| {
            let total = memory.mem_total.filter(|_| memory.precision == Precision::Bounded);
            (memory.plugged, memory.lower, total)
        };
        let moved =
            self.seen.as_ref().is_none_or(|seen| size(&seen.capacity.memory) != size(&capacity.memory));
        let unchanged_since = match &self.seen {
            Some(seen) if !moved => seen.unchanged_since.min(at),
            _ => at,
        };
        self.seen = Some(Seen { at, capacity, rate, unchanged_since });
        moved
    }

    /// Unknown memory is counted by the best number there is, and said; never as zero without a word.
    fn rate(&self, capacity: &Capacity, notes: &mut Vec<Note>) -> Rate {
        let cpu = capacity.cpu.effective;
        if let Some(memory) = capacity.memory.total() {
            return Rate { memory, cpu };
        }
        let last = self.seen.as_ref().map(|seen| seen.rate.memory);
        let memory = capacity.memory.mem_total.or(last).unwrap_or(Bytes::ZERO);
        if last != Some(memory) {
            notes.push(Note::MemoryUnknown(memory));
        }
        Rate { memory, cpu }
    }
}
