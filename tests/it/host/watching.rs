//! `watch`: in a pipe, through the death of its agent, and in a real pseudo-terminal.

use super::{PATIENCE, guestmeter};
use crate::agent::Agent;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Killed with its test.
struct Watch(Child);

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn lines(stdout: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

#[test]
fn an_agent_that_dies_and_comes_back_is_watched_again() {
    let agent = Agent::start();
    let target = format!("unix://{}", agent.socket().display());
    let mut child = guestmeter(&["watch", &target, "--interval", "100ms", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let reports = lines(child.stdout.take().unwrap());
    let mut complaints = BufReader::new(child.stderr.take().unwrap());
    let _watch = Watch(child);
    let next = || -> serde_json::Value {
        serde_json::from_str(&reports.recv_timeout(PATIENCE).expect("a report in time")).unwrap()
    };
    let (first, second) = (next(), next());
    assert_eq!(first["identity"]["instance"], 1);
    assert!(second["identity"]["seq"].as_u64() > first["identity"]["seq"].as_u64());
    assert!(first["clock"]["skew_ns"].is_i64(), "the first report answers a request");
    assert!(second["clock"]["skew_ns"].is_null(), "no request brackets the second");

    let (_, folder) = agent.signal("-KILL");
    let mut said = String::new();
    complaints.read_line(&mut said).unwrap();
    assert!(said.starts_with(&format!("guestmeter: {target}: ")), "{said}");
    let _back = Agent::start_in(folder, &[]);
    let began = Instant::now();
    while next()["identity"]["instance"] != 2 {
        assert!(began.elapsed() < PATIENCE, "the new agent is not watched");
    }
}

#[test]
fn a_reader_that_leaves_ends_the_watch() {
    let agent = Agent::start();
    let target = format!("unix://{}", agent.socket().display());
    let mut child = guestmeter(&["watch", &target, "--interval", "100ms"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert!(line.contains(&target) && line.contains(" total "), "{line}");
    drop(stdout);
    let mut watch = Watch(child);
    let began = Instant::now();
    let status = loop {
        if let Some(status) = watch.0.try_wait().unwrap() {
            break status;
        }
        assert!(began.elapsed() < PATIENCE, "it watches for nobody");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(status.code(), Some(0));
    let mut said = String::new();
    watch.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "");
}

/// util-linux's `script` gives it a real pseudo-terminal.
#[test]
fn on_a_terminal_the_table_is_drawn_over_itself() {
    let agent = Agent::start();
    let target = format!("unix://{}", agent.socket().display());
    let watch = format!(
        "stty cols 160 rows 24; timeout 2 {} watch {target} unix:///nowhere/at/all --interval 200ms",
        env!("CARGO_BIN_EXE_guestmeter")
    );
    let mut command = Command::new("script");
    command.args(["-qec", &watch, "/dev/null"]).env("TERM", "xterm").env_remove("NO_COLOR");
    let coloured = command.stdin(Stdio::null()).output().expect("script of util-linux");
    let screen = String::from_utf8_lossy(&coloured.stdout).into_owned();
    assert!(screen.contains("TARGET") && screen.contains("settled"), "{screen:?}");
    assert!(screen.contains("there is no socket at this path"), "{screen:?}");
    assert!(screen.contains("\u{1b}[3F\u{1b}[0J"), "three lines are drawn over: {screen:?}");
    assert!(screen.contains("\u{1b}[1m"), "bold headings: {screen:?}");

    let plain = command.env("NO_COLOR", "1").output().unwrap();
    let screen = String::from_utf8_lossy(&plain.stdout).into_owned();
    assert!(screen.contains("settled"), "{screen:?}");
    assert!(!screen.contains("\u{1b}[1m") && !screen.contains("\u{1b}[38"), "NO_COLOR: {screen:?}");
}
