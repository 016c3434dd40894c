//! What the worker says to an agent, and what it makes of the answers.

use super::account::Evidence;
use super::channel::{ToGuest, ToHost, short};
use super::faults::Fault;
use super::guest::{BEGIN, SECOND};
use super::host::{CALL, Call, POLL};
use super::law::Breach;
use super::shadow::Reach;
use super::world::{What, World, tell};
use crate::units::Nanos;
use crate::wire::message::{
    Ack, Checkpoint, Hello, Reason, Refusal, RefusalCode, Reply, Report, Request, Resume, Segments,
    SegmentsAfter, Watch,
};

/// How long an answer is waited for.
const ANSWER: u64 = 2 * SECOND;
/// How long an agent that knows no epochs is left alone.
const UNSUPPORTED: u64 = 30 * SECOND;

/// What a connection of the host waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Read,
    Resume(usize),
    Checkpoint(usize),
    Segments,
    Watch,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Link {
    pub(super) connection: Option<u64>,
    pub(super) nonce: u64,
    pub(super) question: Option<Question>,
    pub(super) opened: u64,
    pub(super) asked: u64,
    pub(super) token: u64,
}

impl World {
    /// Asks on one of the host's connections; opens it first, with `Hello` and the question in one write.
    pub(super) fn ask(&mut self, index: usize, slot: usize, question: Question) {
        let now = self.now;
        let nonce = self.random.below(u64::MAX);
        let Some(account) = self.accounts.get(index) else { return };
        let vm = account.vm;
        let known = account.links.get(slot).and_then(|link| link.connection);
        let connection = match known {
            Some(connection) => connection,
            None => {
                let connection = self.connect(vm, Some((index, slot)));
                self.send_guest(connection, ToGuest::Open);
                let hello = Hello { version_min: 1, version_max: 1, nonce };
                self.send_guest(connection, ToGuest::Request(Request::Hello(hello)));
                connection
            }
        };
        let Some(request) = self.request(index, question) else { return };
        tell!(self, "sandbox-{index} → vm {vm}: {}", short(&ToGuest::Request(request.clone())));
        self.send_guest(connection, ToGuest::Request(request));
        let Some(link) = self.accounts.get_mut(index).and_then(|it| it.links.get_mut(slot)) else { return };
        if known.is_none() {
            link.nonce = nonce;
            link.opened = now;
        }
        link.connection = Some(connection);
        link.question = Some(question);
        link.asked = now;
        link.token += 1;
        let token = link.token;
        self.after(ANSWER, What::Timeout { account: index, slot, token });
    }

    fn request(&mut self, index: usize, question: Question) -> Option<Request> {
        let at = Nanos(BEGIN.saturating_add(self.now));
        let account = self.accounts.get_mut(index)?;
        let requested = self.vms.get(account.vm).map(|vm| vm.guest.memory.requested);
        Some(match question {
            Question::Read => Request::Read,
            Question::Watch => Request::Watch(Watch { interval: Nanos(SECOND) }),
            Question::Resume(row) => {
                let mark = match &self.desk {
                    Some(desk) => account.boot_id.and_then(|boot| desk.mark(index, boot)),
                    None => account.books.mark(row, account.boot_id),
                };
                let row = account.books.row(row)?;
                Request::Resume(Resume {
                    epoch: row.epoch.id,
                    number: row.epoch.number,
                    paused: row.paused,
                    sandbox: account.name.clone(),
                    at,
                    mark,
                    requested,
                    boot: None,
                })
            }
            Question::Checkpoint(row) => {
                let epoch = account.books.row(row)?.epoch;
                Request::Checkpoint(Checkpoint { epoch: epoch.id, number: epoch.number })
            }
            Question::Segments => {
                let row = account.books.rows.last()?;
                Request::Segments(SegmentsAfter { epoch: row.epoch.id, seq: row.seq })
            }
        })
    }

    /// No answer in time: another connection is tried.
    pub(super) fn timed_out(&mut self, index: usize, slot: usize, token: u64) {
        let link = self.accounts.get(index).and_then(|account| account.links.get(slot));
        let Some(link) = link.filter(|link| link.token == token && link.question.is_some()) else { return };
        tell!(self, "sandbox-{index}: no answer to {:?}", link.question);
        if slot == POLL {
            self.unheard(index);
        }
        self.failed(index, slot);
    }

    fn failed(&mut self, index: usize, slot: usize) {
        self.hang_up(index, slot);
        if slot == CALL {
            self.retry(index);
        }
    }

    pub(super) fn hang_up(&mut self, index: usize, slot: usize) {
        let Some(link) = self.accounts.get_mut(index).and_then(|it| it.links.get_mut(slot)) else { return };
        link.question = None;
        link.token += 1;
        let Some(id) = link.connection.take() else { return };
        // Now and then the guest does not hear of it.
        let silent = self.settings.faults.has(Fault::Connections) && self.random.once_in(8);
        if silent {
            self.disturb(index);
        } else {
            self.send_guest(id, ToGuest::Close { reset: false });
        }
        if let Some(connection) = self.connection(id) {
            connection.host = None;
        }
    }

