use super::*;
use std::fs;
use tempfile::TempDir;

/// A tree of `/sys/fs/cgroup`.
struct Tree(TempDir);

impl Tree {
    fn new(files: &[(&str, &str)]) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            tree.write(name, text);
        }
        tree
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("fs/cgroup").join(name)
    }

    /// In place, as the kernel changes a file.
    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_dir_all(self.path(name)).unwrap();
    }

    fn facts(&self, watched: &str) -> CgroupFacts {
        Cgroup::new(self.0.path(), Some(Path::new(watched))).read(None).unwrap()
    }

    /// One that keeps its files open, as on a kernel's own tree.
    fn kept(&self, watched: &str) -> Cgroup {
        Cgroup { keeps: true, ..Cgroup::new(self.0.path(), Some(Path::new(watched))) }
    }
}

fn limits(cgroup: &mut Cgroup) -> (Option<u64>, Option<u32>) {
    let facts = cgroup.limits(None).unwrap();
    assert_eq!(facts.problems, []);
    (facts.quota.map(|quota| quota.0), facts.allowed.map(|list| list.count()))
}

#[test]
fn the_nearest_set_and_the_tightest_quota_of_all_ancestors_hold() {
    let tree = Tree::new(&[
        ("cgroup.controllers", "cpuset cpu\n"),
        ("cpuset.cpus.effective", "0-7\n"),
        ("a/cpuset.cpus.effective", "0-1\n"),
        ("a/cpu.max", "150000 100000\n"),
        ("a/b/cpu.max", "max 100000\n"),
        ("a/b/c/d/cpu.stat", "usage_usec 5\nnr_throttled 3\nthrottled_usec 7\n"),
        ("a/n/cpuset.cpus.effective", "\n"),
        ("a/n/cpu.max", "50000 100000\n"),
    ]);
    let deep = tree.facts("a/b/c/d");
    assert_eq!((deep.quota, deep.allowed.map(|list| list.count())), (Some(MilliCpu(1500)), Some(2)));
    assert_eq!(
        (deep.usage, deep.nr_throttled, deep.throttled),
        (Some(Nanos(5000)), Some(3), Some(Nanos(7000)))
    );
    // An empty set binds nobody.
    assert_eq!(limits(&mut tree.kept("a/n")), (Some(500), Some(2)));
    // Nor does one of CPUs that are all offline.
    let online = CpuList::parse("4-6").unwrap();
    let allowed = tree.kept("a/b").limits(Some(&online)).unwrap().allowed.unwrap();
    assert_eq!(allowed.count(), 8);
    let absolute = tree.path("a/b");
    assert_eq!(tree.facts(absolute.to_str().unwrap()).quota, Some(MilliCpu(1500)));
}

/// Mounted apart or together, under either order of their names, or all in one.
#[test]
fn version_1_is_found_wherever_it_is_mounted() {
    let layouts = [
        ("cpu,cpuacct/", "cpu,cpuacct/", "cpuset/", "effective_cpus"),
        ("cpuacct,cpu/", "cpuacct,cpu/", "cpuset/", "cpus"),
        ("cpu/", "cpuacct/", "cpuset/", "effective_cpus"),
        ("cpu/", "cpuacct/", "cpuset,cpu2/", "cpus"),
        ("", "", "", "effective_cpus"),
    ];
    for (cpu, cpuacct, cpuset, set) in layouts {
        let tree = Tree::new(&[]);
        for at in ["", "lxc/", "lxc/box/"] {
            let inner = at.len() > 4;
            tree.write(&format!("{cpu}{at}cpu.shares"), "1024\n");
            tree.write(&format!("{cpu}{at}cpu.cfs_quota_us"), if at == "lxc/" { "150000\n" } else { "-1\n" });
            tree.write(&format!("{cpu}{at}cpu.cfs_period_us"), "100000\n");
            tree.write(&format!("{cpu}{at}cpu.stat"), "nr_throttled 2\nthrottled_time 9\n");
            tree.write(&format!("{cpuacct}{at}cpuacct.usage"), if inner { "123\n" } else { "999000\n" });
            tree.write(&format!("{cpuset}{at}cpuset.{set}"), if at.is_empty() { "0-3\n" } else { "1\n" });
            tree.write(&format!("{cpuset}{at}cpuset.cpus"), if at.is_empty() { "0-3\n" } else { "1\n" });
        }
        let absolute = tree.path(&format!("{cpu}lxc/box"));
        for watched in ["lxc/box", "/lxc/box", absolute.to_str().unwrap()] {
            let facts = tree.facts(watched);
            assert_eq!(
                (facts.quota, facts.usage),
                (Some(MilliCpu(1500)), Some(Nanos(123))),
                "{cpu} {watched}"
            );
            assert_eq!((facts.shares, facts.nr_throttled), (Some(1024), Some(2)), "{cpu} {watched}");
            assert_eq!((facts.throttled, facts.allowed.unwrap().count()), (Some(Nanos(9)), 1), "{cpu}");
            assert_eq!((facts.missing, facts.problems), (None, vec![]), "{cpu} {watched}");
        }
    }
}

