//! `resume` and `checkpoint` against an agent that a test plays: what is sent, in which order, and what is said of an
//! answer that does not fit.

use super::script::{BOOT, Peer, Script, named, report};
use super::{PATIENCE, run, stderr, stdout};
use guestmeter::host::Client;
use guestmeter::units::Bytes;
use guestmeter::wire::message::{
    Ack, Checkpoint, Epoch, EpochSource, Finding, RefusalCode, Request, Resume, SegmentsAfter,
};
use serde_json::Value;
use std::process::Output;
use std::sync::mpsc::channel;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// As the command line has it: the id is one byte over and over.
pub(super) fn epoch(byte: u8, number: u64) -> String {
    format!("{}:{number}", format!("{byte:02x}").repeat(16))
}

fn resume(script: &Script, arguments: &[&str]) -> Output {
    run(&[&["resume", &script.target(), "--sandbox", "a", "--epoch", &epoch(0xab, 42)], arguments].concat())
}

/// The epoch that scripted guests are in.
fn checkpoint(script: &Script, arguments: &[&str]) -> Output {
    run(&[&["checkpoint", &script.target(), "--epoch", &epoch(1, 41)], arguments].concat())
}

pub(super) fn asked_to_resume(peer: &mut Peer) -> Resume {
    match peer.request() {
        Request::Resume(resume) => resume,
        other => panic!("{other:?} instead of Resume"),
    }
}

pub(super) fn asked_to_checkpoint(peer: &mut Peer) -> Checkpoint {
    match peer.request() {
        Request::Checkpoint(checkpoint) => checkpoint,
        other => panic!("{other:?} instead of Checkpoint"),
    }
}

/// Answers a `Resume` as an agent does.
pub(super) fn named_as_asked(peer: &mut Peer) -> Resume {
    let resume = asked_to_resume(peer);
    let epoch = Epoch { id: resume.epoch, source: EpochSource::Host, number: resume.number };
    peer.report(report(&resume.sandbox, epoch));
    resume
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

#[test]
fn a_life_is_named_shown_acknowledged_and_the_connection_closed_from_both_ends() {
    let (sender, heard) = channel();
    let script = Script::one(move |peer| {
        peer.greet(Some("a"), named(1, 41));
        let resume = named_as_asked(peer);
        let ack = peer.acked();
        peer.closed();
        sender.send((resume, ack)).unwrap();
    });
    let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let output = resume(&script, &["--json", "--expect", "512M"]);
    assert_eq!(code(&output), 0, "{output:?}");
    let (resume, ack) = heard.recv_timeout(PATIENCE).unwrap();
    assert_eq!((resume.sandbox.as_str(), resume.paused, resume.mark), ("a", true, None));
    assert_eq!(resume.requested, Some(Bytes::mib(512)));
    assert!(u128::from(resume.at.0) >= began);
    assert_eq!((resume.epoch, resume.number), (named(0xab, 42).id, 42));
    assert_eq!(ack, Ack { epoch: resume.epoch, seq: 5 });
    let shown: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let id: String = resume.epoch.0.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(shown["identity"]["epoch"]["id"], id);
    assert_eq!(stderr(&output), "");
    script.finish();
}

#[test]
fn what_the_command_line_says_is_what_the_agent_hears() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mark.json");
    let script = Script::one(|peer| {
        peer.greet(None, Epoch::default());
        let resume = asked_to_resume(peer);
        peer.report(report("a", named(0xab, 42)));
        assert_eq!((resume.epoch, resume.number), (named(0xab, 42).id, 42));
        assert!(!resume.paused);
        let mark = resume.mark.unwrap();
        assert_eq!(mark.boot_id, BOOT);
        let usage = report("a", named(0xab, 7)).usage;
        assert_eq!(mark.counters.active, usage.active);
        assert_eq!(mark.counters.memory, usage.memory);
        assert_eq!(mark.counters.cpu, usage.cpu);
        peer.closed();
    });
    let line = mark_line("a");
    std::fs::write(&file, format!("{line}\n")).unwrap();
    let mark = file.to_str().unwrap();
    let output = resume(&script, &["--not-paused", "--no-ack", "--mark", mark]);
    assert_eq!(code(&output), 0, "{output:?}");
    script.finish();
}

/// What `checkpoint --json` prints of a guest that a test plays.
fn mark_line(sandbox: &'static str) -> String {
    let script = Script::one(move |peer| {
        peer.greet(Some(sandbox), named(1, 41));
        asked_to_checkpoint(peer);
        peer.report(report(sandbox, named(1, 41)));
        peer.closed();
    });
    let output = checkpoint(&script, &["--json", "--no-ack"]);
    assert_eq!(code(&output), 0, "{output:?}");
    script.finish();
    stdout(&output)
}

