//! `read` and `wait-settled` against a real agent on this machine's kernel.

use super::{run, stderr, stdout};
use crate::agent::Agent;
use serde_json::Value;

fn target(agent: &Agent) -> String {
    format!("unix://{}", agent.socket().display())
}

#[test]
fn a_report_agrees_with_this_machine() {
    let agent = Agent::start();
    let target = target(&agent);
    let output = run(&["read", &target, "--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(report["schema"], "guestmeter.report/1");
    assert_eq!(report["target"], target);
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(report["identity"]["boot_id"], boot_id.trim());
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
    let kib: u64 = meminfo.lines().next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    assert_eq!(report["memory"]["mem_total_bytes"], kib * 1024);
    // Guest and host are one machine here: the skew is what the midpoint of the request misses.
    assert!(
        report["clock"]["skew_ns"].as_str().unwrap().parse::<i64>().unwrap().abs() < 2_000_000_000,
        "{report}"
    );
    let counted = &report["usage"]["active"];
    assert!(counted["seconds"].as_u64().unwrap() > 0 || counted["carry_ns"].as_u64().unwrap() > 0);
}

#[test]
fn the_table_and_the_dead_target_go_their_ways() {
    let agent = Agent::start();
    let output = run(&["read", &target(&agent), "unix:///nowhere/at/all"]);
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    let text = stdout(&output);
    assert!(text.starts_with(&format!("{}  guestmeterd {}", target(&agent), env!("CARGO_PKG_VERSION"))));
    for part in ["MiB", "vCPU", "MemTotal", "provisional", "GiB·s"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "colours in a pipe");
    assert!(stderr(&output).starts_with("guestmeter: unix:///nowhere/at/all: there is no socket"));
}

#[test]
fn memory_that_nobody_changes_is_settled() {
    let agent = Agent::start();
    let output = run(&["wait-settled", &target(&agent), "--quiet", "300ms", "--timeout", "60s"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(stdout(&output).contains(": settled: plugged "), "{output:?}");
}

#[test]
fn memory_that_never_comes_is_told_with_both_numbers() {
    let agent = Agent::start();
    let wait = ["wait-settled", &target(&agent), "--expect", "3T", "--timeout", "400ms"];
    let output = run(&wait);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = stdout(&output);
    assert!(text.contains(": not settled after 0.400 s: plugged "), "{text}");
    assert!(text.contains(", expected 3,072 GiB ("), "{text}");
    let json = run(&[&wait[..], &["--json"]].concat());
    assert_eq!(json.status.code(), Some(1));
    let report: Value = serde_json::from_str(&stdout(&json)).unwrap();
    assert_eq!(report["reason"], "query");
}

#[test]
fn a_wait_for_nobody_is_unreachable() {
    let output = run(&["wait-settled", "unix:///nowhere/at/all"]);
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    assert_eq!(stdout(&output), "");
}
