//! A ledger that is gone, stopped, slow, full, read-only, locked, too new, or none: each said in time, with its cause.

use super::*;
use guestmeter::host::ledger::{Access, LedgerCause, LedgerError, LedgerFault, Limits};
use std::io::Write;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Waits for a lock no longer than a moment, and for a server as long as one that is only busy may take.
const HASTY: Limits = Limits {
    connect: Duration::from_secs(4),
    lock: Duration::from_millis(200),
    statement: Duration::from_secs(4),
    connections: 2,
};

/// Who waits longer waits for what hangs.
const PATIENCE: Duration = Duration::from_secs(60);

fn cause(error: LedgerError) -> LedgerCause {
    match error {
        LedgerError::Failed { cause, .. } => cause,
        other => panic!("{other}"),
    }
}

async fn hasty(db: &Db, access: Access) -> Result<Ledger, LedgerCause> {
    Ledger::open_with(db.location(), access, HASTY).await.map_err(cause)
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let done = work.await;
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    done
}

fn guestmeter(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_guestmeter")).args(arguments).output().unwrap()
}

fn usage_of(url: &str) -> Output {
    guestmeter(&["usage", "--org", "o", "--from", "0", "--to", "1", "--db", url])
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Lines that need far more room than any small disk of these tests has.
fn large_books() -> String {
    let line = |index: u64| {
        let pad = "x".repeat(200);
        format!(
            "{{\"type\":\"sample\",\"id\":\"{index}{pad}\",\"sandbox\":\"{pad}\",\"org\":\"{pad}\",\"memory_mib\":1,\"cpu_millis\":1,\"started_at\":{index},\"ended_at\":{index}}}\n"
        )
    };
    (0..40_000).map(line).collect()
}

both! {
    async fn a_newer_schema_is_left_alone(db: &Db) {
        db.open().await.close().await;
        db.sql("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                SELECT 99, description, success, checksum, 0 FROM _sqlx_migrations WHERE version = 1").await.unwrap();
        for access in [Access::Create, Access::Write, Access::Read] {
            let error = hasty(db, access).await.unwrap_err();
            assert_eq!(error.to_string(), "its schema is 99, this guestmeter knows 1: install a newer one");
        }
        let output = usage_of(&db.url());
        assert_eq!(output.status.code(), Some(65), "{output:?}");
        assert!(said(&output).contains("its schema is 99"), "{}", said(&output));

        db.sql("UPDATE _sqlx_migrations SET version = 1, checksum = (SELECT id FROM epoch) WHERE version = 99").await.unwrap_err();
        db.sql("DELETE FROM _sqlx_migrations WHERE version = 99").await.unwrap();
        let checksum = if matches!(db, Db::Sqlite(_)) { "x'00'" } else { "'\\x00'" };
        db.sql(&format!("UPDATE _sqlx_migrations SET checksum = {checksum}")).await.unwrap();
        let error = hasty(db, Access::Write).await.unwrap_err();
        assert!(error.to_string().starts_with("its schema 1 is not what this guestmeter made"), "{error}");
    }

    async fn a_question_can_change_nothing(db: &Db) {
        let error = hasty(db, Access::Read).await.unwrap_err();
        assert!(matches!(error, LedgerCause::Missing | LedgerCause::Damaged(_)), "{error}");
        db.open().await.close().await;
        let ledger = hasty(db, Access::Read).await.unwrap();
        assert_eq!(usage(&ledger, "o", at(0, 0), at(60, 0)).await, Usage::default());
        let posting = posting(&ledger, "s", vec![row(1, 1024, at(0, 0), None)]).await;
        let error = cause(ledger.post_one(&posting).await.unwrap_err());
        assert!(matches!(error, LedgerCause::ReadOnly(_)), "{error}");
        assert_eq!(error.fault(), LedgerFault::Operator);
    }

    async fn a_lock_of_another_program_is_waited_for_and_then_said(db: &Db) {
        use sqlx::Connection;
        let ledger = db.open().await;
        post(&ledger, "s", vec![row(1, 1024, at(0, 0), None)]).await;
        let hasty = hasty(db, Access::Write).await.unwrap();
        let posting = posting(&ledger, "s", vec![row(1, 2048, at(0, 0), None)]).await;
        let mut other = sqlx::AnyConnection::connect(&db.url()).await.unwrap();
        let begin = if matches!(db, Db::Sqlite(_)) { "BEGIN IMMEDIATE" } else { "BEGIN" };
        let mut holding = other.begin_with(begin).await.unwrap();
        sqlx::query("UPDATE account SET org = org").execute(&mut *holding).await.unwrap();
        let error = cause(in_time(hasty.post_one(&posting)).await.unwrap_err());
        assert!(matches!(error, LedgerCause::Locked(_)), "{error}");
        assert_eq!(error.to_string(), "locked by another program for longer than 200ms");
        assert_eq!(error.fault(), LedgerFault::TryAgain);
        // Questions do not wait.
        assert_eq!(in_time(hasty.usage("o", at(0, 0), at(1, 0), LATER)).await.unwrap().active_ns(), u128::from(MINUTE));
        holding.rollback().await.unwrap();
        assert_eq!(hasty.post_one(&posting).await.unwrap(), Posted::Done { version: 2 });
    }
}

#[test]
fn a_file_that_is_no_ledger_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    let url = format!("sqlite:{}", path.display());
    let refused = |url: &str| block_on(Ledger::open(url)).unwrap_err();
    std::fs::write(&path, "not a database, but long enough to be looked at as one".repeat(40)).unwrap();
    let before = std::fs::read(&path).unwrap();
    let error = refused(&url).to_string();
    assert_eq!(error, format!("{url}: not a ledger, or damaged: file is not a database"));
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(usage_of(&url).status.code(), Some(65));

    std::fs::remove_file(&path).unwrap();
    block_on(async {
        use sqlx::Connection;
        sqlx::any::install_default_drivers();
        let mut other = sqlx::AnyConnection::connect(&format!("{url}?mode=rwc")).await.unwrap();
        sqlx::query("CREATE TABLE mails (id INTEGER)").execute(&mut other).await.unwrap();
        other.close().await.unwrap();
    });
    assert!(refused(&url).to_string().ends_with("it is another program's database"));

    let directory = refused(&format!("sqlite:{}", folder.path().display())).to_string();
    assert!(
        directory.ends_with("it is a directory") || directory.ends_with("Is a directory (os error 21)"),
        "{directory}"
    );
    let nowhere = refused("sqlite:/nowhere/ledger.db").to_string();
    assert_eq!(
        nowhere,
        "sqlite:/nowhere/ledger.db: cannot be reached: No such file or directory (os error 2)"
    );
}

