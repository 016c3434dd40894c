//! One sandbox's page of the books: its life, its account, and what a decision makes of them. No I/O.

use super::acks::Acks;
use super::order::{Life, hex};
use crate::host::ledger::{self, Change, NewAccount, Posting, RowPut, Size};
use crate::host::reconcile::{
    self, Account, Decision, Evidence, GapCause, Policy, RECORD_PAUSE, Verdict, reconcile,
};
use crate::units::{Mib, Nanos};
use crate::wire::message::{Id, Mark};
use serde::{Deserialize, Serialize};

/// The first byte of an account's state in the ledger.
const FORMAT: u8 = 2;

/// What the ledger keeps of a sandbox, decoded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::host) struct Page {
    pub(super) life: Life,
    pub(in crate::host) account: Account,
}

/// The page as it was last committed, or later: encoded, for there are thousands, and each is used once in a while.
#[derive(Debug)]
pub(in crate::host) struct Books {
    /// Of the committed account; 0 where there is none.
    version: u64,
    bytes: Box<[u8]>,
    /// When what is in memory alone began; `None` where all of it is committed.
    dirty_since: Option<Nanos>,
    recorded: Recorded,
}

/// What was found of late, so that it is recorded once.
#[derive(Clone, Copy, Debug, Default)]
struct Recorded {
    /// States that hold and are recorded, a bit each.
    holds: u32,
    /// When one was last recorded, by kind.
    at: [Nanos; KINDS],
    /// What gaps have left out and no record has, by their kind.
    left_out: [Nanos; GAPS.len()],
}

/// Kinds of verdicts; those of gaps are the first.
const KINDS: usize = 17;
const GAPS: [GapCause; 6] = [
    GapCause::Cap,
    GapCause::Resume,
    GapCause::Start,
    GapCause::Unnamed,
    GapCause::SegmentsLost,
    GapCause::Pause,
];

/// A state that cannot be read.
#[derive(Debug, thiserror::Error)]
pub(in crate::host) enum StateError {
    #[error("its account is of format {0}, this guestmeter knows {FORMAT}")]
    Format(u8),
    #[error("its account cannot be read: {0}")]
    Postcard(#[from] postcard::Error),
    #[error("its account is empty")]
    Empty,
}

impl Books {
    /// Of a sandbox that was never posted to.
    pub(in crate::host) fn fresh(sandbox: &str, org: &str) -> Result<Self, StateError> {
        let page = Page { life: Life::default(), account: Account::new(sandbox, org) };
        Ok(Self { version: 0, bytes: page.encode()?, dirty_since: None, recorded: Recorded::default() })
    }

    /// As the ledger has it.
    pub(in crate::host) fn of(account: ledger::Account) -> Result<Self, StateError> {
        let bytes = account.state.into_boxed_slice();
        Page::decode(&bytes)?;
        Ok(Self { version: account.version, bytes, dirty_since: None, recorded: Recorded::default() })
    }

    pub(in crate::host) fn page(&self) -> Result<Page, StateError> {
        Page::decode(&self.bytes)
    }

    /// Whether there is anything that only memory holds, and for longer than `most` at `now`.
    pub(in crate::host) fn due(&self, now: Nanos, most: Nanos) -> bool {
        self.dirty_since.is_some_and(|since| since.saturating_add(most) <= now)
    }

    pub(in crate::host) fn is_dirty(&self) -> bool {
        self.dirty_since.is_some()
    }

    /// What is to be decided from here.
    pub(in crate::host) fn draft(&self) -> Result<Draft, StateError> {
        let page = self.page()?;
        Ok(Draft {
            page,
            changes: Vec::new(),
            verdicts: Vec::new(),
            acks: Acks::default(),
            name: false,
            segments: false,
            reposts: false,
            noted: false,
            recorded: self.recorded,
        })
    }

