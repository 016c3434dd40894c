//! What a VMM does: boot, run, snapshot, restore, and memory as it is asked for.

use super::account::{Books, limit};
use super::channel::ToHost;
use super::faults::Fault;
use super::guest::{Build, Guest, Incoming, MILLI, SECOND, sooner};
use super::host::Call;
use super::memory::{BLOCK, Device};
use super::world::{State, What, World, tell};
use crate::session::ConnectionId;
use crate::units::{Bytes, MilliCpu};

/// All of a guest, at one instant.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) taken: u64,
    pub(super) guest: Guest,
    /// It carries what a fault has left: hung connections, an agent that is late.
    pub(super) troubled: bool,
}

impl World {
    /// A sandbox is made and its VM booted.
    pub(super) fn create(&mut self) -> usize {
        let faults = self.settings.faults;
        let boot = Bytes::mib(self.random.choose(512, &[1024]));
        let most = Bytes::mib(self.random.choose(1024, &[3072, 7168]));
        let cpu = MilliCpu(self.random.choose(1000, &[2000, 4000]));
        let mut memory = Device::new(boot, most, self.random.once_in(2));
        memory.requested = most;
        memory.plugged = most;
        let old = faults.has(Fault::OldAgents) && self.random.once_in(4);
        let mut image = Guest::image(memory, cpu, if old { Build::Old } else { Build::Current });
        if faults.has(Fault::Clocks) {
            image.ppm = i64::try_from(self.random.below(201)).unwrap_or(0) - 100;
        }
        image.tasks.upgrade = old.then(|| self.random.around(self.settings.fault / 4));
        image.vmclock = self.random.once_in(2).then_some(1);
        image.vmclock_polls = self.random.once_in(2);
        image.vmgenid = self.random.once_in(2).then_some(0);
        let books = Books::new(limit(boot, most, MilliCpu(8000)));
        let index = self.add_account(books);
        self.boot(index, &image);
        self.plan_next(index);
        index
    }

    pub(super) fn boot(&mut self, index: usize, image: &Guest) {
        let id = self.random.id();
        let agent_after = self.random.around(4 * SECOND);
        let mut guest = Guest::boot(image, id, self.now, agent_after);
        guest.memory.plugged = Bytes::ZERO;
        guest.tasks.plug = Some(guest.run.saturating_add(500 * MILLI));
        self.give_vm(index, guest);
        self.let_run(index, false);
    }

    /// A sandbox gets a VM that does not run yet.
    fn give_vm(&mut self, index: usize, guest: Guest) {
        let vm = self.add_vm(index, guest);
        if let Some(account) = self.accounts.get_mut(index) {
            account.vm = vm;
        }
    }

    /// The VMM is told to run it, and its agent who it is.
    pub(super) fn let_run(&mut self, index: usize, paused: bool) {
        let row = self.mint(index, paused);
        let across = self.across();
        let Some(account) = self.accounts.get_mut(index) else { return };
        account.running = true;
        let vm = account.vm;
        // Nothing is promised of an agent that does not run yet.
        let agent = self.vms.get(vm).is_some_and(|vm| vm.guest.process.is_some());
        if let Some(row) = account.books.rows.last_mut() {
            row.life.disturbed |= !agent;
        }
        self.run(vm, paused.then_some(across));
        tell!(self, "sandbox-{index}: vm {vm} runs (its clock: {across:?})");
        self.begins(index, paused);
        if let Some(row) = row {
            self.call(index, Call::Resume(row));
        }
    }

    /// A new VM goes on where the snapshot was taken.
    pub(super) fn restore(&mut self, index: usize, snapshot: Snapshot) {
        let Snapshot { taken, mut guest, troubled } = snapshot;
        if troubled || guest.process.is_none() {
            self.disturb(index);
        }
        guest.restored();
        guest.vmclock = guest.vmclock.map(|disruption| disruption + 1);
        if guest.vmgenid.is_some() {
            guest.tasks.vmgenid = Some(guest.run.saturating_add(self.random.around(200 * MILLI)));
        }
        if guest.vmclock_polls && guest.process.is_some() && guest.vmclock.is_some() {
            sooner(&mut guest.tasks.wake, guest.run.saturating_add(MILLI));
        }
        let resets = !self.settings.faults.has(Fault::Connections) || self.random.once_in(2);
        let open = guest.process.as_ref().map(|it| (it.connections.clone(), it.dials)).unwrap_or_default();
        for connection in open.0 {
            if resets {
                guest.take(Incoming::Closed { connection, reset: true }, self.random.around(50 * MILLI));
            } else {
                self.disturb(index);
            }
        }
        if open.1 {
            guest.take(Incoming::DialFailed, self.random.around(SECOND));
        }
        if self.settings.faults.has(Fault::Memory) && self.random.once_in(2) {
            self.request_memory(&mut guest);
        }
        let vmclock = guest.vmclock;
        self.give_vm(index, guest);
        let vm = self.accounts.get(index).map_or(usize::MAX, |account| account.vm);
        if let Some(vm) = self.vms.get_mut(vm) {
            vm.synced = taken;
        }
        tell!(
            self,
            "sandbox-{index}: vm {vm} is restored from the snapshot of {} s, vmclock {vmclock:?}",
            taken / SECOND
        );
        self.let_run(index, true);
    }

