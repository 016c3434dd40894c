//! One integration binary.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test and its helpers fail by panicking, with what they saw in the message"
)]

#[cfg(feature = "agent")]
mod agent;
#[cfg(feature = "agent")]
mod fixtures;
mod fuzz_regressions;
mod golden;
#[cfg(feature = "host")]
mod host;
mod meter_law;
mod wire_props;