    /// The draft is the page from here on, in memory alone.
    pub(in crate::host) fn keep(&mut self, draft: &Draft, now: Nanos) -> Result<(), StateError> {
        let bytes = draft.page.encode()?;
        if self.bytes != bytes {
            self.bytes = bytes;
            self.dirty_since = self.dirty_since.or(Some(now));
        }
        self.recorded = draft.closed();
        Ok(())
    }

    /// The draft is the page from here on, committed.
    pub(in crate::host) fn committed(&mut self, draft: &Draft, posted: Vec<u8>, version: u64) {
        self.bytes = posted.into_boxed_slice();
        self.version = version;
        self.dirty_since = None;
        self.recorded = draft.closed();
    }

    /// What commits the draft.
    pub(in crate::host) fn posting(
        &self,
        draft: &Draft,
        boot: Option<Id>,
        answers: Option<ledger::Answer>,
        now: Nanos,
    ) -> Result<Posting, StateError> {
        let account = &draft.page.account;
        let mark: Option<Mark> = boot.and_then(|boot| account.mark(boot));
        Ok(Posting {
            sandbox: account.sandbox().to_owned(),
            account: NewAccount {
                expected_version: self.version,
                org: account.org().to_owned(),
                mark,
                state: draft.page.encode()?.into_vec(),
                updated_at: now,
            },
            answers,
            changes: draft.changes.clone(),
        })
    }
}

impl Page {
    fn encode(&self) -> Result<Box<[u8]>, StateError> {
        Ok(postcard::to_extend(self, vec![FORMAT])?.into_boxed_slice())
    }

    fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        match bytes.split_first() {
            Some((&FORMAT, rest)) => Ok(postcard::from_bytes(rest)?),
            Some((format, _)) => Err(StateError::Format(*format)),
            None => Err(StateError::Empty),
        }
    }
}

/// Evidence taken in, not committed.
#[derive(Clone, Debug)]
pub(in crate::host) struct Draft {
    pub(in crate::host) page: Page,
    changes: Vec<Change>,
    /// What was found, in the order of the evidence.
    pub(in crate::host) verdicts: Vec<Verdict>,
    /// What may be acknowledged once this is committed.
    pub(in crate::host) acks: Acks,
    /// The guest has to be named before anything of it is credited.
    pub(in crate::host) name: bool,
    /// The guest keeps segments until it is acked.
    pub(in crate::host) segments: bool,
    /// Whether the books change.
    reposts: bool,
    /// Whether something is recorded.
    noted: bool,
    recorded: Recorded,
}

impl Draft {
    pub(in crate::host) fn take(&mut self, evidence: &Evidence, policy: &Policy, now: Nanos) {
        let decision = reconcile(&mut self.page.account, evidence, policy);
        self.reposts |= !decision.posts_nothing();
        if matches!(evidence, Evidence::Report(_)) {
            self.name = decision.name;
            self.segments = decision.segments;
        }
        self.acks.extend(decision.ack);
        self.post(&decision);
        self.record(&decision.verdicts, now);
        self.verdicts.extend(decision.verdicts);
    }

    /// Whether it has to be committed before anything depends on it.
    pub(in crate::host) fn matters(&self) -> bool {
        self.reposts || self.noted
    }

    fn post(&mut self, decision: &Decision) {
        let org = self.page.account.org().to_owned();
        let cut = decision.cut.map(|cut| Change::Cut { epoch: cut.epoch, at: cut.at });
        let rows = decision.rows.iter().map(|row| {
            Change::Row(RowPut {
                epoch: row.epoch,
                org: org.clone(),
                size: size(row.size),
                started_at: row.start,
                ended_at: row.end,
            })
        });
        let samples = decision.samples.iter().map(|sample| {
            Change::Sample(ledger::Sample {
                epoch: sample.epoch,
                org: org.clone(),
                size: size(sample.size),
                started_at: sample.start,
                ended_at: sample.end,
            })
        });
        self.changes.extend(cut.into_iter().chain(rows).chain(samples));
    }

