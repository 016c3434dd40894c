//! A guest's report beside its VMM's answers. Pure.
//!
//! The VMM is asked before and after the guest, so a number that moves is between its two answers. Where the guest
//! knows only bounds, the two agree as long as the spans meet.

use super::{VmmCpus, VmmMemory};
use crate::capacity::{Memory, Precision};
use crate::units::Bytes;
use crate::wire::message::Report;

/// One number by both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which number.
    pub what: What,
    /// Least and most by the guest; `None` where it does not know.
    pub guest: Option<(u64, u64)>,
    /// Least and most by the VMM.
    pub vmm: (u64, u64),
    /// Whether both cannot be true.
    pub differs: bool,
}

/// Which number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Boot memory, in bytes. A guest under UEFI sees less than there is, so only more differs.
    Boot,
    /// What virtio-mem has given, in bytes.
    Plugged,
    /// What virtio-mem is asked to give, in bytes.
    Requested,
    /// CPUs. A guest may leave some offline, so only more differs.
    Cpus,
}

impl What {
    /// As people write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Plugged => "plugged",
            Self::Requested => "requested",
            Self::Cpus => "CPUs",
        }
    }
}

/// The guest's numbers beside the VMM's, of which the first answer was given before the report and the other after.
#[must_use]
pub fn compare(report: &Report, before: &VmmMemory, after: &VmmMemory, cpus: VmmCpus) -> [Row; 4] {
    let memory = &report.memory;
    let one = |bytes: Bytes| (bytes.0, bytes.0);
    let boot = between(before.boot, after.boot);
    let requested = between(before.requested, after.requested);
    let present = u64::from(cpus.present);
    let most = u64::from(cpus.maximum.unwrap_or(cpus.present));
    [
        row(What::Boot, memory.boot.map(one), boot, more(boot.1)),
        row(What::Plugged, plugged_by_guest(memory), plugged_by_vmm(before, after), apart),
        row(What::Requested, memory.requested.map(one), requested, apart),
        row(
            What::Cpus,
            report.cpu.online.map(|count| (count.into(), count.into())),
            (present, present),
            more(most),
        ),
    ]
}

type Span = (u64, u64);

fn row(what: What, guest: Option<Span>, vmm: Span, differ: impl Fn(Span, Span) -> bool) -> Row {
    Row { what, guest, vmm, differs: guest.is_some_and(|guest| differ(guest, vmm)) }
}

fn more(most: u64) -> impl Fn(Span, Span) -> bool {
    move |guest, _| guest.0 > most
}

fn apart(guest: Span, vmm: Span) -> bool {
    guest.0 > vmm.1 || guest.1 < vmm.0
}

fn between(a: Bytes, b: Bytes) -> Span {
    (a.min(b).0, a.max(b).0)
}

fn plugged_by_guest(memory: &Memory) -> Option<Span> {
    let plugged = memory.plugged?;
    match memory.precision {
        Precision::Exact => Some((plugged.0, plugged.0)),
        Precision::Bounded => Some((memory.lower.unwrap_or_default().0, memory.upper.unwrap_or(plugged).0)),
    }
}

/// A VMM that does not tell still knows what its devices can give.
fn plugged_by_vmm(before: &VmmMemory, after: &VmmMemory) -> Span {
    match (before.plugged, after.plugged) {
        (Ok(before), Ok(after)) => between(before, after),
        _ => (0, before.maximum.max(after.maximum).0),
    }
}
