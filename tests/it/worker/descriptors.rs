//! The drop-in directory while the worker runs.

use super::*;

#[test]
fn a_half_written_descriptor_is_named_and_the_last_good_one_stays() {
    let worker = Worker::start(FAST);
    worker.add("sb", "plan = 'pro'");
    std::fs::write(worker.path("sandboxes/sb.toml"), "sandbox = 'sb'\norg = 'ac").unwrap();
    until("the fault is counted", || worker.metric("guestmeter_descriptor_faults") == 1.0);
    until("it is said", || worker.log().contains("file=\"sb.toml\""));
    assert_eq!(worker.view("sb")["plan"], "pro");
    worker.describe("sb", "plan = 'free'");
    until("it is mended", || worker.view("sb")["plan"] == "free");
    until("no fault is counted", || worker.metric("guestmeter_descriptor_faults") == 0.0);
}

#[test]
fn a_sandbox_goes_with_its_descriptor_unless_its_life_is_open() {
    let mut worker = Worker::start(FAST);
    worker.add("idle", "");
    worker.add("busy", "");
    worker.call("busy", "started", json!({ "memory_mib": 1024 }));
    for name in ["idle", "busy"] {
        std::fs::remove_file(worker.path("sandboxes").join(format!("{name}.toml"))).unwrap();
    }
    until("idle is gone", || worker.get("/v1/sandboxes/idle").0 == 404);
    assert_eq!(worker.view("busy")["phase"], "running");
    let epoch = worker.epoch("busy");
    // A worker that never saw its descriptor takes the end of its life too.
    worker.kill();
    worker.run();
    let body = json!({ "event_id": event(), "at": now(), "epoch": epoch });
    let (status, answer) = worker.try_call("busy", "destroyed", &body);
    assert_eq!(status, 200, "{answer}");
    assert!(worker.rows("busy")[0].ended_at.is_some());
    assert_eq!(worker.get("/v1/sandboxes/busy").0, 404);
    assert_eq!(
        worker.try_call("busy", "destroyed", &body),
        (200, answer),
        "said again, it is answered again"
    );
}

#[test]
fn check_says_what_is_wrong_and_runs_nothing() {
    let worker = Worker::prepare(FAST);
    worker.describe("good", "");
    worker.describe("bad", "vmm = 'bochs:///x'");
    let run = |arguments: &[&str]| {
        let mut command = worker.command();
        let output = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, said, complaint) = run(&["--check"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("1 sandboxes described, 1 files that cannot be used"), "{said}");
    assert!(complaint.contains("bad.toml") && complaint.contains("qmp://"), "{complaint}");
    assert!(!worker.path("ledger.db").exists());
    std::fs::remove_file(worker.path("sandboxes/bad.toml")).unwrap();
    assert_eq!(run(&["--check"]).0, Some(0));
    worker.configure("[poll]\nintervall = '1s'\n");
    let (code, _, complaint) = run(&["--check"]);
    assert_eq!(code, Some(78));
    assert!(complaint.contains("worker.toml") && complaint.contains("intervall"), "{complaint}");
}

#[test]
fn sighup_reads_the_configuration_anew_and_a_bad_one_changes_nothing() {
    let worker = Worker::start(FAST);
    worker.add("sb", "");
    let hangup = || worker.process.as_ref().unwrap().signal("-HUP");
    let shown = || worker.get("/metrics").1.contains("guestmeter_sandbox_answering{sandbox=\"sb\"} 0");
    assert!(!shown(), "per-sandbox series are opt-in");
    worker.configure(&format!("{FAST}[metrics]\nper_sandbox = true\n"));
    hangup();
    until("it is read anew", shown);
    worker.configure("[poll]\nintervall = '1s'\n");
    hangup();
    until("the fault is told", || worker.log().contains("the one before stays"));
    assert!(shown());
    worker.configure("[api]\nmode = '0660'\n");
    hangup();
    until("what takes a restart is told", || worker.log().contains("changed, which takes a restart"));
}
