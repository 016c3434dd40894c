//! Firecracker: `GET /machine-config` for what it booted with, `GET /hotplug/memory` for its virtio-mem device.
//!
//! A VM without such a device is answered with a refusal, as one of a Firecracker before 1.14, which has none: the
//! whole configuration then says whether there is one. Firecracker serves its API from one thread, so it answers
//! late while it writes a snapshot.

use super::address::VmmKind;
use super::api::{document, named};
use super::error::{Failed, VmmCause, cut};
use super::http::Answer;
use super::{VmmCpus, VmmMemory};
use crate::units::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::future::Future;

const KIND: VmmKind = VmmKind::Firecracker;

const INSTANCE: &str = "GET /";
const MACHINE: &str = "GET /machine-config";
const HOTPLUG: &str = "GET /hotplug/memory";
const CONFIGURATION: &str = "GET /vm/config";

/// `InstanceInfo` of its API.
#[derive(Deserialize)]
struct Instance {
    state: String,
}

/// `MachineConfiguration`.
#[derive(Deserialize)]
struct Machine {
    mem_size_mib: u64,
    vcpu_count: u32,
}

/// `MemoryHotplugStatus`. Its documentation also calls two of the fields otherwise than its code.
#[derive(Deserialize)]
struct Hotplug {
    total_size_mib: u64,
    #[serde(alias = "plugged_memory_mib")]
    plugged_size_mib: u64,
    #[serde(alias = "requested_memory_mib")]
    requested_size_mib: u64,
}

/// `FullVmConfiguration`, as far as it matters here.
#[derive(Deserialize)]
struct Configuration {
    #[serde(rename = "memory-hotplug")]
    memory_hotplug: Option<IgnoredAny>,
}

/// Asks for the memory. `ask` carries a request to the API and its answer back.
///
/// # Errors
/// See [`VmmCause`].
pub async fn memory<F>(ask: impl Fn(&'static str) -> F) -> Result<VmmMemory, Failed>
where
    F: Future<Output = Result<Answer, Failed>>,
{
    let machine = running(&ask).await?;
    let answer = ask(HOTPLUG).await?;
    let hotplug = match answer.document::<Hotplug>(KIND) {
        Ok(hotplug) => hotplug,
        Err(refusal @ VmmCause::Refused { .. }) => {
            let configuration: Configuration = document(&ask, KIND, CONFIGURATION).await?;
            if configuration.memory_hotplug.is_some() {
                return Err(named(HOTPLUG)(refusal));
            }
            Hotplug { total_size_mib: 0, plugged_size_mib: 0, requested_size_mib: 0 }
        }
        Err(cause) => return Err(named(HOTPLUG)(cause)),
    };
    let memory = VmmMemory {
        boot: Bytes::mib(machine.mem_size_mib),
        plugged: Ok(Bytes::mib(hotplug.plugged_size_mib)),
        requested: Bytes::mib(hotplug.requested_size_mib),
        maximum: Bytes::mib(hotplug.total_size_mib),
        ignored: Vec::new(),
    };
    memory.checked().map_err(named(HOTPLUG))
}

/// Asks for the CPUs; none is ever added.
///
/// # Errors
/// See [`VmmCause`].
pub async fn cpus<F>(ask: impl Fn(&'static str) -> F) -> Result<VmmCpus, Failed>
where
    F: Future<Output = Result<Answer, Failed>>,
{
    let machine = running(&ask).await?;
    let cpus = VmmCpus { present: machine.vcpu_count, maximum: Some(machine.vcpu_count) };
    cpus.checked().map_err(named(MACHINE))
}

/// Before its start a VM has no device that could be asked, and its configuration may still change.
async fn running<F>(ask: &impl Fn(&'static str) -> F) -> Result<Machine, Failed>
where
    F: Future<Output = Result<Answer, Failed>>,
{
    let instance: Instance = document(ask, KIND, INSTANCE).await?;
    if instance.state == "Not started" {
        return Err(named(INSTANCE)(VmmCause::NotRunning(cut(&instance.state))));
    }
    document(ask, KIND, MACHINE).await
}
