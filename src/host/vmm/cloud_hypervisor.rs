//! Cloud Hypervisor: `GET /api/v1/vm.info` for all of it, `GET /api/v1/vmm.ping` for what its sum means.
//!
//! `memory_actual_size` = `size` + Σ zones' `size` − what the balloon holds + what virtio-mem has given. So plugged is
//! that sum less the sizes, unless there is a balloon: how much it holds the guest writes as it likes. Before version
//! 52 the last term was Σ `hotplugged_size`, which is what was *requested*. Without virtio-mem memory nothing is
//! plugged, whatever the sum says.
//!
//! With the hotplug method `Acpi` a resize makes a DIMM and changes `size` itself, so all of it is boot memory here.
//! Cloud Hypervisor changes `size` also for a shrink, which ACPI cannot do; `hotplug_size` still bounds what there is.

use super::address::VmmKind;
use super::api::{document, named};
use super::error::{Failed, VmmCause, cut};
use super::http::Answer;
use super::{Doubt, VmmCpus, VmmMemory};
use crate::units::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::future::Future;

const KIND: VmmKind = VmmKind::CloudHypervisor;

const INFO: &str = "GET /api/v1/vm.info";
const PING: &str = "GET /api/v1/vmm.ping";

/// The first version whose sum has what virtio-mem has given.
const VERSION_TELLS_PLUGGED: u32 = 52;

/// `VmmPingResponse`.
#[derive(Deserialize)]
struct Ping {
    version: String,
}

/// `VmInfo`.
#[derive(Deserialize)]
struct Info {
    config: Config,
    state: String,
    memory_actual_size: u64,
}

/// `VmConfig`.
#[derive(Deserialize)]
struct Config {
    cpus: Cpus,
    memory: Memory,
    balloon: Option<IgnoredAny>,
}

/// `CpusConfig`.
#[derive(Deserialize)]
struct Cpus {
    boot_vcpus: u32,
    max_vcpus: u32,
}

/// `MemoryConfig`.
#[derive(Deserialize)]
struct Memory {
    size: u64,
    #[serde(default)]
    hotplug_method: HotplugMethod,
    hotplug_size: Option<u64>,
    hotplugged_size: Option<u64>,
    zones: Option<Vec<Zone>>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
enum HotplugMethod {
    #[default]
    Acpi,
    VirtioMem,
}

/// `MemoryZoneConfig`.
#[derive(Deserialize)]
struct Zone {
    size: u64,
    hotplug_size: Option<u64>,
    hotplugged_size: Option<u64>,
}

/// Asks for the memory. `ask` carries a request to the API and its answer back.
///
/// # Errors
/// See [`VmmCause`].
pub async fn memory<F>(ask: impl Fn(&'static str) -> F) -> Result<VmmMemory, Failed>
where
    F: Future<Output = Result<Answer, Failed>>,
{
    let ping: Ping = document(&ask, KIND, PING).await?;
    let info = running(&ask).await?;
    told(&info, major(&ping.version)).and_then(VmmMemory::checked).map_err(named(INFO))
}

/// Asks for the CPUs.
///
/// # Errors
/// See [`VmmCause`].
pub async fn cpus<F>(ask: impl Fn(&'static str) -> F) -> Result<VmmCpus, Failed>
where
    F: Future<Output = Result<Answer, Failed>>,
{
    let Cpus { boot_vcpus, max_vcpus } = running(&ask).await?.config.cpus;
    // A resize sets what the VM would boot with.
    VmmCpus { present: boot_vcpus, maximum: Some(max_vcpus) }.checked().map_err(named(INFO))
}

async fn running<F>(ask: &impl Fn(&'static str) -> F) -> Result<Info, Failed>
where
    F: Future<Output = Result<Answer, Failed>>,
{
    let answer = ask(INFO).await?;
    let info: Info = match answer.document(KIND) {
        Err(VmmCause::Refused { text, .. }) if answer.status == 404 => {
            return Err(named(INFO)(VmmCause::NotRunning(text)));
        }
        other => other.map_err(named(INFO))?,
    };
    match info.state.as_str() {
        "Created" | "Shutdown" => Err(named(INFO)(VmmCause::NotRunning(cut(&info.state)))),
        _ => Ok(info),
    }
}

fn told(info: &Info, version: Option<u32>) -> Result<VmmMemory, VmmCause> {
    let memory = &info.config.memory;
    let zones = || memory.zones.iter().flatten();
    let boot = sum(Some(memory.size), zones().map(|zone| Some(zone.size)))?;
    let maximum = sum(memory.hotplug_size, zones().map(|zone| zone.hotplug_size))?;
    let requested = sum(memory.hotplugged_size, zones().map(|zone| zone.hotplugged_size))?;
    let plugged = if memory.hotplug_method == HotplugMethod::Acpi || maximum == Bytes::ZERO {
        Ok(Bytes::ZERO)
    } else if version.is_none_or(|version| version < VERSION_TELLS_PLUGGED) {
        Err(Doubt::RepeatsRequest)
    } else if info.config.balloon.is_some() {
        Err(Doubt::Balloon)
    } else {
        let actual = Bytes(info.memory_actual_size);
        let below = || VmmCause::Malformed(format!("memory_actual_size is {actual}, booted with {boot}"));
        Ok(actual.checked_sub(boot).ok_or_else(below)?)
    };
    Ok(VmmMemory { boot, plugged, requested, maximum, ignored: Vec::new() })
}

fn sum(whole: Option<u64>, zones: impl Iterator<Item = Option<u64>>) -> Result<Bytes, VmmCause> {
    let total = zones.flatten().try_fold(whole.unwrap_or(0), u64::checked_add);
    total
        .map(Bytes)
        .ok_or_else(|| VmmCause::Malformed("its zones' sizes pass the end of a number".to_owned()))
}

/// `53` of `53.0.0`, `v53.0` or `v53.0-12-gabcdef`.
fn major(version: &str) -> Option<u32> {
    let digits = version.strip_prefix('v').unwrap_or(version);
    digits.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_they_are_spelled() {
        for (text, version) in [
            ("53.0.0", Some(53)),
            ("v53.0", Some(53)),
            ("v51.1-12-gabcdef-dirty", Some(51)),
            ("54", Some(54)),
            ("", None),
            ("unreleased", None),
            ("4294967296.0", None),
        ] {
            assert_eq!(major(text), version, "{text}");
        }
    }
}
