//! How much of a host one guest may take by knocking.

use crate::host::target::Target;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Connections of all guests at once.
const TOTAL_MAX: usize = 256;
/// Of one guest: what it says, and what it says instead once that is out of date.
const EACH_MAX: usize = 2;
/// A place stays taken for so long, so that one guest causes at most eight questions a second.
const STAY_LEAST: Duration = Duration::from_millis(250);

/// Counts who is inside.
#[derive(Clone, Default)]
pub(super) struct Gate(Arc<Mutex<Inside>>);

#[derive(Default)]
struct Inside {
    total: usize,
    by_guest: HashMap<Target, usize>,
}

impl Gate {
    /// Lets one in, or not; `now` is when it came.
    pub(super) fn enter(&self, guest: &Target, now: Instant) -> Option<Pass> {
        let mut inside = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_guest = inside.by_guest.get(guest).copied().unwrap_or(0);
        if inside.total >= TOTAL_MAX || of_guest >= EACH_MAX {
            return None;
        }
        inside.total += 1;
        inside.by_guest.insert(guest.clone(), of_guest + 1);
        let stay = Stay { gate: self.clone(), guest: guest.clone() };
        Some(Pass { stay: Some(stay), until: now + STAY_LEAST })
    }

    fn leave(&self, guest: &Target) {
        let mut inside = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inside.total = inside.total.saturating_sub(1);
        match inside.by_guest.get_mut(guest) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(inside.by_guest.remove(guest)),
        }
    }
}

/// One place inside. Dropped early, it stays taken for its time where there is a runtime to wait in.
pub(super) struct Pass {
    stay: Option<Stay>,
    until: Instant,
}

struct Stay {
    gate: Gate,
    guest: Target,
}

impl Pass {
    /// Gives the place back once its time is over.
    pub(super) async fn wait(mut self) {
        let stay = self.stay.take();
        sleep_until(self.until).await;
        drop(stay);
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let Some(stay) = self.stay.take() else { return };
        let until = self.until;
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                sleep_until(until).await;
                drop(stay);
            });
        }
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.gate.leave(&self.guest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(cid: u32) -> Target {
        Target::Vsock { cid, port: 1020 }
    }

    #[tokio::test]
    async fn one_guest_cannot_take_the_places_of_others_nor_come_back_at_once() {
        let gate = Gate::default();
        let began = Instant::now();
        let first = gate.enter(&guest(3), began).unwrap();
        let second = gate.enter(&guest(3), began).unwrap();
        assert!(gate.enter(&guest(3), began).is_none());
        let other = gate.enter(&guest(4), began).unwrap();
        drop(first);
        assert!(gate.enter(&guest(3), began).is_none(), "its place stays taken");
        second.wait().await;
        assert!(began.elapsed() >= STAY_LEAST);
        tokio::task::yield_now().await;
        assert!(gate.enter(&guest(3), Instant::now()).is_some());
        other.wait().await;
    }

    #[tokio::test]
    async fn there_is_an_end_to_all_of_them() {
        let gate = Gate::default();
        let now = Instant::now();
        let most = u32::try_from(TOTAL_MAX).unwrap();
        let passes: Vec<Pass> = (3..3 + most).map(|cid| gate.enter(&guest(cid), now).unwrap()).collect();
        assert!(gate.enter(&guest(1), now).is_none());
        for pass in passes {
            pass.wait().await;
        }
        assert!(gate.0.lock().unwrap().by_guest.is_empty(), "who has left is forgotten");
        assert!(gate.enter(&guest(1), now).is_some());
    }
}
