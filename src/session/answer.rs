//! Requests in, answers out, in order.

use super::connection::{Connection, Owed, Watch};
use super::epoch::{Lifecycle, Pending, stated};
use super::settle::Settled;
use super::{Action, CloseCause, ConnectionId, Depth, Session};
use crate::units::Nanos;
use crate::wire::message::{
    Agent, Clock, Hello, Identity, Reason, Refusal, RefusalCode, Reply, Report, Request, Segments, Tail,
    Welcome,
};
use crate::wire::version;

impl Session {
    pub(super) fn connected(&mut self, now: Nanos, id: ConnectionId) -> Vec<Action> {
        if self.stopping {
            return vec![Action::Close { connection: id, cause: CloseCause::Shutdown }];
        }
        let mut actions = Vec::new();
        if self.connections.len() >= self.limits.connections {
            self.evict(&mut actions);
        }
        if self.connections.len() >= self.limits.connections {
            let text = format!("{} connections are open already", self.connections.len());
            let busy = Reply::Error(RefusalCode::Busy.because(text));
            return vec![
                Action::Send { to: id, reply: busy },
                Action::Close { connection: id, cause: CloseCause::Busy },
            ];
        }
        self.connections.insert(id, Connection::new(now));
        actions
    }

    /// A connection that was open across a pause may be dead without a sign: one that was not used since makes room.
    fn evict(&mut self, actions: &mut Vec<Action>) {
        let Some(resumed) = self.saved.resume.map(|resume| resume.detected) else { return };
        let unused = self.connections.iter().find(|(_, connection)| connection.active_at < resumed);
        if let Some((id, _)) = unused {
            self.connections.remove(id);
            actions.push(Action::Close { connection: id, cause: CloseCause::Idle });
        }
    }

    pub(super) fn requested(&mut self, now: Clock, from: ConnectionId, request: Request) -> Vec<Action> {
        let Some(connection) = self.connections.get(from) else { return Vec::new() };
        let mut actions = Vec::new();
        let owed = match request {
            Request::Hello(hello) => negotiated(hello),
            _ if connection.version.is_none() => Owed::Ready(Reply::Error(
                RefusalCode::Handshake.because("the first message on a connection must be Hello"),
            )),
            Request::Read => Owed::Report,
            Request::Watch(watch) => Owed::Watch {
                interval: watch
                    .interval
                    .clamp(self.limits.watch_interval_min, self.limits.watch_interval_max),
            },
            Request::WaitSettled(wait) => Owed::Settled(self.wait(now.monotonic, wait)),
            Request::Resume(resume) => {
                if self.would_open(&resume) {
                    actions.push(Action::Resumed(stated(&resume)));
                }
                self.queue(from, Lifecycle::Resume(resume))
            }
            Request::Checkpoint(checkpoint) => self.queue(from, Lifecycle::Checkpoint(checkpoint)),
            Request::Ack(ack) => {
                let reply = self.ack(ack);
                if matches!(reply, Reply::Acked(_)) {
                    self.heard(now.monotonic, ack.epoch, ack.seq);
                    // The ack holds whether or not its answer arrives.
                    actions.push(Action::Save);
                    self.drive_notifier(now.monotonic, &mut actions);
                }
                Owed::Ready(reply)
            }
            Request::Segments(after) => {
                let segments = self.saved.segments.after(after.epoch, after.seq);
                let (epoch, seq) = (self.saved.epoch.id, self.saved.seq);
                if segments.iter().any(|segment| segment.epoch.id == epoch && segment.seq > seq) {
                    // What is given out has its number for good: an ack of it frees nothing that comes later.
                    self.saved.seq = seq.saturating_add(1);
                    actions.push(Action::Save);
                }
                Owed::Ready(Reply::Segments(Segments { segments, more: false }))
            }
        };
        actions.append(&mut self.owe(now, from, owed));
        actions
    }

    /// Limited by what its connection may be owed.
    fn queue(&mut self, from: ConnectionId, request: Lifecycle) -> Owed {
        self.lifecycle.push_back(Pending { from, request });
        Owed::Lifecycle
    }

    /// The answer to the first request of `id` that waited for the look.
    pub(super) fn carried_out(&mut self, id: ConnectionId, reply: Reply) {
        let owed = self.connections.get_mut(id).map(|connection| &mut connection.owed);
        if let Some(waiting) =
            owed.and_then(|owed| owed.iter_mut().find(|owed| matches!(owed, Owed::Lifecycle)))
        {
            *waiting = Owed::Ready(reply);
        }
    }

    pub(super) fn unserved(&mut self, now: Clock, from: ConnectionId, refusal: Refusal) -> Vec<Action> {
        self.owe(now, from, Owed::Ready(Reply::Error(refusal)))
    }

