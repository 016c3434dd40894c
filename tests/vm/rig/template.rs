//! Machines that were booted once and saved: most tests begin with one of these. Where a resume is the subject, the agent
//! ran when it was saved; where the agent's own beginning is, it had not run yet.

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
    SAVED.get_or_init(|| with_agent(machine("6.12").vmgenid().boot()))
}

/// The same with one CPU: on two, whether a process is woken from the CPU that takes the device's interrupts or from the
/// other costs more than what it does then.
pub(crate) fn with_one_cpu() -> &'static Saved {
    static SAVED: OnceLock<Saved> = OnceLock::new();
    SAVED.get_or_init(|| with_agent(machine("6.12").vmgenid().one_cpu().boot()))
}

/// 7.3, which has VMClock and VMGenID.
pub(crate) fn with_vmclock() -> &'static Saved {
    static SAVED: OnceLock<Saved> = OnceLock::new();
    SAVED.get_or_init(|| with_agent(machine("7.3").vmgenid().vmclock().boot()))
}

/// 6.12 without either: nothing tells the guest of a restore.
pub(crate) fn without_traces() -> &'static Saved {
    static SAVED: OnceLock<Saved> = OnceLock::new();
    SAVED.get_or_init(|| {
        let mut vm = bare().restore(42);
        vm.resize(0, PLUGGED_MIB);
        with_agent(vm)
    })
}

/// 6.12 with nothing plugged, where no agent has run; what is plugged becomes movable.
pub(crate) fn bare() -> &'static Saved {
    static SAVED: OnceLock<Saved> = OnceLock::new();
    SAVED.get_or_init(|| without_agent("6.12"))
}

/// The same on 6.1.
pub(crate) fn bare_6_1() -> &'static Saved {
    static SAVED: OnceLock<Saved> = OnceLock::new();
    SAVED.get_or_init(|| without_agent("6.1"))
}

/// As [`bare`], with two devices; huge pages give back their page structures.
pub(crate) fn two_nodes() -> &'static Saved {
    static SAVED: OnceLock<Saved> = OnceLock::new();
    SAVED.get_or_init(|| {
        let machine = Machine::new("6.12").online_movable().append("hugetlb_free_vmemmap=on");
        machine.memory(0).memory(0).portable(42).boot().save()
    })
}

/// 6.12 with VMGenID and systemd, all units up but the agent's, which has not run since the boot.
pub(crate) fn with_systemd() -> &'static Saved {
    static SAVED: OnceLock<Saved> = OnceLock::new();
    SAVED.get_or_init(|| {
        let masked = "systemd.mask=guestmeterd.socket systemd.mask=guestmeterd.service";
        let mut vm = machine("6.12").systemd().append(masked).vmgenid().boot();
        vm.wait("the boot to be over", HUNG, |vm| {
            vm.run("systemctl is-system-running").text().trim() == "running"
        });
        // What masks them is made anew at each reload: it masks them no more.
        vm.sh("mkdir -p /run/systemd/system-generators");
        vm.sh("ln -s /dev/null /run/systemd/system-generators/systemd-debug-generator");
        vm.sh("systemctl daemon-reload");
        vm.wait_quiet(Duration::from_secs(1));
        vm.save()
    })
}

fn machine(kernel: &str) -> Machine {
    Machine::new(kernel).online_movable().memory(PLUGGED_MIB).portable(42)
}

fn without_agent(kernel: &str) -> Saved {
    Machine::new(kernel).online_movable().memory(0).portable(42).boot().save()
}

fn with_agent(mut vm: Vm) -> Saved {
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

    /// What is plugged from now on is onlined by the kernel's own policy, contig-zones, as without `online_movable`.
    pub(crate) fn online_by_policy(&mut self) {
        self.sh("echo online >/sys/devices/system/memory/auto_online_blocks");
    }

    /// Starts a template's agent again, with more arguments.
    pub(crate) fn restart_agent(&mut self, arguments: &str) {
        self.start_agent(&format!("{AGENT} {arguments}"));
    }
}
