//! One world: true time, what is due in it, and the VMs and sandboxes that it is due for.

use super::channel::{Connection, ToGuest, ToHost};
use super::faults::{Fault, Faults};
use super::guest::{Across, Guest, MILLI, SECOND, sooner};
use super::host::Account;
use super::law::Breach;
use super::memory::add;
use super::random::Random;
use super::soak::Desk;
use crate::units::Nanos;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// How a world is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) faults: Faults,
    /// How long things go wrong; then they heal.
    pub(super) length: u64,
    pub(super) tick: Nanos,
    pub(super) poll: u64,
    /// Between two lifecycle calls of a sandbox, and between two faults of a world.
    pub(super) lifecycle: u64,
    pub(super) fault: u64,
    /// One message in so many has another fate than to arrive.
    pub(super) message: u64,
    /// Sandboxes at once, clones included.
    pub(super) accounts: usize,
    /// Whether the seed's tickers run beside.
    pub(super) tickers: bool,
}

/// Whether a VM runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Running,
    Paused,
    Gone,
}

#[derive(Clone, Debug)]
pub(super) struct Vm {
    pub(super) account: usize,
    pub(super) guest: Guest,
    pub(super) state: State,
    /// Up to here its clocks have run, or since here it is paused.
    pub(super) synced: u64,
    /// The instant of the event that is queued for it.
    pub(super) scheduled: u64,
    /// Paused by somebody who told nobody.
    pub(super) blind: bool,
    /// Its agent dies after so many actions.
    pub(super) lives: Option<u32>,
}

/// What is due.
#[derive(Debug)]
pub(super) enum What {
    Vm(usize),
    ToGuest { vm: usize, connection: u64, body: ToGuest },
    ToHost { connection: u64, body: Box<ToHost> },
    Poll(usize),
    Timeout { account: usize, slot: usize, token: u64 },
    Call { account: usize, token: u64 },
    Operate { account: usize, token: u64 },
    BlindEnds(usize),
    Fault,
    Tick,
}

#[derive(Debug)]
struct Entry {
    at: u64,
    order: u64,
    what: What,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

pub(super) struct World {
    pub(super) now: u64,
    queue: BinaryHeap<Reverse<Entry>>,
    order: u64,
    pub(super) random: Random,
    pub(super) settings: Settings,
    pub(super) vms: Vec<Vm>,
    pub(super) accounts: Vec<Account>,
    pub(super) connections: Vec<Connection>,
    /// The ledger's next epoch number.
    pub(super) numbers: u64,
    pub(super) steps: u64,
    /// The real worker's books; without them the host of this world keeps its own alone.
    pub(super) desk: Option<Box<Desk>>,
    story: Option<Vec<String>>,
    /// Replies on connections that no worker holds.
    #[cfg(test)]
    pub(super) overheard: Vec<crate::wire::message::Reply>,
}

/// Says it, where somebody listens.
macro_rules! tell {
    ($world:expr, $($text:tt)*) => {
        if $world.listened_to() {
            let text = format!($($text)*);
            $world.say(text);
        }
    };
}
pub(super) use tell;

impl World {
    pub(super) fn new(seed: u64, settings: Settings, told: bool) -> Self {
        let mut world = Self {
            now: 0,
            queue: BinaryHeap::new(),
            order: 0,
            random: Random::new(seed),
            settings,
            vms: Vec::new(),
            accounts: Vec::new(),
            connections: Vec::new(),
            numbers: 0,
            steps: 0,
            desk: None,
            story: told.then(Vec::new),
            #[cfg(test)]
            overheard: Vec::new(),
        };
        if settings.faults != Faults::NONE {
            let first = world.random.around(settings.fault);
            world.at(first, What::Fault);
        }
        if settings.tickers {
            world.at(0, What::Tick);
        }
        world
    }

    pub(super) fn listened_to(&self) -> bool {
        self.story.is_some()
    }

    pub(super) fn say(&mut self, text: String) {
        let line = format!("{:>6}.{:03} s  {text}", self.now / SECOND, self.now % SECOND / MILLI);
        if let Some(story) = &mut self.story {
            story.push(line);
        }
    }

    pub(super) fn story(&self) -> &[String] {
        self.story.as_deref().unwrap_or_default()
    }

    /// Queues something.
    pub(super) fn at(&mut self, at: u64, what: What) {
        self.order += 1;
        self.queue.push(Reverse(Entry { at: at.max(self.now), order: self.order, what }));
    }

