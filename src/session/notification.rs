//! The agent speaks first: one report at a time, sent again until it is acked or superseded.

use super::{Action, CloseCause, ConnectionId, Session};
use crate::units::Nanos;
use crate::wire::message::{Ack, Acked, Clock, Id, Notify, Reason, RefusalCode, Reply, Request};

/// The first pause between two attempts; each next one is twice as long.
const RETRY_FIRST: Nanos = Nanos::SECOND;
/// The longest.
const RETRY_MAX: Nanos = Nanos::from_secs(300);
/// How long an ack may take.
const ACK_PATIENCE: Nanos = Nanos::from_secs(5);

/// What the host is to hear, and how far that got.
#[derive(Clone, Debug, Default)]
pub(super) struct Notifier {
    pending: Option<Pending>,
    link: Link,
    /// A hint came that what is pending does not tell.
    hint_waits: bool,
}

#[derive(Clone, Debug)]
struct Pending {
    notify: Box<Notify>,
    attempts: u32,
    due: Nanos,
}

/// The connection that the agent opens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Link {
    #[default]
    None,
    Dialing,
    Open {
        id: ConnectionId,
        until: Nanos,
    },
}

impl Notifier {
    pub(super) fn owns(&self, id: ConnectionId) -> bool {
        matches!(self.link, Link::Open { id: own, .. } if own == id)
    }

    pub(super) fn deadline(&self) -> Option<Nanos> {
        match (self.link, &self.pending) {
            (Link::Open { until, .. }, _) => Some(until),
            (Link::None, Some(pending)) => Some(pending.due),
            _ => None,
        }
    }

    fn is_of(&self, epoch: Id, seq: u64) -> bool {
        self.pending.as_ref().is_some_and(|pending| {
            let identity = &pending.notify.report.identity;
            identity.epoch.id == epoch && identity.seq <= seq
        })
    }

    fn failed(&mut self, now: Nanos) {
        self.link = Link::None;
        if let Some(pending) = &mut self.pending {
            let pause = RETRY_FIRST.0.checked_shl(pending.attempts).map_or(RETRY_MAX, Nanos).min(RETRY_MAX);
            pending.attempts = pending.attempts.saturating_add(1).min(16);
            pending.due = now.saturating_add(pause).saturating_add(jitter(now, pause));
        }
    }
}

/// Up to a quarter of `pause`. The clock's low bits differ even between clones, whose random numbers are the same.
fn jitter(now: Nanos, pause: Nanos) -> Nanos {
    Nanos(now.0.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32) % (pause.0 / 4 + 1))
}

impl Session {
    /// Makes the report that the host is to hear; the one before it is superseded. Nobody is dialled while the count is
    /// held: the VM is about to be paused.
    pub(super) fn notify(&mut self, now: Clock, reason: Reason) {
        if !self.limits.notify || self.stopping || self.saved.meter.held() {
            return;
        }
        let Reply::Report(report) = self.report(now, reason) else { return };
        let notify = Box::new(Notify { agent: self.myself.agent.clone(), report: *report });
        self.notifier.pending = Some(Pending { notify, attempts: 0, due: now.monotonic });
        self.notifier.hint_waits = false;
    }

    /// Something may have happened that only the host knows of. Not at once: thousands of guests may ask together.
    pub(super) fn ask_host(&mut self, now: Nanos) {
        if self.notifier.pending.is_some() {
            self.notifier.hint_waits = true;
        } else {
            self.asking = Some(now.saturating_add(jitter(now, Nanos::from_secs(4))));
        }
    }

    /// The host knows more than what waits to be said.
    pub(super) fn supersede(&mut self) {
        self.notifier.pending = None;
        self.notifier.hint_waits = false;
        self.asking = None;
    }

    /// An ack of this report, or of a later one of its epoch.
    pub(super) fn heard(&mut self, now: Nanos, epoch: Id, seq: u64) {
        if self.notifier.is_of(epoch, seq) {
            self.notifier.pending = None;
            if std::mem::take(&mut self.notifier.hint_waits) {
                self.ask_host(now);
            }
        }
    }

