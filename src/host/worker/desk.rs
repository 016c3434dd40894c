//! The one way to the ledger: what waits together is committed together, and a ledger that is down is not asked by
//! everybody at once.

use super::metrics::{Metrics, label, seconds};
use crate::host::ledger::{
    Account, Begun, Event, Ledger, LedgerCause, LedgerError, LedgerFault, Minted, Posted, Posting,
};
use crate::units::Nanos;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

/// Postings that wait.
const QUEUE_MAX: usize = 1024;
/// Postings of one transaction.
const BATCH_MAX: usize = 256;
/// Changes of one transaction, unless one posting alone has more: after a long downtime each has those of all its hours.
const CHANGES_MAX: usize = 4096;
/// How long a batch may take before its postings are told that nothing is known.
const BATCH_PATIENCE: Duration = Duration::from_secs(15);
/// Between two attempts at a ledger that is down.
const PAUSE: Duration = Duration::from_secs(1);
/// So long after the last one that nobody else makes an attempt.
const PROBE_AFTER: Duration = Duration::from_secs(10);

/// Why something is not in the ledger.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum NotPosted {
    /// Another worker has posted since.
    #[error("the account has changed meanwhile")]
    Stale,
    /// The event has this answer.
    #[error("it has been answered before")]
    Repeat(String),
    /// Some of it began before this instant, and of that time only hourly totals are kept.
    #[error("{why}")]
    Pruned { before: Nanos, why: String },
    /// It contradicts what is there, for ever.
    #[error("{0}")]
    Data(String),
    /// It may be taken the next time; whether it has been taken is not known.
    #[error("{0}")]
    Ledger(String),
}

/// Where postings are handed in. Cheap to clone.
#[derive(Clone)]
pub(super) struct Desk {
    ledger: Ledger,
    queue: mpsc::Sender<Job>,
    state: Arc<Mutex<State>>,
    metrics: Metrics,
}

struct Job {
    posting: Posting,
    done: oneshot::Sender<Result<u64, NotPosted>>,
}

#[derive(Default)]
struct State {
    down: Option<Down>,
}

/// The last failure.
struct Down {
    since: Instant,
    tried: Instant,
    asked: Asked,
    why: String,
}

impl Desk {
    /// Starts the task that commits; it ends when every clone of the desk is gone.
    pub(super) fn open(ledger: Ledger, metrics: Metrics, tasks: &TaskTracker) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE_MAX);
        let desk = Self { ledger: ledger.clone(), queue, state: Arc::default(), metrics: metrics.clone() };
        metrics.ledger_up.set(1);
        tasks.spawn(Committer { ledger, jobs, state: Arc::clone(&desk.state), metrics }.run());
        desk
    }

    /// Commits it; the account's new version.
    pub(super) async fn post(&self, posting: Posting) -> Result<u64, NotPosted> {
        self.may_try(Asked::Posting)?;
        let (done, answer) = oneshot::channel();
        let full = |_| NotPosted::Ledger("more postings wait for the ledger than may".to_owned());
        self.queue.try_send(Job { posting, done }).map_err(full)?;
        answer.await.unwrap_or_else(|_| Err(NotPosted::Ledger("the worker stops".to_owned())))
    }

    pub(super) async fn account(&self, sandbox: &str) -> Result<Option<Account>, NotPosted> {
        self.may_try(Asked::Question)?;
        self.told(Asked::Question, self.ledger.account(sandbox).await)
    }

    pub(super) async fn event(&self, id: &str) -> Result<Option<(Event, Begun)>, NotPosted> {
        self.told(Asked::Question, self.ledger.event(id).await)
    }

    pub(super) async fn pruned_before(&self) -> Result<Nanos, NotPosted> {
        self.told(Asked::Question, self.ledger.pruned_before().await)
    }

    pub(super) async fn begin(&self, event: &Event) -> Result<Begun, NotPosted> {
        self.told(Asked::Question, self.ledger.begin_event(event).await)
    }

    pub(super) async fn mint(&self, sandbox: &str, at: Nanos) -> Result<Minted, NotPosted> {
        self.may_try(Asked::Question)?;
        self.told(Asked::Question, self.ledger.mint(sandbox, at).await)
    }

    pub(super) async fn mint_above(
        &self,
        sandbox: &str,
        at: Nanos,
        refused: u64,
        latest: u64,
    ) -> Result<Minted, NotPosted> {
        self.may_try(Asked::Question)?;
        self.told(Asked::Question, self.ledger.mint_above(sandbox, at, refused, latest).await)
    }

    pub(super) async fn set_plan(&self, org: &str, plan: &str) -> Result<(), NotPosted> {
        self.told(Asked::Question, self.ledger.set_plan(org, Some(plan)).await)
    }

    /// For questions that change nothing.
    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Why it is down, if it is.
    pub(super) fn fault(&self) -> Option<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let since = |down: &Down| format!("{} (for {} s)", down.why, down.since.elapsed().as_secs());
        state.down.as_ref().map(since)
    }

    /// While it is down, one attempt in a while is enough to see that it is back.
    fn may_try(&self, asked: Asked) -> Result<(), NotPosted> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut state.down {
            // It answers, and what follows the question is to be the attempt.
            Some(down) if asked == Asked::Question && down.asked == Asked::Posting => Ok(()),
            Some(down) if down.tried.elapsed() < PAUSE => Err(NotPosted::Ledger(down.why.clone())),
            Some(down) => {
                down.tried = Instant::now();
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn told<T>(&self, asked: Asked, answer: Result<T, LedgerError>) -> Result<T, NotPosted> {
        match answer {
            Ok(value) => {
                mark(&self.state, &self.metrics, asked, None);
                Ok(value)
            }
            Err(error) => Err(judged(&error, asked, &self.state, &self.metrics)),
        }
    }
}

/// What was asked of the ledger. One whose disk is full still answers, and may take what is small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Question,
    Posting,
}

