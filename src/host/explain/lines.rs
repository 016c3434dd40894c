//! Books as JSON Lines: what `ledger import` takes, and what else helps to explain them.
//!
//! Beside `org`, `scale` and `sample` (protocol.md) a line may be one of
//!
//! | line | says |
//! |---|---|
//! | `{"type":"lifecycle","sandbox","kind","at"}` | what the platform did: `started`, `scaled`, `pausing`, `resumed`, `ran_on` (a pause given up), `destroyed` |
//! | `{"type":"report","sandbox","at","boot_id","active_ns","dropped_ns"}` | what a guest's counter said |
//! | `{"type":"verdict","sandbox","at","verdict","detail"}` | what the host found, as the ledger keeps it: `detail` has the amounts |
//! | `{"type":"worker","kind":"started","at"}` | the host worker began anew |
//! | `{"type":"charge","sandbox","from","to","active_ns"}` | what another system charged for a window |
//! | `{"type":"tier","memory_mib"}` | a size that has a price |
//!
//! Instants are RFC 3339 or integer ns since the Unix epoch; what ends in `_ns` is a number or a decimal string.

use super::books::{Books, Charge, Entry, Found, Happening, What};
use crate::host::json_integer::Wide;
use crate::host::json_lines::{JsonLines, LineError};
use crate::host::ledger::{Instant, LINE_MAX};
use crate::host::reconcile::Size;
use crate::host::text::Safe;
use crate::units::{MilliCpu, Nanos};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::BufRead;

