//! The host's books of one sandbox: epochs with their own intervals, marks, what was posted; and beside them the truth.

use super::law::{Breach, Invariant, hold};
use super::memory::{Three, add, least, less, most, over, within};
use super::shadow::{Reach, totals};
use crate::meter::{ACTIVE_UNIT, CPU_UNIT, Count, MEMORY_UNIT, Rate, Usage};
use crate::units::{Bytes, Nanos};
use crate::wire::message::{Boundary, Counters, Epoch, Id, Mark, Report, Segment};

/// What is less than these is carried.
const UNITS: [u64; 3] = [ACTIVE_UNIT, MEMORY_UNIT, CPU_UNIT];

/// An epoch in the ledger: minted and committed before it is sent.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) epoch: Epoch,
    pub(super) paused: bool,
    /// The host's own interval: from asking the VMM to run, to knowing that it does not.
    pub(super) opened: u64,
    pub(super) closed: Option<u64>,
    /// The agent answered to this name.
    pub(super) confirmed: bool,
    /// What its `Resume` carries, decided when that is first sent.
    pub(super) mark: Option<Option<Mark>>,
    base: Option<(u64, Usage)>,
    /// It is not credited, for its base is of before its interval.
    pub(super) early: bool,
    /// For a while its agent knew no epochs.
    pub(super) unsupported: bool,
    pub(super) posted: Three,
    /// The most that was reported.
    total: Three,
    /// The last report that was committed, and when the last one came.
    pub(super) seq: u64,
    heard: u64,
    /// What was posted then.
    witnessed: u64,
    /// What its reports count began then, by the host's clock.
    counts_from: u64,
    /// The agent has told how it ended.
    told: bool,
    pub(super) reach: Option<Reach>,
    pub(super) life: Life,
    last: Option<Heard>,
}

/// The true life that a row stands for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    pub(super) vm: usize,
    /// Time run by the guest when it began, and when it ended.
    pub(super) from: u64,
    pub(super) to: Option<u64>,
    /// A fault touched it.
    pub(super) disturbed: bool,
}

/// Up to where earlier rows are settled.
#[derive(Clone, Copy, Debug, Default)]
struct Settled {
    /// When the last report of any came: a name may be minted while the one before is still heard of.
    heard: u64,
    /// What segments told of a row beyond its end: it had another name by then, or nobody answered to the next.
    ahead: u64,
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    sent: u64,
    vm: usize,
    restores: u64,
    boot_id: Id,
    instance: u32,
    total: Three,
}

/// A report as it reached the host, and what the world knows of it.
pub(super) struct Evidence<'a> {
    pub(super) report: &'a Report,
    pub(super) reach: Reach,
    /// When the request was sent that fetched it, and when it came.
    pub(super) sent: u64,
    pub(super) received: u64,
    /// From where: each restore gives a VM of its own.
    pub(super) vm: usize,
    /// Restores in the guest's lineage.
    pub(super) restores: u64,
}

/// What is true of a sandbox.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Truth {
    /// Time run, of the world.
    pub(super) run: u64,
    /// Time run, of the guests' clocks, and that times capacity.
    pub(super) ran: Three,
    /// What slices counted beyond what was run.
    pub(super) over: Three,
}

/// What the host made of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Committed: it may be acked.
    Posted,
    /// Nobody has named that life.
    Provisional,
    /// It was named for another sandbox.
    Foreign,
    /// Its epoch began anew: the agent's state is not the one that was named.
    Restarted,
    /// It says more than the host's own interval at once: what got its name began before, when it was forked in a
    /// provisional life, or counts a tick again after a lost state.
    Early,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Books {
    pub(super) rows: Vec<Row>,
    marks: Vec<(Id, Three)>,
    pub(super) posted: Three,
    pub(super) truth: Truth,
    /// The most that this sandbox can have.
    pub(super) limit: Rate,
}

impl Books {
    pub(super) fn new(limit: Rate) -> Self {
        Self { limit, ..Self::default() }
    }

    pub(super) fn current(&self) -> Option<usize> {
        self.rows.len().checked_sub(1)
    }

    pub(super) fn row(&self, at: usize) -> Option<&Row> {
        self.rows.get(at)
    }

    fn find(&self, id: Id) -> Option<usize> {
        self.rows.iter().rposition(|row| row.epoch.id == id)
    }

