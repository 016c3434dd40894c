//! Both engines against a ledger of a few vectors: random lives, questions of every kind, prunes, and copies.

use super::*;
use guestmeter::host::ledger::{Book, LedgerError, usage::HOUR as HOUR_SPAN};
use guestmeter::host::parity::{self, By, TOLERANCE};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Minutes of the world; the hours in it are whole.
const WORLD: u64 = 360;
const SANDBOXES: u8 = 3;

#[derive(Clone, Debug)]
enum Act {
    Row { sandbox: u8, epoch: u8, memory: u8, from: u64, length: Option<u64> },
    Cut { sandbox: u8, epoch: u8, at: u64 },
    Sample { sandbox: u8, epoch: u8, memory: u8, from: u64, length: u64 },
}

#[derive(Clone, Debug)]
struct World {
    acts: Vec<Act>,
    plans: Vec<Option<bool>>,
    windows: Vec<(u64, u64, u64)>,
    prune_hours: u64,
}

fn act() -> impl Strategy<Value = Act> {
    let (sandbox, epoch, memory) = (0..SANDBOXES, 0..3_u8, 0..3_u8);
    // Few starts, so that rows are told anew.
    let from = (0..WORLD / 20).prop_map(|twenty| twenty * 20 + twenty % 3);
    let key = (sandbox, epoch, memory, from);
    prop_oneof![
        3 => (key.clone(), proptest::option::weighted(0.7, 0..200_u64)).prop_map(
            |((sandbox, epoch, memory, from), length)| Act::Row { sandbox, epoch, memory, from, length }
        ),
        1 => (key.clone(), 0..WORLD).prop_map(|((sandbox, epoch, ..), at)| Act::Cut { sandbox, epoch, at }),
        2 => (key, 0..100_u64).prop_map(
            |((sandbox, epoch, memory, from), length)| Act::Sample { sandbox, epoch, memory, from, length }
        ),
    ]
}

fn world() -> impl Strategy<Value = World> {
    (
        proptest::collection::vec(act(), 1..25),
        proptest::collection::vec(proptest::option::of(any::<bool>()), usize::from(SANDBOXES)),
        proptest::collection::vec((0..WORLD, 0..WORLD, 0..2 * WORLD), 6),
        0..WORLD / 60,
    )
        .prop_map(|(acts, plans, windows, prune_hours)| World { acts, plans, windows, prune_hours })
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    start: u64,
    epoch: u64,
    end: Option<u64>,
    memory: u64,
}

impl Row {
    fn cut(&self, from: u64, to: u64, now: u64) -> u64 {
        self.end.unwrap_or(now).min(to).saturating_sub(self.start.max(from))
    }
}

/// What the pages say, in the plainest way: minutes, one vector a book and sandbox.
#[derive(Clone, Debug, Default)]
struct Model {
    cell: BTreeMap<u8, Vec<Row>>,
    edge: BTreeMap<u8, Vec<Row>>,
}

fn epoch_of(sandbox: u8, epoch: u8) -> u64 {
    u64::from(sandbox) * 16 + u64::from(epoch) + 1
}

impl Model {
    /// Whether a ledger takes it.
    fn act(&mut self, act: &Act) -> bool {
        let put = |rows: &mut Vec<Row>, row: Row| {
            rows.retain(|old| (old.epoch, old.start) != (row.epoch, row.start));
            rows.push(row);
        };
        match *act {
            Act::Row { sandbox, epoch, memory, from, length } => {
                let rows = self.cell.entry(sandbox).or_default();
                let epoch = epoch_of(sandbox, epoch);
                put(
                    rows,
                    Row {
                        start: from,
                        epoch,
                        end: length.map(|length| from + length),
                        memory: 1024 << memory,
                    },
                );
                rows.iter().filter(|row| row.end.is_none()).count() <= 1
            }
            Act::Sample { sandbox, epoch, memory, from, length } => {
                let rows = self.edge.entry(sandbox).or_default();
                let epoch = epoch_of(sandbox, epoch);
                put(rows, Row { start: from, epoch, end: Some(from + length), memory: 1024 << memory });
                true
            }
            Act::Cut { sandbox, epoch, at } => {
                let rows = [self.cell.entry(sandbox).or_default(), self.edge.entry(sandbox).or_default()];
                for row in rows.into_iter().flatten().filter(|row| row.epoch == epoch_of(sandbox, epoch)) {
                    if row.end.is_none_or(|end| end > at) {
                        row.end = Some(at.max(row.start));
                    }
                }
                true
            }
        }
    }

    fn book(&self, book: Book, sandbox: u8) -> &[Row] {
        let books = if book == Book::Cell { &self.cell } else { &self.edge };
        books.get(&sandbox).map_or(&[], Vec::as_slice)
    }