    pub(super) fn after(&mut self, span: u64, what: What) {
        self.at(self.now.saturating_add(span), what);
    }

    /// When the next thing is due.
    pub(super) fn next(&self) -> Option<u64> {
        self.queue.peek().map(|Reverse(entry)| entry.at)
    }

    /// Does the next thing; false where nothing is left.
    pub(super) fn step(&mut self) -> Result<bool, Breach> {
        let Some(Reverse(entry)) = self.queue.pop() else { return Ok(false) };
        self.now = entry.at;
        self.steps += 1;
        match entry.what {
            What::Vm(vm) => self.vm_due(vm, entry.at)?,
            What::ToGuest { vm, connection, body } => self.reaches_guest(vm, connection, body),
            What::ToHost { connection, body } => self.reaches_host(connection, *body)?,
            What::Poll(account) => self.poll(account),
            What::Timeout { account, slot, token } => self.timed_out(account, slot, token),
            What::Call { account, token } => self.call_again(account, token),
            What::Operate { account, token } => self.operate(account, token)?,
            What::BlindEnds(vm) => self.blind_ends(vm),
            What::Fault => self.fault()?,
            What::Tick => self.tick(),
        }
        Ok(true)
    }

    pub(super) fn add_vm(&mut self, account: usize, guest: Guest) -> usize {
        self.vms.push(Vm {
            account,
            guest,
            state: State::Paused,
            synced: self.now,
            scheduled: u64::MAX,
            blind: false,
            lives: None,
        });
        self.vms.len() - 1
    }

    /// Brings a VM's clocks to the present, and the truth of its sandbox.
    pub(super) fn sync(&mut self, vm: usize) {
        let Some(vm) = self.vms.get_mut(vm) else { return };
        if vm.state != State::Running {
            return;
        }
        let span = self.now.saturating_sub(vm.synced);
        let from = std::mem::replace(&mut vm.synced, self.now);
        let ran = vm.guest.advance(span);
        if let Some(desk) = &mut self.desk {
            desk.ran(vm.account, from, self.now);
        }
        if let Some(account) = self.accounts.get_mut(vm.account) {
            account.books.truth.run = account.books.truth.run.saturating_add(span);
            account.books.truth.ran = add(account.books.truth.ran, ran);
        }
    }

    /// Queues what the guest waits for next.
    pub(super) fn schedule(&mut self, index: usize) {
        let Some(vm) = self.vms.get_mut(index).filter(|vm| vm.state == State::Running) else { return };
        let Some(left) = vm.guest.due_in() else { return };
        // A slow clock takes longer: what comes too early is queued again.
        let at = vm.synced.saturating_add(left).max(self.now);
        if at == vm.scheduled {
            return;
        }
        vm.scheduled = at;
        self.at(at, What::Vm(index));
    }

    /// Stops a VM; it was brought to the present.
    pub(super) fn pause(&mut self, vm: usize) {
        self.sync(vm);
        if let Some(vm) = self.vms.get_mut(vm).filter(|vm| vm.state == State::Running) {
            vm.state = State::Paused;
            vm.scheduled = u64::MAX;
        }
    }

    /// Lets a VM run that was paused, or never ran.
    pub(super) fn run(&mut self, index: usize, across: Option<Across>) {
        let now = self.now;
        let Some(vm) = self.vms.get_mut(index).filter(|vm| vm.state == State::Paused) else { return };
        if let Some(across) = across {
            vm.guest.cross(across, now.saturating_sub(vm.synced), now, &mut self.random);
        }
        vm.synced = now;
        vm.state = State::Running;
        // Its timers ring by the clock as it is now.
        if vm.guest.process.is_some() {
            let pending = vm.guest.tasks.wake;
            vm.guest.arm(0);
            if let Some(pending) = pending.filter(|_| !vm.guest.inbox.is_empty()) {
                sooner(&mut vm.guest.tasks.wake, pending);
            }
        }
        self.schedule(index);
    }

    /// How the clock of a guest gets over a pause, in this world.
    pub(super) fn across(&mut self) -> Across {
        if !self.settings.faults.has(Fault::Clocks) {
            return Across::Freezes;
        }
        match self.random.below(8) {
            0..4 => Across::Freezes,
            4..7 => Across::Jumps,
            _ => Across::GoesBack,
        }
    }
}
