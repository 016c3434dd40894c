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
mod entitlement;
#[cfg(feature = "agent")]
mod fixtures;
mod fuzz_regressions;
mod golden;
#[cfg(feature = "host")]
mod host;
#[cfg(feature = "host")]
mod incidents;
#[cfg(feature = "host")]
mod ledger;
#[cfg(feature = "agent")]
mod memory_truth;
mod meter_law;
#[cfg(feature = "host")]
mod random;
#[cfg(feature = "host")]
mod reconcile;
#[cfg(all(feature = "agent", feature = "host"))]
mod simulation;
#[cfg(all(feature = "agent", feature = "host"))]
mod soak;
mod under;
#[cfg(feature = "host")]
mod vmm;
mod wire_props;
#[cfg(all(feature = "agent", feature = "host"))]
mod worker;