    /// Answers what waited for a look, now that there was one.
    pub(super) fn answer_all(&mut self, now: Clock, depth: Depth, actions: &mut Vec<Action>) {
        let full = depth == Depth::Full;
        for id in self.connections.ids() {
            self.answer(now, id, full, actions);
            if full {
                self.watch_report(now, id, actions);
            }
            self.close_if_over(id, actions);
            if full && self.stopping {
                self.say_goodbye(now, id, actions);
            } else if self.edge.checkpointed && self.saved.meter.held() {
                self.close_for_hold(id, actions);
            }
        }
    }

    /// What is open when the VM is paused is in its snapshot. The asker may still ack; it is to close then.
    fn close_for_hold(&mut self, id: ConnectionId, actions: &mut Vec<Action>) {
        if let Some(asker) = self.connections.get_mut(id).filter(|connection| connection.checkpointed) {
            asker.checkpointed = false;
            asker.watch = None;
            return;
        }
        if self.connections.remove(id).is_some() {
            actions.push(Action::Close { connection: id, cause: CloseCause::Held });
        }
    }

    fn owe(&mut self, now: Clock, id: ConnectionId, owed: Owed) -> Vec<Action> {
        let limit = self.limits.owed;
        let Some(connection) = self.connections.get_mut(id) else { return Vec::new() };
        if connection.owed.len() >= limit {
            self.connections.remove(id);
            return vec![Action::Close { connection: id, cause: CloseCause::Unanswered }];
        }
        connection.active_at = now.monotonic;
        if let Owed::Welcome(_, version) = &owed {
            connection.version = Some(*version);
        }
        connection.owed.push_back(owed);
        let mut actions = Vec::new();
        self.answer(now, id, false, &mut actions);
        actions.extend(self.needed(id).map(Action::Look));
        actions
    }

    /// How closely has to be looked for what is owed.
    fn needed(&self, id: ConnectionId) -> Option<Depth> {
        let owed = &self.connections.get(id)?.owed;
        let depth = |owed: &Owed| match owed {
            Owed::Welcome(..) => Some(Depth::Hot),
            Owed::Lifecycle => {
                let asked = self.lifecycle.iter().filter(|pending| pending.from == id);
                asked.map(|pending| pending.request.depth()).max()
            }
            Owed::Ready(_) | Owed::Incompatible(_) => None,
            Owed::Report | Owed::Watch { .. } | Owed::Settled(_) => Some(Depth::Full),
        };
        owed.iter().filter_map(depth).max()
    }

    /// Sends what can be sent, in order; without a full look only what needs none.
    fn answer(&mut self, now: Clock, id: ConnectionId, looked: bool, actions: &mut Vec<Action>) {
        while let Some(owed) = self.connections.get_mut(id).and_then(|connection| connection.owed.pop_front())
        {
            let reply = match owed {
                // The epoch is about to be another one.
                owed @ (Owed::Lifecycle | Owed::Welcome(..)) if self.is_pending(&owed) => {
                    return self.put_back(id, owed);
                }
                Owed::Lifecycle => continue,
                Owed::Welcome(hello, version) => Reply::Welcome(self.welcome(hello, version)),
                Owed::Ready(reply) => reply,
                Owed::Incompatible(refusal) => {
                    self.connections.remove(id);
                    actions.push(Action::Send { to: id, reply: Reply::Error(refusal) });
                    actions.push(Action::Close { connection: id, cause: CloseCause::Version });
                    return;
                }
                owed if !looked => return self.put_back(id, owed),
                Owed::Report => self.report(now, Reason::Query),
                Owed::Watch { .. } | Owed::Settled(_) if self.saved.meter.held() => {
                    let text = "a checkpoint holds the count for a pause: ask again after the resume";
                    Reply::Error(RefusalCode::Busy.because(text))
                }
                Owed::Watch { interval } => {
                    self.start_watch(now.monotonic, id, interval);
                    self.report(now, Reason::Query)
                }
                Owed::Settled(wait) => match self.settled(now.monotonic, wait) {
                    Settled::Yes => self.report(now, Reason::Settled),
                    Settled::TooLate(refusal) => Reply::Error(refusal),
                    Settled::NotYet(wait) => return self.put_back(id, Owed::Settled(wait)),
                },
            };
            if let Some(connection) = self.connections.get_mut(id) {
                connection.active_at = now.monotonic;
            }
            actions.push(Action::Send { to: id, reply });
        }
    }

    fn is_pending(&self, owed: &Owed) -> bool {
        self.noticed.is_some() || (matches!(owed, Owed::Lifecycle) && !self.lifecycle.is_empty())
    }

