//! One sandbox from its start to its end, and what the books have of it.

use super::*;

fn number(answer: &Value) -> u64 {
    answer["epoch"]["number"].as_str().and_then(|text| text.parse().ok()).expect("a decimal string")
}

#[test]
fn a_life_with_a_snapshot_in_it() {
    let guest = Guest::start();
    let mut worker = Worker::start(FAST);
    worker.add("sb", &guest.target());
    worker.until_agent("sb", "provisional");

    let began = now();
    let started = worker.call("sb", "started", json!({ "memory_mib": 4096, "cpu_millis": 2000 }));
    assert_eq!(started["outcome"], "confirmed", "{started}");
    let first = started["epoch"]["id"].clone();
    assert_eq!(started["report"]["identity"]["epoch"]["id"], first);
    assert_eq!(started["report"]["identity"]["sandbox"], "sb");
    assert_eq!(worker.epoch("sb"), first);

    std::thread::sleep(Duration::from_millis(1200));
    let scaled = worker.call("sb", "scaled", json!({ "memory_mib": 8192, "cpu_millis": 2000 }));
    assert_eq!((&scaled["outcome"], &scaled["epoch"]["id"]), (&json!("recorded"), &first));

    std::thread::sleep(Duration::from_millis(700));
    let paused = worker.call("sb", "pausing", json!({}));
    assert_eq!(paused["outcome"], "confirmed", "{paused}");
    assert_eq!(paused["report"]["reason"], "checkpoint");
    assert_eq!(paused["report"]["held"], true);
    assert_eq!(worker.view("sb")["phase"], "paused");

    std::thread::sleep(Duration::from_millis(1500));
    let resumed = worker.call("sb", "resumed", json!({}));
    assert_eq!(resumed["outcome"], "confirmed", "{resumed}");
    assert_ne!(resumed["epoch"]["id"], first);
    assert!(number(&resumed) > number(&started));

    std::thread::sleep(Duration::from_millis(700));
    worker.until_heard("sb");
    let destroyed = worker.call("sb", "destroyed", json!({}));
    assert_eq!(destroyed["outcome"], "recorded");
    let ended = now();
    worker.stop();

    let rows = worker.rows("sb");
    let sizes: Vec<_> = rows.iter().map(|row| (row.size.memory.0, row.size.cpu.0)).collect();
    assert_eq!(sizes, [(4096, 2000), (8192, 2000), (8192, 2000)], "{rows:#?}");
    assert!(rows.iter().all(|row| row.ended_at.is_some()));
    let (rows_ns, samples_ns) = (
        length(&rows, 0),
        worker.samples("sb").iter().map(|one| one.ended_at.0 - one.started_at.0).sum::<u64>(),
    );
    // The pause of 1.5 s is in neither book.
    assert!(rows_ns < ended - began - 1_400_000_000, "{rows:#?}");
    assert!(rows_ns > 2_600_000_000 - 100_000_000);
    assert!(
        samples_ns <= rows_ns && rows_ns - samples_ns < worker.uncounted_most("sb"),
        "{rows_ns} {samples_ns}"
    );
}

#[test]
fn a_call_that_is_repeated_gets_its_first_answer_even_by_another_worker() {
    let guest = Guest::start();
    let mut worker = Worker::start(FAST);
    worker.add("sb", &guest.target());
    let body = json!({ "event_id": "one", "at": now(), "epoch": null, "memory_mib": 2048 });
    let (status, first) = worker.try_call("sb", "started", &body);
    assert_eq!((status, &first["outcome"]), (200, &json!("confirmed")), "{first}");
    assert_eq!(worker.try_call("sb", "started", &body), (200, first.clone()));

    worker.kill();
    worker.run();
    assert_eq!(worker.try_call("sb", "started", &body), (200, first.clone()));
    assert_eq!(worker.rows("sb").len(), 1);

    let paused = json!({ "event_id": "two", "at": now(), "epoch": first["epoch"]["id"] });
    let (status, answer) = worker.try_call("sb", "pausing", &paused);
    assert_eq!((status, &answer["outcome"]), (200, &json!("confirmed")));
    worker.call("sb", "resumed", json!({}));
    // However late.
    assert_eq!(worker.try_call("sb", "pausing", &paused), (200, answer));
    assert_eq!(worker.view("sb")["phase"], "running");
}

