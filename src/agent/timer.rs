//! The loop's one timer, on `CLOCK_MONOTONIC`, absolute: it costs one system call where the deadline moves.

use super::descriptor;
use crate::units::Nanos;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A timer that rings once, at an instant.
#[derive(Debug)]
pub(super) struct Timer {
    descriptor: AsyncFd<OwnedFd>,
    armed: Option<Nanos>,
}

impl Timer {
    /// Must be called inside the runtime.
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let descriptor = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self { descriptor: descriptor::watch(descriptor, Interest::READABLE)?, armed: None })
    }

    /// Rings at `deadline`, at once if that is past.
    pub(super) fn arm(&mut self, deadline: Nanos) -> io::Result<()> {
        if self.armed == Some(deadline) {
            return Ok(());
        }
        // Zero would disarm it.
        let at = deadline.0.max(1);
        let seconds = i64::try_from(at / Nanos::SECOND.0).unwrap_or(i64::MAX);
        let nanos = i64::try_from(at % Nanos::SECOND.0).unwrap_or(0);
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        let at = Timespec { tv_sec: seconds, tv_nsec: nanos };
        let new = Itimerspec { it_interval: none, it_value: at };
        timerfd_settime(self.descriptor.get_ref(), TimerfdTimerFlags::ABSTIME, &new)?;
        self.armed = Some(deadline);
        Ok(())
    }

    /// Ready once it rang. It need not be read: epoll tells each ring once, and arming it again clears it.
    pub(super) fn poll_rung(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Ok(mut guard) = ready!(self.descriptor.poll_read_ready(cx)) {
            guard.clear_ready();
        }
        self.armed = None;
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock;
    use super::*;
    use std::future::poll_fn;

    #[test]
    fn it_rings_at_its_deadline_again_and_again_and_at_once_for_a_past_one() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let mut timer = Timer::new().unwrap();
            for span in [30_000_000, 10_000_000] {
                let deadline = clock::now().monotonic.saturating_add(Nanos(span));
                timer.arm(deadline).unwrap();
                poll_fn(|cx| timer.poll_rung(cx)).await;
                let late = clock::now().monotonic.0.checked_sub(deadline.0).expect("never early");
                assert!(late < 1_000_000_000, "{late} ns late");
            }
            for past in [Nanos::ZERO, Nanos(5)] {
                timer.arm(past).unwrap();
                poll_fn(|cx| timer.poll_rung(cx)).await;
            }
        });
    }
}