#[test]
fn a_mark_that_does_not_fit_is_told_before_anybody_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mark.json");
    let epoch = epoch(0xab, 42);
    let mark = file.to_str().unwrap();
    let arguments = ["resume", "unix:///nowhere", "--sandbox", "a", "--epoch", &epoch, "--mark", mark];
    assert_eq!(code(&run(&arguments)), 66, "no such file");
    std::fs::write(&file, mark_line("b")).unwrap();
    let output = run(&arguments);
    assert_eq!(code(&output), 65, "{output:?}");
    assert!(stderr(&output).ends_with("mark.json: it is of sandbox b, not of a\n"), "{output:?}");
    std::fs::write(&file, vec![b' '; (1 << 20) + 1]).unwrap();
    let output = run(&arguments);
    assert_eq!(code(&output), 65);
    assert!(stderr(&output).ends_with("it has more than 1048576 bytes\n"), "{output:?}");
}

#[test]
fn a_guest_that_was_another_sandbox_is_a_clone() {
    let script = Script::one(|peer| {
        peer.greet(Some("\u{1b}[2Jparent"), named(1, 41));
        named_as_asked(peer);
        peer.acked();
        peer.closed();
    });
    let output = resume(&script, &[]);
    assert_eq!(code(&output), 1, "{output:?}");
    let said = stderr(&output);
    let clone = format!(
        "guestmeter: {}: clone: it was sandbox \\u{{1b}}[2Jparent until now, and is a from now on\n",
        script.target()
    );
    assert_eq!(said, clone);
    script.finish();
}

#[test]
fn what_the_agent_found_is_shown_in_words_and_in_the_exit_code() {
    for (finding, word, expected) in [
        (Finding::Rollback, "rollback", 1),
        (Finding::MarkIgnored, "mark_ignored", 1),
        (Finding::ClockStep, "clock_step", 0),
    ] {
        let script = Script::one(move |peer| {
            peer.greet(Some("a"), named(1, 41));
            let resume = asked_to_resume(peer);
            let epoch = Epoch { id: resume.epoch, source: EpochSource::Host, number: resume.number };
            let mut report = report("a", epoch);
            report.tail.findings = vec![finding];
            report.tail.held = true;
            peer.report(report);
            peer.acked();
            peer.closed();
        });
        let output = resume(&script, &[]);
        assert_eq!(code(&output), expected, "{output:?}");
        let text = stdout(&output);
        assert!(text.contains(word) && text.contains("a checkpoint holds it"), "{text}");
        script.finish();
    }
}

#[test]
fn an_attempt_whose_answer_is_lost_is_made_again_with_the_same_epoch() {
    let (sender, heard) = channel();
    let again = sender.clone();
    let script = Script::start(vec![
        Box::new(move |peer| {
            peer.greet(Some("parent"), named(1, 41));
            sender.send(asked_to_resume(peer)).unwrap();
        }),
        Box::new(|peer| {
            peer.hello();
            peer.refuse(RefusalCode::Busy, "4 connections are open already");
        }),
        Box::new(move |peer| {
            peer.greet(Some("parent"), named(1, 41));
            again.send(named_as_asked(peer)).unwrap();
            peer.acked();
            peer.closed();
        }),
    ]);
    let output = resume(&script, &[]);
    assert_eq!(code(&output), 1, "{output:?}");
    let (first, second) = (heard.recv_timeout(PATIENCE).unwrap(), heard.recv_timeout(PATIENCE).unwrap());
    assert_eq!(first, second);
    script.finish();
}

/// The first attempt arrived, but not its answer: the second one sees its own name in `Welcome`.
#[test]
fn a_clone_is_told_by_what_it_was_before_the_first_attempt() {
    let script = Script::start(vec![
        Box::new(|peer| {
            peer.greet(Some("parent"), named(1, 41));
            asked_to_resume(peer);
        }),
        Box::new(|peer| {
            peer.greet(Some("a"), named(0xab, 42));
            assert_eq!(named_as_asked(peer).number, 42);
            peer.acked();
            peer.closed();
        }),
    ]);
    let output = resume(&script, &[]);
    assert_eq!(code(&output), 1, "{output:?}");
    assert!(stderr(&output).contains("clone: it was sandbox parent"), "{output:?}");
    script.finish();
}