/// Why a file holds no books.
#[derive(Debug, thiserror::Error)]
#[error("{name}:{line}: {cause}")]
pub struct LinesError {
    /// The file.
    pub name: String,
    /// The line, from 1.
    pub line: u64,
    /// What is wrong.
    pub cause: LinesCause,
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub enum LinesCause {
    /// There is no line.
    #[error(transparent)]
    Text(#[from] LineError),
    /// The line is none of a book.
    #[error("not a line of a book: {}", Safe(&.0.to_string()))]
    Json(#[from] serde_json::Error),
    /// A row that ends before it starts.
    #[error("ended_at is before started_at")]
    Backwards,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
enum Line {
    Org {
        id: String,
        plan: Option<String>,
    },
    Scale {
        id: String,
        sandbox: String,
        org: String,
        memory_mib: u64,
        cpu_millis: u64,
        started_at: Instant,
        ended_at: Option<Instant>,
    },
    Sample {
        id: String,
        sandbox: String,
        org: String,
        memory_mib: u64,
        cpu_millis: u64,
        started_at: Instant,
        ended_at: Instant,
    },
    Lifecycle {
        sandbox: String,
        kind: Kind,
        at: Instant,
    },
    Report {
        sandbox: String,
        at: Instant,
        boot_id: String,
        active_ns: Wide<u64>,
        dropped_ns: Wide<u64>,
    },
    Verdict {
        sandbox: String,
        at: Instant,
        verdict: String,
        detail: serde_json::Value,
    },
    Worker {
        #[serde(rename = "kind")]
        _kind: WorkerKind,
        at: Instant,
    },
    Charge {
        sandbox: String,
        from: Instant,
        to: Instant,
        active_ns: Wide<u64>,
    },
    Tier {
        memory_mib: u64,
    },
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Started,
    Scaled,
    Pausing,
    Resumed,
    RanOn,
    Destroyed,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum WorkerKind {
    Started,
}

/// The books of `sandbox` in `input`, called `name` in errors.
///
/// # Errors
/// The first line that does not fit, by its number.
pub fn read(input: impl BufRead, name: &str, sandbox: &str) -> Result<Books, LinesError> {
    let mut reading = Reading::new(sandbox);
    let mut lines = JsonLines::new(input, LINE_MAX);
    loop {
        let taken = match lines.next() {
            Ok(Some([])) => Ok(()),
            Ok(Some(text)) => reading.line(text),
            Ok(None) => return Ok(reading.finish()),
            Err(cause) => Err(cause.into()),
        };
        taken.map_err(|cause| LinesError { name: name.to_owned(), line: lines.number, cause })?;
    }
}

struct Reading {
    books: Books,
    org: Option<String>,
    plans: BTreeMap<String, Option<String>>,
    /// Boots by the first sandbox they were seen under.
    boots: BTreeMap<String, (Nanos, String)>,
}

impl Reading {
    fn new(sandbox: &str) -> Self {
        let books = Books { sandbox: sandbox.to_owned(), ..Books::default() };
        Self { books, org: None, plans: BTreeMap::new(), boots: BTreeMap::new() }
    }

    fn line(&mut self, text: &[u8]) -> Result<(), LinesCause> {
        let size = |memory_mib, cpu_millis| Size { memory_mib, cpu: MilliCpu(cpu_millis) };
        match serde_json::from_slice(text)? {
            Line::Org { id, plan } => {
                self.plans.insert(id, plan);
            }
            Line::Scale { id, sandbox, org, memory_mib, cpu_millis, started_at, ended_at } => {
                let end = ended_at.map(|end| end.0);
                let entry =
                    Entry { id, start: started_at.0, end, size: size(memory_mib, cpu_millis), epoch: None };
                self.entry(&sandbox, org, entry, |books| &mut books.cell)?;
            }
            Line::Sample { id, sandbox, org, memory_mib, cpu_millis, started_at, ended_at } => {
                let end = Some(ended_at.0);
                let entry =
                    Entry { id, start: started_at.0, end, size: size(memory_mib, cpu_millis), epoch: None };
                self.entry(&sandbox, org, entry, |books| &mut books.edge)?;
            }
            Line::Lifecycle { sandbox, kind, at } => self.happened(&sandbox, at.0, kind.what()),
            Line::Report { sandbox, at, boot_id, active_ns, dropped_ns } => {
                let first = self.boots.entry(boot_id.clone()).or_insert_with(|| (at.0, sandbox.clone()));
                if at.0 < first.0 {
                    *first = (at.0, sandbox.clone());
                }
                let (active, dropped) = (Nanos(active_ns.0), Nanos(dropped_ns.0));
                self.happened(&sandbox, at.0, What::Report { boot_id, active, dropped, also_of: None });
            }
            Line::Verdict { sandbox, at, verdict, detail } => {
                if let Some(found) = Found::of(&verdict, &detail) {
                    self.happened(&sandbox, at.0, What::Found(found));
                }
            }
            Line::Worker { at, .. } => {
                self.books.happened.push(Happening { at: at.0, what: What::WorkerStarted });
            }
            Line::Charge { sandbox, from, to, active_ns } => {
                if sandbox == self.books.sandbox {
                    self.books.charged.push(Charge { from: from.0, to: to.0, active: Nanos(active_ns.0) });
                }
            }
            Line::Tier { memory_mib } => self.books.tiers_mib.push(memory_mib),
        }
        Ok(())
    }

    fn entry(
        &mut self,
        sandbox: &str,
        org: String,
        entry: Entry,
        book: impl Fn(&mut Books) -> &mut Vec<Entry>,
    ) -> Result<(), LinesCause> {
        if entry.end.is_some_and(|end| end < entry.start) {
            return Err(LinesCause::Backwards);
        }
        if sandbox == self.books.sandbox {
            self.org = Some(org);
            book(&mut self.books).push(entry);
        }
        Ok(())
    }

    fn happened(&mut self, sandbox: &str, at: Nanos, what: What) {
        if sandbox == self.books.sandbox {
            self.books.happened.push(Happening { at, what });
        }
    }

    fn finish(mut self) -> Books {
        let mut books = self.books;
        books.plan = self.org.and_then(|org| self.plans.remove(&org)).flatten();
        for happening in &mut books.happened {
            if let What::Report { boot_id, also_of, .. } = &mut happening.what
                && let Some((_, first)) = self.boots.get(boot_id)
                && *first != books.sandbox
            {
                *also_of = Some(first.clone());
            }
        }
        books
    }
}

impl Kind {
    fn what(self) -> What {
        match self {
            Self::Started => What::Started,
            Self::Scaled => What::Scaled,
            Self::Pausing => What::Pausing,
            Self::Resumed => What::Resumed,
            Self::RanOn => What::RanOn,
            Self::Destroyed => What::Destroyed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn books_are_one_sandbox_s() {
        let text = r#"{"type":"org","id":"o","plan":"pro"}
{"type":"scale","id":"r1","sandbox":"a","org":"o","memory_mib":1024,"cpu_millis":1000,"started_at":"2026-01-05T10:00:00Z","ended_at":null}
{"type":"scale","id":"r2","sandbox":"b","org":"o","memory_mib":1024,"cpu_millis":1000,"started_at":1,"ended_at":null}

{"type":"report","sandbox":"b","at":5,"boot_id":"x","active_ns":1,"dropped_ns":0}
{"type":"report","sandbox":"a","at":6,"boot_id":"x","active_ns":1,"dropped_ns":0}
{"type":"tier","memory_mib":1024}"#;
        let books = read(text.as_bytes(), "books", "a").unwrap();
        assert_eq!((books.plan.as_deref(), books.cell.len(), books.tiers_mib.len()), (Some("pro"), 1, 1));
        assert_eq!(books.cell[0].start, Nanos(1_767_607_200_000_000_000));
        let [Happening { what: What::Report { also_of, .. }, .. }] = &books.happened[..] else { panic!() };
        assert_eq!(also_of.as_deref(), Some("b"));
    }

    #[test]
    fn a_line_that_does_not_fit_is_told_by_its_number() {
        let good = r#"{"type":"worker","kind":"started","at":5}"#;
        for (bad, cause) in [
            ("{", "not a line of a book: EOF"),
            (r#"{"type":"nap"}"#, "unknown variant `nap`"),
            (r#"{"type":"worker","kind":"ended","at":5}"#, "unknown variant `ended`"),
            (r#"{"type":"worker","kind":"started","at":"now"}"#, "an instant from 1970 to 2262"),
            (r#"{"type":"worker","kind":"started","at":5,"by":1}"#, "unknown field `by`"),
            (
                r#"{"type":"sample","id":"r","sandbox":"a","org":"o","memory_mib":1,"cpu_millis":1,"started_at":2,"ended_at":1}"#,
                "ended_at is before started_at",
            ),
            (&"x".repeat(20_000), "longer than 16384 bytes"),
        ] {
            let error = read(format!("{good}\n{bad}").as_bytes(), "books", "a").unwrap_err().to_string();
            assert!(error.starts_with("books:2: ") && error.contains(cause), "{bad}: {error}");
        }
    }
}
