//! `guestmeter`: the memory and CPU a microVM guest really has, metered exactly.
//!
//! One way through the code; each value is made once and passed on:
//!
//! ```text
//! kernel files ──read──▶ Facts ──capacity──▶ Capacity ──meter──▶ Usage ──wire──▶ frames ─vsock─▶ host::client
//! ```
//!
//! The modules in reading order. Pure, with time as an argument: [`units`], [`capacity`], [`meter`], [`wire`],
//! [`session`]. Edges that do I/O: [`kernel`], [`agent`], [`host`]. The whole picture is in [`architecture`].

#[doc = include_str!("architecture.md")]
pub mod architecture {}

pub mod units;

pub mod kernel;

pub mod capacity;

pub mod meter;

pub mod wire;

#[cfg(feature = "agent")]
pub mod session;

#[cfg(feature = "agent")]
pub mod agent;

#[cfg(feature = "host")]
pub mod host;
