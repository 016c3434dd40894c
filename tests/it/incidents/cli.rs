//! `explain` on the command line, from files and from a ledger.

use super::{Expected, folders};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn explain(folder: &Path, more: &[&str]) -> Output {
    let expected = std::fs::read_to_string(folder.join("expected.json")).unwrap();
    let asked = serde_json::from_str::<Expected>(&expected).unwrap().question;
    let mut command = Command::new(env!("CARGO_BIN_EXE_guestmeter"));
    command.args(["explain", "--sandbox", &asked.sandbox, "--from", &asked.from, "--to", &asked.to]);
    command.args(["--now", &asked.now]).args(more);
    command.env_remove("GUESTMETER_DB").env_remove("COLUMNS").stdin(Stdio::null()).output().unwrap()
}

fn causes(output: &Output) -> Vec<(String, String)> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let document: serde_json::Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let of = |cause: &serde_json::Value| {
        let field = |name| cause[name].as_str().unwrap().to_owned();
        (field("cause"), field("active_ns"))
    };
    let mut causes: Vec<_> = document["causes"].as_array().unwrap().iter().map(of).collect();
    assert_eq!(document["agree"], causes.is_empty());
    causes.sort();
    causes
}

fn expected(folder: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(folder.join("expected.json")).unwrap();
    let expected: Expected = serde_json::from_str(&text).unwrap();
    let mut causes: Vec<_> =
        expected.causes.iter().map(|cause| (cause.cause.clone(), cause.active_ns.to_string())).collect();
    causes.sort();
    causes
}

#[test]
fn each_incident_from_its_file() {
    for folder in folders() {
        let books = folder.join("books.jsonl");
        let output = explain(&folder, &["--json", "--books", books.to_str().unwrap()]);
        assert_eq!(causes(&output), expected(&folder), "{}", folder.display());
        assert_eq!(output.status.code(), Some(1), "{output:?}");
    }
}

/// Those whose books are all there is to know, through a ledger.
#[test]
fn incidents_from_a_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let mut asked = 0;
    for (number, incident) in folders().iter().enumerate() {
        let books = incident.join("books.jsonl");
        let text = std::fs::read_to_string(&books).unwrap();
        let plain = |line: &str| {
            ["\"org\"", "\"scale\"", "\"sample\""]
                .iter()
                .any(|kind| line.contains(&format!("\"type\":{kind}")))
        };
        if !text.lines().all(plain) {
            continue;
        }
        let db = format!("sqlite:{}", folder.path().join(number.to_string()).display());
        let books = books.to_str().unwrap();
        let mut import = Command::new(env!("CARGO_BIN_EXE_guestmeter"));
        let import = import.args(["ledger", "import", books, "--db", &db]).output().unwrap();
        assert!(import.status.success(), "{import:?}");
        let output = explain(incident, &["--json", "--db", &db]);
        assert_eq!(causes(&output), expected(incident), "{}", incident.display());
        asked += 1;
    }
    assert!(asked >= 8, "only {asked} incidents went through a ledger");
}

#[test]
fn a_person_reads_the_cause_and_the_timeline() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/incidents/paused-time-billed");
    let books = folder.join("books.jsonl");
    let output = explain(&folder, &["--books", books.to_str().unwrap()]);
    insta::assert_snapshot!("paused-time-billed", String::from_utf8(output.stdout).unwrap());
}

#[test]
fn what_cannot_be_asked_is_told_why() {
    let ask = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_guestmeter"));
        command
            .args(["explain", "--sandbox", "s"])
            .args(arguments)
            .env_remove("GUESTMETER_DB")
            .output()
            .unwrap()
    };
    for (arguments, code, cause) in [
        (&["--from", "5", "--to", "5"][..], 2, "--to must be later than --from"),
        (&["--from", "soon", "--to", "5"], 2, "not an instant"),
        (&["--from", "1", "--to", "5", "--books", "/nowhere/books"], 66, "/nowhere/books: No such file"),
        (&["--from", "1", "--to", "5", "--books", file!()], 65, "mod.rs:1: not a line of a book"),
        (&["--from", "1", "--to", "5", "--db", "sqlite:/nowhere/ledger.db"], 66, "/nowhere/ledger.db"),
    ] {
        let output = ask(arguments);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
        assert!(
            told.contains(cause) || cause.starts_with("mod.rs") && told.contains("not a line of a book"),
            "{told}"
        );
    }
}