/// Writes to a file that is gone would be lost without a word.
#[test]
fn a_file_that_is_removed_or_replaced_is_noticed() {
    let db = Db::sqlite();
    block_on(async {
        let ledger = db.open().await;
        let other = Db::sqlite();
        other.open().await.close().await;
        let path = db.location().path().unwrap().to_owned();
        let posting = posting(&ledger, "s", vec![row(1, 1024, at(0, 0), None)]).await;
        std::fs::rename(&path, path.with_extension("moved")).unwrap();
        for replacement in [None, other.location().path()] {
            if let Some(replacement) = replacement {
                std::fs::copy(replacement, &path).unwrap();
            }
            for error in [ledger.post_one(&posting).await.map(drop), ledger.account("s").await.map(drop)] {
                let error = cause(error.unwrap_err());
                assert!(matches!(error, LedgerCause::Unreachable(_)), "{error}");
                assert!(error.to_string().contains("removed or replaced"), "{error}");
            }
        }
    });
}

/// As nobody, who may read it and not write it: what a wrong owner looks like.
#[test]
fn a_file_of_another_owner_is_read_only() {
    if !rustix::process::geteuid().is_root() {
        let _ = writeln!(std::io::stderr(), "skipped: only root can become another user");
        return;
    }
    let db = Db::sqlite();
    block_on(db.open());
    let Db::Sqlite(folder) = &db else { unreachable!() };
    let program = folder.path().join("guestmeter");
    std::fs::copy(env!("CARGO_BIN_EXE_guestmeter"), &program).unwrap();
    let open_to_all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open_to_all).unwrap();
    let mut import = Command::new("setpriv");
    import.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&program);
    let output = import.args(["ledger", "import", "/dev/null", "--db", &db.url()]).output().unwrap();
    assert_eq!(output.status.code(), Some(74), "{output:?}");
    assert_eq!(
        said(&output),
        format!(
            "guestmeter: {}: read-only, or not writable by this user: Permission denied (os error 13)\n",
            db.url()
        )
    );
}

/// A small disk, in a mount namespace of the test's own.
#[test]
fn a_full_disk_is_said_and_leaves_the_ledger_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("large"), large_books()).unwrap();
    std::fs::write(folder.path().join("small"), large_books().lines().next().unwrap()).unwrap();
    std::fs::create_dir(folder.path().join("disk")).unwrap();
    let script = "mount -t tmpfs -o size=2m tmpfs disk || exit 99
        \"$1\" ledger import small --db sqlite:disk/l.db || exit 98
        \"$1\" ledger import large --db sqlite:disk/l.db; code=$?
        \"$1\" ledger export --db sqlite:disk/l.db | wc -l
        exit $code";
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_guestmeter")]);
    let output = shell.current_dir(folder.path()).output().unwrap();
    if output.status.code() == Some(99) || said(&output).starts_with("unshare:") {
        let _ = writeln!(std::io::stderr(), "skipped: no mount namespace here: {}", said(&output).trim());
        return;
    }
    assert_eq!(output.status.code(), Some(74), "{output:?}");
    assert_eq!(said(&output), "guestmeter: sqlite:disk/l.db: its disk is full: database or disk is full\n");
    assert!(String::from_utf8(output.stdout).unwrap().ends_with("\n1\n"));
}