    /// Another sandbox begins where a snapshot of this one was taken.
    pub(super) fn clone_out(&mut self, index: usize) {
        let Some(account) = self.accounts.get(index) else { return };
        let limit = account.books.limit;
        let Some(snapshot) = account.snapshots.last().cloned() else { return };
        let twice = self.random.once_in(2) && self.accounts.len() + 1 < self.settings.accounts;
        for _ in 0..if twice { 2 } else { 1 } {
            let clone = self.add_account(Books::new(limit));
            tell!(self, "sandbox-{clone} is a clone of sandbox-{index}");
            self.restore(clone, snapshot.clone());
            self.plan_next(clone);
        }
    }

    /// The VMM is asked for another size.
    pub(super) fn scale(&mut self, index: usize) {
        let Some(vm) = self.accounts.get(index).map(|account| account.vm) else { return };
        self.sync(vm);
        let Some(mut guest) = self.vms.get(vm).map(|vm| vm.guest.clone()) else { return };
        self.request_memory(&mut guest);
        if self.random.once_in(2) {
            guest.cpu = MilliCpu(self.random.choose(1000, &[500, 2000, 4000]));
        }
        if let Some(vm) = self.vms.get_mut(vm) {
            vm.guest = guest;
        }
        self.scaled(index);
        self.schedule(vm);
    }

    fn request_memory(&mut self, guest: &mut Guest) {
        let memory = &mut guest.memory;
        let blocks = self.random.below(memory.most.0 / BLOCK.0 + 1);
        // Less than a block comes and goes without an event.
        let odd = if self.settings.faults.has(Fault::Memory) { self.random.below(64) * 2 } else { 0 };
        memory.requested = Bytes(blocks * BLOCK.0).saturating_add(Bytes::mib(odd)).min(memory.most);
        memory.reach = memory.most;
        if self.settings.faults.has(Fault::Memory) && self.random.once_in(3) {
            memory.reach = Bytes(self.random.below(memory.requested.0 / Bytes::MIB.0 + 1) * Bytes::MIB.0);
        }
        let requested = memory.requested.0 >> 20;
        if memory.moves() {
            sooner(&mut guest.tasks.plug, guest.run.saturating_add(MILLI));
        }
        tell!(self, "{requested} MiB are requested of virtio-mem");
    }

    /// A pause that the host's worker is not told of.
    pub(super) fn pause_blind(&mut self, vm: usize, span: u64) {
        let running = self.vms.get(vm).is_some_and(|vm| vm.state == State::Running && !vm.blind);
        if !running {
            return;
        }
        self.pause(vm);
        if let Some(vm) = self.vms.get_mut(vm) {
            vm.blind = true;
        }
        if let Some(account) = self.vms.get(vm).map(|vm| vm.account) {
            self.disturb(account);
        }
        tell!(self, "vm {vm} stands still for {} ms, and nobody says so", span / MILLI);
        self.after(span, What::BlindEnds(vm));
    }

    pub(super) fn blind_ends(&mut self, index: usize) {
        let Some(vm) = self.vms.get_mut(index).filter(|vm| vm.blind) else { return };
        vm.blind = false;
        if vm.state == State::Paused {
            let (account, since) = (vm.account, vm.synced);
            self.stood_still(account, since);
            let across = self.across();
            self.run(index, Some(across));
            tell!(self, "vm {index} goes on (its clock: {across:?})");
        }
    }

    /// The kernel inside starts anew; the VMM does not even notice.
    pub(super) fn reboot(&mut self, index: usize) {
        self.sync(index);
        let (id, agent_after) = (self.random.id(), self.random.around(4 * SECOND));
        let now = self.now;
        let Some(vm) = self.vms.get_mut(index).filter(|vm| vm.state == State::Running) else { return };
        let open = vm.guest.process.as_ref().map(|it| it.connections.clone()).unwrap_or_default();
        let account = vm.account;
        vm.guest = Guest::boot(&vm.guest, id, now, agent_after);
        for ConnectionId(connection) in open {
            self.send_host(index, connection, ToHost::Closed);
        }
        self.disturb(account);
        self.schedule(index);
        tell!(self, "vm {index} reboots from inside");
    }
}
