//! Which call may follow which: a sandbox's life as the platform tells it. Pure.

use crate::units::{Bytes, Nanos};
use crate::wire::message::Id;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One of the platform's five calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Call {
    /// It boots.
    Started,
    /// The VMM was asked for another size.
    Scaled,
    /// It is about to be paused.
    Pausing,
    /// It runs again, restored or resumed or after a snapshot that was given up.
    Resumed,
    /// It is gone.
    Destroyed,
}

/// Where a sandbox is between two calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// No call yet: a template, or a VM that the platform has not told of.
    #[default]
    Unborn,
    /// It runs, as far as the platform has said.
    Running,
    /// `pausing` was its last call.
    Paused,
    /// `destroyed` was.
    Destroyed,
}

/// A sandbox's life, and what its guest has to be told of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// Where it is.
    pub phase: Phase,
    /// The epoch of the last life, the current one while it runs.
    pub epoch: Option<Named>,
    /// What this life was called before it was named anew, which is no edge and which the platform need not know of; the
    /// first name first.
    before: Vec<Id>,
}

/// Names of one life that are remembered.
const NAMES_MAX: usize = 8;

/// An epoch with everything that its `Resume` says, so that it can be said again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Its id.
    pub id: Id,
    /// Its number.
    pub number: u64,
    /// Whether the VM was paused before it.
    pub paused: bool,
    /// When it began.
    pub at: Nanos,
    /// What virtio-mem was asked for, all devices together.
    pub requested: Option<Bytes>,
    /// Whether the guest has answered to it.
    pub confirmed: bool,
}

/// What a call out of order is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Expected {
    /// The calls that may come now.
    pub calls: Vec<Call>,
    /// The epoch that they end, as 32 hex digits; null where there was none yet.
    pub epoch: Option<String>,
}

impl Call {
    /// All five.
    pub const ALL: [Self; 5] = [Self::Started, Self::Scaled, Self::Pausing, Self::Resumed, Self::Destroyed];

    /// As in the path of the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Scaled => "scaled",
            Self::Pausing => "pausing",
            Self::Resumed => "resumed",
            Self::Destroyed => "destroyed",
        }
    }

    /// Whether it begins a life, which needs an epoch.
    #[must_use]
    pub fn mints(self) -> bool {
        matches!(self, Self::Started | Self::Resumed)
    }
}

impl Phase {
    /// For a metric.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unborn => "unborn",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Destroyed => "destroyed",
        }
    }

    /// The calls that may come. A cold boot may follow anything, for a VM may die without a word; so may a restore, but
    /// for what was never there.
    fn expects(self) -> &'static [Call] {
        match self {
            Self::Unborn => &[Call::Started, Call::Resumed],
            Self::Running => &Call::ALL,
            Self::Paused => &[Call::Pausing, Call::Resumed, Call::Destroyed, Call::Started],
            Self::Destroyed => &[Call::Started, Call::Resumed],
        }
    }
}

impl Life {
    /// A new life.
    pub fn begin(&mut self, epoch: Named) {
        *self = Self { phase: Phase::Running, epoch: Some(epoch), before: Vec::new() };
    }

    /// The same life under another name.
    pub fn rename(&mut self, epoch: Named) {
        if let Some(before) = self.epoch.replace(epoch) {
            if self.before.len() >= NAMES_MAX {
                self.before.remove(1);
            }
            self.before.push(before.id);
        }
    }

    /// Whether `call`, which ends the epoch `ends`, may come now.
    ///
    /// # Errors
    /// It may not; what may.
    pub fn admit(&self, call: Call, ends: Option<Id>) -> Result<(), Expected> {
        let current = self.epoch.map(|epoch| epoch.id);
        let expects = self.phase.expects();
        let known = ends == current || ends.is_some_and(|ends| self.before.contains(&ends));
        if expects.contains(&call) && known {
            return Ok(());
        }
        Err(Expected { calls: expects.to_vec(), epoch: current.map(hex) })
    }
}

/// 32 hex digits.
#[must_use]
pub fn hex(id: Id) -> String {
    id.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Id = Id([1; 16]);
    const TWO: Id = Id([2; 16]);

    fn life(phase: Phase) -> Life {
        let named =
            Named { id: ONE, number: 1, paused: false, at: Nanos(0), requested: None, confirmed: true };
        Life { phase, epoch: (phase != Phase::Unborn).then_some(named), before: Vec::new() }
    }

    #[test]
    fn each_phase_admits_what_may_follow_it() {
        let table = [
            (Phase::Unborn, "started resumed"),
            (Phase::Running, "started scaled pausing resumed destroyed"),
            (Phase::Paused, "started pausing resumed destroyed"),
            (Phase::Destroyed, "started resumed"),
        ];
        for (phase, expected) in table {
            let life = life(phase);
            let ends = life.epoch.map(|epoch| epoch.id);
            let admitted = Call::ALL.into_iter().filter(|call| life.admit(*call, ends).is_ok());
            let names: Vec<_> = admitted.map(Call::name).collect();
            assert_eq!(names.join(" "), expected, "{phase:?}");
        }
    }

    #[test]
    fn a_call_of_another_life_is_told_the_current_one() {
        let refused = life(Phase::Running).admit(Call::Pausing, Some(TWO)).unwrap_err();
        assert_eq!(refused.epoch.as_deref(), Some("01010101010101010101010101010101"));
        assert_eq!(refused.calls, Call::ALL);
        assert!(life(Phase::Running).admit(Call::Started, None).is_err());
        assert!(life(Phase::Unborn).admit(Call::Started, Some(ONE)).is_err());
    }

    #[test]
    fn a_life_that_was_named_anew_is_known_by_its_first_name_too() {
        let mut life = life(Phase::Running);
        let first = life.epoch.unwrap();
        for number in 2..30 {
            life.rename(Named { id: Id([number; 16]), number: number.into(), ..first });
        }
        for known in [ONE, Id([28; 16]), Id([29; 16])] {
            assert!(life.admit(Call::Pausing, Some(known)).is_ok(), "{known:?}");
        }
        assert!(life.admit(Call::Pausing, Some(TWO)).is_err(), "there is an end to what is remembered");
        life.begin(Named { id: Id([99; 16]), number: 99, ..first });
        assert!(life.admit(Call::Pausing, Some(ONE)).is_err());
    }
}
