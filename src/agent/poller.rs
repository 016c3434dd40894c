//! What the loop sleeps on: descriptors, each change of which is told once (epoll's edges), and a span of time.

use crate::units::Nanos;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// Changes taken in one sleep; others come with the next.
const EVENTS_PER_SLEEP_MAX: usize = 16;
/// The longest sleep, far below what epoll's milliseconds hold: waking for nothing once a day costs nothing.
const SLEEP_MAX: Nanos = Nanos::from_secs(86_400);
/// Told whether it is asked for or not, and for good: a socket that ended stays ended.
const ENDED: EventFlags = EventFlags::RDHUP.union(EventFlags::HUP).union(EventFlags::ERR);

/// What is told of every descriptor, at its edges.
const READING: EventFlags = EventFlags::ET.union(EventFlags::IN).union(EventFlags::RDHUP);

/// What epoll told of a descriptor and nobody has used up.
type Told = Rc<Cell<EventFlags>>;

/// The set of watched descriptors.
#[derive(Debug)]
pub(super) struct Poller {
    epoll: Rc<OwnedFd>,
    /// By the number that epoll gives back.
    told: Vec<Told>,
}

/// A descriptor in the set, for as long as it lives.
#[derive(Debug)]
pub(super) struct Watched {
    descriptor: OwnedFd,
    epoll: Rc<OwnedFd>,
    number: u64,
    told: Told,
    awaits_room: bool,
}

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { epoll: Rc::new(epoll::create(CreateFlags::CLOEXEC)?), told: Vec::new() })
    }

    /// Watches for bytes, connections and ends.
    pub(super) fn watch(&mut self, descriptor: OwnedFd) -> io::Result<Watched> {
        let told = Told::default();
        // The number of one that is gone is free.
        let number = match self.told.iter().position(|told| Rc::strong_count(told) == 1) {
            Some(free) => free,
            None => self.told.len(),
        };
        let data = number as u64;
        epoll::add(&self.epoll, &descriptor, EventData::new_u64(data), READING)?;
        match self.told.get_mut(number) {
            Some(free) => *free = Rc::clone(&told),
            None => self.told.push(Rc::clone(&told)),
        }
        Ok(Watched { descriptor, epoll: Rc::clone(&self.epoll), number: data, told, awaits_room: false })
    }

    /// Sleeps until something changes, for `span` at most; not at all if that is nothing.
    pub(super) fn sleep(&self, span: Nanos) -> io::Result<()> {
        let span = span.min(SLEEP_MAX).0;
        let seconds = i64::try_from(span / Nanos::SECOND.0).unwrap_or(i64::MAX);
        let nanos = i64::try_from(span % Nanos::SECOND.0).unwrap_or(0);
        let span = Timespec { tv_sec: seconds, tv_nsec: nanos };
        let mut events = [MaybeUninit::<Event>::uninit(); EVENTS_PER_SLEEP_MAX];
        let (events, _) = match epoll::wait(&self.epoll, events.as_mut_slice(), Some(&span)) {
            Ok(told) => told,
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for event in events {
            let number = usize::try_from(event.data.u64()).ok();
            if let Some(told) = number.and_then(|number| self.told.get(number)) {
                told.set(told.get() | event.flags);
            }
        }
        Ok(())
    }
}

impl Watched {
    pub(super) fn descriptor(&self) -> &OwnedFd {
        &self.descriptor
    }

    /// Whether reading it may give something, if only its end or an error. A vsock that a restore resets tells of the
    /// error alone.
    pub(super) fn is_readable(&self) -> bool {
        self.told.get().intersects(EventFlags::IN | ENDED)
    }

    /// Whether it may take what it did not take before, or has failed. A peer that only writes no more may still read.
    pub(super) fn is_writable(&self) -> bool {
        self.told.get().intersects(EventFlags::OUT | EventFlags::HUP | EventFlags::ERR)
    }

    /// Reading would block: what comes later is told.
    pub(super) fn nothing_to_read(&self) {
        self.told.set(self.told.get() & EventFlags::OUT);
    }

    /// All bytes that were there are read; an end behind them was told with them, and stays.
    pub(super) fn all_read(&self) {
        if !self.told.get().intersects(ENDED) {
            self.nothing_to_read();
        }
    }

    /// The end was taken note of; what changes after it is told.
    pub(super) fn end_seen(&self) {
        self.told.set(self.told.get() & EventFlags::OUT);
    }

