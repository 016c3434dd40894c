//! Requests in, answers out, in order.

use super::connection::{Connection, Owed, Watch};
use super::settle::Settled;
use super::{Action, CloseCause, ConnectionId, Depth, Session};
use crate::units::Nanos;
use crate::wire::message::{
    Agent, Clock, Hello, Identity, Reason, Refusal, RefusalCode, Reply, Report, Request, Welcome,
};
use crate::wire::version;

impl Session {
    pub(super) fn connected(&mut self, now: Nanos, id: ConnectionId) -> Vec<Action> {
        if self.stopping {
            return vec![Action::Close { connection: id, cause: CloseCause::Shutdown }];
        }
        if self.connections.len() >= self.limits.connections {
            let text = format!("{} connections are open already", self.connections.len());
            let busy = Reply::Error(Refusal { code: RefusalCode::Busy, text });
            return vec![
                Action::Send { to: id, reply: busy },
                Action::Close { connection: id, cause: CloseCause::Busy },
            ];
        }
        self.connections.insert(id, Connection::new(now));
        Vec::new()
    }

    pub(super) fn requested(&mut self, now: Clock, from: ConnectionId, request: Request) -> Vec<Action> {
        let Some(connection) = self.connections.get(from) else { return Vec::new() };
        let owed = match request {
            Request::Hello(hello) => self.welcome(hello),
            _ if connection.version.is_none() => Owed::Refusal(Refusal {
                code: RefusalCode::Handshake,
                text: "the first message on a connection must be Hello".to_owned(),
            }),
            Request::Read => Owed::Report,
            Request::Watch(watch) => Owed::Watch {
                interval: watch
                    .interval
                    .clamp(self.limits.watch_interval_min, self.limits.watch_interval_max),
            },
            Request::WaitSettled(wait) => Owed::Settled(self.wait(now.monotonic, wait)),
            Request::Resume(_) => unsupported("Resume"),
            Request::Checkpoint(_) => unsupported("Checkpoint"),
            Request::Ack(_) => unsupported("Ack"),
            Request::Segments(_) => unsupported("Segments"),
        };
        self.owe(now, from, owed)
    }

    pub(super) fn unserved(&mut self, now: Clock, from: ConnectionId, refusal: Refusal) -> Vec<Action> {
        self.owe(now, from, Owed::Refusal(refusal))
    }

    /// Answers what waits for a full look, now that there was one.
    pub(super) fn answer_all(&mut self, now: Clock, actions: &mut Vec<Action>) {
        for id in self.connections.ids() {
            self.answer(now, id, true, actions);
            self.watch_report(now, id, actions);
            if self.stopping {
                self.say_goodbye(now, id, actions);
            }
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
        if let Owed::Welcome(welcome) = &owed {
            connection.version = Some(welcome.agent.protocol);
        }
        connection.owed.push_back(owed);
        let mut actions = Vec::new();
        self.answer(now, id, false, &mut actions);
        if self.connections.get(id).is_some_and(|connection| !connection.owed.is_empty()) {
            actions.push(Action::Look(Depth::Full));
        }
        actions
    }

    /// Sends what can be sent, in order; without a full look only what needs none.
    fn answer(&mut self, now: Clock, id: ConnectionId, looked: bool, actions: &mut Vec<Action>) {
        while let Some(owed) = self.connections.get_mut(id).and_then(|connection| connection.owed.pop_front())
        {
            let reply = match owed {
                Owed::Welcome(welcome) => Reply::Welcome(welcome),
                Owed::Refusal(refusal) => Reply::Error(refusal),
                Owed::Incompatible(refusal) => {
                    self.connections.remove(id);
                    actions.push(Action::Send { to: id, reply: Reply::Error(refusal) });
                    actions.push(Action::Close { connection: id, cause: CloseCause::Version });
                    return;
                }
                owed if !looked => return self.put_back(id, owed),
                Owed::Report => self.report(now, Reason::Query),
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

    fn put_back(&mut self, id: ConnectionId, owed: Owed) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.owed.push_front(owed);
        }
    }

    fn start_watch(&mut self, now: Nanos, id: ConnectionId, interval: Nanos) {
        let watch = Watch { interval, due: now.saturating_add(interval), changes: self.changes };
        if let Some(connection) = self.connections.get_mut(id) {
            connection.watch = Some(watch);
        }
    }

    fn watch_report(&mut self, now: Clock, id: ConnectionId, actions: &mut Vec<Action>) {
        let Some(watch) = self.connections.get(id).and_then(|connection| connection.watch) else { return };
        if now.monotonic < watch.due {
            return;
        }
        let reason = if watch.changes == self.changes { Reason::Query } else { Reason::Capacity };
        self.start_watch(now.monotonic, id, watch.interval);
        actions.push(Action::Send { to: id, reply: self.report(now, reason) });
    }

    /// The last words on a connection: what is owed, a watcher's last report, the end.
    fn say_goodbye(&mut self, now: Clock, id: ConnectionId, actions: &mut Vec<Action>) {
        while self.connections.get(id).is_some_and(Connection::waits) {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.owed.pop_front();
            }
            let text = "the agent stops before memory settled".to_owned();
            let reply = Reply::Error(Refusal { code: RefusalCode::Internal, text });
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

    fn welcome(&self, hello: Hello) -> Owed {
        let Some(chosen) = version::negotiate(hello.version_min, hello.version_max) else {
            let text = format!(
                "this agent speaks protocol versions {} to {}, the host {} to {}",
                version::MIN,
                version::CURRENT,
                hello.version_min,
                hello.version_max
            );
            return Owed::Incompatible(Refusal { code: RefusalCode::Version, text });
        };
        Owed::Welcome(Welcome {
            agent: Agent { protocol: chosen, ..self.myself.agent.clone() },
            boot_id: self.myself.boot_id,
            sandbox: self.saved.sandbox.clone(),
            epoch: self.saved.epoch,
            seq: self.saved.seq,
            nonce: hello.nonce,
        })
    }

    /// The next report. Before the first observation there is nothing to report.
    fn report(&mut self, now: Clock, reason: Reason) -> Reply {
        let Some(seen) = &self.seen else {
            let text = "nothing was observed yet".to_owned();
            return Reply::Error(Refusal { code: RefusalCode::Internal, text });
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
        }))
    }
}

/// Resumes, epochs and segments are not served by this build; the host reads that in `capabilities` too.
fn unsupported(name: &str) -> Owed {
    Owed::Refusal(Refusal {
        code: RefusalCode::Unsupported,
        text: format!("{name} is not served by guestmeterd {}", env!("CARGO_PKG_VERSION")),
    })
}
