//! What may go wrong in a world, by name.

use std::fmt;
use std::str::FromStr;

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Guest clocks jump over a pause, drift, and go back.
    Clocks,
    /// Pauses that nobody announces; snapshots without a checkpoint.
    Pauses,
    /// One snapshot restored more than once, as other sandboxes.
    Clones,
    /// A restore of an older snapshot, under the same name.
    Rollbacks,
    /// Snapshots that are given up after their checkpoint.
    Aborts,
    /// Cold boots, and reboots from inside.
    Boots,
    /// The agent is killed, at any instant and between any two of its actions.
    Crashes,
    /// The agent's state file is lost.
    State,
    /// An agent of an older build, that knows no epochs; and its upgrade.
    OldAgents,
    /// The guest gets no CPU for a while.
    Starvation,
    /// Messages are lost, late, doubled and reordered.
    Messages,
    /// Connections break, for both ends or one.
    Connections,
    /// The host's worker dies; two of them ask at once.
    Hosts,
    /// Requests that no correct host would make.
    Strangers,
    /// Memory that plugs slowly, in part, or not at all; capacity that changes unseen.
    Memory,
}

/// Each kind with its name.
const NAMES: [(Fault, &str); 15] = [
    (Fault::Clocks, "clocks"),
    (Fault::Pauses, "pauses"),
    (Fault::Clones, "clones"),
    (Fault::Rollbacks, "rollbacks"),
    (Fault::Aborts, "aborts"),
    (Fault::Boots, "boots"),
    (Fault::Crashes, "crashes"),
    (Fault::State, "state"),
    (Fault::OldAgents, "old-agents"),
    (Fault::Starvation, "starvation"),
    (Fault::Messages, "messages"),
    (Fault::Connections, "connections"),
    (Fault::Hosts, "hosts"),
    (Fault::Strangers, "strangers"),
    (Fault::Memory, "memory"),
];

/// A set of faults: `all`, `none`, or names with commas between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults(u16);

/// A list of faults that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is no fault; there are all, none, {}", Names)]
pub struct FaultError {
    name: String,
}

struct Names;

impl Faults {
    /// Nothing goes wrong.
    pub const NONE: Self = Self(0);

    /// Everything may.
    #[must_use]
    pub fn all() -> Self {
        NAMES.iter().fold(Self::NONE, |faults, (fault, _)| faults.with(*fault))
    }

    /// The same, and `fault`.
    #[must_use]
    pub fn with(self, fault: Fault) -> Self {
        Self(self.0 | 1 << fault as u16)
    }

    /// The same, without `fault`.
    #[must_use]
    pub fn without(self, fault: Fault) -> Self {
        Self(self.0 & !(1 << fault as u16))
    }

    /// Whether `fault` may happen.
    #[must_use]
    pub fn has(self, fault: Fault) -> bool {
        self.0 & 1 << fault as u16 != 0
    }

    /// Those that may happen.
    pub fn iter(self) -> impl Iterator<Item = Fault> {
        NAMES.iter().map(|(fault, _)| *fault).filter(move |fault| self.has(*fault))
    }
}

impl FromStr for Faults {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        match text {
            "all" => return Ok(Self::all()),
            "none" => return Ok(Self::NONE),
            _ => {}
        }
        text.split(',').try_fold(Self::NONE, |faults, name| {
            let known = NAMES.iter().find(|(_, known)| *known == name.trim());
            let (fault, _) = known.ok_or_else(|| FaultError { name: name.trim().to_owned() })?;
            Ok(faults.with(*fault))
        })
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::all() {
            return f.write_str("all");
        }
        let names: Vec<&str> =
            NAMES.iter().filter(|(fault, _)| self.has(*fault)).map(|(_, name)| *name).collect();
        f.write_str(if names.is_empty() { "none" } else { "" })?;
        f.write_str(&names.join(","))
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = NAMES.iter().map(|(_, name)| *name).collect();
        f.write_str(&names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_reads_as_it_is_written() {
        for text in ["all", "none", "clocks", "clocks,crashes,messages"] {
            assert_eq!(text.parse::<Faults>().unwrap().to_string(), text);
        }
        assert_eq!(Faults::all().iter().count(), NAMES.len());
        assert_eq!(Faults::all().without(Fault::State).with(Fault::State), Faults::all());
    }

    #[test]
    fn an_unknown_one_is_named_with_those_there_are() {
        let error = "clocks,gremlins".parse::<Faults>().unwrap_err().to_string();
        assert!(
            error.starts_with("\"gremlins\" is no fault; there are all, none, clocks, pauses"),
            "{error}"
        );
    }
}
