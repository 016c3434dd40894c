//! A ledger that is locked, full, read-only or gone: nothing is acknowledged, nothing is lost.

use super::*;
use sqlx::Connection;

/// Takes the ledger's lock until it is dropped.
struct Lock {
    runtime: tokio::runtime::Runtime,
    connection: Option<sqlx::SqliteConnection>,
}

impl Lock {
    fn take(worker: &Worker) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let url = worker.db.replace("sqlite:", "sqlite://");
        let connection = runtime.block_on(async {
            let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
            sqlx::query("PRAGMA busy_timeout = 10000").execute(&mut connection).await.unwrap();
            sqlx::query("BEGIN IMMEDIATE").execute(&mut connection).await.unwrap();
            connection
        });
        Self { runtime, connection: Some(connection) }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut connection = self.connection.take().unwrap();
        self.runtime.block_on(async {
            sqlx::query("ROLLBACK").execute(&mut connection).await.unwrap();
            connection.close().await.unwrap();
        });
    }
}

#[test]
fn while_the_ledger_is_locked_nothing_is_acknowledged_and_after_it_all_is_there() {
    let guest = Guest::start();
    let mut worker = Worker::start(FAST);
    worker.add("sb", &guest.target());
    worker.call("sb", "started", json!({ "memory_mib": 1024 }));
    until("its first report is acked", || worker.metric("guestmeter_acks_total") >= 1.0);
    let epoch = worker.epoch("sb");

    let lock = Lock::take(&worker);
    let mut body = json!({ "event_id": "late", "at": now(), "epoch": epoch, "deadline_ms": 1000 });
    let began = Instant::now();
    let (status, refused) = worker.try_call("sb", "pausing", &body);
    assert_eq!((status, refused["error"].as_str()), (503, Some("ledger")), "{refused}");
    // The call's own limit, not one of the ledger's, which are longer.
    assert!(refused["message"].as_str().unwrap().contains("no answer within 1s"), "{refused}");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    until("it is known to be down", || worker.get("/healthz").0 == 503);
    assert_eq!(worker.metric("guestmeter_ledger_up"), 0.0);
    let acks = worker.metric("guestmeter_acks_total");
    // The guest is still asked.
    let answered = worker.metric("guestmeter_polls_total{name=\"answered\"}");
    until("polls go on", || worker.metric("guestmeter_polls_total{name=\"answered\"}") > answered + 2.0);
    assert_eq!(worker.metric("guestmeter_acks_total"), acks);
    drop(lock);

    until("it is back", || worker.get("/healthz").0 == 200);
    // The same call, with all the time that it may need.
    body["deadline_ms"] = json!(30_000);
    let began = Instant::now();
    let (status, answer) = worker.try_call("sb", "pausing", &body);
    worker.was_under_way("sb", began);
    assert_eq!((status, &answer["outcome"]), (200, &json!("confirmed")), "{answer}\n{}", worker.log());
    worker.stop();
    let rows = worker.rows("sb");
    let samples: u64 = worker.samples("sb").iter().map(|one| one.ended_at.0 - one.started_at.0).sum();
    assert_eq!(rows.len(), 1, "{rows:#?}");
    let whole = length(&rows, 0);
    assert!(whole - samples < worker.uncounted_most("sb"), "the guest's time is whole: {samples} of {whole}");
    assert!(worker.log().contains("the ledger is back"));
}

/// A file system of its own, gone with it; `None`, said aloud, where none may be mounted.
pub(super) struct Mount(TempDir);

