//! CPU entitlement in a real cgroup hierarchy.

use crate::rig::Machine;

#[test]
fn the_tightest_quota_over_the_ancestors_holds() {
    let mut vm = Machine::new("6.12").vsock(42).boot();
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
    vm.sh("sh -c 'echo $$ >/sys/fs/cgroup/outer/sandbox/cgroup.procs; i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done'");
    let reading = vm.read_exact();
    assert!(reading.bytes("cpu.usage_ns") > 0 && reading.bytes("cpu.throttled_ns") > 0, "{reading:?}");
    vm.sh("echo max >/sys/fs/cgroup/outer/sandbox/cpu.max; echo max >/sys/fs/cgroup/outer/cpu.max");
    assert_eq!(vm.read_exact().bytes("cpu.effective_millis"), 2000);
    vm.sh("echo 0 >/sys/devices/system/cpu/cpu1/online");
    let reading = vm.read_exact();
    assert_eq!((reading.bytes("cpu.online"), reading.bytes("cpu.effective_millis")), (1, 1000));
}
