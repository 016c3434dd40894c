//! What is no incident: holes that the host itself lets pass, pauses that were given up; and what tells of a pause.

use super::{HOUR, SECOND, START};
use guestmeter::host::explain::{Books, Cause, Entry, Found, Happening, Question, What, explain};
use guestmeter::host::reconcile::{Policy, Size};
use guestmeter::units::{MilliCpu, Nanos};
use guestmeter::wire::message::Id;

const SIZE: Size = Size { memory_mib: 1024, cpu: MilliCpu(1000) };

fn entry(epoch: u8, from: u64, to: u64) -> Entry {
    let at = |second: u64| Nanos(START + second * SECOND);
    let id = format!("{epoch}/{from}");
    Entry { id, start: at(from), end: Some(at(to)), size: SIZE, epoch: Some(Id([epoch; 16])) }
}

/// One row of an hour, and these samples of it: epoch, start and end in seconds.
fn books(samples: &[(u8, u64, u64)], happened: &[(u64, What)]) -> Books {
    let happening =
        |(second, what): &(u64, What)| Happening { at: Nanos(START + second * SECOND), what: what.clone() };
    Books {
        sandbox: "sb".into(),
        cell: vec![entry(1, 0, 3600)],
        edge: samples.iter().map(|(epoch, from, to)| entry(*epoch, *from, *to)).collect(),
        happened: happened.iter().map(happening).collect(),
        ..Books::default()
    }
}

fn causes(samples: &[(u8, u64, u64)], happened: &[(u64, What)]) -> Vec<(Cause, i128)> {
    let to = Nanos(START + HOUR);
    let question = Question::new(Nanos(START), to, to.saturating_add(Nanos(HOUR)), &Policy::default());
    let findings = explain(&mut books(samples, happened), &question).findings;
    findings.iter().map(|finding| (finding.cause, finding.amount.active_ns / i128::from(SECOND))).collect()
}

#[test]
fn a_hole_is_no_more_than_the_host_lets_pass_or_has_no_known_cause() {
    assert_eq!(Policy::default().tolerance().of(Nanos(HOUR), 0), Nanos(72 * SECOND));
    assert_eq!(causes(&[(1, 0, 3528)], &[]), []);
    assert_eq!(causes(&[(1, 0, 3527)], &[]), [(Cause::RowLeftOpen, -73)]);
    let ended = [(3600, What::Pausing)];
    assert_eq!(causes(&[(1, 0, 3527)], &ended), [(Cause::Unexplained, -73)], "its row was not left open");
    assert_eq!(causes(&[(1, 0, 2000), (1, 2040, 3600)], &[]), [], "2 % of the sample and the hole");
    assert_eq!(causes(&[(1, 0, 2000), (1, 2042, 3600)], &[]), [(Cause::Unexplained, -42)]);
}

#[test]
fn a_name_given_as_it_ran_stands_for_one_pause() {
    assert_eq!(causes(&[(1, 0, 1500), (2, 1500, 2000), (2, 2020, 3600)], &[]), []);
    assert_eq!(causes(&[(1, 0, 1500), (2, 1500, 2000), (2, 2021, 3600)], &[]), [(Cause::Unexplained, -21)]);
    assert_eq!(causes(&[(1, 0, 1500), (1, 1500, 2000), (1, 2020, 3600)], &[]), [(Cause::Unexplained, -20)]);
}

/// Found by the soak: six snapshots that were given up, each with 5 s that the guest did not count.
#[test]
fn a_pause_that_was_given_up_is_none() {
    let edges = |ended: What| -> Vec<(u64, What)> {
        (1..7).flat_map(|nth| [(nth * 500, What::Pausing), (nth * 500 + 5, ended.clone())]).collect()
    };
    let mut samples: Vec<(u8, u64, u64)> = (1..6).map(|nth| (1, nth * 500 + 5, nth * 500 + 500)).collect();
    samples.extend([(1, 0, 500), (1, 3005, 3600)]);
    assert_eq!(causes(&samples, &edges(What::RanOn)), []);
    assert_eq!(causes(&samples, &edges(What::Resumed)), [(Cause::PausedBilled, -30)]);
}

#[test]
fn a_pause_that_was_noticed_is_a_hole_s_cause() {
    let noticed = [(1400, What::Found(Found::Paused))];
    let samples = [(1, 0, 1400), (1, 1500, 3600)];
    assert_eq!(causes(&samples, &noticed), [(Cause::UnannouncedPause, -100)]);
    let paused = serde_json::json!({ "verdict": "gap", "cause": "pause", "active": 0 });
    assert_eq!(Found::of("gap", &paused), Some(Found::Paused));
}

/// Found by the soak: a guest was starved over an hour's end, and heard of it long after.
#[test]
fn what_was_left_out_lies_before_it_was_told() {
    let samples = [(1, 0, 500), (1, 500, 1400), (1, 1500, 3600)];
    let told = |second: u64, left_out: u64| {
        let left_out = What::Found(Found::Dropped(Nanos(left_out * SECOND)));
        causes(&samples, &[(0, What::Started), (0, What::Found(Found::Rollback)), (second, left_out)])
    };
    assert_eq!(told(1700, 200), [(Cause::Cap, -100)]);
    assert_eq!(told(1700, 50), [(Cause::Unexplained, -100)], "that began when the hole was long over");
}
