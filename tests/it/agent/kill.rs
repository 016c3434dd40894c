//! `kill -9` of the agent at any moment, its start included, under load: what it told stands, and nothing is counted twice.

use super::{Agent, Client, Process, frame, hello, named};
use crate::random::Random;
use guestmeter::meter::Usage;
use guestmeter::units::Nanos;
use guestmeter::wire::message::{Ack, Checkpoint, EpochSource, Id, Reply, Report, Request};
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

/// `tests/measure/agent-kills` asks for more, by the variable of this name.
const KILLS: (&str, u32) = ("GUESTMETER_AGENT_KILLS", 100);
/// Kills after which all reports are checked, and a new count begins.
const BATCH: u32 = 100;
/// Long beside a restart: what is dropped between two reports closer than two ticks is lost.
const FLAGS: [&str; 2] = ["--tick", "2s"];
const CAP: u64 = 4_000_000_000;
/// Reports of an agent that is killed in the midst of its work, at least.
const HEARD: u64 = 2;

#[derive(Default)]
struct Told {
    kills: u32,
    reports: u64,
    epochs: u64,
    starts: u64,
    suspended: Nanos,
}

#[test]
fn an_agent_killed_anywhere_loses_and_doubles_nothing() {
    let (variable, few) = KILLS;
    let wanted = std::env::var(variable).map_or(few, |text| text.parse().expect(variable));
    let mut all = Told::default();
    while all.kills < wanted {
        let told = batch(seed(), BATCH.min(wanted - all.kills));
        all.kills += told.kills;
        all.reports += told.reports;
        all.epochs += told.epochs;
        all.starts += told.starts;
        all.suspended = all.suspended.saturating_add(told.suspended);
        println!("count kills of the agent {}", all.kills);
        println!("count reports across them {}", all.reports);
        println!("count starts that got as far as a state {}", all.starts);
        println!("count epochs that were named {}", all.epochs);
        println!("count milliseconds held {}", all.suspended.0 / 1_000_000);
    }
}

fn seed() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_nanos()).unwrap() | 1
}

/// So many kills while hosts ask, and what they were told.
fn batch(seed: u64, kills: u32) -> Told {
    println!("seed {seed}");
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let (done, epochs, heard) = (AtomicBool::new(false), AtomicU8::new(0), AtomicU64::new(0));
    let mut random = Random(seed);
    let mut reports = std::thread::scope(|scope| {
        let hosts: Vec<_> = (1..=3)
            .map(|host| {
                let (socket, done, heard, epochs) = (&socket, &done, &heard, &epochs);
                let random = Random(seed.rotate_left(host * 13) | 1);
                scope.spawn(move || ask(socket, done, heard, random, (host == 1).then_some(epochs)))
            })
            .collect();
        for kill in 0..kills {
            let before = heard.load(Ordering::Acquire);
            let mut agent = Process::start(&mut Agent::command(folder.path(), &FLAGS));
            // At any time since its start, or since it was heard, however long that takes.
            if kill % 2 == 1 {
                super::until("it is heard", || heard.load(Ordering::Acquire) > before + HEARD);
            }
            std::thread::sleep(Duration::from_micros(random.below(40_000)));
            assert!(agent.is_running(), "{}", log(folder.path()));
            agent.kill();
        }
        done.store(true, Ordering::Release);
        let told = hosts.into_iter().map(|host| host.join().unwrap());
        told.flatten().collect::<Vec<Report>>()
    });
    let agent = Agent::start_in(folder, &FLAGS);
    let last = agent.greet().read();
    reports.push(last.clone());
    check(&mut reports);
    assert!(!agent.log().contains("panicked"), "{}", agent.log());
    let many = u64::try_from(reports.len()).unwrap();
    assert!(many > u64::from(kills), "the hosts were hardly heard: {many} reports");
    Told {
        kills,
        reports: many,
        epochs: epochs.load(Ordering::Acquire).into(),
        starts: last.identity.instance.into(),
        suspended: last.usage.suspended,
    }
}

