//! What a window holds, to the nanosecond.

use super::*;
use guestmeter::host::ledger::{Book, CPU_MAX, MEMORY_MAX};

both! {
    /// The seed's first fix: 16:42 to 17:14 gives the hour from 16:00 eighteen minutes, not thirty-two.
    async fn the_seeds_clip_is_18_minutes_not_32(db: &Db) {
        let ledger = db.open().await;
        post(&ledger, "s", vec![row(1, 1024, at(42, 0), Some(at(74, 0)))]).await;
        let hour = |from: u64| usage(&ledger, "o", at(from, 0), at(from + 60, 0));
        assert_eq!(hour(0).await.active_ns(), u128::from(18 * MINUTE));
        assert_eq!(hour(60).await.active_ns(), u128::from(14 * MINUTE));
        assert_eq!(hour(120).await.active_ns(), 0);
        assert_eq!(usage(&ledger, "o", at(0, 0), at(120, 0)).await.active_ns(), u128::from(32 * MINUTE));
        assert_eq!(hour(0).await.memory().0, u128::from(1024 * 18 * MINUTE));
        assert_eq!(usage(&ledger, "another", at(0, 0), at(120, 0)).await, Usage::default());
    }

    async fn an_open_row_goes_on_until_now_and_never_below_nothing(db: &Db) {
        let ledger = db.open().await;
        post(&ledger, "s", vec![row(1, 1024, at(30, 0), None)]).await;
        for (now, minutes) in [(at(0, 0), 0), (at(30, 0), 0), (at(45, 0), 15), (at(60, 0), 30), (LATER, 30)] {
            let hour = ledger.usage("o", at(0, 0), at(60, 0), now).await.unwrap();
            assert_eq!(hour.active_ns(), u128::from(minutes * MINUTE), "now {now}");
        }
        for (from, to) in [(at(60, 0), at(60, 0)), (at(60, 0), at(0, 0)), (at(0, 0), at(30, 0)), (Nanos::ZERO, Nanos(1))] {
            assert_eq!(usage(&ledger, "o", from, to).await, Usage::default());
        }
        let beyond = ledger.usage("o", Nanos::ZERO, Nanos(u64::MAX), LATER).await.unwrap_err();
        assert!(beyond.to_string().ends_with("to: beyond 63 bits"), "{beyond}");
    }

    /// Rows of every length class, at every edge of it, against windows at every edge of the rows.
    async fn every_length_is_found_at_its_very_edges(db: &Db) {
        let ledger = db.open().await;
        let base = 4_000_000_000_000_000_000_u64;
        let mut lengths = vec![0, 1, 2];
        for hours in [1, 8, 64, 512, 4096, 32768] {
            lengths.extend([hours * HOUR - 1, hours * HOUR, hours * HOUR + 1]);
        }
        lengths.push(i64::MAX as u64 - base);
        let mut lines = String::new();
        for (index, length) in lengths.iter().enumerate() {
            for (book, end) in [("scale", base + length), ("sample", base + length)] {
                lines += &format!(
                    r#"{{"type":"{book}","id":"{book}{index}","sandbox":"s{index}","org":"o{index}","memory_mib":1,"cpu_millis":1,"started_at":{base},"ended_at":{end}}}"#
                );
                lines.push('\n');
            }
        }
        ledger.import(lines.as_bytes(), "lines", |_| {}).await.unwrap();
        for (index, length) in lengths.iter().enumerate() {
            let end = base + length;
            let org = format!("o{index}");
            for (from, to, expected) in [
                (base - 1, base, 0),
                (base - 1, base + 1, 1.min(*length)),
                (base, end, *length),
                (end.saturating_sub(1).max(base), end, 1.min(*length)),
                (end, i64::MAX as u64, 0),
                (0, i64::MAX as u64, *length),
            ] {
                for book in [Book::Cell, Book::Edge] {
                    let used = ledger.usage_by(book, &org, Nanos(from), Nanos(to), LATER).await.unwrap();
                    assert_eq!(used.active_ns(), u128::from(expected), "{book:?}, {length} ns in {from}..{to}");
                }
            }
        }
    }

    /// Sums far beyond 64 bits: a thousand rows of the largest size, from the beginning of time to its end.
    async fn the_largest_books_add_up_exactly(db: &Db) {
        let ledger = db.open().await;
        let end = i64::MAX as u64;
        let lines: String = (0..1000)
            .map(|index| format!(
                "{{\"type\":\"scale\",\"id\":\"r{index}\",\"sandbox\":\"s{index}\",\"org\":\"o\",\"memory_mib\":{},\"cpu_millis\":{},\"started_at\":{index},\"ended_at\":{end}}}\n",
                MEMORY_MAX.0, CPU_MAX.0
            ))
            .collect();
        assert_eq!(ledger.import(lines.as_bytes(), "lines", |_| {}).await.unwrap().scale_events, 1000);
        let used = ledger.usage("o", Nanos::ZERO, Nanos(end), Nanos(end)).await.unwrap();
        let exact = u128::from(end) * 1000 - 999 * 500;
        assert_eq!(used.active_ns(), exact);
        assert_eq!(used.memory().0, exact << 32);
        assert_eq!(used.cpu().0, exact << 32);
        let totals = ledger.totals(Nanos::ZERO, Nanos(end), Nanos(end)).await.unwrap();
        assert_eq!(totals.iter().map(|total| total.cell.0).sum::<u128>(), exact << 32);
    }

    async fn totals_are_both_books_by_sandbox(db: &Db) {
        let ledger = db.open().await;
        post(&ledger, "a", vec![row(1, 1024, at(10, 0), Some(at(40, 0))), sample(1, 1024, at(10, 0), at(40, 0)), row(1, 2048, at(40, 0), None)]).await;
        post(&ledger, "b", vec![sample(2, 512, at(0, 0), at(1, 0))]).await;
        let totals = ledger.totals(at(0, 0), at(60, 0), LATER).await.unwrap();
        let seen: Vec<_> = totals.iter().map(|t| (t.sandbox.as_str(), t.cell.0, t.edge.0)).collect();
        let minute = u128::from(MINUTE);
        assert_eq!(seen, [("a", (1024 * 30 + 2048 * 20) * minute, 1024 * 30 * minute), ("b", 0, 512 * minute)]);
        let by_size = usage(&ledger, "o", at(0, 0), at(60, 0)).await.by_size;
        assert_eq!(by_size.iter().map(|total| (total.size, total.active_ns)).collect::<Vec<_>>(), [
            (size(1024, 1000), 30 * minute),
            (size(2048, 1000), 20 * minute),
        ]);
    }
}
