//! Books as they stand after each known kind of failure, and healthy ones: what `explain` says of them.

mod cli;
mod passed;

use guestmeter::host::explain::lines::read;
use guestmeter::host::explain::{
    Amount, Books, Entry, Explanation, Finding, Happening, Question, What, explain,
};
use guestmeter::host::ledger::parse_instant;
use guestmeter::host::reconcile::{Policy, Size};
use guestmeter::units::{MilliCpu, Nanos};
use proptest::prelude::*;
use serde::Deserialize;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
struct Expected {
    question: Asked,
    causes: Vec<Named>,
}

#[derive(Deserialize)]
struct Asked {
    sandbox: String,
    from: String,
    to: String,
    now: String,
}

#[derive(Deserialize)]
struct Named {
    cause: String,
    active_ns: i64,
    memory_mib_ns: i64,
    cpu_millis_ns: i64,
}

fn folders() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/incidents");
    let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

fn explained(folder: &Path) -> (Expected, Explanation) {
    let (expected, mut books, question) = incident(folder);
    (expected, explain(&mut books, &question))
}

fn incident(folder: &Path) -> (Expected, Books, Question) {
    let expected = std::fs::read_to_string(folder.join("expected.json")).unwrap();
    let expected: Expected = serde_json::from_str(&expected).unwrap();
    let books = folder.join("books.jsonl");
    let asked = &expected.question;
    let books = read(BufReader::new(File::open(&books).unwrap()), "books.jsonl", &asked.sandbox).unwrap();
    let instant = |text: &str| parse_instant(text).unwrap();
    let (from, to, now) = (instant(&asked.from), instant(&asked.to), instant(&asked.now));
    (expected, books, Question::new(from, to, now, &Policy::default()))
}

fn told(findings: &[Finding]) -> Vec<(String, i128, i128, i128)> {
    let of = |finding: &Finding| {
        let Amount { active_ns, memory_mib_ns, cpu_millis_ns } = finding.amount;
        (finding.cause.name().to_owned(), active_ns, memory_mib_ns, cpu_millis_ns)
    };
    let mut told: Vec<_> = findings.iter().map(of).collect();
    told.sort();
    told
}

#[test]
fn each_incident_is_explained_to_the_nanosecond() {
    let folders = folders();
    assert!(folders.len() >= 21, "the corpus has {} incidents", folders.len());
    let mut wrong = Vec::new();
    for folder in &folders {
        let (expected, explanation) = explained(folder);
        let of = |named: &Named| {
            let Named { cause, active_ns, memory_mib_ns, cpu_millis_ns } = named;
            (cause.clone(), i128::from(*active_ns), i128::from(*memory_mib_ns), i128::from(*cpu_millis_ns))
        };
        let mut causes: Vec<_> = expected.causes.iter().map(of).collect();
        causes.sort();
        let found = told(&explanation.findings);
        if found != causes {
            wrong.push(format!("{}\n  expected {causes:?}\n  found    {found:?}", folder.display()));
        }
        let causes = explanation.findings.iter().filter(|finding| finding.cause.is_difference());
        let sum = causes.fold(Amount::default(), |sum, finding| sum + finding.amount);
        assert_eq!(sum, explanation.difference(), "{}: the causes are the difference", folder.display());
    }
    assert!(wrong.is_empty(), "{} of {} wrong:\n{}", wrong.len(), folders.len(), wrong.join("\n"));
}

/// Each folder is in the table of the README, in a row with each of the causes that it is told by.
#[test]
fn the_table_has_each_incident_with_its_causes() {
    let table = std::fs::read_to_string(folders()[0].with_file_name("README.md")).unwrap();
    for folder in folders() {
        let name = folder.file_name().unwrap().to_str().unwrap();
        let rows: Vec<&str> = table.lines().filter(|line| line.contains(&format!("`{name}`"))).collect();
        for named in incident(&folder).0.causes {
            let cause = format!("`{}`", named.cause);
            assert!(rows.iter().any(|row| row.contains(&cause)), "{name}: {cause} is in none of {rows:?}");
        }
        assert!(!rows.is_empty(), "{name} is not in the table");
    }
}

/// Nothing hangs on names, on the day, on the order of lines, or on a size.
#[test]
fn an_incident_under_other_names_sizes_and_days_is_the_same() {
    for folder in folders() {
        let (_, books, question) = incident(&folder);
        let plain = explain(&mut books.clone(), &question);
        let (mut books, question) = disguised(books, &question);
        let other = explain(&mut books, &question);
        let doubled: Vec<_> = told(&plain.findings)
            .into_iter()
            .map(|(cause, active, memory, cpu)| (cause, active, memory * 2, cpu * 2))
            .collect();
        assert_eq!(told(&other.findings), doubled, "{}", folder.display());
    }
}

/// 1000 days later, twice as large, with other ids, each book backwards.
fn disguised(mut books: Books, question: &Question) -> (Books, Question) {
    let later = |at: &mut Nanos| at.0 += 24_000 * HOUR;
    for entry in books.cell.iter_mut().chain(&mut books.edge) {
        later(&mut entry.start);
        entry.end.iter_mut().for_each(later);
        entry.size = Size { memory_mib: entry.size.memory_mib * 2, cpu: MilliCpu(entry.size.cpu.0 * 2) };
        entry.id = format!("of-{}", entry.id);
    }
    books.happened.iter_mut().for_each(|happening| later(&mut happening.at));
    for charge in &mut books.charged {
        later(&mut charge.from);
        later(&mut charge.to);
    }
    books.tiers_mib.iter_mut().for_each(|mib| *mib *= 2);
    books.sandbox = "another".into();
    books.cell.reverse();
    books.edge.reverse();
    books.happened.reverse();
    let mut question = question.clone();
    for at in [&mut question.from, &mut question.to, &mut question.now, &mut question.settled] {
        later(at);
    }
    (books, question)
}

