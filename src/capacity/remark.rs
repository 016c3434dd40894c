//! What a person should know of a reading, and where its numbers contradict each other.

use super::derive::{self, Derivation};
use super::tracker::ScanReason;
use super::{BootPrecision, Precision, Source};
use crate::kernel::{KernelError, MemoryFacts};
use crate::units::Bytes;

/// Something a person should know of a reading.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Remark {
    /// A cgroup was named, and is not there.
    #[error(
        "cgroup {path:?} is not there: its ancestors' limits hold until it comes, and its use is unknown"
    )]
    CgroupMissing {
        /// Where it was looked for.
        path: std::path::PathBuf,
    },
    /// A file that the CPU entitlement is made of says nothing.
    #[error("CPU numbers are without this: {0}")]
    CpuUnclear(KernelError),
    /// A cumulative value went back, or further than it can.
    #[error("{counter} slipped {times} times: it is held at what was sure")]
    CounterSlipped {
        /// Which.
        counter: &'static str,
        /// Since the start.
        times: u32,
    },
    /// Boot RAM was given back to the allocator, or taken from it.
    #[error("boot memory holds back {to} pages, {from} before: capacity is unchanged by that")]
    BaselineMoved {
        /// Before.
        from: u64,
        /// Now.
        to: u64,
    },
    /// No baseline can be had.
    #[error("counting offline pages ({reason:?}): {cause}; plugged memory is bounded until it works")]
    ScanFailed {
        /// Why it was needed.
        reason: ScanReason,
        /// Why it failed.
        cause: KernelError,
    },
    /// Two sources that must agree do not.
    #[error("virtio-mem's configuration says {device} plugged, the kernel's files {lower} to {upper}")]
    DeviceDisagrees {
        /// The device's word.
        device: Bytes,
        /// The least that was derived.
        lower: Bytes,
        /// The most that was derived.
        upper: Bytes,
    },
    /// Nobody says how much boot memory there is.
    #[error("boot memory is unknown: {0}")]
    BootUnknown(KernelError),
    /// The source of boot memory does not have all of it, or more.
    #[error("boot memory of {bytes} by {} is no exact number: {}", by.name(), precision.name())]
    BootInPart {
        /// What it says.
        bytes: Bytes,
        /// Which it is.
        by: Source,
        /// What that is worth.
        precision: BootPrecision,
    },
    /// The host's statement cannot be true, or the source is wrong.
    #[error("the host says {stated} of boot memory, {} {found} ({})", by.name(), precision.name())]
    BootContradicted {
        /// The host's word, which holds.
        stated: Bytes,
        /// What the guest found.
        found: Bytes,
        /// Where.
        by: Source,
        /// What that is worth.
        precision: BootPrecision,
    },
    /// Memory of neither boot nor virtio-mem.
    #[error("{bytes} are neither boot's nor virtio-mem's, and in neither number: {name:?} at {start:#x}")]
    Foreign {
        /// How much.
        bytes: Bytes,
        /// What the first of it is called.
        name: String,
        /// Where that is.
        start: u64,
    },
    /// A device that no driver runs.
    #[error(
        "{0:?} has no running driver, or no id: what virtio-mem has plugged there is unknown (kernels before 5.16 refuse one with unplugged-inaccessible)"
    )]
    WithoutDriver(String),
    /// A line that was left out.
    #[error("a line of /proc/iomem was left out: {0}")]
    LineLeftOut(String),
    /// Linux has more than it can have been given.
    #[error("MemTotal of {mem_total} contradicts boot {boot}, plugged {plugged} and {foreign} of others")]
    MoreThanAll {
        /// What Linux has.
        mem_total: Bytes,
        /// Boot memory.
        boot: Bytes,
        /// The most that is plugged.
        plugged: Bytes,
        /// Of neither.
        foreign: Bytes,
    },
}

/// The most devices that are named.
const DEVICES_MAX: usize = 8;

/// What `facts` say of themselves, whatever is derived from them.
pub(super) fn of_facts(facts: &MemoryFacts, remarks: &mut Vec<Remark>) {
    match &facts.layout.boot {
        Err(cause) => remarks.push(Remark::BootUnknown(cause.clone())),
        Ok(boot) if boot.precision != BootPrecision::Exact => {
            remarks.push(Remark::BootInPart { bytes: boot.bytes, by: boot.source, precision: boot.precision })
        }
        Ok(_) => {}
    }
    if let Ok(virtio) = &facts.layout.virtio {
        remarks.extend(virtio.without_driver.iter().take(DEVICES_MAX).cloned().map(Remark::WithoutDriver));
    }
    if let Ok(Some(iomem)) = &facts.iomem
        && let Some(what) = &iomem.unreadable
    {
        remarks.push(Remark::LineLeftOut(what.clone()));
    }
}

/// `plugged` between bounds, after the device's word was heard.
pub(super) struct Judged {
    pub(super) lower: Option<Bytes>,
    pub(super) upper: Option<Bytes>,
    pub(super) precision: Precision,
}

pub(super) fn judge(derivation: &Derivation, device: Option<Bytes>, remarks: &mut Vec<Remark>) -> Judged {
    let Derivation { lower, upper, precision, .. } = *derivation;
    let Some(device) = device else { return Judged { lower, upper, precision } };
    let (least, most) = (lower.unwrap_or(Bytes::ZERO), upper.unwrap_or(Bytes::PHYSICAL_MAX));
    if (least..=most).contains(&device) {
        return Judged { lower: Some(device), upper: Some(device), precision: Precision::Exact };
    }
    remarks.push(Remark::DeviceDisagrees { device, lower: least, upper: most });
    Judged { lower: Some(least.min(device)), upper: Some(most.max(device)), precision: Precision::Bounded }
}

/// `MemTotal ≤ boot + plugged`, and what others have added: a reading that breaks it is not exact, and neither is one
/// that leaves memory out.
pub(super) fn hold_to_total(facts: &MemoryFacts, judged: Judged, remarks: &mut Vec<Remark>) -> Judged {
    let others = derive::foreign(facts);
    let foreign = derive::total(&others);
    let mut judged = judged;
    if let Some((name, span)) = others.into_iter().next() {
        remarks.push(Remark::Foreign { bytes: foreign, name, start: span.start });
        judged.precision = Precision::Bounded;
    }
    let (Ok(mem_total), Ok(boot), Some(plugged)) = (&facts.mem_total, &facts.layout.boot, judged.upper)
    else {
        return judged;
    };
    let (mem_total, boot) = (*mem_total, boot.bytes);
    let explained = mem_total.saturating_sub(boot).saturating_sub(foreign);
    if explained > plugged {
        // Between two moments MemTotal may be ahead of the rest.
        if facts.steady {
            remarks.push(Remark::MoreThanAll { mem_total, boot, plugged, foreign });
        }
        judged.upper = Some(explained);
        judged.precision = Precision::Bounded;
    }
    judged
}
