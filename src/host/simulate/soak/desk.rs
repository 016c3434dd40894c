//! The worker's desk in one world: the real books of its sandboxes, drafted, kept and posted as the worker does.

use super::super::guest::BEGIN;
use super::super::random::Random;
use crate::host::explain::{Happening, What};
use crate::host::ledger::Posting;
use crate::host::ledger::usage::HOUR;
use crate::host::reconcile::{Call, Evidence, Policy, Segment, Verdict};
use crate::host::worker::books::Books;
use crate::units::Nanos;
use crate::wire::message::{Id, Mark, Segments};
use std::collections::BTreeSet;

/// What the worker makes of a report.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Word {
    /// It is committed, and may be acknowledged.
    pub(in super::super) ack: bool,
    /// The guest must get another name.
    pub(in super::super) name: bool,
}

/// The desk.
pub(in super::super) struct Desk {
    prefix: String,
    pub(super) org: String,
    policy: Policy,
    pub(super) sandboxes: Vec<Sandbox>,
    /// Which sandbox a boot was first seen under.
    boots: Vec<(Id, usize)>,
    pub(super) postings: Vec<Posting>,
    pub(super) reports: u64,
    /// The first thing that must not be.
    pub(super) fault: Option<String>,
}

/// A sandbox as the worker has it; and beside it, what is true of it.
pub(super) struct Sandbox {
    pub(super) name: String,
    books: Option<Books>,
    boot: Option<Id>,
    /// Calls that came while the worker was away: the platform repeats them until they are answered.
    late: Vec<Evidence>,
    pub(super) called: Vec<Happening>,
    /// The hours in which it ran.
    pub(super) hours: BTreeSet<u64>,
    hour: u64,
    /// Pauses that nobody announced, and after which it was not heard yet.
    still: Vec<u64>,
    /// All of them.
    pub(super) stood_still: u64,
    /// Epochs that were credited nothing, for their reports were behind and no name came through.
    pub(super) blocked: BTreeSet<Id>,
    /// What of them the books may have: at most the cap of each where the guest was heard after it in that life.
    pub(super) unnoticed: u64,
}

impl Desk {
    pub(super) fn new(prefix: String, org: String, poll: Nanos) -> Self {
        Self {
            prefix,
            org,
            policy: Policy { poll, ..Policy::default() },
            sandboxes: Vec::new(),
            boots: Vec::new(),
            postings: Vec::new(),
            reports: 0,
            fault: None,
        }
    }

    fn sandbox(&mut self, index: usize) -> Option<&mut Sandbox> {
        while self.sandboxes.len() <= index {
            let name = format!("{}-{}", self.prefix, self.sandboxes.len());
            let books = Books::fresh(&name, &self.org).ok();
            self.sandboxes.push(Sandbox::new(name, books));
        }
        self.sandboxes.get_mut(index)
    }

    /// It ran from `from` to `to`.
    pub(in super::super) fn ran(&mut self, index: usize, from: u64, to: u64) {
        let Some(sandbox) = self.sandbox(index).filter(|_| from < to) else { return };
        let hour = |at: u64| BEGIN.saturating_add(at) / HOUR.0;
        let (first, last) = (hour(from), hour(to - 1));
        if last != sandbox.hour {
            sandbox.hours.extend(first..=last);
            sandbox.hour = last;
        }
    }

    /// It stood still for `span`, and nobody was told.
    pub(super) fn stood_still(&mut self, index: usize, span: u64) {
        if let Some(sandbox) = self.sandbox(index) {
            sandbox.still.push(span);
            sandbox.stood_still = sandbox.stood_still.saturating_add(span);
        }
    }

    /// What a `Resume` carries.
    pub(in super::super) fn mark(&self, index: usize, boot: Id) -> Option<Mark> {
        let books = self.sandboxes.get(index)?.books.as_ref()?;
        books.page().ok()?.account.mark(boot)
    }

    /// Segments were read.
    pub(in super::super) fn delivers(&mut self, index: usize, segments: &Segments, now: u64) {
        let at = Nanos(BEGIN.saturating_add(now));
        for segment in &segments.segments {
            self.take(index, Evidence::Segment(Segment::of(segment, at)), now);
        }
    }

    /// Another sandbox that this boot was first seen under.
    pub(super) fn copy_of(&mut self, index: usize, boot: Id) -> Option<String> {
        if let Some(sandbox) = self.sandbox(index) {
            sandbox.boot = Some(boot);
        }
        match self.boots.iter().rev().find(|(known, _)| *known == boot) {
            Some((_, first)) if *first != index => self.sandboxes.get(*first).map(|first| first.name.clone()),
            Some(_) => None,
            None => {
                self.boots.push((boot, index));
                None
            }
        }
    }

    /// Kept until the worker is back.
    pub(super) fn later(&mut self, index: usize, evidence: Evidence) {
        if let Some(sandbox) = self.sandbox(index) {
            sandbox.late.push(evidence);
        }
    }

