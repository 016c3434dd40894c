//! QMP: lines of a real QEMU, and a QEMU that says what a test wants it to.

use super::{PATIENCE, SHORT, Server, fixture, said};
use guestmeter::host::vmm::{SizeChange, Vmm, VmmCause, VmmCpus, VmmEvent, VmmKind, VmmMemory};
use guestmeter::units::Bytes;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

const GREETING: &str = "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 2, \"minor\": 0, \"major\": 10}, \
                        \"package\": \"\"}, \"capabilities\": [\"oob\"]}}";

/// The other end of one connection, greeted.
struct Monitor(BufReader<UnixStream>);

impl Monitor {
    async fn greeting(stream: UnixStream) -> Self {
        let mut monitor = Self(BufReader::new(stream));
        monitor.say(GREETING).await;
        // A client that has given up asks nothing, and its connection is ended by the next question.
        if let Some((command, id)) = monitor.asked().await {
            assert_eq!(command, "qmp_capabilities");
            monitor.say(&json!({ "return": {}, "id": id }).to_string()).await;
        }
        monitor
    }

    async fn say(&mut self, line: &str) {
        // The client may have gone; what it makes of that is asserted there.
        let _ = self.0.get_mut().write_all(format!("{line}\r\n").as_bytes()).await;
    }

    /// The next command, until there are none.
    async fn asked(&mut self) -> Option<(String, u64)> {
        let mut line = String::new();
        if self.0.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let command: Value = serde_json::from_str(&line).expect(&line);
        Some((command["execute"].as_str().unwrap().to_owned(), command["id"].as_u64().unwrap()))
    }
}

fn device(id: &str, plugged: u64) -> Value {
    json!({ "type": "virtio-mem", "data": {
        "memdev": "/objects/vmem0", "memaddr": 4_294_967_296_u64, "block-size": 2 << 20, "size": plugged, "node": 0,
        "max-size": 2_u64 << 30, "requested-size": 300 << 20, "id": id } })
}

fn return_of(command: &str, devices: &Value) -> Value {
    match command {
        "query-status" => json!({ "status": "running", "running": true }),
        "query-memory-size-summary" => json!({ "base-memory": 512 << 20, "plugged-memory": 130 << 20 }),
        "query-memory-devices" => devices.clone(),
        "query-cpus-fast" => json!([{ "cpu-index": 0 }, { "cpu-index": 1 }]),
        other => panic!("{other} was asked"),
    }
}

/// A QEMU with these devices.
fn qemu(devices: Value) -> Server {
    let devices = Arc::new(devices);
    Server::start(move |stream| {
        let devices = Arc::clone(&devices);
        async move {
            let mut monitor = Monitor::greeting(stream).await;
            while let Some((command, id)) = monitor.asked().await {
                let answer = json!({ "return": return_of(&command, &devices), "id": id });
                monitor.say(&answer.to_string()).await;
            }
        }
    })
}

/// A QEMU that meets each command with the lines that `lines` makes of it.
fn saying(lines: impl Fn(&str, u64) -> Vec<String> + Send + Sync + 'static) -> Server {
    let lines = Arc::new(lines);
    Server::start(move |stream| {
        let lines = Arc::clone(&lines);
        async move {
            let mut monitor = Monitor::greeting(stream).await;
            while let Some((command, id)) = monitor.asked().await {
                for line in lines(&command, id) {
                    monitor.say(&line).await;
                }
            }
        }
    })
}

fn answer(command: &str, id: u64, devices: &Value) -> String {
    json!({ "return": return_of(command, devices), "id": id }).to_string()
}

fn event(name: &str, data: &Value) -> String {
    json!({ "timestamp": { "seconds": 1, "microseconds": 2 }, "event": name, "data": data }).to_string()
}

fn size_change(id: &str, size: u64) -> String {
    let path = format!("/machine/peripheral/{id}");
    event("MEMORY_DEVICE_SIZE_CHANGE", &json!({ "id": id, "size": size, "qom-path": path }))
}

fn changed(id: &str, size: u64) -> VmmEvent {
    VmmEvent::Changed(SizeChange { device: Some(id.to_owned()), plugged: Bytes(size) })
}

