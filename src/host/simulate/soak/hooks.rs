//! Where a world tells its worker's desk what a worker hears.

use super::super::account::Verdict;
use super::super::guest::BEGIN;
use super::super::world::{State, World};
use super::desk::Word;
use crate::host::reconcile::{Answer, Call, Claim, Evidence, Lifecycle, Minted, Requested, Told, VmState};
use crate::units::{Bytes, Nanos};
use crate::wire::message::Report;

impl World {
    fn instant(&self) -> Nanos {
        Nanos(BEGIN.saturating_add(self.now))
    }

    /// A call of the platform, which repeats it while the worker is away.
    fn calls(&mut self, index: usize, call: Call) {
        let evidence = Evidence::Lifecycle(Lifecycle { at: self.instant(), call });
        let away = self.accounts.get(index).is_some_and(|account| self.now < account.down_until);
        let now = self.now;
        let Some(desk) = &mut self.desk else { return };
        if away {
            desk.later(index, evidence);
        } else {
            desk.take(index, evidence, now);
        }
    }

    fn minted(&self, index: usize) -> Option<Minted> {
        let epoch = self.accounts.get(index)?.books.rows.last()?.epoch;
        Some(Minted { id: epoch.id, number: epoch.number })
    }

    /// What the platform asked for.
    fn requested(&self, index: usize) -> Requested {
        let guest = self
            .accounts
            .get(index)
            .and_then(|account| self.vms.get(account.vm))
            .map(|vm| (vm.guest.memory.boot.saturating_add(vm.guest.memory.requested), vm.guest.cpu));
        Requested {
            memory_mib: guest.map(|(memory, _)| memory.0 / Bytes::MIB.0),
            cpu: guest.map(|(_, cpu)| cpu),
        }
    }

    /// A VM was booted, or goes on after a pause.
    pub(in super::super) fn begins(&mut self, index: usize, paused: bool) {
        let Some(epoch) = self.minted(index) else { return };
        let size = self.requested(index);
        let resumed = Call::Resumed { epoch, size: Some(size), paused };
        self.calls(index, if paused { resumed } else { Call::Started { epoch, size } });
    }

    /// A snapshot was given up.
    pub(in super::super) fn runs_on(&mut self, index: usize) {
        if let Some(epoch) = self.minted(index) {
            self.calls(index, Call::Resumed { epoch, size: None, paused: false });
        }
    }

    /// Mints a name for what runs on.
    pub(in super::super) fn mint_on(&mut self, index: usize) -> Option<usize> {
        let row = self.mint(index, false)?;
        if let Some(epoch) = self.minted(index) {
            self.calls(index, Call::Named { epoch });
        }
        Some(row)
    }

    /// A VM stands still, or is about to; and is gone unless `pausing`.
    pub(in super::super) fn ends(&mut self, index: usize, pausing: bool) {
        let epoch = self.minted(index).map(|epoch| epoch.id);
        self.calls(index, Call::Pausing { epoch });
        if !pausing {
            self.calls(index, Call::Destroyed { epoch });
        }
    }

    pub(in super::super) fn scaled(&mut self, index: usize) {
        let size = self.requested(index);
        self.calls(index, Call::Scaled { size });
    }

    /// Since `since`, and nobody was told.
    pub(in super::super) fn stood_still(&mut self, index: usize, since: u64) {
        let span = self.now.saturating_sub(since);
        if let Some(desk) = &mut self.desk {
            desk.stood_still(index, span);
        }
    }

    /// A poll was not answered: hours end all the same, and the VMM is asked.
    pub(in super::super) fn unheard(&mut self, index: usize) {
        let (now, at) = (self.now, self.instant());
        let Some(vm) = self.accounts.get(index).and_then(|account| self.vms.get(account.vm)) else { return };
        let memory = &vm.guest.memory;
        let answer = Answer {
            received: at,
            state: match vm.state {
                State::Running => VmState::Running,
                State::Paused => VmState::Paused,
                State::Gone => VmState::Gone,
            },
            memory: Some(memory.boot.saturating_add(memory.plugged)),
            memory_max: Some(memory.boot.saturating_add(memory.most)),
            vcpus: Some(8),
        };
        if let Some(desk) = &mut self.desk {
            desk.take(index, Evidence::Clock(at), now);
            desk.take(index, Evidence::Vmm(answer), now);
        }
    }

    /// What the worker makes of a report that it asked for at `asked`; without one, what this world's own host does.
    pub(in super::super) fn word(
        &mut self,
        index: usize,
        report: &Report,
        asked: Option<u64>,
        own: Verdict,
    ) -> Word {
        let (now, at) = (self.now, self.instant());
        let Some(desk) = &mut self.desk else {
            let ack = matches!(own, Verdict::Posted | Verdict::Early);
            return Word { ack, name: own != Verdict::Posted };
        };
        let asked = asked.map(|asked| Nanos(BEGIN.saturating_add(asked)));
        let copy_of = desk.copy_of(index, report.identity.boot_id);
        let claim = Claim::of(report, asked, at);
        desk.take(index, Evidence::Report(Told { claim, copy_of }), now)
    }
}
