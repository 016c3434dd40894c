//! What a row of facts, in the host's order, comes to.

use super::books::Books;
use super::bounds::Limits;
use super::decision::{Cut, Sample};
use super::evidence::{Answer, Call, Lifecycle, Totals, VmState};
use super::fact::Fact;
use super::life::Life;
use super::policy::Policy;
use super::size::{Confirmed, Requested};
use super::verdict::{Found, GapCause, Verdict};
use super::{authority, credit, judge, lifecycle};
use crate::units::{MilliCpu, Nanos};
use crate::wire::message::Id;
use serde::{Deserialize, Serialize};

/// Lives that late evidence can still be credited to; an agent's ring holds segments of twice as many.
const LIVES_MAX: usize = 16;
/// Boots whose counters are remembered.
const BOOTS_MAX: usize = 8;

/// What is known of a sandbox at one point in the row of facts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// By their starts.
    pub lives: Vec<Life>,
    pub books: Books,
    pub requested: Requested,
    pub limits: Limits,
    /// The latest one last.
    pub boots: Vec<Boot>,
    /// The latest instant of any evidence.
    pub now: Nanos,
}

/// What a boot has counted in named epochs at most, and dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Boot {
    pub id: Id,
    pub mark: Totals,
    pub dropped: Nanos,
    pub segments_dropped: u64,
    /// Whether any of it was of a named epoch.
    pub named: bool,
}

impl State {
    /// Takes the next fact in.
    pub fn apply(&mut self, fact: &Fact, policy: &Policy, found: &mut Found) {
        self.now = self.now.max(fact.at());
        match fact {
            Fact::Claim(claim) => judge::claim(self, claim, policy, found),
            Fact::Segment(segment) => judge::segment(self, segment, policy, found),
            Fact::Answer(answer) => self.answer(*answer, policy, found),
            Fact::Call(call) => lifecycle::call(self, call, policy, found),
        }
        self.close_hours(policy, found);
        while self.lives.len() > LIVES_MAX {
            self.lives.remove(0);
        }
    }

    /// Takes in a fact so late that what follows it is settled. Only ends can be put right then; what it changes in
    /// books that are not kept any more is told as a cut.
    pub fn apply_settled(&mut self, fact: &Fact, policy: &Policy, found: &mut Found) -> Option<Cut> {
        match fact {
            Fact::Call(Lifecycle { call: Call::Scaled { .. }, .. }) => {
                found.push(Verdict::Duplicate);
                None
            }
            Fact::Answer(answer) => {
                self.limits.raise(answer.memory_max, answer.vcpus);
                found.push(Verdict::Duplicate);
                None
            }
            _ => {
                let ends: Vec<_> = self.lives.iter().map(|life| (life.epoch.id, life.end)).collect();
                self.apply(fact, policy, found);
                self.lives.iter().find_map(|life| {
                    let before = ends.iter().find(|(id, _)| *id == life.epoch.id)?.1;
                    let end = life.end.filter(|end| before.is_none_or(|before| end.at < before.at))?;
                    Some(Cut { epoch: life.epoch.id, at: end.at })
                })
            }
        }
    }

    /// Up to where the samples of an epoch are settled.
    pub fn settled_to(&self, epoch: Id) -> Option<Nanos> {
        self.lives.iter().find(|life| life.epoch.id == epoch).map(|life| life.sample_from)
    }

    /// Forgets the samples that are settled, by what `settled_to` says of each life, and those of lives that are forgotten.
    pub fn forget_settled(&mut self, settled_to: impl Fn(&Life) -> Option<Nanos>) {
        let Self { books, lives, .. } = self;
        for life in lives.iter_mut() {
            if let Some(last) = settled_to(life).and_then(|to| books.forget_samples(life.epoch.id, to)) {
                life.forgotten_to = life.forgotten_to.max(last);
            }
        }
        books.forget_others(|epoch| lives.iter().any(|life| life.epoch.id == epoch));
    }

    /// A life proves to have ended before the end of what is forgotten of it.
    pub fn cut_forgotten(&mut self) -> Option<Cut> {
        let cut = self.lives.iter_mut().find_map(|life| {
            let end = life.end.filter(|end| end.at < life.forgotten_to)?;
            life.forgotten_to = end.at;
            Some(Cut { epoch: life.epoch.id, at: end.at })
        })?;
        self.books.cut_rows(cut.at);
        Some(cut)
    }

    /// Nothing else came before `now`.
    pub fn pass(&mut self, now: Nanos, policy: &Policy, found: &mut Found) {
        self.now = self.now.max(now);
        self.close_hours(policy, found);
    }

