//! CPU entitlement in a real cgroup hierarchy.

use crate::rig::template::bare;
use crate::rig::{HUNG, Vm};
use crate::systemd;

#[test]
fn the_tightest_quota_over_the_ancestors_holds() {
    let mut vm = bare().restore(42);
    vm.sh("echo +cpu >/sys/fs/cgroup/cgroup.subtree_control; mkdir -p /sys/fs/cgroup/outer/sandbox");
    vm.sh("echo +cpu >/sys/fs/cgroup/outer/cgroup.subtree_control");
    vm.sh("echo '150000 100000' >/sys/fs/cgroup/outer/cpu.max; echo 50 >/sys/fs/cgroup/outer/sandbox/cpu.weight");
    vm.start_agent("--cgroup outer/sandbox");
    let reading = vm.read_exact();
    assert_eq!(reading.bytes("cpu.online"), 2);
    assert_eq!(reading.bytes("cpu.quota_millis"), 1500);
    assert_eq!(reading.bytes("cpu.effective_millis"), 1500);
    assert_eq!(reading.bytes("cpu.weight"), 50);
    vm.sh("echo '25000 100000' >/sys/fs/cgroup/outer/sandbox/cpu.max");
    assert_eq!(vm.read_exact().bytes("cpu.effective_millis"), 250);
    let throttled = "grep -q 'throttled_usec [1-9]' /sys/fs/cgroup/outer/sandbox/cpu.stat";
    vm.sh(&format!("echo $$ >/sys/fs/cgroup/outer/sandbox/cgroup.procs; until {throttled}; do :; done"));
    let reading = vm.read_exact();
    assert!(reading.bytes("cpu.usage_ns") > 0 && reading.bytes("cpu.throttled_ns") > 0, "{reading:?}");
    vm.sh("echo max >/sys/fs/cgroup/outer/sandbox/cpu.max; echo max >/sys/fs/cgroup/outer/cpu.max");
    assert_eq!(vm.read_exact().bytes("cpu.effective_millis"), 2000);
    vm.sh("echo 0 >/sys/devices/system/cpu/cpu1/online");
    let reading = vm.read_exact();
    assert_eq!((reading.bytes("cpu.online"), reading.bytes("cpu.effective_millis")), (1, 1000));
}

/// What an agent that nobody asks counts with: its log has a line for each change that a tick saw. `--once` beside it
/// reads the same files anew.
fn counted_as(vm: &mut Vm, cgroup: &str, millis: u64) {
    let fresh = vm.sh(&format!("/usr/bin/guestmeterd --once --cgroup {cgroup}"));
    assert!(fresh.contains(&format!("cpu.effective_millis={millis}\n")), "{cgroup}: {fresh}");
    vm.wait("a tick to see it", HUNG, |vm| {
        let status = vm.sh("systemctl show -P StatusText guestmeterd.service");
        status.trim().ends_with(&format!("CPU {millis} millicpu"))
    });
}

/// The shipped unit with a cgroup to watch.
fn watch(vm: &mut Vm, cgroup: &str) {
    vm.sh("mkdir -p /run/systemd/system/guestmeterd.service.d");
    let unit = format!(
        r"[Service]\nExecStart=\nExecStart=/usr/bin/guestmeterd --tick 300ms --cgroup {cgroup}\nWatchdogSec=0\n"
    );
    vm.sh(&format!("printf '{unit}' >/run/systemd/system/guestmeterd.service.d/cgroup.conf"));
    vm.sh("systemctl daemon-reload && systemctl restart guestmeterd.service");
}

/// systemd makes the files of a controller when the first unit asks for it, and may take them away with the last.
#[test]
fn limits_that_systemd_sets_at_run_time_are_seen_at_ticks() {
    let mut vm = systemd::boot("6.1");
    vm.sh("systemd-run --unit app --slice box.slice sleep 1d");
    let (slice, service) = ("box.slice", "box.slice/app.service");
    watch(&mut vm, slice);
    counted_as(&mut vm, slice, 2000);
    vm.sh("systemctl set-property box.slice CPUQuota=30%");
    counted_as(&mut vm, slice, 300);
    vm.sh("systemctl set-property box.slice CPUQuota=");
    counted_as(&mut vm, slice, 2000);
    watch(&mut vm, service);
    vm.sh("systemctl set-property box.slice AllowedCPUs=0");
    counted_as(&mut vm, service, 1000);
    vm.sh("systemctl set-property box.slice AllowedCPUs=0-1");
    counted_as(&mut vm, service, 2000);
    vm.sh("systemctl set-property app.service CPUQuota=40%");
    counted_as(&mut vm, service, 400);
    vm.sh("systemctl stop app.service");
    counted_as(&mut vm, service, 2000);
    let log = vm.sh(&format!("/usr/bin/guestmeterd --once --cgroup {service}"));
    assert!(log.contains("is not there"), "{log}");
    vm.sh("systemd-run --unit app --slice box.slice -p CPUQuota=20% sleep 1d");
    counted_as(&mut vm, service, 200);
    let log = vm.sh("journalctl -b -u guestmeterd --no-pager");
    assert!(!log.contains("CPU numbers are without"), "{log}");
}
