//! Guests that are absent, silent, dead or hostile: each sandbox is billed as it should, and no other one notices.

use super::*;
use guestmeter::host::{Client, mint_epoch};
use guestmeter::units::Nanos;
use guestmeter::wire::message::{Message, Reply, Report, Resume};
use guestmeter::wire::{self, Decoder};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

#[test]
fn a_sandbox_without_an_agent_is_billed_as_requested() {
    let mut worker = Worker::start(FAST);
    worker.add("sb", "");
    let started = worker.call("sb", "started", json!({ "memory_mib": 2048 }));
    assert_eq!(started["outcome"], "unconfirmed");
    assert!(started["reason"].as_str().unwrap().contains("names no agent"), "{started}");
    assert_eq!(worker.metric("guestmeter_agents{name=\"none\"}"), 1.0);
    std::thread::sleep(Duration::from_millis(800));
    worker.call("sb", "destroyed", json!({}));
    worker.stop();
    let rows = worker.rows("sb");
    assert_eq!(rows.len(), 1);
    // The seed's derivation: a share by memory.
    assert_eq!((rows[0].size.memory.0, rows[0].size.cpu.0), (2048, 2000));
    assert!(length(&rows, 0) > 800_000_000);
    let verdicts = worker.verdicts("sb");
    assert!(verdicts.iter().any(|one| one.verdict == "requested_only"), "{verdicts:#?}");
}

#[test]
fn one_that_falls_silent_is_told_and_delays_nobody() {
    let (silent, lively) = (Guest::start(), Guest::start());
    let worker = Worker::start(&FAST.replace("timeout", "concurrency = 1\ntimeout"));
    worker.add("silent", &silent.target());
    worker.add("lively", &lively.target());
    worker.call("silent", "started", json!({ "memory_mib": 1024 }));
    worker.call("lively", "started", json!({ "memory_mib": 1024 }));
    silent.process.signal("-STOP");
    worker.until_agent("silent", "silent");
    until("it is said", || worker.log().contains("an agent has fallen silent"));
    until("it is counted", || worker.metric("guestmeter_agents{name=\"silent\"}") == 1.0);
    let seq = || worker.view("lively")["report"]["seq"].as_u64().unwrap();
    let before = seq();
    // One place for all.
    until("the other one is still asked", || seq() >= before + 5);
    silent.process.signal("-CONT");
    worker.until_agent("silent", "answering");
}

#[test]
fn a_template_that_nobody_named_is_never_posted() {
    let guest = Guest::start();
    let mut worker = Worker::start(FAST);
    worker.add("template", &guest.target());
    worker.until_agent("template", "provisional");
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(worker.metric("guestmeter_acks_total"), 0.0);
    worker.stop();
    assert!(worker.rows("template").is_empty() && worker.samples("template").is_empty());
    worker.books(async |ledger| assert_eq!(ledger.account("template").await.unwrap(), None));
}

/// Answers each connection in its own way, until the test ends.
fn serve(treat: impl Fn(UnixStream) + Send + Sync + 'static) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let treat = Arc::new(treat);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(stream), treat) = (stream, Arc::clone(&treat)) else { return };
            std::thread::spawn(move || treat(stream));
        }
    });
    (folder, format!("target = 'unix://{}'", path.display()))
}

/// An agent that lies: what it says is made of the truth by `lie`.
fn liar(lie: impl Fn(&mut Report) + Send + Sync + 'static) -> (TempDir, String, Guest) {
    let guest = Guest::start();
    let real = guest.folder.path().join("agent.sock");
    until("the real one listens", || UnixStream::connect(&real).is_ok());
    let (folder, target) = serve(move |mut stream| {
        let mut upstream = UnixStream::connect(&real).unwrap();
        let mut down = upstream.try_clone().unwrap();
        let mut up = stream.try_clone().unwrap();
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut up, &mut upstream);
            let _ = upstream.shutdown(std::net::Shutdown::Write);
        });
        let mut decoder = Decoder::new();
        let mut buffer = [0; 65536];
        while let Ok(count @ 1..) = down.read(&mut buffer) {
            decoder.push(&buffer[..count]);
            while let Ok(Some(frame)) = decoder.next() {
                let Ok(mut message) = wire::decode(&frame) else { return };
                if let Message::Reply(Reply::Report(report)) = &mut message {
                    lie(report);
                }
                let mut bytes = Vec::new();
                wire::encode(&message, &mut bytes).unwrap();
                if stream.write_all(&bytes).is_err() {
                    return;
                }
            }
        }
    });
    (folder, target, guest)
}

