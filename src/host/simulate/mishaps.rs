//! What goes wrong by itself.

use super::faults::Fault;
use super::guest::{Build, SECOND};
use super::law::Breach;
use super::world::{What, World, tell};

impl World {
    /// One thing goes wrong somewhere.
    pub(super) fn fault(&mut self) -> Result<(), Breach> {
        if self.now >= self.settings.length {
            return Ok(());
        }
        let next = self.random.around(self.settings.fault);
        self.after(next, What::Fault);
        let point = [
            Fault::Crashes,
            Fault::State,
            Fault::Pauses,
            Fault::Boots,
            Fault::OldAgents,
            Fault::Connections,
            Fault::Hosts,
            Fault::Strangers,
            Fault::Memory,
        ];
        let fault = self.random.choose(Fault::Crashes, &point);
        let live: Vec<(usize, usize)> = self
            .accounts
            .iter()
            .enumerate()
            .filter(|(_, it)| it.running)
            .map(|(at, it)| (at, it.vm))
            .collect();
        let at = usize::try_from(self.random.below(live.len() as u64)).unwrap_or(0);
        let Some((account, vm)) = live.get(at).copied() else { return Ok(()) };
        if self.settings.faults.has(fault) {
            self.befall(fault, account, vm);
        }
        Ok(())
    }

    fn befall(&mut self, fault: Fault, account: usize, vm: usize) {
        match fault {
            Fault::Crashes if self.random.once_in(3) => self.kill(vm),
            Fault::Crashes => {
                let lives = u32::try_from(self.random.below(6)).ok();
                if let Some(vm) = self.vms.get_mut(vm) {
                    vm.lives = lives;
                }
            }
            Fault::State => {
                self.kill(vm);
                if let Some(vm) = self.vms.get_mut(vm) {
                    vm.guest.file = None;
                }
                tell!(self, "the state file of vm {vm} is lost");
            }
            Fault::Pauses => {
                let span = self.random.around(10 * SECOND);
                self.pause_blind(vm, span);
            }
            Fault::Boots => self.reboot(vm),
            Fault::OldAgents => {
                let upgrade = self.random.around(self.settings.fault / 4);
                self.replace_agent(vm, Build::Old);
                if let Some(vm) = self.vms.get_mut(vm) {
                    vm.guest.tasks.upgrade = Some(vm.guest.run.saturating_add(upgrade));
                }
            }
            Fault::Connections => self.cut_one(account),
            Fault::Hosts if self.random.once_in(2) => self.worker_dies(account),
            Fault::Hosts => self.second_worker(account),
            Fault::Strangers => self.stranger(account),
            _ => self.scale(account),
        }
    }

    fn cut_one(&mut self, account: usize) {
        self.disturb(account);
        let held = |slot: Option<(usize, usize)>| slot.is_some_and(|(index, _)| index == account);
        let recent = self.connections.len().saturating_sub(16);
        let one = self.connections.iter().enumerate().skip(recent).rev().find(|(_, it)| held(it.host));
        if let Some((id, _)) = one {
            self.cut(id as u64);
        }
    }
}