#[test]
fn a_full_server_is_said_and_leaves_the_ledger_as_it_was() {
    let Some(server) = Server::start_on_small_disk() else { return };
    let url = server.database("full");
    block_on(async {
        let ledger = Ledger::open(&url).await.unwrap();
        post(&ledger, "s", vec![sample(1, 1024, at(0, 0), at(1, 0))]).await;
        let error = ledger.import(large_books().as_bytes(), "large", |_| {}).await.unwrap_err().to_string();
        assert!(error.contains("its disk is full: ") && !error.contains("large:"), "{error}");
        assert_eq!(ledger.samples("s", Nanos::ZERO, LATER).await.unwrap().len(), 1);
        assert_eq!(ledger.export(&mut Vec::new()).await.unwrap().lines, 1);
    });
}

#[test]
fn a_server_that_stands_still_is_given_up_in_time() {
    let Some(server) = Server::start(&["fsync=off", "shared_buffers=16MB"]) else { return };
    let url = server.database("still");
    block_on(async {
        let hasty = || Ledger::open_with(url.parse().unwrap(), Access::Write, HASTY);
        Ledger::open(&url).await.unwrap().close().await;
        let ledger = hasty().await.unwrap();
        let posting = posting(&ledger, "s", vec![row(1, 1024, at(0, 0), None)]).await;
        let stopped = server.stop_still();
        // A batch is given up as one.
        let batch = vec![posting.clone(); 50];
        let given_up = in_time(ledger.post(&batch)).await;
        assert!(
            given_up
                .iter()
                .all(|one| one.as_ref().is_err_and(|error| error.fault() == LedgerFault::TryAgain))
        );
        for error in [
            cause(in_time(ledger.post_one(&posting)).await.unwrap_err()),
            cause(in_time(ledger.usage("o", at(0, 0), at(1, 0), LATER)).await.unwrap_err()),
            cause(in_time(hasty()).await.unwrap_err()),
        ] {
            assert!(matches!(error, LedgerCause::TimedOut(_)), "{error}");
            assert_eq!(error.fault(), LedgerFault::TryAgain);
        }
        drop(stopped);
        // Whether it was posted before is not known to the one who gave up: the ledger knows.
        let posted = loop {
            match ledger.post_one(&posting).await {
                Ok(posted) => break posted,
                Err(error) => assert_eq!(cause(error).fault(), LedgerFault::TryAgain),
            }
        };
        assert!(matches!(posted, Posted::Done { version: 1 } | Posted::Stale), "{posted:?}");
        assert_eq!(rows(&ledger, "s").await, [(1024, 0, None)]);
    });
}

#[test]
fn a_server_that_is_gone_or_says_no_is_named_with_its_cause() {
    let Some(server) = Server::start(&["fsync=off", "shared_buffers=16MB"]) else { return };
    let url = server.database("gone");
    block_on(async {
        let ledger = Ledger::open_with(url.parse().unwrap(), Access::Create, HASTY).await.unwrap();
        post(&ledger, "s", vec![row(1, 1024, at(0, 0), None)]).await;

        let other = url.replace("/gone?", "/nothing?");
        let error = Ledger::open(&other).await.unwrap_err().to_string();
        assert!(error.ends_with(": cannot be reached: database \"nothing\" does not exist"), "{error}");
        let error =
            Ledger::open(&url.replace("user=guestmeter", "user=mallory")).await.unwrap_err().to_string();
        assert!(error.ends_with(": cannot be reached: role \"mallory\" does not exist"), "{error}");
        let db = Db::Postgres { _server: Server::shared().unwrap(), url: url.clone() };
        db.sql("CREATE ROLE reader LOGIN").await.unwrap();
        let reader = Ledger::open(&url.replace("user=guestmeter", "user=reader")).await;
        let error = reader.unwrap_err().to_string();
        assert!(error.contains("not writable by this user: permission denied"), "{error}");

        drop(server);
        let error = cause(in_time(ledger.account("s")).await.unwrap_err());
        assert!(matches!(error, LedgerCause::Unreachable(_)), "{error}");
        assert_eq!(error.fault(), LedgerFault::TryAgain);
        let error = cause(in_time(ledger.account("s")).await.unwrap_err());
        assert_eq!(error.to_string(), "cannot be reached: No such file or directory (os error 2)");
        let output = usage_of(&url);
        assert_eq!(output.status.code(), Some(69), "{output:?}");
        assert!(said(&output).contains("/gone?host=/"), "{}", said(&output));
    });
}