#[test]
fn a_guest_that_claims_the_impossible_is_credited_nothing_for_it() {
    // A day in each report.
    let (_folder, target, _guest) = liar(|report| report.usage.active.whole += 86_400 * report.identity.seq);
    let mut worker = Worker::start(FAST);
    worker.add("sb", &target);
    worker.call("sb", "started", json!({ "memory_mib": 1024 }));
    until("it is found out", || worker.metric("guestmeter_verdicts_total{name=\"impossible\"}") >= 2.0);
    worker.call("sb", "pausing", json!({}));
    worker.stop();
    let rows = worker.rows("sb");
    let samples: u64 = worker.samples("sb").iter().map(|one| one.ended_at.0 - one.started_at.0).sum();
    assert!(samples <= length(&rows, 0), "{samples} of {}", length(&rows, 0));
    let found = worker.verdicts("sb").into_iter().filter(|one| one.verdict == "impossible").count();
    assert_eq!(found, 1, "it is recorded once, not at each poll");
}

#[test]
fn garbage_floods_and_stalls_are_counted_and_end() {
    let (_garbage, garbage) = serve(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let (_flood, flood) = serve(|mut stream| while stream.write_all(&[b'x'; 8192]).is_ok() {});
    let (_stall, stall) = serve(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let (_trickle, trickle) = serve(|mut stream| {
        while stream.write_all(b"G").is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let honest = Guest::start();
    let worker = Worker::start(FAST);
    for (name, target) in [("garbage", garbage), ("flood", flood), ("stall", stall), ("trickle", trickle)] {
        worker.add(name, &target);
        let started = worker.call(name, "started", json!({ "memory_mib": 1024, "deadline_ms": 500 }));
        assert_eq!(started["outcome"], "unconfirmed", "{name}: {started}");
    }
    worker.add("honest", &honest.target());
    worker.call("honest", "started", json!({ "memory_mib": 1024 }));
    for name in ["garbage", "flood", "stall", "trickle"] {
        worker.until_agent(name, "silent");
    }
    worker.until_agent("honest", "answering");
    assert!(worker.metric("guestmeter_polls_total{name=\"garbage\"}") > 0.0);
    assert!(worker.metric("guestmeter_polls_total{name=\"timeout\"}") > 0.0);
    let began = Instant::now();
    let paused = worker.call("stall", "pausing", json!({ "deadline_ms": 500 }));
    assert_eq!(paused["outcome"], "unconfirmed");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

/// Another host names the guest; its clock is `ahead` of ours.
fn named_elsewhere(guest: &Guest, ahead: Duration) -> u64 {
    let target = format!("unix://{}", guest.folder.path().join("agent.sock").display());
    let client = Client::new(target.parse().unwrap(), SOON).patient(SOON);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + ahead;
    let number = u64::try_from(now.as_nanos()).unwrap();
    let resume = Resume {
        epoch: mint_epoch().unwrap(),
        number,
        paused: true,
        sandbox: "sb".to_owned(),
        at: Nanos(number),
        mark: None,
        requested: None,
        boot: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(client.resume(&resume)).unwrap();
    number
}

fn number(answer: &Value) -> u64 {
    answer["epoch"]["number"].as_str().unwrap().parse().unwrap()
}

const HOUR: Duration = Duration::from_hours(1);

#[test]
fn a_guest_that_was_named_by_a_clock_ahead_gets_a_number_above_it_for_the_same_call() {
    let guest = Guest::start();
    let before = named_elsewhere(&guest, HOUR);
    let mut worker = Worker::start(FAST);
    worker.add("sb", &guest.target());
    let call = json!({ "memory_mib": 1024, "event_id": "e1" });
    let started = worker.call("sb", "started", call.clone());
    assert_eq!(started["outcome"], "confirmed", "{started}");
    assert!(number(&started) > before, "{started}");
    assert_eq!(worker.call("sb", "started", call), started, "the same call again has the same epoch");
    let paused = worker.call("sb", "pausing", json!({}));
    assert_eq!(paused["outcome"], "confirmed", "{paused}");

    // And once more, between a pause and its resume.
    named_elsewhere(&guest, 2 * HOUR);
    let resumed = worker.call("sb", "resumed", json!({}));
    assert_eq!(resumed["outcome"], "confirmed", "{resumed}");
    worker.call("sb", "destroyed", json!({}));
    worker.stop();
    let rows = worker.rows("sb");
    let parted = rows.windows(2).filter(|pair| pair[0].ended_at != Some(pair[1].started_at)).count();
    assert!(rows.len() >= 2 && parted == 1, "a name is no edge, the pause is: {rows:?}");
    worker.books(async |ledger| {
        let epochs = ledger.epochs("sb").await.unwrap();
        let (event, begun) = ledger.event("e1").await.unwrap().unwrap();
        assert_eq!(
            (event.kind.as_str(), begun.epoch.map(|epoch| epoch.number)),
            ("started", Some(number(&started)))
        );
        assert!(epochs.is_sorted_by_key(|epoch| epoch.number));
    });
}

#[test]
fn a_guest_that_another_host_has_named_since_is_told_not_fought() {
    let guest = Guest::start();
    let worker = Worker::start(FAST);
    worker.add("sb", &guest.target());
    assert_eq!(worker.call("sb", "started", json!({ "memory_mib": 1024 }))["outcome"], "confirmed");
    let theirs = named_elsewhere(&guest, HOUR);
    let paused = worker.call("sb", "pausing", json!({}));
    assert_eq!(paused["outcome"], "unconfirmed");
    let reason = paused["reason"].as_str().unwrap();
    assert!(reason.contains(&format!("later epoch, number {theirs}")), "{reason}");
}

/// One tenant's word must not use up the numbers of all.
#[test]
fn a_number_that_no_clock_could_have_given_is_not_gone_above() {
    let (liar, honest) = (Guest::start(), Guest::start());
    named_elsewhere(&liar, 20 * 366 * 24 * HOUR);
    let worker = Worker::start(FAST);
    worker.add("liar", &liar.target());
    worker.add("honest", &honest.target());
    let refused = worker.call("liar", "started", json!({ "memory_mib": 1024 }));
    assert_eq!(refused["outcome"], "unconfirmed", "{refused}");
    let reason = refused["reason"].as_str().unwrap();
    assert!(reason.contains("more than ten years ahead of this host's clock"), "{reason}");
    let started = worker.call("honest", "started", json!({ "memory_mib": 1024 }));
    assert_eq!(started["outcome"], "confirmed");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    assert!(u128::from(number(&started)) <= now, "{started}");
}

/// Two VMs of one snapshot: the second one's guest says that it is the first.
#[test]
fn a_clone_is_told_by_name() {
    let guest = Guest::start();
    let worker = Worker::start(FAST);
    worker.add("parent", &guest.target());
    worker.call("parent", "started", json!({ "memory_mib": 1024 }));
    worker.call("parent", "pausing", json!({}));
    worker.call("parent", "destroyed", json!({}));
    // The same guest, as if it were a restored copy.
    worker.add("child", guest.target().lines().next().unwrap());
    let resumed = worker.call("child", "resumed", json!({ "memory_mib": 1024 }));
    assert_eq!(resumed["outcome"], "confirmed", "{resumed}");
    assert_eq!(resumed["report"]["findings"], json!(["clone"]));
    let verdicts = worker.verdicts("child");
    let clone = verdicts.iter().find(|one| one.verdict == "clone");
    assert!(clone.is_some_and(|one| one.detail.contains("\"parent\"")), "{verdicts:#?}");
}

/// A Firecracker of 1 GiB with 3 GiB of virtio-mem, of which it has given 2.
fn firecracker(mut stream: UnixStream) {
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(count @ 1..) => request.extend(&buffer[..count]),
            _ => return,
        }
    }
    let text = String::from_utf8(request).unwrap();
    let body = match text.split(' ').nth(1).unwrap() {
        "/" => json!({ "app_name": "Firecracker", "id": "i", "state": "Running", "vmm_version": "1.14.0" }),
        "/machine-config" => json!({ "mem_size_mib": 1024, "vcpu_count": 2 }),
        _ => json!({ "total_size_mib": 3072, "plugged_size_mib": 2048, "requested_size_mib": 3072,
            "block_size_mib": 2, "slot_size_mib": 128 }),
    }
    .to_string();
    let _ = write!(
        stream,
        "HTTP/1.1 200\r\nserver: Firecracker API\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
}

#[test]
fn without_an_agent_the_vmm_says_what_is_plugged_and_when_the_vm_is_gone() {
    // It goes with its second answer, which takes five requests like the first: nothing comes of it later.
    let requests = AtomicU64::new(0);
    let (_folder, target) = serve(move |stream| {
        if requests.fetch_add(1, Ordering::Relaxed) == 9 {
            std::fs::remove_file(stream.local_addr().unwrap().as_pathname().unwrap()).unwrap();
        }
        firecracker(stream);
    });
    let vmm = target.replace("target = 'unix://", "vmm = 'firecracker://");
    let mut worker = Worker::start(&format!("{FAST}[vmm]\ninterval = '1200ms'\ntimeout = '60s'\n"));
    worker.add("sb", &vmm);
    worker.call("sb", "started", json!({ "memory_mib": 4096, "cpu_millis": 2000 }));
    let answered = || worker.metric("guestmeter_vmm_questions_total{name=\"answered\"}");
    until("the VMM has answered twice", || answered() >= 2.0);
    let last_alive = now();
    // Twice is enough; the third time says that what the second one came to is taken in.
    until("it is gone", || worker.metric("guestmeter_vmm_questions_total{name=\"gone\"}") >= 3.0);
    worker.stop();
    let rows = worker.rows("sb");
    let last = rows.last().unwrap();
    assert_eq!((last.size.memory.0, last.size.cpu.0), (3072, 2000), "what is plugged is billed: {rows:#?}");
    let end = last.ended_at.expect("a row whose VM is gone ends").0;
    assert!(end <= last_alive, "it ends at the last sign of life: {end}, {last_alive}");
}

/// The VM runs on from an older copy of its memory, in which the agent's state lies too.
#[test]
fn an_older_snapshot_is_named_a_rollback_and_its_counter_is_raised_to_the_mark() {
    // The machine's clock is not restored: what is behind by more than two ticks is dropped, and then below the mark.
    let mut guest = Guest::ticking("1s");
    let mut worker = Worker::start(FAST);
    worker.add("sb", &guest.target());
    worker.call("sb", "started", json!({ "memory_mib": 1024 }));
    std::thread::sleep(Duration::from_millis(1200));
    let state = guest.folder.path().join("state");
    let snapshot = std::fs::read(&state).unwrap();
    std::thread::sleep(Duration::from_millis(2500));
    let paused = worker.call("sb", "pausing", json!({}));
    assert_eq!(paused["outcome"], "confirmed");
    guest.process.kill();
    std::fs::write(&state, snapshot).unwrap();
    guest.restart_in_place();
    until("it is back", || UnixStream::connect(guest.folder.path().join("agent.sock")).is_ok());
    let resumed = worker.call("sb", "resumed", json!({}));
    assert_eq!(resumed["outcome"], "confirmed", "{resumed}");
    assert_eq!(resumed["report"]["findings"], json!(["rollback"]), "{resumed}");
    let seconds = |answer: &Value| answer["report"]["usage"]["active"]["seconds"].as_u64().unwrap();
    assert!(seconds(&resumed) >= seconds(&paused), "the counter never goes back");
    assert_ne!(resumed["report"]["usage"]["rebased"]["active_ns"], "0");
    std::thread::sleep(Duration::from_millis(1200));
    worker.call("sb", "pausing", json!({}));
    worker.stop();
    let (rows, samples) = (worker.rows("sb"), worker.samples("sb"));
    let counted: u64 = samples.iter().map(|one| one.ended_at.0 - one.started_at.0).sum();
    let whole = length(&rows, 0);
    // What it counted twice is billed once, and what it was raised by not at all.
    let most = worker.uncounted_most("sb");
    assert!(counted <= whole && whole - counted < most, "{counted} of {whole}: {samples:#?}");
    assert!(worker.verdicts("sb").iter().any(|one| one.verdict == "rollback"));
}
