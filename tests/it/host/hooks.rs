//! The snapshot hooks of the README, run as they stand there: a real agent behind a bridge of hybrid vsock, and a `curl` or a
//! QMP socket that writes down what the VMM would have been asked.

use super::{ns, stdout};
use crate::agent::Agent;
use serde_json::Value;
use std::io::{BufRead, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// The README's block in this language.
fn script(language: &str) -> String {
    let page = include_str!("../../../README.md");
    let block = page.split(&format!("```{language}\n")).nth(1).unwrap();
    block.split("```").next().unwrap().to_owned()
}

fn executable(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A VM's directory, with an agent behind its vsock socket.
struct Vm {
    folder: TempDir,
    _agent: Agent,
}

impl Vm {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let agent = Agent::start();
        let socket = agent.socket();
        let listener = UnixListener::bind(folder.path().join("v.sock")).unwrap();
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                bridge(stream.unwrap(), &socket);
            }
        });
        executable(
            &folder.path().join("curl"),
            "#!/bin/sh\nfor last; do :; done\nprintf '%s\\n' \"$last\" >>\"${0%/*}/asked\"\n\
             case $last in *\"$REFUSED\"*) exit 22 ;; esac\n",
        );
        executable(&folder.path().join("snapshot"), &script("sh"));
        executable(&folder.path().join("hook.py"), &script("python"));
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_guestmeter"), folder.path().join("guestmeter"))
            .unwrap();
        Self { folder, _agent: agent }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the script; Firecracker refuses what has `refused` in it.
    fn hook(&self, what: &str, refused: &str) -> Output {
        let mut command = Command::new("bash");
        command.arg(self.path("snapshot")).args([what, "a"]).arg(self.folder.path());
        command.env("PATH", self.search_path()).env("REFUSED", refused).output().unwrap()
    }

    fn search_path(&self) -> String {
        format!("{}:{}", self.folder.path().display(), std::env::var("PATH").unwrap())
    }

    /// What Firecracker was asked.
    fn asked(&self) -> Vec<String> {
        let asked = std::fs::read_to_string(self.path("asked")).unwrap_or_default();
        asked.lines().map(str::to_owned).collect()
    }

    fn reports(&self) -> Vec<Value> {
        let reports = std::fs::read_to_string(self.path("reports.jsonl")).unwrap_or_default();
        reports.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn bridge(mut host: UnixStream, agent: &Path) {
    let mut line = [0; 13];
    std::io::Read::read_exact(&mut host, &mut line).unwrap();
    assert_eq!(&line, b"CONNECT 1020\n");
    host.write_all(b"OK 1\n").unwrap();
    let mut guest = UnixStream::connect(agent).unwrap();
    let (mut up, mut down) = (host.try_clone().unwrap(), guest.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut up, &mut guest);
        let _ = guest.shutdown(std::net::Shutdown::Both);
    });
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut down, &mut host);
        let _ = host.shutdown(std::net::Shutdown::Both);
    });
}

const PAUSE: &str = r#"{"state": "Paused"}"#;
const RESUME: &str = r#"{"state": "Resumed"}"#;
/// What no body has in it.
const NOTHING: &str = "-";

