//! What the API says to calls that cannot be, and of itself.

use super::*;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;

#[test]
fn what_cannot_be_is_refused_by_name() {
    let worker = Worker::start(FAST);
    worker.add("sb", "");
    let good = json!({ "event_id": "e", "at": now(), "epoch": null, "memory_mib": 1024 });
    let without = |field: &str| {
        let mut body = good.clone();
        body.as_object_mut().unwrap().remove(field);
        body
    };
    let with = |field: &str, value: Value| {
        let mut body = good.clone();
        body[field] = value;
        body
    };
    for (sandbox, call, body, status, error, said) in [
        ("nobody", "started", good.clone(), 404, "unknown_sandbox", "\"nobody\" is not known"),
        ("sb", "started", with("memory", json!(1)), 400, "bad_request", "unknown field `memory`"),
        ("sb", "started", without("at"), 400, "bad_request", "missing field `at`"),
        ("sb", "started", without("epoch"), 400, "bad_request", "missing field `epoch`"),
        ("sb", "started", with("at", json!("soon")), 400, "bad_request", "RFC 3339"),
        ("sb", "started", with("epoch", json!("xyz")), 400, "bad_request", "32 hex digits"),
        ("sb", "started", with("event_id", json!("")), 400, "bad_request", "event_id: 1 to 256 bytes"),
        ("sb", "started", with("memory_mib", json!(0)), 400, "bad_request", "memory_mib: at least 1"),
        (
            "sb",
            "started",
            with("at", json!(now() + 3_600_000_000_000)),
            422,
            "contradiction",
            "ahead of this",
        ),
        ("sb", "restarted", good.clone(), 404, "no_such_path", "openapi.json"),
    ] {
        let (found, answer) = worker.try_call(sandbox, call, &body);
        assert_eq!((found, answer["error"].as_str()), (status, Some(error)), "{body}: {answer}");
        assert!(answer["message"].as_str().unwrap().contains(said), "{answer}");
    }
    let long = format!("{{\"event_id\":\"{}\"}}", "x".repeat(17 * 1024));
    assert_eq!(worker.post("/v1/sandboxes/sb/started", &long).0, 413);
    assert_eq!(worker.post("/v1/sandboxes/sb/started", "{").0, 400);
    assert_eq!(worker.post("/healthz", "").0, 405);
    assert_eq!(worker.get("/v1/sandboxes/sb/started").0, 405);
    assert_eq!(worker.get("/v1/sandboxes?after=x&more=1").0, 400);
    assert!(worker.metric("guestmeter_calls_total{call=\"started\",outcome=\"bad_request\"}") >= 8.0);
    assert!(worker.rows("sb").is_empty());
}

#[test]
fn out_of_order_is_told_what_is_expected() {
    let worker = Worker::start(FAST);
    worker.add("sb", "");
    let refused = |call: &str, body: Value| {
        let (status, answer) = worker.try_call("sb", call, &body);
        assert_eq!((status, answer["error"].as_str()), (409, Some("out_of_order")), "{answer}");
        answer["expected"].clone()
    };
    let other = "0123456789abcdef0123456789abcdef";
    let expected = refused("pausing", json!({ "event_id": event(), "at": now(), "epoch": other }));
    assert_eq!(expected, json!({ "calls": ["started", "resumed"], "epoch": null }));

    let started = worker.call("sb", "started", json!({ "memory_mib": 1024 }));
    let current = &started["epoch"]["id"];
    let expected = refused("pausing", json!({ "event_id": event(), "at": now(), "epoch": other }));
    assert_eq!(&expected["epoch"], current);

    worker.call("sb", "pausing", json!({}));
    let expected =
        refused("scaled", json!({ "event_id": event(), "at": now(), "epoch": current, "memory_mib": 1 }));
    assert_eq!(expected["calls"], json!(["pausing", "resumed", "destroyed", "started"]));
    worker.call("sb", "destroyed", json!({}));
    let expected = refused("destroyed", json!({ "event_id": event(), "at": now(), "epoch": current }));
    assert_eq!(expected, json!({ "calls": ["started", "resumed"], "epoch": current }));
    assert_eq!(worker.metric("guestmeter_calls_total{call=\"pausing\",outcome=\"out_of_order\"}"), 2.0);
}

#[test]
fn an_event_id_is_one_calls_alone() {
    let worker = Worker::start(FAST);
    worker.add("a", "");
    worker.add("b", "");
    let body = json!({ "event_id": "one", "at": now(), "epoch": null, "memory_mib": 1024 });
    assert_eq!(worker.try_call("a", "started", &body).0, 200);
    let (status, answer) = worker.try_call("b", "started", &body);
    assert_eq!((status, answer["error"].as_str()), (409, Some("event_id_taken")), "{answer}");
    let resumed = json!({ "event_id": "one", "at": now(), "epoch": worker.epoch("a") });
    assert_eq!(worker.try_call("a", "resumed", &resumed).0, 409);
}

