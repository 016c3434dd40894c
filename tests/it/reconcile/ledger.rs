//! Books as a ledger would keep them: by key, the last one put holds.

use guestmeter::host::reconcile::{Decision, Row, Sample, Size};
use guestmeter::units::Nanos;
use guestmeter::wire::message::Id;
use std::collections::BTreeMap;

pub const HOUR: u64 = 3_600_000_000_000;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    rows: BTreeMap<(Id, Nanos), (Option<Nanos>, Size)>,
    samples: BTreeMap<(Id, Nanos), (Nanos, Size)>,
}

impl Ledger {
    /// Commits a decision, and checks at each step what the database enforces.
    pub fn commit(&mut self, decision: &Decision) {
        for row in &decision.rows {
            self.rows.insert((row.epoch, row.start), (row.end, row.size));
            let open: Vec<_> = self.rows.iter().filter(|(_, (end, _))| end.is_none()).collect();
            assert!(open.len() <= 1, "two rows are open: {open:?}");
            assert!(row.end.is_none_or(|end| end >= row.start), "{row:?}");
        }
        for sample in &decision.samples {
            assert!(sample.end >= sample.start, "{sample:?}");
            self.samples.insert((sample.epoch, sample.start), (sample.end, sample.size));
        }
        if let Some(cut) = decision.cut {
            for ((epoch, start), (end, _)) in &mut self.rows {
                if *epoch == cut.epoch && end.is_none_or(|end| end > cut.at) {
                    *end = Some(cut.at.max(*start));
                }
            }
            for ((epoch, start), (end, _)) in &mut self.samples {
                if *epoch == cut.epoch && *end > cut.at {
                    *end = cut.at.max(*start);
                }
            }
        }
    }

    /// Rows that last.
    pub fn rows(&self) -> Vec<Row> {
        let rows = self.rows.iter().map(|(&(epoch, start), &(end, size))| Row { epoch, start, end, size });
        let mut rows: Vec<Row> = rows.filter(|row| row.end != Some(row.start)).collect();
        rows.sort_by_key(|row| row.start);
        rows
    }

    /// Samples that last.
    pub fn samples(&self) -> Vec<Sample> {
        let samples =
            self.samples.iter().map(|(&(epoch, start), &(end, size))| Sample { epoch, start, end, size });
        let mut samples: Vec<Sample> = samples.filter(|sample| sample.end > sample.start).collect();
        samples.sort_by_key(|sample| (sample.start, sample.end));
        samples
    }

    /// Samples and rows do not overlap, and no sample crosses an hour.
    pub fn check(&self) {
        for pair in self.samples().windows(2) {
            let same = pair[0].epoch == pair[1].epoch;
            assert!(!same || pair[0].end <= pair[1].start, "samples of an epoch overlap: {pair:#?}");
        }
        for pair in self.rows().windows(2) {
            assert!(pair[0].end.is_some_and(|end| end <= pair[1].start), "rows overlap: {pair:#?}");
        }
        for sample in self.samples() {
            assert_eq!(sample.start.0 / HOUR, (sample.end.0 - 1) / HOUR, "crosses an hour: {sample:?}");
        }
    }

    /// Every sample lies within rows, of at least its size.
    pub fn check_envelope(&self) {
        let rows = self.rows();
        for sample in self.samples() {
            let mut at = sample.start;
            while at < sample.end {
                let row = rows.iter().find(|row| row.start <= at && row.end.is_none_or(|end| end > at));
                let row = row.unwrap_or_else(|| panic!("{sample:?} at {at} is in no row of {rows:#?}"));
                assert_eq!(sample.size, row.size, "{sample:?} {row:?}");
                at = row.end.unwrap_or(sample.end);
            }
        }
    }

    /// Time in samples.
    pub fn active(&self) -> Nanos {
        Nanos(self.samples().iter().map(|sample| sample.end.0 - sample.start.0).sum())
    }

    /// MiB · ns in samples.
    pub fn memory(&self) -> u128 {
        let of =
            |sample: &Sample| u128::from(sample.size.memory_mib) * u128::from(sample.end.0 - sample.start.0);
        self.samples().iter().map(of).sum()
    }
}