    pub(super) fn reaches_host(&mut self, id: u64, body: ToHost) -> Result<(), Breach> {
        let Some(connection) = self.connection(id).copied() else { return Ok(()) };
        if let ToHost::Reply { reply, .. } = &body {
            self.over_the_wire(reply)?;
            if let Reply::Notify(_) = reply.as_ref() {
                self.notified(connection.vm);
                return Ok(());
            }
        }
        #[cfg(test)]
        if let (None, ToHost::Reply { reply, .. }) = (connection.host, &body) {
            self.overheard.push(reply.as_ref().clone());
        }
        let Some((index, slot)) = connection.host else { return Ok(()) };
        if self.accounts.get(index).is_some_and(|account| self.now < account.down_until) {
            return Ok(());
        }
        match body {
            ToHost::Refused | ToHost::Closed => {
                if let Some(connection) = self.connection(id) {
                    connection.host = None;
                }
                let link = self.accounts.get_mut(index).and_then(|it| it.links.get_mut(slot));
                if let Some(link) = link.filter(|link| link.connection == Some(id)) {
                    link.connection = None;
                    if link.question.is_some() {
                        self.failed(index, slot);
                    }
                }
                Ok(())
            }
            ToHost::Reply { reply, reach, closed } => match *reply {
                Reply::Welcome(welcome) => {
                    if let Some(account) = self.accounts.get_mut(index)
                        && account.links.get(slot).is_some_and(|link| link.nonce == welcome.nonce)
                    {
                        account.boot_id = Some(welcome.boot_id);
                    }
                    Ok(())
                }
                Reply::Report(report) => self.reported(index, slot, id, &report, reach),
                Reply::Segments(segments) => self.segments(index, slot, &segments, &closed),
                Reply::Error(refusal) => {
                    self.refused(index, slot, &refusal);
                    Ok(())
                }
                Reply::Acked(_) | Reply::Notify(_) => Ok(()),
            },
        }
    }

    /// A guest has spoken first: a hint to look, never evidence.
    fn notified(&mut self, vm: usize) {
        let Some(index) = self.vms.get(vm).map(|vm| vm.account) else { return };
        tell!(self, "sandbox-{index}: vm {vm} notifies");
        let Some(account) = self.accounts.get(index) else { return };
        let free = account.links.get(POLL).is_some_and(|link| link.question.is_none());
        if account.running && account.vm == vm && free && self.now >= account.down_until {
            self.ask(index, POLL, Question::Read);
        }
    }

    fn reported(
        &mut self,
        index: usize,
        slot: usize,
        connection: u64,
        report: &Report,
        reach: Reach,
    ) -> Result<(), Breach> {
        let Some(vm) = self.connection(connection).map(|connection| connection.vm) else { return Ok(()) };
        self.sync(vm);
        let restores = self.vms.get(vm).map_or(0, |vm| vm.guest.restores);
        let now = self.now;
        let Some(account) = self.accounts.get_mut(index) else { return Ok(()) };
        let Some(link) = account.links.get(slot) else { return Ok(()) };
        let question = link.question;
        // Where messages get lost, nobody knows which request this answers.
        let sent = if account.is_troubled(now) { link.opened } else { link.asked };
        account.boot_id = Some(report.identity.boot_id);
        let evidence = Evidence { report, reach, sent, received: now, vm, restores };
        let verdict = account.books.report(&evidence)?;
        let asked = (question != Some(Question::Watch)).then_some(sent);
        let word = self.word(index, report, asked, verdict);
        let id = report.identity.epoch.id;
        tell!(
            self,
            "sandbox-{index}: report {} of epoch {} ({:?}), {} s active: {verdict:?}",
            report.identity.seq,
            report.identity.epoch.number,
            report.reason,
            report.usage.active.whole
        );
        if word.ack {
            self.send_guest(
                connection,
                ToGuest::Request(Request::Ack(Ack { epoch: id, seq: report.identity.seq })),
            );
        }
        let Some(account) = self.accounts.get(index) else { return Ok(()) };
        let asked = |row: usize| account.books.row(row).is_some_and(|row| row.epoch.id == id);
        let answered = match question {
            Some(Question::Resume(row)) => asked(row),
            Some(Question::Checkpoint(row)) => asked(row) && report.reason == Reason::Checkpoint,
            Some(Question::Read | Question::Watch) => true,
            Some(Question::Segments) | None => false,
        };
        if !answered {
            return Ok(());
        }
        let current = account.books.current().is_some_and(asked);
        if report.tail.segments_waiting > 0 && current && question != Some(Question::Watch) {
            self.ask(index, slot, Question::Segments);
        } else {
            self.answered(index, slot);
        }
        let waiting = report.tail.segments_waiting > 0;
        if let Some(account) = self.accounts.get_mut(index)
            && current
            && !waiting
        {
            account.well_at = now;
        }
        match question {
            Some(Question::Resume(row)) => self.named(index, row),
            Some(Question::Checkpoint(_)) => self.checkpointed(index),
            _ if word.name => self.unnamed(index),
            _ => {}
        }
        Ok(())
    }

