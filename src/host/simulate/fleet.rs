//! A fleet over hours: what two tickers and this meter make of the same lives.

use super::Broken;
use super::account::{Books, Row};
use super::faults::Faults;
use super::guest::SECOND;
use super::random::Random;
use super::ticker::Ticked;
use super::world::{Settings, World};
use crate::units::Nanos;
use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// What to simulate.
#[derive(Clone, Copy, Debug)]
pub struct Fleet {
    /// For how long.
    pub hours: u64,
    /// Sandboxes at the beginning; each has a world with its clones.
    pub sandboxes: u64,
    /// What goes wrong.
    pub faults: Faults,
    /// Where chance begins.
    pub seed: u64,
}

/// A way to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Policy {
    /// The host's ticker, each tick cut to whole seconds.
    Truncating,
    /// The host's ticker, what is cut being carried to the next tick.
    Carrying,
    /// This meter: the agent's counters, by epoch.
    Meter,
}

impl Policy {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Truncating => "truncating ticker",
            Self::Carrying => "carrying ticker",
            Self::Meter => "guestmeter",
        }
    }
}

/// Where running time went, or came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Each tick cut to whole seconds.
    Truncation,
    /// A first look, billed an interval whatever ran.
    FirstGuess,
    /// More than two intervals between two looks.
    Cap,
    /// A carry that a cap or a new look forgot.
    Carry,
    /// Run since the last look, and never billed.
    Tail,
    /// Billed while the VM stood still.
    Paused,
    /// The agent's `dropped`: it did not run, or nobody can say how much of a pause did.
    Dropped,
    /// Run before an epoch had its base, where a state was lost or nobody had named a life: `gap`.
    Unnamed,
    /// A clock that went back over a pause: `anomalies`.
    ClockBack,
    /// Beyond the host's own interval of the epoch.
    Interval,
    /// The agent's `suspended`: run between a checkpoint and the pause, or between the resume and its being noticed.
    Suspended,
    /// The agent's `uncertain`: a noticed pause shorter than the cap.
    Uncertain,
    /// A pause that nobody announced or noticed: at most the cap of each.
    Unannounced,
    /// A life, or the beginning of one, that no agent has answered for, by the host's word: `requested_only`.
    Unanswered,
    /// Behind the last report of a life, by the host's word.
    Unreported,
    /// The highest count of an epoch is kept, also where a rollback that nobody had named yet went on from a lower one.
    RolledBack,
    /// The guest's clock is not the host's.
    Drift,
}

/// In which of the meter's own words a cause is declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declared {
    /// Cut, and never billed.
    Dropped,
    /// In a hold, and never billed.
    Suspended,
    /// Billed without knowing better: by what the guest could not tell apart, or by the host's word alone.
    Uncertain,
}

impl Declared {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::Suspended => "suspended",
            Self::Uncertain => "uncertain",
        }
    }
}

impl Cause {
    /// How the meter declares it; the tickers declare nothing.
    #[must_use]
    pub const fn declared(self) -> Option<Declared> {
        match self {
            Self::Dropped | Self::Unnamed | Self::ClockBack | Self::Interval => Some(Declared::Dropped),
            Self::Suspended => Some(Declared::Suspended),
            Self::Uncertain
            | Self::Unannounced
            | Self::Unanswered
            | Self::Unreported
            | Self::RolledBack
            | Self::Drift => Some(Declared::Uncertain),
            Self::Truncation | Self::FirstGuess | Self::Cap | Self::Carry | Self::Tail | Self::Paused => None,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Truncation => "truncation",
            Self::FirstGuess => "first_guess",
            Self::Cap => "cap",
            Self::Carry => "carry",
            Self::Tail => "tail",
            Self::Paused => "paused",
            Self::Dropped => "dropped",
            Self::Suspended => "suspended",
            Self::Unnamed => "unnamed",
            Self::Unanswered => "unanswered",
            Self::Unreported => "unreported",
            Self::ClockBack => "clock_back",
            Self::Interval => "interval",
            Self::Uncertain => "uncertain",
            Self::Unannounced => "unannounced",
            Self::RolledBack => "rolled_back",
            Self::Drift => "drift",
        }
    }
}

/// What one policy came to. In ns of running time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Which.
    pub policy: Policy,
    /// Billed.
    pub posted: u128,
    /// Run but not billed, and billed but not run, by cause.
    pub causes: Vec<(Cause, u128, u128)>,
    /// What no cause explains: must be zero.
    pub undeclared: u128,
}

impl Outcome {
    fn new(policy: Policy) -> Self {
        Self { policy, posted: 0, causes: Vec::new(), undeclared: 0 }
    }

