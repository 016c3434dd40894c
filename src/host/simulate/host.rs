//! A host's worker: it polls, names, checkpoints, commits, and only then acks.

use super::account::{Books, Life};
use super::conversation::{Link, Question};
use super::guest::{Build, MILLI, SECOND};
use super::operator::Op;
use super::ticker::Tickers;
use super::vmm::Snapshot;
use super::world::{State, What, World, tell};
use crate::wire::message::{Epoch, EpochSource, Id};

/// The worker's own connection, that of lifecycle calls, and a second worker's.
pub(super) const POLL: usize = 0;
pub(super) const CALL: usize = 1;
pub(super) const OTHER: usize = 2;
/// The longest between two tries of a call.
const RETRY_MAX: u64 = 5 * SECOND;
/// For how long a fault may be felt: a hung connection takes one of the agent's four until it is idle for a minute.
const FELT: u64 = 200 * SECOND;

/// A lifecycle call that is repeated until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Resume(usize),
    /// Closes the row; names it first where the agent has not answered to it.
    Checkpoint(usize),
}

/// A sandbox as the host has it.
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) vm: usize,
    /// As the VMM has told.
    pub(super) running: bool,
    pub(super) books: Books,
    pub(super) boot_id: Option<Id>,
    pub(super) links: [Link; 3],
    pub(super) call: Option<Call>,
    pub(super) tries: u32,
    pub(super) call_token: u64,
    pub(super) op: Op,
    pub(super) op_token: u64,
    pub(super) snapshots: Vec<Snapshot>,
    pub(super) left_alone_until: u64,
    pub(super) down_until: u64,
    pub(super) troubled_until: u64,
    /// The last poll that was answered with the current name, all acked and nothing waiting.
    pub(super) well_at: u64,
    pub(super) ended: bool,
    pub(super) tickers: Tickers,
}

impl Account {
    /// Whether a fault may still be felt.
    pub(super) fn is_troubled(&self, now: u64) -> bool {
        now < self.troubled_until
    }
}

impl World {
    pub(super) fn add_account(&mut self, books: Books) -> usize {
        let index = self.accounts.len();
        self.accounts.push(Account {
            name: format!("sandbox-{index}"),
            vm: usize::MAX,
            running: false,
            books,
            boot_id: None,
            links: Default::default(),
            call: None,
            tries: 0,
            call_token: 0,
            op: Op::default(),
            op_token: 0,
            snapshots: Vec::new(),
            left_alone_until: 0,
            down_until: 0,
            troubled_until: 0,
            well_at: 0,
            ended: false,
            tickers: Tickers::default(),
        });
        let first = self.random.below(self.settings.poll);
        self.after(first, What::Poll(index));
        index
    }

    /// A fault touched this sandbox: nothing is promised of how soon things come.
    pub(super) fn disturb(&mut self, account: usize) {
        let until = self.now.saturating_add(FELT);
        if let Some(account) = self.accounts.get_mut(account) {
            account.troubled_until = until;
            if let Some(row) = account.books.rows.last_mut().filter(|row| row.life.to.is_none()) {
                row.life.disturbed = true;
            }
        }
    }

    /// A new epoch for the VM that the sandbox has now, in the ledger before anybody hears of it.
    pub(super) fn mint(&mut self, index: usize, paused: bool) -> Option<usize> {
        self.numbers += 1;
        let id = self.random.id();
        let (number, now) = (self.numbers, self.now);
        let vm = self.accounts.get(index)?.vm;
        self.sync(vm);
        let from = self.vms.get(vm).map_or(0, |vm| vm.guest.run);
        let account = self.accounts.get_mut(index)?;
        let disturbed = account.is_troubled(now);
        let epoch = Epoch { id, source: EpochSource::Host, number };
        let row = account.books.open(epoch, paused, now, Life { vm, from, to: None, disturbed });
        // Where it goes on running under another name, the old life ends here.
        let inherits = account.books.row(row).is_some_and(|row| row.life.from != from);
        if let Some(before) = row.checked_sub(1).and_then(|before| account.books.rows.get_mut(before)) {
            before.life.to.get_or_insert(if inherits { before.life.from } else { from });
        }
        tell!(self, "sandbox-{index}: the host mints epoch {number} (paused: {paused})");
        Some(row)
    }

    /// Starts a call, in place of the one that runs.
    pub(super) fn call(&mut self, index: usize, call: Call) {
        self.hang_up(index, CALL);
        let Some(account) = self.accounts.get_mut(index) else { return };
        account.call = Some(call);
        account.tries = 0;
        account.call_token += 1;
        self.call_now(index);
    }

    /// Gives the call up.
    pub(super) fn drop_call(&mut self, index: usize) {
        self.hang_up(index, CALL);
        if let Some(account) = self.accounts.get_mut(index) {
            account.call = None;
            account.call_token += 1;
        }
    }

    pub(super) fn call_again(&mut self, index: usize, token: u64) {
        if self.accounts.get(index).is_some_and(|account| account.call_token == token) {
            self.call_now(index);
        }
    }

    pub(super) fn call_now(&mut self, index: usize) {
        let Some(account) = self.accounts.get(index) else { return };
        if self.now < account.down_until {
            return self.retry(index);
        }
        let question = match account.call {
            None => return,
            Some(Call::Resume(row)) => Question::Resume(row),
            Some(Call::Checkpoint(row)) => {
                let confirmed = account.books.row(row).is_some_and(|row| row.confirmed);
                if confirmed { Question::Checkpoint(row) } else { Question::Resume(row) }
            }
        };
        self.ask(index, CALL, question);
    }

    pub(super) fn retry(&mut self, index: usize) {
        let Some(account) = self.accounts.get_mut(index) else { return };
        account.tries = account.tries.saturating_add(1);
        let wait = ((100 * MILLI) << account.tries.min(6)).min(RETRY_MAX);
        let token = account.call_token;
        let wait = wait.saturating_add(self.random.below(wait / 4));
        self.after(wait, What::Call { account: index, token });
    }

    /// A poll is due.
    pub(super) fn poll(&mut self, index: usize) {
        let next = self.settings.poll - self.random.below(self.settings.poll / 8);
        let Some(account) = self.accounts.get(index) else { return };
        if account.ended {
            return;
        }
        let free = account.links.get(POLL).is_some_and(|link| link.question.is_none());
        if account.running && free && self.now >= account.down_until {
            self.ask(index, POLL, Question::Read);
        }
        self.after(next, What::Poll(index));
    }

    /// The worker dies, and comes back with its ledger and nothing else.
    pub(super) fn worker_dies(&mut self, index: usize) {
        let back = self.random.around(5 * SECOND);
        tell!(self, "sandbox-{index}: the worker dies; it is back {} ms later", back / MILLI);
        for slot in [POLL, CALL, OTHER] {
            self.hang_up(index, slot);
        }
        self.disturb(index);
        let until = self.now.saturating_add(back);
        if let Some(account) = self.accounts.get_mut(index) {
            account.down_until = until;
            account.tickers.forget();
            account.call_token += 1;
            if account.call.is_some() {
                self.retry(index);
            }
        }
    }

    /// Whether nothing is left to be said about a sandbox since `since`.
    pub(super) fn is_well(&self, index: usize, since: u64) -> bool {
        let Some(account) = self.accounts.get(index) else { return true };
        if account.ended || !account.running {
            return account.op.is_idle();
        }
        let Some(vm) = self.vms.get(account.vm) else { return true };
        let old = vm.guest.build == Build::Old && vm.state != State::Gone;
        account.op.is_idle() && account.call.is_none() && (old || account.well_at > since)
    }
}