    /// Does what is due on the notification connection.
    pub(super) fn drive_notifier(&mut self, now: Nanos, actions: &mut Vec<Action>) {
        let notifier = &mut self.notifier;
        match (notifier.link, &notifier.pending) {
            (Link::Dialing, None) => {
                notifier.link = Link::None;
                actions.push(Action::HangUp);
            }
            (Link::Open { id, .. }, None) => {
                notifier.link = Link::None;
                actions.push(Action::Close { connection: id, cause: CloseCause::Heard });
            }
            (Link::Open { id, until }, Some(_)) if until <= now => {
                notifier.failed(now);
                actions.push(Action::Close { connection: id, cause: CloseCause::Unheard });
            }
            (Link::Open { id, .. }, Some(pending)) if pending.attempts == 0 && pending.due <= now => {
                self.say(now, id, actions);
            }
            (Link::None, Some(pending)) if pending.due <= now => {
                notifier.link = Link::Dialing;
                actions.push(Action::Dial);
            }
            _ => {}
        }
    }

    pub(super) fn dialed(&mut self, now: Nanos, id: ConnectionId) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.stopping || self.notifier.pending.is_none() {
            self.notifier.link = Link::None;
            actions.push(Action::Close { connection: id, cause: CloseCause::Heard });
        } else {
            self.say(now, id, &mut actions);
        }
        actions
    }

    pub(super) fn dial_failed(&mut self, now: Nanos) {
        self.notifier.failed(now);
    }

    /// Whether it was the notification connection that is gone.
    pub(super) fn notifier_closed(&mut self, now: Nanos, id: ConnectionId) -> bool {
        let owned = self.notifier.owns(id);
        if owned {
            self.notifier.failed(now);
        }
        owned
    }

    /// On the notification connection the host acks, and asks nothing: for that it dials the agent.
    pub(super) fn notifier_asked(&mut self, now: Nanos, id: ConnectionId, request: Request) -> Vec<Action> {
        let mut actions = Vec::new();
        let reply = match request {
            // An epoch without a name has nothing to free: the host says that it has heard.
            Request::Ack(Ack { epoch, seq })
                if epoch == Id::default() && self.notifier.is_of(epoch, seq) && seq <= self.saved.seq =>
            {
                self.heard(now, epoch, seq);
                Reply::Acked(Acked { epoch, seq })
            }
            Request::Ack(ack) => {
                let reply = self.ack(ack);
                if matches!(reply, Reply::Acked(_)) {
                    self.heard(now, ack.epoch, ack.seq);
                    actions.push(Action::Save);
                }
                reply
            }
            _ => {
                let text =
                    "a notification connection takes Ack alone: ask at the agent's own port".to_owned();
                Reply::Error(RefusalCode::Handshake.because(text))
            }
        };
        actions.push(Action::Send { to: id, reply });
        self.drive_notifier(now, &mut actions);
        actions
    }

    pub(super) fn close_notifier(&mut self, actions: &mut Vec<Action>) {
        self.notifier.pending = None;
        if let Link::Open { id, .. } = std::mem::take(&mut self.notifier.link) {
            actions.push(Action::Close { connection: id, cause: CloseCause::Shutdown });
        }
    }

    fn say(&mut self, now: Nanos, id: ConnectionId, actions: &mut Vec<Action>) {
        let until = now.saturating_add(ACK_PATIENCE);
        self.notifier.link = Link::Open { id, until };
        if let Some(pending) = &mut self.notifier.pending {
            pending.due = until;
            actions.push(Action::Send { to: id, reply: Reply::Notify(pending.notify.clone()) });
        }
    }

    /// Whether a report of this epoch waits to be heard.
    #[cfg(test)]
    pub(super) fn notifying(&self) -> Option<(crate::wire::message::Epoch, u64, Reason)> {
        let report = &self.notifier.pending.as_ref()?.notify.report;
        Some((report.identity.epoch, report.identity.seq, report.reason))
    }
}
