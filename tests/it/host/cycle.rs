//! `resume`, `checkpoint` and the library's calls against a real agent: what a snapshot script does, and its mistakes.

use super::{ns, run, stderr, stdout};
use crate::agent::Agent;
use guestmeter::host::{Client, mark, mint_epoch};
use guestmeter::units::Nanos;
use guestmeter::wire::message::{Ack, Boundary, Checkpoint, Resume, SegmentsAfter};
use serde_json::Value;
use std::process::Output;
use std::time::Duration;

fn target(agent: &Agent) -> String {
    format!("unix://{}", agent.socket().display())
}

/// With a state file beside the agent's socket, for what needs one: the agent's folder outlives it.
fn ask(command: &str, agent: &Agent, arguments: &[&str]) -> Output {
    let state = agent.socket().with_file_name("a.json").display().to_string();
    let given = command == "read" || arguments.contains(&"--epoch") || arguments.contains(&"--state");
    let kept = if given { vec![] } else { vec!["--state", &state] };
    run(&[&[command, &target(agent), "--json"], arguments, &kept].concat())
}

/// Its one report, where the exit code is as expected.
fn told(command: &str, agent: &Agent, arguments: &[&str], code: i32) -> Value {
    let output = ask(command, agent, arguments);
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    serde_json::from_str(&stdout(&output)).unwrap()
}

fn refused(command: &str, agent: &Agent, arguments: &[&str]) -> String {
    let output = ask(command, agent, arguments);
    assert_eq!(output.status.code(), Some(65), "{output:?}");
    assert_eq!(stdout(&output), "");
    stderr(&output)
}

/// Counted time, in ns.
fn active(report: &Value, of: &str) -> u64 {
    let active = &report[of]["active"];
    active["seconds"].as_u64().unwrap() * 1_000_000_000 + active["carry_ns"].as_u64().unwrap()
}

#[test]
fn a_pause_between_checkpoint_and_resume_is_suspended_and_never_counted() {
    let agent = Agent::start();
    let epoch = format!("{}:1", "11".repeat(16));
    assert!(refused("checkpoint", &agent, &["--epoch", &epoch]).contains("the guest's epoch is provisional"));
    let named = told("resume", &agent, &["--sandbox", "a", "--not-paused"], 0);
    assert_eq!(named["identity"]["sandbox"], "a");
    assert_eq!(named["identity"]["epoch"]["source"], "host");
    assert_eq!((&named["held"], &named["resume"]), (&false.into(), &Value::Null));

    let last = told("checkpoint", &agent, &[], 0);
    assert_eq!((&last["reason"], &last["held"]), (&"checkpoint".into(), &true.into()));
    assert_eq!(last["identity"]["epoch"], named["identity"]["epoch"]);
    let held = told("read", &agent, &[], 0);
    assert_eq!((&held["held"], &held["findings"]), (&true.into(), &Value::Array(vec![])));
    std::thread::sleep(Duration::from_millis(300));

    let next = told("resume", &agent, &["--sandbox", "a"], 0);
    assert_eq!((&next["reason"], &next["held"]), (&"resume".into(), &false.into()));
    assert_eq!(next["resume"]["signal"], "host");
    assert!(ns(&next["usage"]["suspended_ns"]) >= 1, "{next}");
    let (number, before) = (&next["identity"]["epoch"]["number"], &last["identity"]["epoch"]["number"]);
    assert!(ns(number) > ns(before));
    // The epoch begins where the pause ended; whatever the agent saw of the hold, it counted at most that.
    assert_eq!(active(&next, "usage"), active(&next, "base"));
    let counted = active(&next, "usage") - active(&last, "usage");
    let passed = ns(&next["clock"]["monotonic_ns"]) - ns(&last["clock"]["monotonic_ns"]);
    let suspended = ns(&next["usage"]["suspended_ns"]);
    assert_eq!(counted + suspended, passed);
}

#[test]
fn a_snapshot_that_is_given_up_ends_its_hold_and_loses_nothing() {
    let agent = Agent::start();
    told("resume", &agent, &["--sandbox", "a", "--not-paused"], 0);
    let last = told("checkpoint", &agent, &[], 0);
    let next = told("resume", &agent, &["--sandbox", "a", "--not-paused"], 0);
    assert_eq!((&next["held"], &next["usage"]["suspended_ns"]), (&false.into(), &"0".into()));
    let passed = ns(&next["clock"]["monotonic_ns"]) - ns(&last["clock"]["monotonic_ns"]);
    assert_eq!(active(&next, "usage") - active(&last, "usage"), passed);
}

