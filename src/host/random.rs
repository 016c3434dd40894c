//! The kernel's random numbers: nonces, epochs, jitter.

use crate::wire::message::Id;
use std::io;
use std::time::Duration;

/// An epoch's id: 128 random bits, drawn on the host alone, for a clone's own generator repeats its sibling's.
///
/// # Errors
/// The kernel has none to give.
pub fn mint_epoch() -> io::Result<Id> {
    bytes().map(Id)
}

pub(super) fn number() -> io::Result<u64> {
    bytes().map(u64::from_ne_bytes)
}

/// Pauses between attempts: each twice the one before, and up to a quarter longer, so that those who were lost
/// together do not come back together.
pub(super) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self { next: first, longest }
    }

    /// The next pause. Without a random number it is not lengthened.
    pub(super) fn pause(&mut self) -> Duration {
        self.pause_by(number().unwrap_or(0))
    }

    fn pause_by(&mut self, random: u64) -> Duration {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(self.longest);
        let quarter = u64::try_from(pause.as_nanos() / 4).unwrap_or(u64::MAX);
        pause.saturating_add(Duration::from_nanos(random % quarter.saturating_add(1).max(1)))
    }
}

fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    // At most 256 bytes come whole or not at all, once the kernel's generator is up.
    if filled == N { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_are_at_most_a_quarter_longer() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(450));
        for (random, least_ms, most_ms) in
            [(0, 100, 100), (u64::MAX, 200, 250), (7, 400, 401), (u64::MAX / 3, 450, 563)]
        {
            let pause = backoff.pause_by(random);
            let (least, most) = (Duration::from_millis(least_ms), Duration::from_millis(most_ms));
            assert!((least..=most).contains(&pause), "{pause:?}");
        }
    }

    #[test]
    fn a_pause_of_nothing_and_one_past_all_ends_are_pauses() {
        assert_eq!(Backoff::new(Duration::ZERO, Duration::ZERO).pause_by(u64::MAX), Duration::ZERO);
        assert!(Backoff::new(Duration::MAX, Duration::MAX).pause_by(u64::MAX) == Duration::MAX);
    }

    #[test]
    fn no_two_epochs_have_one_id() {
        assert_ne!(mint_epoch().unwrap(), mint_epoch().unwrap());
    }
}
