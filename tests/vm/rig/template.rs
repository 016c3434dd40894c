//! Machines that were booted once and saved with the agent running: most tests of a resume begin with one of these.

use super::HUNG;
use super::machine::Machine;
use super::snapshot::Saved;
use super::vm::Vm;
use std::sync::OnceLock;
use std::time::Duration;

/// The agent's tick in a template: short for the waits, but a guest that a busy machine keeps waiting for two of them
/// rightly counts a gap.
pub(crate) const TICK: Duration = Duration::from_secs(3);
/// What a life is given to run, where any time will do.
pub(crate) const RUN: Duration = Duration::from_secs(1);
/// What is plugged in a template.
pub(crate) const PLUGGED_MIB: u64 = 130;

/// 6.12, which has VMGenID.
pub(crate) fn with_vmgenid() -> &'static Saved {
    static SAVED: OnceLock<Saved> = OnceLock::new();
    SAVED.get_or_init(|| save(machine("6.12").vmgenid()))
}

/// The same with one CPU: on two, whether a process is woken from the CPU that takes the device's interrupts or from the
/// other costs more than what it does then.
pub(crate) fn with_one_cpu() -> &'static Saved {
    static SAVED: OnceLock<Saved> = OnceLock::new();
    SAVED.get_or_init(|| save(machine("6.12").vmgenid().one_cpu()))
}

/// 7.3, which has VMClock and VMGenID.
pub(crate) fn with_vmclock() -> &'static Saved {
    static SAVED: OnceLock<Saved> = OnceLock::new();
    SAVED.get_or_init(|| save(machine("7.3").vmgenid().vmclock()))
}

/// 6.12 without either: nothing tells the guest of a restore.
pub(crate) fn without_traces() -> &'static Saved {
    static SAVED: OnceLock<Saved> = OnceLock::new();
    SAVED.get_or_init(|| save(machine("6.12")))
}

fn machine(kernel: &str) -> Machine {
    Machine::new(kernel).online_movable().memory(PLUGGED_MIB).portable(42)
}

fn save(machine: Machine) -> Saved {
    let mut vm = machine.boot();
    vm.wait_quiet(Duration::from_secs(1));
    vm.start_agent(AGENT);
    vm.save()
}

/// How the agent of a template was started, and is again.
const AGENT: &str = "--tick 3s --notify vsock://2:1020";

impl Vm {
    /// `kill -9`, and nothing starts it again.
    pub(crate) fn kill_agent(&mut self) {
        self.sh("kill -9 $(pidof guestmeterd)");
        self.wait("the agent to be gone", HUNG, |vm| vm.run("pidof guestmeterd").code != 0);
    }

    /// Waits until the agent sleeps: it has not been woken between two looks.
    pub(crate) fn wait_asleep(&mut self) {
        let look = "grep -E '^State:|ctxt_switches' /proc/$(pidof guestmeterd)/status";
        let mut last = String::new();
        self.wait("the agent to sleep", HUNG, |vm| {
            let now = vm.sh(look);
            let still = now == last && now.contains("S (sleeping)");
            last = now;
            still
        });
    }

    /// Starts a template's agent again, with more arguments.
    pub(crate) fn restart_agent(&mut self, arguments: &str) {
        self.start_agent(&format!("{AGENT} {arguments}"));
    }
}
