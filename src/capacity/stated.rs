//! What the host says of a VM's memory: it gave it, so its word goes before what a guest can find.

use super::remark::Remark;
use super::{BootPrecision, Source};
use crate::kernel::{BootMemory, MemoryFacts};
use crate::units::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The host's last word on a VM's memory, where it has said one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stated {
    /// What it asked virtio-mem for, all devices together.
    pub requested: Option<Bytes>,
    /// The boot memory that the VM was given.
    pub boot: Option<Bytes>,
}

impl Stated {
    /// Puts the stated boot memory in the place of the found one.
    pub fn hold(&self, facts: &mut MemoryFacts) -> Option<Remark> {
        let stated = self.boot?;
        let found = facts.layout.boot.as_ref();
        // Only what knows where boot memory lies can tell it from the rest.
        let spans = found
            .ok()
            .filter(|found| found.source != Source::MemoryBlocks)
            .map_or_else(Vec::new, |found| found.spans.clone());
        let contradicted = found.ok().filter(|found| match found.precision {
            BootPrecision::Exact => found.bytes != stated,
            BootPrecision::LowerBound => found.bytes > stated,
            BootPrecision::UpperBound => found.bytes < stated,
        });
        let remark = contradicted.map(|found| Remark::BootContradicted {
            stated,
            found: found.bytes,
            by: found.source,
            precision: found.precision,
        });
        let layout = Arc::make_mut(&mut facts.layout);
        layout.boot =
            Ok(BootMemory { bytes: stated, source: Source::Host, spans, precision: BootPrecision::Exact });
        remark
    }
}