    /// A new life in the ledger. A name for what runs on is no edge: where nobody answered to the name before, it is
    /// for all of that life; else it may have begun when that was last heard of.
    pub(super) fn open(&mut self, epoch: Epoch, mut paused: bool, mut now: u64, mut life: Life) -> usize {
        if let Some(before) = self.rows.last().filter(|row| !paused && row.closed.is_none()) {
            if before.confirmed {
                now = before.heard;
            } else {
                // Nor does its agent know yet that it was paused.
                paused = before.paused;
                now = before.opened;
                life.from = before.life.from;
                life.disturbed |= before.life.disturbed;
            }
        }
        self.rows.push(Row {
            epoch,
            paused,
            opened: now,
            closed: None,
            confirmed: false,
            mark: None,
            base: None,
            early: false,
            unsupported: false,
            posted: [0; 3],
            total: [0; 3],
            seq: 0,
            heard: now,
            witnessed: 0,
            counts_from: now,
            told: false,
            reach: None,
            life,
            last: None,
        });
        self.rows.len() - 1
    }

    /// The VMM says that it does not run any more.
    pub(super) fn close(&mut self, now: u64, run: u64) {
        for row in self.rows.iter_mut().rev().take_while(|row| row.closed.is_none()) {
            row.closed = Some(now);
            row.life.to.get_or_insert(run);
        }
        self.settle();
    }

    /// The mark that names this row, of the boot that the guest is believed to be.
    pub(super) fn mark(&mut self, at: usize, boot_id: Option<Id>) -> Option<Mark> {
        let known = boot_id.and_then(|boot_id| self.marks.iter().find(|(id, _)| *id == boot_id));
        let mark = known.map(|(boot_id, counters)| Mark { boot_id: *boot_id, counters: counted(*counters) });
        let row = self.rows.get_mut(at)?;
        *row.mark.get_or_insert(mark)
    }

    /// Commits a report.
    pub(super) fn report(&mut self, evidence: &Evidence<'_>) -> Result<Verdict, Breach> {
        let Evidence { report, reach, received, .. } = *evidence;
        let id = report.identity.epoch.id;
        if id == Id::default() {
            return Ok(Verdict::Provisional);
        }
        let Some(at) = self.find(id) else { return Ok(Verdict::Foreign) };
        let total = less(totals(&report.usage), totals(&report.base));
        hold(Invariant::Wire, reach.epoch == id && reach.total == total, || {
            format!("a report says {total:?}, the agent's state was {:?}", reach.total)
        })?;
        let Some(row) = self.rows.get_mut(at) else { return Ok(Verdict::Foreign) };
        if row.base.is_some_and(|(run, _)| run != reach.base) {
            return Ok(Verdict::Restarted);
        }
        let same = row.base.is_none_or(|(_, base)| base == report.base);
        hold(Invariant::BaseFixed, same, || format!("{id} is reported with another base"))?;
        let [active, ..] = total;
        let interval = u128::from(row.closed.unwrap_or(received).saturating_sub(row.opened));
        row.early |= row.base.is_none() && active * 1000 > interval * 1001;
        row.base = Some((reach.base, report.base));
        row.monotone(report)?;
        row.possible(evidence, total)?;
        row.seq = row.seq.max(report.identity.seq);
        row.heard = received;
        // The first one may have been late.
        let counts_from = received.saturating_sub(narrow(active));
        row.counts_from = if row.confirmed { row.counts_from.min(counts_from) } else { counts_from };
        let newly = !std::mem::replace(&mut row.confirmed, true);
        if newly {
            self.succeed(at, received);
        }
        self.mark_up(report.identity.boot_id, totals(&report.usage));
        self.post(at, total, reach, received)?;
        let Some(row) = self.rows.get_mut(at) else { return Ok(Verdict::Foreign) };
        let [posted, ..] = row.posted;
        row.witnessed = narrow(posted);
        Ok(if row.early { Verdict::Early } else { Verdict::Posted })
    }

