//! One slice of an agent's time: the row of the table that it must have taken, and what became of what was run.

use super::guest::Guest;
use super::law::{Breach, Invariant, hold};
use super::memory::{Three, add, less, most, over};
use super::shadow::{Reach, Shadow, same_but_rebased};
use crate::meter::{Rate, Usage};
use crate::session::{Saved, Session};
use crate::units::Nanos;
use crate::wire::message::{Epoch, Id};

#[derive(Clone, Copy, Debug)]
pub(super) struct Last {
    pub(super) at: u64,
    pub(super) rate: Rate,
    pub(super) run: u64,
    pub(super) ran: Three,
    pub(super) jumped: u64,
    pub(super) went_back: u64,
}

impl Last {
    fn now(guest: &GuestNow, rate: Rate) -> Self {
        Self {
            at: guest.monotonic,
            rate,
            run: guest.run,
            ran: guest.ran,
            jumped: guest.jumped,
            went_back: guest.went_back,
        }
    }

    /// What a first observation goes back to.
    fn boot(guest: &GuestNow, rate: Rate) -> Self {
        let (run, ran) = guest.born;
        Self { at: 0, rate, run, ran, jumped: 0, went_back: 0 }
    }
}

/// The parts of a session's state that a step may change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    pub(super) epoch: Epoch,
    pub(super) base: Usage,
    pub(super) usage: Usage,
    pub(super) last: Option<(Nanos, Rate)>,
    pub(super) held: bool,
}

impl Before {
    pub(super) fn of(session: &Session) -> Self {
        let saved = session.saved();
        Self {
            epoch: saved.epoch,
            base: saved.base,
            usage: *saved.meter.usage(),
            last: saved.meter.last(),
            held: saved.meter.held(),
        }
    }
}

/// What one slice came to, beyond what the agent counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Excess {
    /// Counted but not run, for each counter.
    pub(super) over: Three,
}

/// What a look showed the agent, with how long its wake-up was late.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown {
    pub(super) rate: Rate,
    pub(super) tick: u64,
    pub(super) late: u64,
    /// The agent has run since the last observation.
    pub(super) awake: bool,
    /// The `Resume` of this wake-up that has the epoch's id, and its `paused`.
    pub(super) resume: Option<(Id, bool)>,
    /// There is a `Checkpoint` in it, which may hold what the slice began without.
    pub(super) checkpoint: bool,
}

/// What a slice was made of.
#[derive(Clone, Copy, Debug)]
struct Said {
    delta: u64,
    backwards: bool,
    first: bool,
    suspended: u64,
    dropped: u64,
    counted: u64,
}

/// What the world knows of a guest at a wake-up.
#[derive(Clone, Copy, Debug)]
pub(super) struct GuestNow {
    pub(super) monotonic: u64,
    pub(super) run: u64,
    pub(super) ran: Three,
    pub(super) born: (u64, Three),
    pub(super) jumped: u64,
    pub(super) went_back: u64,
    pub(super) restores: u64,
    pub(super) restored_within: u64,
    pub(super) ran_before: Three,
    pub(super) counted_from_nothing: u32,
}

impl GuestNow {
    pub(super) fn of(guest: &Guest) -> Self {
        Self {
            monotonic: guest.monotonic,
            run: guest.run,
            ran: guest.ran,
            born: guest.born,
            jumped: guest.jumped,
            went_back: guest.went_back,
            restores: guest.restores,
            restored_within: guest.restored_within,
            ran_before: guest.ran_before,
            counted_from_nothing: guest.counted_from_nothing,
        }
    }
}

