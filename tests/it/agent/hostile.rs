//! What a tenant, or a machine in trouble, does to an agent; `agent::threat_model` names these tests and others.

use super::command_line::captured_guest;
use super::{Agent, run};
use guestmeter::wire::message::{RefusalCode, Report};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A tmpfs of 64 KiB, as small a /run as there is.
struct Tmpfs(PathBuf);

impl Tmpfs {
    /// `None` where this user may not mount.
    fn mount(path: PathBuf) -> Option<Self> {
        std::fs::create_dir(&path).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&path).output();
        mounted.unwrap().status.success().then_some(Self(path))
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("tenant")).unwrap();
        while file.write_all(&[b'x'; 4096]).is_ok() {}
    }

    fn clear(&self) {
        std::fs::remove_file(self.0.join("tenant")).unwrap();
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Time that passed and is neither counted nor declared as dropped.
fn lost(before: &Report, after: &Report) -> i128 {
    let told = |report: &Report| {
        i128::try_from(report.usage.active.total()).unwrap() + i128::from(report.usage.dropped.active.0)
    };
    let passed = i128::from(after.clock.monotonic.0) - i128::from(before.clock.monotonic.0);
    passed - (told(after) - told(before))
}

#[test]
fn a_full_run_is_said_and_what_it_costs_is_declared() {
    let folder = tempfile::tempdir().unwrap();
    let Some(tmpfs) = Tmpfs::mount(folder.path().join("run")) else {
        crate::under::skip("only root can mount a tmpfs");
        return;
    };
    let state = tmpfs.0.join("state");
    // A restart within two ticks drops nothing: long ones, beside what a busy machine makes of a restart.
    let flags = ["--tick", "5s", "--state", state.to_str().unwrap()];
    tmpfs.fill();
    let agent = Agent::start_in(folder, &flags);
    for _ in 0..2 {
        let refused = agent.greet().refused();
        assert_eq!(refused.code, RefusalCode::Internal);
        assert!(refused.text.contains("No space left on device"), "{}", refused.text);
        assert!(refused.text.starts_with("not saved, so not reported: "), "{}", refused.text);
    }
    assert!(agent.log().contains("No space left on device"), "{}", agent.log());
    assert_eq!(agent.log().matches("until it is saved nothing is reported").count(), 1, "{}", agent.log());

    // Nothing was kept, and nothing told: what is told once there is room is whole.
    let folder = agent.signal("-KILL").1;
    let agent = Agent::start_in(folder, &flags);
    agent.greet().refused();
    tmpfs.clear();
    let first = agent.greet().read();
    assert_eq!(first.identity.instance, 1);
    let told = first.usage.active.total() + u128::from(first.usage.dropped.active.0);
    assert_eq!(told, u128::from(first.clock.monotonic.0), "what is not counted is dropped, and said");
    assert!(agent.log().contains("the state is saved again"), "{}", agent.log());

    // With room for both slots, taken at the start, a full /run costs nothing any more: not even before the second is used.
    let folder = agent.signal("-KILL").1;
    let agent = Agent::start_in(folder, &flags);
    tmpfs.fill();
    let before = agent.greet().read();
    let folder = agent.signal("-KILL").1;
    let agent = Agent::start_in(folder, &flags);
    let after = agent.greet().read();
    assert_eq!(after.identity.epoch, before.identity.epoch);
    assert_eq!(after.identity.instance, before.identity.instance + 1);
    assert_eq!(lost(&before, &after), 0);
    assert_eq!(after.usage.dropped, before.usage.dropped, "a restart within two ticks drops nothing");
}

#[test]
fn cgroup_files_that_lie_are_bounded_by_the_cpus_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let (proc, sys) = captured_guest(folder.path());
    let cgroup = Path::new(&sys).join("fs/cgroup/tenant");
    std::fs::create_dir(&cgroup).unwrap();
    let lie = |name: &str, text: &[u8]| std::fs::write(cgroup.join(name), text).unwrap();
    lie("cpu.max", b"50000 100000\n");
    lie("cpu.stat", b"usage_usec 18446744073709551615\nthrottled_usec -1\n");
    let flags = ["--proc-root", &proc, "--sys-root", &sys, "--cgroup", "tenant", "--tick", "100ms"];
    let mut agent = Agent::start_in(folder, &flags);
    let mut client = agent.greet();
    let honest = client.read();
    assert_eq!(honest.cpu.effective.0, 500);
    let most = u64::from(honest.cpu.online.expect("CPUs")) * 1000;
    let mut before = honest;
    let endless = vec![b'9'; 1 << 20];
    for text in [
        b"".as_slice(),
        b"max\n",
        b"0 100000\n",
        b"1 0\n",
        b"-1 100000\n",
        b"18446744073709551615 1\n",
        b"18446744073709551 1\n",
        b"99999999999999999999999 100000\n",
        b"50000\n100000\n",
        b"\xff\xfe\0\0",
        b"50000 100000 \x1b[2J\r\nSTATUS=forged",
        &endless,
    ] {
        lie("cpu.max", text);
        lie("cpu.weight", text);
        lie("cpuset.cpus.effective", text);
        lie("cpu.stat", text);
        std::thread::sleep(Duration::from_millis(120));
        let told = client.read();
        let shown = String::from_utf8_lossy(&text[..text.len().min(60)]).into_owned();
        assert!(told.cpu.effective.0 <= most, "{shown:?}: {:?}", told.cpu);
        assert_eq!(lost(&before, &told), 0, "{shown:?}");
        let used = told.usage.cpu.total() - before.usage.cpu.total();
        let passed = u128::from(told.clock.monotonic.0 - before.clock.monotonic.0);
        assert!(used <= passed * u128::from(most), "{shown:?}: more CPU time than there was");
        before = told;
    }
    std::fs::remove_dir_all(&cgroup).unwrap();
    client.read();
    assert!(agent.is_running());
    assert!(!agent.log().contains('\u{1b}'), "the log passes on no control characters");
}