    /// A state is recorded when it begins, an amount at most once in a while: what gaps leave out until then is in the
    /// next record.
    fn record(&mut self, verdicts: &[Verdict], now: Nanos) {
        for verdict in verdicts {
            let Some((kind, amount)) = kind(verdict) else { continue };
            if let (Verdict::Gap { cause, active }, Some(sum)) =
                (verdict, self.recorded.left_out.get_mut(kind))
            {
                // Who has no name yet tells all that it has counted without one each time.
                *sum = if *cause == GapCause::Unnamed { *active } else { sum.saturating_add(*active) };
                continue;
            }
            let holds = self.recorded.holds & (1 << kind) != 0;
            if (amount || !holds) && self.is_time(kind, now) {
                self.recorded.holds |= 1 << kind;
                self.note(verdict.name(), serde_json::to_string(verdict).unwrap_or_default(), now);
            }
        }
        for (kind, cause) in GAPS.into_iter().enumerate() {
            let active = self.recorded.left_out.get(kind).copied().unwrap_or_default();
            let gap = Verdict::Gap { cause, active };
            let unknown = active == Nanos::ZERO && verdicts.contains(&gap);
            if (active > Nanos::ZERO || unknown) && self.is_time(kind, now) {
                self.recorded.left_out.get_mut(kind).map(std::mem::take);
                let detail = serde_json::to_string(&gap).unwrap_or_default();
                self.note_as(&format!("gap-{kind}"), gap.name(), detail, now);
            }
        }
    }

    /// Whether one of this kind may be recorded again; then it counts as recorded.
    fn is_time(&mut self, kind: usize, now: Nanos) -> bool {
        let Some(at) = self.recorded.at.get_mut(kind) else { return false };
        let is_time = at.saturating_add(RECORD_PAUSE) <= now;
        if is_time {
            *at = now;
            self.noted = true;
        }
        is_time
    }

    /// Something for whoever asks why two books differ.
    pub(in crate::host) fn note(&mut self, name: &str, detail: String, now: Nanos) {
        self.note_as(name, name, detail, now);
    }

    /// Of one kind there is one at an instant.
    fn note_as(&mut self, kind: &str, name: &str, detail: String, now: Nanos) {
        let account = &self.page.account;
        let epoch = self.page.life.epoch.map(|epoch| hex(epoch.id)).unwrap_or_default();
        let id = format!("{}/{epoch}/{kind}/{}", account.sandbox(), now.0);
        self.changes.push(Change::Verdict(ledger::Verdict { id, at: now, verdict: name.to_owned(), detail }));
    }

    pub(in crate::host) fn has_samples_before(&self, pruned: Nanos) -> bool {
        self.changes.iter().any(|change| begins_before(change, pruned))
    }

    /// What was counted in a time of which only hourly totals are kept stays out of them, and that is recorded.
    pub(in crate::host) fn without_samples_before(mut self, pruned: Nanos, why: &str, now: Nanos) -> Self {
        let (refused, kept): (Vec<Change>, Vec<Change>) =
            self.changes.into_iter().partition(|change| begins_before(change, pruned));
        self.changes = kept;
        let span = refused.iter().fold(Nanos::ZERO, |sum, change| match change {
            Change::Sample(one) => sum.saturating_add(one.ended_at.saturating_sub(one.started_at)),
            _ => sum,
        });
        let detail =
            serde_json::json!({ "why": why, "samples": refused.len(), "active_ns": span.0.to_string() });
        self.note_as("pruned", "refused", detail.to_string(), now);
        self
    }

    /// Nothing of it is posted but the account: the ledger takes it no other way.
    pub(in crate::host) fn without_changes(mut self, why: &str, now: Nanos) -> Self {
        let refused = format!("{:?}", self.changes);
        let cut = refused.char_indices().nth(4096).map_or(refused.len(), |(at, _)| at);
        let detail = serde_json::json!({ "why": why, "refused": refused.get(..cut) });
        self.changes.clear();
        self.note("refused", detail.to_string(), now);
        self
    }

