//! Many small worlds, on all processors.

use super::{Broken, check};
use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Worlds taken at once by a thread.
const BATCH: u64 = 16;
/// Broken seeds after which nobody looks for more.
const BROKEN_MAX: usize = 10;

/// What many seeds came to.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// Worlds that were lived through.
    pub seeds: u64,
    /// Events in them.
    pub events: u64,
    /// Those that broke a law, by seed; the search ends soon after the tenth.
    pub broken: Vec<Broken>,
}

/// Lives through `count` worlds from seed `first` on. `seen` is told how many are done, from any thread.
pub fn check_seeds(first: u64, count: u64, threads: NonZero<usize>, seen: impl Fn(u64) + Sync) -> Checked {
    let next = AtomicU64::new(0);
    let checked = Mutex::new(Checked::default());
    let work = || {
        loop {
            let begin = next.fetch_add(BATCH, Ordering::Relaxed);
            if begin >= count {
                return;
            }
            let batch = batch(first.wrapping_add(begin), BATCH.min(count - begin));
            let Ok(mut all) = checked.lock() else { return };
            all.seeds += batch.seeds;
            all.events += batch.events;
            all.broken.extend(batch.broken);
            let (done, enough) = (all.seeds, all.broken.len() >= BROKEN_MAX);
            drop(all);
            seen(done);
            if enough {
                return;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.get() {
            scope.spawn(work);
        }
        work();
    });
    let mut all = checked.into_inner().unwrap_or_default();
    all.broken.sort_by_key(|broken| broken.seed);
    all
}

fn batch(first: u64, count: u64) -> Checked {
    let mut batch = Checked::default();
    for seed in (0..count).map(|offset| first.wrapping_add(offset)) {
        batch.seeds += 1;
        match check(seed) {
            Ok(events) => batch.events += events,
            Err(broken) => batch.broken.push(*broken),
        }
    }
    batch
}
