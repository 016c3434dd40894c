//! Calls of the platform, each once; epochs that never come twice.

use super::*;
use guestmeter::host::ledger::{Answer, Begun, Event, LedgerError};
use std::collections::BTreeSet;

fn event(id: &str, sandbox: &str, kind: &str) -> Event {
    Event { id: id.into(), sandbox: sandbox.into(), kind: kind.into(), at: HOUR_16, mints: true }
}

both! {
    async fn a_repeated_call_gets_the_first_ones_epoch_and_answer(db: &Db) {
        let ledger = db.open().await;
        let call = event("e1", "s", "resumed");
        let first = ledger.begin_event(&call).await.unwrap();
        assert!(first.first && first.answer.is_none());
        let again = ledger.begin_event(&call).await.unwrap();
        assert_eq!(again, Begun { first: false, ..first.clone() });

        let answer = |text: &str| Answer { event: call.clone(), text: text.into() };
        assert_eq!(ledger.answer_event(&answer("one")).await.unwrap(), "one");
        assert_eq!(ledger.answer_event(&answer("two")).await.unwrap(), "one");
        let known = ledger.begin_event(&call).await.unwrap();
        assert_eq!(known, Begun { first: false, answer: Some("one".into()), ..first });
        assert_eq!(ledger.event("e1").await.unwrap().unwrap(), (call, known));
        assert_eq!(ledger.event("e2").await.unwrap(), None);
    }

    async fn an_id_belongs_to_one_call(db: &Db) {
        let ledger = db.open().await;
        ledger.begin_event(&event("e1", "s", "started")).await.unwrap();
        for (other, cause) in [
            (event("e1", "t", "started"), "it is another sandbox's"),
            (event("e1", "s", "destroyed"), "it is another kind of call"),
        ] {
            let error = ledger.begin_event(&other).await.unwrap_err();
            assert!(error.to_string().ends_with(cause), "{error}");
            let answer = Answer { event: other, text: "x".into() };
            assert!(ledger.answer_event(&answer).await.unwrap_err().to_string().ends_with(cause));
        }
        for (name, cause) in [("", "empty"), ("\n", "control"), (&"x".repeat(257), "longer than 256")] {
            let error = ledger.begin_event(&event(name, "s", "started")).await.unwrap_err();
            assert!(matches!(error, LedgerError::Failed { .. }) && error.to_string().contains(cause), "{error}");
        }
    }

    async fn a_number_is_the_time_or_above_what_was_given_or_heard(db: &Db) {
        let ledger = db.open().await;
        let now = HOUR_16;
        let first = ledger.begin_event(&event("e1", "s", "resumed")).await.unwrap().epoch.unwrap();
        assert!(first.number >= now.0, "another ledger's lesser ones are below it: {first:?}");
        let next = ledger.mint("s", now).await.unwrap();
        assert_eq!(next.number, first.number + 1, "a clock that has not moved on");

        let heard = now.0 + 3_600_000_000_000;
        let above = ledger.mint_above("s", now, first.number, heard).await.unwrap();
        assert_eq!(above.number, heard + 1);
        let begun = ledger.begin_event(&event("e1", "s", "resumed")).await.unwrap();
        assert_eq!((begun.first, begun.epoch.as_ref()), (false, Some(&above)), "the call has it from now on");
        assert_eq!(ledger.mint("t", now).await.unwrap().number, heard + 2);

        let ten_years = 10 * 366 * 86_400 * 1_000_000_000_u64;
        for absurd in [now.0 + ten_years + 1, u64::MAX] {
            let error = ledger.mint_above("s", now, above.number, absurd).await.unwrap_err().to_string();
            assert!(error.contains(&format!("epoch number {absurd}")) && error.contains("ten years"), "{error}");
        }
        assert_eq!(ledger.mint("t", now).await.unwrap().number, heard + 3, "and used no number up");
    }

    /// Twenty at once, from connections of their own: one epoch for one call, others for the others, all rising.
    async fn epochs_are_unique_and_rise_whoever_mints(db: &Db) {
        let ledger = db.open().await;
        let url = db.url();
        let begin = |index: u64| {
            let url = url.clone();
            std::thread::spawn(move || block_on(async move {
                let ledger = Ledger::open(&url).await.unwrap();
                let same = ledger.begin_event(&event("same", "s", "resumed")).await.unwrap();
                let own = ledger.begin_event(&event(&format!("own{index}"), "s", "resumed")).await.unwrap();
                let loose = ledger.mint(&format!("sb{index}"), HOUR_16).await.unwrap();
                (same.first, same.epoch.unwrap(), own.epoch.unwrap(), loose)
            }))
        };
        let all: Vec<_> = (0..20).map(begin).collect();
        let all: Vec<_> = all.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(all.iter().filter(|(first, ..)| *first).count(), 1);
        assert_eq!(all.iter().map(|(_, same, ..)| same.id).collect::<BTreeSet<_>>().len(), 1);
        let minted: Vec<_> = all.iter().flat_map(|(_, _, own, loose)| [own, loose]).collect();
        assert_eq!(minted.iter().map(|epoch| epoch.id).collect::<BTreeSet<_>>().len(), 40);
        assert_eq!(minted.iter().map(|epoch| epoch.number).collect::<BTreeSet<_>>().len(), 40);
        let highest = minted.iter().map(|epoch| epoch.number).max().unwrap();
        let next = ledger.mint("s", HOUR_16).await.unwrap();
        assert!(next.number > highest);
        let of_s = ledger.epochs("s").await.unwrap();
        assert_eq!(of_s.len(), 22);
        assert!(of_s.is_sorted_by_key(|epoch| epoch.number) && of_s.last() == Some(&next));
        // A number that was given is never given again, even if its row is gone.
        db.sql(&format!("DELETE FROM epoch WHERE number = {}", next.number)).await.unwrap();
        assert!(ledger.mint("s", HOUR_16).await.unwrap().number > next.number);
    }
}
