//! What must survive the agent: everything else is read again.

use crate::meter::{Meter, Usage};
use crate::units::Nanos;
use crate::wire::message::{Epoch, Resumed};
use serde::{Deserialize, Serialize};

/// The persistent part of a session; the state file holds it. Its layout is bound to the state file's format number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Counters, capacity and instant of the last observation, hold.
    pub meter: Meter,
    /// The current epoch.
    pub epoch: Epoch,
    /// Usage where it began.
    pub base: Usage,
    /// The last report's number in it.
    pub seq: u64,
    /// Agent starts within this boot.
    pub instance: u32,
    /// The sandbox as the host last named it.
    pub sandbox: Option<String>,
    /// The resume that opened the epoch.
    pub resume: Option<Resumed>,
}

impl Saved {
    /// A boot, or a lost state: a provisional epoch that nothing was counted in.
    pub(crate) fn fresh(tick: Nanos) -> Self {
        Self {
            meter: Meter::new(tick),
            epoch: Epoch::default(),
            base: Usage::default(),
            seq: 0,
            instance: 1,
            sandbox: None,
            resume: None,
        }
    }

    /// The same, one agent start later.
    pub(super) fn restarted(mut self, tick: Nanos) -> Self {
        self.meter.set_tick(tick);
        self.instance = self.instance.saturating_add(1);
        self
    }
}