fn vmm(server: &Server) -> Vmm {
    server.vmm(VmmKind::Qmp, PATIENCE)
}

#[tokio::test]
async fn virtio_mem_is_summed_dimms_are_boot_memory_and_the_rest_is_named() {
    let dimm = |kind: &str, id: Option<&str>| {
        let mut data = json!({ "memdev": "/objects/d0", "hotplugged": true, "addr": 0, "hotpluggable": true,
            "size": 256 << 20, "slot": 0, "node": 0 });
        if let Some(id) = id {
            data["id"] = json!(id);
        }
        json!({ "type": kind, "data": data })
    };
    let sgx = json!({ "type": "sgx-epc", "data": { "memaddr": 0, "size": 1 << 20, "node": 0, "memdev": "/objects/e" } });
    let devices = json!([
        device("vm0", 130 << 20),
        dimm("dimm", Some("dimm0")),
        dimm("nvdimm", Some("nv0")),
        dimm("virtio-pmem", None),
        device("vm1", 2 << 20),
        sgx,
    ]);
    let server = qemu(devices);
    let memory = vmm(&server).memory().await.unwrap();
    assert_eq!(
        memory,
        VmmMemory {
            boot: Bytes::mib(768),
            plugged: Ok(Bytes::mib(132)),
            requested: Bytes::mib(600),
            maximum: Bytes::mib(4096),
            ignored: vec!["nvdimm nv0".to_owned(), "virtio-pmem".to_owned(), "sgx-epc".to_owned()],
        }
    );
    assert_eq!(memory.total(), Some(Bytes::mib(900)));
    assert_eq!(vmm(&server).cpus().await.unwrap(), VmmCpus { present: 2, maximum: None });
}

#[tokio::test]
async fn the_words_of_a_real_qemu_are_understood() {
    let text = std::fs::read_to_string(fixture("qmp-10.0.2.jsonl")).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let said = |name: &str| lines.iter().find(|line| line["to"] == name).expect(name)["line"].to_string();
    let greeting = said("greeting");
    let recorded: Vec<(String, Value)> =
        lines.iter().map(|line| (line["to"].as_str().unwrap().to_owned(), line["line"].clone())).collect();
    let unasked: Vec<String> =
        recorded.iter().filter(|(to, _)| to == "nobody").map(|(_, line)| line.to_string()).collect();
    assert!(!unasked.is_empty(), "no event was recorded");
    let recorded = Arc::new((greeting, recorded, unasked));
    let server = Server::start(move |stream| {
        let recorded = Arc::clone(&recorded);
        async move {
            let (greeting, lines, unasked) = &*recorded;
            let mut monitor = Monitor(BufReader::new(stream));
            monitor.say(greeting).await;
            while let Some((command, id)) = monitor.asked().await {
                for event in unasked {
                    monitor.say(event).await;
                }
                let mut line = lines.iter().find(|(to, _)| *to == command).expect(&command).1.clone();
                line["id"] = json!(id);
                monitor.say(&line.to_string()).await;
            }
        }
    });
    let memory = vmm(&server).memory().await.unwrap();
    assert_eq!(
        memory,
        VmmMemory {
            boot: Bytes::mib(512),
            plugged: Ok(Bytes::mib(130)),
            requested: Bytes::mib(130),
            maximum: Bytes::mib(2048),
            ignored: Vec::new(),
        }
    );
    assert_eq!(vmm(&server).cpus().await.unwrap().present, 2);
    let mut watch = vmm(&server).watch().await.unwrap();
    assert_eq!(watch.next().await.unwrap(), VmmEvent::AskAgain);
    // The way there is told; the end of it only a second later.
    assert_eq!(watch.next().await.unwrap(), changed("vm0", 128 << 20));
}

#[tokio::test]
async fn events_and_answers_to_others_between_are_passed_over() {
    let devices = json!([device("vm0", 130 << 20)]);
    let server = saying(move |command, id| {
        vec![
            size_change("vm0", 2 << 20),
            event("RTC_CHANGE", &json!({ "offset": 0, "qom-path": "/machine/unattached/device[7]" })),
            json!({ "return": [], "id": id - 1 }).to_string(),
            json!({ "error": { "class": "GenericError", "desc": "late" }, "id": id - 1 }).to_string(),
            answer(command, id, &devices),
        ]
    });
    assert_eq!(vmm(&server).memory().await.unwrap().plugged, Ok(Bytes::mib(130)));
}

