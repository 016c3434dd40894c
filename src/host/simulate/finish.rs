//! The end of a world: faults cease, it heals, everything is checkpointed and stopped; and the books are judged.

use super::account::Row;
use super::faults::Faults;
use super::guest::SECOND;
use super::law::{Breach, Invariant, hold};
use super::memory::{add, least, over, within};
use super::operator::Plan;
use super::world::{World, tell};

/// How long healing may take: a hung connection is idle for a minute, and an agent has four.
const HEALS: u64 = 600 * SECOND;

impl World {
    /// Runs until faults cease.
    pub(super) fn run_faults(&mut self) -> Result<(), Breach> {
        while self.next().is_some_and(|at| at < self.settings.length) {
            self.step()?;
        }
        Ok(())
    }

    /// Runs on without faults until all is said, then ends every sandbox and judges the books.
    pub(super) fn finish(&mut self) -> Result<(), Breach> {
        self.settings.faults = Faults::NONE;
        tell!(self, "faults cease");
        let since = self.settings.length;
        self.run_until(|world, index| world.is_well(index, since))?;
        for index in 0..self.accounts.len() {
            self.tails(index)?;
        }
        for index in 0..self.accounts.len() {
            if self.accounts.get(index).is_some_and(|account| !account.ended) {
                self.begin(index, Plan::End);
            }
        }
        self.run_until(|world, index| world.accounts.get(index).is_none_or(|account| account.ended))?;
        for account in &self.accounts {
            for row in &account.books.rows {
                self.prompt(row)?;
                row.declared()?;
            }
        }
        for account in &self.accounts {
            account.books.by_word()?;
        }
        self.billed_once()
    }

    fn run_until(&mut self, done: impl Fn(&Self, usize) -> bool) -> Result<(), Breach> {
        let until = self.now.saturating_add(HEALS);
        loop {
            let left = (0..self.accounts.len()).find(|index| !done(self, *index));
            let Some(left) = left else { return Ok(()) };
            hold(Invariant::Heals, self.now < until, || format!("sandbox-{left} does not get well"))?;
            // Looking at all of them is dearer than a step.
            for _ in 0..16 {
                self.step()?;
            }
        }
    }

    /// The VM of a sandbox stands still.
    pub(super) fn closed(&self, index: usize) -> Result<(), Breach> {
        let Some(row) = self.accounts.get(index).and_then(|account| account.books.rows.last()) else {
            return Ok(());
        };
        self.prompt(row)?;
        row.declared()
    }

    /// One tick and one poll per lifecycle edge.
    fn prompt(&self, row: &Row) -> Result<(), Breach> {
        let (Some(reach), Some(to), false) = (row.reach, row.life.to, row.life.disturbed) else {
            return Ok(());
        };
        let unnamed = reach.base.saturating_sub(row.life.from);
        let tail = to.saturating_sub(reach.run);
        let tick = self.settings.tick.0;
        hold(Invariant::Prompt, unnamed <= tick, || {
            format!("epoch {} has a base {unnamed} ns after its VM ran", row.epoch.number)
        })?;
        hold(Invariant::Prompt, tail <= tick.saturating_add(self.settings.poll), || {
            format!("the last {tail} ns of epoch {} were not reported", row.epoch.number)
        })
    }

    /// What the agent knows to be over has reached the books.
    fn tails(&self, index: usize) -> Result<(), Breach> {
        let Some(account) = self.accounts.get(index).filter(|account| account.running) else { return Ok(()) };
        let Some(process) = self.vms.get(account.vm).and_then(|vm| vm.guest.process.as_ref()) else {
            return Ok(());
        };
        for reach in &process.shadow().closed {
            let row = account.books.rows.iter().find(|row| row.epoch.id == reach.epoch);
            let Some(row) =
                row.filter(|row| !row.early && row.reach.is_none_or(|known| known.base == reach.base))
            else {
                continue;
            };
            let interval = row.closed.unwrap_or(self.now).saturating_sub(row.opened);
            let owed = least(reach.total, over(account.books.limit, interval));
            hold(Invariant::TailsArrive, within(owed, row.posted), || {
                format!("epoch {} ended at {owed:?}, posted is {:?}", row.epoch.number, row.posted)
            })?;
        }
        Ok(())
    }

    fn billed_once(&self) -> Result<(), Breach> {
        let sum = |of: &dyn Fn(&super::host::Account) -> super::memory::Three| {
            self.accounts.iter().fold([0; 3], |sum, account| add(sum, of(account)))
        };
        let posted = sum(&|account| account.books.posted);
        let bound = sum(&|account| add(account.books.truth.ran, account.books.truth.over));
        hold(Invariant::BilledOnce, within(posted, bound), || {
            format!("all sandboxes together were posted {posted:?}, run and allowed {bound:?}")
        })
    }
}

impl Row {
    /// What was run is posted, or said not to be.
    fn declared(&self) -> Result<(), Breach> {
        let (Some(reach), Some(to), false) = (self.reach, self.life.to, self.early) else { return Ok(()) };
        let ran = reach.run.min(to).saturating_sub(reach.base.max(self.life.from));
        let said = reach.dropped.saturating_add(reach.suspended).saturating_add(reach.hidden);
        let [posted, ..] = self.posted;
        // A fast clock counts more than the host's own interval has.
        let drift = ran / 5_000;
        let owed = u128::from(ran.saturating_sub(said).saturating_sub(drift));
        hold(Invariant::LosesNothingUndeclared, posted >= owed, || {
            format!(
                "epoch {} ran {ran} ns as itself, {said} ns are declared, posted is {posted} ns; {reach:?}, {:?}",
                self.epoch.number, self.life
            )
        })
    }
}
