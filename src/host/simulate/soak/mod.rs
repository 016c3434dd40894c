//! A soak: a fleet's days with every fault, and the real worker's books of them.
//!
//! Beside the worlds of [`Fleet`] stands what a worker is made of: each report, segment, call and VMM's answer goes
//! through `reconcile`, its decision is drafted, encoded and posted as the worker's is, and its word is what the world's
//! host goes by: which reports are acknowledged, which guests get another name, which mark a `Resume` carries. In the
//! end the ledger (SQLite, in batches) is asked as an operator would: parity by org and by sandbox, `explain` for every
//! sandbox; and both books are held against the truth.
//!
//! Not in it: the worker's sockets, timers and API, which their own tests drive, and PostgreSQL.

mod desk;
mod hooks;
mod judge;
mod show;

pub(super) use desk::Desk;

use super::fleet::{Cause, Fleet};
use super::random::Random;
use super::world::World;
use crate::host::ledger::{Ledger, LedgerError, Posted};
use crate::units::Nanos;
use judge::{Lived, judge};
use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use tokio::runtime::{Builder, Runtime};

/// Postings that share a transaction: few enough for the ledger's patience on a busy machine.
const BATCH: usize = 128;

/// What a soak came to.
#[derive(Clone, Debug, Default)]
pub struct Soaked {
    /// Sandboxes, with the clones.
    pub sandboxes: u64,
    /// Reports that were reconciled.
    pub reports: u64,
    /// Decisions that were posted.
    pub postings: u64,
    /// True running time, in ns.
    pub run: u128,
    /// What the books say: the cell's and the edge's.
    pub cell: u128,
    /// The same, of the guests' word.
    pub edge: u128,
    /// Run, and declared not to be billed, by cause.
    pub short: BTreeMap<Cause, u128>,
    /// Not run, and declared to be billed all the same: pauses that nobody announced, at most the cap of each where the
    /// guest was heard after it; and clocks that were fast.
    pub long: u128,
    /// The most that the edge's book of a sandbox is beyond what is declared, in ns.
    pub worst: u64,
    /// The most that the cell's book of a sandbox is beyond its VM's intervals, in ns.
    pub worst_cell: u64,
    /// By sandbox and hour: compared, and beyond the tolerance.
    pub compared: (u64, u64),
    /// Causes without a name, of a sandbox's day or of an hour that is flagged.
    pub uncaused: u64,
    /// Alerts of parity by org, and those that hours with causes do not account for.
    pub alerts: (u64, u64),
    /// Worlds that broke a law, and postings that the ledger refused.
    pub broken: u64,
    /// Hours of orgs that were skipped, and that should have been.
    pub skipped_free: (u64, u64),
    /// What `explain` says, and of how many sandboxes.
    pub causes: BTreeMap<&'static str, u64>,
    /// What must not be.
    pub wrong: Vec<String>,
}

/// A soak that could not be.
#[derive(Debug, thiserror::Error)]
pub enum SoakError {
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// No runtime.
    #[error("no runtime for the ledger: {0}")]
    Runtime(#[from] std::io::Error),
}

impl Fleet {
    /// Lives through it with real books in a new SQLite ledger in `folder`. `seen` is told how many sandboxes are done.
    ///
    /// # Errors
    /// A ledger that cannot be made, or asked.
    pub fn soak(
        &self,
        folder: &Path,
        threads: NonZero<usize>,
        seen: impl Fn(u64) + Sync,
    ) -> Result<Soaked, SoakError> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let url = format!("sqlite:{}", folder.join("soak.db").display());
        let ledger = runtime.block_on(Ledger::open(&url))?;
        for index in 0..self.sandboxes.min(20) {
            let (org, plan) = desk::org(index);
            runtime.block_on(ledger.set_plan(&org, Some(plan)))?;
        }
        let book = Mutex::new((runtime, Vec::new(), Soaked::default()));
        let next = AtomicU64::new(0);
        let work = || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= self.sandboxes {
                    return;
                }
                let (desk, lived, wrong) = self.books(index);
                let Ok(mut book) = book.lock() else { return };
                let (runtime, lives, soaked) = &mut *book;
                soaked.broken += u64::from(wrong.is_some());
                soaked.wrong.extend(wrong);
                soaked.reports += desk.reports;
                post(runtime, &ledger, &desk, soaked);
                lives.extend(lived);
                seen(index + 1);
            }
        };
        thread::scope(|scope| {
            for _ in 1..threads.get() {
                scope.spawn(work);
            }
            work();
        });
        let Ok((runtime, lives, mut soaked)) = book.into_inner() else { return Ok(Soaked::default()) };
        runtime.block_on(judge(&ledger, &lives, self.settings().poll, &mut soaked))?;
        runtime.block_on(ledger.close());
        Ok(soaked)
    }

    /// One world, with the real books of it.
    fn books(&self, index: u64) -> (Desk, Vec<Lived>, Option<String>) {
        let seed = Random::new(self.seed.wrapping_add(index.wrapping_mul(0x9E37_79B9_7F4A_7C15))).seed();
        let settings = super::world::Settings { tickers: false, ..self.settings() };
        let (org, plan) = desk::org(index);
        let mut world = World::new(seed, settings, false);
        world.desk = Some(Box::new(Desk::new(format!("sb-{index}"), org, Nanos(settings.poll))));
        let ended = super::live(&mut world);
        let Some(mut desk) = world.desk.take() else {
            return (Desk::new(String::new(), String::new(), Nanos::ZERO), Vec::new(), None);
        };
        desk.ends(world.now);
        let broken =
            ended.err().map(|breach| format!("seed {seed} breaks {}: {}", breach.invariant, breach.text));
        let wrong = broken.or_else(|| desk.fault.take());
        let lived = judge::lived(&world, &desk, plan == "free");
        (*desk, lived, wrong)
    }
}

fn post(runtime: &Runtime, ledger: &Ledger, desk: &Desk, soaked: &mut Soaked) {
    for batch in desk.postings.chunks(BATCH) {
        for (posting, posted) in batch.iter().zip(runtime.block_on(ledger.post(batch))) {
            match posted {
                Ok(Posted::Done { .. }) => soaked.postings += 1,
                other => {
                    soaked.broken += 1;
                    soaked.wrong.push(format!("{}: a posting came to {other:?}", posting.sandbox));
                }
            }
        }
    }
}
