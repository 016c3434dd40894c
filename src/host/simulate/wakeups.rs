//! What is due inside a guest: its kernel, its memory, its agent.

use super::agent::{self, Output, Process, Wakeup};
use super::channel::ToHost;
use super::faults::Fault;
use super::guest::{BEGIN, Build, Incoming, MILLI, SECOND, due};
use super::law::Breach;
use super::memory::add;
use super::world::{State, World, tell};

impl World {
    /// Something in the guest is due.
    pub(super) fn vm_due(&mut self, index: usize, at: u64) -> Result<(), Breach> {
        if self.vms.get(index).is_none_or(|vm| vm.scheduled != at || vm.state != State::Running) {
            return Ok(());
        }
        self.sync(index);
        let Some(vm) = self.vms.get_mut(index) else { return Ok(()) };
        vm.scheduled = u64::MAX;
        let guest = &mut vm.guest;
        let run = guest.run;
        let vmgenid = due(&mut guest.tasks.vmgenid, run);
        if vmgenid {
            guest.vmgenid = guest.vmgenid.map(|count| count + 1);
        }
        let set_clock = due(&mut guest.tasks.set_clock, run);
        if set_clock {
            guest.realtime = BEGIN.saturating_add(self.now);
        }
        if due(&mut guest.tasks.plug, run) {
            self.plug(index);
        }
        if vmgenid || set_clock {
            tell!(self, "vm {index}: vmgenid rings: {vmgenid}, its time of day is set: {set_clock}");
        }
        let upgrades = self.vms.get_mut(index).is_some_and(|vm| due(&mut vm.guest.tasks.upgrade, run));
        if upgrades {
            self.replace_agent(index, Build::Current);
        }
        self.start_agent(index)?;
        let wakes = self.vms.get_mut(index).is_some_and(|vm| due(&mut vm.guest.tasks.wake, run));
        if wakes {
            self.wake(index)?;
        }
        self.schedule(index);
        Ok(())
    }

    fn start_agent(&mut self, index: usize) -> Result<(), Breach> {
        let tick = self.settings.tick;
        let Some(vm) = self.vms.get_mut(index) else { return Ok(()) };
        let run = vm.guest.run;
        if !due(&mut vm.guest.tasks.start, run) || vm.guest.process.is_some() {
            return Ok(());
        }
        let process = Process::start(&mut vm.guest, tick)?;
        vm.guest.process = Some(process);
        vm.guest.tasks.wake = Some(run);
        tell!(self, "the agent of vm {index} starts");
        Ok(())
    }

    /// A block of memory comes or goes.
    fn plug(&mut self, index: usize) {
        let pace = self.random.between(20 * MILLI, 300 * MILLI);
        let Some(vm) = self.vms.get_mut(index) else { return };
        let guest = &mut vm.guest;
        let event = guest.memory.step();
        if guest.memory.moves() {
            guest.tasks.plug = Some(guest.run.saturating_add(pace));
        }
        let (plugged, moves) = (guest.memory.plugged, guest.memory.moves());
        if event && guest.process.is_some() {
            guest.take(Incoming::Hotplug, pace / 100);
        }
        if !moves {
            tell!(self, "vm {index} has {} MiB plugged", plugged.0 >> 20);
        }
    }

    /// The agent wakes up.
    fn wake(&mut self, index: usize) -> Result<(), Breach> {
        let delay = self.lateness(index);
        let tick = self.settings.tick;
        let Some(vm) = self.vms.get_mut(index) else { return Ok(()) };
        let guest = &mut vm.guest;
        let late = guest.run.saturating_sub(guest.tasks.timer.unwrap_or(guest.run));
        let lives = vm.lives.take();
        let woken = agent::wake(guest, tick, late, lives)?;
        let Some(Wakeup { outputs, over, died, unread }) = woken else { return Ok(()) };
        guest.arm(delay);
        if unread {
            guest.tasks.wake = Some(guest.run);
        }
        let account = vm.account;
        if let Some(account) = self.accounts.get_mut(account) {
            account.books.truth.over = add(account.books.truth.over, over);
        }
        for output in outputs {
            match output {
                Output::Reply { to, reply, reach, closed } => {
                    self.send_host(index, to.0, ToHost::Reply { reply, reach, closed });
                }
                Output::Close(connection) => self.send_host(index, connection.0, ToHost::Closed),
                Output::Dial => self.dial(index),
            }
        }
        if died {
            self.kill(index);
        }
        Ok(())
    }

    fn lateness(&mut self, index: usize) -> u64 {
        if self.settings.faults.has(Fault::Starvation) && self.random.once_in(64) {
            let late = self.random.around(8 * SECOND);
            if let Some(account) = self.vms.get(index).map(|vm| vm.account) {
                self.disturb(account);
            }
            tell!(self, "vm {index} will get no CPU for {} ms", late / MILLI);
            return late;
        }
        self.random.below(2 * MILLI)
    }

    /// The agent's process is gone, whatever it was doing.
    pub(super) fn kill(&mut self, index: usize) {
        let after = if self.random.once_in(4) { 30 * SECOND } else { 2 * SECOND };
        let after = self.random.around(after);
        self.sync(index);
        let Some(vm) = self.vms.get_mut(index) else { return };
        let connections =
            vm.guest.process.as_ref().map(|process| process.connections.clone()).unwrap_or_default();
        vm.guest.kill(after);
        let account = vm.account;
        for connection in connections {
            self.send_host(index, connection.0, ToHost::Closed);
        }
        self.disturb(account);
        self.schedule(index);
        tell!(self, "the agent of vm {index} dies; it is started again {} ms later", after / MILLI);
    }

    /// Another build, as an upgrade or an old snapshot brings it: neither reads the other's state.
    pub(super) fn replace_agent(&mut self, index: usize, build: Build) {
        self.kill(index);
        if let Some(vm) = self.vms.get_mut(index) {
            vm.guest.build = build;
            vm.guest.file = None;
        }
        tell!(self, "the agent of vm {index} is replaced: {build:?}");
    }
}
