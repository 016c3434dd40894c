//! The count across an agent's end: killed, stopped, and with a state file that cannot be used.

use super::{Agent, Process};
use guestmeter::units::{ByteNanos, Nanos};
use guestmeter::wire::message::{Reason, Report, Request, Watch};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::time::Duration;
use tempfile::TempDir;

/// What an agent has that is not told another one.
const TICK: Nanos = Nanos::from_secs(5);

/// Serves, counts for a moment, is killed at once.
fn killed() -> (Report, TempDir) {
    let agent = Agent::start();
    let report = agent.greet().read();
    let (status, folder) = agent.signal("-KILL");
    assert!(!status.success());
    (report, folder)
}

#[test]
fn killed_and_started_again_it_has_lost_nothing() {
    let (mut before, mut folder) = killed();
    for instance in 2..5 {
        std::thread::sleep(Duration::from_millis(50));
        let agent = Agent::start_in(folder, &[]);
        let after = agent.greet().read();
        assert_eq!(after.identity.instance, instance);
        assert_eq!(after.identity.seq, before.identity.seq + 1);
        assert_eq!(after.identity.epoch, before.identity.epoch);
        let passed = u128::from(after.clock.monotonic.0 - before.clock.monotonic.0);
        assert_eq!(after.usage.active.total() - before.usage.active.total(), passed, "to the nanosecond");
        let memory = before.memory.total().or(before.memory.mem_total).unwrap();
        assert_eq!(after.usage.memory.total() - before.usage.memory.total(), passed * u128::from(memory.0));
        assert_eq!(after.usage.dropped.memory, before.usage.dropped.memory);
        assert_eq!(after.usage.gaps, before.usage.gaps);
        before = after;
        folder = agent.signal("-KILL").1;
    }
}

#[test]
fn killed_while_it_writes_without_end_it_has_lost_nothing() {
    let mut agent = Agent::start();
    let mut last = agent.greet().read();
    for _ in 0..5 {
        let mut client = agent.greet();
        client.send(Request::Read);
        let requests = super::frame(Request::Read).repeat(200);
        std::thread::spawn({
            let mut stream = client.stream.try_clone().unwrap();
            move || std::io::Write::write_all(&mut stream, &requests)
        });
        std::thread::sleep(Duration::from_millis(7));
        let folder = agent.signal("-KILL").1;
        // What left before the kill is the least that must be there after it.
        let mut sent = last;
        while let Some(guestmeter::wire::message::Reply::Report(report)) = client.receive() {
            sent = *report;
        }
        agent = Agent::start_in(folder, &[]);
        let after = agent.greet().read();
        assert!(after.identity.seq > sent.identity.seq);
        let passed = u128::from(after.clock.monotonic.0 - sent.clock.monotonic.0);
        assert_eq!(after.usage.active.total() - sent.usage.active.total(), passed);
        last = after;
    }
}

#[test]
fn stopped_it_says_a_last_word_to_watchers_and_exits_well() {
    for signal in ["-TERM", "-INT"] {
        let agent = Agent::start();
        let mut watcher = agent.greet();
        watcher.send(Request::Watch(Watch { interval: Nanos::from_secs(60) }));
        watcher.report();
        let (status, folder) = agent.signal(signal);
        assert!(status.success(), "{signal}: {status}");
        let last = watcher.report();
        assert_eq!(last.reason, Reason::Shutdown);
        assert!(watcher.receive().is_none());
        assert!(!folder.path().join("agent.sock").exists(), "its socket goes with it");
        let after = Agent::start_in(folder, &[]).greet().read();
        assert_eq!(after.identity.seq, last.identity.seq + 1);
        let passed = u128::from(after.clock.monotonic.0 - last.clock.monotonic.0);
        assert_eq!(after.usage.active.total() - last.usage.active.total(), passed);
    }
}

/// Starts on a state file that was changed; gives the reports before and after, and the log.
fn restarted_with(change: impl FnOnce(&std::path::Path)) -> (Report, Report, String) {
    let (before, folder) = killed();
    std::fs::remove_file(folder.path().join("log")).unwrap();
    change(&folder.path().join("state"));
    let agent = Agent::start_in(folder, &[]);
    let after = agent.greet().read();
    (before, after, agent.log())
}

/// The first report of a count that began no earlier than `started`.
fn begins_again(after: &Report, started: Nanos) {
    assert_eq!((after.identity.instance, after.identity.seq), (1, 1));
    let since_boot = u128::from(after.clock.monotonic.0);
    let counted = after.usage.active.total() + u128::from(after.usage.dropped.active.0);
    assert_eq!(counted, since_boot, "what is not counted is dropped, and said");
    let most = TICK.0 + (after.clock.monotonic.0 - started.0);
    assert!(
        after.usage.active.total() <= u128::from(most),
        "a tick of it, and what passed since the start: {after:?}"
    );
    assert_eq!(after.usage.gaps, 1);
    assert!(after.usage.dropped.memory > ByteNanos::ZERO);
    assert_eq!(after.base, guestmeter::meter::Usage::default());
}