    fn add(&mut self, cause: Cause, lost: u128, doubled: u128) {
        match self.causes.iter_mut().find(|(known, ..)| *known == cause) {
            Some((_, all_lost, all_doubled)) => {
                *all_lost += lost;
                *all_doubled += doubled;
            }
            None => self.causes.push((cause, lost, doubled)),
        }
    }

    fn merge(&mut self, other: &Self) {
        self.posted += other.posted;
        self.undeclared += other.undeclared;
        for (cause, lost, doubled) in &other.causes {
            self.add(*cause, *lost, *doubled);
        }
    }

    /// Run, but not billed.
    #[must_use]
    pub fn lost(&self) -> u128 {
        self.causes.iter().map(|(_, lost, _)| lost).sum()
    }

    /// Billed, but not run.
    #[must_use]
    pub fn doubled(&self) -> u128 {
        self.causes.iter().map(|(_, _, doubled)| doubled).sum()
    }
}

/// What a fleet came to.
#[derive(Clone, Debug)]
pub struct Lived {
    /// Sandboxes, with the clones.
    pub sandboxes: u64,
    /// Lives: from a VMM's start or resume to its pause or end.
    pub lives: u64,
    /// Events.
    pub events: u64,
    /// True running time of all, in ns.
    pub run: u128,
    /// By policy.
    pub outcomes: Vec<Outcome>,
    /// Worlds that broke a law.
    pub broken: Vec<Broken>,
}

impl Default for Lived {
    fn default() -> Self {
        let outcomes = [Policy::Truncating, Policy::Carrying, Policy::Meter].map(Outcome::new).to_vec();
        Self { sandboxes: 0, lives: 0, events: 0, run: 0, outcomes, broken: Vec::new() }
    }
}

impl Lived {
    fn merge(&mut self, other: Self) {
        self.sandboxes += other.sandboxes;
        self.lives += other.lives;
        self.events += other.events;
        self.run += other.run;
        for (mine, other) in self.outcomes.iter_mut().zip(&other.outcomes) {
            mine.merge(other);
        }
        self.broken.extend(other.broken);
    }

    fn ticked(&mut self, policy: Policy, ticked: &Ticked) {
        let Some(outcome) = self.outcomes.iter_mut().find(|outcome| outcome.policy == policy) else { return };
        outcome.posted += u128::from(ticked.posted);
        let causes = [
            (Cause::Truncation, ticked.truncated, 0),
            (Cause::FirstGuess, ticked.guess_short, ticked.guess_long),
            (Cause::Cap, ticked.capped, 0),
            (Cause::Carry, ticked.uncarried, 0),
            (Cause::Tail, ticked.tail, 0),
            (Cause::Paused, 0, ticked.paused),
        ];
        for (cause, lost, doubled) in causes {
            outcome.add(cause, lost.into(), doubled.into());
        }
    }

    fn metered(&mut self, books: &Books) {
        let Some(outcome) = self.outcomes.iter_mut().find(|outcome| outcome.policy == Policy::Meter) else {
            return;
        };
        let [posted, ..] = books.posted;
        let [ran, ..] = books.truth.ran;
        let unwitnessed = books.unwitnessed();
        let by_request: u64 = unwitnessed.iter().map(|(before, behind)| before.saturating_add(*behind)).sum();
        let posted = posted.saturating_add(by_request.into());
        outcome.posted += posted;
        let mut known = i128::try_from(posted).unwrap_or(i128::MAX);
        let rows = books.rows.iter().zip(lives(&books.rows)).zip(unwitnessed);
        let causes = rows.flat_map(|((row, life), unwitnessed)| whereabouts(row, life, unwitnessed));
        for (cause, lost) in causes {
            outcome.add(cause, u128::try_from(lost).unwrap_or(0), u128::try_from(-lost).unwrap_or(0));
            known += lost;
        }
        let drift = i128::from(books.truth.run) - i128::try_from(ran).unwrap_or(i128::MAX);
        outcome.add(Cause::Drift, u128::try_from(drift).unwrap_or(0), u128::try_from(-drift).unwrap_or(0));
        outcome.undeclared += (i128::from(books.truth.run) - known - drift).unsigned_abs();
    }
}

/// From where to where each row's life ran, on its guest's count. Where one got another name while it ran on, the old
/// name ends where it was last heard of.
pub(super) fn lives(rows: &[Row]) -> Vec<(u64, u64)> {
    let mut lives: Vec<(u64, u64)> = Vec::with_capacity(rows.len());
    for (at, row) in rows.iter().enumerate() {
        let (mut from, to) = (row.life.from, row.life.to.unwrap_or(row.life.from));
        let before = at.checked_sub(1).and_then(|before| rows.get(before).zip(lives.get_mut(before)));
        if let Some((before, life)) = before
            && before.life.vm == row.life.vm
            && before.life.to == Some(from)
            && let Some(reach) = before.reach
        {
            from = reach.run.clamp(life.0.min(from), to.max(from));
            life.1 = from;
        }
        lives.push((from, to.max(from)));
    }
    lives
}

