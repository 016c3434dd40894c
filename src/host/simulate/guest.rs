//! A guest: clocks, memory, devices, and a tmpfs with the agent's state. All of it rolls back with a snapshot.

use super::agent::Process;
use super::memory::{Device, Three, add, over};
use super::random::Random;
use super::shadow::Shadow;
use crate::session::ConnectionId;
use crate::session::{Saved, Signals, Vmclock};
use crate::units::{MilliCpu, Nanos};
use crate::wire::message::{Clock, Id, Request};
use std::collections::VecDeque;

/// Unix time when a world begins.
pub(super) const BEGIN: u64 = 1_750_000_000_000_000_000;
/// One second.
pub(super) const SECOND: u64 = 1_000_000_000;
/// One millisecond.
pub(super) const MILLI: u64 = 1_000_000;

/// What a guest's clock does over a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Across {
    /// It stands still.
    Freezes,
    /// It says that all of the pause went by.
    Jumps,
    /// It goes on a little before where it stopped.
    GoesBack,
}

/// What waits to be read in the guest.
#[derive(Clone, Debug)]
pub(super) enum Incoming {
    Connected(ConnectionId),
    Request(ConnectionId, Request),
    Closed { connection: ConnectionId, reset: bool },
    Dialed(ConnectionId),
    DialFailed,
    Hotplug,
}

/// Which build of the agent the image has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Build {
    Current,
    /// It answers `Unsupported` to all that has to do with epochs.
    Old,
}

/// The agent's state file.
#[derive(Clone, Debug)]
pub(super) struct File {
    pub(super) saved: Saved,
    /// What the world knows of that state.
    pub(super) shadow: Shadow,
}

#[derive(Clone, Debug)]
pub(super) struct Guest {
    pub(super) boot_id: Id,
    pub(super) monotonic: u64,
    pub(super) realtime: u64,
    /// Drift, and what of it is less than a nanosecond.
    pub(super) ppm: i64,
    rest: i64,
    /// Time run since the VM first ran, and that times capacity.
    pub(super) run: u64,
    pub(super) ran: Three,
    /// Both, when this boot began: a reboot from inside goes on counting them.
    pub(super) born: (u64, Three),
    /// How far the monotonic clock has jumped, and gone back, since boot.
    pub(super) jumped: u64,
    pub(super) went_back: u64,
    pub(super) memory: Device,
    pub(super) cpu: MilliCpu,
    pub(super) vmclock: Option<u64>,
    pub(super) vmgenid: Option<u64>,
    /// Whether the kernel wakes who polls the vmclock.
    pub(super) vmclock_polls: bool,
    /// Restores in this lineage.
    pub(super) restores: u64,
    /// Time run when it was last restored, and how much after the restore before.
    restored: u64,
    /// `ran` then.
    pub(super) ran_before: Three,
    pub(super) restored_within: u64,
    pub(super) build: Build,
    pub(super) process: Option<Process>,
    pub(super) file: Option<File>,
    /// Agent processes of this boot that have counted from nothing.
    pub(super) counted_from_nothing: u32,
    pub(super) inbox: VecDeque<Incoming>,
    pub(super) tasks: Tasks,
}

/// What is due in the guest, each when so much time was run.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tasks {
    pub(super) wake: Option<u64>,
    /// When the agent's own timer would have it.
    pub(super) timer: Option<u64>,
    pub(super) start: Option<u64>,
    pub(super) plug: Option<u64>,
    pub(super) set_clock: Option<u64>,
    pub(super) vmgenid: Option<u64>,
    /// An old agent is replaced by a current one.
    pub(super) upgrade: Option<u64>,
}

impl Tasks {
    fn next(&self) -> Option<u64> {
        [self.wake, self.start, self.plug, self.set_clock, self.vmgenid, self.upgrade]
            .into_iter()
            .flatten()
            .min()
    }
}

/// Takes the task out if it is due.
pub(super) fn due(task: &mut Option<u64>, run: u64) -> bool {
    let due = task.is_some_and(|at| at <= run);
    if due {
        *task = None;
    }
    due
}

/// The earlier of the two.
pub(super) fn sooner(task: &mut Option<u64>, at: u64) {
    *task = Some(task.map_or(at, |other| other.min(at)));
}

impl Guest {
    /// A kernel that starts now in the VM of `image`, and takes so long until the agent does.
    pub(super) fn boot(image: &Guest, id: Id, now: u64, agent_after: u64) -> Self {
        let mut memory = image.memory.clone();
        memory.forget();
        Self {
            boot_id: id,
            monotonic: 0,
            realtime: BEGIN.saturating_add(now),
            rest: 0,
            born: (image.run, image.ran),
            jumped: 0,
            went_back: 0,
            memory,
            restores: 0,
            restored: 0,
            ran_before: image.ran,
            restored_within: u64::MAX,
            process: None,
            file: None,
            counted_from_nothing: 0,
            inbox: VecDeque::new(),
            tasks: Tasks {
                start: Some(image.run.saturating_add(agent_after)),
                upgrade: image.tasks.upgrade.map(|_| image.run.saturating_add(60 * SECOND)),
                ..Tasks::default()
            },
            ..image.clone()
        }
    }

