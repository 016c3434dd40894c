//! Resumes that leave a trace in the guest, and what the first report after one says.

use super::command_line::captured_guest;
use super::{Agent, Client, Host, PATIENCE, named};
use guestmeter::capacity::MemoryState;
use guestmeter::units::{Bytes, Nanos};
use guestmeter::wire::message::{Checkpoint, EpochSource, Id, Reason, Report, Request, Signal};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// A VMClock page as QEMU and Firecracker make it, in a folder that stands for /dev.
struct Vmclock {
    file: File,
    sequence: u32,
    generation: u64,
}

impl Vmclock {
    fn make(dev: &Path) -> Self {
        std::fs::create_dir(dev).unwrap();
        let file = File::create_new(dev.join("vmclock0")).unwrap();
        file.set_len(4096).unwrap();
        file.write_all_at(b"VCLK\0\x10\0\0\x01\0\xff\0", 0).unwrap();
        // A generation counter is present.
        file.write_all_at(&(1_u64 << 8).to_le_bytes(), 24).unwrap();
        Self { file, sequence: 0, generation: 0 }
    }

    /// What a restore does.
    fn restored(&mut self) {
        self.generation += 1;
        self.put(12, &(self.sequence + 1).to_le_bytes());
        self.put(16, &self.generation.to_le_bytes());
        self.put(104, &self.generation.to_le_bytes());
        self.sequence += 2;
        self.put(12, &self.sequence.to_le_bytes());
    }

    fn put(&self, offset: u64, bytes: &[u8]) {
        self.file.write_all_at(bytes, offset).unwrap();
    }
}

fn flags(dev: &Path, notify: &Path) -> Vec<String> {
    let dev = dev.display().to_string();
    let notify = format!("unix://{}", notify.display());
    ["--tick", "200ms", "--dev-root", &dev, "--notify", &notify].map(str::to_owned).to_vec()
}

/// An agent with a VMClock, notifying `host.sock`.
fn with_vmclock() -> (Agent, Vmclock, PathBuf, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let (dev, path) = (folder.path().join("dev"), folder.path().join("host.sock"));
    let vmclock = Vmclock::make(&dev);
    let flags = flags(&dev, &path);
    let agent = Agent::start_in(folder, &flags.iter().map(String::as_str).collect::<Vec<_>>());
    (agent, vmclock, path, flags)
}

