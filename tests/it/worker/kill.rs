//! `kill -9` of the worker at any moment, under load: nothing is lost, nothing is doubled.

use super::*;
use crate::random::Random;
use guestmeter::wire::message::Id;
use std::sync::atomic::AtomicBool;

const SANDBOXES: usize = 6;
/// At least; until there were enough kills.
const CYCLES: usize = 12;
/// `tests/measure/worker-kills` asks for more, by the variable of this name.
const KILLS: (&str, u32) = ("GUESTMETER_WORKER_KILLS", 30);
/// Kills after which the books are checked, and a new worker begins.
const BATCH: u32 = 50;
/// Of a call: on a busy machine some pass it, and are answered without their guest.
const DEADLINE_MS: u64 = 500;
/// The machine's clock is slewed, and the worker's follows it.
const SLACK: u64 = 2_000_000;
/// A question and its answer, on a machine that is busy with killing; where they took longer, as long as that.
const ANSWER: u64 = 200_000_000;

/// Anything below that.
fn sleep(random: &mut Random, milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(random.below(milliseconds)));
}

/// A life as the platform saw it.
#[derive(Debug)]
struct Life {
    epoch: String,
    began_at: u64,
    ended_at: u64,
    /// When the answer to its end had come.
    ended_by: u64,
    /// What the calls of its start and its end took.
    answering: u64,
    /// What its guest had counted at the end, if it was asked in time.
    counted_ns: Option<u64>,
}

/// The platform's part for one sandbox.
struct Platform<'a> {
    socket: &'a Path,
    sandbox: String,
    epoch: Value,
    random: Random,
    calls: Vec<Made>,
    killed_enough: &'a AtomicBool,
}

impl Platform<'_> {
    /// Makes the call until it is answered, as a platform does.
    fn call(&mut self, call: &str, more: Value) -> (u64, u64, Value) {
        let at = now();
        let mut body = json!({ "event_id": event(), "at": at, "epoch": self.epoch });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let text = self.repeat(call, &body);
        let answered = now();
        let answer: Value = serde_json::from_str(&text).unwrap();
        self.epoch = answer["epoch"]["id"].clone();
        self.calls.push((call.to_owned(), body, text));
        (at, answered, answer)
    }

    fn repeat(&self, call: &str, body: &Value) -> String {
        let path = format!("/v1/sandboxes/{}/{call}", self.sandbox);
        let mut last = String::new();
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            match http(self.socket, "POST", &path, &body.to_string()) {
                Ok((200, text)) => return text,
                Ok((503, text)) => last = text,
                Ok((status, text)) => panic!("{path}: {status} {text}"),
                Err(error) => last = error.to_string(),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{path} is not answered: {last}");
    }

    fn live(&mut self) -> Vec<Life> {
        let mut lives = Vec::new();
        let (mut began_at, mut began_by, _) =
            self.call("started", json!({ "memory_mib": 1024, "deadline_ms": DEADLINE_MS }));
        loop {
            let epoch = self.epoch.as_str().unwrap().to_owned();
            sleep(&mut self.random, 150);
            let (ended_at, ended_by, paused) = self.call("pausing", json!({ "deadline_ms": DEADLINE_MS }));
            let answering = (began_by - began_at) + (ended_by - ended_at);
            let counted_ns = counted(&paused);
            lives.push(Life { epoch, began_at, ended_at, ended_by, answering, counted_ns });
            sleep(&mut self.random, 50);
            if lives.len() >= CYCLES && self.killed_enough.load(Ordering::Acquire) {
                break;
            }
            (began_at, began_by, _) = self.call("resumed", json!({ "deadline_ms": DEADLINE_MS }));
        }
        self.call("destroyed", json!({}));
        lives
    }
}

/// Running time in the epoch, by the report in a confirmed answer.
fn counted(answer: &Value) -> Option<u64> {
    let active = |usage: &Value| {
        let part = |name: &str| usage["active"][name].as_u64().unwrap();
        part("seconds") * 1_000_000_000 + part("carry_ns")
    };
    let report = answer["report"].as_object()?;
    Some(active(&report["usage"]) - active(&report["base"]))
}

