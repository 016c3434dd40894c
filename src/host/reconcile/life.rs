//! One life of a sandbox: the host's interval of one epoch, and what is known within it.
//!
//! What lies before the last accepted claim is settled; what lies behind it can still be told anew.

use super::decision::{Row, Sample};
use super::evidence::{Minted, Totals};
use super::size::{Confirmed, Requested, Size};
use crate::units::{Bytes, Nanos};
use crate::wire::message::Id;
use serde::{Deserialize, Serialize};

/// An epoch's interval by the host's clock, and its books.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Life {
    pub epoch: Minted,
    /// Its start by the host's clock.
    pub from: Nanos,
    pub end: Option<End>,
    /// Whether the host gave the name to a VM that ran already: no edge of life.
    pub adopted: bool,
    /// The epoch in the key of its rows: that of the edge before it.
    pub row_epoch: Id,
    /// A later epoch without an edge has gone on with its row.
    pub row_passed_on: bool,
    /// Sizes and when they began to hold, oldest first; the first is that of the row which the settled part ends in.
    pub steps: Vec<Step>,
    pub confirmed: Confirmed,
    /// When anything was last confirmed; the start where nothing was.
    pub confirmed_at: Nanos,
    /// When what is requested was.
    pub requested_at: Nanos,
    /// Until when the VMM's word on memory goes before the guest's.
    pub vmm_until: Nanos,
    /// Start of the sample that is open, and the credit before it.
    pub sample_from: Nanos,
    pub sample_credit: Nanos,
    /// Up to here its samples may be forgotten.
    pub forgotten_to: Nanos,
    /// The last accepted claim: when, and the credit up to it.
    pub anchor: Nanos,
    pub credit: Nanos,
    /// What late evidence says the credit at the end is: at least, at most.
    pub end_credit: (Nanos, Nanos),
    pub last: Option<Last>,
    /// Guest time that lies before the host's interval.
    pub offset: Nanos,
    /// The host's book of this life, up to the first step.
    pub host: Totals,
    /// When anything last showed that the VM ran.
    pub ran_at: Nanos,
    /// The VMM said since then that it is paused.
    pub paused_at: Option<Nanos>,
    /// Resumes in it that nobody announced.
    pub unannounced: u32,
    /// Samples behind the settled part are posted.
    pub pending: bool,
    /// Up to this hour samples were posted without having heard of the guest.
    pub hour_told: Nanos,
}

/// A size, and when it began to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Step {
    pub at: Nanos,
    pub requested: Requested,
    pub size: Size,
}

/// The last claim that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Last {
    pub seq: u64,
    pub asked: Nanos,
    pub received: Nanos,
    pub counted: Totals,
    /// What it said it had counted before the epoch.
    pub base: Nanos,
    /// It told of what may be a pause; each report of an epoch does.
    pub jumped: bool,
}

/// When a life ended, and by whose word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct End {
    pub at: Nanos,
    pub by: EndBy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum EndBy {
    /// The platform is about to pause it: what comes later moves the end forward.
    Pause,
    /// The platform ended it.
    Destroy,
    /// It goes on under another name.
    Naming,
    /// Nobody said so, but it was over by then: a platform's word of an earlier end goes before it.
    Lost(Nanos),
}

impl Life {
    pub fn new(epoch: Minted, from: Nanos, requested: Requested) -> Self {
        let size = Size::billed(requested, Confirmed::default());
        Self {
            epoch,
            from,
            end: None,
            adopted: false,
            row_epoch: epoch.id,
            row_passed_on: false,
            steps: vec![Step { at: from, requested, size }],
            confirmed: Confirmed::default(),
            confirmed_at: from,
            requested_at: from,
            vmm_until: Nanos::ZERO,
            sample_from: from,
            sample_credit: Nanos::ZERO,
            forgotten_to: Nanos::ZERO,
            anchor: from,
            credit: Nanos::ZERO,
            end_credit: (Nanos::ZERO, Nanos(u64::MAX)),
            last: None,
            offset: Nanos::ZERO,
            host: Totals::default(),
            ran_at: from,
            paused_at: None,
            unannounced: 0,
            pending: false,
            hour_told: Nanos::ZERO,
        }
    }

    /// It ended at `at`, by the latest word. The count of a report from before that bounds the credit there no more.
    pub fn ends_at(&mut self, end: End) {
        self.end = Some(end);
        let last = self.last.filter(|last| last.received < end.at);
        if last.is_some_and(|last| self.end_credit.1 <= last.counted.active.saturating_sub(self.offset)) {
            self.end_credit.1 = Nanos(u64::MAX);
        }
    }

    /// A pause that was about to begin did not: the VM ran on.
    pub fn unpause(&mut self) {
        self.end = self.end.filter(|end| end.by != EndBy::Pause);
    }

