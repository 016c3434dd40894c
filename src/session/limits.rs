//! How much of everything one agent gives away.

use crate::units::Nanos;

/// How much of everything is allowed. All times are on `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; one more is answered `Busy` and closed.
    pub connections: usize,
    /// Time until `Hello`.
    pub handshake: Nanos,
    /// Time without a request, where nothing is owed and nothing is watched.
    pub idle: Nanos,
    /// The same while a checkpoint holds the count: long enough for an ack, and gone before the pause.
    pub idle_held: Nanos,
    /// Answers owed on one connection; one more closes it.
    pub owed: usize,
    /// The shortest `Watch` interval; a shorter one is lengthened to it.
    pub watch_interval_min: Nanos,
    /// The longest; a longer one is shortened to it.
    pub watch_interval_max: Nanos,
    /// How often memory is looked at while a `WaitSettled` is pending.
    pub settle_poll: Nanos,
    /// The longest `WaitSettled`; a longer timeout is shortened to it.
    pub settle_timeout_max: Nanos,
    /// How often memory is looked at after a resume, until it has settled.
    pub resume_poll: Nanos,
    /// For how long it is.
    pub resume_poll_for: Nanos,
    /// Whether there is somebody to notify.
    pub notify: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4,
            handshake: Nanos::from_secs(2),
            idle: Nanos::from_secs(60),
            idle_held: Nanos::from_secs(2),
            owed: 16,
            watch_interval_min: Nanos(100_000_000),
            watch_interval_max: Nanos::from_secs(3600),
            settle_poll: Nanos(250_000_000),
            settle_timeout_max: Nanos::from_secs(3600),
            resume_poll: Nanos::SECOND,
            resume_poll_for: Nanos::from_secs(15),
            notify: true,
        }
    }
}
