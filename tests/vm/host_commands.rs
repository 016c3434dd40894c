//! `resume`, `checkpoint` and `listen` across a real vsock device: what they close is closed, what they hear is heard.

use crate::rig::template::{bare, with_systemd};
use crate::rig::{HUNG, Vm};
use guestmeter::host::{Client, Reading};
use guestmeter::wire;
use guestmeter::wire::message::{Ack, Acked, Identity, Message, Notify, Reply, Report, Request};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Longer than a busy machine takes to show what it has heard; where it has heard nothing, it is told again.
const PATIENCE: Duration = Duration::from_secs(15);

/// `guestmeter listen`, ended with its test.
struct Listen {
    child: Child,
    shown: Receiver<String>,
}

impl Listen {
    fn start(vm: &Vm) -> Self {
        let mut path = vm.vsock_path().into_os_string();
        path.push("_1020");
        let mut command = Command::new(env!("CARGO_BIN_EXE_guestmeter"));
        command.arg("listen").arg(path).arg("--json").stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, shown) = channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, shown }
    }

    fn next(&mut self) -> Value {
        self.within(HUNG).expect("a line of `guestmeter listen`")
    }

    fn within(&mut self, time: Duration) -> Option<Value> {
        let line = self.shown.recv_timeout(time).ok()?;
        Some(serde_json::from_str(&line).unwrap())
    }
}