    /// Writing would block: room is told from here on, until [`Watched::all_written`].
    pub(super) fn no_room(&mut self) -> io::Result<()> {
        self.told.set(self.told.get() - EventFlags::OUT);
        self.await_room(true)
    }

    /// Room is of no interest: nobody is woken for it.
    pub(super) fn all_written(&mut self) -> io::Result<()> {
        self.await_room(false)
    }

    fn await_room(&mut self, awaits_room: bool) -> io::Result<()> {
        if self.awaits_room != awaits_room {
            let interest = if awaits_room { READING | EventFlags::OUT } else { READING };
            epoll::modify(&self.epoll, &self.descriptor, EventData::new_u64(self.number), interest)?;
            self.awaits_room = awaits_room;
        }
        Ok(())
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // Closing alone would not do: a socket that systemd passed stays open there, and would go on telling.
        let _ = epoll::delete(&self.epoll, &self.descriptor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    const AT_ONCE: Nanos = Nanos::ZERO;

    fn watched() -> (Poller, Watched, UnixStream) {
        let mut poller = Poller::new().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let watched = poller.watch(ours.into()).unwrap();
        (poller, watched, theirs)
    }

    fn stream(watched: &Watched) -> UnixStream {
        watched.descriptor().as_fd().try_clone_to_owned().unwrap().into()
    }

    #[test]
    fn bytes_are_told_once_and_an_end_for_good() {
        let (poller, watched, mut theirs) = watched();
        poller.sleep(AT_ONCE).unwrap();
        assert!(!watched.is_readable());
        theirs.write_all(b"one").unwrap();
        poller.sleep(Nanos::SECOND).unwrap();
        assert!(watched.is_readable() && !watched.is_writable());
        watched.all_read();
        poller.sleep(AT_ONCE).unwrap();
        assert!(!watched.is_readable(), "told again though nothing came");
        theirs.write_all(b"two").unwrap();
        drop(theirs);
        poller.sleep(Nanos::SECOND).unwrap();
        watched.all_read();
        assert!(watched.is_readable(), "the end that came with the bytes is not lost with them");
    }

    #[test]
    fn room_is_told_only_to_who_lacked_it() {
        let (poller, mut watched, mut theirs) = watched();
        let mut ours = stream(&watched);
        while ours.write(&[7; 4096]).is_ok() {}
        watched.no_room().unwrap();
        poller.sleep(AT_ONCE).unwrap();
        assert!(!watched.is_writable());
        theirs.set_nonblocking(true).unwrap();
        let mut space = [0; 4096];
        while theirs.read(&mut space).is_ok() {}
        poller.sleep(Nanos::SECOND).unwrap();
        assert!(watched.is_writable() && !watched.is_readable());
        watched.all_written().unwrap();
        watched.told.take();
        ours.write_all(b"x").unwrap();
        while theirs.read(&mut space).is_ok() {}
        poller.sleep(AT_ONCE).unwrap();
        assert!(!watched.is_writable(), "told though nobody waits");
    }

    #[test]
    fn a_peer_that_writes_no_more_has_no_room_for_that() {
        let (poller, mut watched, theirs) = watched();
        let mut ours = stream(&watched);
        while ours.write(&[7; 4096]).is_ok() {}
        watched.no_room().unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        poller.sleep(Nanos::SECOND).unwrap();
        assert!(watched.is_readable() && !watched.is_writable());
    }

    #[test]
    fn who_is_gone_tells_nothing_though_its_socket_lives_and_its_number_is_used_again() {
        let (mut poller, watched, mut theirs) = watched();
        let _elsewhere = stream(&watched);
        drop(watched);
        let (ours, _peer) = UnixStream::pair().unwrap();
        let other = poller.watch(ours.into()).unwrap();
        assert_eq!(poller.told.len(), 1);
        theirs.write_all(b"x").unwrap();
        poller.sleep(AT_ONCE).unwrap();
        assert!(!other.is_readable());
    }

    #[test]
    fn a_sleep_ends_never_before_its_span() {
        let poller = Poller::new().unwrap();
        for span in [Nanos(1), Nanos(30_000_001)] {
            let start = super::super::clock::now().monotonic;
            poller.sleep(span).unwrap();
            let slept = super::super::clock::now().monotonic.saturating_sub(start);
            assert!(slept >= span, "{slept:?} of {span:?}");
        }
    }
}