    fn asks(&self, index: usize, slot: usize, question: Question) -> bool {
        let link = self.accounts.get(index).and_then(|account| account.links.get(slot));
        link.is_some_and(|link| link.question == Some(question))
    }

    /// The question has its answer.
    fn answered(&mut self, index: usize, slot: usize) {
        if let Some(link) = self.accounts.get_mut(index).and_then(|it| it.links.get_mut(slot)) {
            link.question = link.question.filter(|question| *question == Question::Watch);
            link.token += 1;
        }
    }

    fn named(&mut self, index: usize, row: usize) {
        let Some(account) = self.accounts.get_mut(index) else { return };
        account.well_at = 0;
        match account.call {
            Some(Call::Resume(called)) if called == row => {
                account.call = None;
                account.call_token += 1;
                self.close_soon(index);
            }
            // Named: now the checkpoint itself.
            Some(Call::Checkpoint(called)) if called == row => self.call_now(index),
            _ => {}
        }
    }

    /// A call's connection goes once its segments are in.
    fn close_soon(&mut self, index: usize) {
        let busy = self
            .accounts
            .get(index)
            .and_then(|it| it.links.get(CALL))
            .is_some_and(|it| it.question.is_some());
        if !busy {
            self.hang_up(index, CALL);
        }
    }

    fn checkpointed(&mut self, index: usize) {
        let Some(account) = self.accounts.get_mut(index) else { return };
        if matches!(account.call, Some(Call::Checkpoint(_))) {
            account.call = None;
            account.call_token += 1;
            self.checkpoint_answered(index);
        }
    }

    /// What runs there has no name of ours, and no call is about to give it one.
    fn unnamed(&mut self, index: usize) {
        let Some(account) = self.accounts.get(index) else { return };
        if account.call.is_some() || !account.running || self.now < account.left_alone_until {
            return;
        }
        let unconfirmed = account.books.rows.last().is_some_and(|row| !row.confirmed);
        let row = if unconfirmed { account.books.current() } else { self.mint_on(index) };
        if let Some(row) = row {
            self.call(index, Call::Resume(row));
        }
    }

    fn segments(
        &mut self,
        index: usize,
        slot: usize,
        segments: &Segments,
        closed: &[Reach],
    ) -> Result<(), Breach> {
        let now = self.now;
        let Some(account) = self.accounts.get_mut(index) else { return Ok(()) };
        let mut acks: Vec<Ack> = Vec::new();
        if let Some(desk) = &mut self.desk {
            desk.delivers(index, segments, now);
        }
        for segment in &segments.segments {
            account.books.segment(segment, closed, now)?;
            let ack = Ack { epoch: segment.epoch.id, seq: segment.seq };
            acks.retain(|other| other.epoch != ack.epoch);
            acks.push(ack);
        }
        let connection = account.links.get(slot).and_then(|link| link.connection);
        tell!(
            self,
            "sandbox-{index}: segments {:?}",
            segments
                .segments
                .iter()
                .map(|it| (it.epoch.number, it.seq, it.usage.active.total()))
                .collect::<Vec<_>>()
        );
        if let Some(connection) = connection {
            for ack in acks {
                self.send_guest(connection, ToGuest::Request(Request::Ack(ack)));
            }
        }
        if self.asks(index, slot, Question::Segments) {
            self.answered(index, slot);
        }
        if slot == CALL && self.accounts.get(index).is_some_and(|account| account.call.is_none()) {
            self.hang_up(index, CALL);
        }
        Ok(())
    }

    fn refused(&mut self, index: usize, slot: usize, refusal: &Refusal) {
        tell!(self, "sandbox-{index}: refused ({:?}): {}", refusal.code, refusal.text);
        let now = self.now;
        let Some(account) = self.accounts.get_mut(index) else { return };
        let Some(link) = account.links.get(slot) else { return };
        match (link.question, refusal.code) {
            (Some(Question::Resume(_) | Question::Checkpoint(_)), RefusalCode::Unsupported) => {
                account.left_alone_until = now.saturating_add(UNSUPPORTED);
                if let Some(row) = account.books.rows.last_mut() {
                    row.unsupported = true;
                }
                let checkpoint = matches!(account.call, Some(Call::Checkpoint(_)));
                self.drop_call(index);
                if checkpoint {
                    self.checkpoint_answered(index);
                }
            }
            // Another life was named meanwhile, or this one is not what it was: it gets a new name.
            (
                Some(Question::Resume(_) | Question::Checkpoint(_)),
                RefusalCode::StaleEpoch | RefusalCode::UnknownEpoch,
            ) => {
                let call = account.call;
                if let (Some(call), Some(row)) = (call, self.mint_on(index)) {
                    self.call(
                        index,
                        match call {
                            Call::Resume(_) => Call::Resume(row),
                            Call::Checkpoint(_) => Call::Checkpoint(row),
                        },
                    );
                }
            }
            (Some(_), RefusalCode::Busy | RefusalCode::Handshake | RefusalCode::Internal) => {
                self.failed(index, slot);
            }
            (Some(Question::Segments), _) => self.answered(index, slot),
            _ => {}
        }
    }
}
