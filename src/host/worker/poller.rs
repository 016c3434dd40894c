//! Whose turn it is: each sandbox once in an interval, those who do not answer by places of their own.

use super::core::Core;
use super::fleet::Sandbox;
use super::visit::{Visited, Why};
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering as Memory};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep_until};

/// After a call or a commit that was in the way.
const SOON: Duration = Duration::from_millis(250);
/// The longest pause between two attempts at one that does not answer.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Where a sandbox stands in the queue; its own.
#[derive(Default)]
pub(super) struct Place {
    /// Entries of earlier turns are void.
    turn: AtomicU64,
    /// A hint waits already.
    hinted: AtomicBool,
    /// When its last turn came.
    last: Mutex<Option<Instant>>,
}

/// The queue of all sandboxes.
pub(super) struct Poller {
    answering: Lane,
    /// Those who did not answer: their waiting takes no place from the others.
    silent: Lane,
    hasher: RandomState,
}

struct Lane {
    queue: Mutex<BinaryHeap<Reverse<Entry>>>,
    wake: Notify,
    slots: Arc<Semaphore>,
}

struct Entry {
    due: Instant,
    turn: u64,
    why: Why,
    sandbox: Weak<Sandbox>,
}

impl Poller {
    pub(super) fn new(concurrency: usize) -> Self {
        let lane = |slots| Lane {
            queue: Mutex::default(),
            wake: Notify::new(),
            slots: Arc::new(Semaphore::new(slots)),
        };
        Self {
            answering: lane(concurrency),
            silent: lane((concurrency / 4).max(4)),
            hasher: RandomState::new(),
        }
    }

    /// Its first turn is somewhere in the next interval, so that a fleet is spread over it.
    pub(super) fn add(&self, sandbox: &Arc<Sandbox>, interval: Duration) {
        let nanos = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).max(1);
        let jitter = Duration::from_nanos(self.hasher.hash_one(&sandbox.name) % nanos);
        self.answering.put(sandbox, Instant::now() + jitter, Why::Turn);
    }

    /// It has something to say, and is heard at once, or so long after its last turn. Hints that wait are one.
    pub(super) fn hint(&self, sandbox: &Arc<Sandbox>, pause: Duration) {
        if !sandbox.place.hinted.swap(true, Memory::AcqRel) {
            let last = *sandbox.place.last.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            self.answering.put(sandbox, last.map_or(now, |last| now.max(last + pause)), Why::Hint);
        }
    }

    /// Until the worker stops.
    pub(super) fn run(self: &Arc<Self>, core: &Arc<Core>) {
        for silent in [false, true] {
            let (poller, core) = (Arc::clone(self), Arc::clone(core));
            let tasks = core.tasks.clone();
            tasks.spawn(async move {
                let stop = core.stop.clone();
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = poller.serve(&core, silent) => {}
                }
            });
        }
    }

    async fn serve(self: Arc<Self>, core: &Arc<Core>, silent: bool) {
        let lane = if silent { &self.silent } else { &self.answering };
        loop {
            let (sandbox, entry) = lane.next().await;
            let Ok(slot) = Arc::clone(&lane.slots).acquire_owned().await else { return };
            let interval = core.config().poll.interval;
            if entry.why == Why::Turn && !silent && entry.due.elapsed() > interval {
                core.metrics.polls_missed.inc();
            }
            let (poller, core) = (Arc::clone(&self), Arc::clone(core));
            let tasks = core.tasks.clone();
            tasks.spawn(async move {
                let visited = core.visit(&sandbox, entry.why, entry.due, slot).await;
                poller.again(&sandbox, &entry, visited, interval);
            });
        }
    }

    /// Its next turn, unless a hint has given it one meanwhile.
    fn again(&self, sandbox: &Arc<Sandbox>, entry: &Entry, visited: Visited, interval: Duration) {
        if sandbox.place.turn.load(Memory::Acquire) != entry.turn {
            return;
        }
        let now = Instant::now();
        match visited {
            Visited::Answered | Visited::Nobody => {
                // By its own rhythm, unless it fell behind.
                let next = entry.due + interval;
                self.answering.put(sandbox, next.max(now), Why::Turn);
            }
            Visited::Failed(1) => self.silent.put(sandbox, (entry.due + interval).max(now), Why::Turn),
            Visited::Failed(times) => {
                let pause = interval.saturating_mul(1_u32 << times.saturating_sub(1).min(6));
                let pause = pause.min(PAUSE_MAX.max(interval));
                self.silent.put(sandbox, now + pause, Why::Turn);
            }
            Visited::Later => self.answering.put(sandbox, now + SOON, entry.why),
        }
    }
}

impl Lane {
    fn put(&self, sandbox: &Arc<Sandbox>, due: Instant, why: Why) {
        let turn = sandbox.place.turn.fetch_add(1, Memory::AcqRel).wrapping_add(1);
        let entry = Entry { due, turn, why, sandbox: Arc::downgrade(sandbox) };
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let first = queue.peek().is_none_or(|Reverse(first)| due < first.due);
        queue.push(Reverse(entry));
        if first {
            self.wake.notify_one();
        }
    }

    /// The next one that is due.
    async fn next(&self) -> (Arc<Sandbox>, Entry) {
        loop {
            let woken = self.wake.notified();
            let due = match self.take(Instant::now()) {
                Taken::Entry(sandbox, entry) => return (sandbox, entry),
                Taken::Wait(due) => due,
                Taken::Nothing => {
                    woken.await;
                    continue;
                }
            };
            tokio::select! {
                () = woken => {}
                () = sleep_until(due) => {}
            }
        }
    }

    fn take(&self, now: Instant) -> Taken {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(Reverse(first)) = queue.peek() {
            let sandbox = first.sandbox.upgrade();
            let valid = sandbox.filter(|sandbox| sandbox.place.turn.load(Memory::Acquire) == first.turn);
            let due = first.due;
            let Some(sandbox) = valid else {
                queue.pop();
                continue;
            };
            if due > now {
                return Taken::Wait(due);
            }
            let Some(Reverse(entry)) = queue.pop() else { break };
            sandbox.place.hinted.store(false, Memory::Release);
            *sandbox.place.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
            return Taken::Entry(sandbox, entry);
        }
        Taken::Nothing
    }
}

enum Taken {
    Entry(Arc<Sandbox>, Entry),
    Wait(Instant),
    Nothing,
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.due.cmp(&other.due)
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl Eq for Entry {}