/// The task behind the desk.
struct Committer {
    ledger: Ledger,
    jobs: mpsc::Receiver<Job>,
    state: Arc<Mutex<State>>,
    metrics: Metrics,
}

impl Committer {
    async fn run(mut self) {
        let mut jobs = Vec::with_capacity(BATCH_MAX);
        loop {
            match tokio::time::timeout(PAUSE, self.jobs.recv_many(&mut jobs, BATCH_MAX)).await {
                Ok(0) => return,
                Ok(_) => {
                    while !jobs.is_empty() {
                        self.commit(&mut jobs).await;
                    }
                }
                Err(_) => self.probe().await,
            }
        }
    }

    /// Nobody may ask for a commit of a worker that is unhealthy: that it is back has to show by itself.
    async fn probe(&self) {
        let idle = |down: &Down| down.tried.elapsed() >= PROBE_AFTER;
        if self.state.lock().unwrap_or_else(PoisonError::into_inner).down.as_ref().is_some_and(idle) {
            match self.ledger.probe().await {
                Ok(()) => mark(&self.state, &self.metrics, Asked::Posting, None),
                Err(error) => drop(judged(&error, Asked::Posting, &self.state, &self.metrics)),
            }
        }
    }

    /// Commits the first of them: as many as make one transaction of a bounded length.
    async fn commit(&self, jobs: &mut Vec<Job>) {
        let mut changes = 0;
        let fits = |job: &&Job| {
            changes += job.posting.changes.len();
            changes <= CHANGES_MAX
        };
        let many = jobs.iter().take_while(fits).count().max(1);
        let (postings, done): (Vec<_>, Vec<_>) =
            jobs.drain(..many).map(|job| (job.posting, job.done)).unzip();
        let began = Instant::now();
        let posted = tokio::time::timeout(BATCH_PATIENCE, self.ledger.post(&postings)).await;
        self.metrics.commit_seconds.observe(seconds(began.elapsed()));
        match posted {
            Ok(posted) => {
                for (posted, done) in posted.into_iter().zip(done) {
                    // Whoever asked may have given up.
                    let _ = done.send(self.told(posted));
                }
            }
            Err(_) => {
                let why = format!("{}: no answer within {BATCH_PATIENCE:?}", self.ledger.location());
                mark(&self.state, &self.metrics, Asked::Posting, Some(&why));
                self.count("unknown");
                for done in done {
                    let _ = done.send(Err(NotPosted::Ledger(why.clone())));
                }
            }
        }
    }

    fn told(&self, posted: Result<Posted, LedgerError>) -> Result<u64, NotPosted> {
        let (name, told) = match posted {
            Ok(Posted::Done { version }) => ("done", Ok(version)),
            Ok(Posted::Stale) => ("stale", Err(NotPosted::Stale)),
            Ok(Posted::Repeat(first)) => ("repeat", Err(NotPosted::Repeat(first))),
            Err(error) => {
                let judged = judged(&error, Asked::Posting, &self.state, &self.metrics);
                let refused = matches!(judged, NotPosted::Data(_) | NotPosted::Pruned { .. });
                let name = if refused { "refused" } else { "failed" };
                self.count(name);
                return Err(judged);
            }
        };
        let asked = if name == "done" { Asked::Posting } else { Asked::Question };
        mark(&self.state, &self.metrics, asked, None);
        self.count(name);
        told
    }

    fn count(&self, name: &'static str) {
        self.metrics.postings.get_or_create(&label(name)).inc();
    }
}

fn judged(error: &LedgerError, asked: Asked, state: &Mutex<State>, metrics: &Metrics) -> NotPosted {
    let why = error.to_string();
    if let LedgerError::Failed { cause: LedgerCause::Pruned { before, .. }, .. } = error {
        return NotPosted::Pruned { before: Nanos(*before), why };
    }
    let fault = match error {
        LedgerError::Failed { cause, .. } => cause.fault(),
        LedgerError::Location(_) => LedgerFault::Operator,
    };
    match fault {
        LedgerFault::Data => NotPosted::Data(why),
        LedgerFault::TryAgain | LedgerFault::Operator => {
            mark(state, metrics, asked, Some(&why));
            NotPosted::Ledger(why)
        }
    }
}

/// Up, or down for this reason. Said once, however many ask.
fn mark(state: &Mutex<State>, metrics: &Metrics, asked: Asked, fault: Option<&str>) {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    match (fault, &mut state.down) {
        (None, Some(down)) if asked == Asked::Question && down.asked == Asked::Posting => {}
        (None, Some(down)) => {
            tracing::info!(seconds = down.since.elapsed().as_secs(), "the ledger is back");
            metrics.ledger_up.set(1);
            state.down = None;
        }
        (None, None) => {}
        (Some(why), Some(down)) => {
            down.tried = now;
            down.asked = asked;
            if down.why != why {
                why.clone_into(&mut down.why);
                tracing::error!(ledger = why, "the ledger is still down");
            }
        }
        (Some(why), None) => {
            tracing::error!(ledger = why, "the ledger is down: nothing is acknowledged until it is back");
            metrics.ledger_up.set(0);
            state.down = Some(Down { since: now, tried: now, asked, why: why.to_owned() });
        }
    }
}
