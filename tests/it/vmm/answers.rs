//! Firecracker and Cloud Hypervisor: whole answers from their specifications, said by a real HTTP server.

use super::{PATIENCE, Server, fixture, said};
use guestmeter::host::vmm::{Doubt, VmmCause, VmmCpus, VmmKind, VmmMemory};
use guestmeter::units::Bytes;
use http_body_util::Full;
use hyper::body::Bytes as Chunk;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::Value;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

#[derive(Deserialize)]
struct Fixture {
    provenance: String,
    server: String,
    exchanges: Vec<Exchange>,
}

#[derive(Deserialize)]
struct Exchange {
    request: String,
    status: u16,
    body: Value,
}

/// A VMM that says again what stands in a fixture, and remembers what it was asked.
pub(crate) struct Replayed {
    pub(crate) server: Server,
    asked: Arc<Mutex<Vec<String>>>,
}

pub(crate) fn replay(name: &str) -> Replayed {
    let text = std::fs::read_to_string(fixture(&format!("{name}.json"))).expect(name);
    let fixture: Arc<Fixture> = Arc::new(serde_json::from_str(&text).expect(name));
    assert!(!fixture.provenance.is_empty());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let server = Server::start(move |stream| {
        let (fixture, log) = (Arc::clone(&fixture), Arc::clone(&log));
        async move {
            let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                let line = format!("{} {}", request.method(), request.uri());
                assert_eq!(request.headers()["host"], "localhost");
                let response = answer(&fixture, &line);
                log.lock().unwrap().push(line);
                async move { Ok::<_, Infallible>(response) }
            });
            // The client closes when it has its answer.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    });
    Replayed { server, asked }
}

fn answer(fixture: &Fixture, line: &str) -> Response<Full<Chunk>> {
    let response = Response::builder().header("server", &fixture.server);
    let exchange = fixture.exchanges.iter().find(|exchange| exchange.request == line);
    match exchange {
        Some(Exchange { status, body, .. }) => {
            response.status(*status).body(Full::new(body.to_string().into())).unwrap()
        }
        None => response.status(404).body(Full::default()).unwrap(),
    }
}

fn kind(name: &str) -> VmmKind {
    VmmKind::ALL.into_iter().find(|kind| name.starts_with(kind.scheme())).unwrap()
}

async fn memory(name: &str) -> VmmMemory {
    replay(name).server.vmm(kind(name), PATIENCE).memory().await.expect(name)
}

async fn cpus(name: &str) -> VmmCpus {
    replay(name).server.vmm(kind(name), PATIENCE).cpus().await.expect(name)
}

async fn refused(name: &str) -> (String, VmmCause) {
    let error = replay(name).server.vmm(kind(name), PATIENCE).memory().await.expect_err(name);
    (said(&error), error.cause)
}

/// In MiB: boot, plugged, requested, maximum.
fn has(boot: u64, plugged: Result<u64, Doubt>, requested: u64, maximum: u64) -> VmmMemory {
    VmmMemory {
        boot: Bytes::mib(boot),
        plugged: plugged.map(Bytes::mib),
        requested: Bytes::mib(requested),
        maximum: Bytes::mib(maximum),
        ignored: Vec::new(),
    }
}

#[tokio::test]
async fn firecracker_tells_what_its_device_has_given() {
    assert_eq!(memory("firecracker-plugging").await, has(512, Ok(130), 300, 2048));
    assert_eq!(cpus("firecracker-plugging").await, VmmCpus { present: 2, maximum: Some(2) });
}

#[tokio::test]
async fn firecrackers_documentation_and_its_code_are_both_understood() {
    assert_eq!(memory("firecracker-documented-names").await, memory("firecracker-plugging").await);
}

#[tokio::test]
async fn a_firecracker_without_a_device_has_nothing_plugged_and_that_is_no_error() {
    assert_eq!(memory("firecracker-no-device").await, has(512, Ok(0), 0, 0));
    assert_eq!(memory("firecracker-before-hotplug").await, has(256, Ok(0), 0, 0));
}

#[tokio::test]
async fn a_device_that_refuses_is_not_taken_for_none() {
    let (text, cause) = refused("firecracker-device-refuses").await;
    assert!(matches!(cause, VmmCause::Refused { .. }), "{cause:?}");
    assert_eq!(
        text,
        "GET /hotplug/memory: refused (400): Internal VMM error: Operation not supported on this VM type"
    );
}

#[tokio::test]
async fn only_what_is_needed_is_asked_and_nothing_is_changed() {
    let replayed = replay("firecracker-plugging");
    replayed.server.vmm(VmmKind::Firecracker, PATIENCE).memory().await.unwrap();
    let asked = replayed.asked.lock().unwrap().clone();
    assert_eq!(asked, ["GET /", "GET /machine-config", "GET /hotplug/memory"]);
}

#[tokio::test]
async fn cloud_hypervisor_tells_what_virtio_mem_has_given() {
    assert_eq!(memory("cloud-hypervisor-plugging").await, has(512, Ok(130), 300, 2048));
    assert_eq!(memory("cloud-hypervisor-nothing-asked").await, has(512, Ok(4), 0, 2048));
    assert_eq!(memory("cloud-hypervisor-zones").await, has(768, Ok(130), 258, 1024));
    assert_eq!(cpus("cloud-hypervisor-plugging").await, VmmCpus { present: 2, maximum: Some(4) });
}

#[tokio::test]
async fn without_virtio_mem_all_of_cloud_hypervisors_memory_is_boot_memory() {
    assert_eq!(memory("cloud-hypervisor-acpi").await, has(1024, Ok(0), 0, 2048));
    assert_eq!(memory("cloud-hypervisor-plain").await, has(512, Ok(0), 0, 0));
    assert_eq!(memory("cloud-hypervisor-v24").await, has(512, Ok(0), 0, 0));
}

#[tokio::test]
async fn a_sum_that_cannot_be_taken_apart_is_doubted_and_not_guessed() {
    let balloon = memory("cloud-hypervisor-balloon").await;
    assert_eq!(balloon, has(512, Err(Doubt::Balloon), 130, 2048));
    assert_eq!(balloon.total(), None);
    let older = memory("cloud-hypervisor-repeats-request").await;
    assert_eq!(older, has(512, Err(Doubt::RepeatsRequest), 300, 2048));
}

#[tokio::test]
async fn a_vm_that_does_not_run_is_told_from_one_that_has_nothing() {
    for (name, text) in [
        ("firecracker-not-started", "GET /: its VM does not run: Not started"),
        (
            "cloud-hypervisor-not-created",
            "GET /api/v1/vm.info: its VM does not run: Error from API: The VM info is not available: VM is not created",
        ),
        ("cloud-hypervisor-not-booted", "GET /api/v1/vm.info: its VM does not run: Created"),
    ] {
        let (said, cause) = refused(name).await;
        assert!(matches!(cause, VmmCause::NotRunning(_)), "{cause:?}");
        assert_eq!(said, text);
    }
}

#[tokio::test]
async fn the_other_vmm_is_named() {
    let replayed = replay("firecracker-plugging");
    let error = replayed.server.vmm(VmmKind::CloudHypervisor, PATIENCE).memory().await.unwrap_err();
    assert_eq!(
        said(&error),
        "GET /api/v1/vmm.ping: this is not Cloud Hypervisor: it says that it is \"Firecracker API\""
    );
    let replayed = replay("cloud-hypervisor-plugging");
    let error = replayed.server.vmm(VmmKind::Firecracker, PATIENCE).cpus().await.unwrap_err();
    assert_eq!(said(&error), "GET /: this is not Firecracker: it says that it is \"Cloud Hypervisor API\"");
}

#[tokio::test]
async fn every_fixture_is_asked_for() {
    let this = include_str!("answers.rs");
    for file in std::fs::read_dir(fixture("")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let name = path.file_stem().unwrap().to_str().unwrap();
            assert!(this.contains(&format!("\"{name}\"")), "{name}");
        }
    }
}
