//! `replay`: real files in, the `usage` object out, and what is no trace refused by line and cause.

use super::{guestmeter, run, stderr, stdout};
use std::io::Write;
use std::process::Stdio;

fn line(at_ns: u64, event: &str) -> String {
    format!(r#"{{"at_ns":{at_ns},"memory_bytes":1073741824,"cpu_millis":1000,"event":"{event}"}}"#)
}

fn replay(trace: &str, arguments: &[&str]) -> std::process::Output {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), trace).unwrap();
    run(&[&["replay", file.path().to_str().unwrap()], arguments].concat())
}

/// The seed's vector: 200 slices of 19.5 s are 3900 s; truncating each gives 3800.
#[test]
fn the_seeds_vector_counts_every_fraction() {
    let mut trace = line(0, "start");
    for slice in 1..=200 {
        trace.push('\n');
        trace.push_str(&line(slice * 19_500_000_000, "tick"));
    }
    let output = replay(&trace, &["--tick", "20s"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(
        stdout(&output),
        concat!(
            r#"{"active":{"seconds":3900,"carry_ns":0},"memory":{"mib_seconds":3993600,"carry_byte_ns":"0"},"#,
            r#""cpu":{"millicpu_seconds":3900000,"carry_millicpu_ns":"0"},"suspended_ns":"0","uncertain_ns":"0","#,
            r#""rebased":{"active_ns":"0","memory_byte_ns":"0","cpu_millicpu_ns":"0"},"#,
            r#""dropped":{"active_ns":"0","memory_byte_ns":"0","cpu_millicpu_ns":"0"},"gaps":0,"anomalies":0}"#,
            "\n"
        )
    );
}

#[test]
fn slices_say_what_they_counted_and_by_which_rule() {
    let trace =
        [line(0, "start"), line(3_000_000_000, "checkpoint"), line(99_000_000_000, "resume")].join("\n");
    let output = replay(&trace, &["--slices", "--json"]);
    let text = stdout(&output);
    let slices: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(slices.len(), 4, "{text}");
    assert_eq!(slices[1]["rule"], "plain");
    assert_eq!(slices[1]["event"], "checkpoint");
    assert_eq!(slices[1]["counted_ns"], "3000000000");
    assert_eq!(slices[2]["rule"], "held_resume");
    assert_eq!(slices[2]["suspended_ns"], "96000000000");
    assert_eq!(slices[3]["suspended_ns"], "96000000000");
    assert_eq!(slices[3]["active"]["seconds"], 3);
}

#[test]
fn what_is_no_trace_is_refused_by_line_and_cause() {
    for (trace, cause) in [
        ("", ":1: empty"),
        ("\u{7f}ELF\u{2}\u{1}", ":1: not an observation"),
        ("{}", "missing field `at_ns`"),
        (&format!("{}\n{}", line(9, "start"), line(8, "tick")), ":2: at_ns goes back: 8 after 9"),
        (&"x".repeat(1 << 20), ":1: longer than 4096 bytes"),
    ] {
        let output = replay(trace, &[]);
        assert_eq!(output.status.code(), Some(65), "{output:?}");
        assert_eq!(stdout(&output), "");
        let said = stderr(&output);
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.starts_with("guestmeter: /") && said.contains(cause), "{said}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let missing = run(&["replay", "/nowhere/trace"]);
    assert_eq!(missing.status.code(), Some(66));
    assert_eq!(stderr(&missing), "guestmeter: /nowhere/trace: No such file or directory (os error 2)\n");
    let folder = run(&["replay", "/proc"]);
    assert_eq!(folder.status.code(), Some(66));
    assert_eq!(stderr(&folder), "guestmeter: /proc: it is a directory, not a trace\n");
}

/// A trace without an end and a reader who leaves: the replay must end with its reader.
#[test]
fn a_reader_that_leaves_ends_the_replay() {
    let mut child = guestmeter(&["replay", "-", "--slices"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    drop(child.stdout.take());
    let mut at_ns = 1;
    let mut event = "start";
    while writeln!(input, "{}", line(at_ns, event)).is_ok() {
        (at_ns, event) = (at_ns + 1, "tick");
        assert!(at_ns < 1_000_000, "it reads on without a reader of its own");
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(stderr(&output), "");
}