#[test]
fn a_refusal_has_a_message_and_an_exit_code_of_its_own_and_is_not_tried_again() {
    for (code_sent, message, expected) in [
        (
            RefusalCode::StaleEpoch,
            "the epoch is out of date: no (a later life of this guest was named before)",
            65,
        ),
        (
            RefusalCode::UnknownEpoch,
            "the guest is not in this epoch: no (`guestmeter read` shows the epoch the guest is in)",
            65,
        ),
        (
            RefusalCode::Unsupported,
            "the agent does not know this request: no (the guest's agent is older than this guestmeter)",
            69,
        ),
    ] {
        for command in [resume, checkpoint] {
            let script = Script::one(move |peer| {
                peer.greet(Some("a"), named(1, 41));
                peer.request();
                peer.refuse(code_sent, "no");
                assert_eq!(peer.message(), None);
            });
            let output = command(&script, &[]);
            assert_eq!(code(&output), expected, "{output:?}");
            assert_eq!(stderr(&output), format!("guestmeter: {}: {message}\n", script.target()));
            assert_eq!(stdout(&output), "");
            script.finish();
        }
    }
}

#[test]
fn a_report_of_another_life_is_neither_shown_nor_acknowledged() {
    let script = Script::one(|peer| {
        peer.greet(Some("a"), named(1, 41));
        asked_to_resume(peer);
        peer.report(report("a", named(2, 42)));
        assert_eq!(peer.message(), None);
    });
    let output = resume(&script, &[]);
    assert_eq!(code(&output), 65, "{output:?}");
    assert_eq!(stdout(&output), "");
    let said = stderr(&output);
    assert!(
        said.contains(
            "the guest is in epoch 42 (02020202020202020202020202020202) of sandbox a, not in epoch 42 (abab"
        ),
        "{said}"
    );
    script.finish();
}

#[test]
fn a_silent_agent_is_given_up_in_time_after_more_than_one_attempt() {
    let silent = |peer: &mut Peer| {
        peer.greet(Some("a"), named(1, 41));
        asked_to_resume(peer);
        assert_eq!(peer.message(), None);
    };
    let script = Script::start(vec![Box::new(silent), Box::new(silent)]);
    let began = Instant::now();
    let output = resume(&script, &["--retry-for", "6s"]);
    assert_eq!(code(&output), 69, "{output:?}");
    assert!(stderr(&output).contains("no answer within 2s while its report was awaited"), "{output:?}");
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    script.finish();
}

/// What is under way when the VM is paused goes into its snapshot; but the count is held, and the script has to know.
#[test]
fn a_checkpoint_whose_end_goes_wrong_is_taken_all_the_same() {
    for acks in [true, false] {
        let (sender, done) = channel::<()>();
        let script = Script::one(move |peer| {
            peer.greet(Some("a"), named(1, 41));
            asked_to_checkpoint(peer);
            peer.report(report("a", named(1, 41)));
            if acks {
                peer.acked();
                let _ = done.recv_timeout(PATIENCE);
            } else {
                peer.request();
                peer.refuse(RefusalCode::Internal, "not today");
                peer.closed();
            }
        });
        let output = checkpoint(&script, &["--json", "--retry-for", "15s"]);
        assert_eq!(code(&output), 1, "{output:?}");
        assert!(stdout(&output).starts_with("{\"schema\""), "what it said is shown");
        let cause = if acks { "while its end of the connection was awaited" } else { "not today" };
        let said = stderr(&output);
        assert!(
            said.contains(cause)
                && said.contains("the checkpoint is taken all the same, and the count is held"),
            "{said}"
        );
        drop(sender);
        script.finish();
    }
}

#[test]
fn a_checkpoint_is_of_the_epoch_that_is_named() {
    let script = Script::one(|peer| {
        peer.greet(Some("a"), named(1, 41));
        assert_eq!(asked_to_checkpoint(peer), Checkpoint { epoch: named(1, 41).id, number: 41 });
        peer.report(report("a", named(1, 41)));
        assert_eq!(peer.acked(), Ack { epoch: named(1, 41).id, seq: 5 });
        peer.closed();
    });
    let output = checkpoint(&script, &[]);
    assert_eq!(code(&output), 0, "{output:?}");
    assert!(stdout(&output).contains("id 01010101010101010101010101010101"), "{output:?}");
    script.finish();
}

#[test]
fn a_guest_that_was_never_named_has_nothing_to_close() {
    let script = Script::one(|peer| {
        peer.greet(None, Epoch::default());
        assert_eq!(peer.message(), None);
    });
    let output = checkpoint(&script, &[]);
    assert_eq!(code(&output), 65, "{output:?}");
    assert_eq!(
        stderr(&output),
        format!(
            "guestmeter: {}: the guest's epoch is provisional: no host has named it (name it first: `guestmeter \
             resume --sandbox NAME --not-paused`, or give --state here)\n",
            script.target()
        )
    );
    script.finish();
}

