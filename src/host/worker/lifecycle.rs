//! The platform's five calls: each once, in order, answered after the commit.

use super::api::body::Outcome;
use super::api::problem::Refusal;
use super::books::Draft;
use super::call_time;
use super::core::{Commit, Core};
use super::desk::NotPosted;
use super::fleet::{Sandbox, State};
use super::naming::Unnamed;
use super::order::{Call, Expected, Named, Phase, hex};
use super::told::{Told, outcome_of};
use crate::host::ledger::{self, Begun};
use crate::host::reconcile::{self, Evidence, Lifecycle, Minted, Requested};
use crate::units::{Bytes, MilliCpu, Nanos};
use crate::wire::message::Id;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// The ledger's limit for an event's name.
const EVENT_BYTES_MAX: usize = 256;
/// Most memory and CPU of a row.
const MEMORY_MIB_MAX: u64 = 1 << 32;
const CPU_MILLIS_MAX: u64 = 1 << 32;

/// One call, whichever it is.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) call: Call,
    pub(super) event_id: String,
    /// By the machine's clock.
    pub(super) at: Nanos,
    /// The epoch it ends, or belongs to.
    pub(super) ends: Option<Id>,
    pub(super) memory_mib: Option<u64>,
    pub(super) cpu_millis: Option<u64>,
    /// Whether the VM was paused before.
    pub(super) paused: bool,
    pub(super) deadline: Option<Duration>,
}

impl Asked {
    /// A call that says no more than each does.
    pub(super) fn new(call: Call, event_id: String, at: Nanos, ends: Option<Id>) -> Self {
        let (memory_mib, cpu_millis, deadline) = (None, None, None);
        Self { call, event_id, at, ends, memory_mib, cpu_millis, paused: false, deadline }
    }

    /// What it is in the ledger, where who explains the books looks for pauses.
    fn kind(&self) -> &'static str {
        match self.call {
            Call::Resumed if !self.paused => "ran_on",
            call => call.name(),
        }
    }
}

/// A call that is being carried out.
pub(super) struct Work<'a> {
    pub(super) asked: Asked,
    pub(super) sandbox: &'a Sandbox,
    /// In the worker's time.
    at: Nanos,
    pub(super) deadline: Instant,
    requested: Option<Requested>,
}

impl Core {
    /// Carries out a call; the answer's text is the first one for ever.
    pub(super) async fn call(&self, name: &str, asked: Asked) -> Result<String, Refusal> {
        let call = asked.call;
        let answered = self.carry_out(name, asked).await;
        match &answered {
            Ok((outcome, _)) => match outcome {
                Some(outcome) => self.metrics.answered(call, *outcome),
                None => self.metrics.call(call, "repeated"),
            },
            Err(refusal) => self.metrics.call(call, refusal.name()),
        }
        answered.map(|(_, text)| text)
    }

    /// `None` for an answer that was given before.
    async fn carry_out(&self, name: &str, asked: Asked) -> Result<(Option<Outcome>, String), Refusal> {
        let config = self.config();
        let limit = asked.deadline.unwrap_or(config.lifecycle.deadline).min(config.lifecycle.deadline_max);
        let deadline = Instant::now() + limit.max(Duration::from_millis(50));
        check(&asked)?;
        let late = || Refusal::Ledger(format!("no answer within {limit:?}"));
        // The ledger alone can be late here, and a call that is not in it has to come again. One that asks for no wait
        // still waits for its commit.
        let patience = match asked.call {
            // A snapshot is not held up.
            Call::Pausing => deadline,
            _ => deadline.max(Instant::now() + config.lifecycle.deadline),
        };
        let finding = async {
            match self.find(name).await? {
                Some(sandbox) => Ok(Found::Sandbox(sandbox)),
                // It may be gone since, by this very call.
                None => match self.call_before(name, &asked).await? {
                    Some(Begun { answer: Some(first), .. }) => Ok(Found::Answer(first)),
                    _ => Err(Refusal::Unknown(name.to_owned())),
                },
            }
        };
        let sandbox: Arc<Sandbox> = match timeout_at(patience, finding).await.map_err(|_| late())?? {
            Found::Sandbox(sandbox) => sandbox,
            Found::Answer(first) => return Ok((None, first)),
        };
        let work = self.work(asked, &sandbox, deadline)?;
        let _waiting = sandbox.call();
        let mut state = timeout_at(patience, sandbox.state.lock()).await.map_err(|_| late())?;
        let working = async {
            match work.asked.call {
                Call::Pausing => self.pausing(&work, &mut state).await,
                Call::Started | Call::Resumed => self.life_begins(&work, &mut state).await,
                Call::Scaled | Call::Destroyed => self.recorded(&work, &mut state).await,
            }
        };
        match timeout_at(patience, working).await {
            Ok(done) => {
                drop(state);
                self.poller.hint(&sandbox, Duration::ZERO);
                done
            }
            Err(_) => {
                // What was under way may be committed: it is read again.
                state.books = None;
                Err(late())
            }
        }
    }