    /// Commits a segment; one of another sandbox's epoch is its parent's to deliver.
    pub(super) fn segment(&mut self, segment: &Segment, closed: &[Reach], now: u64) -> Result<(), Breach> {
        let Some(at) = self.find(segment.epoch.id) else { return Ok(()) };
        let usage = &segment.usage;
        let total = [usage.active.total(), usage.memory.total(), usage.cpu.total()];
        let Some(row) = self.rows.get_mut(at) else { return Ok(()) };
        let known = closed.iter().rev().find(|reach| reach.epoch == segment.epoch.id);
        let ours = known.filter(|reach| row.base.is_none_or(|(run, _)| run == reach.base));
        // Only the last segment of an epoch is all of it.
        if let Some(reach) = ours {
            // One of an older snapshot knows nothing of what was reported since.
            let [active, ..] = total;
            row.told |= segment.boundary == Boundary::Resume && active >= u128::from(row.witnessed);
            // A cut drops the carry, which an earlier segment may still have.
            let carries = UNITS.map(u128::from);
            hold(Invariant::Wire, within(total, add(reach.total, carries)), || {
                format!("a segment says {total:?}, its epoch ended at {:?}", reach.total)
            })?;
            let reach =
                if total == reach.total { *reach } else { Reach { total, ..row.reach.unwrap_or_default() } };
            return self.post(at, total, reach, now);
        }
        Ok(())
    }

    fn post(&mut self, at: usize, total: Three, reach: Reach, now: u64) -> Result<(), Breach> {
        let Some(row) = self.rows.get_mut(at) else { return Ok(()) };
        let before = row.posted;
        row.total = most(row.total, total);
        row.repost(self.limit, now);
        if row.reach.is_none_or(|known| known.run < reach.run) && reach.epoch == row.epoch.id {
            row.reach = Some(reach);
        }
        self.posted = add(self.posted, less(row.posted, before));
        let bound = add(self.truth.ran, self.truth.over);
        hold(Invariant::PostsNoMore, within(self.posted, bound), || {
            format!("posted {:?}, run and allowed {bound:?}", self.posted)
        })
    }

    /// Where a life got a new name while it ran, the old one ends when the new one is known.
    fn succeed(&mut self, at: usize, now: u64) {
        for row in self.rows.iter_mut().take(at).rev().take_while(|row| row.closed.is_none()) {
            row.closed = Some(now);
        }
        self.settle();
    }

    /// An interval that ends is longer than it was at the last report, which may have been cut to it.
    fn settle(&mut self) {
        for row in self.rows.iter_mut().rev().take(3) {
            let before = row.posted;
            row.repost(self.limit, u64::MAX);
            self.posted = add(self.posted, less(row.posted, before));
        }
    }

    /// What is posted of each row by the host's word alone, since no guest has witnessed it (`requested_only`): all that
    /// an agent left unanswered which knew no epochs, and behind the last report, unless a segment told of the end.
    pub(super) fn unwitnessed(&self) -> Vec<(u64, u64)> {
        let nexts = self.rows.iter().skip(1).map(|next| next.opened).chain([u64::MAX]);
        let mut settled = Settled::default();
        self.rows.iter().zip(nexts).map(|(row, next)| row.unwitnessed(next, &mut settled)).collect()
    }

    /// With what is posted by its word alone, the host posts no more than its own intervals, and what is allowed.
    pub(super) fn by_word(&self) -> Result<(), Breach> {
        let [posted, ..] = self.posted;
        let [over, ..] = self.truth.over;
        let word: u64 =
            self.unwitnessed().iter().map(|(before, behind)| before.saturating_add(*behind)).sum();
        let (all, intervals) = (posted.saturating_add(word.into()), u128::from(self.intervals()));
        hold(Invariant::PostsNoMore, all * 1000 <= intervals * 1001 + over * 1000, || {
            format!(
                "{word} ns are posted by the host's word, {all} ns in all, its intervals are {intervals} ns"
            )
        })
    }

    /// The host's intervals of all rows together, each instant once.
    pub(super) fn intervals(&self) -> u64 {
        let mut covered = 0;
        self.rows.iter().fold(0, |sum: u64, row| {
            let (from, to) = (row.opened.max(covered), row.closed.unwrap_or(row.opened));
            covered = covered.max(to);
            sum.saturating_add(to.saturating_sub(from))
        })
    }

    fn mark_up(&mut self, boot_id: Id, counters: Three) {
        match self.marks.iter_mut().find(|(id, _)| *id == boot_id) {
            Some((_, mark)) => *mark = most(*mark, counters),
            None => self.marks.push((boot_id, counters)),
        }
    }
}