impl Drop for Listen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn told(vm: &Vm, command: &str, arguments: &[&str]) -> Value {
    // Where a platform would keep it: beside the VM.
    let state = vm.vsock_path().with_file_name("sandbox-a.json");
    let state = state.to_str().unwrap();
    let output = vm.host(command, &[&["--json", "--state", state], arguments].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{command} {arguments:?}: {stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_guest_is_heard_named_closed_paused_and_named_again() {
    let mut vm = bare().restore(42);
    vm.resize(0, 256);
    vm.start_agent("--notify vsock://2:1020");
    let mut listen = Listen::start(&vm);
    let boot = listen.next();
    assert_eq!((&boot["hint"]["reason"], &boot["acked"]), (&"boot".into(), &false.into()), "{boot}");
    assert_eq!(boot["evidence"]["identity"]["boot_id"], boot["hint"]["identity"]["boot_id"]);

    let named = told(&vm, "resume", &["--sandbox", "a", "--not-paused", "--expect", "256M"]);
    // Exit code 0 says that the guest has closed its end too, through the device.
    let last = told(&vm, "checkpoint", &["--wait-settled", "60s", "--expect", "256M"]);
    assert_eq!(last["identity"]["epoch"], named["identity"]["epoch"]);
    vm.stopped_for(Duration::from_secs(1));
    let next = told(&vm, "resume", &["--sandbox", "a", "--expect", "256M"]);
    assert_eq!((&next["reason"], &next["held"]), (&"resume".into(), &false.into()));
    assert_eq!(next["usage"]["active"], next["base"]["active"]);
    assert_ne!(next["usage"]["suspended_ns"], "0", "{next}");
}

/// The command itself inside the guest, where AF_VSOCK's loopback is what vhost-vsock is on a host.
fn install(vm: &mut Vm) {
    let folder = tempfile::tempdir().unwrap();
    let stripped = folder.path().join("guestmeter");
    let strip = Command::new("strip").arg("-o").arg(&stripped).arg(env!("CARGO_BIN_EXE_guestmeter")).status();
    assert!(strip.unwrap().success());
    vm.put(&std::fs::read(&stripped).unwrap(), "/tmp/guestmeter");
    vm.sh("chmod +x /tmp/guestmeter");
}

/// What turns back into these bytes in the guest.
fn printed(reply: Reply) -> String {
    let mut bytes = Vec::new();
    wire::encode(&Message::Reply(reply), &mut bytes).unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("perl -e 'print pack \"H*\", \"{hex}\"'")
}

#[test]
fn over_af_vsock_a_notification_is_heard_and_its_cid_is_dialled_back() {
    let mut vm = with_systemd().restore(42);
    install(&mut vm);
    vm.sh("/usr/bin/guestmeterd --allow-peer 1 --notify none --state /tmp/state >/tmp/log 2>&1 </dev/null &");
    vm.wait("the agent to answer over loopback", HUNG, |vm| {
        vm.run("/tmp/guestmeter read vsock://1 --json").code == 0
    });
    vm.sh("/tmp/guestmeter resume vsock://1 --sandbox a --state /tmp/a.json --not-paused --json");
    let client = Client::new(vm.target().parse().unwrap(), HUNG);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let Reading { agent, report, .. } = runtime.block_on(client.read()).unwrap();
    let Identity { epoch, seq, .. } = report.identity.clone();

    vm.sh("/tmp/guestmeter listen vsock --port 1030 --json >/tmp/heard 2>/tmp/said </dev/null &");
    let notify = printed(Reply::Notify(Box::new(Notify { agent, report })));
    let acked = printed(Reply::Acked(Acked { epoch: epoch.id, seq }));
    vm.wait("a listener", HUNG, |vm| vm.run("socat -u OPEN:/dev/null VSOCK-CONNECT:1:1030").code == 0);
    // The agent's part of it: word for word, each at its turn.
    let until = |file: &str| format!("until [ -s {file} ]; do sleep 0.1; done");
    let (answered, heard) = (until("/tmp/answer"), until("/tmp/heard"));
    vm.sh(&format!("({notify}; {answered}; {acked}; {heard}) | socat - VSOCK-CONNECT:1:1030 >/tmp/answer"));
    vm.wait("what was heard", HUNG, |vm| !vm.run("cat /tmp/heard").text().is_empty());
    let heard: Value = serde_json::from_str(vm.sh("cat /tmp/heard").trim()).unwrap();
    assert_eq!(heard["evidence"]["target"], "vsock://1:1020");
    assert_eq!(heard["evidence"]["identity"]["sandbox"], "a");
    assert_eq!((&heard["acked"], &heard["doubt"]), (&true.into(), &Value::Null), "{heard}");
    let mut ack = Vec::new();
    wire::encode(&Message::Request(Request::Ack(Ack { epoch: epoch.id, seq })), &mut ack).unwrap();
    assert_eq!(vm.run("cat /tmp/answer").stdout, ack);
    vm.sh("/tmp/guestmeter checkpoint vsock://1 --state /tmp/a.json --json");
}

/// Any process of the guest can dial the host's port.
#[test]
fn what_a_process_of_the_guest_forges_is_a_hint_that_the_agent_does_not_confirm() {
    let mut vm = with_systemd().restore(42);
    vm.sh("/usr/bin/guestmeterd --notify none --state /tmp/state >/tmp/log 2>&1 </dev/null &");
    let client = Client::new(vm.target().parse().unwrap(), HUNG).patient(HUNG);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    vm.wait("the agent to answer", HUNG, |_| runtime.block_on(client.read()).is_ok());
    told(&vm, "resume", &["--sandbox", "a", "--not-paused"]);
    let Reading { agent, report, .. } = runtime.block_on(client.read()).unwrap();
    let mut listen = Listen::start(&vm);
    let lie = |change: fn(&mut Report)| {
        let mut report = report.clone();
        report.usage.active.whole += 86_400;
        change(&mut report);
        printed(Reply::Notify(Box::new(Notify { agent: agent.clone(), report })))
    };
    for (lie, doubt) in [
        (lie(|report| report.identity.seq += 100), "a report that the agent has not made"),
        (lie(|report| report.identity.epoch.number += 1), "the agent is in another epoch"),
        (lie(|report| report.identity.boot_id.0[0] ^= 1), "the agent is of another boot"),
    ] {
        let dial = format!("{lie} | setpriv --reuid=65534 --clear-groups socat -t 20 - VSOCK-CONNECT:2:1020");
        // A guest that comes too often is hung up on: it comes again.
        let mut shown = Value::Null;
        vm.wait(doubt, HUNG, |vm| {
            vm.run(&dial);
            shown = listen.within(PATIENCE).unwrap_or_default();
            shown["doubt"].as_str().is_some_and(|said| said.contains(doubt))
        });
        assert_eq!(
            (&shown["acked"], &shown["evidence"]["identity"]["sandbox"]),
            (&false.into(), &"a".into())
        );
        let seconds = |of: &str| shown[of]["usage"]["active"]["seconds"].as_u64().unwrap();
        assert!(
            seconds("hint") >= 86_400 && seconds("evidence") < 86_400,
            "the agent's own numbers: {shown}"
        );
    }
}