#[test]
fn the_unix_socket_is_the_owners_and_tcp_is_the_tokens() {
    let mut worker = Worker::prepare("");
    let token = "a-token-of-two-dozen-signs";
    std::fs::write(worker.path("token"), format!("{token}\n")).unwrap();
    worker.configure(&format!(
        "[api]\ntcp = '127.0.0.1:0'\ntoken_file = '{}'\n",
        worker.path("token").display()
    ));
    worker.run();
    let mode = std::fs::metadata(worker.path("api.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let log = worker.log();
    let address = log.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
    let ask = |headers: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        exchange(&mut stream, "GET", "/v1/sandboxes", headers, "").unwrap().0
    };
    assert_eq!(ask(&format!("authorization: Bearer {token}\r\n")), 200);
    assert_eq!(ask(&format!("authorization: Bearer {token}x\r\n")), 401);
    assert_eq!(ask("authorization: Basic abc\r\n"), 401);
    assert_eq!(ask(""), 401);
    // Other than the Unix socket, which only the owner can open.
    assert_eq!(worker.get("/v1/sandboxes").0, 200);
}

#[test]
fn a_second_worker_does_not_take_the_first_ones_socket() {
    let worker = Worker::start(FAST);
    let output = worker.command().stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("api.sock: somebody serves there already"), "{said}");
    assert_eq!(worker.get("/healthz").0, 200);
}

#[test]
fn its_document_tells_every_path_and_nothing_else() {
    let worker = Worker::start(FAST);
    worker.add("sb", "");
    let (status, text) = worker.get("/openapi.json");
    assert_eq!(status, 200);
    let document: Value = serde_json::from_str(&text).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."), "{text}");
    let mut told: Vec<String> = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let (status, answer) = match method.as_str() {
                "get" => worker.get(&path.replace("{sandbox}", "sb")),
                "post" => worker.post(&path.replace("{sandbox}", "sb"), "{}"),
                other => panic!("{other}"),
            };
            assert!(!matches!(status, 404 | 405), "{method} {path}: {answer}");
            told.push(format!("{method} {path}"));
        }
    }
    told.sort();
    let calls = ["destroyed", "pausing", "resumed", "scaled", "started"];
    let mut expected: Vec<String> =
        calls.iter().map(|call| format!("post /v1/sandboxes/{{sandbox}}/{call}")).collect();
    expected.extend(
        ["/healthz", "/metrics", "/openapi.json", "/v1/sandboxes", "/v1/sandboxes/{sandbox}"]
            .map(|path| format!("get {path}")),
    );
    expected.sort();
    assert_eq!(told, expected);
}

#[test]
fn its_documents_types_are_what_it_takes_and_says() {
    let worker = Worker::start(FAST);
    worker.add("sb", "");
    let document: Value = serde_json::from_str(&worker.get("/openapi.json").1).unwrap();
    let schema = |name: &str| document["components"]["schemas"][name].clone();
    let fields = |name: &str| -> Vec<String> {
        let schema = schema(name);
        schema["properties"]
            .as_object()
            .unwrap_or_else(|| panic!("{name}: {schema}"))
            .keys()
            .cloned()
            .collect()
    };
    // Each field that the document tells of a body is taken, and one that it requires is asked for.
    for (call, name) in [
        ("started", "Started"),
        ("scaled", "Scaled"),
        ("pausing", "Pausing"),
        ("resumed", "Resumed"),
        ("destroyed", "Destroyed"),
    ] {
        let required = schema(name)["required"].as_array().unwrap().clone();
        let whole: serde_json::Map<String, Value> =
            fields(name).into_iter().map(|field| (field, Value::from(-1))).collect();
        for field in fields(name) {
            let mut body = whole.clone();
            body.remove(&field);
            let text = Value::Object(body).to_string();
            let said = worker.post(&format!("/v1/sandboxes/sb/{call}"), &text).1;
            assert!(!said.contains("unknown field"), "{name} {field}: {said}");
        }
        for field in &required {
            let field = field.as_str().unwrap();
            let said = worker.post(&format!("/v1/sandboxes/sb/{call}"), "{}").1;
            assert!(said.contains("missing field"), "{name} {field}: {said}");
        }
    }
    // What is said has the fields that the document tells.
    let has = |name: &str, value: &Value| {
        let told = fields(name);
        let said: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
        for field in &said {
            assert!(told.contains(field), "{name} does not tell {field}");
        }
        for field in schema(name)["required"].as_array().into_iter().flatten() {
            assert!(said.iter().any(|said| said == field), "{name} promises {field}: {value}");
        }
    };
    has("Answer", &worker.call("sb", "started", json!({ "memory_mib": 1024 })));
    has("SandboxView", &worker.view("sb"));
    has("SandboxList", &serde_json::from_str(&worker.get("/v1/sandboxes").1).unwrap());
    has("Health", &serde_json::from_str(&worker.get("/healthz").1).unwrap());
    let body = json!({ "event_id": event(), "at": now(), "epoch": null, "memory_mib": 1 });
    has("Problem", &worker.try_call("sb", "started", &body).1);
}
