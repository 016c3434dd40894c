//! What the world knows of an agent's state, kept beside it and rolled back with it; the laws of one lineage.

use super::guest::Guest;
use super::law::{Breach, Invariant, hold};
use super::memory::{Three, add, less};
use super::slice::{Before, Excess, GuestNow, Last, Shown};
use crate::meter::{ACTIVE_UNIT, CPU_UNIT, MEMORY_UNIT, Usage};
use crate::session::{Saved, Session};
use crate::wire::message::{Id, Report};

/// Closed epochs that are remembered; the agent's ring has fewer segments.
const CLOSED_MAX: usize = 40;

/// How far the counters of one epoch have come, and what became of the time that its guest ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    pub(super) epoch: Id,
    /// Time run when its base was taken, and at its last observation.
    pub(super) base: u64,
    pub(super) run: u64,
    /// Counted since its base.
    pub(super) total: Three,
    /// How far a dropped carry has put the counter below its base, where none was counted since.
    pub(super) below_base: u64,
    /// Run, but dropped, suspended, or hidden by a clock that went back.
    pub(super) dropped: u64,
    pub(super) suspended: u64,
    pub(super) hidden: u64,
    /// Counted, but not run: as `uncertain` says, and without a word.
    pub(super) uncertain: u64,
    pub(super) unannounced: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Shadow {
    pub(super) last: Option<Last>,
    pub(super) observed: Three,
    pub(super) reach: Reach,
    /// Epochs with a name that are over, oldest first.
    pub(super) closed: Vec<Reach>,
    /// The highest number that left in an earlier wake-up, and those of this one: each answer waits in its own
    /// connection's turn.
    pub(super) floor: u64,
    pub(super) sent: Vec<u64>,
    /// Restores that an epoch was opened for, and when the last one was, on the guest's clock.
    pub(super) restores: u64,
    /// Restores that were noticed with the last one, at once: a late trace of it is taken for another.
    pub(super) spare: u64,
    pub(super) opened: u64,
    /// There was a checkpoint or a release since: a late trace is taken for a new one.
    pub(super) was_held: bool,
    pub(super) cap: u64,
}

impl Shadow {
    /// Of an agent without a state.
    pub(super) fn fresh(guest: &Guest) -> Self {
        let reach = Reach { base: guest.born.0, run: guest.born.0, ..Reach::default() };
        Self { restores: guest.restores.saturating_sub(1), reach, ..Self::default() }
    }

    /// A wake-up begins.
    pub(super) fn wakes(&mut self) {
        self.floor = self.sent.drain(..).fold(self.floor, u64::max);
    }

    pub(super) fn reach(&self) -> Reach {
        self.reach
    }

    /// As it is after a restart from a file: numbers that were given out are not given again.
    pub(super) fn saved(&self, saved: &Saved) -> Self {
        Self { floor: saved.seq, sent: Vec::new(), ..self.clone() }
    }

    /// After a step of the session: the slice that it closed if it closed one, then the epoch that it opened.
    pub(super) fn stepped(
        &mut self,
        before: Before,
        session: &Session,
        guest: &GuestNow,
        shown: Option<Shown>,
    ) -> Result<Excess, Breach> {
        let saved = session.saved();
        let mut excess = Excess::default();
        if let Some(shown) = shown {
            excess = self.slice(before, saved, guest, shown)?;
        } else {
            hold(Invariant::Slice, before.last == saved.meter.last(), || {
                "time was counted without a look".to_owned()
            })?;
        }
        // A release says nothing of a resume, which a late trace may still tell of.
        let released =
            shown.and_then(|shown| shown.resume).is_some_and(|(id, paused)| !paused && id == saved.epoch.id);
        self.epoch(before, saved, guest, released)?;
        self.was_held |= saved.meter.held();
        self.conserve(saved)?;
        Ok(excess)
    }