#[test]
fn the_same_epoch_again_changes_nothing_and_an_older_one_is_refused() {
    let agent = Agent::start();
    let [first, second, third] =
        [(11, 7), (22, 8), (33, 9)].map(|(id, number)| format!("{}:{number}", id.to_string().repeat(16)));
    let resume = |epoch: &str| told("resume", &agent, &["--sandbox", "a", "--epoch", epoch], 0);
    let named = resume(&first);
    let again = resume(&first);
    assert_eq!((&again["reason"], &again["base"]), (&"query".into(), &named["base"]));
    resume(&second);
    let stale = refused("resume", &agent, &["--sandbox", "a", "--epoch", &first]);
    assert!(stale.contains("the epoch is out of date: "), "{stale}");
    let stale = refused("checkpoint", &agent, &["--epoch", &first]);
    assert!(stale.contains("the epoch is out of date: "), "{stale}");
    let unknown = refused("checkpoint", &agent, &["--epoch", &third]);
    assert!(unknown.contains("the guest is not in this epoch: "), "{unknown}");
    assert_eq!(told("read", &agent, &[], 0)["held"], false);
}

#[test]
fn a_copy_that_gets_a_name_of_its_own_is_a_clone() {
    let agent = Agent::start();
    told("resume", &agent, &["--sandbox", "parent", "--not-paused"], 0);
    told("checkpoint", &agent, &[], 0);
    let child = agent.socket().with_file_name("child.json").display().to_string();
    let output = ask("resume", &agent, &["--sandbox", "child", "--state", &child]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains(": clone: it was sandbox parent until now, and is child from now on"));
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(report["findings"], Value::Array(vec!["clone".into()]));
    let table = stdout(&run(&["read", &target(&agent)]));
    assert!(table.contains("it was another sandbox before"), "{table}");
}

/// The agent's state file is the guest's memory: put back, it is a guest that was restored from an older snapshot.
#[test]
fn an_older_snapshot_is_raised_to_what_was_known_and_another_boots_mark_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let (mark_file, old) = (folder.path().join("mark.json"), folder.path().join("old"));
    let tick = ["--tick", "100ms"];
    let agent = Agent::start_in(tempfile::tempdir().unwrap(), &tick);
    told("resume", &agent, &["--sandbox", "a", "--not-paused"], 0);
    told("checkpoint", &agent, &[], 0);
    std::fs::copy(agent.state(), &old).unwrap();
    told("resume", &agent, &["--sandbox", "a"], 0);
    std::thread::sleep(Duration::from_millis(1500));
    let last = ask("checkpoint", &agent, &[]);
    std::fs::write(&mark_file, &last.stdout).unwrap();
    let last: Value = serde_json::from_str(&stdout(&last)).unwrap();
    let restored = |agent: Agent| {
        let state = agent.state();
        let (_, kept) = agent.signal("-KILL");
        std::fs::copy(&old, state).unwrap();
        Agent::start_in(kept, &tick)
    };

    let agent = restored(agent);
    let raised = told("resume", &agent, &["--sandbox", "a"], 1);
    assert_eq!(raised["findings"], Value::Array(vec!["rollback".into()]));
    assert_eq!(active(&raised, "base"), active(&last, "usage"), "its epoch begins where the last one ended");
    assert!(ns(&raised["usage"]["rebased"]["active_ns"]) > 0);

    // The same from a report, by a caller with a ledger of its own.
    let agent = restored(agent);
    let mark = mark_file.to_str().unwrap();
    let above = |number: u64| format!("{}:{number}", "44".repeat(16));
    let named = above(u64::MAX - 1);
    let raised = told("resume", &agent, &["--sandbox", "a", "--epoch", &named, "--mark", mark], 1);
    assert_eq!(raised["findings"], Value::Array(vec!["rollback".into()]));
    assert_eq!(active(&raised, "base"), active(&last, "usage"));
    let foreign = std::fs::read_to_string(&mark_file).unwrap();
    let boot_id = last["identity"]["boot_id"].as_str().unwrap();
    std::fs::write(&mark_file, foreign.replace(boot_id, "c17643ce-0269-486e-b779-e3ef0c36cf86")).unwrap();
    let other = format!("{}:{}", "55".repeat(16), u64::MAX);
    let ignored = told("resume", &agent, &["--sandbox", "a", "--epoch", &other, "--mark", mark], 1);
    assert_eq!(ignored["findings"], Value::Array(vec!["mark_ignored".into()]));
    assert_eq!(ignored["usage"]["rebased"], raised["usage"]["rebased"]);
}