#[tokio::test]
async fn a_refusal_is_told_in_qemus_own_words() {
    let server = saying(|command, id| {
        let text = format!("The command {command} has not been found");
        vec![json!({ "id": id, "error": { "class": "CommandNotFound", "desc": text } }).to_string()]
    });
    let error = vmm(&server).memory().await.unwrap_err();
    assert_eq!(
        said(&error),
        "query-status: refused (CommandNotFound): The command query-status has not been found"
    );
}

#[tokio::test]
async fn a_machine_that_was_not_started_has_no_memory_to_tell_of() {
    for status in ["prelaunch", "inmigrate"] {
        let server =
            saying(move |_, id| vec![json!({ "return": { "status": status }, "id": id }).to_string()]);
        let error = vmm(&server).memory().await.unwrap_err();
        assert_eq!(said(&error), format!("query-status: its VM does not run: {status}"));
    }
}

#[tokio::test]
async fn devices_that_cannot_be() {
    let huge = |size: u64, requested: u64, maximum: u64| {
        json!({ "type": "virtio-mem", "data": {
            "size": size, "requested-size": requested, "max-size": maximum } })
    };
    for (devices, what) in [
        (json!({}), "invalid type: map"),
        (json!([{ "type": "virtio-mem" }]), "missing field `data`"),
        (json!([{ "type": "virtio-mem", "data": { "size": -4, "id": "vm0" } }]), "expected u64"),
        (
            json!([{ "type": "virtio-mem", "data": { "size": 4, "id": "vm0" } }]),
            "virtio-mem device vm0 has no requested-size",
        ),
        (json!([{ "type": "dimm", "data": { "id": "d0" } }]), "dimm device d0 has no size"),
        (json!([huge(1 << 53, 1 << 53, 1 << 53)]), "more than any machine's"),
        (json!([huge(1, 1, u64::MAX), huge(1, 1, u64::MAX)]), "pass the end of a number"),
        (json!([huge(2 << 20, 0, 1 << 20)]), "2097152 B plugged"),
        (json!([huge(2 << 20, 0, 1 << 20), huge(0, 0, 1 << 30)]), "2097152 B plugged"),
    ] {
        let server = qemu(devices.clone());
        let error = vmm(&server).memory().await.unwrap_err();
        let text = said(&error);
        assert!(matches!(error.cause, VmmCause::Malformed(_)), "{error:?}");
        assert!(text.starts_with("query-memory-devices: ") && text.contains(what), "{devices}: {text}");
    }
}

#[tokio::test]
async fn lines_that_say_nothing() {
    for line in
        ["", "{}", "[]", "null", "7", "{\"return\": null, \"id\": 2}", "{\"event\": 7}", "\u{fffd}{{{{"]
    {
        let server = saying(move |_, _| vec![line.to_owned()]);
        let error = vmm(&server).memory().await.unwrap_err();
        assert!(matches!(error.cause, VmmCause::Malformed(_)), "{line}: {error:?}");
        assert!(said(&error).starts_with("query-status: "), "{error}");
    }
}

#[tokio::test]
async fn many_short_lines_at_once_are_read_once() {
    let devices = json!([device("vm0", 0)]);
    let server = saying(move |command, id| {
        let mut lines = vec!["{\"event\":\"X\"}".to_owned(); 200_000];
        lines.push(answer(command, id, &devices));
        vec![lines.join("\n")]
    });
    assert_eq!(vmm(&server).memory().await.unwrap().plugged, Ok(Bytes::ZERO));
}

