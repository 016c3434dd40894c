//! Two ways to pause: the VMM's own, in which the guest's clocks stand, and the VMM stopped itself, in which they
//! run on.

use super::vm::Vm;
use rustix::process::{Signal, kill_process};
use serde_json::json;
use std::time::Duration;

impl Vm {
    /// Stops the machine. Connections through vsock have to be closed by then: traffic kills the device's thread.
    pub(crate) fn stop(&mut self) {
        self.vsock_is_quiet();
        self.qmp("stop", json!({}));
    }

    /// Lets it run, and waits until its vsock may be connected to.
    pub(crate) fn cont(&mut self) {
        self.qmp("cont", json!({}));
        self.vsock_is_up().unwrap_or_else(|error| self.fail(&error));
    }

    pub(crate) fn stopped_for(&mut self, pause: Duration) {
        self.stop();
        std::thread::sleep(pause);
        self.cont();
    }

    /// SIGSTOP and SIGCONT to QEMU.
    pub(crate) fn frozen_for(&mut self, pause: Duration) {
        self.vsock_is_quiet();
        kill_process(self.pid(), Signal::STOP).expect("QEMU is there");
        std::thread::sleep(pause);
        kill_process(self.pid(), Signal::CONT).expect("QEMU is there");
    }
}
