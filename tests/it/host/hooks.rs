//! The snapshot script of `guestmeter::host::snapshot_hooks`, run as it stands there: a real agent behind a bridge of
//! hybrid vsock, and a `curl` that writes down what Firecracker would have been asked.

use super::{ns, stdout};
use crate::agent::Agent;
use serde_json::Value;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// The first script of the page, or the second.
fn script(number: usize) -> String {
    let page = include_str!("../../../src/host/snapshot_hooks.rs");
    let text: Vec<&str> = page
        .lines()
        .map(|line| line.strip_prefix("//!").unwrap().strip_prefix(' ').unwrap_or_default())
        .collect();
    let text = text.join("\n");
    let block = text.split("```sh\n").nth(number).unwrap();
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
        executable(&folder.path().join("snapshot"), &script(1));
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_guestmeter"), folder.path().join("guestmeter"))
            .unwrap();
        Self { folder, _agent: agent }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn name(&self) {
        let target = format!("hvsock://{}", self.path("v.sock").display());
        let output = super::run(&["resume", &target, "--sandbox", "a", "--not-paused"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }

    /// Runs the script; Firecracker refuses what has `refused` in it.
    fn snapshot(&self, refused: &str) -> Output {
        let path = format!("{}:{}", self.folder.path().display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("bash");
        command.arg(self.path("snapshot")).arg("a").arg(self.folder.path());
        command.env("PATH", path).env("REFUSED", refused).output().unwrap()
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
    let unnamed = vm.snapshot(NOTHING);
    assert_eq!((unnamed.status.code(), vm.asked()), (Some(65), vec![]), "{unnamed:?}");
    vm.name();
    let output = vm.snapshot(NOTHING);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let dir = vm.folder.path().display();
    let create = format!(r#"{{"snapshot_path": "{dir}/vm", "mem_file_path": "{dir}/memory"}}"#);
    assert_eq!(vm.asked(), [PAUSE, &create, RESUME]);
    let reports = vm.reports();
    let reasons: Vec<&str> = reports.iter().map(|report| report["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["checkpoint", "resume"]);
    assert_eq!((&reports[0]["held"], &reports[1]["held"]), (&true.into(), &false.into()));
    assert!(ns(&reports[1]["usage"]["suspended_ns"]) > 0);
    assert_eq!(stdout(&output), "");
}

#[test]
fn a_snapshot_that_fails_leaves_a_named_life_behind() {
    let vm = Vm::start();
    vm.name();
    let unsaved = vm.snapshot("snapshot_path");
    assert_eq!(unsaved.status.code(), Some(22), "{unsaved:?}");
    assert_eq!(vm.asked().last().unwrap(), RESUME);
    assert_eq!(vm.reports().last().unwrap()["reason"], "resume");
    let suspended = vm.reports().last().unwrap()["usage"]["suspended_ns"].clone();

    let unpaused = vm.snapshot("Paused");
    assert_eq!(unpaused.status.code(), Some(1), "{unpaused:?}");
    assert_eq!(vm.asked().last().unwrap(), PAUSE);
    let last = vm.reports().pop().unwrap();
    assert_eq!((&last["held"], &last["reason"]), (&false.into(), &"query".into()));
    assert_eq!(last["usage"]["suspended_ns"], suspended, "it never stopped");
}

#[test]
fn the_restore_is_a_script_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("restore");
    std::fs::write(&path, script(2)).unwrap();
    let checked = Command::new("bash").arg("-n").arg(&path).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
    assert!(script(2).contains("--mark"));
}