impl Row {
    /// Posts what was reported, but no more than the host's own interval so far.
    fn repost(&mut self, limit: Rate, now: u64) {
        if self.early {
            return;
        }
        let until = self.closed.unwrap_or(if now == u64::MAX { self.opened } else { now });
        let interval = until.saturating_sub(self.opened);
        self.posted = most(self.posted, least(self.total, over(limit, interval)));
    }

    /// What its guest has counted beyond the host's interval, which begins where its reports begin to count, and did not
    /// count of a pause: it ran under this name after a resume that it had not noticed, until it heard of the next.
    pub(super) fn beyond(&self) -> u64 {
        let Some(reach) = self.reach.filter(|_| !self.early) else { return 0 };
        let [total, ..] = reach.total;
        let interval = self.closed.unwrap_or(self.opened).saturating_sub(self.counts_from.max(self.opened));
        let of_pauses = reach.unannounced.saturating_add(reach.uncertain);
        narrow(total).saturating_sub(interval).saturating_sub(of_pauses)
    }

    /// By the host's word alone: before the first report, and behind the last one, up to where `next` begins.
    fn unwitnessed(&self, next: u64, settled: &mut Settled) -> (u64, u64) {
        let closed = self.closed.unwrap_or(self.opened);
        let to = closed.min(next);
        let [posted, ..] = self.posted;
        let from = if self.early { self.opened } else { self.heard };
        let span = to.saturating_sub(from.max(settled.heard));
        let before = if self.unsupported {
            self.counts_from.min(to).saturating_sub(self.opened.max(settled.heard))
        } else {
            0
        };
        // A name that was taken late is heard of long after its row has ended.
        settled.heard = settled.heard.max(from.min(closed));
        let ahead = std::mem::take(&mut settled.ahead);
        let behind =
            narrow(posted).saturating_sub(self.witnessed).saturating_add(ahead.saturating_sub(before));
        settled.ahead = behind.saturating_sub(span);
        (before.saturating_sub(ahead), if self.told { 0 } else { span.saturating_sub(behind) })
    }

    fn monotone(&self, report: &Report) -> Result<(), Breach> {
        let Some(Some(mark)) = self.mark else { return Ok(()) };
        let floor = [mark.counters.active.total(), mark.counters.memory.total(), mark.counters.cpu.total()];
        let above = mark.boot_id != report.identity.boot_id || within(floor, totals(&report.usage));
        hold(Invariant::Monotone, above, || {
            format!("{:?} is below the mark {floor:?} of its own resume", totals(&report.usage))
        })
    }

    /// An honest guest gains no more than the host's time.
    fn possible(&mut self, evidence: &Evidence<'_>, total: Three) -> Result<(), Breach> {
        let identity = &evidence.report.identity;
        let heard = Heard {
            sent: evidence.sent,
            vm: evidence.vm,
            restores: evidence.restores,
            boot_id: identity.boot_id,
            instance: identity.instance,
            total,
        };
        let Some(last) = self.last.replace(heard) else { return Ok(()) };
        let same = last.vm == heard.vm
            && last.restores == heard.restores
            && last.boot_id == heard.boot_id
            && last.instance <= heard.instance;
        let [before, ..] = last.total;
        let [after, ..] = total;
        let gained = after.saturating_sub(before);
        let passed = u128::from(evidence.received.saturating_sub(last.sent));
        hold(Invariant::NotImpossible, !same || gained * 1000 <= passed * 1001, || {
            format!("{gained} ns were counted in {passed} ns")
        })
    }
}

fn narrow(amount: u128) -> u64 {
    u64::try_from(amount).unwrap_or(u64::MAX)
}

fn counted([active, memory, cpu]: Three) -> Counters {
    Counters { active: count(active), memory: count(memory), cpu: count(cpu), cpu_used: Nanos::ZERO }
}

fn count<const UNIT: u64>(total: u128) -> Count<UNIT> {
    let unit = u128::from(UNIT);
    Count {
        whole: u64::try_from(total / unit).unwrap_or(u64::MAX),
        carry: u64::try_from(total % unit).unwrap_or(0),
    }
}

/// What a sandbox can have at most.
pub(super) fn limit(boot: Bytes, device: Bytes, cpu: crate::units::MilliCpu) -> Rate {
    Rate { memory: boot.saturating_add(device), cpu }
}
