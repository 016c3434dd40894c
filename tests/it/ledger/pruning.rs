//! Pruned books answer as before, in whole hours, and take nothing back.

use super::*;
use guestmeter::host::ledger::{
    Answer, Book, Event, LedgerCause, LedgerError, PRUNE_AGE_MIN, Pruned, Verdict,
};

const NOW: Nanos = Nanos(HOUR_16.0 + 100 * HOUR);

fn hour(index: u64) -> Nanos {
    Nanos(HOUR_16.0 + index * HOUR)
}

/// Two sandboxes over two days, at three sizes, over hour boundaries and beside them.
async fn fill(ledger: &Ledger) {
    for (sandbox, epoch) in [("s", 1), ("t", 2)] {
        let mut changes = Vec::new();
        for step in 0..60 {
            let end = (step < 59).then(|| at((step + 1) * 47, step + 1));
            changes.push(row(epoch, 1024 << (step % 3), at(step * 47, step), end));
            changes.push(sample(epoch, 1024 << (step % 3), at(step * 47, step), at(step * 47 + 46, 0)));
        }
        post(ledger, sandbox, changes).await;
    }
}

async fn answers(ledger: &Ledger) -> Vec<(Usage, Usage)> {
    let mut all = Vec::new();
    for (from, to) in [(0, 1), (0, 48), (3, 4), (10, 30), (47, 100)] {
        let cell = ledger.usage("o", hour(from), hour(to), NOW).await.unwrap();
        all.push((cell, ledger.usage_by(Book::Edge, "o", hour(from), hour(to), NOW).await.unwrap()));
    }
    all
}

fn cause(error: LedgerError) -> LedgerCause {
    match error {
        LedgerError::Failed { cause, .. } => cause,
        other => panic!("{other}"),
    }
}

both! {
    async fn whole_hours_are_as_they_were(db: &Db) {
        let ledger = db.open().await;
        fill(&ledger).await;
        let before = answers(&ledger).await;
        let totals = ledger.totals(hour(5), hour(6), NOW).await.unwrap();
        for (at_hour, expect_rows) in [(20, true), (20, false), (30, true)] {
            let pruned = ledger.prune(hour(at_hour), NOW, |_| {}).await.unwrap();
            assert_eq!(pruned.scale_events > 0 && pruned.samples > 0, expect_rows, "{pruned:?}");
            assert_eq!(answers(&ledger).await, before, "pruned at {at_hour}");
            assert_eq!(ledger.totals(hour(5), hour(6), NOW).await.unwrap(), totals);
        }
        for (from, to) in [(at(1, 0), hour(9)), (hour(3), at(301, 0)), (at(1, 0), hour(60))] {
            let error = cause(ledger.usage("o", from, to, NOW).await.unwrap_err());
            assert!(matches!(error, LedgerCause::Pruned { .. }), "{error}");
        }
        ledger.usage("o", hour(30), at(30 * 60 + 1, 0), NOW).await.unwrap();
        let kept = ledger.scale_events("s", Nanos::ZERO, LATER).await.unwrap();
        assert!(kept.iter().all(|row| row.ended_at.is_none_or(|end| end > hour(30))));
        let exported = ledger.export(&mut Vec::new()).await.unwrap();
        assert_eq!(exported.pruned_before, hour(30));
    }

    async fn what_was_pruned_does_not_come_back(db: &Db) {
        let ledger = db.open().await;
        fill(&ledger).await;
        let line = r#"{"type":"sample","id":"i","sandbox":"u","org":"o","memory_mib":1,"cpu_millis":1,"started_at":1780934400000000000,"ended_at":1780934400000000001}"#;
        ledger.import(line.as_bytes(), "f", |_| {}).await.unwrap();
        ledger.prune(hour(20), NOW, |_| {}).await.unwrap();
        let before = answers(&ledger).await;
        for change in [sample(1, 1024, at(0, 0), at(46, 0)), sample(1, 1024, at(19 * 60, 0), at(19 * 60, 1))] {
            let posting = posting(&ledger, "s", vec![change]).await;
            let error = cause(ledger.post_one(&posting).await.unwrap_err());
            assert!(matches!(error, LedgerCause::Pruned { .. }), "{error}");
        }
        let posting = posting(&ledger, "new", vec![row(9, 1024, at(0, 0), None)]).await;
        assert!(matches!(cause(ledger.post_one(&posting).await.unwrap_err()), LedgerCause::Pruned { .. }));
        let error = ledger.import(line.as_bytes(), "f", |_| {}).await.unwrap_err().to_string();
        assert!(error.starts_with("f:1: before 1781006400000000000"), "{error}");
        assert_eq!(answers(&ledger).await, before);
        // A row across the instant is still there, and may grow.
        let across = 25;
        let (from, to) = (at(across * 47, across), at(across * 47 + 46, 0));
        assert!(from < hour(20) && to > hour(19));
        let grown = ledger.samples("s", hour(20), hour(21)).await.unwrap();
        let grown = grown.first().unwrap();
        assert!(grown.started_at < hour(20), "the test has one");
        let again = Change::Sample(Sample {
            epoch: grown.epoch.unwrap(),
            org: grown.org.clone(),
            size: grown.size,
            started_at: grown.started_at,
            ended_at: Nanos(grown.ended_at.0 + 1),
        });
        post(&ledger, "s", vec![again]).await;
    }

    async fn a_prune_is_old_and_on_the_hour(db: &Db) {
        let ledger = db.open().await;
        for (before, said) in [
            (at(1, 0), "before: not on the hour"),
            (hour(77), "before: less than 24 h ago"),
            (hour(1000), "before: less than 24 h ago"),
        ] {
            let error = cause(ledger.prune(before, NOW, |_| {}).await.unwrap_err());
            assert_eq!(error.to_string(), said);
        }
        assert_eq!(PRUNE_AGE_MIN.0, 24 * HOUR);
        assert_eq!(ledger.prune(hour(76), NOW, |_| {}).await.unwrap(), Pruned::default());
    }

    async fn answered_calls_and_verdicts_of_the_time_are_forgotten(db: &Db) {
        let ledger = db.open().await;
        let event = |id: &str, at| Event { id: id.into(), sandbox: "s".into(), kind: "started".into(), at, mints: true };
        for (id, at) in [("old", hour(1)), ("unanswered", hour(1)), ("new", hour(50))] {
            ledger.begin_event(&event(id, at)).await.unwrap();
            if id != "unanswered" {
                ledger.answer_event(&Answer { event: event(id, at), text: "x".into() }).await.unwrap();
            }
        }
        let verdict = |id: &str, at| Change::Verdict(Verdict { id: id.into(), at, verdict: "gap".into(), detail: String::new() });
        post(&ledger, "s", vec![verdict("v1", hour(1)), verdict("v2", hour(50))]).await;
        assert_eq!(ledger.prune(hour(20), NOW, |_| {}).await.unwrap().notes, 2);
        assert_eq!(ledger.event("old").await.unwrap(), None);
        assert!(ledger.event("unanswered").await.unwrap().is_some() && ledger.event("new").await.unwrap().is_some());
        assert_eq!(ledger.verdicts("s", Nanos::ZERO, LATER).await.unwrap().len(), 1);
    }
}
