//! What every part of the worker works with, and the one way from evidence to the ledger.

use super::books::{Books, Draft, StateError};
use super::clock::Clock;
use super::config::Config;
use super::descriptor::Descriptor;
use super::desk::{Desk, NotPosted};
use super::fleet::{Fleet, Sandbox, State};
use super::metrics::{Metrics, label};
use super::order::Phase;
use super::poller::Poller;
use crate::host::ledger;
use crate::host::reconcile::{Evidence, Policy};
use crate::units::Nanos;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Attempts at a decision whose account another worker changes meanwhile.
const ATTEMPTS: usize = 4;

/// How long a view waits for books that were never read.
const READ_MAX: Duration = Duration::from_secs(1);

/// What every part works with.
pub(super) struct Core {
    config: RwLock<Arc<Config>>,
    pub(super) clock: Clock,
    pub(super) desk: Desk,
    pub(super) fleet: Fleet,
    pub(super) metrics: Metrics,
    policy: RwLock<Arc<Policy>>,
    pub(super) poller: Arc<Poller>,
    /// The worker stops.
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
}

/// When a draft is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Commit {
    /// Now: something depends on it.
    Now,
    /// If it changes the books, or is due to be saved.
    IfDue,
}

/// What became of a draft.
pub(super) struct Written {
    pub(super) draft: Draft,
    /// Whether it is in the ledger.
    pub(super) committed: bool,
}

impl Core {
    pub(super) fn new(
        config: Config,
        tiers_mib: Vec<u64>,
        desk: Desk,
        metrics: Metrics,
        poller: Arc<Poller>,
        tasks: TaskTracker,
    ) -> Self {
        let policy = policy(&config, tiers_mib);
        Self {
            config: RwLock::new(Arc::new(config)),
            clock: Clock::start(),
            desk,
            fleet: Fleet::new(metrics.clone()),
            metrics,
            policy: RwLock::new(Arc::new(policy)),
            poller,
            stop: CancellationToken::new(),
            tasks,
        }
    }

