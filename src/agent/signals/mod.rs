//! The traces that a restore leaves inside the guest, read in every wake-up before time is counted.
//!
//! A read costs no system call for VMClock and one for VMGenID. What a trace cannot tell for the moment is `None`, and
//! the session keeps its last value.

mod page;
pub(super) mod vmclock;
mod vmgenid;

pub(super) use vmclock::Vmclock;
pub(super) use vmgenid::Vmgenid;

use super::cli::Options;
use super::poller::Poller;
use crate::session::Signals;
use std::os::fd::OwnedFd;

/// Why there is no such trace here. Most VMs lack one or the other.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Absent(String);

/// All traces that this guest has.
#[derive(Debug)]
pub(super) struct Traces {
    pub(super) vmclock: Result<Vmclock, Absent>,
    pub(super) vmgenid: Result<Vmgenid, Absent>,
}

impl Traces {
    /// Opens what is there; of `given`, what was opened before with privilege is taken.
    pub(super) fn open(options: &Options, given: &mut Vec<(String, OwnedFd)>) -> Self {
        let passed = given.iter().position(|(name, _)| name == vmclock::NAME);
        let passed = passed.map(|at| given.swap_remove(at).1);
        Self { vmclock: Vmclock::open(&options.dev_root, passed), vmgenid: Vmgenid::open(&options.sys_root) }
    }

    /// Lets a change wake the loop where the kernel can.
    pub(super) fn watch(&mut self, poller: &mut Poller) {
        if let Ok(vmclock) = &mut self.vmclock {
            vmclock.watch(poller);
        }
    }

    /// What they say now.
    pub(super) fn read(&self) -> Signals {
        Signals { vmgenid: self.vmgenid.as_ref().ok().and_then(Vmgenid::read), ..self.read_page() }
    }

    /// Of them what costs no system call.
    pub(super) fn read_page(&self) -> Signals {
        Signals { vmclock: self.vmclock.as_ref().ok().and_then(Vmclock::read), vmgenid: None }
    }
}