    /// The epoch after a step: the same, named in place, or one that begins here.
    fn epoch(
        &mut self,
        before: Before,
        saved: &Saved,
        guest: &GuestNow,
        released: bool,
    ) -> Result<(), Breach> {
        let total = |usage: &Usage| less(totals(usage), totals(&saved.base));
        if before.epoch == saved.epoch && before.base == saved.base {
            self.reach.total = total(saved.meter.usage());
            self.reach.below_base = below(&saved.base, totals(saved.meter.usage()));
            return Ok(());
        }
        let named = before.epoch.id != Id::default();
        hold(Invariant::BaseFixed, !named || before.epoch.id != saved.epoch.id, || {
            format!("{} has another base than before", saved.epoch.id)
        })?;
        if !named && same_but_rebased(&before.base, &saved.base) {
            self.reach.epoch = saved.epoch.id;
            self.reach.total = total(saved.meter.usage());
            self.was_held |= released;
            return Ok(());
        }
        hold(Invariant::BaseFixed, saved.base == *saved.meter.usage(), || {
            format!("an epoch began at {:?}, but its base is {:?}", saved.meter.usage(), saved.base)
        })?;
        if saved.epoch.id == Id::default() {
            let cap = self.cap;
            let late = guest.restores > 0
                && (guest.monotonic.saturating_sub(self.opened) > cap || guest.restored_within <= cap);
            let known = guest.restores <= self.restores && self.spare == 0;
            let fair = !known || before.held || late || self.was_held;
            hold(Invariant::OneResume, fair, || {
                "a resume was noticed that no restore explains, and nothing was held".to_owned()
            })?;
        }
        self.told(guest, released);
        if named {
            // A mark that raises the new base is no usage of the old one.
            let raised = less(rebased(&saved.base), rebased(&before.usage));
            let end = less(totals(saved.meter.usage()), raised);
            let total = less(end, totals(&before.base));
            self.closed.push(Reach { total, below_base: below(&before.base, end), ..self.reach });
            if self.closed.len() > CLOSED_MAX {
                self.closed.remove(0);
            }
        }
        self.reach = Reach { epoch: saved.epoch.id, base: guest.run, run: guest.run, ..Reach::default() };
        self.floor = 0;
        self.sent.clear();
        Ok(())
    }

    /// Restores so far are accounted for.
    fn told(&mut self, guest: &GuestNow, released: bool) {
        self.was_held = released;
        if !released {
            self.spare = match guest.restores.saturating_sub(self.restores) {
                0 => self.spare.saturating_sub(1),
                noticed => noticed - 1,
            };
            self.restores = guest.restores;
            self.opened = guest.monotonic;
        }
    }

    fn conserve(&self, saved: &Saved) -> Result<(), Breach> {
        let usage = saved.meter.usage();
        let booked = add(totals(usage), dropped(usage));
        let owed = add(self.observed, rebased(usage));
        let carried = usage.active.carry < ACTIVE_UNIT
            && usage.memory.carry < MEMORY_UNIT
            && usage.cpu.carry < CPU_UNIT;
        hold(Invariant::Conservation, booked == owed && carried, || {
            format!("counted + dropped {booked:?}, observed + rebased {owed:?}")
        })
    }

    /// A report leaves; `repeats` if it is a notification, which may.
    pub(super) fn sends(
        &mut self,
        report: &Report,
        file: Option<&Saved>,
        repeats: bool,
    ) -> Result<(), Breach> {
        let seq = report.identity.seq;
        let rises = repeats || seq > self.floor && !self.sent.contains(&seq);
        hold(Invariant::SeqRises, rises, || {
            format!("report {seq} follows report {}, and {:?} now", self.floor, self.sent)
        })?;
        self.sent.push(seq);
        let kept = file.is_some_and(|saved| {
            saved.epoch == report.identity.epoch
                && saved.base == report.base
                && saved.seq >= seq
                && saved.meter.usage().active.total() >= report.usage.active.total()
        });
        hold(Invariant::SavedFirst, kept, || {
            format!("report {seq} of {} left before its state was saved", report.identity.epoch.id)
        })?;
        hold(Invariant::Bounded, report.tail.segments_waiting <= 32, || {
            format!("{} segments wait", report.tail.segments_waiting)
        })
    }
}

/// How far a cut that dropped the carry has put running time below the base.
fn below(base: &Usage, totals: Three) -> u64 {
    let [below, ..] = less(self::totals(base), totals);
    u64::try_from(below).unwrap_or(u64::MAX)
}

/// Counted, with carries.
pub(super) fn totals(usage: &Usage) -> Three {
    [usage.active.total(), usage.memory.total(), usage.cpu.total()]
}

fn dropped(usage: &Usage) -> Three {
    [u128::from(usage.dropped.active.0), usage.dropped.memory.0, usage.dropped.cpu.0]
}

fn rebased(usage: &Usage) -> Three {
    [u128::from(usage.rebased.active.0), usage.rebased.memory.0, usage.rebased.cpu.0]
}

/// Whether only a rebase lies between the two.
pub(super) fn same_but_rebased(before: &Usage, after: &Usage) -> bool {
    let rest = |usage: &Usage| (usage.suspended, usage.uncertain, usage.dropped, usage.gaps, usage.anomalies);
    let raised = less(rebased(after), rebased(before));
    totals(after) == add(totals(before), raised) && rest(before) == rest(after)
}