    fn answer(&mut self, answer: Answer, policy: &Policy, found: &mut Found) {
        self.limits.raise(answer.memory_max, answer.vcpus);
        let at = answer.received;
        let Some(index) = self.open_at(at) else { return };
        let Some(life) = self.lives.get_mut(index) else { return };
        match answer.state {
            VmState::Gone => return lifecycle::gone(self, index, at, policy, found),
            VmState::Paused => {
                if life.paused_at.replace(life.paused_at.unwrap_or(at)).is_none() {
                    found.push(Verdict::Gap { cause: GapCause::Pause, active: Nanos::ZERO });
                }
            }
            VmState::Running => {
                life.paused_at = None;
                life.ran_at = life.ran_at.max(at);
            }
        }
        let cpu = answer.vcpus.map(|vcpus| MilliCpu(u64::from(vcpus) * 1000));
        authority::vmm_confirms(life, at, Confirmed { memory: answer.memory, cpu }, policy);
        self.post_rows(index);
        self.post_pending(index, policy);
        judge::plug(self, index, answer.memory, at, policy, found);
    }

    /// The life that was open at `at`.
    pub fn open_at(&self, at: Nanos) -> Option<usize> {
        self.lives.iter().rposition(|life| life.from <= at && life.end.is_none())
    }

    pub fn index_of(&self, epoch: Id) -> Option<usize> {
        self.lives.iter().rposition(|life| life.epoch.id == epoch)
    }

    /// What a boot has counted, taken out to be put back as the latest. One older than is remembered begins anew.
    pub fn take_boot(&mut self, id: Id) -> Boot {
        match self.boots.iter().position(|boot| boot.id == id) {
            Some(index) => self.boots.remove(index),
            None => Boot { id, ..Boot::default() },
        }
    }

    pub fn put_boot(&mut self, boot: Boot) {
        if self.boots.len() >= BOOTS_MAX {
            self.boots.remove(0);
        }
        self.boots.push(boot);
    }

    /// Posts the rows of a life from its settled part on.
    pub fn post_rows(&mut self, index: usize) {
        if let Some(life) = self.lives.get(index)
            && !life.row_passed_on
            && let Some(first) = life.steps.first()
        {
            self.books.put_rows(life.row_epoch, first.at, life.rows());
        }
    }

    /// Posts the samples of a life behind its settled part.
    pub fn post_samples(&mut self, index: usize, policy: &Policy) {
        let Some(life) = self.lives.get_mut(index) else { return };
        let books = &mut self.books;
        books.drop_samples(life.epoch.id, life.sample_from);
        let mut any = false;
        credit::pending(life, self.now, policy, &mut |sample: Sample| {
            any = true;
            books.put_sample(sample);
        });
        life.pending = any;
    }

    /// The credit of a life up to `at` is settled.
    pub fn settle(&mut self, index: usize, at: Nanos, credited: Nanos) {
        let Some(life) = self.lives.get_mut(index) else { return };
        let books = &mut self.books;
        if life.pending {
            books.drop_samples(life.epoch.id, life.sample_from);
            life.pending = false;
        }
        credit::claim(life, at, credited, &mut |sample| books.put_sample(sample));
    }

    /// Posts again what was posted behind the settled part.
    pub fn post_pending(&mut self, index: usize, policy: &Policy) {
        if self.lives.get(index).is_some_and(|life| life.pending || life.end.is_some()) {
            self.post_samples(index, policy);
        }
    }

    /// Takes late evidence of how much a life had counted at its end; says how much that was before, and is now.
    pub fn retell(
        &mut self,
        index: usize,
        policy: &Policy,
        change: impl FnOnce(&mut Life),
    ) -> (Nanos, Nanos) {
        let counted = |life: &Life| life.end.map_or(life.credit, |end| credit::end_credit(life, end));
        let Some(life) = self.lives.get_mut(index) else { return (Nanos::ZERO, Nanos::ZERO) };
        let before = counted(life);
        change(life);
        let after = counted(life);
        self.post_pending(index, policy);
        (before, after)
    }

    /// Samples of hours that are over do not wait for a guest that is silent.
    fn close_hours(&mut self, policy: &Policy, found: &mut Found) {
        let Some(index) = self.lives.len().checked_sub(1) else { return };
        let Some(life) = self.lives.get(index) else { return };
        if let Some(at) = credit::overdue(life, self.now, policy) {
            let told = credit::told(life, at);
            self.settle(index, at, told);
            self.post_pending(index, policy);
        }
        let Some(life) = self.lives.get(index) else { return };
        let hour = credit::hour_closed(self.now, policy);
        if life.end.is_some() || hour <= life.anchor || hour <= life.hour_told {
            return;
        }
        let since = life.anchor.max(life.hour_told);
        found.push(Verdict::RequestedOnly { span: hour.saturating_sub(since), size: life.size_at(since) });
        if let Some(life) = self.lives.get_mut(index) {
            life.hour_told = hour;
        }
        self.post_samples(index, policy);
    }

    /// Whether a life is the latest.
    pub fn is_last(&self, index: usize) -> bool {
        index + 1 == self.lives.len()
    }
}