    fn work<'a>(&self, asked: Asked, sandbox: &'a Sandbox, deadline: Instant) -> Result<Work<'a>, Refusal> {
        let at = call_time::placed(asked.at, &self.clock.now())?;
        let requested = (asked.memory_mib.is_some() || asked.cpu_millis.is_some())
            .then(|| Requested { memory_mib: asked.memory_mib, cpu: asked.cpu_millis.map(MilliCpu) });
        Ok(Work { asked, sandbox, at, deadline, requested })
    }

    /// The answer that the call has already, or whether it may come now.
    async fn admit(&self, work: &Work<'_>, state: &mut State) -> Result<Admitted, Refusal> {
        let begun = self.call_before(&work.sandbox.name, &work.asked).await?;
        if let Some(Begun { answer: Some(first), .. }) = begun {
            return Ok(Admitted::Answered(first));
        }
        let epoch = begun.and_then(|begun| begun.epoch);
        self.load(work.sandbox, state).await?;
        let page = state.books.as_ref().and_then(|books| books.page().ok());
        let Some(page) = page else { return Err(NotPosted::Stale.into()) };
        if let Some(epoch) = epoch
            && page.life.epoch.is_some_and(|current| current.id == epoch.id)
        {
            return Ok(Admitted::Begun);
        }
        match page.life.admit(work.asked.call, work.asked.ends) {
            Ok(()) => {
                self.not_pruned(work.asked.call, work.at).await?;
                Ok(Admitted::Now)
            }
            Err(expected) => Err(out_of_order(page.life.phase, &work.asked, expected)),
        }
    }

    /// What is known of the call, if it came before.
    async fn call_before(&self, sandbox: &str, asked: &Asked) -> Result<Option<Begun>, Refusal> {
        let Some((event, begun)) = self.desk.event(&asked.event_id).await? else { return Ok(None) };
        if event.sandbox != sandbox || event.kind != asked.kind() {
            let ledger::Event { id, sandbox, kind, .. } = event;
            return Err(Refusal::Event(format!("{id:?} is {kind} of sandbox {sandbox:?} already")));
        }
        Ok(Some(begun))
    }

    /// `scaled` and `destroyed`: the guest has no part in them.
    async fn recorded(
        &self,
        work: &Work<'_>,
        state: &mut State,
    ) -> Result<(Option<Outcome>, String), Refusal> {
        if let Admitted::Answered(first) = self.admit(work, state).await? {
            return Ok((None, first));
        }
        let told =
            Told { outcome: Outcome::Recorded, reason: None, heard: None, committed: true, reached: None };
        let text = self.answer(work, state, told, |draft| self.take_call(work, draft)).await?;
        if work.asked.call == Call::Destroyed && work.sandbox.is_gone() {
            self.fleet.undescribe(&work.sandbox.name);
        }
        Ok((Some(Outcome::Recorded), text))
    }

    /// `started` and `resumed`: the epoch is minted and committed, then said.
    async fn life_begins(
        &self,
        work: &Work<'_>,
        state: &mut State,
    ) -> Result<(Option<Outcome>, String), Refusal> {
        match self.admit(work, state).await? {
            Admitted::Answered(first) => return Ok((None, first)),
            Admitted::Begun => {}
            Admitted::Now => {
                self.size_known(work, state)?;
                let begun = self.desk.begin(&work.event()).await?;
                let minted = begun.epoch.ok_or(NotPosted::Stale)?;
                let epoch = Minted { id: minted.id, number: minted.number };
                self.write(work.sandbox, state, Commit::Now, |draft| {
                    self.take_beginning(work, draft, epoch);
                    None
                })
                .await?;
                state.unnamed_since = None;
                state.vmm_due = Nanos::ZERO;
            }
        }
        let told = self.tell(work, state, self.guest_deadline(work)).await;
        let text = self.answer(work, state, told, |_| {}).await;
        text.map(|text| (outcome_of(&text), text))
    }

    /// `pausing`: the guest closes its count, and holds.
    async fn pausing(
        &self,
        work: &Work<'_>,
        state: &mut State,
    ) -> Result<(Option<Outcome>, String), Refusal> {
        if let Admitted::Answered(first) = self.admit(work, state).await? {
            return Ok((None, first));
        }
        let until = self.guest_deadline(work);
        let limit = until.saturating_duration_since(Instant::now());
        let told = match self.client(work) {
            None => Told::unconfirmed(&Unnamed::NoAgent),
            Some(client) => match timeout_at(until, self.close_count(work, state, &client, until)).await {
                Ok(Ok((reached, heard))) => Told {
                    outcome: Outcome::Confirmed,
                    reason: None,
                    heard: Some(heard),
                    committed: false,
                    reached: Some(reached),
                },
                Ok(Err(error)) => {
                    self.count_unnamed(&error);
                    Told::unconfirmed(&error)
                }
                Err(_) => Told::unconfirmed(&Unnamed::Late(limit)),
            },
        };
        let text = self.answer(work, state, told, |draft| self.take_call(work, draft)).await;
        text.map(|text| (outcome_of(&text), text))
    }

    fn take_call(&self, work: &Work<'_>, draft: &mut Draft) {
        let requested = work.requested.unwrap_or_default();
        let epoch = draft.page.life.epoch.map(|epoch| epoch.id);
        let call = match work.asked.call {
            Call::Scaled => reconcile::Call::Scaled { size: requested },
            Call::Pausing => reconcile::Call::Pausing { epoch },
            _ => reconcile::Call::Destroyed { epoch },
        };
        self.take(draft, &[Evidence::Lifecycle(Lifecycle { at: work.at, call })]);
        let life = &mut draft.page.life;
        match work.asked.call {
            Call::Scaled => {
                let plugged = self.plugged(work, requested);
                if let Some(epoch) = &mut life.epoch {
                    epoch.requested = plugged.or(epoch.requested);
                }
            }
            Call::Pausing => life.phase = Phase::Paused,
            _ => life.phase = Phase::Destroyed,
        }
    }

    fn take_beginning(&self, work: &Work<'_>, draft: &mut Draft, epoch: Minted) {
        let call = match work.asked.call {
            Call::Started => reconcile::Call::Started { epoch, size: work.requested.unwrap_or_default() },
            _ => reconcile::Call::Resumed { epoch, size: work.requested, paused: work.asked.paused },
        };
        self.take(draft, &[Evidence::Lifecycle(Lifecycle { at: work.at, call })]);
        let size = work.requested.or_else(|| draft.page.account.current().map(|current| current.requested));
        draft.page.life.begin(Named {
            id: epoch.id,
            number: epoch.number,
            // A cold boot was not paused: what opened the guest's provisional epoch is named in place.
            paused: work.asked.paused && work.asked.call == Call::Resumed,
            at: work.at,
            requested: size.and_then(|size| self.plugged(work, size)),
            confirmed: false,
        });
    }

    /// What virtio-mem is asked for: all but what the VM boots with.
    fn plugged(&self, work: &Work<'_>, requested: Requested) -> Option<Bytes> {
        let base = work.sandbox.descriptor().base_memory_mib;
        requested.memory_mib.map(|mib| Bytes::mib(mib.saturating_sub(base)))
    }

    /// A life needs a size: its own, or the one before it.
    fn size_known(&self, work: &Work<'_>, state: &State) -> Result<(), Refusal> {
        let page = state.books.as_ref().and_then(|books| books.page().ok());
        let before = page.and_then(|page| page.account.current()).and_then(|life| life.requested.memory_mib);
        if work.asked.memory_mib.or(before).is_some() {
            return Ok(());
        }
        Err(Refusal::Data("memory_mib: the sandbox has no size yet, so it must be said".to_owned()))
    }
}