    /// Takes evidence in, what came late first.
    pub(super) fn take(&mut self, index: usize, evidence: Evidence, now: u64) -> Word {
        let late = self.sandbox(index).map(|sandbox| std::mem::take(&mut sandbox.late)).unwrap_or_default();
        for evidence in late {
            self.put(index, &evidence, now);
        }
        self.put(index, &evidence, now)
    }

    fn put(&mut self, index: usize, evidence: &Evidence, now: u64) -> Word {
        let policy = self.policy.clone();
        let now = Nanos(BEGIN.saturating_add(now));
        let Some(sandbox) = self.sandbox(index) else { return Word::default() };
        let word = sandbox.put(evidence, &policy, now);
        let report = matches!(evidence, Evidence::Report(_));
        match word {
            Ok((word, posting)) => {
                if report && word.ack {
                    sandbox.heard(policy.cap);
                }
                self.postings.extend(posting);
                self.reports += u64::from(report);
                word
            }
            Err(fault) => {
                self.fault.get_or_insert(fault);
                Word::default()
            }
        }
    }

    /// The world is over: hours close.
    pub(super) fn ends(&mut self, now: u64) {
        let later = now.saturating_add(HOUR.0).saturating_add(HOUR.0);
        for index in 0..self.sandboxes.len() {
            self.take(index, Evidence::Clock(Nanos(BEGIN.saturating_add(later))), later);
            if let Some(sandbox) = self.sandboxes.get_mut(index) {
                sandbox.unheard();
            }
        }
    }
}

impl Sandbox {
    fn new(name: String, books: Option<Books>) -> Self {
        Self {
            name,
            books,
            boot: None,
            late: Vec::new(),
            called: Vec::new(),
            hours: BTreeSet::new(),
            hour: 0,
            still: Vec::new(),
            stood_still: 0,
            blocked: BTreeSet::new(),
            unnoticed: 0,
        }
    }

    /// Drafts from the page as it is encoded, and posts or keeps it.
    fn put(
        &mut self,
        evidence: &Evidence,
        policy: &Policy,
        now: Nanos,
    ) -> Result<(Word, Option<Posting>), String> {
        if let Evidence::Lifecycle(call) = evidence {
            let what = match call.call {
                Call::Started { .. } => Some(What::Started),
                Call::Scaled { .. } => Some(What::Scaled),
                Call::Pausing { .. } => Some(What::Pausing),
                Call::Resumed { paused: true, .. } => Some(What::Resumed),
                Call::Resumed { paused: false, .. } => Some(What::RanOn),
                Call::Destroyed { .. } => Some(What::Destroyed),
                Call::Named { .. } => None,
            };
            self.called.extend(what.map(|what| Happening { at: call.at, what }));
            if matches!(call.call, Call::Started { .. } | Call::Resumed { paused: true, .. }) {
                self.unheard();
            }
        }
        let name = &self.name;
        let told = |error: &dyn std::fmt::Display| format!("{name}: {error}");
        let books = self.books.as_mut().ok_or_else(|| told(&"no books"))?;
        let mut draft = books.draft().map_err(|error| told(&error))?;
        draft.take(evidence, policy, now);
        let word = Word { ack: !draft.acks.is_empty(), name: draft.name };
        if let Evidence::Report(told) = evidence {
            let epoch = told.claim.epoch;
            if draft.verdicts.iter().any(|verdict| matches!(verdict, Verdict::Rollback { named: false, .. }))
            {
                self.blocked.insert(epoch);
            } else if word.ack {
                self.blocked.remove(&epoch);
            }
        }
        if !draft.matters() {
            books.keep(&draft, now).map_err(|error| told(&error))?;
            return Ok((word, None));
        }
        let posting = books.posting(&draft, self.boot, None, now).map_err(|error| told(&error))?;
        let state = posting.account.state.clone();
        books.committed(&draft, state, posting.account.expected_version + 1);
        Ok((word, Some(posting)))
    }

    /// The guest was heard after its pauses: what it did not notice of each is at most the cap.
    fn heard(&mut self, cap: Nanos) {
        let noticed: u64 = self.still.drain(..).map(|span| span.min(cap.0)).sum();
        self.unnoticed = self.unnoticed.saturating_add(noticed);
    }

    /// The guest was not heard after them in this life: the host's word alone holds.
    fn unheard(&mut self) {
        let silent: u64 = self.still.drain(..).sum();
        self.unnoticed = self.unnoticed.saturating_add(silent);
    }
}

/// One world in ten is of an org that pays nothing.
pub(super) fn org(index: u64) -> (String, &'static str) {
    let org = Random::new(index % 20).below(1000) * 100 + index % 20;
    (format!("org-{org}"), if index % 10 == 3 { "free" } else { "pro" })
}
