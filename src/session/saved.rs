//! What must survive the agent: everything else is read again.

use super::segments::Ring;
use super::signals::{Known, Signals};
use crate::capacity::Stated;
use crate::meter::{Meter, Usage};
use crate::units::Nanos;
use crate::wire::codec::SANDBOX_MAX;
use crate::wire::message::{Epoch, Finding, Resumed};
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
    /// The resume that opened the epoch; a provisional epoch without one was opened by a boot or a lost state.
    pub resume: Option<Resumed>,
    /// What is out of the ordinary in the epoch.
    pub(super) findings: Vec<Finding>,
    /// The highest number that an epoch was named with.
    pub(super) number_max: u64,
    /// Whether the host's mark was applied in the epoch.
    pub(super) marked: bool,
    /// What the host last said of this VM's memory.
    pub(super) stated: Stated,
    /// Bytes that were no frame, since boot.
    pub(super) garbage_bytes: u64,
    /// The last value of each signal.
    pub(super) signals: Signals,
    /// `CLOCK_REALTIME` − `CLOCK_MONOTONIC` when it was last looked at.
    pub(super) clock_offset_ns: Option<i64>,
    /// The resume that late signals may still tell of; none after a checkpoint or a release.
    pub(super) known: Option<Known>,
    /// Set while memory has not settled since the epoch was opened: when it was.
    pub(super) settling: Option<Nanos>,
    /// What waits for an ack.
    pub(super) segments: Ring,
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
            findings: Vec::new(),
            number_max: 0,
            marked: false,
            stated: Stated::default(),
            garbage_bytes: 0,
            signals: Signals::default(),
            clock_offset_ns: None,
            known: None,
            settling: None,
            segments: Ring::default(),
        }
    }

    /// The same, one agent start later. A whole file may still hold what no report could say.
    pub(super) fn restarted(mut self, tick: Nanos) -> Self {
        self.meter.set_tick(tick);
        // Each once: a list that is full of one has no room for the next.
        for finding in std::mem::take(&mut self.findings) {
            if !self.findings.contains(&finding) {
                self.findings.push(finding);
            }
        }
        self.segments.trim();
        self.sandbox = self.sandbox.filter(|name| name.len() <= SANDBOX_MAX);
        self.instance = self.instance.saturating_add(1);
        self
    }
}
