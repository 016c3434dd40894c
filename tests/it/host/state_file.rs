//! `--state FILE`: what a script's calls leave for the next one, with agents real and played.

use super::lifecycle::{asked_to_checkpoint, asked_to_resume, epoch, named_as_asked};
use super::script::{Peer, Script, named, report};
use super::{PATIENCE, guestmeter, run, stderr, stdout};
use guestmeter::wire::message::{Epoch, Refusal, RefusalCode, Reply, Resume};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::time::{SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

/// A platform's folder for one sandbox.
struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("sb.json")
    }

    fn call(&self, command: &str, target: &str, arguments: &[&str]) -> Output {
        let path = self.path();
        let sandbox: &[&str] = if command == "resume" { &["--sandbox", "a"] } else { &[] };
        let always = [command, target, "--json", "--state", path.to_str().unwrap(), "--retry-for", "9s"];
        run(&[&always, sandbox, arguments].concat())
    }

    fn kept(&self) -> Value {
        kept(&self.path())
    }
}

fn kept(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn hex(resume: &Resume) -> String {
    resume.epoch.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Named as it is asked to, when the file has said so on disk already.
fn names(path: PathBuf, heard: Sender<Resume>) -> Box<dyn FnOnce(&mut Peer) + Send> {
    Box::new(move |peer| {
        peer.greet(Some("a"), named(1, 41));
        let resume = asked_to_resume(peer);
        let before = kept(&path);
        assert_eq!(
            (&before["epoch"]["id"], &before["epoch"]["answered"]),
            (&hex(&resume).into(), &false.into())
        );
        peer.report(report("a", Epoch { id: resume.epoch, number: resume.number, ..named(0, 0) }));
        // What is acknowledged is kept.
        let ack = peer.acked();
        let after = kept(&path);
        assert_eq!((&after["epoch"]["answered"], ack.epoch), (&true.into(), resume.epoch));
        assert_eq!(
            after["marks"][0]["usage"]["active"]["seconds"],
            report("a", named(1, 1)).usage.active.whole
        );
        peer.closed();
        heard.send(resume).unwrap();
    })
}

/// The answer is lost, and what comes after it.
fn loses(heard: Sender<Resume>) -> Box<dyn FnOnce(&mut Peer) + Send> {
    Box::new(move |peer| {
        peer.greet(Some("a"), named(1, 41));
        heard.send(asked_to_resume(peer)).unwrap();
        assert_eq!(peer.message(), None);
    })
}

#[test]
fn an_epoch_that_was_not_answered_is_used_again_and_one_that_was_never() {
    let desk = Desk::new();
    let (sender, heard) = channel();
    let script = Script::start(vec![
        loses(sender.clone()),
        loses(sender.clone()),
        loses(sender.clone()),
        names(desk.path(), sender.clone()),
        names(desk.path(), sender),
    ]);
    let began = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap();
    assert_eq!(code(&desk.call("resume", &script.target(), &[])), 69);
    for _ in 0..2 {
        let output = desk.call("resume", &script.target(), &[]);
        assert_eq!(code(&output), 0, "{output:?}");
    }
    let heard: Vec<_> = heard.iter().collect();
    let epochs: Vec<_> = heard.iter().map(|resume| (resume.epoch, resume.number)).collect();
    assert!(
        epochs[..4].iter().all(|epoch| *epoch == epochs[0]),
        "a lost answer, in one run or in two: {epochs:?}"
    );
    assert!(epochs[0].1 >= began && epochs[4].1 > epochs[0].1 && epochs[4].0 != epochs[0].0, "{epochs:?}");
    script.finish();
}

#[test]
fn the_same_event_is_the_same_call_and_another_one_is_another_life() {
    let desk = Desk::new();
    let (sender, heard) = channel();
    let mut scenes: Vec<_> = (0..3).map(|_| names(desk.path(), sender.clone())).collect();
    // An event that was answered is answered again.
    scenes.insert(1, {
        let sender = sender.clone();
        Box::new(move |peer: &mut Peer| {
            peer.greet(Some("a"), named(1, 41));
            sender.send(named_as_asked(peer)).unwrap();
            peer.acked();
            peer.closed();
        })
    });
    drop(sender);
    let script = Script::start(scenes);
    for event in ["e1", "e1", "e2", "e3"] {
        let output = desk.call("resume", &script.target(), &["--event", event]);
        assert_eq!(code(&output), 0, "{event}: {output:?}");
    }
    let ids: Vec<_> = heard.iter().map(|resume| resume.epoch).collect();
    assert!(ids[0] == ids[1] && ids[1] != ids[2] && ids[2] != ids[3], "{ids:?}");
    script.finish();
    let over = desk.call("resume", "unix:///nowhere", &["--event", "e2"]);
    assert_eq!(code(&over), 65);
    assert!(stderr(&over).ends_with("sb.json: event e2 is over: event e3 came after it\n"), "{over:?}");
}

/// A guest that another host's clock has named.
#[test]
fn a_guest_that_has_heard_a_later_number_gets_one_above_it_for_the_same_call() {
    let stale = |latest: u64, heard: Sender<Resume>| -> Box<dyn FnOnce(&mut Peer) + Send> {
        Box::new(move |peer| {
            peer.greet(None, Epoch::default());
            heard.send(asked_to_resume(peer)).unwrap();
            let refusal = Refusal { latest: Some(latest), ..RefusalCode::StaleEpoch.because("late") };
            peer.reply(Reply::Error(refusal));
        })
    };
    let desk = Desk::new();
    let (sender, heard) = channel();
    let later = 1 << 62;
    let script = Script::start(vec![stale(later, sender.clone()), names(desk.path(), sender)]);
    let output = desk.call("resume", &script.target(), &["--event", "e1"]);
    assert_eq!(code(&output), 0, "{output:?}");
    let heard: Vec<_> = heard.iter().collect();
    assert_eq!(heard[1].number, later + 1);
    assert_ne!(heard[0].epoch, heard[1].epoch);
    assert_eq!(desk.kept()["epoch"]["event"], "e1");
    script.finish();

    // One that always says so is not believed for ever, and nothing is above the last number.
    let (sender, heard) = channel();
    let above = |number: u64| stale(number, sender.clone());
    let script =
        Script::start(vec![above(later + 9), above(later + 19), above(later + 29), above(later + 39)]);
    let output = desk.call("resume", &script.target(), &["--event", "e2"]);
    assert_eq!(code(&output), 65, "{output:?}");
    assert!(stderr(&output).contains("the epoch is out of date"), "{output:?}");
    script.finish();
    assert_eq!(heard.try_iter().count(), 4);
    let (sender, _heard) = channel();
    let script = Script::start(vec![stale(u64::MAX, sender)]);
    let output = desk.call("resume", &script.target(), &["--event", "e3"]);
    assert_eq!(code(&output), 65, "{output:?}");
    assert!(stderr(&output).contains("no epoch number is above 18446744073709551615"), "{output:?}");
    script.finish();
}

#[test]
fn a_killed_command_leaves_a_whole_file_and_the_next_one_goes_on_with_its_epoch() {
    let desk = Desk::new();
    let (sender, heard) = channel();
    let (asked, killed) = (sender.clone(), channel::<()>());
    let script = Script::start(vec![
        Box::new(move |peer| {
            peer.greet(Some("parent"), named(1, 41));
            asked.send(asked_to_resume(peer)).unwrap();
            killed.1.recv_timeout(PATIENCE).unwrap();
        }),
        // The first one arrived: the guest is a by now.
        names(desk.path(), sender),
    ]);
    let path = desk.path();
    let arguments = ["resume", &script.target(), "--sandbox", "a", "--state", path.to_str().unwrap()];
    let mut command = guestmeter(&arguments);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let first = heard.recv_timeout(PATIENCE).unwrap();
    // Another one at the same time has to wait, and says for what.
    let busy = run(&[&arguments[..], &["--retry-for", "200ms"]].concat());
    assert_eq!(code(&busy), 75, "{busy:?}");
    assert!(stderr(&busy).ends_with("sb.json: the state file is in use by another guestmeter\n"), "{busy:?}");
    child.kill().unwrap();
    child.wait().unwrap();
    killed.0.send(()).unwrap();
    let output = run(&arguments);
    assert_eq!(code(&output), 0, "{output:?}");
    let second = heard.recv_timeout(PATIENCE).unwrap();
    assert_eq!((second.epoch, second.number), (first.epoch, first.number));
    script.finish();
}

#[test]
fn a_checkpoint_closes_the_epoch_of_the_file_and_names_a_guest_that_is_in_none() {
    let desk = Desk::new();
    let missing = desk.call("checkpoint", "unix:///nowhere", &[]);
    assert_eq!(code(&missing), 66, "{missing:?}");
    assert!(stderr(&missing).contains("name the guest first, with `guestmeter resume"), "{missing:?}");

    let (sender, heard) = channel();
    let (again, path) = (sender.clone(), desk.path());
    let script = Script::start(vec![
        names(desk.path(), sender),
        // Its epoch was lost: a restore that nobody told of.
        Box::new(|peer| {
            peer.greet(Some("a"), Epoch::default());
            peer.closed();
        }),
        Box::new(move |peer| {
            peer.greet(Some("a"), Epoch::default());
            let resume = named_as_asked(peer);
            assert!(
                !resume.paused && resume.mark.is_some(),
                "in place, and not below what was known: {resume:?}"
            );
            let asked = asked_to_checkpoint(peer);
            assert_eq!((asked.epoch, asked.number), (resume.epoch, resume.number));
            let mut last = report("a", Epoch { id: asked.epoch, number: asked.number, ..named(0, 0) });
            last.usage.active.whole += 1000;
            peer.report(last.clone());
            peer.acked();
            let known = kept(&path)["marks"][0]["usage"]["active"]["seconds"].clone();
            assert_eq!(known, last.usage.active.whole, "kept before it is acknowledged");
            peer.closed();
            again.send(resume).unwrap();
        }),
    ]);
    assert_eq!(code(&desk.call("resume", &script.target(), &[])), 0);
    let output = desk.call("checkpoint", &script.target(), &[]);
    assert_eq!(code(&output), 0, "{output:?}");
    assert_eq!(stdout(&output).lines().count(), 1);
    let heard: Vec<_> = heard.iter().collect();
    assert_ne!(heard[0].epoch, heard[1].epoch, "the one before was answered");
    script.finish();
}

#[test]
fn a_guest_that_another_host_has_named_is_not_closed() {
    let desk = Desk::new();
    let empty =
        r#"{"schema":"guestmeter.state/1","sandbox":"a","epoch":null,"followed_events":[],"marks":[]}"#;
    std::fs::write(desk.path(), empty).unwrap();
    let script = Script::one(|peer| {
        peer.greet(Some("a"), named(1, 41));
        assert_eq!(peer.message(), None);
    });
    let output = desk.call("checkpoint", &script.target(), &[]);
    assert_eq!(code(&output), 65, "{output:?}");
    assert!(stderr(&output).contains("another host has named the guest: epoch 41"), "{output:?}");
    script.finish();
}

#[test]
fn a_file_of_something_else_is_named_before_anybody_is_asked() {
    let desk = Desk::new();
    for (text, cause) in [("[]", "it is no state file"), ("\u{feff}{}", "a byte-order mark (UTF-8)")] {
        std::fs::write(desk.path(), text).unwrap();
        for command in ["resume", "checkpoint"] {
            let output = desk.call(command, "unix:///nowhere", &[]);
            assert_eq!(code(&output), 65, "{output:?}");
            assert!(stderr(&output).contains(&format!("sb.json: {cause}")), "{output:?}");
        }
        assert_eq!(std::fs::read_to_string(desk.path()).unwrap(), text, "it is left as it is");
    }
    let full = Path::new("/dev/full");
    let output = run(&["resume", "unix:///nowhere", "--sandbox", "a", "--state", full.to_str().unwrap()]);
    assert_eq!(code(&output), 65, "{output:?}");
    assert!(stderr(&output).contains("/dev/full: the state file is not a regular file"), "{output:?}");
    let both = run(&["resume", "unix:///nowhere", "--sandbox", "a", "--epoch", &epoch(1, 1), "--event", "e"]);
    assert_eq!(code(&both), 2, "an event needs a file: {both:?}");
}
