//! The sandboxes of this worker: by their descriptors, and those whose life is open though their descriptor is gone.

use super::acks::Acks;
use super::api::body::{AgentState, EpochRef, ReportView, SandboxView};
use super::books::Books;
use super::descriptor::Descriptor;
use super::metrics::Metrics;
use super::order::{Life, Phase, hex};
use super::poller::Place;
use crate::host::reconcile::Evidence;
use crate::units::Nanos;
use crate::wire::message::{Id, Report};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tokio::sync::watch;

/// One sandbox.
pub(super) struct Sandbox {
    pub(super) name: String,
    described: RwLock<Arc<Descriptor>>,
    /// Whoever talks to its guest or decides on its books holds this: one at a time.
    pub(super) state: tokio::sync::Mutex<State>,
    /// Calls of the platform that wait for it: whoever polls makes room.
    calls: watch::Sender<u32>,
    seen: Mutex<Seen>,
    /// In the poller's queue.
    pub(super) place: Place,
    metrics: Metrics,
}

/// What is known of a sandbox.
#[derive(Default)]
pub(super) struct State {
    /// `None` until they are read from the ledger, and when what is in it is not certain.
    pub(super) books: Option<Books>,
    /// The latest report that could not be committed. It is as good as all before it.
    pub(super) held: Option<Box<Evidence>>,
    /// What is committed and not acknowledged yet.
    pub(super) acks: Acks,
    /// Since when the guest has been in an epoch that is not its sandbox's.
    pub(super) unnamed_since: Option<Nanos>,
    /// When the VMM is to be asked.
    pub(super) vmm_due: Nanos,
    /// Answers in a row that there is no VM.
    pub(super) vmm_gone: u32,
    /// Attempts that failed since the agent was last heard.
    pub(super) failures: u32,
    /// The boot that it was last heard in.
    pub(super) boot: Option<Id>,
}

/// What others may see without waiting.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// `None` until its books are read.
    phase: Option<Phase>,
    epoch: Option<(Id, u64, bool)>,
    agent: AgentState,
    fault: Option<String>,
    report: Option<ReportView>,
    /// Whether its descriptor is gone.
    gone: bool,
}

/// Marks that a call waits, for as long as it is kept.
pub(super) struct Waiting<'a>(&'a Sandbox);

impl Sandbox {
    fn new(descriptor: Arc<Descriptor>, metrics: Metrics) -> Self {
        let agent = if descriptor.target.is_some() { AgentState::Unknown } else { AgentState::None };
        let seen = Seen { agent, ..Seen::default() };
        metrics.moved(None, Some((seen.phase, seen.agent)));
        Self {
            name: descriptor.sandbox.clone(),
            described: RwLock::new(descriptor),
            state: tokio::sync::Mutex::default(),
            calls: watch::Sender::new(0),
            seen: Mutex::new(seen),
            place: Place::default(),
            metrics,
        }
    }

