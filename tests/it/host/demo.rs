//! `demo`, as the person runs it who has just cloned the tree.

use super::{PATIENCE, guestmeter, stderr, stdout};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn holds(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = stdout(output);
    assert!(text.contains("instance 1 → 2"), "{text}");
    assert_eq!(text.matches('✓').count(), 13, "{text}");
    assert!(text.contains("✓ explain names row_left_open and nothing else, with 360"), "{text}");
    assert!(!text.contains('✗') && text.trim_end().ends_with("README.md for a real VM."), "{text}");
    assert_eq!(stderr(output), "");
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

#[test]
fn its_numbers_hold_and_it_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let output = guestmeter(&["demo"]).env("TMPDIR", folder.path()).output().unwrap();
    holds(&output);
    assert!(began.elapsed() < Duration::from_secs(300), "{:?}", began.elapsed());
    assert!(is_empty(folder.path()));
}

/// Needs root to become somebody else; an ordinary user has shown it with the test above.
#[test]
fn it_needs_no_rights_and_no_place_to_write_but_tmp() {
    let program = tempfile::tempdir().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can become another user");
        return;
    }
    let copy = program.path().join("guestmeter");
    std::fs::copy(env!("CARGO_BIN_EXE_guestmeter"), &copy).unwrap();
    let permissions = |mode| std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(program.path(), permissions(0o755)).unwrap();
    std::fs::set_permissions(scratch.path(), permissions(0o1777)).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "--"])
        .arg(&copy)
        .arg("demo")
        .env("TMPDIR", scratch.path())
        .current_dir("/")
        .output()
        .unwrap();
    holds(&output);
    assert!(is_empty(scratch.path()));
}

#[test]
fn interrupted_it_takes_its_agent_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let child = guestmeter(&["demo"])
        .env("TMPDIR", folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let began = Instant::now();
    let agents = || -> Vec<u32> {
        let children = format!("/proc/{0}/task/{0}/children", pid.as_raw_nonzero());
        let text = std::fs::read_to_string(children).unwrap_or_default();
        text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    };
    while agents().is_empty() {
        assert!(began.elapsed() < PATIENCE, "no agent was started");
        std::thread::sleep(Duration::from_millis(5));
    }
    let agent = agents()[0];
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert_eq!(stderr(&output), "guestmeter: demo: interrupted\n");
    assert!(!Path::new(&format!("/proc/{agent}")).exists(), "agent {agent} lives on");
    assert!(is_empty(folder.path()));
}

/// SIGKILL leaves no time to clean up: the kernel ends its parts.
#[test]
fn killed_it_takes_its_parts_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = guestmeter(&["demo"]).env("TMPDIR", folder.path()).stdout(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    let sockets = || -> Option<[PathBuf; 2]> {
        let folder = std::fs::read_dir(folder.path()).unwrap().next()?.ok()?.path();
        let sockets = ["agent.sock", "api.sock"].map(|name| folder.join(name));
        sockets.iter().all(|socket| UnixStream::connect(socket).is_ok()).then_some(sockets)
    };
    let sockets = loop {
        if let Some(sockets) = sockets() {
            break sockets;
        }
        assert!(began.elapsed() < PATIENCE, "agent or worker was not started");
        std::thread::sleep(Duration::from_millis(20));
    };
    child.kill().unwrap();
    child.wait().unwrap();
    let began = Instant::now();
    while sockets.iter().any(|socket| UnixStream::connect(socket).is_ok()) {
        assert!(began.elapsed() < PATIENCE, "a part serves on");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let output = guestmeter(&["demo"]).env("TMPDIR", "/proc/nowhere").output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    let said = stderr(&output);
    assert!(said.starts_with("guestmeter: demo: making a directory in /proc/nowhere: "), "{said}");
}
