//! Any text: all of it is in the ledger, once, and comes out as it went in; or nothing is, and the error names the line.

use guestmeter::host::ledger::{Access, ImportError, Ledger, Limits};
use std::cell::RefCell;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// So that a ledger stays small, a new one after so many imports.
const IMPORTS_MAX: u32 = 500;

struct Rig {
    runtime: Runtime,
    ledger: Option<Ledger>,
    imports: u32,
    directory: TempDir,
}

thread_local! {
    static RIG: RefCell<Option<Rig>> = const { RefCell::new(None) };
}

pub fn check(input: &[u8]) {
    RIG.with_borrow_mut(|rig| {
        if rig.as_ref().is_some_and(|rig| rig.imports >= IMPORTS_MAX) {
            *rig = None;
        }
        rig.get_or_insert_with(Rig::new).import(input);
    });
}

impl Rig {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let directory = tempfile::tempdir().expect("a directory");
        Self { runtime, ledger: None, imports: 0, directory }
    }

    fn import(&mut self, input: &[u8]) {
        self.imports += 1;
        let path = self.directory.path().join("ledger.db");
        let ledger = self.ledger.take();
        let ledger = self.runtime.block_on(async {
            let ledger = match ledger {
                Some(ledger) => ledger,
                None => {
                    let location = format!("sqlite:{}", path.display()).parse().expect("a location");
                    Ledger::open_with(location, Access::Create, Limits::default()).await.expect("a ledger")
                }
            };
            let before = exported(&ledger).await;
            match ledger.import(input, "books", |_| {}).await {
                Ok(done) => {
                    let after = exported(&ledger).await;
                    let again = ledger.import(input, "books", |_| {}).await.expect("what it took once");
                    assert_eq!((again.scale_events, again.samples), (0, 0), "twice is once: {done:?}");
                    // An import may state a plan twice, the last holds: the rest must be as it was.
                    assert_eq!(rows(&exported(&ledger).await), rows(&after));
                    let own = ledger.import(after.as_slice(), "own", |_| {}).await.expect("its own export");
                    assert_eq!((own.scale_events, own.samples), (0, 0), "{own:?}");
                }
                Err(error) => {
                    assert!(matches!(error, ImportError::Line { .. }), "{error}");
                    let text = error.to_string();
                    assert!(text.starts_with("books:") && !text.contains(char::is_control), "{text:?}");
                    assert_eq!(exported(&ledger).await, before, "all or nothing");
                }
            }
            ledger
        });
        self.ledger = Some(ledger);
    }
}

async fn exported(ledger: &Ledger) -> Vec<u8> {
    let mut text = Vec::new();
    ledger.export(&mut text).await.expect("an export");
    text
}

/// Without the orgs.
fn rows(export: &[u8]) -> Vec<&[u8]> {
    let lines = export.split(|byte| *byte == b'\n');
    lines.filter(|line| !line.starts_with(br#"{"type":"org""#)).collect()
}