/// A second in ns.
const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3600 * SECOND;
const START: u64 = 490_000 * HOUR;

/// One life: how long it ran, how long the VM was away before it, what it asked for on the way.
#[derive(Clone, Debug)]
struct Life {
    away: u64,
    runs: u64,
    /// Whether it was paused and resumed, or destroyed and started.
    paused: bool,
    scales: Vec<(prop::sample::Index, u64)>,
    late: [u64; 4],
}

#[derive(Clone, Debug)]
struct Healthy {
    lives: Vec<Life>,
    /// Samples by the tick, or by the hour.
    tick: Option<u64>,
    told: bool,
    open: bool,
    cpu: u64,
}

fn healthy() -> impl Strategy<Value = Healthy> {
    let scales = prop::collection::vec((any::<prop::sample::Index>(), 0..4u64), 0..4);
    let late = prop::array::uniform4(0..4_000_000_000u64);
    let length = || prop_oneof![1..600 * SECOND, 600 * SECOND..5 * HOUR];
    let life = (length(), length(), any::<bool>(), scales, late)
        .prop_map(|(away, runs, paused, scales, late)| Life { away, runs, paused, scales, late });
    let tick =
        prop::option::of(prop_oneof![Just(5 * SECOND), Just(20 * SECOND), 1_000_000_000..60_000_000_000u64]);
    (prop::collection::vec(life, 1..6), tick, any::<bool>(), any::<bool>(), 1..9u64)
        .prop_map(|(lives, tick, told, open, cpu)| Healthy { lives, tick, told, open, cpu: cpu * 500 })
}

impl Healthy {
    /// The books, and when they were read.
    fn books(&self) -> (Books, Nanos) {
        let mut books = Books { sandbox: "sb".into(), plan: Some("pro".into()), ..Books::default() };
        let mut now = START;
        let mut mib = 1024;
        for (number, life) in self.lives.iter().enumerate() {
            let resumed = number > 0 && life.paused;
            now += life.away;
            self.happened(&mut books, now, if resumed { What::Resumed } else { What::Started });
            let open = self.open && number + 1 == self.lives.len();
            mib = self.life(&mut books, now, life, mib, open, number);
            now += life.runs;
            let next = self.lives.get(number + 1);
            if let Some(next) = next.filter(|_| !open) {
                self.happened(&mut books, now, if next.paused { What::Pausing } else { What::Destroyed });
            }
        }
        (books, Nanos(now))
    }

    fn happened(&self, books: &mut Books, at: u64, what: What) {
        if self.told {
            books.happened.push(Happening { at: Nanos(at), what });
        }
    }

    /// Rows of one life, and samples that begin and end up to 4 s late and early. Returns the last size.
    fn life(
        &self,
        books: &mut Books,
        from: u64,
        life: &Life,
        mut mib: u64,
        open: bool,
        number: usize,
    ) -> u64 {
        let to = from + life.runs;
        let mut cuts: Vec<(u64, u64)> = life
            .scales
            .iter()
            .map(|(at, size)| (from + at.index(usize::try_from(life.runs).unwrap()) as u64, 1024 << size))
            .collect();
        cuts.sort_unstable();
        cuts.dedup_by_key(|cut| cut.0);
        let mut rows = vec![(from, mib)];
        rows.extend(cuts.into_iter().filter(|cut| cut.0 > from));
        let mut counted = from + life.late[0];
        for (place, (start, size)) in rows.iter().enumerate() {
            let next = rows.get(place + 1);
            let end = next.map_or(to, |next| next.0);
            let row_end = (next.is_some() || !open).then_some(Nanos(end));
            books.cell.push(self.entry(format!("r{number}.{place}"), *start, row_end, *size));
            self.happened(books, *start, What::Scaled);
            // More is confirmed a little later, less at once.
            let grows = next.is_some_and(|next| next.1 > *size);
            let told = if next.is_some() {
                end + if grows { life.late[1] } else { 0 }
            } else {
                end - (life.late[2].min(end - from))
            };
            // Of the size that it still has, the samples of an hour come when the hour is over.
            let still = open && rows.iter().skip(place).all(|row| row.1 == *size);
            let told = if still { told / HOUR * HOUR } else { told };
            let told = told.min(to);
            self.samples(books, counted, told, *size, number);
            counted = counted.max(told);
            mib = *size;
        }
        mib
    }

    fn samples(&self, books: &mut Books, from: u64, to: u64, mib: u64, number: usize) {
        let mut at = from;
        while at < to {
            let hour = (at / HOUR + 1) * HOUR;
            let end = to.min(hour).min(self.tick.map_or(u64::MAX, |tick| at + tick));
            let id = format!("{number:032x}/{at}");
            books.edge.push(self.entry(id, at, Some(Nanos(end)), mib));
            at = end;
        }
    }

    fn entry(&self, id: String, start: u64, end: Option<Nanos>, memory_mib: u64) -> Entry {
        Entry {
            id,
            start: Nanos(start),
            end,
            size: Size { memory_mib, cpu: MilliCpu(self.cpu) },
            epoch: None,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000.max(ProptestConfig::default().cases), ..ProptestConfig::default() })]

    #[test]
    fn healthy_books_agree(healthy in healthy(), wait in 0..2 * HOUR) {
        let (mut books, ended) = healthy.books();
        let to = Nanos(ended.0.div_ceil(HOUR) * HOUR);
        let now = if healthy.open { ended } else { Nanos(ended.0 + wait) };
        let explanation = explain(&mut books, &Question::new(Nanos(START), to, now, &Policy::default()));
        prop_assert!(explanation.agrees(), "{:#?}", explanation.findings);
    }
}