#[test]
fn a_worker_killed_anywhere_loses_and_doubles_nothing() {
    let (variable, few) = KILLS;
    let wanted = std::env::var(variable).map_or(few, |text| text.parse().expect(variable));
    let mut all = Batch::default();
    while all.kills < wanted {
        let Batch { kills, lives, adoptions } = batch(now() | 1, BATCH.min(wanted - all.kills));
        all = Batch {
            kills: all.kills + kills,
            lives: all.lives + lives,
            adoptions: all.adoptions + adoptions,
        };
        println!("count kills of the worker {}", all.kills);
        println!("count lives across them {}", all.lives);
        println!("count epochs of guests that took the worker's death for a restore {}", all.adoptions);
    }
}

#[derive(Default)]
struct Batch {
    kills: u32,
    lives: usize,
    adoptions: u32,
}

/// At least so many kills while platforms call, and the books after them.
fn batch(seed: u64, least: u32) -> Batch {
    println!("seed {seed}");
    let guests: Vec<Guest> = (0..SANDBOXES).map(|_| Guest::start()).collect();
    let mut worker =
        Worker::start("[poll]\ninterval = '200ms'\ntimeout = '200ms'\nlost = '5s'\nsave = '300ms'\n");
    for (index, guest) in guests.iter().enumerate() {
        worker.add(&format!("sb-{index}"), &guest.target());
    }
    let (kills, told) = killing(&mut worker, seed, least);
    let lives = told.iter().map(|(lives, _)| lives.len()).sum();
    worker.stop();
    worker.run();
    let mut adoptions = 0;
    for (index, (lives, calls)) in told.iter().enumerate() {
        let sandbox = format!("sb-{index}");
        check_answers(&worker, &sandbox, calls);
        adoptions += check_books(&worker, &sandbox, lives);
    }
    assert!(adoptions <= kills * u32::try_from(SANDBOXES).unwrap(), "{adoptions}");
    Batch { kills, lives, adoptions }
}

/// A call as it was made, and its answer.
type Made = (String, Value, String);

/// What the platform of one sandbox saw and said.
type Told = (Vec<Life>, Vec<Made>);

/// Kills the worker again and again, until every platform has said all it has to say.
fn killing(worker: &mut Worker, seed: u64, least: u32) -> (u32, Vec<Told>) {
    let socket = worker.path("api.sock");
    let (done, killed_enough) = (AtomicBool::new(false), AtomicBool::new(false));
    let mut kills = 0;
    let told = std::thread::scope(|scope| {
        let platforms: Vec<_> = (0..SANDBOXES)
            .map(|index| {
                let (socket, killed_enough) = (&socket, &killed_enough);
                let random = Random(seed.rotate_left(u32::try_from(index).unwrap() * 7) | 1);
                let sandbox = format!("sb-{index}");
                scope.spawn(move || {
                    let (epoch, calls) = (Value::Null, Vec::new());
                    let mut platform = Platform { socket, sandbox, epoch, random, calls, killed_enough };
                    (platform.live(), platform.calls)
                })
            })
            .collect();
        let waiter = scope.spawn(|| {
            let told: Vec<_> = platforms.into_iter().map(|platform| platform.join()).collect();
            done.store(true, Ordering::Release);
            told
        });
        let mut random = Random(seed);
        while !done.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(100 + random.below(500)));
            worker.kill();
            kills += 1;
            killed_enough.fetch_or(kills >= least, Ordering::AcqRel);
            worker.run();
        }
        let told = waiter.join().unwrap();
        told.into_iter()
            .map(|told| told.unwrap_or_else(|_| panic!("a platform gave up\n{}", worker.log())))
            .collect()
    });
    (kills, told)
}

/// Every call has the answer it had, for ever.
fn check_answers(worker: &Worker, sandbox: &str, calls: &[Made]) {
    for (call, body, text) in calls {
        let (status, again) = worker.post(&format!("/v1/sandboxes/{sandbox}/{call}"), &body.to_string());
        assert_eq!((status, &again), (200, text), "{sandbox} {call}");
    }
}

