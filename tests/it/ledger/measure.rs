//! How long a question takes as the books grow tenfold. Not a test of `cargo test`: `tests/measure/ledger` runs it.

use super::*;
use sqlx::{AnyConnection, Connection, Row};
use std::time::{Duration, Instant};

const ORGS: u64 = 100;
/// Between the starts of two events of all: an org has twenty starts an hour, at any size of the books.
const SPACING: u64 = 1_800_000_000;
const QUESTIONS: u64 = 300;
const PLAIN_QUESTIONS: u64 = 30;
/// It must reach.
const FLAT_MAX_PERCENT: u128 = 150;
const PLAIN_MAX_PERCENT: u128 = 50;

/// Events `first` to `last`: four sizes; most last minutes, some hours, a few days. `$1`, `$2` and `$3` are first, last
/// and the beginning of time.
const COLUMNS: &str = "'g' || (1000000000000 + n), 's' || n, 'o' || (n % 100), 1024 << CAST(n % 5 AS INTEGER), 1000 + 1000 * (n % 3), \
    $3 + n * 1800000000, $3 + n * 1800000000 + CASE \
    WHEN h % 100 < 80 THEN 60000000000 + (h % 1740) * 1000000000 \
    WHEN h % 100 < 95 THEN 1800000000000 + (h % 18000) * 1000000000 \
    ELSE 21600000000000 + (h % 151200) * 1000000000 END";
const INSERT: &str =
    "INSERT INTO scale_event (id, sandbox, org, memory_mib, cpu_millis, started_at, ended_at) SELECT ";

const PLAIN: &str = "SELECT memory_mib, cpu_millis, CAST(SUM(CASE WHEN ended_at IS NULL THEN $4 WHEN ended_at > $3 \
    THEN $3 ELSE ended_at END - CASE WHEN started_at > $2 THEN started_at ELSE $2 END) AS BIGINT) FROM scale_event \
    WHERE org = $1 AND started_at < $3 AND (ended_at IS NULL OR ended_at > $2) GROUP BY memory_mib, cpu_millis \
    ORDER BY memory_mib, cpu_millis";

fn postgres(db: &Db) -> bool {
    matches!(db, Db::Postgres { .. })
}

async fn connect(db: &Db) -> AnyConnection {
    sqlx::any::install_default_drivers();
    AnyConnection::connect(&db.url()).await.unwrap()
}

async fn run(connection: &mut AnyConnection, sql: &str) {
    sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())).execute(connection).await.unwrap();
}

/// Adds events by the database's own means; its indexes are made anew afterwards, which is faster and the same.
async fn fill(db: &Db, first: u64, last: u64) {
    let mut connection = connect(db).await;
    let indexes = if postgres(db) {
        "SELECT indexname, indexdef FROM (SELECT CAST(indexname AS TEXT) AS indexname, indexdef FROM pg_indexes \
         WHERE tablename = 'scale_event') AS i WHERE indexname NOT LIKE '%pkey'"
    } else {
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'scale_event' AND sql IS NOT NULL"
    };
    let indexes: Vec<(String, String)> = sqlx::query(indexes)
        .fetch_all(&mut connection)
        .await
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    for (name, _) in &indexes {
        run(&mut connection, &format!("DROP INDEX {name}")).await;
    }
    let hash = "(n * 2654435761) % 4294967296 / 7 AS h";
    let (before, from) = if postgres(db) {
        (String::new(), format!("(SELECT n, {hash} FROM generate_series($1, $2) AS n) AS series"))
    } else {
        let with =
            "WITH RECURSIVE numbers(n) AS (SELECT $1 UNION ALL SELECT n + 1 FROM numbers WHERE n < $2) ";
        (with.to_owned(), format!("(SELECT n, {hash} FROM numbers) AS series"))
    };
    sqlx::query(sqlx::AssertSqlSafe(format!("{before}{INSERT}{COLUMNS} FROM {from}")))
        .bind(i64::try_from(first).unwrap())
        .bind(i64::try_from(last).unwrap())
        .bind(i64::try_from(HOUR_16.0).unwrap())
        .execute(&mut connection)
        .await
        .unwrap();
    for (_, sql) in &indexes {
        run(&mut connection, sql).await;
    }
    run(&mut connection, if postgres(db) { "VACUUM ANALYZE scale_event" } else { "ANALYZE" }).await;
    connection.close().await.unwrap();
}

/// Rows that are open since before all others: a few of each org's.
async fn open_rows(ledger: &Ledger) {
    let line = |index: u64| {
        format!(
            "{{\"type\":\"scale\",\"id\":\"open{index}\",\"sandbox\":\"open{index}\",\"org\":\"o{}\",\"memory_mib\":1024,\"cpu_millis\":1000,\"started_at\":{},\"ended_at\":null}}\n",
            index % ORGS,
            HOUR_16.0 - index
        )
    };
    let lines: String = (0..10 * ORGS).map(line).collect();
    ledger.import(lines.as_bytes(), "open", |_| {}).await.unwrap();
}

