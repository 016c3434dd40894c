//! The account of one sandbox: a settled state, the latest evidence in the host's order, and what both come to.
//!
//! Evidence in order is taken in. A late piece is put where it belongs, and what follows it is taken in anew, so
//! that the books do not depend on the order of arrival.

use super::decision::{Decision, Row};
use super::evidence::{Evidence, Minted};
use super::fact::{Fact, Key};
use super::policy::Policy;
use super::size::Requested;
use super::state::State;
use super::verdict::{Found, Verdict};
use crate::meter::Count;
use crate::units::Nanos;
use crate::wire::message::{Counters, Id, Mark};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// What the host knows of one sandbox. A plain value: the ledger keeps it, with what it decided, in one transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    sandbox: String,
    org: String,
    /// What all facts before `recent` come to.
    settled: State,
    settled_key: Option<Key>,
    /// By their keys.
    recent: VecDeque<Fact>,
    /// What all facts come to.
    state: State,
}

/// The latest life of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Current {
    /// Its epoch.
    pub epoch: Minted,
    /// When it began.
    pub from: Nanos,
    /// When it ended, if it has.
    pub until: Option<Nanos>,
    /// What is requested.
    pub requested: Requested,
    /// The last report that was accepted: its number, and when it was read.
    pub heard: Option<(u64, Nanos)>,
    /// Guest time credited to it.
    pub credited: Nanos,
}

impl Account {
    /// An account that knows nothing.
    #[must_use]
    pub fn new(sandbox: impl Into<String>, org: impl Into<String>) -> Self {
        Self {
            sandbox: sandbox.into(),
            org: org.into(),
            settled: State::default(),
            settled_key: None,
            recent: VecDeque::new(),
            state: State::default(),
        }
    }

    /// Whose account it is.
    #[must_use]
    pub fn sandbox(&self) -> &str {
        &self.sandbox
    }

    /// Who pays.
    #[must_use]
    pub fn org(&self) -> &str {
        &self.org
    }

    /// The latest life.
    #[must_use]
    pub fn current(&self) -> Option<Current> {
        self.state.lives.last().map(|life| Current {
            epoch: life.epoch,
            from: life.from,
            until: life.end.map(|end| end.at),
            requested: self.state.requested,
            heard: life.last.map(|last| (last.seq, last.received)),
            credited: life.credit,
        })
    }

    /// The row that is open.
    #[must_use]
    pub fn open_row(&self) -> Option<Row> {
        self.state.books.open_row().copied()
    }

    /// The most that `boot_id` has counted in named epochs of this sandbox: what a `Resume` carries.
    #[must_use]
    pub fn mark(&self, boot_id: Id) -> Option<Mark> {
        let boot = self.state.boots.iter().find(|boot| boot.id == boot_id)?;
        let counters = Counters {
            active: Count::from_total(u128::from(boot.mark.active.0)),
            memory: Count::from_total(boot.mark.memory.0),
            cpu: Count::from_total(boot.mark.cpu.0),
            cpu_used: Nanos::ZERO,
        };
        Some(Mark { boot_id, counters })
    }

    /// Whether an epoch is one of this sandbox's, as far as they are remembered.
    #[must_use]
    pub fn knows(&self, epoch: Id) -> bool {
        self.state.index_of(epoch).is_some()
    }

    /// Takes `evidence` in; puts what changed in the books, and what was found, into `decision`.
    pub(super) fn take(&mut self, evidence: &Evidence, policy: &Policy, decision: &mut Decision) {
        let mut found = Found::default();
        let last = self.recent.back().map(Fact::key).or(self.settled_key);
        match Fact::of(evidence) {
            // The clock settles hours too.
            Some(fact) if last.is_some_and(|last| last >= fact.key()) || fact.at() < self.state.now => {
                self.take_late(fact, policy, decision, &mut found);
            }
            Some(fact) => {
                self.state.apply(&fact, policy, &mut found);
                self.state.books.post(decision);
                self.recent.push_back(fact);
            }
            None => {
                if let Evidence::Clock(now) = evidence {
                    self.state.pass(*now, policy, &mut found);
                    self.state.books.post(decision);
                }
            }
        }
        decision.verdicts = found.verdicts;
        if let Some(cut) = self.state.cut_forgotten() {
            decision.cut = decision.cut.or(Some(cut));
            self.settle_all();
        }
        self.settle(policy);
    }

    fn take_late(&mut self, fact: Fact, policy: &Policy, decision: &mut Decision, found: &mut Found) {
        if self.recent.contains(&fact) {
            return found.push(Verdict::Duplicate);
        }
        let before = std::mem::take(&mut self.state);
        let key = fact.key();
        let place = if self.settled_key.is_some_and(|settled| key <= settled) {
            decision.cut = self.settled.apply_settled(&fact, policy, found);
            None
        } else {
            let place = self.recent.partition_point(|other| other.key() <= key);
            self.recent.insert(place, fact);
            Some(place)
        };
        self.state = self.settled.clone();
        self.settled.books.settle();
        let mut unheard = Found::unheard();
        for (index, fact) in self.recent.iter().enumerate() {
            let found = if place == Some(index) { &mut *found } else { &mut unheard };
            self.state.apply(fact, policy, found);
        }
        self.state.pass(before.now, policy, &mut unheard);
        self.state.books.post_against(&before.books, decision);
    }

    /// The oldest facts have their place: nothing is put before them any more. Several at once, which spares a fleet
    /// half of its memory traffic.
    fn settle(&mut self, policy: &Policy) {
        if self.recent.len() < policy.recent_max.saturating_mul(2) {
            return;
        }
        let mut unheard = Found::unheard();
        while self.recent.len() > policy.recent_max
            && let Some(oldest) = self.recent.pop_front()
        {
            self.settled.apply(&oldest, policy, &mut unheard);
            self.settled.books.settle();
            self.settled_key = Some(oldest.key());
        }
        self.state.forget_settled(|life| self.settled.settled_to(life.epoch.id));
        self.settled.forget_settled(|life| Some(life.sample_from));
        let settled_at = self.settled.now;
        self.settled.books.forget_rows(settled_at);
        self.state.books.forget_rows(settled_at);
    }

    /// Nothing is put before what has come so far: what a cut takes out of the ledger is not kept, to be put back.
    fn settle_all(&mut self) {
        self.settled = self.state.clone();
        self.settled.books.settle();
        self.settled_key = self.recent.drain(..).next_back().map(|fact| fact.key()).max(self.settled_key);
    }
}