/// What of a life's run was not posted, by cause; below zero, what was posted beyond it.
pub(super) fn whereabouts(
    row: &Row,
    (from, to): (u64, u64),
    (before, behind): (u64, u64),
) -> Vec<(Cause, i128)> {
    let lost = |ran: u64, since: u64, posted: u64| i128::from(ran) - i128::from(since) - i128::from(posted);
    let [posted, ..] = row.posted.map(|amount| i128::try_from(amount).unwrap_or(i128::MAX));
    let Some(reach) = row.reach.filter(|_| !row.early) else {
        return vec![(Cause::Unanswered, lost(to, from, before.saturating_add(behind)) - posted)];
    };
    let [total, ..] = reach.total.map(|amount| i128::try_from(amount).unwrap_or(i128::MAX));
    // What the guest counted of a pause, and the host cut, is neither lost nor doubled.
    let mut cut = total - posted;
    let mut not_cut = |counted: u64| {
        let counted = i128::from(counted);
        let both = counted.min(cut.max(0));
        cut -= both;
        both - counted
    };
    let unannounced = not_cut(reach.unannounced);
    let uncertain = not_cut(reach.uncertain);
    // What it left out behind its end is of the next life.
    let mut beyond = reach.run.saturating_sub(to);
    let mut within = |left_out: u64| {
        let both = left_out.min(beyond);
        beyond -= both;
        i128::from(left_out - both)
    };
    let (suspended, dropped) = (within(reach.suspended), within(reach.dropped));
    let run = to.saturating_add(beyond).min(reach.run);
    let declared = [
        (if row.unsupported { Cause::Unanswered } else { Cause::Unnamed }, lost(reach.base, from, before)),
        (Cause::Dropped, dropped - i128::from(reach.below_base)),
        (Cause::Suspended, suspended),
        (Cause::ClockBack, reach.hidden.into()),
        (Cause::Interval, cut.max(0)),
        (Cause::RolledBack, cut.min(0)),
        (Cause::Uncertain, uncertain),
        (Cause::Unannounced, unannounced),
        (Cause::Unreported, lost(to, run, behind)),
    ];
    declared.into_iter().filter(|(_, lost)| *lost != 0).collect()
}

impl Fleet {
    /// Lives through it. `seen` is told how many sandboxes are done, from any thread.
    #[must_use]
    pub fn live(&self, threads: NonZero<usize>, seen: impl Fn(u64) + Sync) -> Lived {
        let next = AtomicU64::new(0);
        let lived = Mutex::new((0, Lived::default()));
        let work = || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= self.sandboxes {
                    return;
                }
                let one = self.world(index);
                let Ok(mut all) = lived.lock() else { return };
                all.0 += 1;
                all.1.merge(one);
                let done = all.0;
                drop(all);
                seen(done);
            }
        };
        thread::scope(|scope| {
            for _ in 1..threads.get() {
                scope.spawn(work);
            }
            work();
        });
        let (_, mut lived) = lived.into_inner().unwrap_or_default();
        lived.broken.sort_by_key(|broken| broken.seed);
        for outcome in &mut lived.outcomes {
            outcome.causes.sort_by_key(|(cause, ..)| *cause);
        }
        lived
    }

    fn world(&self, index: u64) -> Lived {
        let seed = Random::new(self.seed.wrapping_add(index.wrapping_mul(0x9E37_79B9_7F4A_7C15))).seed();
        let mut world = World::new(seed, self.settings(), false);
        let ended = super::live(&mut world);
        let mut lived = Lived { events: world.steps, ..Lived::default() };
        for account in &world.accounts {
            let books = &account.books;
            lived.sandboxes += 1;
            lived.lives += books.rows.len() as u64;
            lived.run += u128::from(books.truth.run);
            let [truncating, carrying] = account.tickers.ended(books.truth.run);
            lived.ticked(Policy::Truncating, &truncating);
            lived.ticked(Policy::Carrying, &carrying);
            if ended.is_ok() {
                lived.metered(books);
            }
        }
        if let Err(breach) = ended {
            lived.broken.push(super::tell(seed, self.settings(), breach));
        }
        lived
    }

    pub(super) fn settings(&self) -> Settings {
        Settings {
            faults: self.faults,
            length: self.hours.saturating_mul(3600 * SECOND),
            tick: Nanos::from_secs(5),
            poll: 15 * SECOND,
            lifecycle: 1800 * SECOND,
            fault: 1200 * SECOND,
            message: 1000,
            accounts: 8,
            tickers: true,
        }
    }
}