#[tokio::test]
async fn another_client_is_served_first_and_the_error_says_so() {
    let alone = Arc::new(tokio::sync::Semaphore::new(1));
    let one_at_a_time = Server::start({
        let alone = Arc::clone(&alone);
        move |stream| {
            let alone = Arc::clone(&alone);
            async move {
                let _turn = alone.acquire().await.unwrap();
                let mut monitor = Monitor::greeting(stream).await;
                while let Some((command, id)) = monitor.asked().await {
                    monitor.say(&answer(&command, id, &json!([]))).await;
                }
            }
        }
    });
    let vmm = one_at_a_time.vmm(VmmKind::Qmp, SHORT);
    let watch = vmm.watch().await.unwrap();
    let error = vmm.memory().await.unwrap_err();
    assert!(matches!(error.cause, VmmCause::NoGreeting(_)), "{error:?}");
    assert!(error.cause.hint().unwrap().contains("second -qmp"));
    drop(watch);
    let vmm = one_at_a_time.vmm(VmmKind::Qmp, PATIENCE);
    assert_eq!(vmm.memory().await.unwrap().plugged, Ok(Bytes::ZERO));
}

#[tokio::test]
async fn a_watch_tells_what_changes_and_what_was_asked_since_is_newer() {
    let server = saying(|command, id| match command {
        "query-cpus-fast" => {
            vec![size_change("vm0", 2 << 20), answer(command, id, &json!([])), size_change("vm0", 4 << 20)]
        }
        _ => vec![size_change("vm0", 6 << 20), answer(command, id, &json!([device("vm0", 8 << 20)]))],
    });
    let mut watch = vmm(&server).watch().await.unwrap();
    assert_eq!(watch.next().await.unwrap(), VmmEvent::AskAgain);
    // The questions bring the events of this test: both commands' own, and one behind the last answer.
    watch.cpus().await.unwrap();
    assert_eq!(watch.next().await.unwrap(), changed("vm0", 6 << 20));
    assert_eq!(watch.next().await.unwrap(), changed("vm0", 2 << 20));
    assert_eq!(watch.next().await.unwrap(), changed("vm0", 4 << 20));
    assert_eq!(watch.memory().await.unwrap().plugged, Ok(Bytes::mib(8)));
    let silent = tokio::time::timeout(SHORT, watch.next()).await;
    assert!(silent.is_err(), "older than the answer, and told: {silent:?}");
}

#[tokio::test]
async fn a_watch_that_falls_behind_says_so_and_keeps_nothing_without_end() {
    let server = saying(|command, id| {
        let mut lines: Vec<String> = (1..=1000).map(|size| size_change("vm0", size)).collect();
        lines.push(answer(command, id, &json!([])));
        lines
    });
    let mut watch = vmm(&server).watch().await.unwrap();
    watch.cpus().await.unwrap();
    assert_eq!(watch.next().await.unwrap(), VmmEvent::AskAgain);
    let mut told = 0;
    loop {
        match watch.next().await.unwrap() {
            VmmEvent::Changed(change) if change.plugged == Bytes(1000) => break,
            VmmEvent::Changed(_) => told += 1,
            VmmEvent::AskAgain => panic!("twice"),
        }
    }
    assert!(told < 256, "{told}");
}

#[tokio::test]
async fn a_watch_connects_again_and_says_that_something_may_have_been_missed() {
    let server = Server::start(|stream| async move {
        let mut monitor = Monitor::greeting(stream).await;
        monitor.say(&size_change("vm0", 2 << 20)).await;
    });
    let mut watch = vmm(&server).watch().await.unwrap();
    for _ in 0..3 {
        assert_eq!(watch.next().await.unwrap(), VmmEvent::AskAgain);
        assert_eq!(watch.next().await.unwrap(), changed("vm0", 2 << 20));
        let error = watch.next().await.unwrap_err();
        assert_eq!(
            said(&error),
            "waiting for an event: the connection was closed before the answer was whole"
        );
    }
}

#[tokio::test]
async fn a_question_that_was_given_up_leaves_nothing_for_the_next() {
    let server = saying(|command, id| match command {
        "query-cpus-fast" => Vec::new(),
        _ => vec![answer(command, id, &json!([device("vm0", 0)]))],
    });
    let mut watch = server.vmm(VmmKind::Qmp, PATIENCE).watch().await.unwrap();
    assert!(tokio::time::timeout(SHORT, watch.cpus()).await.is_err());
    assert_eq!(watch.memory().await.unwrap().plugged, Ok(Bytes::ZERO));
}