/// Reads until a resume is seen.
fn resumed(client: &mut Client) -> Report {
    let since = Instant::now();
    loop {
        let report = client.read();
        if report.resume.is_some_and(|resume| resume.signal != Signal::Host) {
            return report;
        }
        assert!(since.elapsed() < PATIENCE, "no resume is noticed");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn a_restore_seen_in_vmclock_opens_an_epoch_is_told_and_gets_its_name_in_place() {
    let (agent, mut vmclock, path, _) = with_vmclock();
    assert!(agent.log().contains("resumes are noticed by VMClock"), "{}", agent.log());
    let mut client = agent.greet();
    let before = client.resume(named(1, false, None));
    assert_eq!(before.identity.epoch.number, 1);
    let host = Host::bind(&path);

    vmclock.restored();
    let told = host.accept().notified().report;
    assert_eq!(told.reason, Reason::Resume);
    assert_eq!(told.resume.unwrap().signal, Signal::Vmclock);
    assert_eq!(
        (told.identity.epoch.source, told.identity.epoch.id),
        (EpochSource::Provisional, Id::default())
    );
    let (latency, since) =
        (told.resume.unwrap().latency_max.unwrap(), told.clock.monotonic.0 - before.clock.monotonic.0);
    assert!(latency <= Nanos(since), "noticed at the next tick: {latency:?}, {since} ns after it was named");

    let report = client.resume(named(2, true, None));
    assert_eq!((report.identity.epoch.number, report.resume), (2, told.resume));
    assert_eq!(report.base, told.base, "named in place: nothing begins anew");
    assert!(report.identity.seq > told.identity.seq);
    assert_eq!(client.read().identity.epoch.number, 2, "the same trace tells once");
}

#[test]
fn a_restore_while_the_agent_was_dead_is_noticed_at_its_start() {
    let (agent, mut vmclock, _path, flags) = with_vmclock();
    agent.greet().resume(named(1, false, None));
    let (_, folder) = agent.signal("-KILL");
    vmclock.restored();
    let agent = Agent::start_in(folder, &flags.iter().map(String::as_str).collect::<Vec<_>>());
    let report = agent.greet().read();
    assert_eq!((report.identity.epoch.id, report.identity.instance), (Id::default(), 2));
    assert_eq!(report.resume.unwrap().signal, Signal::Vmclock);
}

#[test]
fn vmgenids_interrupt_is_a_resume() {
    let folder = tempfile::tempdir().unwrap();
    let (proc, sys) = captured_guest(folder.path());
    let device = Path::new(&sys).join("bus/acpi/devices/QEMUVGID:00");
    let events = Path::new(&sys).join("firmware/acpi/interrupts");
    std::fs::create_dir_all(&device).unwrap();
    std::fs::create_dir_all(&events).unwrap();
    std::fs::write(device.join("modalias"), "acpi:QEMUVGID:VM_GEN_COUNTER:\n").unwrap();
    let count = |count: u32| {
        let text = format!("{count:8}  EN     enabled      unmasked\n");
        std::fs::write(events.join("gpe05"), text).unwrap();
    };
    count(0);
    let agent = Agent::start_in(folder, &["--proc-root", &proc, "--sys-root", &sys, "--tick", "200ms"]);
    let mut client = agent.greet();
    client.resume(named(1, false, None));
    assert_eq!(client.read().resume, None);
    count(1);
    assert_eq!(resumed(&mut client).resume.unwrap().signal, Signal::Vmgenid);
    let doctor = super::run(&["doctor", "--proc-root", &proc, "--sys-root", &sys, "--dev-root", "/nowhere"]);
    let text = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(text.contains("ok    VMGenID: QEMUVGID:00") && text.contains("no    VMClock: opening"), "{text}");
}

#[test]
fn a_connection_that_is_reset_while_held_is_a_resume_and_one_that_is_closed_is_not() {
    let agent = Agent::start_in(tempfile::tempdir().unwrap(), &["--tick", "200ms"]);
    let mut client = agent.greet();
    client.resume(named(1, false, None));
    let mut watcher = agent.greet();
    client.send(Request::Checkpoint(Checkpoint { epoch: Id([1; 16]), number: 1 }));
    assert_eq!(client.report().reason, Reason::Checkpoint);
    assert!(watcher.receive().is_none(), "what is open is in the snapshot");
    drop(client);
    let mut other = agent.greet();
    let held = other.read();
    assert!(held.tail.held && held.resume.is_none(), "{held:?}");

    let mut reset = agent.greet();
    reset.send(Request::Read);
    // What a socket has not read when it is closed resets its peer; the report must have come for that.
    let mut byte = [0];
    std::io::Read::read_exact(&mut reset.stream, &mut byte).unwrap();
    drop(reset);
    let report = resumed(&mut other);
    assert_eq!(report.resume.unwrap().signal, Signal::VsockReset);
    assert!(!report.tail.held);
}

#[test]
fn the_first_report_after_a_resume_judges_memory_by_the_hosts_request() {
    let folder = tempfile::tempdir().unwrap();
    let (proc, sys) = captured_guest(folder.path());
    for name in ["iomem", "kpageflags"] {
        std::fs::rename(folder.path().join(name), Path::new(&proc).join(name)).unwrap();
    }
    let agent = Agent::start_in(folder, &["--proc-root", &proc, "--sys-root", &sys]);
    let mut client = agent.greet();
    for (number, requested, state) in
        [(1, 256, MemoryState::Plugging), (2, 130, MemoryState::Settled), (3, 64, MemoryState::Unplugging)]
    {
        let requested = Some(Bytes::mib(requested));
        let report = client.resume(named(number, true, requested));
        assert_eq!((report.memory.requested, report.memory.state), (requested, state));
        assert_eq!(report.memory.plugged, Some(Bytes::mib(130)));
        assert_eq!(client.read().memory.state, state, "and so does the closer look behind it");
    }
}

#[test]
fn what_looks_like_a_vmclock_and_is_none_is_done_without() {
    let folder = tempfile::tempdir().unwrap();
    let dev = folder.path().join("dev");
    std::fs::create_dir(&dev).unwrap();
    let made = Command::new("mkfifo").arg(dev.join("vmclock0")).status().unwrap();
    assert!(made.success());
    let dev = dev.display().to_string();
    let agent = Agent::start_in(folder, &["--dev-root", &dev]);
    assert_eq!(agent.greet().read().identity.seq, 1);
    let doctor = super::run(&["doctor", "--dev-root", &dev]);
    let text = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(text.contains("no    VMClock: mapping"), "{text}");
}

/// The calls that the agent makes from here on until it sleeps again, as strace writes them.
struct Trace {
    path: PathBuf,
    seen: usize,
}

impl Trace {
    fn of(path: PathBuf) -> Self {
        let mut trace = Self { path, seen: 0 };
        trace.next();
        trace
    }

    /// What was written since the last time, once the agent sleeps: its last call is not over, and nothing comes.
    fn next(&mut self) -> Vec<String> {
        let mut text = String::new();
        super::until("the agent sleeps again", || {
            std::thread::sleep(std::time::Duration::from_millis(300));
            let before = std::mem::replace(&mut text, std::fs::read_to_string(&self.path).unwrap());
            let sleeps =
                text.lines().last().is_some_and(|call| call.contains("epoll_") && !call.contains(" = "));
            sleeps && before == text
        });
        let lines: Vec<String> = text.lines().skip(self.seen).map(str::to_owned).collect();
        self.seen += lines.len();
        lines
    }
}

#[test]
fn from_noticing_a_resume_to_its_report_there_is_little_work_and_nothing_is_started() {
    let Some(mut command) = crate::under::strace() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (path, state) = (folder.path().join("trace"), folder.path().join("state"));
    let agent = Agent::command(folder.path(), &["--tick", "1h"]);
    command.arg(&path).arg("-y").arg(agent.get_program()).args(agent.get_args());
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let agent = Agent::spawned(folder, command);
    let mut client = agent.greet();
    client.resume(named(1, true, None));
    // Behind the closer look that follows.
    client.read();
    let mut trace = Trace::of(path);
    client.resume(named(2, true, None));
    let calls = trace.next();
    let name = |call: &String| call.split_whitespace().nth(1).unwrap().split('(').next().unwrap().to_owned();
    let answered = calls.iter().position(|call| name(call) == "sendto").expect("a report is sent");
    assert!((5..=60).contains(&answered), "{answered} calls:\n{}", calls.join("\n"));
    for call in &calls {
        let name = name(call);
        assert!(!name.contains("clone") && !name.contains("exec") && !name.contains("fork"), "{call}");
        let written = name.contains("write") && !call.contains(&state.display().to_string());
        assert!(!written || call.contains("eventfd") || call.contains("/dev/null"), "{call}");
        assert!(
            !call.contains("O_WRONLY") && !call.contains("O_RDWR") && !call.contains("O_CREAT"),
            "{call}"
        );
    }
    eprintln!("[{answered} system calls to the report, {} with the closer look]", calls.len());
}
