//! One poll of one sandbox: ask the guest, decide, commit what matters, name who has to be named.

use super::api::body::AgentState;
use super::core::{Commit, Core};
use super::fleet::{Sandbox, State};
use super::metrics::{label, seconds};
use super::naming::Unnamed;
use super::order::Phase;
use super::talk::{self, Heard};
use crate::host::client::Client;
use crate::host::error::{Cause, ClientError, Step};
use crate::host::reconcile::Evidence;
use crate::units::Nanos;
use crate::wire::message::EpochSource;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

/// A ledger that takes longer is done without: the slot is for guests.
const LOAD_MAX: Duration = Duration::from_millis(500);

/// Why a sandbox is visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It is its turn.
    Turn,
    /// Its guest, or the platform, gave a hint.
    Hint,
}

/// What a visit came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Visited {
    /// The guest answered.
    Answered,
    /// It did not; so often in a row.
    Failed(u32),
    /// There is nobody to ask: no agent, or no life in it.
    Nobody,
    /// A call of the platform came first, or a commit is under way.
    Later,
}

impl Core {
    /// The slot is given back once the guest has answered: a slow ledger holds up no other guest.
    pub(super) async fn visit(
        &self,
        sandbox: &Sandbox,
        why: Why,
        due: Instant,
        slot: OwnedSemaphorePermit,
    ) -> Visited {
        if sandbox.is_called() {
            return Visited::Later;
        }
        let Ok(mut state) = sandbox.state.try_lock() else { return Visited::Later };
        // Without its books it is asked all the same: what it says is kept until they can be read.
        let loading = tokio::time::timeout(LOAD_MAX, self.load(sandbox, &mut state));
        let loaded = loading.await.is_ok_and(|loaded| loaded.is_ok());
        if matches!(sandbox.phase(), Some(Phase::Paused | Phase::Destroyed)) {
            return Visited::Nobody;
        }
        let descriptor = sandbox.descriptor();
        let Some(target) = descriptor.target.clone() else {
            drop(slot);
            self.without_agent(sandbox, &mut state).await;
            self.ask_vmm(sandbox, &mut state, &descriptor).await;
            return Visited::Nobody;
        };
        let config = self.config();
        let client = Client::new(target, config.poll.timeout);
        let talked = tokio::select! {
            talked = self.ask(&client, &state, config.poll.timeout) => talked,
            () = sandbox.called() => return Visited::Later,
        };
        drop(slot);
        match talked {
            Ok((heard, acked)) => {
                self.metrics.poll_seconds.observe(seconds(due.elapsed()));
                self.metrics.polls.get_or_create(&label("answered")).inc();
                self.metrics.acks.inc_by(acked);
                state.acks.clear();
                state.failures = 0;
                if loaded {
                    self.answered(sandbox, &mut state, &client, heard, why).await;
                } else {
                    self.hold(sandbox, &mut state, &heard);
                }
                self.ask_vmm(sandbox, &mut state, &descriptor).await;
                Visited::Answered
            }
            Err(error) => {
                self.metrics.polls.get_or_create(&label(talk::failure(&error))).inc();
                state.failures = state.failures.saturating_add(1);
                self.unanswered(sandbox, &mut state, &error, config.poll.interval, config.poll.lost).await;
                self.ask_vmm(sandbox, &mut state, &descriptor).await;
                Visited::Failed(state.failures)
            }
        }
    }

    /// In all within `limit`, whatever the guest does in between.
    async fn ask(
        &self,
        client: &Client,
        state: &State,
        limit: Duration,
    ) -> Result<(Heard, u64), ClientError> {
        let asking = talk::read(client, &self.clock, &state.acks);
        match tokio::time::timeout(limit, asking).await {
            Ok(told) => told,
            Err(_) => {
                let cause = Cause::TimedOut { step: Step::Exchange, after: limit };
                Err(ClientError { target: client.target().clone(), cause })
            }
        }
    }

