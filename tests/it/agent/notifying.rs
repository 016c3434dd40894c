//! The agent speaks first: on a connection it opens itself, again and again until it was heard.

use super::command_line::captured_guest;
use super::{Agent, Host, PATIENCE, cpu_ticks, named};
use guestmeter::wire::message::{Ack, Reason, Reply, Request};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

/// An agent that notifies a socket in its own folder, where nobody listens yet.
fn agent(extra: &[&str]) -> (Agent, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("host.sock");
    let uri = format!("unix://{}", path.display());
    let agent = Agent::start_in(folder, &[&["--notify", &uri], extra].concat());
    (agent, path)
}

#[test]
fn a_boot_is_told_with_the_same_number_until_the_host_names_the_epoch() {
    let (agent, path) = agent(&[]);
    let host = Host::bind(&path);
    let mut first = host.accept();
    let told = first.notified();
    assert_eq!((told.report.reason, told.report.identity.seq), (Reason::Boot, 1));
    assert_eq!(told.agent.version, env!("CARGO_PKG_VERSION"));
    // Before the agent can know: its pause begins no earlier.
    let since = Instant::now();
    drop(first);
    let mut second = host.accept();
    assert!(since.elapsed() >= Duration::from_millis(900), "{:?}", since.elapsed());
    assert_eq!(second.notified().report, told.report, "word for word");
    let identity = &told.report.identity;
    second.send(Request::Ack(Ack { epoch: identity.epoch.id, seq: identity.seq }));
    assert!(matches!(second.receive(), Some(Reply::Acked(_))), "the host has heard");
    assert!(second.receive().is_none(), "nothing is left to be said");
    assert!(host.accept_within(Duration::from_secs(4)).is_none());

    let report = agent.greet().resume(named(1, false, None));
    assert_eq!(report.identity.epoch.number, 1);
    assert!(host.accept_within(Duration::from_secs(4)).is_none());
}

#[test]
fn after_a_resume_it_tells_that_memory_has_settled_until_that_is_acked() {
    let folder = tempfile::tempdir().unwrap();
    let (proc, sys) = captured_guest(folder.path());
    let (agent, path) = agent(&["--proc-root", &proc, "--sys-root", &sys]);
    // Named before the host listens: only what comes after it is told.
    agent.greet().resume(named(1, true, None));
    let host = Host::bind(&path);
    let mut line = host.accept();
    let report = line.notified().report;
    assert_eq!((report.reason, report.identity.epoch.number), (Reason::Settled, 1));
    let (epoch, seq) = (report.identity.epoch.id, report.identity.seq);
    line.send(Request::Ack(Ack { epoch, seq }));
    assert!(matches!(line.receive(), Some(Reply::Acked(_))));
    assert!(line.receive().is_none(), "heard, it hangs up");
    assert!(host.accept_within(Duration::from_secs(3)).is_none());
}

#[test]
fn an_absent_host_is_tried_ever_more_rarely_and_said_once() {
    let (agent, path) = agent(&[]);
    agent.until_logged("cannot be notified");
    let (before, since) = (cpu_ticks(agent.pid()), Instant::now());
    std::thread::sleep(Duration::from_millis(1_500));
    let used = Duration::from_millis(10 * (cpu_ticks(agent.pid()) - before));
    assert!(used < since.elapsed() * 2 / 15, "{used:?} of {:?}", since.elapsed());
    assert_eq!(agent.log().matches("cannot be notified").count(), 1, "{}", agent.log());
    agent.greet().read();
    let host = Host::bind(&path);
    assert_eq!(host.accept().notified().report.reason, Reason::Boot);
}

#[test]
fn a_host_that_takes_no_connection_is_an_absent_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("full.sock");
    let listener = UnixListener::bind(&path).unwrap();
    // Nobody accepts: once the queue is full, connecting would wait.
    let name = rustix::net::SocketAddrUnix::new(&path).unwrap();
    let mut waiting = Vec::new();
    loop {
        let flags = rustix::net::SocketFlags::NONBLOCK | rustix::net::SocketFlags::CLOEXEC;
        let (family, kind) = (rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM);
        let socket = rustix::net::socket_with(family, kind, flags, None).unwrap();
        match rustix::net::connect(&socket, &name) {
            Ok(()) => waiting.push(socket),
            Err(error) => break assert_eq!(error, rustix::io::Errno::AGAIN),
        }
        assert!(waiting.len() < 10_000, "a queue without an end");
    }
    let agent = Agent::start_in(folder, &["--notify", &format!("unix://{}", path.display())]);
    agent.greet().read();
    agent.until_logged("cannot be notified");
    drop(listener);
}

#[test]
fn a_host_that_says_nothing_is_hung_up_on_and_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("host.sock");
    let host = Host::bind(&path);
    // It dials as soon as it has started, and not before.
    let since = Instant::now();
    let agent = Agent::start_in(folder, &["--notify", &format!("unix://{}", path.display())]);
    let mut silent = host.accept();
    silent.notified();
    let mut other = agent.greet();
    assert_eq!(other.read().reason, Reason::Query);
    assert!(silent.receive().is_none(), "no ack in time");
    let waited = since.elapsed();
    assert!(waited >= Duration::from_millis(4_900) && waited < PATIENCE, "{waited:?}");
    other.read();
    assert_eq!(host.accept().notified().report.identity.seq, 1);
}

#[test]
fn garbage_from_the_host_ends_the_connection_alone() {
    let (mut agent, path) = agent(&[]);
    let host = Host::bind(&path);
    let mut line = host.accept();
    let _ = std::io::Write::write_all(&mut line.stream, &[b'x'; 70_000]);
    line.notified();
    assert!(line.receive().is_none());
    assert_eq!(agent.greet().read().reason, Reason::Query);
    assert!(agent.is_running());
    assert_eq!(host.accept().notified().report.identity.seq, 1);
}

#[test]
fn stopped_while_it_dials_and_speaks_it_ends_well() {
    let (agent, path) = agent(&[]);
    let host = Host::bind(&path);
    let mut line = host.accept();
    line.notified();
    let since = Instant::now();
    let (status, _folder) = agent.signal("-TERM");
    assert!(status.success() && since.elapsed() < PATIENCE, "{:?}", since.elapsed());
}