/// The books against what the platform saw; how many epochs are no call's. A guest whose count is held takes the reset of
/// a connection for a restore: it is named anew, within the life that it was in.
fn check_books(worker: &Worker, sandbox: &str, lives: &[Life]) -> u32 {
    let epochs = worker.books(async |ledger| ledger.epochs(sandbox).await.unwrap());
    let called: Vec<&str> = lives.iter().map(|life| life.epoch.as_str()).collect();
    let mut life_of: BTreeMap<String, &str> = BTreeMap::new();
    let mut current = "";
    let mut adopted: Vec<&str> = Vec::new();
    for epoch in &epochs {
        let id = hex(epoch.id);
        match called.iter().find(|called| **called == id) {
            Some(called) => current = called,
            None => adopted.push(current),
        }
        life_of.insert(id, current);
    }
    assert_eq!(
        epochs.len() - adopted.len(),
        lives.len(),
        "{sandbox}: an epoch for each life, each asked for often"
    );

    let rows = worker.rows(sandbox);
    assert!(rows.iter().all(|row| row.ended_at.is_some()), "{sandbox}: {rows:#?}");
    for pair in rows.windows(2) {
        assert!(pair[0].ended_at.unwrap() <= pair[1].started_at, "{sandbox}: they overlap: {pair:#?}");
    }
    let mut row_ns: BTreeMap<&str, (u64, u64, u64)> = BTreeMap::new();
    for row in &rows {
        let (start, end) = (row.started_at.0, row.ended_at.unwrap().0);
        let entry = row_ns.entry(life_of[&hex(row.epoch.unwrap())]).or_insert((start, end, 0));
        entry.1 = end;
        entry.2 += end - start;
    }
    let mut sample_ns: BTreeMap<&str, u64> = BTreeMap::new();
    for sample in worker.samples(sandbox) {
        let life = life_of[&hex(sample.epoch.unwrap())];
        *sample_ns.entry(life).or_default() += sample.ended_at.0 - sample.started_at.0;
    }
    for life in lives {
        let Life { epoch, began_at, ended_at, ended_by, answering, counted_ns } = life;
        let answer = ANSWER.max(*answering);
        let (start, end, length) = row_ns.get(epoch.as_str()).copied().unwrap_or((*began_at, *began_at, 0));
        assert!(start.abs_diff(*began_at) < SLACK, "{sandbox} {epoch}: begins {start}, not {began_at}");
        // From the platform's word to the guest's last answer.
        assert!(
            (ended_at - SLACK..=ended_by + SLACK).contains(&end) || length == 0,
            "{sandbox} {epoch}: ends {end}, not in {ended_at}..{ended_by}\n{}",
            all_of(worker, sandbox)
        );
        let counted = sample_ns.remove(epoch.as_str()).unwrap_or(0);
        assert!(counted <= length + SLACK, "{sandbox} {epoch}: {counted} counted of {length}");
        // Its last answer is of its last epoch alone where it had several.
        if let Some(claimed) = counted_ns.as_ref().filter(|_| !adopted.contains(&epoch.as_str())) {
            // A guest that took the worker's death for a restore had counted before the platform's word: that part is
            // found by the host's clock, to within a question and its answer.
            let (owed, slack) = if *claimed <= length { (*claimed, SLACK) } else { (length, answer) };
            // More by what it ran on while its answer was on the way, which the next life tells.
            assert!(
                counted + slack > owed && counted < owed + answer,
                "{sandbox}: {counted} credited of {owed}; {life:?} {length}\n{}",
                all_of(worker, sandbox)
            );
        }
    }
    assert!(sample_ns.is_empty(), "{sandbox}: of no life: {sample_ns:?}");
    u32::try_from(adopted.len()).unwrap()
}

/// All that the ledger has of a sandbox, and what its worker said: for whoever reads why a test failed.
fn all_of(worker: &Worker, sandbox: &str) -> String {
    let (rows, samples, verdicts) = (worker.rows(sandbox), worker.samples(sandbox), worker.verdicts(sandbox));
    let epochs = worker.books(async |ledger| ledger.epochs(sandbox).await.unwrap());
    let events = worker.books(async |ledger| ledger.events(sandbox, Nanos(0), LATER).await.unwrap());
    format!("{epochs:#?}\n{events:#?}\n{rows:#?}\n{samples:#?}\n{verdicts:#?}\n{}", worker.log())
}

fn hex(id: Id) -> String {
    id.0.iter().map(|byte| format!("{byte:02x}")).collect()
}