#[test]
fn a_hold_outlives_the_agent() {
    let agent = Agent::start();
    told("resume", &agent, &["--sandbox", "a", "--not-paused"], 0);
    told("checkpoint", &agent, &[], 0);
    let (_, kept) = agent.signal("-KILL");
    let agent = Agent::start_in(kept, &[]);
    let held = told("read", &agent, &[], 0);
    assert_eq!((&held["held"], &held["identity"]["instance"]), (&true.into(), &2.into()));
    // The CLI acknowledged what the agent then lost sight of: asking again is safe.
    assert_eq!(told("checkpoint", &agent, &[], 0)["held"], true);
    assert_eq!(told("resume", &agent, &["--sandbox", "a"], 0)["held"], false);
}

#[test]
fn memory_that_does_not_come_is_found_and_stops_no_checkpoint() {
    let agent = Agent::start();
    told("resume", &agent, &["--sandbox", "a", "--not-paused"], 0);
    let wait = ["--wait-settled", "400ms", "--expect", "3T"];
    assert_eq!(told("checkpoint", &agent, &wait, 1)["held"], true, "taken in any case");
    let again = ask("checkpoint", &agent, &wait);
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    assert!(stderr(&again).contains("a checkpoint holds the count"), "{again:?}");

    let output = ask("resume", &agent, &[&["--sandbox", "a"], &wait[..]].concat());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let reports: Vec<Value> =
        stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seqs: Vec<u64> = reports.iter().map(|report| report["identity"]["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, [1, 2]);
    told("checkpoint", &agent, &["--wait-settled", "60s", "--expect", "0"], 0);
}

/// What a worker does with each life: name it, take what is left of the one before, commit, acknowledge.
#[test]
fn the_tail_of_an_older_life_waits_until_it_is_acknowledged() {
    let agent = Agent::start();
    // One connection, and by its second answer no other one is left.
    let mut one = agent.greet();
    one.read();
    let quiet = sockets(&agent) - 1;
    drop(one);
    let client = Client::new(target(&agent).parse().unwrap(), Duration::from_secs(60));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let life = |number, mark| Resume {
            epoch: mint_epoch().unwrap(),
            number,
            paused: number > 1,
            sandbox: "a".to_owned(),
            at: Nanos(number),
            mark,
            requested: None,
            boot: None,
        };
        let first = life(1, None);
        let named = client.resume(&first).await.unwrap();
        client.ack(Ack { epoch: first.epoch, seq: named.report.identity.seq }).await.unwrap();
        let last = client.checkpoint(Checkpoint { epoch: first.epoch, number: 1 }).await.unwrap();

        let mut conversation = client.converse().await.unwrap();
        let welcome = conversation.welcome();
        assert_eq!((welcome.epoch.id, welcome.sandbox.as_deref()), (first.epoch, Some("a")));
        assert_eq!((welcome.boot_id, welcome.seq), (last.report.identity.boot_id, last.report.identity.seq));
        let line = guestmeter::host::json::report(&last).unwrap();
        let second = life(2, Some(mark::mark(&line, "a").unwrap()));
        let opened = conversation.resume(second.clone()).await.unwrap();
        assert_eq!(opened.report.identity.seq, 1);
        assert_eq!((opened.report.tail.segments_waiting, opened.report.tail.findings.len()), (1, 0));
        let after = SegmentsAfter { epoch: second.epoch, seq: 1 };
        let waiting = conversation.segments(after).await.unwrap();
        let tail = waiting.segments[0];
        assert_eq!((tail.epoch.id, tail.boundary), (first.epoch, Boundary::Resume));
        assert!(
            tail.usage.active.total() >= last.report.usage.active.total() - last.report.base.active.total()
        );
        conversation.ack(Ack { epoch: first.epoch, seq: tail.seq }).await.unwrap();
        assert!(conversation.segments(after).await.unwrap().segments.is_empty());
        conversation.close().await.unwrap();
        // Nothing of it is left that a snapshot could catch.
        assert_eq!(sockets(&agent), quiet);

        let future = client.ack(Ack { epoch: second.epoch, seq: 99 }).await.unwrap_err();
        assert!(future.to_string().contains("the guest is not in this epoch: "), "{future}");
    });
    let log = agent.log();
    assert!(!log.contains("panicked"), "{log}");
}

fn sockets(agent: &Agent) -> usize {
    let links = std::fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap();
    let target = |link: std::io::Result<std::fs::DirEntry>| std::fs::read_link(link.unwrap().path());
    links
        .filter_map(|link| target(link).ok())
        .filter(|to| to.to_string_lossy().starts_with("socket:"))
        .count()
}
