//! A virtual machine of one's own: started with what a test names, spoken to through QMP and a serial port,
//! gone when the test ends, however it ends.

mod ear;
mod guest;
mod host;
mod image;
mod machine;
mod pause;
mod platform;
mod qmp;
mod reading;
mod retry;
mod snapshot;
pub(crate) mod template;
mod vm;
mod vsock;

pub(crate) use ear::Ear;
pub(crate) use machine::Machine;
pub(crate) use platform::{Platform, mark, passed, used};
pub(crate) use qmp::MemoryDevice;
pub(crate) use reading::Reading;
pub(crate) use snapshot::Saved;
pub(crate) use vm::Vm;

use std::time::Duration;

pub(crate) const MIB: u64 = 1 << 20;
/// How long a state is waited for. It says that something hangs, and nothing about how fast a machine is.
pub(crate) const HUNG: Duration = Duration::from_secs(120);