    /// Whether another name may go on with its row.
    pub fn is_open_or_paused(&self) -> bool {
        self.end.is_none_or(|end| end.by == EndBy::Pause)
    }

    /// The life that goes on with this one's row under another name, and with its pause: one that is named because it is
    /// about to be paused is named after the platform's word. It begins where this one was last heard of:
    /// what the guest counted since then, it may have counted before it had the name.
    pub fn renamed(&mut self, epoch: Minted) -> Self {
        let mut next = Self::new(epoch, self.anchor, Requested::default());
        next.adopted = true;
        next.row_epoch = self.row_epoch;
        next.end = self.end.take();
        next.steps.clone_from(&self.steps);
        next.confirmed = self.confirmed;
        next.requested_at = self.requested_at;
        next.vmm_until = self.vmm_until;
        next.paused_at = self.paused_at;
        next.ran_at = self.ran_at.max(self.anchor);
        next.unannounced = 1;
        self.row_passed_on = true;
        next
    }

    /// Its first claim says that it began no earlier than `from`: what lies before is the life's before it.
    pub fn begin_at(&mut self, from: Nanos) {
        self.from = from;
        self.anchor = from;
        self.sample_from = from;
        self.confirmed_at = self.confirmed_at.max(from);
    }

    /// Its end as far as it is known, else `now`.
    pub fn until(&self, now: Nanos) -> Nanos {
        self.end.map_or(now, |end| end.at.min(now))
    }

    /// Counted by the guest within the host's interval, at most that.
    pub fn credit_of(&self, counted: Nanos, at: Nanos) -> Nanos {
        counted.saturating_sub(self.offset).min(at.saturating_sub(self.from))
    }

    /// The size that holds at `at`.
    pub fn size_at(&self, at: Nanos) -> Size {
        let step = self.steps.iter().rev().find(|step| step.at <= at).or(self.steps.first());
        step.map_or(Size::default(), |step| step.size)
    }

    /// What was last requested, and when.
    pub fn requested(&self) -> Requested {
        self.steps.last().map_or(Requested::default(), |step| step.requested)
    }

    /// The first instant that can still be told anew.
    pub fn settled(&self) -> Nanos {
        self.confirmed_at.max(self.anchor)
    }

    /// Another size or request from `at` on; a step that changes nothing leaves only its request.
    pub fn step(&mut self, at: Nanos, requested: Requested, size: Size) {
        self.steps.retain(|step| step.at < at || step.at <= self.from);
        match self.steps.last_mut() {
            Some(last) if last.size == size || last.at >= at => *last = Step { at: last.at, requested, size },
            _ => self.steps.push(Step { at, requested, size }),
        }
    }

    /// No size holds beyond `at`.
    pub fn end_steps(&mut self, at: Nanos) {
        self.steps = self.steps_until(at);
    }

    /// The sizes that hold before `at`; at least one.
    pub fn steps_until(&self, at: Nanos) -> Vec<Step> {
        let first = self.steps.first().map(|first| Step { at: first.at.min(at), ..*first });
        let later = self.steps.iter().skip(1).filter(|step| step.at < at).copied();
        first.into_iter().chain(later).collect()
    }

    /// The host's book up to `at`.
    pub fn host_at(&self, at: Nanos) -> Totals {
        let mut total = self.host;
        for (index, step) in self.steps.iter().enumerate() {
            let end = self.steps.get(index + 1).map_or(at, |next| next.at.min(at));
            total = total.plus(&step.size.over(end.saturating_sub(step.at.max(self.from))));
        }
        total
    }

    /// What lies before `at` is settled.
    pub fn forget_before(&mut self, at: Nanos) {
        while let [first, next, ..] = self.steps.as_slice()
            && next.at <= at
        {
            let span = next.at.saturating_sub(first.at.max(self.from));
            self.host = self.host.plus(&first.size.over(span));
            self.steps.remove(0);
        }
    }

    /// Its rows from the settled one on.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        let ends = self.steps.iter().skip(1).map(|next| Some(next.at)).chain([self.end.map(|end| end.at)]);
        self.steps.iter().zip(ends).map(|(step, end)| Row {
            epoch: self.row_epoch,
            start: step.at,
            end,
            size: step.size,
        })
    }

    /// A sample of this epoch.
    pub fn sample(&self, start: Nanos, span: Nanos) -> Sample {
        Sample { epoch: self.epoch.id, start, end: start.saturating_add(span), size: self.size_at(start) }
    }
}

impl Size {
    /// What it comes to over `span`.
    pub(super) fn over(self, span: Nanos) -> Totals {
        Totals { active: span, memory: Bytes::mib(self.memory_mib) * span, cpu: self.cpu * span }
    }
}
