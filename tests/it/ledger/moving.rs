//! Import and export: all of a file or nothing, a second time nothing, and out again as it came in.

use super::*;
use guestmeter::host::ledger::{ImportError, Imported, LINE_MAX};

const BOOKS: &str = r#"{"type":"org","id":"o","plan":"pro"}
{"type":"scale","id":"a","sandbox":"s","org":"o","memory_mib":1024,"cpu_millis":1000,"started_at":"2026-06-08T16:42:00Z","ended_at":"2026-06-08T17:14:00Z"}
{"type":"scale","id":"b","sandbox":"s","org":"o","memory_mib":4096,"cpu_millis":1000,"started_at":"2026-06-08T17:14:00Z","ended_at":null}

{"type":"sample","id":"a","sandbox":"s","org":"o","memory_mib":1024,"cpu_millis":1000,"started_at":1780936920000000000,"ended_at":1780937000000000000}
"#;

async fn import(ledger: &Ledger, text: &str) -> Result<Imported, String> {
    ledger.import(text.as_bytes(), "books", |_| {}).await.map_err(|error| error.to_string())
}

async fn export(ledger: &Ledger) -> String {
    let mut text = Vec::new();
    ledger.export(&mut text).await.unwrap();
    String::from_utf8(text).unwrap()
}

fn scale(id: &str, sandbox: &str, from: u64, to: Option<u64>) -> String {
    let to = to.map_or_else(|| "null".to_owned(), |to| at(to, 0).0.to_string());
    let from = at(from, 0).0;
    format!(
        r#"{{"type":"scale","id":"{id}","sandbox":"{sandbox}","org":"o","memory_mib":1024,"cpu_millis":1000,"started_at":{from},"ended_at":{to}}}"#
    )
}

