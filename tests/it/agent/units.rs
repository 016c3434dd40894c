//! The shipped unit files, checked by systemd's own tools.

use std::path::{Path, PathBuf};
use std::process::Command;

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(name)
}

/// Whether `tool` is there; a build machine must have it.
fn has(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        let why = format!("{tool} is missing: apt-get install systemd");
        assert!(std::env::var_os("CI").is_none(), "{why}");
        crate::under::skip(&why);
    }
    found
}

/// The units as installed, with the program where it is here.
fn installed() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["guestmeterd.service", "guestmeterd.socket"] {
        let text = std::fs::read_to_string(shipped(name)).unwrap();
        std::fs::write(folder.path().join(name), text.replace("/usr/bin/guestmeterd", super::program()))
            .unwrap();
    }
    folder
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    if !has("systemd-analyze") {
        return;
    }
    let folder = installed();
    let output = Command::new("systemd-analyze")
        .arg("verify")
        .args(["guestmeterd.service", "guestmeterd.socket"].map(|name| folder.path().join(name)))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let ours: Vec<&str> = text.lines().filter(|line| line.contains("guestmeter")).collect();
    assert!(output.status.success() && ours.is_empty(), "{text}");
}

#[test]
fn the_sandbox_leaves_an_exposure_of_one_at_most() {
    if !has("systemd-analyze") {
        return;
    }
    let folder = installed();
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=10"])
        .arg(folder.path().join("guestmeterd.service"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn the_user_can_be_made() {
    if !has("systemd-sysusers") {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("etc")).unwrap();
    let output = Command::new("systemd-sysusers")
        .arg(format!("--root={}", root.path().display()))
        .arg(shipped("guestmeterd.sysusers.conf"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let passwd = std::fs::read_to_string(root.path().join("etc/passwd")).unwrap();
    assert!(passwd.contains("guestmeter:"), "{passwd}");
}

#[test]
fn the_preset_enables_what_is_shipped() {
    let preset = std::fs::read_to_string(shipped("80-guestmeterd.preset")).unwrap();
    let enabled: Vec<&str> = preset.lines().filter_map(|line| line.strip_prefix("enable ")).collect();
    assert_eq!(enabled, ["guestmeterd.service", "guestmeterd.socket"]);
    for unit in enabled {
        assert!(shipped(unit).exists(), "{unit}");
    }
}

/// It runs on a clock that some VMMs let jump over a pause: the agent would be killed at the end of each.
#[test]
fn systemd_has_no_watchdog_on_the_agent() {
    let unit = std::fs::read_to_string(shipped("guestmeterd.service")).unwrap();
    assert!(!unit.lines().any(|line| line.starts_with("WatchdogSec")), "{unit}");
}
