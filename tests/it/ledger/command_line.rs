//! `usage`, `parity` and `ledger`, as scripts use them, on both engines.

use super::*;
use std::io::Write;
use std::process::{Command, Output, Stdio};

const BOOKS: &str = r#"{"type":"org","id":"o","plan":"pro"}
{"type":"org","id":"free","plan":"free"}
{"type":"scale","id":"a","sandbox":"s","org":"o","memory_mib":1024,"cpu_millis":1000,"started_at":"2026-06-08T16:42:00Z","ended_at":"2026-06-08T17:14:00Z"}
{"type":"scale","id":"b","sandbox":"t","org":"o","memory_mib":3000,"cpu_millis":500,"started_at":"2026-06-08T16:59:59.5Z","ended_at":null}
{"type":"sample","id":"u","sandbox":"s","org":"o","memory_mib":1024,"cpu_millis":1000,"started_at":"2026-06-08T16:42:00Z","ended_at":"2026-06-08T17:00:00Z"}
{"type":"scale","id":"c","sandbox":"f","org":"free","memory_mib":1024,"cpu_millis":1000,"started_at":"2026-06-08T16:00:00Z","ended_at":"2026-06-08T17:00:00Z"}
"#;

fn command(db: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_guestmeter"));
    command.args(arguments).args(["--db", db]).env_remove("GUESTMETER_DB").stdin(Stdio::null());
    command
}

