//! The agent's I/O.

mod address;
mod cli;
pub mod clock;
mod descriptor;
mod listener;
mod log;
mod passed;
mod privilege;
pub mod state;
mod supervisor;
mod uevent;