#[test]
fn a_snapshot_that_is_given_up_leaves_the_count_whole() {
    let guest = Guest::start();
    let worker = Worker::start(FAST);
    worker.add("sb", &guest.target());
    worker.call("sb", "started", json!({ "memory_mib": 1024 }));
    worker.call("sb", "pausing", json!({}));
    std::thread::sleep(Duration::from_millis(300));
    let resumed = worker.call("sb", "resumed", json!({ "paused": false }));
    assert_eq!(resumed["outcome"], "confirmed", "{resumed}");
    assert_eq!(resumed["report"]["held"], false);
    assert_eq!(resumed["report"]["usage"]["suspended_ns"], "0", "it ran all the while");
}

#[test]
fn a_guest_that_lost_its_state_is_named_anew_and_its_row_stays() {
    let mut guest = Guest::start();
    let worker = Worker::start(FAST);
    worker.add("sb", &guest.target());
    worker.call("sb", "started", json!({ "memory_mib": 1024 }));
    let before = worker.epoch("sb");
    guest.lose_state();
    guest.restart_in_place();
    until("a new epoch", || worker.epoch("sb") != before);
    worker.until_agent("sb", "answering");
    assert_eq!(worker.metric("guestmeter_adoptions_total"), 1.0);
    let rows = worker.rows("sb");
    assert_eq!(rows.len(), 1, "{rows:#?}");
    assert_eq!(rows[0].ended_at, None);
    // `pausing` ends the epoch it is in now.
    let paused = worker.call("sb", "pausing", json!({}));
    assert_eq!(paused["outcome"], "confirmed", "{paused}");
}

/// As after a worker that died between a checkpoint and its commit: the next one has to name the guest first.
#[test]
fn a_guest_that_has_to_be_named_to_be_paused_costs_nothing_while_it_is() {
    let mut guest = Guest::start();
    let worker = Worker::start("[poll]\ninterval = '1h'\nlost = '1h'\n");
    worker.add("sb", &guest.target());
    worker.call("sb", "started", json!({ "memory_mib": 1024 }));
    guest.lose_state();
    guest.restart_in_place();
    let paused = worker.call("sb", "pausing", json!({}));
    assert_eq!(paused["outcome"], "confirmed", "{paused}");
    assert_eq!(worker.metric("guestmeter_adoptions_total"), 1.0);
    let rows = worker.rows("sb");
    assert!(!rows.is_empty() && rows.iter().all(|row| row.ended_at.is_some()), "{rows:#?}");
    worker.call("sb", "destroyed", json!({}));
    assert_eq!(worker.rows("sb"), rows);
}

#[test]
fn a_guest_that_was_away_is_named_when_it_comes() {
    let mut guest = Guest::start();
    guest.process.kill();
    let worker = Worker::start(FAST);
    worker.add("sb", &guest.target());
    let began = Instant::now();
    let started = worker.call("sb", "started", json!({ "memory_mib": 1024, "deadline_ms": 300 }));
    assert_eq!(started["outcome"], "unconfirmed", "{started}");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    assert_eq!(worker.view("sb")["confirmed"], false);
    guest.restart_in_place();
    worker.until_agent("sb", "answering");
    until("confirmed", || worker.view("sb")["confirmed"] == true);
    assert_eq!(worker.epoch("sb"), started["epoch"]["id"], "by the epoch that was committed before");
}

