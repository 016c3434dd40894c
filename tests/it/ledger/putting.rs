//! Rows put whole, told anew, cut and annulled; and what the database itself refuses.

use super::*;
use guestmeter::host::ledger::{LedgerCause, LedgerError, LedgerFault};

fn cut(epoch: u64, at: Nanos) -> Change {
    Change::Cut { epoch: id(epoch), at }
}

async fn refusal(ledger: &Ledger, sandbox: &str, changes: Vec<Change>) -> LedgerCause {
    let posting = posting(ledger, sandbox, changes).await;
    match ledger.post_one(&posting).await {
        Err(LedgerError::Failed { cause, .. }) => cause,
        other => panic!("{other:?}"),
    }
}

both! {
    async fn a_life_is_a_row_for_each_size(db: &Db) {
        let ledger = db.open().await;
        post(&ledger, "s", vec![row(1, 1024, at(0, 0), None)]).await;
        post(&ledger, "s", vec![row(1, 1024, at(0, 0), None)]).await;
        assert_eq!(rows(&ledger, "s").await, [(1024, 0, None)], "the same again is nothing");
        post(&ledger, "s", vec![row(1, 1024, at(0, 0), Some(at(10, 0))), row(1, 4096, at(10, 0), None)]).await;
        post(&ledger, "s", vec![row(1, 4096, at(10, 0), Some(at(20, 0))), row(2, 4096, at(20, 0), None)]).await;
        assert_eq!(rows(&ledger, "s").await, [(1024, 0, Some(10)), (4096, 10, Some(20)), (4096, 20, None)]);
        let running = ledger.running("s").await.unwrap().unwrap();
        assert_eq!((running.epoch, running.started_at), (Some(id(2)), at(20, 0)));
        assert_eq!(running.id, format!("{:032x}/{}", 2, at(20, 0).0));
    }

    async fn what_stood_at_the_key_is_told_anew(db: &Db) {
        let ledger = db.open().await;
        let told = [(1024, None), (2048, Some(30)), (2048, Some(10)), (4096, Some(0)), (1024, None)];
        for (memory, end) in told {
            post(&ledger, "s", vec![row(1, memory, at(0, 0), end.map(|end| at(end, 0)))]).await;
            assert_eq!(rows(&ledger, "s").await, [(memory, 0, end)]);
        }
        for (memory, end) in [(1024, 10), (2048, 5), (1024, 0), (1024, 20)] {
            post(&ledger, "s", vec![sample(1, memory, at(0, 0), at(end, 0))]).await;
            let samples = ledger.samples("s", Nanos::ZERO, LATER).await.unwrap();
            let seen: Vec<_> = samples.iter().map(|row| (row.size.memory.0, row.ended_at)).collect();
            assert_eq!(seen, [(memory, at(end, 0))]);
        }
        let other = refusal(&ledger, "t", vec![sample(1, 1024, at(0, 0), at(1, 0))]).await;
        assert!(matches!(other, LedgerCause::Conflict { .. }), "an epoch is one sandbox's: {other}");
        let other = refusal(&ledger, "t", vec![row(1, 1024, at(0, 0), None)]).await;
        assert!(matches!(other, LedgerCause::Conflict { .. }), "{other}");
    }

    async fn a_cut_ends_what_reaches_beyond_it_in_both_books(db: &Db) {
        let ledger = db.open().await;
        post(&ledger, "s", vec![
            row(1, 1024, at(0, 0), Some(at(10, 0))),
            row(1, 2048, at(10, 0), Some(at(30, 0))),
            row(1, 4096, at(30, 0), None),
            sample(1, 1024, at(0, 0), at(9, 0)),
            sample(1, 2048, at(10, 0), at(29, 0)),
            sample(2, 2048, at(10, 0), at(29, 0)),
        ]).await;
        post(&ledger, "s", vec![cut(1, at(20, 0))]).await;
        assert_eq!(rows(&ledger, "s").await, [(1024, 0, Some(10)), (2048, 10, Some(20)), (4096, 30, Some(30))]);
        let samples = ledger.samples("s", Nanos::ZERO, LATER).await.unwrap();
        assert_eq!(samples.iter().map(|row| row.ended_at).collect::<Vec<_>>(), [at(9, 0), at(20, 0), at(29, 0)]);
        post(&ledger, "s", vec![cut(9, at(0, 0)), cut(1, at(25, 0))]).await;
        assert_eq!(usage(&ledger, "o", at(0, 0), at(60, 0)).await.active_ns(), u128::from(20 * MINUTE));
    }

    /// An import left it open, and a worker begins to keep the sandbox's books.
    async fn an_imported_open_row_ends_where_the_workers_begins(db: &Db) {
        let ledger = db.open().await;
        let line = |id: &str, sandbox: &str, start: Nanos| {
            format!(
                "{{\"type\":\"scale\",\"id\":\"{id}\",\"sandbox\":\"{sandbox}\",\"org\":\"o\",\"memory_mib\":512,\"cpu_millis\":1,\"started_at\":{},\"ended_at\":null}}\n",
                start.0
            )
        };
        let lines = line("i", "s", at(0, 0)) + &line("j", "t", at(20, 0));
        ledger.import(lines.as_bytes(), "lines", |_| {}).await.unwrap();
        for sandbox in ["s", "t"] {
            let epoch = u64::from(sandbox.as_bytes()[0]);
            post(&ledger, sandbox, vec![row(epoch, 1024, at(10, 0), None)]).await;
        }
        assert_eq!(rows(&ledger, "s").await, [(512, 0, Some(10)), (1024, 10, None)]);
        assert_eq!(rows(&ledger, "t").await, [(1024, 10, None), (512, 20, Some(20))]);
    }

    /// Not by the code that writes, but by the database; and that is the posting's fault, not the database's.
    async fn the_database_refuses_a_second_open_row(db: &Db) {
        let ledger = db.open().await;
        post(&ledger, "s", vec![row(1, 1024, at(0, 0), None)]).await;
        let second = refusal(&ledger, "s", vec![row(2, 1024, at(9, 0), None)]).await;
        assert!(second.to_string().starts_with("the ledger's rules refuse it: "), "{second}");
        assert_eq!(second.fault(), LedgerFault::Data);
        assert_eq!(rows(&ledger, "s").await, [(1024, 0, None)]);

        let insert = "INSERT INTO scale_event (id, sandbox, org, memory_mib, cpu_millis, started_at, ended_at) VALUES ";
        let refused = db.sql(&format!("{insert} ('x', 's', 'o', 1, 1, 1, NULL)")).await.unwrap_err();
        assert!(refused.to_lowercase().contains("unique"), "{refused}");
        db.sql(&format!("{insert} ('y', 's', 'o', 1, 1, 1, 2)")).await.unwrap();
        for broken in ["('z', 't', 'o', 1, 1, 2, 1)", "('z', 't', 'o', -1, 1, 1, 1)", "('z', 't', 'o', 1, 1, -1, 1)"] {
            db.sql(&format!("{insert} {broken}")).await.unwrap_err();
        }
    }
}
