//! Calls that tell of what was long ago: posted whole, and nothing stops.

use super::*;

const HOUR: u64 = 3_600_000_000_000;
const DAY: u64 = 24 * HOUR;

/// One life that began `days` ago, and is told of now.
fn begin(worker: &Worker, sandbox: &str, days: u64) -> u64 {
    let at = now() - days * DAY;
    worker.call(sandbox, "started", json!({ "memory_mib": 1024, "at": at }));
    at
}

fn counted(worker: &Worker, sandbox: &str) -> u64 {
    worker.samples(sandbox).iter().map(|one| one.ended_at.0 - one.started_at.0).sum()
}

#[test]
fn a_life_that_began_half_a_year_ago_is_in_both_books_to_the_nanosecond() {
    let started = now();
    let guest = Guest::start();
    let mut worker = Worker::start(FAST);
    worker.add("bare", "");
    worker.add("heard", &guest.target());
    let began = begin(&worker, "bare", 170);
    begin(&worker, "heard", 170);
    until("its hours are posted", || counted(&worker, "bare") > 169 * DAY);
    // Between the first commit and the next one, and by another process.
    worker.kill();
    worker.run();
    worker.until_agent("heard", "answering");
    std::thread::sleep(Duration::from_millis(1500));
    let scaled = now() - DAY;
    worker.call("bare", "scaled", json!({ "memory_mib": 512, "at": scaled }));
    worker.call("heard", "destroyed", json!({}));
    worker.call("bare", "destroyed", json!({}));
    worker.stop();

    let rows = worker.rows("bare");
    let sizes: Vec<_> = rows.iter().map(|row| row.size.memory.0).collect();
    assert_eq!(sizes, [1024, 512]);
    assert!(
        rows[0].started_at.0.abs_diff(began) < 2_000_000 && rows[1].started_at.0.abs_diff(scaled) < 2_000_000
    );
    assert_eq!(counted(&worker, "bare"), length(&rows, 0));
    let samples = worker.samples("bare");
    assert!(samples.windows(2).all(|pair| pair[0].ended_at == pair[1].started_at), "a hole, or twice");
    // What the guest did not count is in no sample of it: it counts since its start, and a tick before that.
    let (whole, heard) = (length(&worker.rows("heard"), 0), counted(&worker, "heard"));
    let most = now() - started + 5_000_000_000;
    assert!(whole > 169 * DAY && heard < most, "{heard} of {whole}, at most {most}");
    let log = worker.log();
    assert!(!log.contains("ERROR"), "{log}");
}

#[test]
fn what_begins_before_a_prune_is_refused_and_what_ended_before_it_is_taken() {
    let mut worker = Worker::start(FAST);
    worker.add("sb", "");
    worker.add("new", "");
    let began = begin(&worker, "sb", 30);
    until("its hours are posted", || counted(&worker, "sb") > 29 * DAY);
    let horizon = (now() - 5 * DAY) / HOUR * HOUR;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let location = worker.db.parse().unwrap();
        let ledger = Ledger::open_with(location, Access::Write, Limits::default()).await.unwrap();
        let pruned = ledger.prune(Nanos(horizon), Nanos(now()), |_| {}).await.unwrap();
        assert!(pruned.samples > 24 * 24, "{pruned:?}");
    });

    let at = horizon - HOUR;
    let body = json!({ "event_id": event(), "at": at, "epoch": null, "memory_mib": 1024 });
    let (status, refused) = worker.try_call("new", "started", &body);
    assert_eq!((status, refused["error"].as_str()), (422, Some("contradiction")), "{refused}");
    let said = refused["message"].as_str().unwrap();
    assert!(
        said.starts_with("at: ") && said.contains(&at.to_string()) && said.contains(&horizon.to_string()),
        "{said}"
    );
    let body = json!({ "event_id": event(), "at": 1_780_000_000, "epoch": null, "memory_mib": 1024 });
    let (status, refused) = worker.try_call("new", "started", &body);
    assert_eq!(status, 422, "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("behind this machine's clock"), "{refused}");

    // It was gone ten days ago already: the hours behind the horizon stay in their totals, the later ones are cut.
    let ended = now() - 10 * DAY;
    worker.call("sb", "destroyed", json!({ "at": ended }));
    worker.stop();
    let rows = worker.rows("sb");
    assert_eq!(rows.len(), 1, "{rows:#?}");
    assert!(rows[0].started_at.0.abs_diff(began) < 2_000_000);
    assert!(rows[0].ended_at.unwrap().0.abs_diff(ended) < 2_000_000);
    assert_eq!(counted(&worker, "sb"), 0, "nothing of it is after the horizon");
    let found = worker.verdicts("sb");
    assert!(
        found.iter().any(|one| one.verdict == "refused" && one.detail.contains("hourly totals")),
        "{found:#?}"
    );
}
