//! What is posted for a sandbox: the latest rows and samples, and how they differ from what was posted before.

use super::decision::{Decision, Row, Sample};
use super::runs::Runs;
use crate::units::Nanos;
use crate::wire::message::Id;
use serde::{Deserialize, Serialize};

/// So many rows are kept behind what can still be told anew.
const KEPT: usize = 8;

/// The latest rows and samples, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Books {
    pages: Pages,
    /// As they were before the first change of this decision.
    #[serde(skip)]
    before: Option<Box<Pages>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Pages {
    rows: Vec<Row>,
    samples: Runs,
    /// Rows that start up to here may have been forgotten.
    rows_forgotten: Nanos,
}

impl Books {
    /// The row that is open.
    pub fn open_row(&self) -> Option<&Row> {
        self.pages.rows.iter().rev().find(|row| row.end.is_none())
    }

    /// Replaces the rows of `epoch` from `start` on.
    pub fn put_rows(&mut self, epoch: Id, start: Nanos, rows: impl Iterator<Item = Row>) {
        let pages = self.edit();
        pages.rows.retain(|row| row.epoch != epoch || row.start < start);
        pages.rows.extend(rows.filter(|row| row.end != Some(row.start)));
    }

    /// Forgets the samples of `epoch` from `start` on.
    pub fn drop_samples(&mut self, epoch: Id, start: Nanos) {
        if self.pages.samples.has_from(epoch, start) {
            self.edit().samples.drop_from(epoch, start);
        }
    }

    /// Adds a sample.
    pub fn put_sample(&mut self, sample: Sample) {
        self.edit().samples.put(sample);
    }

    /// No sample of `epoch` and no row of `row_epoch` reaches beyond `at`.
    pub fn clip(&mut self, epoch: Id, row_epoch: Id, at: Nanos) {
        let pages = self.edit();
        pages.samples.clip(epoch, at);
        pages.rows.retain(|row| row.epoch != row_epoch || row.start < at);
        for row in pages.rows.iter_mut().filter(|row| row.epoch == row_epoch) {
            row.end = Some(row.end.map_or(at, |end| end.min(at)));
        }
    }

    fn edit(&mut self) -> &mut Pages {
        if self.before.is_none() {
            self.before = Some(Box::new(self.pages.clone()));
        }
        &mut self.pages
    }

    /// What changed is kept as it is: there is nothing to post of it.
    pub fn settle(&mut self) {
        self.before = None;
    }

    /// Puts what changed into `decision`.
    pub fn post(&mut self, decision: &mut Decision) {
        if let Some(before) = self.before.take() {
            before.differ(&self.pages, decision);
        }
    }

    /// Puts what differs from `before` into `decision`.
    pub fn post_against(&mut self, before: &Books, decision: &mut Decision) {
        self.before = None;
        before.pages.differ(&self.pages, decision);
    }

    /// Forgets the samples of `epoch` that end at `until` or before; the latest end of them.
    pub fn forget_samples(&mut self, epoch: Id, until: Nanos) -> Option<Nanos> {
        self.pages.samples.forget(epoch, until)
    }

    /// Forgets the samples of epochs that are not `known`.
    pub fn forget_others(&mut self, known: impl Fn(Id) -> bool) {
        self.pages.samples.forget_others(known);
    }

    /// The ledger has no row that starts behind `at`, and none of them is forgotten.
    pub fn cut_rows(&mut self, at: Nanos) {
        let forgotten = &mut self.pages.rows_forgotten;
        *forgotten = at.saturating_sub(Nanos(1)).min(*forgotten);
    }

    /// Forgets rows that started before `settled`, but the latest few.
    pub fn forget_rows(&mut self, settled: Nanos) {
        let Pages { rows, rows_forgotten, .. } = &mut self.pages;
        while rows.len() > KEPT
            && let Some(first) = rows.first()
            && first.start < settled
        {
            *rows_forgotten = first.start.max(*rows_forgotten);
            rows.remove(0);
        }
    }
}

impl Pages {
    /// What must be posted so that what stood here becomes `after`.
    fn differ(&self, after: &Self, decision: &mut Decision) {
        let stale = |row: &&Row| {
            row.start > after.rows_forgotten && !after.rows.iter().any(|new| new.key() == row.key())
        };
        let gone = self.rows.iter().filter(stale).map(|row| Row { end: Some(row.start), ..*row });
        let fresh = |row: &&Row| row.start > self.rows_forgotten && !self.rows.contains(row);
        let (closed, open): (Vec<Row>, Vec<Row>) =
            gone.chain(after.rows.iter().filter(fresh).copied()).partition(|row| row.end.is_some());
        decision.rows = closed;
        decision.rows.extend(open);

        let stale = self.samples.not_in(&after.samples);
        let stale = stale.filter(|sample| after.samples.find(sample.epoch, sample.start).is_none());
        let gone = stale.map(|sample| Sample { end: sample.start, ..sample });
        decision.samples = gone.chain(after.samples.not_in(&self.samples)).collect();
    }
}

impl Row {
    fn key(&self) -> (Id, Nanos) {
        (self.epoch, self.start)
    }
}