fn run(db: &str, arguments: &[&str]) -> Output {
    command(db, arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn import(db: &str, text: &str) -> Output {
    let mut child = command(db, &["ledger", "import", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // An import that has stopped reads no more.
    let _ = child.stdin.take().unwrap().write_all(text.as_bytes());
    child.wait_with_output().unwrap()
}

const HOUR: [&str; 6] =
    ["--from", "2026-06-08T16:00:00Z", "--to", "2026-06-08T17:00:00Z", "--now", "1780938000000000000"];

fn ask<'a>(command: &[&'a str]) -> Vec<&'a str> {
    [command, &HOUR].concat()
}

both! {
    async fn books_go_in_are_asked_and_come_out(db: &Db) {
        let db = db.url();
        let done = import(&db, BOOKS);
        assert_eq!(stdout(&done), "6 lines: 2 orgs, 3 scale events, 1 samples; 0 rows were there\n", "{done:?}");
        assert_eq!(stdout(&import(&db, BOOKS)), "6 lines: 2 orgs, 0 scale events, 0 samples; 4 rows were there\n");

        let used = run(&db, &ask(&["usage", "--json", "--org", "o"]));
        assert_eq!(used.status.code(), Some(0), "{used:?}");
        assert_eq!(
            stdout(&used),
            concat!(
                r#"{"org":"o","from":"2026-06-08T16:00:00Z","to":"2026-06-08T17:00:00Z","#,
                r#""memory_mib_ns":"1107420000000000","memory_gib_seconds":1081.46484375,"#,
                r#""cpu_millicpu_ns":"1080250000000000","active_ns":"1080500000000","by_capacity":["#,
                r#"{"memory_mib":1024,"cpu_millis":1000,"active_ns":"1080000000000"},"#,
                r#"{"memory_mib":3000,"cpu_millis":500,"active_ns":"500000000"}]}"#,
                "\n"
            )
        );
        let parity = run(&db, &ask(&["parity", "--json"]));
        assert_eq!(parity.status.code(), Some(0), "{parity:?}");
        assert_eq!(
            stdout(&parity),
            concat!(
                r#"{"org":"o","bucket":"2026-06-08T16:00:00Z","cell_gib_seconds":1081.46484375,"#,
                r#""edge_gib_seconds":1080,"drift":-0.001354,"flagged":false}"#,
                "\n",
                r#"{"checked":1,"flagged":0,"skipped_free":1,"tolerance":0.02,"worst":-0.001354}"#,
                "\n"
            )
        );
        let by_sandbox = run(&db, &ask(&["parity", "--json", "--by-sandbox"]));
        assert_eq!(by_sandbox.status.code(), Some(1));
        let lines = stdout(&by_sandbox);
        assert!(lines.contains(r#""sandbox":"t","bucket":"2026-06-08T16:00:00Z","cell_gib_seconds":1.46484375,"edge_gib_seconds":0,"drift":-1,"flagged":true"#), "{lines}");
        assert!(lines.ends_with("{\"checked\":2,\"flagged\":1,\"skipped_free\":1,\"tolerance\":0.02,\"worst\":-1}\n"));
        let log = stdout(&run(&db, &ask(&["parity"])));
        assert!(log.ends_with("checked=1 flagged=0 skipped_free=1 worst=-0.14%\n"), "{log}");

        let books = run(&db, &["ledger", "export"]);
        assert_eq!(stdout(&books).lines().count(), 6);
        let copy = Db::sqlite();
        assert_eq!(import(&copy.url(), &stdout(&books)).status.code(), Some(0));
        assert_eq!(stdout(&run(&copy.url(), &["ledger", "export"])), stdout(&books));
    }

    async fn prices_come_from_a_file_and_what_has_none_is_said(db: &Db) {
        let db = db.url();
        import(&db, BOOKS);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), guestmeter::host::tiers::EXAMPLE).unwrap();
        let tiers = file.path().to_str().unwrap();
        let priced = run(&db, &ask(&["usage", "--json", "--org", "o", "--tiers", tiers]));
        assert_eq!(priced.status.code(), Some(1), "memory without a price was found");
        let price = r#""price":{"currency":"USD","total":"0.001167","off_tier":[{"memory_mib":3000,"cpu_millis":500,"active_ns":"500000000"}]}"#;
        assert!(stdout(&priced).contains(price), "{}", stdout(&priced));
        assert!(stderr(&priced).contains("in no tier"));
        let text = stdout(&run(&db, &ask(&["usage", "--org", "o", "--tiers", tiers])));
        assert!(text.contains("0.001167 USD\noff tier: 3,000 MiB for 0.500 s: no price\n"), "{text}");
        std::fs::write(file.path(), "currency = 1").unwrap();
        let broken = run(&db, &ask(&["usage", "--org", "o", "--tiers", tiers]));
        assert_eq!(broken.status.code(), Some(65));
        assert!(stderr(&broken).contains(tiers), "{}", stderr(&broken));
    }

    async fn a_line_that_does_not_fit_is_65_and_its_number(db: &Db) {
        let db = db.url();
        let bad = import(&db, &format!("{BOOKS}{{}}\n"));
        assert_eq!(bad.status.code(), Some(65));
        assert_eq!(stderr(&bad), "guestmeter: -:7: missing field `type` at line 1 column 2\n");
        assert_eq!(stdout(&run(&db, &["ledger", "export"])), "");
    }

    async fn a_prune_is_said_and_an_export_says_what_it_lacks(db: &Db) {
        let db = db.url();
        import(&db, BOOKS);
        let prune = |before: &str| run(&db, &["ledger", "prune", "--before", before]);
        let early = prune("2026-06-08T16:30:00Z");
        assert_eq!((early.status.code(), stderr(&early).ends_with("before: not on the hour\n")), (Some(2), true));
        let done = prune("2026-06-08T17:00:00Z");
        assert_eq!(stdout(&done), "1 scale events and 1 samples are hourly totals now; 0 answered calls and verdicts forgotten\n");
        let export = run(&db, &["ledger", "export"]);
        assert_eq!(stdout(&export).lines().count(), 4);
        assert!(stderr(&export).contains("before 2026-06-08T17:00:00Z this ledger has hourly totals only"));
        let cut = run(&db, &["usage", "--org", "o", "--from", "2026-06-08T16:01:00Z", "--to", "2026-06-08T17:00:00Z"]);
        assert_eq!(cut.status.code(), Some(2));
        assert!(stderr(&cut).contains("the window must begin and end on the hour"), "{}", stderr(&cut));
    }
}

#[test]
fn a_question_makes_no_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.db");
    let db = format!("sqlite:{}", path.display());
    for question in [ask(&["usage", "--org", "o"]), ask(&["parity"]), vec!["ledger", "export"]] {
        let output = run(&db, &question);
        assert_eq!(output.status.code(), Some(66));
        assert_eq!(stderr(&output), format!("guestmeter: {db}: there is no ledger at this path\n"));
        assert!(!path.exists());
    }
}