    fn by_size(&self, book: Book, from: u64, to: u64, now: u64) -> Vec<(u64, u128)> {
        let mut sums: BTreeMap<u64, u64> = BTreeMap::new();
        for row in (0..SANDBOXES).flat_map(|sandbox| self.book(book, sandbox)) {
            *sums.entry(row.memory).or_default() += row.cut(from, to, now);
        }
        sums.into_iter()
            .filter(|(_, sum)| *sum > 0)
            .map(|(memory, sum)| (memory, u128::from(sum * MINUTE)))
            .collect()
    }

    fn memory(&self, book: Book, sandbox: u8, from: u64, to: u64, now: u64) -> u128 {
        self.book(book, sandbox)
            .iter()
            .map(|row| u128::from(row.memory * row.cut(from, to, now) * MINUTE))
            .sum()
    }
}

/// The names of one case, so that cases share a database.
#[derive(Clone, Copy)]
struct Case(u64);

impl Case {
    fn org(self, sandbox: u8, one_each: bool) -> String {
        if one_each { format!("c{:06}-o{sandbox}", self.0) } else { format!("c{:06}", self.0) }
    }

    fn sandbox(self, sandbox: u8) -> String {
        format!("c{:06}-s{sandbox}", self.0)
    }

    fn epoch(self, sandbox: u8, epoch: u8) -> guestmeter::wire::message::Id {
        id(self.0 << 16 | epoch_of(sandbox, epoch))
    }

    fn change(self, act: &Act, one_each: bool) -> (u8, Change) {
        match *act {
            Act::Row { sandbox, epoch, memory, from, length } => {
                let row = RowPut {
                    epoch: self.epoch(sandbox, epoch),
                    org: self.org(sandbox, one_each),
                    size: size(1024 << memory, 1000),
                    started_at: at(from, 0),
                    ended_at: length.map(|length| at(from + length, 0)),
                };
                (sandbox, Change::Row(row))
            }
            Act::Cut { sandbox, epoch, at: minute } => {
                (sandbox, Change::Cut { epoch: self.epoch(sandbox, epoch), at: at(minute, 0) })
            }
            Act::Sample { sandbox, epoch, memory, from, length } => {
                let sample = Sample {
                    epoch: self.epoch(sandbox, epoch),
                    org: self.org(sandbox, one_each),
                    size: size(1024 << memory, 1000),
                    started_at: at(from, 0),
                    ended_at: at(from + length, 0),
                };
                (sandbox, Change::Sample(sample))
            }
        }
    }
}

/// Plays the world on a ledger; each answer must be the model's.
async fn live(ledger: &Ledger, case: Case, world: &World, one_each: bool) -> Model {
    let mut model = Model::default();
    for act in &world.acts {
        let (sandbox, change) = case.change(act, one_each);
        let posting = posting(ledger, &case.sandbox(sandbox), vec![change]).await;
        let posted = ledger.post_one(&posting).await;
        let before = model.clone();
        if model.act(act) {
            assert!(matches!(posted, Ok(Posted::Done { .. })), "{act:?}: {posted:?}");
        } else {
            assert!(matches!(posted, Err(LedgerError::Failed { .. })), "{act:?}: {posted:?}");
            model = before;
        }
        let mut expected: Vec<_> =
            model.book(Book::Cell, sandbox).iter().map(|row| (row.memory, row.start, row.end)).collect();
        let mut found = rows(ledger, &case.sandbox(sandbox)).await;
        // Rows of one instant have no order of their own.
        expected.sort_by_key(|row| (row.1, *row));
        found.sort_by_key(|row| (row.1, *row));
        assert_eq!(found, expected, "after {act:?}");
    }
    model
}

async fn ask(ledger: &Ledger, case: Case, model: &Model, windows: &[(u64, u64, u64)]) {
    for &(from, to, now) in windows {
        for book in [Book::Cell, Book::Edge] {
            let used =
                ledger.usage_by(book, &case.org(0, false), at(from, 0), at(to, 0), at(now, 0)).await.unwrap();
            let found: Vec<_> =
                used.by_size.iter().map(|total| (total.size.memory.0, total.active_ns)).collect();
            assert_eq!(found, model.by_size(book, from, to, now), "{book:?} of {from}..{to} at {now}");
        }
        let prefix = case.org(0, false);
        let totals = ledger.totals(at(from, 0), at(to, 0), at(now, 0)).await.unwrap();
        let found: Vec<_> = totals
            .into_iter()
            .filter(|total| total.org.starts_with(&prefix))
            .map(|total| (total.sandbox, total.cell.0, total.edge.0))
            .collect();
        let expected: Vec<_> = (0..SANDBOXES)
            .map(|sandbox| {
                let memory = |book| model.memory(book, sandbox, from, to, now);
                (case.sandbox(sandbox), memory(Book::Cell), memory(Book::Edge))
            })
            .filter(|(_, cell, edge)| cell + edge > 0)
            .collect();
        assert_eq!(found, expected, "both books of {from}..{to} at {now}");
    }
}

