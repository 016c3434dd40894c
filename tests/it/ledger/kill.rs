//! Workers that die at any instruction, many on one ledger: every decision is in it once or not at all.

use super::*;
use crate::random::Random;
use guestmeter::host::ledger::{Answer, Begun, Event, LedgerError, LedgerFault};
use guestmeter::meter::Count;
use guestmeter::wire::message::{Counters, Mark};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Calls of one sandbox's whole life.
const CALLS: u64 = 40;
const SANDBOXES: u64 = 3;
/// How often each worker is killed.
const KILLS: u64 = 12;
const ENV: &str = "GUESTMETER_TEST_WORKER";

/// What a worker does with one call: record it, "ask the guest", decide from the account, post. The call opens a row of
/// one minute in a new life, ends the one before, credits a sample of the minute before, and raises the mark by 60 s.
async fn serve(ledger: &Ledger, sandbox: &str, call: u64) -> Result<String, LedgerError> {
    let event = Event {
        id: format!("{sandbox}-{call}"),
        sandbox: sandbox.into(),
        kind: "resumed".into(),
        at: at(call, 0),
        mints: true,
    };
    let Begun { epoch, answer, .. } = ledger.begin_event(&event).await?;
    if let Some(answer) = answer {
        return Ok(answer);
    }
    let epoch = epoch.expect("the event mints");
    loop {
        let account = ledger.account(sandbox).await?;
        let before =
            account.as_ref().and_then(|account| account.mark).map_or(0, |mark| mark.counters.active.whole);
        let counters = Counters { active: Count { whole: before + 60, carry: 0 }, ..Counters::default() };
        let put = |epoch, started_at, ended_at| {
            Change::Row(RowPut { epoch, org: "o".into(), size: size(1024, 1000), started_at, ended_at })
        };
        let mut changes = vec![put(epoch.id, event.at, None)];
        if let Some(last) = ledger.running(sandbox).await? {
            let last_epoch = last.epoch.expect("a worker's own");
            changes.insert(0, put(last_epoch, last.started_at, Some(event.at)));
            changes.push(Change::Sample(Sample {
                epoch: last_epoch,
                org: "o".into(),
                size: size(1024, 1000),
                started_at: last.started_at,
                ended_at: event.at,
            }));
        }
        let text = format!("{}@{}", epoch.number, before + 60);
        let posting = Posting {
            sandbox: sandbox.into(),
            account: NewAccount {
                expected_version: account.map_or(0, |account| account.version),
                org: "o".into(),
                mark: Some(Mark { boot_id: id(7), counters }),
                state: call.to_be_bytes().to_vec(),
                updated_at: event.at,
            },
            answers: Some(Answer { event: event.clone(), text: text.clone() }),
            changes,
        };
        match ledger.post_one(&posting).await? {
            Posted::Done { .. } => return Ok(text),
            Posted::Repeat(first) => return Ok(first),
            Posted::Stale => {}
        }
    }
}