#[test]
fn no_password_is_ever_printed() {
    let secret = "s3cr3t";
    for (db, code, said) in [
        ("postgres://u:s3cr3t@127.0.0.1:1/cell", 69, "postgres://u@127.0.0.1:1/cell: cannot be reached: "),
        ("postgres://u:s3cr3t@[::1/cell", 2, "--db: the postgres:// address cannot be read"),
        ("mysql://u:s3cr3t@host/cell", 2, "--db: a ledger is sqlite:PATH or postgres://"),
        (
            "postgres:///cell?host=/nowhere&password=s3cr3t",
            69,
            "postgres:///cell?host=/nowhere: cannot be reached: ",
        ),
    ] {
        for output in [
            run(db, &ask(&["usage", "--org", "o"])),
            Command::new(env!("CARGO_BIN_EXE_guestmeter"))
                .args(ask(&["usage", "--org", "o"]))
                .env("GUESTMETER_DB", db)
                .output()
                .unwrap(),
        ] {
            assert_eq!(output.status.code(), Some(code), "{db}: {output:?}");
            assert!(stderr(&output).contains(said), "{db}: {}", stderr(&output));
            assert!(!format!("{output:?}").contains(secret), "{output:?}");
        }
        for arguments in [vec!["usage", "--help"], vec!["usage", "--from", "x"], vec!["parity", "--nonsense"]]
        {
            let mut command = Command::new(env!("CARGO_BIN_EXE_guestmeter"));
            let output = command.args(arguments).env("GUESTMETER_DB", db).output().unwrap();
            assert!(!format!("{output:?}").contains(secret), "{output:?}");
        }
    }
}

#[test]
fn instants_and_windows_that_are_none_are_bad_usage() {
    let db = "sqlite:/nowhere";
    for (arguments, said) in [
        (vec!["usage", "--org", "o", "--from", "yesterday", "--to", "1"], "not an instant from 1970 to 2262"),
        (vec!["usage", "--org", "o", "--from", "0", "--to", "9223372036854775808"], "not an instant"),
        (vec!["usage", "--from", "0", "--to", "1"], "--org"),
        (vec!["parity", "--from", "0", "--to", "2026-06-08T16:00:00Z"], "more than 8784 hours apart"),
        (vec!["ledger"], "Usage:"),
    ] {
        let output = run(db, &arguments);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(stderr(&output).contains(said), "{}", stderr(&output));
    }
}

/// On a terminal, which `script` is, an import shows how far it is.
#[test]
fn an_import_shows_its_progress_on_a_terminal_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("books");
    let line = |index: u64| {
        format!(
            "{{\"type\":\"sample\",\"id\":\"u{index}\",\"sandbox\":\"s\",\"org\":\"o\",\"memory_mib\":1,\"cpu_millis\":1,\"started_at\":{index},\"ended_at\":{index}}}\n"
        )
    };
    std::fs::write(&file, (0..20_000).map(line).collect::<String>()).unwrap();
    let db = format!("sqlite:{}", folder.path().join("l.db").display());
    let program = env!("CARGO_BIN_EXE_guestmeter");
    let import = format!("{program} ledger import {} --db {db}", file.display());
    let shown =
        Command::new("script").args(["-qefc", &import, "/dev/null"]).env("TERM", "xterm").output().unwrap();
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    assert!(stdout(&shown).contains("to go"), "{}", stdout(&shown));
    assert!(stdout(&shown).contains("20000 samples"), "{}", stdout(&shown));
    let piped = run(&db, &["ledger", "import", file.to_str().unwrap()]);
    assert_eq!(stderr(&piped), "");
}

#[test]
fn help_of_each_command() {
    let help = |arguments: &[&str]| {
        let output = run("", arguments);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        stdout(&output)
    };
    insta::assert_snapshot!("usage", help(&["usage", "--help"]));
    insta::assert_snapshot!("parity", help(&["parity", "--help"]));
    insta::assert_snapshot!("import", help(&["ledger", "import", "--help"]));
    insta::assert_snapshot!("prune", help(&["ledger", "prune", "--help"]));
}
