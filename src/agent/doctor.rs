//! `doctor`: which sources are readable, and what keeps the reading from being exact.

use super::Process;
use super::cli::Options;
use super::clock;
use super::hardening::{self, Measure};
use super::once::{kernel_options, one_line};
use super::signals::Traces;
use super::witness::{Look, Sight, Witness};
use crate::capacity::{BootPrecision, MemoryState, Precision, Remark};
use crate::kernel::{CgroupFacts, KernelError, MemoryFacts};
use rustix::io::Errno;
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
            Err(error) => writeln!(text, "no    {name}: {}", one_line(error)),
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
    say("cgroup", cpu.cgroup.and_then(cgroup));
    say("/proc/stat", cpu.stat.map(|stat| format!("steal {}", stat.steal)));
    signals(options, &mut text);
    if process == Process::Own {
        confinement(options, &mut text);
    }
    for remark in &sight.remarks {
        let _ = writeln!(text, "note  {}", one_line(remark));
    }
    let exact = sight.capacity.memory.precision == Precision::Exact;
    let _ = writeln!(text, "{}", verdict(&sight, &facts));
    (text, exact)
}

fn cgroup(facts: CgroupFacts) -> Result<String, KernelError> {
    if let Some(problem) = facts.problems.into_iter().next() {
        return Err(problem);
    }
    if let Some(path) = facts.missing {
        return Err(KernelError::Open { path, cause: Errno::NOENT });
    }
    let quota = facts.quota.map_or_else(|| "no quota".to_owned(), |quota| format!("quota {quota}"));
    let set = facts.allowed.map_or_else(String::new, |set| format!(", {} CPUs allowed", set.count()));
    let throttled = facts.nr_throttled.map_or_else(String::new, |times| format!(", throttled {times} times"));
    Ok(format!("{quota}{set}{throttled}"))
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
    let note = match boot.precision {
        BootPrecision::Exact => "",
        BootPrecision::LowerBound => {
            ", a lower bound: firmware, device tree or an unreadable entry keeps some of it"
        }
        BootPrecision::UpperBound => ", an upper bound: blocks are counted as whole",
    };
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

fn verdict(sight: &Sight, facts: &MemoryFacts) -> String {
    let memory = &sight.capacity.memory;
    if memory.precision == Precision::Exact {
        return match memory.boot_precision {
            Some(BootPrecision::Exact) => "The reading is exact.".to_owned(),
            boot => format!(
                "What is plugged is exact; boot memory: {}.",
                boot.map_or("unknown", BootPrecision::name)
            ),
        };
    }
    let told = |remark: &Remark| {
        matches!(remark, Remark::Foreign { .. } | Remark::WithoutDriver(_) | Remark::MoreThanAll { .. })
    };
    let why = if let Some(remark) = sight.remarks.iter().find(|remark| told(remark)) {
        return format!("The reading is bounded: {}.", one_line(remark));
    } else if facts.layout.virtio.is_err() {
        "whether there is virtio-mem is not known: needs /sys/bus/virtio"
    } else if facts.zones.is_err() || facts.mem_total.is_err() {
        "the kernel's files do not say what memory there is"
    } else if memory.offline.is_some_and(|offline| offline.0 > 0) {
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