/// Hour by hour, sandbox by sandbox (each has an org of its own here): what is flagged, skipped and worst.
async fn compare(ledger: &Ledger, case: Case, model: &Model, plans: &[Option<bool>]) {
    for (sandbox, plan) in (0..SANDBOXES).zip(plans) {
        let plan = plan.map(|pro| if pro { "pro" } else { "free" });
        ledger.set_plan(&case.org(sandbox, true), plan).await.unwrap();
    }
    let (now, prefix) = (2 * WORLD, case.org(0, false));
    let mut found = BTreeSet::new();
    let window = (at(0, 0), at(WORLD, 0));
    for by in [By::Org, By::Sandbox] {
        found.clear();
        let done = parity::run::<LedgerError>(ledger, window, at(now, 0), by, TOLERANCE, |_, compared| {
            for one in compared.iter().filter(|one| one.org.starts_with(&prefix)) {
                found.insert((one.bucket, one.org.clone(), one.drift.cell.0, one.drift.edge.0, one.flagged));
            }
            Ok(())
        });
        done.await.unwrap();
        let mut expected = BTreeSet::new();
        for (hour, sandbox) in
            (0..WORLD / 60).flat_map(|hour| (0..SANDBOXES).map(move |sandbox| (hour, sandbox)))
        {
            let memory = |book| model.memory(book, sandbox, hour * 60, hour * 60 + 60, now);
            let (cell, edge) = (memory(Book::Cell), memory(Book::Edge));
            if plans[usize::from(sandbox)] == Some(false) || cell + edge == 0 {
                continue;
            }
            let flagged = if cell == 0 { edge > 0 } else { cell.abs_diff(edge) * 50 > cell };
            expected.insert((Nanos(HOUR_16.0 + hour * HOUR), case.org(sandbox, true), cell, edge, flagged));
        }
        assert_eq!(found, expected, "{by:?}");
    }
}

/// A copy by export and import answers alike, and takes itself a second time without a change.
async fn copy(ledger: &Ledger, case: Case, model: &Model, windows: &[(u64, u64, u64)]) {
    let mut lines = Vec::new();
    ledger.export(&mut lines).await.unwrap();
    let other = Db::sqlite();
    let copied = other.open().await;
    copied.import(lines.as_slice(), "export", |_| {}).await.unwrap();
    let again = copied.import(lines.as_slice(), "export", |_| {}).await.unwrap();
    assert_eq!((again.scale_events, again.samples), (0, 0));
    ask(&copied, case, model, windows).await;
    let mut back = Vec::new();
    copied.export(&mut back).await.unwrap();
    assert!(lines == back, "an export of the copy is the export");
}

async fn play(ledger: &Ledger, case: Case, world: &World) {
    let model = live(ledger, case, world, false).await;
    ask(ledger, case, &model, &world.windows).await;
    let apart = Case(case.0 + 1);
    let model_apart = live(ledger, apart, world, true).await;
    compare(ledger, apart, &model_apart, &world.plans).await;
}

/// Alone in its ledger, since it takes all of it.
async fn play_alone(ledger: &Ledger, world: &World) {
    let case = Case(0);
    let model = live(ledger, case, world, false).await;
    copy(ledger, case, &model, &world.windows).await;
    let before = Nanos(HOUR_16.0 + world.prune_hours * HOUR_SPAN.0);
    ledger.prune(before, LATER, |_| {}).await.unwrap();
    let whole: Vec<_> =
        world.windows.iter().map(|(from, to, now)| (from / 60 * 60, to.div_ceil(60) * 60, *now)).collect();
    ask(ledger, case, &model, &whole).await;
}

/// Each case opens a file or asks a server: an eighth of the usual number.
fn cases() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: (usual.cases / 8).max(1), failure_persistence: None, ..usual }
}

fn on_one_ledger(db: &Db) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ledger = runtime.block_on(db.open());
    static NEXT: AtomicU64 = AtomicU64::new(10);
    proptest!(cases(), |(world in world())| {
        let case = Case(NEXT.fetch_add(2, Ordering::Relaxed));
        runtime.block_on(play(&ledger, case, &world));
    });
}

#[test]
fn sqlite_answers_as_the_model() {
    on_one_ledger(&Db::sqlite());
}

#[test]
fn postgres_answers_as_the_model() {
    if let Some(db) = Db::postgres() {
        on_one_ledger(&db);
    }
}

#[test]
fn a_sqlite_of_its_own_is_copied_and_pruned_as_the_model() {
    proptest!(cases(), |(world in world())| {
        let db = Db::sqlite();
        block_on(async { play_alone(&db.open().await, &world).await });
    });
}

#[test]
fn a_postgres_of_its_own_is_copied_and_pruned_as_the_model() {
    // One server for all cases, whichever test ends first.
    let Some(_server) = Server::shared() else { return };
    // Each makes and drops a database: a quarter of the other tests' number.
    let fewer = ProptestConfig { cases: (cases().cases / 4).max(1), ..cases() };
    proptest!(fewer, |(world in world())| {
        let db = Db::postgres().unwrap();
        block_on(async { play_alone(&db.open().await, &world).await });
    });
}
