//! `watch`: in a pipe, through the death of its agent, and in a real pseudo-terminal.

use super::{PATIENCE, guestmeter};
use crate::agent::Agent;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Killed with its test.
pub(super) struct Watch(pub(super) Child);

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) fn lines(stdout: ChildStdout) -> Receiver<String> {
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
    assert!(first["clock"]["skew_ns"].is_string(), "the first report answers a request");
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

/// What `watch` draws on a real pseudo-terminal, which util-linux's `script` gives it, until that is as `wanted`; or what
/// it had drawn when it took too long.
fn screen(terminal: &str, watch: &str, no_colour: bool, wanted: impl Fn(&str) -> bool) -> String {
    let mut command = Command::new("script");
    // Ended by the end of its terminal, and by `timeout` should that fail.
    let watch =
        format!("stty {terminal}; timeout --foreground 120 {} {watch}", env!("CARGO_BIN_EXE_guestmeter"));
    command.args(["-qec", &watch, "/dev/null"]).env("TERM", "xterm").env_remove("NO_COLOR");
    if no_colour {
        command.env("NO_COLOR", "1");
    }
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("script of util-linux");
    let mut stdout = child.stdout.take().unwrap();
    let _script = Watch(child);
    let (sender, drawn) = channel();
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = stdout.read(&mut bytes) {
            if sender.send(bytes[..count].to_vec()).is_err() {
                break;
            }
        }
    });
    let (began, mut bytes) = (Instant::now(), Vec::new());
    loop {
        let screen = String::from_utf8_lossy(&bytes).into_owned();
        if wanted(&screen) || began.elapsed() > PATIENCE {
            return screen;
        }
        match drawn.recv_timeout(PATIENCE) {
            Ok(more) => bytes.extend(more),
            Err(_) => return screen,
        }
    }
}

#[test]
fn on_a_terminal_the_table_is_drawn_over_itself() {
    let agent = Agent::start();
    let target = format!("unix://{}", agent.socket().display());
    let watch = format!("watch {target} unix:///nowhere/at/all --interval 200ms");
    let (gone, over) = ("there is no socket at this path", "\u{1b}[3F\u{1b}[0J");
    let drawn = |screen: &str| ["settled", gone, over].iter().all(|part| screen.contains(part));
    let coloured = screen("cols 160 rows 24", &watch, false, drawn);
    assert!(coloured.contains("TARGET") && coloured.contains("settled"), "{coloured:?}");
    assert!(coloured.contains(gone), "{coloured:?}");
    assert!(coloured.contains(over), "three lines are drawn over: {coloured:?}");
    assert!(coloured.contains("\u{1b}[1m"), "bold headings: {coloured:?}");

    let screen = screen("cols 160 rows 24", &watch, true, drawn);
    assert!(screen.contains("settled"), "{screen:?}");
    assert!(!screen.contains("\u{1b}[1m") && !screen.contains("\u{1b}[38"), "NO_COLOR: {screen:?}");
}

/// Two agents; the one whose target comes last has a name.
fn one_named() -> (Agent, Agent) {
    let (one, other) = (Agent::start(), Agent::start());
    let (first, last) = if one.socket() < other.socket() { (one, other) } else { (other, one) };
    last.greet().resume(crate::agent::named(1, false, None));
    (first, last)
}

fn target(agent: &Agent) -> String {
    format!("unix://{}", agent.socket().display())
}

#[test]
fn only_the_sandbox_that_is_asked_for_is_shown() {
    let (other, named) = one_named();
    let mut child = guestmeter(&["watch", &target(&other), &target(&named), "--interval", "100ms"])
        .args(["--sandbox", "sandbox", "--sandbox", "nobody", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let reports = lines(child.stdout.take().unwrap());
    let _watch = Watch(child);
    for _ in 0..4 {
        let line = reports.recv_timeout(PATIENCE).expect("a report in time");
        let report: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(report["identity"]["sandbox"], "sandbox", "{line}");
        assert_eq!(report["target"], target(&named), "{line}");
    }
}

#[test]
fn a_table_is_in_the_order_that_is_asked_for() {
    let (other, named) = one_named();
    // The last table that was drawn whole, and whether all of it is known.
    let last = |screen: &str| {
        let mut tables = screen.rsplit("TARGET");
        tables.next();
        tables.next().unwrap_or_default().to_owned()
    };
    let table = |sort: &str| {
        let watch = format!("watch {} {} --interval 100ms --sort {sort}", target(&other), target(&named));
        let drawn = screen("cols 200", &watch, true, |screen| last(screen).matches("settled").count() == 2);
        (last(&drawn), drawn)
    };
    let places = |(table, screen): &(String, String)| {
        let place = |agent| table.find(&target(agent)).unwrap_or_else(|| panic!("{screen:?}"));
        (place(&other), place(&named))
    };
    let by_target = places(&table("target"));
    assert!(by_target.0 < by_target.1);
    let drawn = table("sandbox");
    let by_sandbox = places(&drawn);
    assert!(by_sandbox.1 < by_sandbox.0, "who has a name comes first: {:?}", drawn.1);
    assert!(drawn.1.contains("SANDBOX"), "{:?}", drawn.1);
}