    fn closed(&self) -> Recorded {
        let bits = self.verdicts.iter().filter_map(kind).fold(0, |bits, (kind, _)| bits | (1 << kind));
        Recorded { holds: self.recorded.holds & bits, ..self.recorded }
    }
}

fn begins_before(change: &Change, pruned: Nanos) -> bool {
    matches!(change, Change::Sample(sample) if sample.started_at < pruned)
}

fn size(size: reconcile::Size) -> Size {
    Size { memory: Mib(size.memory_mib), cpu: size.cpu }
}

/// Its number, and whether it is an amount rather than a state; `None` for what is not worth a record.
fn kind(verdict: &Verdict) -> Option<(usize, bool)> {
    match verdict {
        Verdict::Agree | Verdict::Duplicate | Verdict::PlugPending(_) => None,
        Verdict::Gap { cause, .. } => GAPS.iter().position(|one| one == cause).map(|kind| (kind, true)),
        Verdict::StaleEpoch { raised } if *raised == Nanos::ZERO => None,
        Verdict::StaleEpoch { .. } => Some((6, true)),
        Verdict::PlugPartial(_) => Some((7, false)),
        Verdict::PlugExcess(_) => Some((8, false)),
        Verdict::RequestedOnly { .. } => Some((9, true)),
        Verdict::Rollback { .. } => Some((10, false)),
        Verdict::Clone { .. } => Some((11, false)),
        Verdict::Reset { .. } => Some((12, true)),
        Verdict::GuestLow(_) => Some((13, false)),
        Verdict::GuestHigh(_) => Some((14, false)),
        Verdict::OffTier { .. } => Some((15, false)),
        Verdict::Impossible(_) => Some((16, false)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is on record after each of these decisions, at seconds.
    fn recorded(decisions: &[(u64, &[Verdict])]) -> Vec<(u64, String)> {
        let books = Books::fresh("s", "o").unwrap();
        let (mut notes, mut recorded) = (Vec::new(), Recorded::default());
        for (second, verdicts) in decisions {
            let mut draft = books.draft().unwrap();
            draft.recorded = recorded;
            draft.record(verdicts, Nanos::from_secs(*second));
            draft.verdicts.extend_from_slice(verdicts);
            recorded = draft.closed();
            notes.extend(draft.changes.iter().filter_map(|change| match change {
                Change::Verdict(verdict) => Some((*second, verdict.detail.clone())),
                _ => None,
            }));
        }
        notes
    }

    fn gap(cause: GapCause, seconds: u64) -> Verdict {
        Verdict::Gap { cause, active: Nanos::from_secs(seconds) }
    }

    #[test]
    fn what_gaps_left_out_since_a_record_is_in_the_next() {
        use GapCause::{Cap, Unnamed};
        let notes = recorded(&[
            (100, &[gap(Cap, 3)]),
            (110, &[gap(Cap, 5), gap(Unnamed, 7)]),
            (120, &[gap(Cap, 1), gap(Unnamed, 9)]),
            (159, &[]),
            (160, &[]),
            (400, &[]),
        ]);
        let detail = |gap| serde_json::to_string(&gap).unwrap();
        assert_eq!(
            notes,
            [
                (100, detail(gap(Cap, 3))),
                (110, detail(gap(Unnamed, 7))),
                (160, detail(gap(Cap, 6))),
                (400, detail(gap(Unnamed, 9))),
            ]
        );
    }

    #[test]
    fn a_state_that_begins_too_soon_for_a_record_gets_one_later() {
        let partial =
            Verdict::PlugPartial(reconcile::Plug { requested_mib: 2, plugged_mib: 1, since: Nanos::ZERO });
        let holds = std::slice::from_ref(&partial);
        let times = |decisions: &[(u64, &[Verdict])]| -> Vec<u64> {
            recorded(decisions).iter().map(|(second, _)| *second).collect()
        };
        assert_eq!(
            times(&[(100, holds), (110, &[]), (120, holds), (159, holds), (160, holds), (900, holds)]),
            [100, 160]
        );
    }
}