    pub(super) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn reconfigure(&self, config: Config, tiers_mib: Vec<u64>) {
        let policy = policy(&config, tiers_mib);
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    /// The sandbox of this name: described, or with a life that is open though its descriptor is gone.
    pub(super) async fn find(&self, name: &str) -> Result<Option<Arc<Sandbox>>, NotPosted> {
        if let Some(sandbox) = self.fleet.get(name) {
            return Ok(Some(sandbox));
        }
        let Some(account) = self.desk.account(name).await? else { return Ok(None) };
        let org = account.org.clone();
        let page = Books::of(account).and_then(|books| books.page()).map_err(unreadable(name))?;
        if matches!(page.life.phase, Phase::Unborn | Phase::Destroyed) {
            return Ok(None);
        }
        let (sandbox, _) = self.fleet.describe(Arc::new(Descriptor::bare(name, &org)));
        sandbox.lives(&page.life);
        self.fleet.undescribe(name);
        Ok(Some(sandbox))
    }

    /// Has its books read, if they never were and nothing is in the way, so that its view shows them.
    pub(super) async fn read(&self, sandbox: &Sandbox) {
        if sandbox.phase().is_none() {
            let reading = async { self.load(sandbox, &mut *sandbox.state.lock().await).await };
            let _ = tokio::time::timeout(READ_MAX, reading).await;
        }
    }

    /// Reads the books of a sandbox unless they are there.
    pub(super) async fn load(&self, sandbox: &Sandbox, state: &mut State) -> Result<(), NotPosted> {
        if state.books.is_some() {
            return Ok(());
        }
        let descriptor = sandbox.descriptor();
        let books = match self.desk.account(&sandbox.name).await? {
            Some(account) => {
                if account.org != descriptor.org {
                    tracing::warn!(
                        sandbox = sandbox.name,
                        org = account.org,
                        described = descriptor.org,
                        "a sandbox stays with the org it was first billed to"
                    );
                }
                Books::of(account)
            }
            None => Books::fresh(&sandbox.name, &descriptor.org),
        };
        let books = books.map_err(unreadable(&sandbox.name))?;
        let page = books.page().map_err(unreadable(&sandbox.name))?;
        sandbox.lives(&page.life);
        state.books = Some(books);
        Ok(())
    }

    /// Decides by `apply`, and commits. It is applied anew to what another worker has made of the account meanwhile.
    ///
    /// On an error nothing is known to be committed, and the books are read again before the next decision.
    pub(super) async fn write(
        &self,
        sandbox: &Sandbox,
        state: &mut State,
        commit: Commit,
        apply: impl Fn(&mut Draft) -> Option<ledger::Answer>,
    ) -> Result<Written, NotPosted> {
        for _ in 0..ATTEMPTS {
            self.load(sandbox, state).await?;
            let now = self.clock.now();
            let Some(books) = &mut state.books else { break };
            let mut draft = books.draft().map_err(unreadable(&sandbox.name))?;
            if let Some(held) = &state.held {
                draft.take(held, &self.policy(), now.unix);
            }
            let answers = apply(&mut draft);
            let save = Nanos::from(self.config().poll.save);
            let due = draft.matters() || books.due(now.boot, save) || state.held.is_some();
            if commit == Commit::IfDue && !due {
                books.keep(&draft, now.boot).map_err(unreadable(&sandbox.name))?;
                return Ok(self.written(sandbox, draft, false));
            }
            match self.post(sandbox, state, draft, answers, now.unix).await {
                Ok(draft) => {
                    state.held = None;
                    return Ok(self.written(sandbox, draft, true));
                }
                Err(NotPosted::Stale) => state.books = None,
                Err(error) => {
                    state.books = None;
                    return Err(error);
                }
            }
        }
        Err(NotPosted::Ledger(format!("{}: its account changes all the time", sandbox.name)))
    }

    async fn post(
        &self,
        sandbox: &Sandbox,
        state: &mut State,
        draft: Draft,
        answers: Option<ledger::Answer>,
        now: Nanos,
    ) -> Result<Draft, NotPosted> {
        let Some(books) = &mut state.books else { return Err(NotPosted::Stale) };
        let posting = books.posting(&draft, state.boot, answers.clone(), now);
        let posting = posting.map_err(unreadable(&sandbox.name))?;
        let bytes = posting.account.state.clone();
        match self.desk.post(posting).await {
            Ok(version) => {
                books.committed(&draft, bytes, version);
                Ok(draft)
            }
            Err(NotPosted::Pruned { before, why }) if draft.has_samples_before(before) => {
                let draft = draft.without_samples_before(before, &why, now);
                Box::pin(self.post(sandbox, state, draft, answers, now)).await
            }
            // An answer that was promised to the platform must not vanish in it.
            Err(NotPosted::Data(why) | NotPosted::Pruned { why, .. }) if answers.is_none() => {
                tracing::error!(
                    sandbox = sandbox.name,
                    why,
                    "the ledger refuses a posting; recorded as refused"
                );
                let draft = draft.without_changes(&why, now);
                let posting =
                    books.posting(&draft, state.boot, None, now).map_err(unreadable(&sandbox.name))?;
                let bytes = posting.account.state.clone();
                let version = self.desk.post(posting).await?;
                books.committed(&draft, bytes, version);
                Ok(draft)
            }
            Err(error) => Err(error),
        }
    }

    fn written(&self, sandbox: &Sandbox, draft: Draft, committed: bool) -> Written {
        for verdict in &draft.verdicts {
            self.metrics.verdicts.get_or_create(&label(verdict.name())).inc();
        }
        sandbox.lives(&draft.page.life);
        Written { draft, committed }
    }

    /// Takes evidence in as it came.
    pub(super) fn take(&self, draft: &mut Draft, evidence: &[Evidence]) {
        let (now, policy) = (self.clock.now().unix, self.policy());
        for piece in evidence {
            draft.take(piece, &policy, now);
        }
    }
}

fn policy(config: &Config, tiers_mib: Vec<u64>) -> Policy {
    Policy { poll: Nanos::from(config.poll.interval), tiers_mib, ..Policy::default() }
}

/// A state that cannot be read stays as it is: nothing is decided from it, or over it.
fn unreadable(sandbox: &str) -> impl FnOnce(StateError) -> NotPosted {
    let sandbox = sandbox.to_owned();
    move |error| {
        tracing::error!(sandbox, %error, "the sandbox's account cannot be used");
        NotPosted::Ledger(format!("{sandbox}: {error}"))
    }
}
