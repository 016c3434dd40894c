//! What the shipped alert rules and the dashboard ask for, a worker exports. That they are valid, and fire where they
//! should, is `promtool`'s to say: `tests/monitoring/check`.

use super::*;
use std::collections::BTreeSet;

fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/monitoring").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn dashboard() -> Value {
    serde_json::from_str(&shipped("guestmeter.dashboard.json")).unwrap()
}

fn panels() -> Vec<Value> {
    dashboard()["panels"].as_array().unwrap().clone()
}

/// The queries of the dashboard's panels.
fn queries() -> Vec<String> {
    let targets = panels().into_iter().flat_map(|panel| panel["targets"].as_array().unwrap().clone());
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

/// The series that a text names.
fn series(text: &str) -> BTreeSet<String> {
    let words = text.split(|sign: char| !(sign.is_ascii_alphanumeric() || sign == '_'));
    words.filter(|word| word.starts_with("guestmeter_")).map(str::to_owned).collect()
}

/// `label OPERATOR "value"` in the queries of a text, but those of Prometheus and of the dashboard.
fn matchers(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for selector in text.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
        for matcher in selector.split("\",").filter(|matcher| matcher.contains('"')) {
            let (label, value) = matcher.split_once('"').unwrap();
            let label = label.trim_matches(|sign: char| !sign.is_ascii_lowercase()).to_owned();
            let values = value.trim_end_matches('"').split('|').map(str::to_owned);
            found.extend(values.map(|value| (label.clone(), value)));
        }
    }
    found.retain(|(label, _)| label != "instance" && label != "job");
    found
}

/// Everything that the two files ask for.
fn asked() -> String {
    let rules = shipped("guestmeter.rules.yml");
    // What an alert says is not a query.
    let rules = rules.lines().filter(|line| !line.contains("summary:") && !line.contains("description:"));
    let rules = rules.filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n");
    format!("{rules}\n{}", queries().join("\n"))
}

#[test]
fn a_worker_exports_what_the_rules_and_the_dashboard_ask_for() {
    let guest = Guest::start();
    let worker = Worker::start(FAST);
    worker.add("sb", &format!("{}\nvmm = 'qmp:///nowhere/qmp.sock'", guest.target()));
    worker.until_agent("sb", "provisional");
    worker.call("sb", "started", json!({ "memory_mib": 1024 }));
    let asked = series(&asked());
    assert!(asked.len() >= 15, "{asked:?}");
    let mut missing = asked;
    let since = Instant::now();
    loop {
        let (_, text) = worker.get("/metrics");
        let exported: BTreeSet<&str> =
            text.lines().filter_map(|line| line.split(['{', ' ']).next()).collect();
        missing.retain(|name| !exported.contains(name.as_str()));
        if missing.is_empty() {
            return;
        }
        assert!(since.elapsed() < PATIENCE, "not exported: {missing:?}\n{}", worker.log());
        // The guest has no more to say once it is named; what is no frame is a notification too.
        if let Ok(mut stream) = UnixStream::connect(guest.folder.path().join("notify.sock")) {
            let _ = stream.write_all(&[0; 100]);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_values_that_they_ask_for_are_the_workers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/host");
    let sources = ["worker/metrics.rs", "reconcile/verdict.rs"]
        .map(|path| std::fs::read_to_string(root.join(path)).unwrap());
    let found = matchers(&asked());
    assert!(found.len() >= 8, "{found:?}");
    for (label, value) in found {
        assert!(["name", "outcome"].contains(&label.as_str()), "{label}");
        let literal = format!("=> \"{value}\"");
        assert!(sources.iter().any(|source| source.contains(&literal)), "{label} {value}");
    }
}

#[test]
fn the_dashboards_panels_have_a_place_and_a_question_each() {
    let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels() {
        let title = panel["title"].as_str().unwrap().to_owned();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: the id is another one's");
        let side = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(side("x") + side("w") <= 24, "{title}");
        for x in side("x")..side("x") + side("w") {
            for y in side("y")..side("y") + side("h") {
                assert!(cells.insert((x, y)), "{title} lies on another panel");
            }
        }
        let targets = panel["targets"].as_array().unwrap();
        let letters: BTreeSet<&str> =
            targets.iter().map(|target| target["refId"].as_str().unwrap()).collect();
        assert!(!targets.is_empty() && letters.len() == targets.len(), "{title}");
        for target in targets {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            assert!(target["expr"].as_str().unwrap().contains("$instance"), "{title}");
        }
    }
    let dashboard = dashboard();
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let variables: Vec<&str> = variables.map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(variables, ["datasource", "instance"]);
}
