//! A virtual machine of one's own: started with what a test names, spoken to through QMP and a serial port,
//! gone when the test ends, however it ends.

mod guest;
mod image;
mod qemu;
mod qmp;
mod reading;

pub(crate) use qemu::{Machine, Vm};

pub(crate) const MIB: u64 = 1 << 20;
