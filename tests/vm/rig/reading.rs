//! What the agent says of its machine, held against what the VMM says of it at the same moment.

use super::qemu::Vm;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// One reading of `guestmeterd --once`: `key=value` lines.
#[derive(Clone, Debug)]
pub(crate) struct Reading(BTreeMap<String, String>);

impl Reading {
    pub(crate) fn parse(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        Self(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    pub(crate) fn text(&self, key: &str) -> &str {
        self.0.get(key).unwrap_or_else(|| panic!("no {key} in {self:?}"))
    }

    pub(crate) fn bytes(&self, key: &str) -> u64 {
        let text = self.text(key);
        text.parse().unwrap_or_else(|_| panic!("{key}={text:?} in {self:?}"))
    }

    pub(crate) fn is_exact(&self) -> bool {
        self.text("memory.precision") == "exact"
    }

    /// Equal to the byte where it is exact, within its bounds where it is not.
    pub(crate) fn holds(&self, vmm: u64) -> bool {
        let (lower, upper) = (self.bytes("memory.lower_bytes"), self.bytes("memory.upper_bytes"));
        match self.text("memory.precision") {
            "exact" => [self.bytes("memory.plugged_bytes"), lower, upper] == [vmm; 3],
            "bounded" => (lower..=upper).contains(&vmm),
            other => panic!("precision {other:?}"),
        }
    }
}

impl Vm {
    /// A reading at a moment when the VMM said the same before and after, which it must agree with.
    pub(crate) fn witness(&mut self, arguments: &str) -> Reading {
        self.agreeing(|vm| Reading::parse(&vm.sh(&format!("/usr/bin/guestmeterd --once {arguments}"))))
    }

    /// The same for any way to read.
    pub(crate) fn agreeing(&mut self, mut read: impl FnMut(&mut Self) -> Reading) -> Reading {
        let start = Instant::now();
        loop {
            let before = self.memory_devices();
            let reading = read(self);
            let after = self.memory_devices();
            if before == after {
                let vmm: u64 = after.iter().map(|device| device.plugged_bytes).sum();
                if !reading.holds(vmm) {
                    self.fail(&format!("the VMM says {vmm} plugged, the agent {reading:#?}"));
                }
                return reading;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "the VMM's sizes never stood still");
        }
    }

    /// The same, and it must be exact.
    pub(crate) fn witness_exact(&mut self, arguments: &str) -> Reading {
        let reading = self.witness(arguments);
        if !reading.is_exact() {
            self.fail(&format!("not exact: {reading:#?}"));
        }
        reading
    }
}
