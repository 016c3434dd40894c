//! What the agent says of its machine, held against what the VMM says of it at the same moment.

use super::HUNG;
use super::vm::Vm;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Instant;

/// One reading of `guestmeterd --once`: `key=value` lines.
#[derive(Clone, Debug)]
pub(crate) struct Reading(BTreeMap<String, String>);

impl Reading {
    pub(crate) fn parse(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        Self(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    /// The same keys from one line of `guestmeter read --json`.
    pub(crate) fn from_json(line: &str) -> Self {
        let document = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let mut pairs = BTreeMap::new();
        flatten(String::new(), &document, &mut pairs);
        Self(pairs)
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

    /// Equal to the byte where it is exact, within what bounds there are where it is not.
    pub(crate) fn holds(&self, vmm: u64) -> bool {
        let bound = |key, unknown| if self.text(key).is_empty() { unknown } else { self.bytes(key) };
        let (lower, upper) = (bound("memory.lower_bytes", 0), bound("memory.upper_bytes", u64::MAX));
        match self.text("memory.precision") {
            "exact" => [self.bytes("memory.plugged_bytes"), lower, upper] == [vmm; 3],
            "bounded" => (lower..=upper).contains(&vmm),
            other => panic!("precision {other:?}"),
        }
    }
}

fn flatten(path: String, value: &Value, into: &mut BTreeMap<String, String>) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| flatten(below(key), value, into)),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(scalar).collect();
            into.insert(path, items.join(","));
        }
        other => drop(into.insert(path, scalar(other))),
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
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
            assert!(start.elapsed() < HUNG, "the VMM's sizes never stood still");
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