fn field(pid: u32, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let found = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    found.unwrap_or_else(|| panic!("{name}: {status}")).trim().to_owned()
}

#[test]
fn without_systemd_it_confines_itself_whoever_started_it() {
    let agent = Agent::start();
    agent.greet().read();
    assert_eq!(field(agent.pid(), "Seccomp"), "2", "by a filter");
    assert_eq!(field(agent.pid(), "NoNewPrivs"), "1");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(agent.pid(), set), "0000000000000000", "{set}");
    }
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", agent.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
    assert!(!agent.log().contains("not confined"), "{}", agent.log());
}

#[test]
fn a_filter_that_is_not_wanted_is_left_out_and_said() {
    let agent = Agent::start_in(tempfile::tempdir().unwrap(), &["--no-seccomp"]);
    agent.greet().read();
    assert_eq!(field(agent.pid(), "Seccomp"), "0");
    assert_eq!(field(agent.pid(), "NoNewPrivs"), "1");
    assert!(agent.log().contains("not confined by system calls: --no-seccomp"), "{}", agent.log());
}

#[test]
fn a_signal_that_looks_like_a_violation_is_told_from_one() {
    let agent = Agent::start();
    agent.greet().read();
    let (status, folder) = agent.signal("-SYS");
    assert_eq!(status.code(), Some(70));
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(log.contains("SIGSYS was sent") && !log.contains("on the agent's list"), "{log}");
}

#[test]
fn doctor_says_what_is_in_force() {
    let output = run(&["doctor"]);
    let text = String::from_utf8(output.stdout).unwrap();
    for measure in
        ["no memory image", "no capabilities", "no new privileges", "no writable code", "system calls"]
    {
        assert!(text.contains(&format!("ok    confined by {measure}: ")), "{measure}: {text}");
    }
    let without = String::from_utf8(run(&["doctor", "--no-seccomp"]).stdout).unwrap();
    assert!(without.contains("no    confined by system calls: --no-seccomp"), "{without}");
}

/// Every file below `folder` with that ending.
fn files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|it| it == extension) {
            found.push(path);
        }
    }
}

#[test]
fn the_threat_model_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("src/agent/threat_model.md")).unwrap();
    let mut sources = Vec::new();
    for folder in ["src", "tests/it", "tests/vm"] {
        files(&root.join(folder), "rs", &mut sources);
    }
    let code: String = sources.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| tries"));
    let mut named = 0;
    for row in rows {
        let tests = row.rsplit('|').nth(1).unwrap();
        for test in tests.split('`').skip(1).step_by(2).filter(|name| !name.contains("::")) {
            assert!(code.contains(&format!("fn {test}(")), "{test} is not there");
            named += 1;
        }
    }
    assert!(named >= 25, "{named} tests named");
}