#[test]
fn a_first_start_begins_with_a_tick_of_the_time_since_boot() {
    let started = super::monotonic();
    let agent = Agent::start();
    begins_again(&agent.greet().read(), started);
    assert!(agent.log().contains("new; the count begins"), "{}", agent.log());
}

#[test]
fn a_state_file_of_garbage_is_named_and_the_count_begins_again() {
    let (before, after, log) = restarted_with(|path| std::fs::write(path, vec![0xa5; 40_000]).unwrap());
    begins_again(&after, before.clock.monotonic);
    assert!(log.contains("slot 0: bad magic; slot 1: bad magic"), "{log}");
}

#[test]
fn a_state_file_cut_short_is_named() {
    let (before, after, log) = restarted_with(|path| {
        std::fs::File::options().write(true).open(path).unwrap().set_len(30).unwrap();
    });
    begins_again(&after, before.clock.monotonic);
    assert!(log.contains("slot 0: cut short; slot 1: never written"), "{log}");
}

#[test]
fn a_state_file_of_another_boot_is_named() {
    let (before, after, log) = restarted_with(|path| {
        let other = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(other.path().join("sys/kernel/random")).unwrap();
        let boot_id = other.path().join("sys/kernel/random/boot_id");
        std::fs::write(boot_id, "01234567-89ab-cdef-0123-456789abcdef\n").unwrap();
        for file in ["meminfo", "stat", "zoneinfo", "iomem", "vmstat", "cpuinfo"] {
            let _ = std::fs::copy(format!("/proc/{file}"), other.path().join(file));
        }
        std::fs::remove_file(path).unwrap();
        // A real agent of "another boot" writes the file.
        let root = other.path().to_str().unwrap();
        let folder = path.parent().unwrap();
        let mut child = Process::start(&mut Agent::command(folder, &["--proc-root", root]));
        super::until("it has written", || {
            assert!(child.is_running(), "{}", std::fs::read_to_string(folder.join("log")).unwrap());
            std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"GMST"))
        });
        child.kill();
    });
    begins_again(&after, before.clock.monotonic);
    assert!(log.contains("the state belongs to another boot"), "{log}");
}

#[test]
fn a_torn_slot_falls_back_to_the_one_before_it() {
    let (before, after, log) = restarted_with(|path| {
        let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
        let generation = |slot: u64| {
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, slot * 16_384 + 8).unwrap();
            u64::from_le_bytes(bytes)
        };
        let newest = u64::from(generation(1) > generation(0));
        file.write_all_at(&[0xff; 3], newest * 16_384 + 40).unwrap();
    });
    assert!(log.contains("one slot is damaged (bad checksum), the other is used"), "{log}");
    let passed = u128::from(after.clock.monotonic.0 - before.clock.monotonic.0);
    assert_eq!(after.usage.active.total() - before.usage.active.total(), passed);
    assert_eq!(after.identity.instance, 2);
}

#[test]
fn a_symbolic_link_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("precious");
    std::fs::write(&target, "data").unwrap();
    symlink(&target, folder.path().join("state")).unwrap();
    let status = Process::start(&mut Agent::command(folder.path(), &[])).wait();
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    assert_eq!(status.code(), Some(73), "{log}");
    assert!(log.contains("symbolic link") && log.contains("state"), "{log}");
    assert_eq!(std::fs::read(&target).unwrap(), b"data");
}

#[test]
fn what_is_no_file_is_refused_without_hanging() {
    let folder = tempfile::tempdir().unwrap();
    let made = std::process::Command::new("mkfifo").arg(folder.path().join("state")).status().unwrap();
    assert!(made.success());
    let status = Process::start(&mut Agent::command(folder.path(), &[])).wait();
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    assert_eq!(status.code(), Some(73), "{log}");
    assert!(log.contains("not a regular file"), "{log}");
}

#[test]
fn two_agents_do_not_share_a_state_file() {
    let agent = Agent::start();
    let listen = format!("unix://{}", agent.socket().with_extension("other").display());
    let state = agent.state();
    let second = super::run(&["--listen", &listen, "--notify", "none", "--state", state.to_str().unwrap()]);
    assert_eq!(second.status.code(), Some(73));
    assert!(super::stderr(&second).contains("in use by another guestmeterd"), "{}", super::stderr(&second));
}

#[test]
fn the_state_file_is_for_its_owner_alone_and_small() {
    let agent = Agent::start();
    agent.greet().read();
    let metadata = std::fs::metadata(agent.state()).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert!(metadata.len() <= 32_768);
}
