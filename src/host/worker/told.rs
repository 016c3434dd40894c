//! The guest's part in a call, and the call's answer: asked within the deadline, committed, then said to both.

use super::api::body::{Answer, EpochRef, Outcome};
use super::api::problem::Refusal;
use super::books::Draft;
use super::core::{Commit, Core};
use super::desk::NotPosted;
use super::fleet::State;
use super::lifecycle::Work;
use super::naming::{Reached, Unnamed};
use super::order::hex;
use super::talk::{self, Heard};
use crate::host::client::Client;
use crate::host::json;
use crate::host::ledger;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};

/// What the guest had to do with it.
pub(super) struct Told {
    pub(super) outcome: Outcome,
    pub(super) reason: Option<String>,
    pub(super) heard: Option<Heard>,
    /// Whether what was heard is committed already.
    pub(super) committed: bool,
    pub(super) reached: Option<Reached>,
}

impl Core {
    /// Names it where it must be, and takes its checkpoint.
    pub(super) async fn close_count(
        &self,
        work: &Work<'_>,
        state: &mut State,
        client: &Client,
        until: Instant,
    ) -> Result<(Reached, Heard), Unnamed> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let mut reached = self.reach(work.sandbox, state, client, left).await?;
            let page = state.books.as_ref().and_then(|books| books.page().ok());
            let epoch = page.and_then(|page| page.life.epoch).ok_or(Unnamed::Ledger(NotPosted::Stale))?;
            let asked = talk::checkpoint(&mut reached.conversation, &self.clock, (epoch.id, epoch.number));
            match asked.await {
                Ok(heard) => return Ok((reached, heard)),
                Err(error) if error.cause.kind() == crate::host::Kind::TryAgain => {
                    tracing::debug!(%error, "a checkpoint is asked for again");
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Has the guest named; what it says is committed with the answer's own evidence.
    pub(super) async fn tell(&self, work: &Work<'_>, state: &mut State, until: Instant) -> Told {
        let Some(client) = self.client(work) else { return Told::unconfirmed(&Unnamed::NoAgent) };
        let left = until.saturating_duration_since(Instant::now());
        match self.reach(work.sandbox, state, &client, left).await {
            Ok(mut reached) => {
                let heard = match reached.heard.take() {
                    Some(heard) => Ok((heard, true)),
                    // It knew: somebody asked before. Its report is still wanted.
                    None => {
                        talk::again(&mut reached.conversation, &self.clock).await.map(|heard| (heard, false))
                    }
                };
                match heard {
                    Ok((heard, committed)) => Told {
                        outcome: Outcome::Confirmed,
                        reason: None,
                        heard: Some(heard),
                        committed,
                        reached: Some(reached),
                    },
                    Err(error) => Told::unconfirmed(&error.into()),
                }
            }
            Err(error) => {
                self.count_unnamed(&error);
                Told::unconfirmed(&error)
            }
        }
    }

    /// Commits the call with its answer, acknowledges, and leaves nothing open behind it.
    pub(super) async fn answer(
        &self,
        work: &Work<'_>,
        state: &mut State,
        told: Told,
        apply: impl Fn(&mut Draft),
    ) -> Result<String, Refusal> {
        let Told { outcome, reason, heard, committed, reached } = told;
        let report = heard.as_ref().and_then(|heard| json::report(&heard.reading).ok());
        let report = report.and_then(|text| RawValue::from_string(text).ok());
        let fresh = heard.as_ref().filter(|_| !committed);
        let evidence = fresh.map(|heard| heard.evidence.as_slice()).unwrap_or_default();
        let text_of = |draft: &Draft| {
            let epoch =
                draft.page.life.epoch.map(|epoch| EpochRef { id: hex(epoch.id), number: epoch.number });
            let answer = Answer {
                sandbox: work.sandbox.name.clone(),
                call: work.asked.call,
                event_id: work.asked.event_id.clone(),
                outcome,
                reason: reason.clone(),
                epoch,
                report: report.clone(),
            };
            serde_json::to_string(&answer).unwrap_or_default()
        };
        let written = self
            .write(work.sandbox, state, Commit::Now, |draft| {
                self.take(draft, evidence);
                apply(draft);
                Some(ledger::Answer { event: work.event(), text: text_of(draft) })
            })
            .await;
        match written {
            Ok(written) => {
                let text = text_of(&written.draft);
                state.acks.extend(written.draft.acks);
                if let Some(mut reached) = reached {
                    let closing = async {
                        self.acknowledge(state, &mut reached.conversation).await;
                        // A frame left under way could be caught in a snapshot.
                        if let Err(error) = reached.conversation.close().await {
                            tracing::debug!(%error, "a conversation did not close in time");
                        }
                    };
                    let _ = timeout_at(work.deadline, closing).await;
                }
                if let Some(heard) = &heard {
                    let agent = super::api::body::AgentState::Answering;
                    work.sandbox.heard(agent, &heard.reading.report, heard.received);
                }
                Ok(text)
            }
            // Another worker, or this one before it was killed, was quicker.
            Err(NotPosted::Repeat(first)) => Ok(first),
            Err(error) => {
                state.held = evidence.last().cloned().map(Box::new).or(state.held.take());
                Err(error.into())
            }
        }
    }

    pub(super) fn client(&self, work: &Work<'_>) -> Option<Client> {
        let target = work.sandbox.descriptor().target.clone()?;
        Some(Client::new(target, self.config().poll.timeout))
    }

    /// A quarter of the time is for the commit and the ack.
    pub(super) fn guest_deadline(&self, work: &Work<'_>) -> Instant {
        let now = Instant::now();
        now + work.deadline.saturating_duration_since(now) * 3 / 4
    }
}

impl Told {
    pub(super) fn unconfirmed(why: &Unnamed) -> Self {
        Self {
            outcome: Outcome::Unconfirmed,
            reason: Some(why.to_string()),
            heard: None,
            committed: true,
            reached: None,
        }
    }
}

/// The outcome that an answer tells of; a repeated one tells of its first.
pub(super) fn outcome_of(text: &str) -> Option<Outcome> {
    serde_json::from_str::<Answer>(text).ok().map(|answer| answer.outcome)
}
