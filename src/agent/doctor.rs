//! `doctor`: which sources are readable, and what keeps the reading from being exact.

use super::Process;
use super::cli::Options;
use super::clock;
use super::hardening::{self, Measure};
use super::once::kernel_options;
use super::signals::Traces;
use super::witness::{Look, Witness};
use crate::capacity::{Capacity, MemoryState, Precision};
use crate::kernel::{KernelError, MemoryFacts};
use std::fmt::Write;

/// The findings, and whether the reading is exact.
pub(super) fn examine(options: &Options, process: Process) -> (String, bool) {
    let mut witness = Witness::open(kernel_options(options), Vec::new(), None);
    let sight = witness.look(clock::now().monotonic, Look::Full);
    let facts = witness.sources().read_memory();
    let kpageflags = witness.sources().kpageflags();
    let cpu = witness.sources().read_cpu();
    let mut text = String::new();
    let mut say = |name: &str, finding: Result<String, KernelError>| {
        // Writing to a String cannot fail.
        let _ = match finding {
            Ok(found) => writeln!(text, "ok    {name}: {found}"),
            Err(error) => writeln!(text, "no    {name}: {error}"),
        };
    };
    say("boot memory", boot(&facts));
    say("virtio devices", devices(&facts));
    say("iomem", iomem(&facts));
    say(
        "kpageflags",
        kpageflags.map(|()| "open: memory plugged before the agent starts can be counted".into()),
    );
    say(
        "zoneinfo",
        facts
            .zones
            .as_ref()
            .map(|zones| format!("{} pages present, {} managed", zones.present_pages, zones.managed_pages))
            .map_err(Clone::clone),
    );
    say("MemTotal", facts.mem_total.as_ref().map(ToString::to_string).map_err(Clone::clone));
    say("memory blocks", blocks(&facts));
    if let Some(held) = &facts.ballooned {
        say("balloon", held.as_ref().map(|held| format!("holds {held}")).map_err(Clone::clone));
    }
    match &facts.device_config {
        Some(read) => say(
            "device configuration",
            read.as_ref().map(|configs| format!("{} devices", configs.len())).map_err(Clone::clone),
        ),
        None => say("device configuration", Ok("not asked for (--device-config)".to_owned())),
    }
    say("CPUs online", cpu.online.map(|online| online.count().to_string()));
    say(
        "cgroup",
        cpu.cgroup.map(|cgroup| match cgroup.quota {
            Some(quota) => format!("quota {quota}"),
            None => "no quota".to_owned(),
        }),
    );
    say("/proc/stat", cpu.stat.map(|stat| format!("steal {}", stat.steal)));
    signals(options, &mut text);
    if process == Process::Own {
        confinement(options, &mut text);
    }
    for remark in &sight.remarks {
        let _ = writeln!(text, "note  {remark}");
    }
    let exact = sight.capacity.memory.precision == Precision::Exact;
    let _ = writeln!(text, "{}", verdict(&sight.capacity, &facts));
    (text, exact)
}

/// How a resume is noticed where the host does not announce it.
fn signals(options: &Options, text: &mut String) {
    let Traces { vmclock, vmgenid } = Traces::open(options, &mut Vec::new());
    let found = [("VMClock", vmclock.map(|it| it.describe())), ("VMGenID", vmgenid.map(|it| it.describe()))];
    for (name, finding) in found {
        let _ = match finding {
            Ok(found) => writeln!(text, "ok    {name}: {found}"),
            Err(absent) => writeln!(text, "no    {name}: {absent}"),
        };
    }
}

/// What the agent denies itself on this machine, found by doing it here: nothing is left to be opened.
fn confinement(options: &Options, text: &mut String) {
    for Measure { name, taken } in hardening::apply(options, false) {
        let _ = match taken {
            Ok(how) => writeln!(text, "ok    confined by {name}: {how}"),
            Err(refused) => writeln!(text, "no    confined by {name}: {refused}"),
        };
    }
}

fn boot(facts: &MemoryFacts) -> Result<String, KernelError> {
    let boot = facts.layout.boot.as_ref().map_err(Clone::clone)?;
    let note = if boot.lower_bound { ", a lower bound: UEFI keeps some for itself" } else { "" };
    Ok(format!("{} by {}{note}", boot.bytes, boot.source.name()))
}

fn devices(facts: &MemoryFacts) -> Result<String, KernelError> {
    let devices = facts.layout.virtio.as_ref().map_err(Clone::clone)?;
    let balloon = match devices.balloon {
        None => "no balloon",
        Some(balloon) if balloon.deflate_on_oom => "a balloon with deflate-on-oom",
        Some(_) => "a balloon",
    };
    Ok(format!("{} virtio-mem, {balloon}", devices.memory.len()))
}

fn iomem(facts: &MemoryFacts) -> Result<String, KernelError> {
    match facts.iomem.as_ref().map_err(Clone::clone)? {
        Some(iomem) => Ok(format!("{} added in {} regions", iomem.added, iomem.regions.len())),
        None => Err(KernelError::Parse {
            path: "/proc/iomem".into(),
            what: "addresses are hidden: it must be opened with CAP_SYS_ADMIN (see open-sources)".to_owned(),
        }),
    }
}

fn blocks(facts: &MemoryFacts) -> Result<String, KernelError> {
    let blocks = facts.layout.blocks.as_ref().map_err(Clone::clone)?;
    let online = blocks.blocks.iter().filter(|block| block.online).count();
    Ok(format!("{online} of {} online, {} each", blocks.blocks.len(), blocks.block_size))
}

fn verdict(capacity: &Capacity, facts: &MemoryFacts) -> String {
    let memory = &capacity.memory;
    if memory.precision == Precision::Exact {
        return "The reading is exact.".to_owned();
    }
    let why = if memory.offline.is_some_and(|offline| offline.0 > 0) {
        "virtio-mem memory is offline, and only the device knows how much of it is plugged: bring it online \
         (memhp_default_state=online_movable), or use --device-config"
    } else if !matches!(facts.iomem, Ok(Some(_))) {
        "/proc/iomem does not show addresses: run as root, or pass it opened (see open-sources)"
    } else if memory.state == MemoryState::Plugging || !facts.steady {
        "memory is changing: look again"
    } else {
        "what boot memory holds back is not known: needs /proc/kpageflags, or an agent that started before anything \
         was plugged"
    };
    format!("The reading is bounded: {why}.")
}