    async fn answered(&self, sandbox: &Sandbox, state: &mut State, client: &Client, heard: Heard, why: Why) {
        if sandbox.phase() == Some(Phase::Unborn) {
            // Nobody has told of it: it reports, and is never posted.
            state.held = None;
            sandbox.heard(AgentState::Provisional, &heard.reading.report, heard.received);
            return;
        }
        let identity = &heard.reading.report.identity;
        self.fleet.booted(&sandbox.name, state.boot.replace(identity.boot_id), identity.boot_id);
        // A hint is waited for by a guest that repeats it until it is acked.
        let segments = heard.reading.report.tail.segments_waiting > 0;
        let commit = if segments || why == Why::Hint { Commit::Now } else { Commit::IfDue };
        let written = self
            .write(sandbox, state, commit, |draft| {
                self.take(draft, &heard.evidence);
                None
            })
            .await;
        let written = match written {
            Ok(written) => written,
            Err(_) => return self.hold(sandbox, state, &heard),
        };
        let current = written.draft.page.life.epoch.map(|epoch| epoch.id) == Some(identity.epoch.id);
        let agent = match (current, identity.epoch.source) {
            (true, _) => AgentState::Answering,
            (false, EpochSource::Provisional) => AgentState::Provisional,
            (false, EpochSource::Host) => AgentState::OtherEpoch,
        };
        if sandbox.heard(agent, &heard.reading.report, heard.received) {
            tracing::info!(sandbox = sandbox.name, agent = agent.name(), "an agent is heard");
        }
        if written.committed {
            state.acks.extend(written.draft.acks);
        }
        let confirmed = written.draft.page.life.epoch.is_some_and(|epoch| epoch.confirmed);
        if current && confirmed {
            state.unnamed_since = None;
        } else {
            self.name(sandbox, state, client, confirmed).await;
        }
        if why == Why::Hint && !state.acks.is_empty() {
            self.ack_now(state, client).await;
        }
    }

    /// Names a guest that is in another epoch. One that knew its epoch is given two polls, for the platform's own call
    /// may be on its way.
    async fn name(&self, sandbox: &Sandbox, state: &mut State, client: &Client, confirmed: bool) {
        let now = self.clock.now().boot;
        let config = self.config();
        let since = *state.unnamed_since.get_or_insert(now);
        let grace = Nanos::from(config.poll.interval.saturating_mul(2));
        if confirmed && now.saturating_sub(since) < grace {
            return;
        }
        let limit = config.poll.timeout;
        let reached = tokio::select! {
            reached = self.reach(sandbox, state, client, limit) => reached,
            () = sandbox.called() => return,
        };
        match reached {
            Ok(mut reached) => {
                if let Some(heard) = &reached.heard {
                    sandbox.heard(AgentState::Answering, &heard.reading.report, heard.received);
                }
                self.acknowledge(state, &mut reached.conversation).await;
            }
            Err(error) => {
                self.count_unnamed(&error);
                if matches!(error, Unnamed::Foreign(_)) {
                    tracing::warn!(sandbox = sandbox.name, %error, "a guest cannot be named");
                } else {
                    tracing::debug!(sandbox = sandbox.name, %error, "a guest is not named yet");
                }
            }
        }
    }

    async fn ack_now(&self, state: &mut State, client: &Client) {
        if let Ok(mut conversation) = client.converse().await {
            self.acknowledge(state, &mut conversation).await;
        }
    }

    /// What cannot be committed now is as good later, and the latest report as good as all before it.
    fn hold(&self, sandbox: &Sandbox, state: &mut State, heard: &Heard) {
        let agent = match heard.reading.report.identity.epoch.source {
            EpochSource::Host => AgentState::Answering,
            EpochSource::Provisional => AgentState::Provisional,
        };
        sandbox.heard(agent, &heard.reading.report, heard.received);
        state.held = heard.evidence.last().cloned().map(Box::new);
    }

    async fn unanswered(
        &self,
        sandbox: &Sandbox,
        state: &mut State,
        error: &ClientError,
        interval: Duration,
        lost: Duration,
    ) {
        // Failures are at least an interval apart.
        let silent = interval.saturating_mul(state.failures) >= lost;
        if sandbox.unheard(error.cause.to_string(), silent) {
            tracing::warn!(sandbox = sandbox.name, %error, "an agent has fallen silent: billed as requested");
        }
        self.without_agent(sandbox, state).await;
    }

    /// Nothing is heard: what was requested is billed, and hours end.
    async fn without_agent(&self, sandbox: &Sandbox, state: &mut State) {
        if sandbox.phase() != Some(Phase::Running) {
            return;
        }
        let written = self
            .write(sandbox, state, Commit::IfDue, |draft| {
                self.take(draft, &[Evidence::Clock(self.clock.now().unix)]);
                None
            })
            .await;
        if let Err(error) = written {
            tracing::debug!(sandbox = sandbox.name, %error, "not committed");
        }
    }
}