impl Shadow {
    /// What the slice that an observation closed came to, and whether it may.
    pub(super) fn slice(
        &mut self,
        before: Before,
        saved: &Saved,
        guest: &GuestNow,
        shown: Shown,
    ) -> Result<Excess, Breach> {
        let after = saved.meter.usage();
        let first = self.last.is_none();
        let last = self.last.unwrap_or_else(|| Last::boot(guest, shown.rate));
        let delta = guest.monotonic.saturating_sub(last.at);
        let backwards = guest.monotonic < last.at;
        let run = guest.run.saturating_sub(last.run);
        let suspended = after.suspended.0.saturating_sub(before.usage.suspended.0);
        let dropped = after.dropped.active.0.saturating_sub(before.usage.dropped.active.0);
        let carry = if dropped > 0 { before.usage.active.carry } else { 0 };
        let counted = delta.saturating_sub(suspended).saturating_sub(dropped.saturating_sub(carry));
        let said = Said { delta, backwards, first, suspended, dropped, counted };
        self.row(before, saved, guest.restores, shown, said)?;

        let again = first && guest.counted_from_nothing > 1;
        self.cap = shown.tick.saturating_mul(2);
        let unrun = if again { 0 } else { counted.saturating_sub(run) };
        let jumps = guest.jumped.saturating_sub(last.jumped);
        hold(Invariant::Slice, unrun <= jumps.min(self.cap), || {
            format!("{counted} ns were counted of {run} ns run, the clock jumped by {jumps} ns only")
        })?;
        let back = guest.went_back.saturating_sub(last.went_back);
        let due = shown.tick.saturating_add(shown.late).saturating_add(back);
        hold(Invariant::Bounded, !shown.awake || first || run <= due, || {
            format!("{run} ns ran between two observations, at most {due} were due")
        })?;

        if suspended == 0 && !backwards {
            self.observed = add(self.observed, over(last.rate, delta));
        }
        self.reach.pass(guest.run, run, said, carry, again);
        if after.uncertain > before.usage.uncertain {
            self.reach.uncertain += unrun;
        } else {
            self.reach.unannounced += unrun;
        }
        self.last = Some(Last::now(guest, shown.rate));
        // What ran before a fork was its parent's.
        let ran = if again { [0; 3] } else { less(guest.ran, most(last.ran, guest.ran_before)) };
        Ok(Excess { over: less(over(last.rate, counted), ran) })
    }

    /// The row of the table that the slice must have taken.
    fn row(
        &self,
        before: Before,
        saved: &Saved,
        restores: u64,
        shown: Shown,
        said: Said,
    ) -> Result<(), Breach> {
        let after = saved.meter.usage();
        let cap = shown.tick.saturating_mul(2);
        let opened = opens(before, saved);
        let named = shown.resume.filter(|(id, _)| *id == saved.epoch.id && before.epoch.id != *id);
        let released = named.is_some_and(|(_, paused)| !paused);
        // A signal may have told of a resume in the same wake-up.
        let surely_released = released && restores == 0;
        let Said { delta, backwards, first, suspended, dropped, counted } = said;
        let right = if first {
            counted == delta.min(shown.tick) && suspended == 0
        } else if backwards {
            counted == 0 && suspended == 0 && dropped == 0 && after.anomalies == before.usage.anomalies + 1
        } else if suspended > 0 {
            before.held && suspended == delta && dropped == 0
        } else if before.held && !released && (delta > cap || delta > 0 && opened) {
            false
        } else if delta <= cap {
            counted == delta && dropped == 0
        } else {
            counted == cap && (released || !opened) || counted == 0 && opened && !surely_released
        };
        hold(Invariant::Slice, right, || {
            format!(
                "a slice of {delta} ns (back: {backwards}, first: {first}, held: {}, an epoch began: {opened}) \
                 counted {counted}, dropped {dropped}, suspended {suspended} ns",
                before.held
            )
        })?;
        let uncertain = after.uncertain.0.saturating_sub(before.usage.uncertain.0);
        let resumed = opened && !before.held && !first && !backwards && delta <= cap;
        let right = match (resumed, released) {
            (true, true) => uncertain == 0 || uncertain == counted && !surely_released,
            (true, false) if shown.checkpoint => uncertain == 0 || uncertain == counted,
            (true, false) => uncertain == counted,
            (false, _) => uncertain == 0,
        };
        hold(Invariant::Slice, right, || {
            format!("{uncertain} ns of {counted} are uncertain; a resume is in the slice: {resumed}")
        })?;
        let more = after.active.whole >= before.usage.active.whole
            && after.memory.whole >= before.usage.memory.whole
            && after.cpu.whole >= before.usage.cpu.whole;
        hold(Invariant::Monotone, more, || format!("{:?} went down to {after:?}", before.usage))
    }
}

impl Reach {
    /// Goes on by a slice that ran for `run` up to `now`; what was not counted of it went somewhere.
    fn pass(&mut self, now: u64, run: u64, said: Said, carry: u64, again: bool) {
        let Said { suspended, dropped, counted, .. } = said;
        self.run = now;
        let lost = run.saturating_sub(counted);
        if again {
            // All before it was counted by an agent whose state is lost: this life begins with what it counts.
            self.base = now.saturating_sub(counted);
            return;
        }
        let declared = lost.min(suspended.max(dropped.saturating_sub(carry)));
        if suspended > 0 {
            self.suspended += declared;
        } else {
            self.dropped += declared + carry;
        }
        self.hidden += lost - declared;
    }
}

/// Whether an epoch began, rather than got its name.
fn opens(before: Before, saved: &Saved) -> bool {
    let named = before.epoch.id == Id::default() && same_but_rebased(&before.base, &saved.base);
    !named && (before.epoch != saved.epoch || before.base != saved.base)
}