/// The hours that are asked for: scattered over all orgs and over the history, but for its ends.
fn questions(events: u64, count: u64) -> impl Iterator<Item = (String, Nanos, Nanos)> {
    let hours = events * SPACING / HOUR;
    (0..count).map(move |index| {
        let hour = hours / 10 + index * 7919 % (hours * 8 / 10);
        let from = Nanos(HOUR_16.0 + hour * HOUR);
        (format!("o{}", index * 31 % ORGS), from, Nanos(from.0 + HOUR))
    })
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

async fn ours(ledger: &Ledger, events: u64) -> Duration {
    let mut times = Vec::new();
    for round in 0..2 {
        for (org, from, to) in questions(events, QUESTIONS) {
            let began = Instant::now();
            let used = ledger.usage(&org, from, to, LATER).await.unwrap();
            // The first round fills the caches of both sides.
            if round == 1 {
                times.push(began.elapsed());
            }
            assert!(used.active_ns() > 0);
        }
    }
    median(times)
}

/// The plain query with the index that its author would give it, checked to have the same answer.
async fn plain(db: &Db, ledger: &Ledger, events: u64) -> Duration {
    let mut connection = connect(db).await;
    run(&mut connection, "CREATE INDEX IF NOT EXISTS plain ON scale_event (org, started_at)").await;
    run(&mut connection, if postgres(db) { "VACUUM ANALYZE scale_event" } else { "ANALYZE" }).await;
    let mut times = Vec::new();
    for round in 0..2 {
        for (org, from, to) in questions(events, PLAIN_QUESTIONS) {
            let bound = |instant: Nanos| i64::try_from(instant.0).unwrap();
            let query =
                sqlx::query(PLAIN).bind(org.as_str()).bind(bound(from)).bind(bound(to)).bind(bound(to));
            let began = Instant::now();
            let rows = query.fetch_all(&mut connection).await.unwrap();
            if round == 1 {
                times.push(began.elapsed());
                continue;
            }
            let sums: u128 = rows.iter().map(|row| u128::try_from(row.get::<i64, _>(2)).unwrap()).sum();
            assert_eq!(ledger.usage(&org, from, to, LATER).await.unwrap().active_ns(), sums);
        }
    }
    run(&mut connection, "DROP INDEX plain").await;
    connection.close().await.unwrap();
    median(times)
}

/// What was measured, and whether it is as it must be.
fn ratio(name: &str, part: Duration, whole: Duration, max_percent: u128) -> bool {
    let percent = part.as_nanos() * 100 / whole.as_nanos();
    let (fits, part, whole) = (percent <= max_percent, part.as_micros(), whole.as_micros());
    println!(
        "ratio {name}: {}.{:02} ({part} µs / {whole} µs; at most {}.{:02}) {}",
        percent / 100,
        percent % 100,
        max_percent / 100,
        max_percent % 100,
        if fits { "ok" } else { "FAILED" }
    );
    fits
}

/// Polls of five thousand agents, one each five seconds, come to this.
const POSTINGS_MIN: u128 = 1000;
const BATCH: u64 = 256;
const BATCHES: u64 = 20;

/// What a worker does all day: an account and a sample that grows, many sandboxes in a transaction.
async fn postings(name: &str, ledger: &Ledger) -> bool {
    let mut batch = Vec::new();
    for sandbox in 0..BATCH {
        batch.push(posting(ledger, &format!("p{sandbox}"), Vec::new()).await);
    }
    let mut took = Duration::ZERO;
    for round in 0..=BATCHES {
        for (sandbox, posting) in (0..BATCH).zip(&mut batch) {
            posting.account.expected_version = round;
            posting.changes = vec![sample(1_000_000 + sandbox, 1024, at(0, 0), at(0, round))];
        }
        let began = Instant::now();
        let posted = ledger.post(&batch).await;
        // The first round makes the rows.
        if round > 0 {
            took += began.elapsed();
        }
        assert!(posted.iter().all(|one| matches!(one, Ok(Posted::Done { .. }))));
    }
    let rate = u128::from(BATCH * BATCHES) * 1_000_000 / took.as_micros();
    let fits = rate >= POSTINGS_MIN;
    let verdict = if fits { "ok" } else { "FAILED" };
    println!(
        "count {name}: {rate} postings a second, {BATCH} in a transaction (at least {POSTINGS_MIN}) {verdict}"
    );
    fits
}

async fn measure(name: &str, db: &Db, events: u64) -> bool {
    let ledger = db.open().await;
    let quick = postings(name, &ledger).await;
    open_rows(&ledger).await;
    let tenth = events / 10;
    fill(db, 1, tenth).await;
    let small = ours(&ledger, tenth).await;
    fill(db, tenth + 1, events).await;
    let large = ours(&ledger, events).await;
    let plain = plain(db, &ledger, events).await;
    let flat = ratio(
        &format!("{name}: an org's hour in {events} events / in {tenth}"),
        large,
        small,
        FLAT_MAX_PERCENT,
    );
    let faster = ratio(
        &format!("{name}: an org's hour / the plain query, {events} events"),
        large,
        plain,
        PLAIN_MAX_PERCENT,
    );
    quick && flat && faster
}

#[test]
#[ignore = "minutes, and gigabytes of disk: tests/measure/ledger runs it"]
fn an_orgs_hour_takes_the_same_time_in_ten_times_the_books() {
    let events = std::env::var("GUESTMETER_LEDGER_EVENTS").map_or(10_000_000, |text| text.parse().unwrap());
    let settings = [
        "fsync=off",
        "shared_buffers=1GB",
        "maintenance_work_mem=512MB",
        "max_wal_size=8GB",
        "autovacuum=off",
    ];
    let server = Arc::new(Server::start(&settings).expect("this needs PostgreSQL"));
    let url = server.database("measure");
    let fits = block_on(async {
        let sqlite = measure("SQLite", &Db::sqlite(), events).await;
        let postgres = measure("PostgreSQL", &Db::Postgres { _server: server, url }, events).await;
        sqlite && postgres
    });
    assert!(fits, "see the ratios");
}
