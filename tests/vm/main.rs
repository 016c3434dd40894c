//! Real microVMs: what the agent says about its machine against what the VMM says, and the agent's life in it.
//!
//! `tests/vm/prepare` fetches what these tests need; `cargo test --test vm -- --test-threads=1` runs them,
//! one virtual machine at a time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test and its harness fail by panicking, with the guest's console in the message"
)]

mod balloon;
mod boot;
mod calls;
mod capture;
mod clones;
mod cpu;
mod cycles;
mod daemon;
mod host_commands;
mod hostile;
mod kills;
mod measure;
mod memory;
mod notifying;
mod old_kernel;
mod packages;
mod pause;
mod peers;
mod plugging;
mod rig;
mod rig_checks;
mod snapshot;
mod systemd;
mod traces;
mod vmm;