    /// What another VM of the same image boots from.
    pub(super) fn cold(&self) -> Self {
        Self { run: 0, ran: [0; 3], ran_before: [0; 3], ..self.clone() }
    }

    /// An image to boot from.
    pub(super) fn image(memory: Device, cpu: MilliCpu, build: Build) -> Self {
        Self {
            boot_id: Id::default(),
            monotonic: 0,
            realtime: BEGIN,
            ppm: 0,
            rest: 0,
            run: 0,
            ran: [0; 3],
            born: (0, [0; 3]),
            jumped: 0,
            went_back: 0,
            memory,
            cpu,
            vmclock: None,
            vmgenid: None,
            vmclock_polls: false,
            restores: 0,
            restored: 0,
            ran_before: [0; 3],
            restored_within: u64::MAX,
            build,
            process: None,
            file: None,
            counted_from_nothing: 0,
            inbox: VecDeque::new(),
            tasks: Tasks::default(),
        }
    }

    /// A VMM has made it anew from a snapshot.
    pub(super) fn restored(&mut self) {
        if self.restores > 0 {
            self.restored_within = self.run.saturating_sub(self.restored);
        }
        self.restores += 1;
        self.restored = self.run;
        self.ran_before = self.ran;
    }

    /// Runs for `span` of true time; gives the guest's own time, and that times its capacity.
    pub(super) fn advance(&mut self, span: u64) -> Three {
        let drift =
            i64::try_from(span).unwrap_or(i64::MAX).saturating_mul(self.ppm).saturating_add(self.rest);
        self.rest = drift.rem_euclid(1_000_000);
        let gone = span.saturating_add_signed(drift.div_euclid(1_000_000));
        self.monotonic = self.monotonic.saturating_add(gone);
        self.realtime = self.realtime.saturating_add(gone);
        self.run = self.run.saturating_add(gone);
        let ran = over(self.memory.rate(self.cpu), gone);
        self.ran = add(self.ran, ran);
        ran
    }

    /// Goes on after a pause of `span`; `now` is true time.
    pub(super) fn cross(&mut self, across: Across, span: u64, now: u64, random: &mut Random) {
        match across {
            Across::Freezes => {}
            Across::Jumps => {
                self.monotonic = self.monotonic.saturating_add(span);
                self.jumped = self.jumped.saturating_add(span);
            }
            Across::GoesBack => {
                let most = if random.once_in(8) { 30 * SECOND } else { 2 * SECOND };
                let back = random.below(most).min(self.monotonic);
                self.monotonic -= back;
                self.went_back = self.went_back.saturating_add(back);
            }
        }
        match random.below(3) {
            0 => self.realtime = BEGIN.saturating_add(now),
            1 => self.tasks.set_clock = Some(self.run.saturating_add(random.around(10 * SECOND))),
            _ => {}
        }
    }

    pub(super) fn clock(&self) -> Clock {
        Clock {
            monotonic: Nanos(self.monotonic),
            boottime: Nanos(self.monotonic),
            realtime_unix: Nanos(self.realtime),
        }
    }

    pub(super) fn signals(&self) -> Signals {
        let vmclock = self.vmclock.map(|disruption| Vmclock { disruption, generation: Some(disruption) });
        Signals { vmclock, vmgenid: self.vmgenid }
    }

    /// Something came for the agent.
    pub(super) fn take(&mut self, incoming: Incoming, latency: u64) {
        self.inbox.push_back(incoming);
        sooner(&mut self.tasks.wake, self.run.saturating_add(latency));
    }

    /// How much it has to run until something is due.
    pub(super) fn due_in(&self) -> Option<u64> {
        self.tasks.next().map(|at| at.saturating_sub(self.run))
    }

    /// When the agent's timer rings, `delay` late.
    pub(super) fn arm(&mut self, delay: u64) {
        let Some(process) = &self.process else { return };
        let deadline = process.deadline().0;
        let left = deadline.saturating_sub(self.monotonic);
        let late = self.monotonic.saturating_sub(deadline);
        self.tasks.timer = Some(self.run.saturating_add(left).saturating_sub(late));
        self.tasks.wake = Some(self.run.saturating_add(left).saturating_add(delay));
    }

    /// The agent is gone, and comes back `after` so much time was run.
    pub(super) fn kill(&mut self, after: u64) {
        self.process = None;
        self.memory.forget();
        self.inbox.retain(|incoming| matches!(incoming, Incoming::Hotplug));
        self.tasks.wake = None;
        self.tasks.start = Some(self.run.saturating_add(after));
    }
}
