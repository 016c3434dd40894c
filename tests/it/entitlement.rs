//! CPU entitlement in trees: what comes, goes and comes back is seen at the next look, at ticks too.

use guestmeter::agent::witness::{Look, Sight, Witness};
use guestmeter::kernel::{Options, Roots};
use guestmeter::units::Nanos;
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;

/// A `/sys` and a `/proc` of a guest with four CPUs.
struct Guest(TempDir);

impl Guest {
    fn new() -> Self {
        let guest = Self(tempfile::tempdir().unwrap());
        guest.write("sys/devices/system/cpu/online", "0-3\n");
        guest.write("sys/fs/cgroup/cgroup.controllers", "cpuset cpu\n");
        guest.write("proc/stat", "cpu  100 0 0 5000 0 0 0 7 0 0\n");
        guest
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Another file under the name, as one that came back.
    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        drop(fs::remove_file(&path));
        fs::write(path, text).unwrap();
    }

    fn cgroup(&self, name: &str, text: &str) {
        self.write(&format!("sys/fs/cgroup/{name}"), text);
    }

    fn remove_cgroup(&self, name: &str) {
        fs::remove_dir_all(self.path("sys/fs/cgroup").join(name)).unwrap();
    }

    fn witness(&self, proc: PathBuf, cgroup: &str) -> Witness {
        let roots = Roots { proc, sys: self.path("sys") };
        let options = Options { roots, cgroup: Some(cgroup.into()), device_config: false };
        Witness::open(options, Vec::new(), None)
    }

    /// With this machine's own `/proc`: only there is a tick short.
    fn ticking(&self, cgroup: &str) -> Witness {
        let mut witness = self.witness("/proc".into(), cgroup);
        witness.look(Nanos::SECOND, Look::Full);
        witness
    }
}

fn tick(witness: &mut Witness) -> u64 {
    witness.look(Nanos::SECOND, Look::Tick).capacity.cpu.effective.0
}

fn missing(sight: &Sight) -> bool {
    sight.remarks.iter().any(|remark| remark.to_string().contains("is not there"))
}

#[test]
fn a_quota_that_comes_goes_and_comes_back_is_seen_at_ticks_at_any_level() {
    for level in ["", "a/", "a/b/", "a/b/c/"] {
        let guest = Guest::new();
        guest.cgroup("a/b/c/cpu.stat", "usage_usec 5\n");
        let mut witness = guest.ticking("a/b/c");
        assert_eq!(tick(&mut witness), 4000);
        let file = format!("{level}cpu.max");
        for (text, effective) in [("50000 100000\n", 500), ("max 100000\n", 4000), ("30000 100000\n", 300)] {
            guest.cgroup(&file, text);
            assert_eq!(tick(&mut witness), effective, "{level}");
        }
        fs::remove_file(guest.path("sys/fs/cgroup").join(&file)).unwrap();
        assert_eq!(tick(&mut witness), 4000, "{level}");
        guest.cgroup(&file, "20000 100000\n");
        assert_eq!(tick(&mut witness), 200, "{level}");
    }
}

#[test]
fn a_set_that_comes_and_changes_is_seen_at_ticks_at_any_level() {
    for level in ["", "a/", "a/b/"] {
        let guest = Guest::new();
        guest.cgroup("a/b/cpu.max", "max 100000\n");
        let mut witness = guest.ticking("a/b");
        for (text, effective) in [("0-1\n", 2000), ("0\n", 1000), ("0-3\n", 4000)] {
            guest.cgroup(&format!("{level}cpuset.cpus.effective"), text);
            assert_eq!(tick(&mut witness), effective, "{level}");
        }
    }
}

#[test]
fn a_cgroup_that_is_not_there_is_a_remark_until_it_comes_and_again_when_it_goes() {
    let guest = Guest::new();
    guest.cgroup("box.slice/cpu.max", "200000 100000\n");
    let mut witness = guest.ticking("box.slice/app");
    for usage in [1000, 7] {
        for look in [Look::Tick, Look::Full] {
            let sight = witness.look(Nanos::SECOND, look);
            assert!(missing(&sight), "{look:?}: {:?}", sight.remarks);
            assert_eq!(sight.capacity.cpu.effective.0, 2000, "its ancestors' limits hold");
        }
        guest.cgroup("box.slice/app/cpu.max", "50000 100000\n");
        guest.cgroup("box.slice/app/cpu.stat", &format!("usage_usec {usage}\n"));
        assert_eq!(tick(&mut witness), 500);
        let sight = witness.look(Nanos::SECOND, Look::Full);
        assert!(!missing(&sight), "{:?}", sight.remarks);
        assert_eq!(sight.capacity.cpu.usage, Some(Nanos(usage * 1000)), "another cgroup's own count");
        guest.remove_cgroup("box.slice/app");
        assert_eq!(tick(&mut witness), 2000);
    }
}

