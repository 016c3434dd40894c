//! How it runs: what it logs, what it lists, how it stops.

use super::*;

#[test]
fn its_log_is_a_json_object_a_line_if_asked() {
    let mut worker = Worker::start(&format!("{FAST}[log]\nformat = 'json'\nfilter = 'debug'\n"));
    worker.add("sb", "");
    worker.call("sb", "started", json!({ "memory_mib": 1024 }));
    std::fs::write(worker.path("sandboxes/bad.toml"), "sandbox =").unwrap();
    until("the fault is told", || worker.log().contains("bad.toml"));
    worker.stop();
    let log = worker.log();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect();
    let said = |message: &str| {
        lines.iter().find(|line| line["message"].as_str().is_some_and(|said| said.contains(message)))
    };
    assert!(
        said("the worker has stopped")
            .is_some_and(|line| line["level"] == "INFO" && line["timestamp"].is_string())
    );
    assert!(lines.iter().any(|line| line["file"] == "bad.toml" && line["level"] == "WARN"), "{log}");
}

#[test]
fn sandboxes_are_listed_by_name_and_from_any_one_on() {
    let worker = Worker::start(FAST);
    for name in ["b", "c", "a"] {
        worker.add(name, "");
    }
    let list = |query: &str| -> Value {
        let (status, text) = worker.get(&format!("/v1/sandboxes{query}"));
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    };
    let names = |list: &Value| -> Vec<String> {
        let all = list["sandboxes"].as_array().unwrap();
        all.iter().map(|one| one["sandbox"].as_str().unwrap().to_owned()).collect()
    };
    let all = list("");
    assert_eq!((names(&all), &all["next"]), (vec!["a".into(), "b".into(), "c".into()], &Value::Null));
    assert_eq!(names(&list("?after=a")), ["b", "c"]);
    assert_eq!(names(&list("?after=c")), [""; 0]);
}

/// Nobody is at the other end of its guest's socket: the call waits for it, and the stop for the call.
#[test]
fn a_stop_answers_what_was_asked_and_saves_what_only_memory_holds() {
    let guest = Guest::start();
    let mut worker =
        // However late a poll is answered, the guest is not lost, which would be in the books at once.
        Worker::start("[poll]\ninterval = '500ms'\ntimeout = '500ms'\nlost = '1h'\nsave = '1h'\n");
    worker.add("heard", &guest.target());
    worker.call("heard", "started", json!({ "memory_mib": 1024 }));
    worker.add("away", &format!("target = 'unix://{}'", worker.path("nobody.sock").display()));
    let seq = || worker.view("heard")["report"]["seq"].as_u64().unwrap();
    let version = || worker.books(async |ledger| ledger.account("heard").await.unwrap().unwrap().version);
    // What a guest's first seconds tell of its memory is in the books at once.
    let mut before = version();
    until("some polls are in memory alone", || {
        let first = seq();
        before = version();
        until("some polls", || seq() > first + 4);
        version() == before
    });

    let socket = worker.path("api.sock");
    let body =
        json!({ "event_id": event(), "at": now(), "epoch": null, "memory_mib": 1024, "deadline_ms": 3000 });
    let begun = || {
        worker.books(async |ledger| ledger.event(body["event_id"].as_str().unwrap()).await.unwrap().is_some())
    };
    std::thread::scope(|scope| {
        let call =
            scope.spawn(|| http(&socket, "POST", "/v1/sandboxes/away/started", &body.to_string()).unwrap());
        until("the call is under way", begun);
        worker.process.as_ref().unwrap().signal("-TERM");
        let (status, text) = call.join().unwrap();
        assert_eq!(status, 200, "{text}");
        assert!(text.contains("\"unconfirmed\""), "{text}");
    });
    assert!(worker.process.take().unwrap().wait().success());
    assert!(!socket.exists(), "its socket goes with it");
    let after = worker.books(async |ledger| ledger.account("heard").await.unwrap().unwrap().version);
    assert!(after > before, "{before} {after}");
}