#[test]
fn files_that_are_kept_open_are_read_again_and_those_that_come_are_found() {
    let tree = Tree::new(&[("cgroup.controllers", "cpuset cpu\n"), ("a/cpu.stat", ""), ("a/b/cpu.stat", "")]);
    let mut cgroup = tree.kept("a/b");
    assert_eq!(limits(&mut cgroup), (None, None));
    tree.write("cpuset.cpus.effective", "0-3\n");
    tree.write("a/cpu.max", "200000 100000\n");
    // The root of all never gets a set later; a namespace's may.
    tree.write("cgroup.events", "");
    assert_eq!(limits(&mut cgroup), (Some(2000), Some(4)));
    tree.write("a/cpuset.cpus.effective", "0-2\n");
    tree.write("a/b/cpu.max", "50000 100000\n");
    assert_eq!(limits(&mut cgroup), (Some(500), Some(3)));
    tree.write("a/b/cpuset.cpus.effective", "0\n");
    assert_eq!(limits(&mut cgroup), (Some(500), Some(1)));
    for (text, quota) in [("max 100000\n", Some(2000)), ("30000 100000\n", Some(300))] {
        tree.write("a/b/cpu.max", text);
        assert_eq!(limits(&mut cgroup), (quota, Some(1)));
    }
}

#[test]
fn a_cgroup_may_come_later_level_by_level() {
    let tree = Tree::new(&[("cgroup.controllers", "cpuset cpu\n")]);
    let mut cgroup = tree.kept("a/b");
    let missing = |cgroup: &mut Cgroup| cgroup.limits(None).unwrap().missing;
    assert_eq!(missing(&mut cgroup), Some(tree.path("a/b")));
    tree.write("a/cpu.max", "200000 100000\n");
    assert_eq!(limits(&mut cgroup), (Some(2000), None), "what is there of its ancestors binds");
    tree.write("a/b/cpu.max", "50000 100000\n");
    assert_eq!(limits(&mut cgroup), (Some(500), None));
    assert_eq!(missing(&mut cgroup), None);
    tree.remove("a");
    assert_eq!(cgroup.read(None).unwrap().missing, Some(tree.path("a/b")));
}

/// A removed cgroup's files fail with ENODEV; here a folder stands for such a file: it fails with EISDIR.
#[test]
fn what_cannot_be_read_any_more_is_opened_again_at_once() {
    let tree = Tree::new(&[("cgroup.controllers", "cpuset cpu\n"), ("box/cpu.max/gone", "")]);
    let mut cgroup = tree.kept("box");
    let problems = cgroup.limits(None).unwrap().problems;
    assert!(problems.iter().any(|problem| problem.to_string().contains("box/cpu.max")), "{problems:?}");
    tree.remove("box");
    tree.write("box/cpu.max", "30000 100000\n");
    assert_eq!(limits(&mut cgroup), (Some(300), None));
}

#[test]
fn the_hierarchy_itself_may_come_later() {
    for files in
        [["cgroup.controllers", "box/cpu.max"], ["cpu/box/cpu.cfs_quota_us", "cpu/box/cpu.cfs_period_us"]]
    {
        let tree = Tree::new(&[]);
        let mut cgroup = tree.kept("box");
        assert!(cgroup.limits(None).is_err());
        tree.write(files[0], "50000\n");
        tree.write(files[1], if files[1].ends_with("max") { "50000 100000\n" } else { "100000\n" });
        assert_eq!(limits(&mut cgroup), (Some(500), None));
    }
    let tree = Tree::new(&[("cpu/box/cpu.cfs_quota_us", "-1\n"), ("cpu/box/cpu.cfs_period_us", "1\n")]);
    let mut cgroup = tree.kept("box");
    assert_eq!(limits(&mut cgroup), (None, None));
    tree.write("cpuset/cpuset.cpus", "0-3\n");
    assert_eq!(limits(&mut cgroup), (None, Some(4)));
    tree.write("cpuset/box/cpuset.cpus", "0-1\n");
    assert_eq!(limits(&mut cgroup), (None, Some(2)), "on an old kernel without the effective file");
}

#[test]
fn a_file_that_makes_no_sense_is_named_and_costs_no_other() {
    let tree = Tree::new(&[
        ("cgroup.controllers", "cpuset cpu\n"),
        ("a/cpu.max", "50000 100000\n"),
        ("a/cpuset.cpus.effective", "0-1\n"),
        ("a/b/cpu.max", "much\n"),
        ("a/b/cpuset.cpus.effective", "3-1\n"),
        ("a/b/cpu.weight", "heavy\n"),
    ]);
    let facts = tree.facts("a/b");
    assert_eq!((facts.quota, facts.allowed.unwrap().count()), (Some(MilliCpu(500)), 2));
    let named = ["a/b/cpu.max", "a/b/cpuset.cpus.effective", "a/b/cpu.weight"];
    assert_eq!(facts.problems.len(), named.len(), "{:?}", facts.problems);
    for name in named {
        assert!(facts.problems.iter().any(|problem| problem.to_string().contains(name)), "{name}");
    }
}

#[test]
fn depth_is_bounded_and_said() {
    let tree = Tree::new(&[("cgroup.controllers", "cpu\n"), ("cpu.max", "50000 100000\n")]);
    let deep = "d/".repeat(300);
    tree.write(&format!("{deep}cpu.max"), "70000 100000\n");
    let facts = tree.facts(&deep);
    assert_eq!(facts.quota, Some(MilliCpu(700)));
    assert_eq!(facts.problems.len(), 1, "{:?}", facts.problems);
    assert_eq!(tree.facts(&"d/".repeat(100)).quota, Some(MilliCpu(500)));
}