#[test]
fn without_any_hierarchy_a_named_cgroup_is_a_remark_and_the_root_is_none() {
    let guest = Guest::new();
    fs::remove_dir_all(guest.path("sys/fs")).unwrap();
    let sight = guest.witness(guest.path("proc"), "box").look(Nanos::SECOND, Look::Full);
    assert!(
        sight.remarks.iter().any(|remark| remark.to_string().contains("fs/cgroup")),
        "{:?}",
        sight.remarks
    );
    let roots = Roots { proc: guest.path("proc"), sys: guest.path("sys") };
    let sight = Witness::open(Options { roots, ..Options::default() }, Vec::new(), None)
        .look(Nanos::SECOND, Look::Full);
    assert!(!sight.remarks.iter().any(|remark| remark.to_string().contains("cgroup")), "{:?}", sight.remarks);
}

#[test]
fn a_cpu_list_may_fill_a_page() {
    let guest = Guest::new();
    let list: Vec<String> = (0..1860).step_by(2).map(|cpu| cpu.to_string()).collect();
    let text = list.join(",") + "\n";
    assert_eq!(text.len(), 4095);
    guest.write("sys/devices/system/cpu/online", &text);
    guest.cgroup("cpuset.cpus.effective", &text);
    let cpu = guest.witness(guest.path("proc"), "").look(Nanos::SECOND, Look::Full).capacity.cpu;
    assert_eq!((cpu.online, cpu.effective.0), (Some(930), 930_000));
}

/// node_exporter 742: steal near 2^64, and back.
#[test]
fn one_wild_value_of_steal_does_not_stay() {
    let guest = Guest::new();
    let mut witness = guest.witness(guest.path("proc"), "");
    let stat = guest.path("proc/stat");
    let mut steal = |ticks: u64, seconds| {
        fs::write(&stat, format!("cpu  100 0 0 5000 0 0 0 {ticks} 0 0\n")).unwrap();
        let sight = witness.look(Nanos::from_secs(seconds), Look::Full);
        (sight.capacity.cpu.steal.unwrap().0 / 10_000_000, sight.remarks)
    };
    assert_eq!(steal(194_028, 1000).0, 194_028);
    assert_eq!(steal(1_844_674_407_370_955, 1001).0, 194_028);
    let (said, remarks) = steal(194_100, 1002);
    assert_eq!(said, 194_100);
    assert!(remarks.iter().any(|remark| remark.to_string().contains("steal slipped")), "{remarks:?}");
    assert_eq!(steal(194_050, 1003).0, 194_100, "clamped");
    assert_eq!(steal(194_200, 1004).0, 194_200);
}

/// moby 20770, huatuo 603: the set is in a hierarchy of its own, and so may be what was used.
#[test]
fn version_1_is_read_wherever_it_is_mounted() {
    for (cpu, cpuacct) in [("cpu", "cpuacct"), ("cpu,cpuacct", "cpu,cpuacct"), ("cpuacct,cpu", "cpuacct,cpu")]
    {
        let guest = Guest::new();
        fs::remove_file(guest.path("sys/fs/cgroup/cgroup.controllers")).unwrap();
        for at in ["", "docker/box/"] {
            guest.cgroup(
                &format!("{cpu}/{at}cpu.cfs_quota_us"),
                if at.is_empty() { "-1\n" } else { "150000\n" },
            );
            guest.cgroup(&format!("{cpu}/{at}cpu.cfs_period_us"), "100000\n");
            guest.cgroup(
                &format!("{cpuacct}/{at}cpuacct.usage"),
                if at.is_empty() { "999000\n" } else { "123\n" },
            );
            let set = if at.is_empty() { "0-3\n" } else { "0\n" };
            guest.cgroup(&format!("cpuset/{at}cpuset.effective_cpus"), set);
        }
        let mut witness = guest.ticking("/docker/box");
        let told = witness.look(Nanos::SECOND, Look::Full).capacity.cpu;
        assert_eq!((told.quota.map(|quota| quota.0), told.effective.0), (Some(1500), 1000), "{cpu}");
        assert_eq!(told.usage, Some(Nanos(123)), "{cpu}");
        guest.cgroup("cpuset/docker/box/cpuset.effective_cpus", "0-2\n");
        assert_eq!(tick(&mut witness), 1500, "{cpu}");
        guest.cgroup(&format!("{cpu}/docker/cpu.cfs_quota_us"), "20000\n");
        guest.cgroup(&format!("{cpu}/docker/cpu.cfs_period_us"), "100000\n");
        assert_eq!(tick(&mut witness), 200, "{cpu}");
    }
}