both! {
    async fn importing_twice_changes_nothing(db: &Db) {
        let ledger = db.open().await;
        let done = import(&ledger, BOOKS).await.unwrap();
        assert_eq!(done, Imported { lines: 4, orgs: 1, scale_events: 2, samples: 1, unchanged: 0 });
        assert_eq!(ledger.plan("o").await.unwrap().as_deref(), Some("pro"));
        let (books, used) = (export(&ledger).await, usage(&ledger, "o", at(0, 0), at(60, 0)).await);
        assert_eq!(used.active_ns(), u128::from(18 * MINUTE));
        let again = import(&ledger, BOOKS).await.unwrap();
        assert_eq!((again.scale_events, again.samples, again.unchanged), (0, 0, 3));
        assert_eq!(export(&ledger).await, books);
    }

    async fn an_export_is_the_same_books_elsewhere(db: &Db) {
        let ledger = db.open().await;
        import(&ledger, BOOKS).await.unwrap();
        post(&ledger, "w", vec![row(5, 512, at(0, 7), None), sample(5, 512, at(0, 7), at(0, 9))]).await;
        let books = export(&ledger).await;
        assert_eq!(books.lines().count(), 6);
        assert!(books.contains(r#""id":"00000000000000000000000000000005/1780934407000000000""#), "{books}");
        assert!(books.contains(r#""started_at":"2026-06-08T16:42:00Z","ended_at":"2026-06-08T17:14:00Z""#));
        for other in [Some(Db::sqlite()), Db::postgres()].into_iter().flatten() {
            let copy = other.open().await;
            import(&copy, &books).await.unwrap();
            assert_eq!(export(&copy).await, books);
        }
        // And where it came from it changes nothing, the worker's own rows included.
        assert_eq!(import(&ledger, &books).await.unwrap().unchanged, 5);
    }

    async fn a_line_that_does_not_fit_leaves_the_ledger_as_it_was(db: &Db) {
        let ledger = db.open().await;
        import(&ledger, BOOKS).await.unwrap();
        let before = export(&ledger).await;
        for (bad, said) in [
            ("nonsense".to_owned(), "books:2: not a JSON object"),
            (scale("c", "s", 200, None), "books:2: sandbox s: it has an open row already"),
            (scale("a", "s", 42, Some(75)), "books:2: a: the ledger has it with other values: ended_at"),
            (scale("a", "s", 41, Some(74)), "books:2: a: the ledger has it with other values: started_at"),
            (scale("a", "t", 42, Some(74)), "books:2: a: the ledger has it with other values: sandbox"),
            (scale("n2", "n", 1, None), "books:2: sandbox n: it has an open row already"),
            (scale("x", "s", 9, Some(8)), "books:2: ended_at is before started_at"),
            // Not by its later state either, wherever the batch ends.
            (format!("{}\n{}", scale("c", "s", 200, None), scale("c", "s", 200, Some(201))), "books:2: sandbox s: it has"),
            ("x".repeat(usize::try_from(LINE_MAX).unwrap() + 1), "books:2: longer than 16384 bytes"),
            (format!("{{\"a\":{}", "[".repeat(5000)), "books:2: "),
            (r#"{"type":"org\u001b[2J"}"#.to_owned(), "books:2: unknown variant `org\\u{1b}[2J`"),
        ] {
            let text = format!("{}\n{bad}\n{}", scale("n", "n", 0, None), scale("never", "m", 0, Some(1)));
            let error = import(&ledger, &text).await.unwrap_err();
            assert!(error.starts_with(said), "{error}");
            assert_eq!(export(&ledger).await, before);
        }
        // Nothing of the failed ones is in the way.
        import(&ledger, &scale("n", "n", 0, None)).await.unwrap();
    }

    async fn a_row_ends_and_a_sample_grows_by_a_later_file(db: &Db) {
        let ledger = db.open().await;
        let open = scale("r", "s", 0, None);
        let ended = scale("r", "s", 0, Some(5));
        let next = scale("q", "s", 5, None);
        let file = [open.as_str(), &ended, &next].join("\n");
        assert_eq!(import(&ledger, &file).await.unwrap().scale_events, 3);
        assert_eq!(rows(&ledger, "s").await, [(1024, 0, Some(5)), (1024, 5, None)]);
        assert_eq!(import(&ledger, &file).await.unwrap(), Imported { lines: 3, unchanged: 3, ..Imported::default() });

        let grown = |to| scale("u", "s", 0, Some(to)).replace("scale", "sample");
        for (to, expected) in [(5, 5), (9, 9), (7, 9)] {
            import(&ledger, &grown(to)).await.unwrap();
            assert_eq!(ledger.samples("s", Nanos::ZERO, LATER).await.unwrap()[0].ended_at, at(expected, 0));
        }
    }

    /// More rows than one statement takes, and each kind of line met in each place of a batch.
    async fn a_long_file_is_read_in_its_order(db: &Db) {
        let ledger = db.open().await;
        let mut file = String::new();
        for index in 0..3000_u64 {
            let sandbox = format!("s{}", index % 7);
            file += &scale(&format!("r{index}"), &sandbox, index, None);
            file.push('\n');
            file += &scale(&format!("r{index}"), &sandbox, index, Some(index + 1));
            file.push('\n');
        }
        let mut bytes = Vec::new();
        let done = ledger.import(file.as_bytes(), "books", |read| bytes.push(read)).await.unwrap();
        assert_eq!((done.lines, done.scale_events), (6000, 6000));
        assert!(bytes.is_sorted() && bytes.last() == Some(&(file.len() as u64)));
        assert_eq!(usage(&ledger, "o", Nanos::ZERO, LATER).await.active_ns(), u128::from(3000 * MINUTE));
        let twice = import(&ledger, &file).await.unwrap();
        assert_eq!((twice.scale_events, twice.unchanged), (0, 6000));
        let broken = format!("{file}{}\n", scale("r2999", "s0", 2999, Some(3001)));
        assert!(import(&ledger, &broken).await.unwrap_err().starts_with("books:6001: r2999: "));
    }

    async fn a_file_that_breaks_off_is_the_files_fault(db: &Db) {
        struct Broken;
        impl std::io::Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                Err(std::io::Error::other("gone"))
            }
        }
        let ledger = db.open().await;
        let input = std::io::BufReader::new(Broken);
        let error = ledger.import(input, "books", |_| {}).await.unwrap_err();
        assert!(matches!(error, ImportError::Read { .. }), "{error}");
        assert_eq!(error.to_string(), "books:1: reading: gone");
    }
}
