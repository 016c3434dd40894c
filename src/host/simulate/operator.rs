//! Who runs the VMs: lifecycle calls around a VMM's pause, resume, snapshot, restore and boot.

use super::faults::Fault;
use super::guest::{MILLI, SECOND};
use super::host::{CALL, Call, OTHER, POLL};
use super::law::Breach;
use super::vmm::Snapshot;
use super::world::{State, What, World, tell};

/// What is done to a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// The VM stands still, and goes on.
    Pause,
    /// The same, with a snapshot.
    Snapshot,
    /// A snapshot, and the VM goes; it comes back from it.
    Hibernate,
    /// The VM goes, and comes back from an older snapshot.
    Rollback,
    /// The VM goes, and boots anew.
    Boot,
    /// A checkpoint, but no snapshot.
    Abort,
    /// The VM goes for good.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Between two plans.
    Idle,
    Checkpoint,
    Stop,
    Go,
}

/// Where an operation stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Op {
    plan: Plan,
    step: Step,
}

impl Default for Op {
    fn default() -> Self {
        Self { plan: Plan::Pause, step: Step::Idle }
    }
}

impl Op {
    pub(super) fn is_idle(self) -> bool {
        self.step == Step::Idle
    }
}

impl World {
    pub(super) fn plan_next(&mut self, index: usize) {
        let span = self.random.around(self.settings.lifecycle);
        let Some(account) = self.accounts.get_mut(index) else { return };
        account.op.step = Step::Idle;
        account.op_token += 1;
        let token = account.op_token;
        self.after(span, What::Operate { account: index, token });
    }

    pub(super) fn operate(&mut self, index: usize, token: u64) -> Result<(), Breach> {
        let Some(account) = self.accounts.get(index).filter(|account| account.op_token == token) else {
            return Ok(());
        };
        match account.op.step {
            Step::Idle if self.now >= self.settings.length => Ok(()),
            Step::Idle => {
                let plan = self.draw_plan(index);
                match plan {
                    Some(plan) => self.begin(index, plan),
                    None => self.plan_next(index),
                }
                Ok(())
            }
            // Nobody holds up a snapshot for an answer that does not come.
            Step::Checkpoint => {
                self.drop_call(index);
                self.go_to_step(index, Step::Stop, 0);
                Ok(())
            }
            Step::Stop => self.stop(index),
            Step::Go => {
                self.go(index);
                Ok(())
            }
        }
    }

    fn draw_plan(&mut self, index: usize) -> Option<Plan> {
        let faults = self.settings.faults;
        let account = self.accounts.get(index)?;
        let (snapshots, clones) =
            (!account.snapshots.is_empty(), self.accounts.len() < self.settings.accounts);
        match self.random.below(10) {
            0..2 => Some(Plan::Pause),
            2..4 => Some(Plan::Snapshot),
            4 => Some(Plan::Hibernate),
            5 if faults.has(Fault::Rollbacks) && snapshots => Some(Plan::Rollback),
            6 if faults.has(Fault::Boots) => Some(Plan::Boot),
            7 if faults.has(Fault::Aborts) => Some(Plan::Abort),
            8 if faults.has(Fault::Clones) && snapshots && clones => {
                self.clone_out(index);
                None
            }
            // A clone does not live for ever.
            9 if index > 0 => Some(Plan::End),
            _ => {
                self.scale(index);
                None
            }
        }
    }

    pub(super) fn begin(&mut self, index: usize, plan: Plan) {
        let unannounced = self.settings.faults.has(Fault::Pauses) && self.random.once_in(3);
        let checkpoint = plan == Plan::Abort || !unannounced;
        tell!(self, "sandbox-{index}: {plan:?} begins (checkpoint: {checkpoint})");
        let Some(account) = self.accounts.get_mut(index) else { return };
        account.op = Op { plan, step: Step::Stop };
        let row = account.books.current();
        if let (true, Some(row)) = (checkpoint, row) {
            let deadline = self.random.between(3 * SECOND, 8 * SECOND);
            self.ends(index, true);
            self.go_to_step(index, Step::Checkpoint, deadline);
            self.call(index, Call::Checkpoint(row));
        } else {
            self.drop_call(index);
            self.go_to_step(index, Step::Stop, 0);
        }
    }