#[test]
fn memory_on_its_way_is_told_and_the_checkpoint_is_taken() {
    let script = Script::start(vec![
        Box::new(|peer| {
            peer.greet(Some("a"), named(1, 41));
            assert!(matches!(peer.request(), Request::WaitSettled(_)));
            peer.refuse(RefusalCode::Timeout, "still moving");
            assert_eq!(peer.request(), Request::Read);
            peer.report(report("a", named(1, 41)));
            peer.closed();
        }),
        Box::new(|peer| {
            peer.greet(Some("a"), named(1, 41));
            asked_to_checkpoint(peer);
            peer.report(report("a", named(1, 41)));
            peer.acked();
            peer.closed();
        }),
    ]);
    let output = checkpoint(&script, &["--wait-settled", "1s", "--json"]);
    assert_eq!(code(&output), 1, "{output:?}");
    assert!(stderr(&output).contains(": not settled after 1.000 s: "), "{output:?}");
    assert_eq!(stdout(&output).lines().count(), 1, "the checkpoint's report alone: {output:?}");
    script.finish();
}

/// A guest that is held already, for the answer to the first call was lost: it waits for nothing.
#[test]
fn asking_again_with_a_wait_is_safe_too() {
    let script = Script::start(vec![
        Box::new(|peer| {
            peer.greet(Some("a"), named(1, 41));
            assert!(matches!(peer.request(), Request::WaitSettled(_)));
            peer.refuse(RefusalCode::Busy, "a checkpoint holds the count");
        }),
        Box::new(|peer| {
            peer.greet(Some("a"), named(1, 41));
            asked_to_checkpoint(peer);
            peer.report(report("a", named(1, 41)));
            peer.acked();
            peer.closed();
        }),
    ]);
    let output = checkpoint(&script, &["--wait-settled", "1s"]);
    assert_eq!(code(&output), 1, "{output:?}");
    assert!(stderr(&output).contains("a checkpoint holds the count"), "{output:?}");
    script.finish();
}

#[test]
fn a_resume_that_waits_shows_and_acknowledges_two_reports() {
    let script = Script::one(|peer| {
        peer.greet(Some("a"), named(3, 9));
        let resume = named_as_asked(peer);
        assert_eq!(peer.acked().seq, 5);
        match peer.request() {
            Request::WaitSettled(wait) => assert_eq!(wait.expected, Some(Bytes::mib(640))),
            other => panic!("{other:?}"),
        }
        let epoch = Epoch { id: resume.epoch, source: EpochSource::Host, number: resume.number };
        let mut second = report("a", epoch);
        second.identity.seq = 6;
        peer.report(second);
        assert_eq!(peer.acked(), Ack { epoch: resume.epoch, seq: 6 });
        peer.closed();
    });
    let output = resume(&script, &["--wait-settled", "60s", "--expect", "640M", "--json"]);
    assert_eq!(code(&output), 0, "{output:?}");
    assert_eq!(stdout(&output).lines().count(), 2);
    script.finish();
}

/// A worker asks from tasks that any of its threads may run.
#[test]
fn the_librarys_calls_work_in_tasks_and_repeat_what_is_safe() {
    let resume = Resume {
        epoch: named(3, 9).id,
        number: 9,
        paused: true,
        sandbox: "a".to_owned(),
        at: guestmeter::units::Nanos(1),
        mark: None,
        requested: None,
        boot: None,
    };
    let (checkpoint, ack) =
        (Checkpoint { epoch: named(3, 9).id, number: 9 }, Ack { epoch: named(3, 9).id, seq: 5 });
    let script = Script::start(vec![
        Box::new(|_| {}),
        Box::new(|peer| {
            peer.greet(Some("a"), named(3, 9));
            named_as_asked(peer);
            peer.closed();
        }),
        Box::new(move |peer| {
            peer.greet(Some("a"), named(3, 9));
            assert_eq!(asked_to_checkpoint(peer), checkpoint);
            peer.report(report("a", named(3, 9)));
            peer.closed();
        }),
        Box::new(move |peer| {
            peer.greet(Some("a"), named(3, 9));
            assert_eq!(peer.acked(), ack);
            peer.closed();
        }),
        Box::new(|peer| {
            peer.greet(Some("a"), named(3, 9));
            assert!(matches!(peer.request(), Request::Segments(_)));
            peer.refuse(RefusalCode::Unsupported, "no segments");
        }),
    ]);
    let client = Client::new(script.target().parse().unwrap(), PATIENCE);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let work = runtime.spawn(async move {
        let client = client.patient(PATIENCE);
        let named = client.resume(&resume).await.unwrap();
        assert_eq!(named.report.identity.seq, 5);
        client.checkpoint(checkpoint).await.unwrap();
        client.ack(ack).await.unwrap();
        let after = SegmentsAfter { epoch: ack.epoch, seq: ack.seq };
        client.segments(after).await.unwrap_err().to_string()
    });
    let refused = runtime.block_on(work).unwrap();
    assert!(refused.ends_with("the agent does not know this request: no segments"), "{refused}");
    script.finish();
}
