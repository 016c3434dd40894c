//! A worker that runs short, of descriptors or of disk, while guests count: it comes back by itself, and the books are whole.

use super::trouble::Mount;
use super::*;

/// One row from its start to its end, and samples of all of it but what an answer takes.
fn assert_whole(worker: &Worker, sandbox: &str) {
    let rows = worker.rows(sandbox);
    assert_eq!(rows.len(), 1, "{sandbox}: {rows:#?}");
    let samples = worker.samples(sandbox);
    assert!(samples.windows(2).all(|pair| pair[0].ended_at <= pair[1].started_at), "{sandbox}: {samples:#?}");
    let counted: u64 = samples.iter().map(|one| one.ended_at.0 - one.started_at.0).sum();
    let whole = length(&rows, 0);
    assert!(
        counted <= whole && whole - counted < worker.uncounted_most(sandbox),
        "{sandbox}: {counted} of {whole}\n{}",
        worker.log()
    );
}

fn answered(worker: &Worker) -> f64 {
    worker.metric("guestmeter_polls_total{name=\"answered\"}")
}

#[test]
fn a_disk_that_fills_while_guests_count_loses_and_doubles_nothing() {
    fill(|_, filler| std::fs::remove_file(filler).unwrap());
}

#[test]
fn a_worker_that_is_killed_while_its_disk_is_full_loses_and_doubles_nothing() {
    fill(|worker, filler| {
        worker.kill();
        std::fs::remove_file(filler).unwrap();
        worker.run();
    });
}

/// Guests count, the disk fills and stays full, `room` makes room again.
fn fill(room: impl FnOnce(&mut Worker, &Path)) {
    let Some(mount) = Mount::new() else { return };
    let guests = [Guest::start(), Guest::start()];
    let db = format!("sqlite:{}", mount.path().join("ledger.db").display());
    let mut worker = Worker::prepare_in(tempfile::tempdir().unwrap(), db, FAST);
    worker.run();
    for (sandbox, guest) in ["paused", "killed"].into_iter().zip(&guests) {
        worker.add(sandbox, &guest.target());
        assert_eq!(worker.call(sandbox, "started", json!({ "memory_mib": 1024 }))["outcome"], "confirmed");
    }
    let filler = mount.path().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);

    let body =
        json!({ "event_id": event(), "at": now(), "epoch": worker.epoch("paused"), "deadline_ms": 1000 });
    let call = || worker.try_call("paused", "pausing", &body);
    // Room that the database has of its own lasts for some saves; the call itself may still be taken.
    let first = call();
    until("the ledger is down", || worker.get("/healthz").0 == 503);
    if first.0 != 200 {
        let said = first.1["message"].as_str().unwrap();
        assert!(first.0 == 503 && said.contains("disk is full") && said.contains("call again"), "{first:?}");
    }
    let (before, acks) = (answered(&worker), worker.metric("guestmeter_acks_total"));
    // More failures than the ledger has connections.
    until("guests are still asked", || answered(&worker) >= before + 20.0);
    assert_eq!(
        worker.metric("guestmeter_acks_total"),
        acks,
        "nothing is acknowledged that is not in the books"
    );
    room(&mut worker, &filler);
    let body = &body;
    let mut second = (0, Value::Null);
    until("the call is taken", || {
        second = worker.try_call("paused", "pausing", body);
        second.0 == 200
    });
    assert_eq!(worker.try_call("paused", "pausing", body), second, "and is answered the same for ever");
    if first.0 == 200 {
        assert_eq!(first, second);
    }
    worker.until_agent("killed", "answering");
    // Of its own accord, whether or not anybody asks for a commit.
    until("the ledger is back", || worker.get("/healthz").0 == 200);
    assert!(
        worker.log().matches("the ledger is down").count() <= 2,
        "said once, not each second:\n{}",
        worker.log()
    );
    worker.until_heard("killed");
    worker.call("killed", "destroyed", json!({}));
    worker.stop();
    assert_whole(&worker, "paused");
    assert_whole(&worker, "killed");
}

#[test]
fn without_descriptors_guests_count_on_and_calls_are_taken_when_there_are_some() {
    let guests = [Guest::start(), Guest::start()];
    let mut worker = Worker::start(FAST);
    for (sandbox, guest) in ["one", "two"].into_iter().zip(&guests) {
        worker.add(sandbox, &guest.target());
        worker.call(sandbox, "started", json!({ "memory_mib": 1024 }));
    }
    // Room for all connections to the ledger, and a few of the API and of polls.
    crate::under::leave_room_for(worker.process.as_ref().unwrap().0.id(), 16);
    let mut held = Vec::new();
    until("the limit limits something", || {
        if held.len() < 64 {
            held.push(UnixStream::connect(worker.path("api.sock")).unwrap());
        }
        worker.log().contains("the API cannot take a connection")
    });
    assert!(worker.log().contains("os error 24"), "{}", worker.log());
    // Longer than what makes a guest silent.
    std::thread::sleep(Duration::from_secs(3));
    assert!(worker.process.as_mut().unwrap().0.try_wait().unwrap().is_none(), "{}", worker.log());
    drop(held);
    until("it answers", || worker.try_get("/healthz").is_some_and(|(status, _)| status == 200));
    for sandbox in ["one", "two"] {
        worker.until_agent(sandbox, "answering");
        let paused = worker.call(sandbox, "pausing", json!({}));
        assert_eq!(paused["outcome"], "confirmed", "{paused}");
    }
    worker.stop();
    assert_whole(&worker, "one");
    assert_whole(&worker, "two");
}
