//! What the command line says of itself, and of a line it cannot use.

use super::{run, stderr, stdout};
use insta::assert_snapshot;
use std::io::Write;
use std::process::{Command, Stdio};

fn help(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    stdout(&output)
}

fn refusal(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(stdout(&output), "");
    stderr(&output)
}

#[test]
#[cfg(feature = "agent")]
fn help_names_the_commands_that_exist() {
    assert_snapshot!(help(&["--help"]));
}

#[test]
fn help_of_each_command() {
    assert_snapshot!("read", help(&["read", "--help"]));
    assert_snapshot!("watch", help(&["watch", "--help"]));
    assert_snapshot!("wait-settled", help(&["wait-settled", "--help"]));
    assert_snapshot!("checkpoint", help(&["checkpoint", "--help"]));
    assert_snapshot!("resume", help(&["resume", "--help"]));
    assert_snapshot!("listen", help(&["listen", "--help"]));
    assert_snapshot!("replay", help(&["replay", "--help"]));
}

#[test]
#[cfg(feature = "agent")]
fn help_of_simulate() {
    assert_snapshot!("simulate", help(&["simulate", "--help"]));
}

#[test]
fn a_line_that_cannot_be_used_is_told_why() {
    assert_snapshot!("no-command", refusal(&[]));
    assert_snapshot!("no-target", refusal(&["read"]));
    assert_snapshot!("host-cid", refusal(&["read", "vsock://2"]));
    assert_snapshot!("any-cid", refusal(&["read", "vsock://any"]));
    assert_snapshot!("relative", refusal(&["watch", "unix://run/agent.sock"]));
    assert_snapshot!("size", refusal(&["wait-settled", "vsock://3", "--expect", "512MB"]));
    assert_snapshot!("interval", refusal(&["watch", "vsock://3", "--interval", "1ms"]));
    assert_snapshot!("timeout", refusal(&["read", "vsock://3", "--timeout", "5"]));
    assert_snapshot!("no-sandbox", refusal(&["resume", "vsock://3"]));
    assert_snapshot!("epoch", refusal(&["resume", "vsock://3", "--sandbox", "a", "--epoch", "abc"]));
    assert_snapshot!(
        "zero-epoch",
        refusal(&["checkpoint", "vsock://3", "--epoch", &format!("{}:1", "0".repeat(32))])
    );
    assert_snapshot!("quiet-alone", refusal(&["checkpoint", "vsock://3", "--state", "s", "--quiet", "1s"]));
    assert_snapshot!("no-life", refusal(&["checkpoint", "vsock://3"]));
    assert_snapshot!(
        "two-lives",
        refusal(&[
            "resume",
            "vsock://3",
            "--sandbox",
            "a",
            "--state",
            "s",
            "--epoch",
            &format!("{}:1", "1".repeat(32))
        ])
    );
    assert_snapshot!("unknown-command", refusal(&["frobnicate"]));
}

#[test]
fn the_version_names_revision_and_protocol() {
    let text = help(&["--version"]);
    let version = env!("CARGO_PKG_VERSION");
    assert!(text.starts_with(&format!("guestmeter {version} (")), "{text}");
    assert!(text.ends_with("), protocol 1 to 1\n"), "{text}");
}

/// Each shell that is installed reads its own script; bash always is.
#[test]
fn completions_are_scripts_that_their_shells_can_read() {
    for (shell, check) in [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")] {
        let script = help(&["completions", shell]);
        assert!(script.contains("wait-settled") && script.contains("completions"), "{shell}");
        let child = Command::new(shell).arg(check).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && shell != "bash" => continue,
            Err(error) => panic!("{shell}: {error}"),
        };
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{shell}: {}", stderr(&output));
    }
}
