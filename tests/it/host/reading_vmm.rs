//! `read --vmm`: an agent that a test plays beside a VMM that a fixture speaks for.

use super::script::{Peer, Script, named, report};
use super::{run, stderr, stdout};
use crate::vmm::answers::replay;
use guestmeter::capacity::Precision;
use guestmeter::units::Bytes;
use guestmeter::wire::message::Report;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// A Firecracker of 512 MiB and two CPUs that has given 130 of 300 MiB, until it is dropped.
struct Firecracker {
    path: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Firecracker {
    fn start() -> Self {
        let (tell, told) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let replayed = replay("firecracker-plugging");
                tell.send(replayed.server.path()).unwrap();
                let _ = stopped.await;
            });
        });
        Self { path: told.recv().unwrap(), stop: Some(stop), thread: Some(thread) }
    }

    fn address(&self) -> String {
        format!("firecracker://{}", self.path.display())
    }
}

impl Drop for Firecracker {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Its guest, which has `plugged` MiB by its own word.
fn guest(plugged: u64) -> Report {
    let mut report = report("s7", named(3, 3));
    report.memory.boot = Some(Bytes::mib(512));
    report.memory.plugged = Some(Bytes::mib(plugged));
    report.memory.requested = Some(Bytes::mib(300));
    report.memory.precision = Precision::Exact;
    report.cpu.online = Some(2);
    report
}

fn agent(plugged: u64) -> Script {
    Script::one(move |peer: &mut Peer| {
        peer.greet(Some("s7"), named(3, 3));
        peer.request();
        peer.report(guest(plugged));
    })
}

#[test]
fn two_that_agree_are_shown_side_by_side() {
    let (vmm, agent) = (Firecracker::start(), agent(130));
    let output = run(&["read", &agent.target(), "--vmm", &vmm.address()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = stdout(&output);
    let table = text.split_once(&format!("\n\n{}\n", vmm.address())).expect(&text).1;
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["GUEST", "VMM"]);
    assert_eq!(rows[1], ["boot", "512", "MiB", "512", "MiB"]);
    assert_eq!(rows[2], ["plugged", "130", "MiB", "130", "MiB", "at", "most", "2,048", "MiB"]);
    assert_eq!(rows[3], ["requested", "300", "MiB", "300", "MiB"]);
    assert_eq!(rows[4], ["CPUs", "2", "2"]);
    agent.finish();
}

#[test]
fn two_that_differ_are_found() {
    let (vmm, agent) = (Firecracker::start(), agent(300));
    let output = run(&["read", &agent.target(), "--vmm", &vmm.address(), "--json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = stdout(&output);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!(lines[0]["schema"], "guestmeter.report/1");
    let mib = |mib: u64| mib << 20;
    assert_eq!(
        lines[1],
        json!({
            "schema": "guestmeter.vmm/1",
            "target": agent.target(),
            "vmm": vmm.address(),
            "boot_bytes": mib(512),
            "plugged_bytes": mib(130),
            "plugged_before_bytes": mib(130),
            "doubt": null,
            "requested_bytes": mib(300),
            "maximum_bytes": mib(2048),
            "cpus": 2,
            "cpus_max": 2,
            "ignored": [],
            "differs": ["plugged"],
        })
    );
    assert_eq!(lines.len(), 2);
    agent.finish();
}

#[test]
fn a_side_that_is_silent_is_named_and_the_other_shown() {
    let agent = agent(130);
    let output = run(&["read", &agent.target(), "--vmm", "qmp:///nowhere/at/all"]);
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    assert!(stdout(&output).contains("512 MiB"), "{output:?}");
    assert_eq!(
        stderr(&output),
        "guestmeter: qmp:///nowhere/at/all: connecting: there is no socket at this path (is the VM running, and is \
         this its VMM's API socket?)\n"
    );
    agent.finish();

    let vmm = Firecracker::start();
    let output = run(&["read", "unix:///nowhere/at/all", "--vmm", &vmm.address()]);
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    assert!(stderr(&output).starts_with("guestmeter: unix:///nowhere/at/all: there is no socket"));
}

#[test]
fn a_vmm_has_one_vm_and_an_address_its_own_scheme() {
    let vmm = ["--vmm", "qmp:///run/qmp.sock"];
    let output = run(&["read", "unix:///a", "unix:///b", vmm[0], vmm[1]]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(stderr(&output), "guestmeter: --vmm is one VM's, but 2 targets are given\n");
    let output = run(&["read", "unix:///a", "--vmm", "/run/qmp.sock"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(stderr(&output).contains("none of qmp://, firecracker://, cloud-hypervisor://"), "{output:?}");
}