/// Whom a call is for.
enum Found {
    Sandbox(Arc<Sandbox>),
    /// Nobody any more; it was answered before.
    Answer(String),
}

/// What becomes of a call at the door.
enum Admitted {
    /// It has its answer.
    Answered(String),
    /// Its epoch is committed; the worker died, or the ledger failed, before it was answered.
    Begun,
    /// It is new.
    Now,
}

impl Work<'_> {
    pub(super) fn event(&self) -> ledger::Event {
        ledger::Event {
            id: self.asked.event_id.clone(),
            sandbox: self.sandbox.name.clone(),
            kind: self.asked.kind().to_owned(),
            at: self.at,
            mints: self.asked.call.mints(),
        }
    }
}

fn check(asked: &Asked) -> Result<(), Refusal> {
    let named = (1..=EVENT_BYTES_MAX).contains(&asked.event_id.len());
    if !named || asked.event_id.chars().any(char::is_control) {
        return Err(Refusal::Body("event_id: 1 to 256 bytes without control characters".to_owned()));
    }
    if asked.memory_mib.is_some_and(|mib| mib == 0 || mib > MEMORY_MIB_MAX) {
        return Err(Refusal::Body("memory_mib: at least 1, and at most 4 PiB".to_owned()));
    }
    if asked.cpu_millis.is_some_and(|millis| millis == 0 || millis > CPU_MILLIS_MAX) {
        return Err(Refusal::Body("cpu_millis: at least 1, and at most four million vCPUs".to_owned()));
    }
    Ok(())
}

fn out_of_order(phase: Phase, asked: &Asked, expected: Expected) -> Refusal {
    let may = expected.calls.contains(&asked.call);
    let said = if may {
        let ends = asked.ends.map_or_else(|| "none".to_owned(), hex);
        let current = expected.epoch.clone().unwrap_or_else(|| "none".to_owned());
        format!("its epoch is {current}, not {ends}")
    } else {
        let names: Vec<_> = expected.calls.iter().map(|call| call.name()).collect();
        format!("{} cannot come now, {} may", asked.call.name(), names.join(", "))
    };
    Refusal::Order { phase: phase.name(), said, expected }
}

impl From<NotPosted> for Refusal {
    fn from(error: NotPosted) -> Self {
        match error {
            NotPosted::Data(why) | NotPosted::Pruned { why, .. } => Self::Data(why),
            other => Self::Ledger(other.to_string()),
        }
    }
}