#[test]
fn a_snapshot_closes_one_life_and_names_the_next() {
    let vm = Vm::start();
    let unnamed = vm.hook("save", NOTHING);
    assert_eq!((unnamed.status.code(), vm.asked()), (Some(66), vec![]), "nobody has named it: {unnamed:?}");
    assert_eq!(vm.reports().pop().unwrap()["identity"]["sandbox"], "a", "it is named by now");

    let output = vm.hook("save", NOTHING);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let dir = vm.folder.path().display();
    let create = format!(r#"{{"snapshot_path": "{dir}/vm", "mem_file_path": "{dir}/memory"}}"#);
    assert_eq!(vm.asked(), [PAUSE, &create, RESUME]);
    let reports = vm.reports();
    let reasons: Vec<&str> = reports.iter().map(|report| report["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["query", "checkpoint", "resume"]);
    assert_eq!((&reports[1]["held"], &reports[2]["held"]), (&true.into(), &false.into()));
    assert!(ns(&reports[2]["usage"]["suspended_ns"]) > 0);
    assert_eq!(stdout(&output), "");
}

#[test]
fn a_snapshot_that_fails_leaves_a_named_life_behind() {
    let vm = Vm::start();
    vm.hook("save", NOTHING);
    let unsaved = vm.hook("save", "snapshot_path");
    assert_eq!(unsaved.status.code(), Some(22), "{unsaved:?}");
    assert_eq!(vm.asked().last().unwrap(), RESUME);
    assert_eq!(vm.reports().last().unwrap()["reason"], "resume");
    let suspended = vm.reports().last().unwrap()["usage"]["suspended_ns"].clone();

    let unpaused = vm.hook("save", "Paused");
    assert_eq!(unpaused.status.code(), Some(1), "{unpaused:?}");
    assert_eq!(vm.asked().last().unwrap(), PAUSE);
    let last = vm.reports().pop().unwrap();
    assert_eq!((&last["held"], &last["reason"]), (&false.into(), &"query".into()));
    assert_eq!(last["usage"]["suspended_ns"], suspended, "it never stopped");
}

#[test]
fn a_loaded_snapshot_is_a_life_of_its_own() {
    let vm = Vm::start();
    vm.hook("save", NOTHING);
    std::fs::rename(vm.path("v.sock"), vm.path("moved")).unwrap();
    std::os::unix::fs::symlink(vm.path("moved"), vm.path("again")).unwrap();
    // Firecracker makes the socket again.
    executable(
        &vm.path("curl"),
        "#!/bin/sh\nfor last; do :; done\nprintf '%s\\n' \"$last\" >>\"${0%/*}/asked\"\nmv \"${0%/*}/again\" \"${0%/*}/v.sock\"\n",
    );
    let output = vm.hook("load", NOTHING);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(vm.asked().join("\n").contains("\"resume_vm\": true"), "{:?}", vm.asked());
    let last = vm.reports().pop().unwrap();
    assert_eq!((&last["reason"], &last["identity"]["sandbox"]), (&"resume".into(), &"a".into()));
}

/// QEMU's end of QMP: it refuses what is `refused`, and has each migration end as `status`.
fn qmp(path: &Path, refused: &'static str, status: &'static str) -> std::thread::JoinHandle<Vec<String>> {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut answers = stream.try_clone().unwrap();
        writeln!(answers, r#"{{"QMP": {{"version": {{}}, "capabilities": []}}}}"#).unwrap();
        let mut asked = Vec::new();
        for line in std::io::BufReader::new(stream).lines() {
            let command: Value = serde_json::from_str(&line.unwrap()).unwrap();
            let name = command["execute"].as_str().unwrap().to_owned();
            writeln!(answers, r#"{{"event": "STOP", "timestamp": {{}}}}"#).unwrap();
            match name.as_str() {
                name if name == refused => {
                    writeln!(answers, r#"{{"error": {{"desc": "refused"}}}}"#).unwrap()
                }
                "query-migrate" => writeln!(answers, r#"{{"return": {{"status": "{status}"}}}}"#).unwrap(),
                _ => writeln!(answers, r#"{{"return": {{}}}}"#).unwrap(),
            }
            asked.push(name);
        }
        asked
    })
}

#[test]
fn the_hook_for_qemu_pauses_saves_and_names_whatever_qemu_says() {
    for (refused, status, code, asked, reasons) in [
        ("", "completed", 0, "stop migrate query-migrate cont", ["checkpoint", "resume"]),
        ("", "failed", 1, "stop migrate query-migrate cont", ["checkpoint", "resume"]),
        ("migrate", "", 1, "stop migrate cont", ["checkpoint", "resume"]),
        ("stop", "", 1, "stop", ["checkpoint", "query"]),
    ] {
        let vm = Vm::start();
        vm.hook("save", NOTHING);
        let named = vm.reports().len();
        let qemu = qmp(&vm.path("qmp.sock"), refused, status);
        let mut command = Command::new("python3");
        command.arg(vm.path("hook.py")).arg("a").arg(vm.folder.path()).env("PATH", vm.search_path());
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{refused} {status}: {output:?}");
        assert_eq!(qemu.join().unwrap().join(" "), format!("qmp_capabilities {asked}"));
        let reports = vm.reports().split_off(named);
        let told: Vec<&str> = reports.iter().map(|report| report["reason"].as_str().unwrap()).collect();
        assert_eq!(told, reasons, "{refused} {status}: {output:?}");
        assert_eq!(reports[1]["held"], false);
    }
}
