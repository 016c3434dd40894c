//! A posting is all or nothing, once, and made from the account as it is.

use super::*;
use guestmeter::host::ledger::{Answer, Event, LedgerCause, LedgerError, LedgerFault, Verdict};
use guestmeter::meter::Count;
use guestmeter::wire::message::{Counters, Mark};

fn answer(id: &str, sandbox: &str, text: &str) -> Answer {
    let event =
        Event { id: id.into(), sandbox: sandbox.into(), kind: "scaled".into(), at: HOUR_16, mints: false };
    Answer { event, text: text.into() }
}

fn cause(error: LedgerError) -> LedgerCause {
    match error {
        LedgerError::Failed { cause, .. } => cause,
        other => panic!("{other}"),
    }
}

both! {
    async fn an_account_comes_back_as_it_was_posted(db: &Db) {
        let ledger = db.open().await;
        assert_eq!(ledger.account("s").await.unwrap(), None);
        let counters = Counters {
            active: Count { whole: i64::MAX as u64, carry: 999_999_999 },
            memory: Count { whole: 7, carry: (1 << 50) - 1 },
            cpu: Count { whole: 0, carry: 1 },
            cpu_used: Nanos::ZERO,
        };
        let mut new = posting(&ledger, "s", Vec::new()).await;
        new.account.mark = Some(Mark { boot_id: id(77), counters });
        new.account.state = vec![0, 255, 10, 0];
        assert_eq!(ledger.post_one(&new).await.unwrap(), Posted::Done { version: 1 });
        let account = ledger.account("s").await.unwrap().unwrap();
        assert_eq!((account.mark, &account.state), (new.account.mark, &new.account.state));
        assert_eq!((account.version, account.updated_at, account.org.as_str()), (1, HOUR_16, "o"));

        new.account.expected_version = 1;
        new.account.mark.as_mut().unwrap().counters.active.whole = u64::MAX;
        let error = cause(ledger.post_one(&new).await.unwrap_err());
        assert_eq!(error.to_string(), "active seconds: beyond 63 bits");
        assert_eq!(error.fault(), LedgerFault::Data);
        assert_eq!(ledger.account("s").await.unwrap(), Some(account));
    }

    async fn accounts_come_in_pages(db: &Db) {
        let ledger = db.open().await;
        for name in ["c", "a", "b", "Z", "ü"] {
            post(&ledger, name, Vec::new()).await;
        }
        let mut seen: Vec<String> = Vec::new();
        loop {
            let page = ledger.accounts(seen.last().map(String::as_str), 2).await.unwrap();
            assert!(page.len() <= 2);
            if page.is_empty() {
                break;
            }
            seen.extend(page.into_iter().map(|account| account.sandbox));
        }
        assert_eq!(seen, ["Z", "a", "b", "c", "ü"], "one order in both engines");
        ledger.forget("b").await.unwrap();
        assert_eq!(ledger.accounts(None, 9).await.unwrap().len(), 4);
    }

    async fn a_decision_from_an_old_account_changes_nothing(db: &Db) {
        let ledger = db.open().await;
        let early = posting(&ledger, "s", vec![row(1, 1024, at(0, 0), None)]).await;
        assert_eq!(ledger.post_one(&early).await.unwrap(), Posted::Done { version: 1 });
        assert_eq!(ledger.post_one(&early).await.unwrap(), Posted::Stale);
        let late = posting(&ledger, "s", vec![row(1, 2048, at(1, 0), None)]).await;
        post(&ledger, "s", vec![sample(1, 1024, at(0, 0), at(1, 0))]).await;
        assert_eq!(ledger.post_one(&late).await.unwrap(), Posted::Stale);
        assert_eq!(rows(&ledger, "s").await, [(1024, 0, None)]);
    }

    async fn an_answered_event_lets_nothing_through_a_second_time(db: &Db) {
        let ledger = db.open().await;
        let mut first = posting(&ledger, "s", vec![row(1, 1024, at(0, 0), None)]).await;
        first.answers = Some(answer("e", "s", "first"));
        assert_eq!(ledger.post_one(&first).await.unwrap(), Posted::Done { version: 1 });
        // The worker died after the commit, and decides anew from the new account.
        let mut again = posting(&ledger, "s", vec![row(1, 9999, at(9, 0), None)]).await;
        again.answers = Some(answer("e", "s", "second"));
        assert_eq!(ledger.post_one(&again).await.unwrap(), Posted::Repeat("first".into()));
        assert_eq!(rows(&ledger, "s").await, [(1024, 0, None)]);
        assert_eq!(ledger.account("s").await.unwrap().unwrap().version, 1);
        // One that is stale gives no answer away.
        let mut stale = first.clone();
        stale.answers = Some(answer("f", "s", "lost"));
        assert_eq!(ledger.post_one(&stale).await.unwrap(), Posted::Stale);
        assert_eq!(ledger.event("f").await.unwrap(), None);
    }

    async fn what_fails_last_leaves_nothing_of_the_rest(db: &Db) {
        let ledger = db.open().await;
        post(&ledger, "s", Vec::new()).await;
        post(&ledger, "t", vec![sample(5, 1024, at(0, 0), at(1, 0))]).await;
        let found = Verdict { id: "v".into(), at: HOUR_16, verdict: "gap".into(), detail: "{}".into() };
        let nameless = Sample {
            epoch: id(1),
            org: String::new(),
            size: size(1, 1),
            started_at: HOUR_16,
            ended_at: HOUR_16,
        };
        let nameless = Change::Sample(nameless);
        for (bad, said) in [
            (sample(5, 4096, at(0, 0), at(9, 0)), "the ledger has it with other values: sandbox"),
            (row(2, 1024, at(9, 0), None), "the ledger's rules refuse it"),
            (sample(1, 1024, at(9, 0), at(8, 0)), "it ends before it begins"),
            (row(1, (1 << 32) + 1, at(0, 0), None), "more memory than 4 PiB"),
            (nameless, "org: empty"),
            (row(1, 1, Nanos(u64::MAX), None), "beyond 63 bits"),
            (Change::Cut { epoch: id(1), at: Nanos(u64::MAX) }, "beyond 63 bits"),
        ] {
            let changes = vec![row(1, 1024, at(0, 0), None), Change::Verdict(found.clone()), bad];
            let mut posting = posting(&ledger, "s", changes).await;
            posting.answers = Some(answer("e", "s", "x"));
            let error = cause(ledger.post_one(&posting).await.unwrap_err());
            assert!(error.to_string().contains(said), "{error}");
            assert_eq!(error.fault(), LedgerFault::Data);
            assert_eq!(rows(&ledger, "s").await, []);
            assert_eq!(ledger.event("e").await.unwrap(), None);
            assert_eq!(ledger.account("s").await.unwrap().unwrap().version, 1);
            assert_eq!(ledger.verdicts("s", Nanos::ZERO, LATER).await.unwrap(), []);
        }
        post(&ledger, "s", vec![Change::Verdict(found.clone()), Change::Verdict(found.clone())]).await;
        assert_eq!(ledger.verdicts("s", HOUR_16, at(1, 0)).await.unwrap(), [found]);
    }

    /// A batch shares a transaction, but no fate.
    async fn one_bad_posting_spoils_no_other(db: &Db) {
        let ledger = db.open().await;
        let mut batch = Vec::new();
        for name in ["d", "b", "a", "c"] {
            batch.push(posting(&ledger, name, vec![row(u64::from(name.as_bytes()[0]), 1024, at(0, 0), None)]).await);
        }
        let all: Vec<_> = ledger.post(&batch).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(all, vec![Posted::Done { version: 1 }; 4]);
        for posting in &mut batch {
            posting.account.expected_version = 1;
            posting.changes = vec![sample(u64::from(posting.sandbox.as_bytes()[0]), 1024, at(0, 0), at(1, 0))];
        }
        batch[1].account.expected_version = 7;
        // A second open row: PostgreSQL takes nothing more of a transaction with such a fault.
        batch[2].changes = vec![row(99, 1024, at(9, 0), None)];
        let posted = ledger.post(&batch).await;
        assert_eq!(posted[0].as_ref().unwrap(), &Posted::Done { version: 2 });
        assert_eq!(posted[1].as_ref().unwrap(), &Posted::Stale);
        assert!(posted[2].as_ref().unwrap_err().to_string().contains("the ledger's rules refuse it"));
        assert_eq!(posted[3].as_ref().unwrap(), &Posted::Done { version: 2 });
        assert_eq!(ledger.samples("c", Nanos::ZERO, LATER).await.unwrap().len(), 1);
    }

    /// A worker on many threads can use it: its futures may move between them.
    async fn postings_may_be_awaited_on_any_thread(db: &Db) {
        fn sendable<T: Send>(future: T) -> T {
            future
        }
        let ledger = db.open().await;
        let event = answer("e", "s", "").event;
        sendable(ledger.begin_event(&event)).await.unwrap();
        let posting = posting(&ledger, "s", vec![row(1, 1024, at(0, 0), None)]).await;
        sendable(ledger.post(std::slice::from_ref(&posting))).await[0].as_ref().unwrap();
        sendable(ledger.usage("o", at(0, 0), at(1, 0), LATER)).await.unwrap();
        sendable(ledger.account("s")).await.unwrap();
        sendable(Ledger::open(&db.url())).await.unwrap();
    }
}
