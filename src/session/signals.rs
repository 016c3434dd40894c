//! The traces that resumes leave: which of them moved, and whether that tells of a new resume or of a known one.

use super::{Action, Depth, Session};
use crate::units::Nanos;
use crate::wire::message::{Clock, Finding, Signal};
use serde::{Deserialize, Serialize};

/// How far `CLOCK_REALTIME` moves against `CLOCK_MONOTONIC` when a clock is set, and not just slewed.
const STEP_MIN: u64 = Nanos::SECOND.0;

/// The last value of each trace; `None` where there is no such device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signals {
    /// The VMClock page.
    pub vmclock: Option<Vmclock>,
    /// Interrupts of the VMGenID device.
    pub vmgenid: Option<u64>,
}

/// What the VMClock page says (`struct vmclock_abi` of `linux/vmclock-abi.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vmclock {
    /// `disruption_marker`: changes when the VM was paused or migrated.
    pub disruption: u64,
    /// `vm_generation_counter`: changes when the VM was restored; not every VMM has it.
    pub generation: Option<u64>,
}

/// How late a trace may tell of a resume that is known.
const LATE_MAX: Nanos = Nanos::from_secs(10);

/// A resume that is known, and whether the trace that may come late has told of it. VMClock's page has changed before the
/// guest runs, so it never does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    /// When it was noticed or named, on `CLOCK_MONOTONIC`.
    pub(super) since: Nanos,
    vmgenid: bool,
}

impl Known {
    /// A resume at `now` that no trace has told of yet.
    pub(super) fn at(now: Nanos) -> Self {
        Self { since: now, ..Self::default() }
    }

    fn tell(&mut self, moved: Moved) {
        self.vmgenid |= moved.vmgenid;
    }

    /// A device tells once of each resume.
    fn news(&self, moved: Moved) -> Moved {
        Moved { vmclock: moved.vmclock, vmgenid: moved.vmgenid && self.vmgenid }
    }
}

/// Which traces moved.
#[derive(Clone, Copy, Debug, Default)]
struct Moved {
    vmclock: bool,
    vmgenid: bool,
}

impl Moved {
    fn first(self) -> Option<Signal> {
        match self {
            Self { vmclock: true, .. } => Some(Signal::Vmclock),
            Self { vmgenid: true, .. } => Some(Signal::Vmgenid),
            _ => None,
        }
    }
}

impl Signals {
    /// Takes `read` up; a device that cannot be read keeps its last value.
    fn take(&mut self, read: Self) -> Moved {
        let vmclock = match (self.vmclock, read.vmclock) {
            (Some(before), Some(now)) => {
                let generations = before.generation.zip(now.generation);
                before.disruption != now.disruption || generations.is_some_and(|(before, now)| before != now)
            }
            _ => false,
        };
        let vmgenid = self.vmgenid.zip(read.vmgenid).is_some_and(|(before, now)| before != now);
        *self = Self { vmclock: read.vmclock.or(self.vmclock), vmgenid: read.vmgenid.or(self.vmgenid) };
        Moved { vmclock, vmgenid }
    }
}

/// A resume that was noticed and waits for the look that closes its slice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Noticed {
    pub(super) signal: Signal,
    pub(super) known: Known,
    pub(super) latency: Nanos,
}

impl Session {
    pub(super) fn signals(&mut self, now: Clock, read: Signals) -> Vec<Action> {
        let moved = self.saved.signals.take(read);
        let stepped = self.clock_stepped(now);
        let covered = self.covering(now.monotonic);
        let news = match covered {
            Some(known) => known.news(moved),
            None => moved,
        };
        let signal = news.first().or((stepped && self.saved.meter.held()).then_some(Signal::Clock));
        let mut actions = Vec::new();
        match signal {
            Some(signal) => {
                let mut known = Known::at(now.monotonic);
                known.tell(moved);
                self.notice(now.monotonic, signal, known, &mut actions);
            }
            None => {
                if let Some(known) = covered {
                    self.saved.known = Some({
                        let mut known = known;
                        known.tell(moved);
                        known
                    });
                } else if stepped {
                    self.find_and_ask(now.monotonic, Finding::ClockStep);
                }
            }
        }
        if moved.first().is_some() && signal.is_none() {
            // No look follows that would save it, and a restarted agent would take it for news.
            actions.push(Action::Save);
        }
        self.signals_at = (Some(now.monotonic), self.signals_at.0);
        actions
    }

    /// A connection that dies by a reset tells of a restore, or of a host that died: only a hold makes it a resume.
    pub(super) fn connection_reset(&mut self, now: Nanos) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.saved.meter.held() {
            self.notice(now, Signal::VsockReset, Known::at(now), &mut actions);
        } else if self.covering(now).is_none() {
            self.find(Finding::ConnectionReset);
            self.ask_host(now);
        }
        actions
    }

    fn notice(&mut self, now: Nanos, signal: Signal, known: Known, actions: &mut Vec<Action>) {
        if self.noticed.is_some() {
            return;
        }
        // What the host asked for in another life tells nothing of this one's.
        self.saved.stated.requested = None;
        self.noticed = Some(Noticed { signal, known, latency: now.saturating_sub(self.looked_before(now)) });
        actions.push(Action::Resumed(self.saved.stated));
        actions.push(Action::Look(Depth::Hot));
    }

    /// When the signals were last looked at before `now`'s wake-up.
    fn looked_before(&self, now: Nanos) -> Nanos {
        let (last, before) = self.signals_at;
        let looked = last.filter(|at| *at < now).or(before);
        looked.or(self.saved.meter.last().map(|(at, _)| at)).unwrap_or(now)
    }

    /// The known resume that a signal at `now` may still tell of.
    fn covering(&self, now: Nanos) -> Option<Known> {
        self.saved.known.filter(|known| now.saturating_sub(known.since) <= LATE_MAX)
    }

    fn clock_stepped(&mut self, now: Clock) -> bool {
        let offset = i128::from(now.realtime_unix.0) - i128::from(now.monotonic.0);
        // Both clocks stay below 2^63 ns until the year 2262.
        let offset = i64::try_from(offset).unwrap_or(i64::MAX);
        let before = self.saved.clock_offset_ns.replace(offset);
        before.is_some_and(|before| before.abs_diff(offset) >= STEP_MIN)
    }

    /// A hint that only the host can judge; asked once in each epoch.
    pub(super) fn find_and_ask(&mut self, now: Nanos, finding: Finding) {
        if !self.saved.findings.contains(&finding) {
            self.find(finding);
            self.ask_host(now);
        }
    }

    /// Once in each epoch.
    pub(super) fn find(&mut self, finding: Finding) {
        if !self.saved.findings.contains(&finding) {
            self.saved.findings.push(finding);
        }
    }
}