    fn put_back(&mut self, id: ConnectionId, owed: Owed) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.owed.push_front(owed);
        }
    }

    fn start_watch(&mut self, now: Nanos, id: ConnectionId, interval: Nanos) {
        let due = now.saturating_add(interval);
        let watch = Watch { interval, due, change_from: now, changes: self.changes };
        if let Some(connection) = self.connections.get_mut(id) {
            connection.watch = Some(watch);
        }
    }

    fn watch_report(&mut self, now: Clock, id: ConnectionId, actions: &mut Vec<Action>) {
        let Some(watch) = self.connections.get(id).and_then(|connection| connection.watch) else { return };
        if now.monotonic < watch.next(self.changes) {
            return;
        }
        let changed = watch.changes != self.changes;
        let next = now.monotonic.saturating_add(watch.interval);
        // What is due in any case is no reason to let the next change wait.
        let change_from = if now.monotonic < watch.due { next } else { watch.change_from };
        let reason = if changed { Reason::Capacity } else { Reason::Query };
        if let Some(connection) = self.connections.get_mut(id) {
            connection.watch = Some(Watch { due: next, change_from, changes: self.changes, ..watch });
        }
        actions.push(Action::Send { to: id, reply: self.report(now, reason) });
    }

    /// A peer that has closed its half still gets its answers; the host's end of a notification has heard enough.
    pub(super) fn ended(&mut self, now: Clock, id: ConnectionId) -> Vec<Action> {
        let close = Action::Close { connection: id, cause: CloseCause::Ended };
        if self.notifier.owns(id) {
            let mut actions = self.closed(now.monotonic, id, false);
            actions.push(close);
            return actions;
        }
        let Some(connection) = self.connections.get_mut(id) else { return Vec::new() };
        connection.ended = true;
        let mut actions = Vec::new();
        self.close_if_over(id, &mut actions);
        actions
    }

    fn close_if_over(&mut self, id: ConnectionId, actions: &mut Vec<Action>) {
        if self.connections.get(id).is_some_and(Connection::is_over) {
            self.connections.remove(id);
            actions.push(Action::Close { connection: id, cause: CloseCause::Ended });
        }
    }

    /// The last words on a connection: what is owed, a watcher's last report, the end.
    fn say_goodbye(&mut self, now: Clock, id: ConnectionId, actions: &mut Vec<Action>) {
        while self.connections.get(id).is_some_and(Connection::waits) {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.owed.pop_front();
            }
            let text = "the agent stops before memory settled";
            let reply = Reply::Error(RefusalCode::Internal.because(text));
            actions.push(Action::Send { to: id, reply });
            self.answer(now, id, true, actions);
        }
        if self.connections.get(id).is_some_and(|connection| connection.watch.is_some()) {
            actions.push(Action::Send { to: id, reply: self.report(now, Reason::Shutdown) });
        }
        if self.connections.remove(id).is_some() {
            actions.push(Action::Close { connection: id, cause: CloseCause::Shutdown });
        }
    }

    fn welcome(&self, hello: Hello, version: u16) -> Welcome {
        Welcome {
            agent: Agent { protocol: version, ..self.myself.agent.clone() },
            boot_id: self.myself.boot_id,
            sandbox: self.saved.sandbox.clone(),
            epoch: self.saved.epoch,
            seq: self.saved.seq,
            nonce: hello.nonce,
        }
    }

    /// The next report. Before the first observation there is nothing to report.
    pub(super) fn report(&mut self, now: Clock, reason: Reason) -> Reply {
        let Some(seen) = &self.seen else {
            let text = "nothing was observed yet".to_owned();
            return Reply::Error(RefusalCode::Internal.because(text));
        };
        self.saved.seq = self.saved.seq.saturating_add(1);
        Reply::Report(Box::new(Report {
            identity: Identity {
                boot_id: self.myself.boot_id,
                sandbox: self.saved.sandbox.clone(),
                epoch: self.saved.epoch,
                instance: self.saved.instance,
                seq: self.saved.seq,
            },
            reason,
            clock: now,
            memory: seen.capacity.memory.clone(),
            cpu: seen.capacity.cpu.clone(),
            usage: *self.saved.meter.usage(),
            base: self.saved.base,
            resume: self.saved.resume,
            tail: Tail {
                held: self.saved.meter.held(),
                findings: self.saved.findings.clone(),
                segments_waiting: self.saved.segments.len(),
                segments_dropped: self.saved.segments.dropped(),
                garbage_bytes: self.saved.garbage_bytes,
            },
        }))
    }
}

fn negotiated(hello: Hello) -> Owed {
    match version::negotiate(hello.version_min, hello.version_max) {
        Some(version) => Owed::Welcome(hello, version),
        None => {
            let text = format!(
                "this agent speaks protocol versions {} to {}, the host {} to {}",
                version::MIN,
                version::CURRENT,
                hello.version_min,
                hello.version_max
            );
            Owed::Incompatible(RefusalCode::Version.because(text))
        }
    }
}
