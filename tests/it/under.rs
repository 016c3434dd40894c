//! Programs under a limit of the system: of descriptors, of memory, of a file system's room.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The program, by a shell that first does `prelude`; arguments may follow.
pub fn command(program: &str, prelude: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{prelude} && exec \"$0\" \"$@\""), program]);
    command
}

/// Leaves a program room for `count` descriptors more than what it has open now, whatever their numbers are.
pub fn leave_room_for(program: u32, count: usize) {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let descriptors = std::fs::read_dir(format!("/proc/{program}/fd")).unwrap();
    let open: std::collections::BTreeSet<u64> =
        descriptors.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    let limit = (0..).filter(|number| !open.contains(number)).nth(count);
    let pid = Pid::from_raw(program.try_into().unwrap());
    let limits = prlimit(pid, Resource::Nofile, Rlimit { current: limit, maximum: limit }).unwrap();
    assert!(limits.current > limit, "it had no more room before");
}

/// What only root can do is said aloud where it cannot be done, past the harness, which keeps what a passing test prints.
pub fn skip(why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// To trace the program that follows its options; `None`, said aloud, where there is no strace.
pub fn strace() -> Option<Command> {
    let found = Command::new("strace").arg("-V").output().is_ok_and(|output| output.status.success());
    if !found {
        assert!(std::env::var_os("CI").is_none(), "strace is missing: apt-get install strace");
        skip("strace is missing: apt-get install strace");
        return None;
    }
    let mut strace = Command::new("strace");
    // `-D`: the program is the child, and ends with the test.
    strace.args(["-D", "-f", "-qq", "-o"]);
    Some(strace)
}

/// A cgroup with a memory limit, of either version; gone with it.
pub struct MemoryLimit(PathBuf);

impl MemoryLimit {
    /// `None`, said aloud, where none can be made.
    pub fn new(bytes: u64) -> Option<Self> {
        let name = format!("guestmeter-test-{}-{bytes}", std::process::id());
        for (parent, limit) in [("memory", "memory.limit_in_bytes"), ("", "memory.max")] {
            let path = Path::new("/sys/fs/cgroup").join(parent).join(&name);
            if std::fs::create_dir(&path).is_ok() {
                let made = Self(path);
                if std::fs::write(made.0.join(limit), bytes.to_string()).is_ok() {
                    // Swap would be a way out of it.
                    let _ = std::fs::write(made.0.join("memory.swap.max"), "0");
                    return Some(made);
                }
            }
        }
        skip("a memory cgroup cannot be made here; run as root, with the memory controller delegated");
        None
    }

    /// For [`command`]: the shell goes in first.
    pub fn prelude(&self) -> String {
        format!("echo $$ > '{}'", self.0.join("cgroup.procs").display())
    }

    /// How often the limit was reached.
    pub fn reached(&self) -> u64 {
        let failcnt = std::fs::read_to_string(self.0.join("memory.failcnt"));
        let text = failcnt.or_else(|_| {
            let events = std::fs::read_to_string(self.0.join("memory.events"))?;
            let max = events.lines().find_map(|line| line.strip_prefix("max "));
            Ok::<_, std::io::Error>(max.unwrap_or("0").to_owned())
        });
        text.unwrap().trim().parse().unwrap()
    }

    /// Takes memory in it until the kernel ends that.
    pub fn eat(&self) {
        let mut eater = command("tail", &self.prelude());
        let status = eater.arg("/dev/zero").stderr(Stdio::null()).stdout(Stdio::null()).status().unwrap();
        assert!(!status.success(), "tail keeps its last line, which has no end");
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        // Whoever was in it is dead, and may not be out of it yet.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}