    pub(super) fn descriptor(&self) -> Arc<Descriptor> {
        Arc::clone(&self.described.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn describe(&self, descriptor: Arc<Descriptor>) {
        let has_target = descriptor.target.is_some();
        *self.described.write().unwrap_or_else(PoisonError::into_inner) = descriptor;
        self.see(|seen| {
            seen.gone = false;
            seen.agent = match (has_target, seen.agent) {
                (false, _) => AgentState::None,
                (true, AgentState::None) => AgentState::Unknown,
                (true, state) => state,
            };
        });
    }

    /// A call comes: whoever polls it ends soon.
    pub(super) fn call(&self) -> Waiting<'_> {
        self.calls.send_modify(|count| *count = count.saturating_add(1));
        Waiting(self)
    }

    /// Ends once a call waits.
    pub(super) async fn called(&self) {
        let mut calls = self.calls.subscribe();
        // The sender lives as long as the sandbox.
        let _ = calls.wait_for(|count| *count > 0).await;
    }

    pub(super) fn is_called(&self) -> bool {
        *self.calls.borrow() > 0
    }

    pub(super) fn phase(&self) -> Option<Phase> {
        self.seen().phase
    }

    /// Whether its descriptor is gone.
    pub(super) fn is_gone(&self) -> bool {
        self.seen().gone
    }

    /// Shows where it is.
    pub(super) fn lives(&self, life: &Life) {
        self.see(|seen| {
            seen.phase = Some(life.phase);
            seen.epoch = life.epoch.map(|epoch| (epoch.id, epoch.number, epoch.confirmed));
        });
    }

    /// Shows what its agent said; whether that is news.
    pub(super) fn heard(&self, agent: AgentState, report: &Report, received: Nanos) -> bool {
        let report = view(report, received);
        self.see(|seen| {
            let news = seen.agent != agent;
            seen.agent = agent;
            seen.fault = None;
            seen.report = Some(report);
            news
        })
    }

    /// Shows that its agent could not be heard; whether that is news.
    pub(super) fn unheard(&self, fault: String, silent: bool) -> bool {
        self.see(|seen| {
            let news = silent && seen.agent != AgentState::Silent;
            if silent {
                seen.agent = AgentState::Silent;
            }
            seen.fault = Some(fault);
            news
        })
    }

    pub(super) fn view(&self) -> SandboxView {
        let descriptor = self.descriptor();
        let seen = self.seen().clone();
        SandboxView {
            sandbox: self.name.clone(),
            org: descriptor.org.clone(),
            plan: descriptor.plan.clone(),
            target: descriptor.target.as_ref().map(ToString::to_string),
            phase: seen.phase,
            epoch: seen.epoch.map(|(id, number, _)| EpochRef { id: hex(id), number }),
            confirmed: seen.epoch.is_some_and(|(_, _, confirmed)| confirmed),
            agent: seen.agent,
            fault: seen.fault,
            report: seen.report,
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn see<T>(&self, change: impl FnOnce(&mut Seen) -> T) -> T {
        let mut seen = self.seen();
        let from = (seen.phase, seen.agent);
        let value = change(&mut seen);
        self.metrics.moved(Some(from), Some((seen.phase, seen.agent)));
        value
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let seen = self.seen();
        self.metrics.moved(Some((seen.phase, seen.agent)), None);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.calls.send_modify(|count| *count = count.saturating_sub(1));
    }
}

fn view(report: &Report, received: Nanos) -> ReportView {
    let active = report.usage.since(&report.base).active;
    ReportView {
        received_unix_ns: received.0.to_string(),
        seq: report.identity.seq,
        state: report.memory.state.name(),
        total_bytes: report.memory.total().map(|bytes| bytes.0),
        plugged_bytes: report.memory.plugged.map(|bytes| bytes.0),
        requested_bytes: report.memory.requested.map(|bytes| bytes.0),
        cpu_millis: report.cpu.effective.0,
        active_seconds: active.whole,
        segments_waiting: report.tail.segments_waiting,
    }
}

/// All of them.
pub(super) struct Fleet {
    sandboxes: RwLock<BTreeMap<String, Arc<Sandbox>>>,
    /// Under which sandbox a boot was first seen.
    boots: Mutex<HashMap<Id, String>>,
    metrics: Metrics,
}

impl Fleet {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self { sandboxes: RwLock::default(), boots: Mutex::default(), metrics }
    }

    pub(super) fn get(&self, name: &str) -> Option<Arc<Sandbox>> {
        self.sandboxes.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Sandbox>> {
        self.sandboxes.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// A page in the order of names.
    pub(super) fn page(&self, after: Option<&str>, most: usize) -> Vec<Arc<Sandbox>> {
        let sandboxes = self.sandboxes.read().unwrap_or_else(PoisonError::into_inner);
        let after = match after {
            Some(after) => std::ops::Bound::Excluded(after),
            None => std::ops::Bound::Unbounded,
        };
        let range = sandboxes.range::<str, _>((after, std::ops::Bound::Unbounded));
        range.take(most).map(|(_, sandbox)| Arc::clone(sandbox)).collect()
    }

    /// The sandbox as it is described from now on, and whether it is new here.
    pub(super) fn describe(&self, descriptor: Arc<Descriptor>) -> (Arc<Sandbox>, bool) {
        let mut sandboxes = self.sandboxes.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(sandbox) = sandboxes.get(&descriptor.sandbox) {
            let was_gone = sandbox.is_gone();
            sandbox.describe(descriptor);
            return (Arc::clone(sandbox), was_gone);
        }
        let sandbox = Arc::new(Sandbox::new(descriptor, self.metrics.clone()));
        sandboxes.insert(sandbox.name.clone(), Arc::clone(&sandbox));
        (sandbox, true)
    }

    /// Its descriptor is gone. One whose life is open stays, until the platform says that it is over.
    pub(super) fn undescribe(&self, name: &str) {
        let mut sandboxes = self.sandboxes.write().unwrap_or_else(PoisonError::into_inner);
        let Some(sandbox) = sandboxes.get(name) else { return };
        sandbox.see(|seen| seen.gone = true);
        if matches!(sandbox.phase(), None | Some(Phase::Unborn | Phase::Destroyed)) {
            sandboxes.remove(name);
            self.boots.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, of| of != name);
        }
    }

    /// The sandbox is in `boot` now, and was in `before`. The one that it was first seen under, unless that is this one.
    pub(super) fn booted(&self, sandbox: &str, before: Option<Id>, boot: Id) -> Option<String> {
        let mut boots = self.boots.lock().unwrap_or_else(PoisonError::into_inner);
        // One for each sandbox: a guest can claim a new boot in every report.
        if let Some(before) = before.filter(|before| *before != boot)
            && boots.get(&before).is_some_and(|first| first == sandbox)
        {
            boots.remove(&before);
        }
        let first = boots.entry(boot).or_insert_with(|| sandbox.to_owned());
        (first != sandbox).then(|| first.clone())
    }
}
