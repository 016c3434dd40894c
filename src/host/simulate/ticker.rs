//! The two tickers of a host that counts by itself: one truncates each tick to seconds, the other carries the rest.
//!
//! Every 20 s or a little less the host looks at the sandboxes that run as far as it knows, and bills each the time
//! since it billed it last. A sandbox that it has not seen before is billed an interval; after more than two intervals
//! two are billed, and what was carried is forgotten. What is not seen running is forgotten.

use super::guest::SECOND;
use super::world::{What, World};

/// What a tick is meant to be.
const INTERVAL: u64 = 20 * SECOND;
/// More than this is taken for a wake that was missed.
const CAP: u64 = 2 * INTERVAL;

/// Where a ticker's seconds came from, beside those that were run, and where they went. In ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ticked {
    pub(super) posted: u64,
    /// Run, but not billed.
    pub(super) truncated: u64,
    pub(super) guess_short: u64,
    pub(super) capped: u64,
    pub(super) uncarried: u64,
    pub(super) tail: u64,
    /// Billed, but not run.
    pub(super) paused: u64,
    pub(super) guess_long: u64,
}

/// One sandbox in one ticker.
#[derive(Clone, Copy, Debug, Default)]
struct Billed {
    /// When it was billed last, if that is remembered.
    last: Option<u64>,
    carry: u64,
    /// Its true run when it was billed last, remembered or not.
    run: u64,
    ticked: Ticked,
}

/// Both tickers of one sandbox.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tickers {
    truncating: Billed,
    carrying: Billed,
}

impl Billed {
    /// Bills a sandbox that is seen running, having truly run for `run` in all.
    fn bill(&mut self, now: u64, run: u64, carries: bool) {
        let ran = run.saturating_sub(self.run);
        self.run = run;
        let it = &mut self.ticked;
        let Some(last) = self.last.replace(now) else {
            it.uncarried += std::mem::take(&mut self.carry);
            it.posted += INTERVAL;
            it.guess_short += ran.saturating_sub(INTERVAL);
            it.guess_long += INTERVAL.saturating_sub(ran);
            return;
        };
        let elapsed = now.saturating_sub(last);
        if elapsed > CAP {
            it.uncarried += std::mem::take(&mut self.carry);
            it.posted += CAP;
            it.capped += ran.saturating_sub(CAP);
            it.paused += CAP.saturating_sub(ran);
            return;
        }
        let owed = elapsed.saturating_add(self.carry);
        let rest = owed % SECOND;
        it.posted += owed - rest;
        it.paused += elapsed.saturating_sub(ran);
        if carries {
            self.carry = rest;
        } else {
            it.truncated += rest;
        }
    }

    fn forget(&mut self) {
        self.last = None;
        self.ticked.uncarried += std::mem::take(&mut self.carry);
    }

    /// What is never billed, for the sandbox has ended.
    fn end(mut self, run: u64) -> Ticked {
        self.ticked.tail += run.saturating_sub(self.run);
        self.ticked.uncarried += self.carry;
        self.ticked
    }
}

impl Tickers {
    /// The worker has died, or does not see the sandbox.
    pub(super) fn forget(&mut self) {
        self.truncating.forget();
        self.carrying.forget();
    }

    /// What the truncating one and the carrying one came to.
    pub(super) fn ended(&self, run: u64) -> [Ticked; 2] {
        [self.truncating.end(run), self.carrying.end(run)]
    }
}

impl World {
    /// The host's ticker ticks.
    pub(super) fn tick(&mut self) {
        let now = self.now;
        for index in 0..self.accounts.len() {
            let Some(vm) = self.accounts.get(index).map(|account| account.vm) else { continue };
            self.sync(vm);
            let Some(account) = self.accounts.get_mut(index) else { continue };
            if account.running {
                let run = account.books.truth.run;
                account.tickers.truncating.bill(now, run, false);
                account.tickers.carrying.bill(now, run, true);
            } else {
                account.tickers.forget();
            }
        }
        let next = self.random.between(INTERVAL - SECOND, INTERVAL);
        self.after(next, What::Tick);
    }
}

#[cfg(test)]
mod tests {
    use super::super::guest::MILLI;
    use super::*;

    fn lost(it: &Ticked) -> u64 {
        it.truncated + it.guess_short + it.capped + it.uncarried + it.tail
    }

    fn run(spans_ms: impl IntoIterator<Item = u64>, carries: bool) -> Ticked {
        let mut billed = Billed { last: Some(0), ..Billed::default() };
        let mut now = 0;
        for span in spans_ms {
            now += span * MILLI;
            billed.bill(now, now, carries);
        }
        billed.end(now)
    }

    #[test]
    fn the_vectors_of_the_seed() {
        assert_eq!(run([19_500; 200], false).posted, 3800 * SECOND);
        assert_eq!(run([19_500; 200], true).posted, 3900 * SECOND);
        assert_eq!(run([400; 3], false).posted, 0);
        assert_eq!(run([400; 3], true).posted, SECOND);
        let capped = run([900, 50_000], true);
        assert_eq!((capped.posted, capped.uncarried, capped.capped), (40 * SECOND, 900 * MILLI, 10 * SECOND));
    }

    #[test]
    fn posted_is_run_less_what_was_lost_and_what_was_doubled() {
        for carries in [false, true] {
            let ticked = run([19_500, 700, 80_000, 19_999], carries);
            assert_eq!(ticked.posted + lost(&ticked), 120_199 * MILLI + ticked.paused + ticked.guess_long);
        }
    }
}