impl Mount {
    /// Larger than the database's log of writes (4 MiB), however long a busy machine writes to it.
    pub(super) fn new() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=16m,mode=0777", "tmpfs"])
            .arg(folder.path())
            .stderr(Stdio::null());
        if mount.status().is_ok_and(|status| status.success()) {
            return Some(Self(folder));
        }
        crate::under::skip("a file system cannot be mounted here; run as root");
        None
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    fn remount(&self, options: &str) {
        let mut mount = Command::new("mount");
        let status = mount.args(["-o", &format!("remount,{options}")]).arg(self.0.path()).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_told_and_mended_without_a_restart() {
    let Some(mount) = Mount::new() else { return };
    let folder = tempfile::tempdir().unwrap();
    let db = format!("sqlite:{}", mount.path().join("ledger.db").display());
    let mut worker = Worker::prepare_in(folder, db, FAST);
    worker.run();
    worker.add("sb", "");
    let filler = mount.path().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);
    // Space that the database has of its own may last for a few calls.
    let mut said = Value::Null;
    until("a call is refused", || {
        let mut body = json!({ "event_id": event(), "at": now(), "epoch": worker.epoch("sb") });
        body["memory_mib"] = json!(1024);
        let (status, answer) = worker.try_call("sb", "started", &body);
        said = answer;
        status == 503
    });
    assert!(said["message"].as_str().unwrap().contains("disk is full"), "{said}");
    assert_eq!(worker.get("/healthz").0, 503);
    std::fs::remove_file(&filler).unwrap();
    let body = json!({ "event_id": event(), "at": now(), "epoch": worker.epoch("sb"), "memory_mib": 2048 });
    until("it is taken", || worker.try_call("sb", "started", &body).0 == 200);
    assert_eq!(worker.get("/healthz").0, 200);
}

#[test]
fn a_ledger_that_cannot_be_written_is_told() {
    let Some(mount) = Mount::new() else { return };
    let folder = tempfile::tempdir().unwrap();
    let db = format!("sqlite:{}", mount.path().join("ledger.db").display());
    let mut worker = Worker::prepare_in(folder, db, FAST);
    worker.run();
    worker.add("sb", "");
    // What is open for writing holds up the change: it is made of copies.
    worker.stop();
    mount.remount("ro");
    let mut command = worker.command();
    let output = command.stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code().map(|code| code != 0), Some(true), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("read-only"), "{said}");
    mount.remount("rw");
    worker.run();
    assert_eq!(worker.get("/healthz").0, 200);
}

#[test]
fn a_server_that_goes_away_and_comes_back() {
    let Some(server) = crate::ledger::postgres::Server::shared() else { return };
    let db = server.database(&format!("worker{}", std::process::id()));
    let guest = Guest::start();
    let mut worker = Worker::prepare_in(tempfile::tempdir().unwrap(), db.clone(), FAST);
    worker.run();
    worker.add("sb", &guest.target());
    worker.call("sb", "started", json!({ "memory_mib": 1024 }));
    let name = db.trim_start_matches("postgres:///").split('?').next().unwrap().to_owned();
    let maintenance = db.replace(&format!("/{name}?"), "/postgres?");
    // Nobody gets in, and whoever is in is thrown out: what a server that restarts looks like.
    sql(&maintenance, &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false"));
    let terminate = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname";
    sql(&maintenance, &format!("{terminate} = '{name}'"));
    let epoch = worker.epoch("sb");
    let mut body = json!({ "event_id": "late", "at": now(), "epoch": epoch, "deadline_ms": 1500 });
    let (status, refused) = worker.try_call("sb", "pausing", &body);
    assert_eq!(status, 503, "{refused}");
    until("it is known to be down", || worker.get("/healthz").0 == 503);
    sql(&maintenance, &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true"));
    body["deadline_ms"] = json!(30_000);
    until("the call is taken", || worker.try_call("sb", "pausing", &body).0 == 200);
    assert_eq!(worker.get("/healthz").0, 200);
    worker.stop();
    let rows = worker.rows("sb");
    assert_eq!(rows.len(), 1, "{rows:#?}");
    assert!(rows[0].ended_at.is_some());
}

fn sql(url: &str, statement: &str) {
    sqlx::any::install_default_drivers();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = sqlx::AnyConnection::connect(url).await.unwrap();
        sqlx::query(sqlx::AssertSqlSafe(statement.to_owned())).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    });
}
