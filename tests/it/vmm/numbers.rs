//! Whatever numbers stand in an answer: a sum that holds, or an error; never a panic, never a wrap.

use guestmeter::host::vmm::http::Answer;
use guestmeter::host::vmm::{Failed, Limit, VmmCause, VmmMemory, cloud_hypervisor, firecracker, qmp::Qmp};
use guestmeter::units::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::future::ready;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Small ones, ones of a real machine, and ones at the ends.
fn size() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..64_u64,
        (0..4096_u64).prop_map(|mib| mib << 20),
        any::<u64>(),
        Just(u64::MAX),
        Just(1 << 52)
    ]
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn document(body: &Value) -> Answer {
    Answer { status: 200, server: None, body: body.to_string().into_bytes() }
}

/// What holds of every answer that is believed.
fn believable(memory: &VmmMemory) {
    assert!(memory.boot.0 + memory.maximum.0 <= Bytes::PHYSICAL_MAX.0, "{memory:?}");
    assert!(memory.requested <= memory.maximum, "{memory:?}");
    assert!(
        memory.plugged.is_ok_and(|plugged| plugged <= memory.maximum) || memory.plugged.is_err(),
        "{memory:?}"
    );
}

/// A sum in numbers that no sum of these can pass.
fn exact(numbers: impl IntoIterator<Item = u64>) -> u128 {
    numbers.into_iter().map(u128::from).sum()
}

fn malformed(error: &Failed) {
    assert!(matches!(error.cause, VmmCause::Malformed(_)), "{error:?}");
}

fn ask_firecracker(boot: u64, hotplug: &Value) -> Result<VmmMemory, Failed> {
    let ask = |request| {
        ready(Ok(document(&match request {
            "GET /" => json!({ "state": "Running" }),
            "GET /machine-config" => json!({ "mem_size_mib": boot, "vcpu_count": 1 }),
            _ => hotplug.clone(),
        })))
    };
    block_on(firecracker::memory(ask))
}

fn ask_cloud_hypervisor(info: &Value, version: &str) -> Result<VmmMemory, Failed> {
    let ask = |request| {
        ready(Ok(document(&match request {
            "GET /api/v1/vmm.ping" => json!({ "version": version }),
            _ => info.clone(),
        })))
    };
    block_on(cloud_hypervisor::memory(ask))
}

/// A monitor on the other end of a pipe, which answers each command.
fn ask_qemu(base: u64, devices: &Value) -> Result<VmmMemory, Failed> {
    block_on(async {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        let mut said = String::from("{\"QMP\":{}}\n{\"return\":{},\"id\":1}\n");
        said += &format!("{}\n", json!({ "return": { "status": "paused" }, "id": 2 }));
        said += &format!("{}\n", json!({ "return": { "base-memory": base }, "id": 3 }));
        said += &format!("{}\n", json!({ "return": devices, "id": 4 }));
        theirs.write_all(said.as_bytes()).await.unwrap();
        let limit = Limit::new(Duration::from_secs(10));
        let mut qmp = Qmp::open(ours, limit).await?;
        let memory = qmp.memory(limit).await;
        drop(qmp);
        let mut asked = String::new();
        theirs.read_to_string(&mut asked).await.unwrap();
        assert_eq!(asked.lines().count(), 4, "{asked}");
        memory
    })
}

proptest! {
    #[test]
    fn firecracker(boot in size(), plugged in size(), requested in size(), total in size()) {
        let hotplug = json!({
            "total_size_mib": total, "plugged_size_mib": plugged, "requested_size_mib": requested });
        let possible = exact([boot, total]) << 20 <= u128::from(Bytes::PHYSICAL_MAX.0)
            && plugged <= total && requested <= total;
        match ask_firecracker(boot, &hotplug) {
            Ok(memory) => {
                believable(&memory);
                prop_assert!(possible);
                prop_assert_eq!((memory.boot, memory.plugged), (Bytes::mib(boot), Ok(Bytes::mib(plugged))));
                prop_assert_eq!((memory.requested, memory.maximum), (Bytes::mib(requested), Bytes::mib(total)));
            }
            Err(error) => {
                malformed(&error);
                prop_assert!(!possible, "{error:?}");
            }
        }
    }

    #[test]
    fn cloud_hypervisor(
        whole in size(),
        zones in prop::collection::vec((size(), prop::option::of(size()), prop::option::of(size())), 0..4),
        plugged in size(),
        balloon in prop::option::of(size()),
        version in prop_oneof![Just("53.0.0"), Just("51.2.0"), Just("v24.0"), Just("?")],
        method in prop_oneof![Just("VirtioMem"), Just("Acpi")],
    ) {
        let boot = exact(zones.iter().map(|zone| zone.0).chain([whole]));
        let actual = u64::try_from(boot + u128::from(plugged)).unwrap_or(plugged);
        let listed: Vec<Value> = zones.iter().map(|(size, hotplug, hotplugged)| {
            json!({ "id": "z", "size": size, "hotplug_size": hotplug, "hotplugged_size": hotplugged })
        }).collect();
        let info = json!({
            "state": "Running", "memory_actual_size": actual,
            "config": {
                "cpus": { "boot_vcpus": 1, "max_vcpus": 1 },
                "balloon": balloon.map(|size| json!({ "size": size })),
                "memory": { "size": whole, "hotplug_method": method, "zones": listed },
            } });
        match ask_cloud_hypervisor(&info, version) {
            Ok(memory) => {
                believable(&memory);
                prop_assert_eq!(u128::from(memory.boot.0), boot);
                match memory.plugged {
                    Ok(Bytes(0)) => {}
                    Ok(told) => {
                        prop_assert_eq!((told, method, version), (Bytes(plugged), "VirtioMem", "53.0.0"));
                        prop_assert!(balloon.is_none());
                    }
                    Err(_) => prop_assert!(method == "VirtioMem" && (balloon.is_some() || version != "53.0.0")),
                }
            }
            Err(error) => malformed(&error),
        }
    }

    #[test]
    fn qemu(base in size(), devices in prop::collection::vec((size(), size(), size(), any::<bool>()), 0..5)) {
        let listed: Vec<Value> = devices.iter().map(|(size, requested, maximum, dimm)| {
            let kind = if *dimm { "dimm" } else { "virtio-mem" };
            json!({ "type": kind, "data": { "size": size, "requested-size": requested, "max-size": maximum } })
        }).collect();
        let virtio_mem = || devices.iter().filter(|device| !device.3);
        let boot = exact(devices.iter().filter(|device| device.3).map(|device| device.0).chain([base]));
        let maximum = exact(virtio_mem().map(|device| device.2));
        let possible = boot + maximum <= u128::from(Bytes::PHYSICAL_MAX.0)
            && virtio_mem().all(|(size, requested, maximum, _)| size <= maximum && requested <= maximum);
        match ask_qemu(base, &json!(listed)) {
            Ok(memory) => {
                believable(&memory);
                prop_assert!(possible);
                prop_assert_eq!(u128::from(memory.boot.0), boot);
                prop_assert_eq!(u128::from(memory.plugged.unwrap().0), exact(virtio_mem().map(|device| device.0)));
                prop_assert_eq!(u128::from(memory.requested.0), exact(virtio_mem().map(|device| device.1)));
            }
            Err(error) => {
                malformed(&error);
                prop_assert!(!possible, "{error:?}");
            }
        }
    }
}