/// Not a test: the worker that the tests below run, and kill. It says each answer it gave.
#[test]
#[ignore = "run by the tests of this file, in a process of its own"]
fn worker() {
    let Ok(what) = std::env::var(ENV) else { return };
    let (sandbox, url) = what.split_once(' ').unwrap();
    block_on(async {
        let ledger = loop {
            match Ledger::open(url).await {
                Ok(ledger) => break ledger,
                Err(error) => try_again(&error),
            }
        };
        for call in 0..CALLS {
            let answer = loop {
                match serve(&ledger, sandbox, call).await {
                    Ok(answer) => break answer,
                    Err(error) => try_again(&error),
                }
            };
            // Past the harness, whole lines.
            use std::io::Write;
            std::io::stderr().write_all(format!("answer {sandbox} {call} {answer}\n").as_bytes()).unwrap();
        }
    });
    // One that is to be killed is never faster than its killer.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

fn try_again(error: &LedgerError) {
    match error {
        LedgerError::Failed { cause, .. } if cause.fault() == LedgerFault::TryAgain => {}
        other => panic!("{other}"),
    }
}

fn spawn(sandbox: &str, url: &str) -> Child {
    let mut worker = Command::new(std::env::current_exe().unwrap());
    worker.args(["--exact", "ledger::kill::worker", "--ignored", "--nocapture"]);
    worker.env(ENV, format!("{sandbox} {url}")).stdin(Stdio::piped()).stdout(Stdio::null());
    worker.stderr(Stdio::piped()).spawn().unwrap()
}

/// Two workers on each sandbox, each killed again and again and started anew, then one left to finish.
fn kill_them(url: &str, seed: u64) {
    let work = |sandbox: u64, twin: u64| {
        let url = url.to_owned();
        std::thread::spawn(move || {
            let name = format!("s{sandbox}");
            let mut random = Random(seed ^ (sandbox << 8) ^ (twin << 16) ^ 0x9e37_79b9_7f4a_7c15);
            let mut answers = Vec::new();
            for attempt in 0..=KILLS {
                let mut worker = spawn(&name, &url);
                let said = BufReader::new(worker.stderr.take().unwrap());
                let mut lines = said.lines().map_while(Result::ok).filter(|line| line.starts_with("answer "));
                if attempt < KILLS {
                    // At any time since its start, or at any instruction after any of its answers.
                    let heard = random.below(CALLS) * (attempt % 2);
                    answers.extend(lines.by_ref().take(usize::try_from(heard).unwrap()));
                    let most = if heard == 0 { 250_000 } else { 5_000 };
                    std::thread::sleep(Duration::from_micros(random.below(most)));
                    worker.kill().unwrap();
                } else {
                    drop(worker.stdin.take());
                }
                answers.extend(lines);
                let ended = worker.wait().unwrap();
                let signal = std::os::unix::process::ExitStatusExt::signal(&ended);
                let expected = (attempt < KILLS).then_some(9);
                assert_eq!((signal, ended.success()), (expected, attempt == KILLS), "{answers:#?}");
            }
            answers
        })
    };
    let all: Vec<_> = (0..SANDBOXES).flat_map(|sandbox| [work(sandbox, 0), work(sandbox, 1)]).collect();
    let mut answers: Vec<String> = all.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    // Whoever was asked, and however often, one call has one answer.
    answers.sort();
    answers.dedup();
    assert_eq!(answers.len() as u64, SANDBOXES * CALLS, "{answers:#?}");
}

async fn check_books(ledger: &Ledger) {
    let minutes = CALLS - 1;
    for sandbox in 0..SANDBOXES {
        let name = format!("s{sandbox}");
        let account = ledger.account(&name).await.unwrap().unwrap();
        assert_eq!(account.mark.unwrap().counters.active.whole, CALLS * 60, "each call raised the mark once");
        assert_eq!(account.version, CALLS);
        assert_eq!(account.state, (CALLS - 1).to_be_bytes());
        let expected: Vec<_> =
            (0..CALLS).map(|call| (1024, call, (call < minutes).then_some(call + 1))).collect();
        assert_eq!(rows(ledger, &name).await, expected);
        let samples = ledger.samples(&name, Nanos::ZERO, LATER).await.unwrap();
        assert_eq!(samples.len() as u64, minutes);
        assert_eq!(
            ledger.epochs(&name).await.unwrap().len() as u64,
            CALLS,
            "a retried call re-uses its epoch"
        );
    }
    let totals = ledger.totals(at(0, 0), at(minutes, 0), LATER).await.unwrap();
    let exact = u128::from(1024 * minutes * MINUTE);
    assert!(totals.iter().all(|total| (total.cell.0, total.edge.0) == (exact, exact)), "{totals:?}");
    assert_eq!(totals.len() as u64, SANDBOXES);
}

both! {
    async fn workers_killed_anywhere_lose_and_double_nothing(db: &Db) {
        let url = db.url();
        // Some die while they make the schema.
        kill_them(&url, 0x5eed);
        check_books(&db.open().await).await;
    }
}

/// The server dies instead, and comes back with what it had committed.
#[test]
fn a_server_that_crashes_keeps_what_was_committed() {
    let Some(server) = Server::start(&["shared_buffers=16MB"]) else { return };
    let url = server.database("crash");
    block_on(async {
        let ledger = Ledger::open(&url).await.unwrap();
        for call in 0..CALLS {
            for sandbox in 0..SANDBOXES {
                let crashed = call % 10 == 5 && sandbox == 1;
                if crashed {
                    server.crash();
                }
                let name = format!("s{sandbox}");
                let mut attempts = 0;
                while let Err(error) = serve(&ledger, &name, call).await {
                    try_again(&error);
                    attempts += 1;
                    assert!(attempts < 200, "{error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        check_books(&ledger).await;
    });
}