    fn go_to_step(&mut self, index: usize, step: Step, wait: u64) {
        let Some(account) = self.accounts.get_mut(index) else { return };
        account.op.step = step;
        account.op_token += 1;
        let token = account.op_token;
        self.after(wait, What::Operate { account: index, token });
    }

    /// The checkpoint is in the ledger, or cannot be had: connections are closed, then the VM is stopped.
    pub(super) fn checkpoint_answered(&mut self, index: usize) {
        if self.accounts.get(index).is_none_or(|account| account.op.step != Step::Checkpoint) {
            return;
        }
        let latency = self.random.between(MILLI, 50 * MILLI);
        self.go_to_step(index, Step::Stop, latency);
    }

    fn stop(&mut self, index: usize) -> Result<(), Breach> {
        let Some(account) = self.accounts.get(index) else { return Ok(()) };
        let (vm, plan) = (account.vm, account.op.plan);
        if self.vms.get(vm).is_some_and(|vm| vm.blind) {
            self.blind_ends(vm);
        }
        let wait = self.random.around(20 * SECOND);
        if plan == Plan::Abort {
            // It may have stood still for a moment before it was given up.
            if self.settings.faults.has(Fault::Pauses) && self.random.once_in(2) {
                self.pause_blind(vm, wait / 16);
            }
            self.go_to_step(index, Step::Go, wait / 8);
            return Ok(());
        }
        for slot in [POLL, CALL, OTHER] {
            self.hang_up(index, slot);
        }
        self.drop_call(index);
        self.pause(vm);
        let (now, Some(stopped)) = (self.now, self.vms.get_mut(vm)) else { return Ok(()) };
        let run = stopped.guest.run;
        if matches!(plan, Plan::Snapshot | Plan::Hibernate) {
            let guest = stopped.guest.clone();
            let troubled = self.accounts.get(index).is_some_and(|account| account.is_troubled(now));
            let snapshot = Snapshot { taken: now, guest, troubled };
            if let Some(account) = self.accounts.get_mut(index) {
                if account.snapshots.len() >= 3 {
                    account.snapshots.remove(1);
                }
                account.snapshots.push(snapshot);
            }
        }
        if !matches!(plan, Plan::Pause | Plan::Snapshot)
            && let Some(vm) = self.vms.get_mut(vm)
        {
            vm.state = State::Gone;
        }
        tell!(self, "sandbox-{index}: vm {vm} stands still");
        if let Some(account) = self.accounts.get_mut(index) {
            account.running = false;
            account.books.close(now, run);
            account.ended = plan == Plan::End;
        }
        self.ends(index, matches!(plan, Plan::Pause | Plan::Snapshot | Plan::Hibernate));
        self.closed(index)?;
        let wait = if plan == Plan::Snapshot { wait / 16 } else { wait };
        if plan == Plan::End {
            if let Some(account) = self.accounts.get_mut(index) {
                account.op.step = Step::Idle;
                account.op_token += 1;
            }
        } else {
            self.go_to_step(index, Step::Go, wait);
        }
        Ok(())
    }

    fn go(&mut self, index: usize) {
        let Some(account) = self.accounts.get(index) else { return };
        let (vm, plan) = (account.vm, account.op.plan);
        match plan {
            Plan::Pause | Plan::Snapshot => self.let_run(index, true),
            Plan::Hibernate => {
                if let Some(snapshot) = account.snapshots.last().cloned() {
                    self.restore(index, snapshot);
                }
            }
            Plan::Rollback => {
                let at = self.random.below(account.snapshots.len() as u64);
                let at = usize::try_from(at).unwrap_or(0);
                let snapshot = self.accounts.get(index).and_then(|account| account.snapshots.get(at));
                if let Some(snapshot) = snapshot.cloned() {
                    self.restore(index, snapshot);
                }
            }
            Plan::Boot => {
                if let Some(image) = self.vms.get(vm).map(|vm| vm.guest.cold()) {
                    self.boot(index, &image);
                }
            }
            Plan::Abort => {
                if self.vms.get(vm).is_some_and(|vm| vm.blind) {
                    self.blind_ends(vm);
                }
                if let Some(row) = self.mint(index, false) {
                    self.runs_on(index);
                    self.call(index, Call::Resume(row));
                }
            }
            Plan::End => {}
        }
        self.plan_next(index);
    }
}