/// Asks without end, of whichever agent is there, one request behind the other; all reports that came. One host in three
/// names epochs, closes the count and acknowledges.
fn ask(
    socket: &Path,
    done: &AtomicBool,
    heard: &AtomicU64,
    mut random: Random,
    epochs: Option<&AtomicU8>,
) -> Vec<Report> {
    let mut reports: Vec<Report> = Vec::new();
    while !done.load(Ordering::Acquire) {
        let Ok(stream) = UnixStream::connect(socket) else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        let mut client = Client::new(stream);
        let mut alive = client.stream.write_all(&frame(hello(1, 1))).is_ok() && client.receive().is_some();
        while alive && !done.load(Ordering::Acquire) {
            let (mut requests, mut answers) = (Vec::new(), 0);
            for _ in 0..=random.below(8) {
                let request = request(&mut random, epochs, reports.last());
                answers += 1;
                requests.extend(frame(request));
            }
            alive = client.stream.write_all(&requests).is_ok();
            while answers > 0 {
                match client.receive() {
                    Some(Reply::Report(report)) => {
                        reports.push(*report);
                        heard.fetch_add(1, Ordering::AcqRel);
                    }
                    Some(_) => {}
                    None => {
                        alive = false;
                        break;
                    }
                }
                answers -= 1;
            }
        }
    }
    reports
}

fn request(random: &mut Random, epochs: Option<&AtomicU8>, last: Option<&Report>) -> Request {
    match (random.below(32), epochs, last) {
        (0, Some(epochs), _) if epochs.load(Ordering::Acquire) < 250 => {
            let number = epochs.fetch_add(1, Ordering::AcqRel) + 1;
            Request::Resume(named(number, random.below(2) == 0, None))
        }
        (1 | 2, Some(_), Some(last)) if last.identity.epoch.source == EpochSource::Host => {
            let epoch = &last.identity.epoch;
            Request::Checkpoint(Checkpoint { epoch: epoch.id, number: epoch.number })
        }
        (3, Some(_), Some(last)) => {
            Request::Ack(Ack { epoch: last.identity.epoch.id, seq: last.identity.seq })
        }
        _ => Request::Read,
    }
}

/// All that was told, by the guest's clock.
fn check(reports: &mut [Report]) {
    // Those of one wake-up have one instant.
    reports.sort_by_key(|Report { clock, identity, .. }| {
        (clock.monotonic, identity.instance, identity.epoch.number, identity.seq)
    });
    let mut seen: HashMap<(Id, u128, u64), Nanos> = HashMap::new();
    let mut bases: BTreeMap<Id, Usage> = BTreeMap::new();
    for report in &*reports {
        let Report { identity, clock, usage, base, .. } = report;
        // Counted + dropped + suspended is the time since boot, to the nanosecond, in each of them.
        let told = usage.active.total() + u128::from(usage.dropped.active.0 + usage.suspended.0);
        assert_eq!(told, u128::from(clock.monotonic.0), "{}", brief(report));
        assert_eq!(usage.anomalies, 0, "{}", brief(report));
        let key = (identity.epoch.id, base.active.total(), identity.seq);
        assert_eq!(seen.insert(key, clock.monotonic), None, "told twice under one number: {}", brief(report));
        if identity.epoch.source == EpochSource::Host {
            assert_eq!(
                bases.entry(identity.epoch.id).or_insert(*base),
                base,
                "a base has moved: {}",
                brief(report)
            );
        }
    }
    for pair in reports.windows(2) {
        let [before, after] = pair else { continue };
        let (one, two) = (&before.usage, &after.usage);
        let rises = two.active.total() >= one.active.total()
            && two.memory.total() >= one.memory.total()
            && two.cpu.total() >= one.cpu.total()
            && two.dropped.active >= one.dropped.active
            && two.suspended >= one.suspended
            && after.identity.instance >= before.identity.instance;
        assert!(rises, "something fell: {} {}", brief(before), brief(after));
        let passed = after.clock.monotonic.0 - before.clock.monotonic.0;
        assert!(
            two.dropped.active == one.dropped.active || passed >= CAP,
            "dropped: {} {}",
            brief(before),
            brief(after)
        );
        let named = |report: &Report| {
            (report.identity.epoch.source == EpochSource::Host).then_some(report.identity.epoch.number)
        };
        if let (Some(one), Some(two)) = (named(before), named(after)) {
            assert!(two >= one, "an epoch came back: {} {}", brief(before), brief(after));
        }
    }
}

fn brief(report: &Report) -> String {
    let Report { identity, reason, clock, usage, base, tail, .. } = report;
    format!("\n{} {identity:?} {reason:?} held {} {usage:?} base {base:?}", clock.monotonic.0, tail.held)
}

fn log(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("log")).unwrap_or_default()
}