#[test]
fn a_snapshot_is_not_held_up_by_a_guest_that_stands_still() {
    let guest = Guest::start();
    let worker = Worker::start(FAST);
    worker.add("sb", &guest.target());
    worker.call("sb", "started", json!({ "memory_mib": 1024 }));
    guest.process.signal("-STOP");
    let began = Instant::now();
    let paused = worker.call("sb", "pausing", json!({ "deadline_ms": 1000 }));
    let took = began.elapsed();
    guest.process.signal("-CONT");
    assert_eq!(paused["outcome"], "unconfirmed", "{paused}");
    assert!(took < SOON, "{took:?}");
    assert!(paused["reason"].as_str().unwrap().contains("no"), "{paused}");
    assert!(worker.rows("sb")[0].ended_at.is_some());
    let resumed = worker.call("sb", "resumed", json!({}));
    assert_eq!(resumed["outcome"], "confirmed", "{resumed}");
}

/// The tail of a life that nobody could close is told by the next one, credited, and freed: then the guest has nothing
/// left to say, and the ledger nothing to write at each poll.
#[test]
fn what_the_guest_kept_of_a_life_that_was_not_closed_is_credited_and_freed() {
    let guest = Guest::start();
    let mut worker = Worker::start(FAST);
    worker.add("sb", &guest.target());
    let began = now();
    let started = worker.call("sb", "started", json!({ "memory_mib": 1024 }));
    // It was named after the one and before the other.
    let uncounted_most = 500_000_000 + (now() - began);
    std::thread::sleep(Duration::from_millis(1200));
    guest.process.signal("-STOP");
    let paused = worker.call("sb", "pausing", json!({ "deadline_ms": 300 }));
    assert_eq!(paused["outcome"], "unconfirmed", "{paused}");
    guest.process.signal("-CONT");
    let resumed = worker.call("sb", "resumed", json!({}));
    assert_eq!(resumed["outcome"], "confirmed", "{resumed}");
    let waiting = || worker.view("sb")["report"]["segments_waiting"].as_u64().unwrap();
    until("nothing waits in the guest", || waiting() == 0);
    let (acks, written) = ("guestmeter_acks_total", "guestmeter_postings_total{name=\"done\"}");
    let since = Instant::now();
    let before = (worker.metric(acks), worker.metric(written));
    std::thread::sleep(Duration::from_millis(2500));
    // Polls went on, two a second; accounts are saved once a second.
    let after = (worker.metric(acks), worker.metric(written));
    let most = since.elapsed().as_secs_f64() + 1.0;
    assert!(after.1 - before.1 <= most && after.0 - before.0 <= most, "{before:?} {after:?}");
    worker.call("sb", "destroyed", json!({}));
    worker.stop();
    let first = |epoch: Option<guestmeter::wire::message::Id>| {
        let digits: String = epoch.unwrap().0.iter().map(|byte| format!("{byte:02x}")).collect();
        digits == started["epoch"]["id"].as_str().unwrap()
    };
    let rows: Vec<_> = worker.rows("sb").into_iter().filter(|row| first(row.epoch)).collect();
    let samples = worker.samples("sb").into_iter().filter(|one| first(one.epoch));
    let counted: u64 = samples.map(|one| one.ended_at.0 - one.started_at.0).sum();
    let whole = length(&rows, 0);
    assert!(counted <= whole && whole - counted < uncounted_most, "{counted} of {whole}");
}

#[test]
fn a_notification_is_heard_and_acknowledged_at_once() {
    let mut guest = Guest::start();
    // Without it the next poll would be an hour away.
    let worker = Worker::start("[poll]\ninterval = '1h'\ntimeout = '1s'\nlost = '1h'\n");
    worker.add("sb", &guest.target());
    worker.call("sb", "started", json!({ "memory_mib": 1024 }));
    let heard = worker.metric("guestmeter_notifications_total{name=\"heard\"}");
    guest.process.kill();
    let acks = worker.metric("guestmeter_acks_total");
    guest.restart_in_place();
    until("it is heard", || worker.metric("guestmeter_notifications_total{name=\"heard\"}") > heard);
    until("it is acked", || worker.metric("guestmeter_acks_total") > acks);
}
