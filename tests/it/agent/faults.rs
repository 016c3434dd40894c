//! An agent that runs short: of descriptors, of memory. It goes on counting, and comes back by itself.

use super::{Agent, Client, PATIENCE, frame, hello};
use crate::under;
use guestmeter::units::Nanos;
use guestmeter::wire::message::{Report, Request, Watch};
use rustix::net::RecvFlags;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// All time since boot is counted, dropped or suspended.
fn assert_whole(report: &Report) {
    let usage = &report.usage;
    let told = usage.active.total() + u128::from(usage.dropped.active.0 + usage.suspended.0);
    assert_eq!(told, u128::from(report.clock.monotonic.0), "{usage:?}");
}

/// A connection that has said Hello, and whether somebody answered it rather than refused to take it.
fn called(agent: &Agent, refusals: usize) -> (UnixStream, bool) {
    let stream = UnixStream::connect(agent.socket()).unwrap();
    (&stream).write_all(&frame(hello(1, 1))).unwrap();
    let since = Instant::now();
    let mut first = [0; 1];
    loop {
        if rustix::net::recv(&stream, &mut first, RecvFlags::PEEK | RecvFlags::DONTWAIT).is_ok() {
            return (stream, true);
        }
        if agent.log().matches(CANNOT_BE_TAKEN).count() > refusals {
            return (stream, false);
        }
        assert!(since.elapsed() < PATIENCE, "neither taken nor refused:\n{}", agent.log());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn welcomed(stream: UnixStream) -> Client {
    let mut client = Client::new(stream);
    client.receive().expect("a Welcome");
    client
}

const CANNOT_BE_TAKEN: &str = "a connection cannot be taken: Too many open files (os error 24)";

#[test]
fn without_descriptors_it_serves_whom_it_has_and_takes_others_when_it_can() {
    // A tick that no busy machine delays to the double: nothing may be dropped.
    let mut agent = Agent::start_in(tempfile::tempdir().unwrap(), &["--tick", "5s"]);
    let mut watcher = agent.greet();
    watcher.send(Request::Watch(Watch { interval: Nanos::from_secs(1) }));
    let first = watcher.report();
    // Whatever it opens for long is open now; what a look opens for a moment has to fit too, and does not always.
    under::leave_room_for(agent.pid(), 2);
    let mut others = Vec::new();
    let waiting = loop {
        let (stream, taken) = called(&agent, 0);
        if !taken {
            break stream;
        }
        others.push(welcomed(stream));
        assert!(others.len() < 16, "the limit limits nothing");
    };
    assert!(!others.is_empty(), "{}", agent.log());
    // Those that it has are served, and the count goes on.
    let (ticks, since) = (super::cpu_ticks(agent.pid()), Instant::now());
    let mut last = first.clone();
    for client in &mut others {
        let read = client.read();
        assert_whole(&read);
        last = read;
    }
    for _ in 0..2 {
        last = watcher.report();
        assert_whole(&last);
    }
    let used = Duration::from_millis(10 * (super::cpu_ticks(agent.pid()) - ticks));
    assert!(used < since.elapsed() / 4, "{used:?}: it waits, and does not try without end");
    assert_eq!(last.usage.dropped, first.usage.dropped, "nothing is dropped");
    assert_eq!(last.usage.gaps, first.usage.gaps);
    // Who hangs up makes room for who waited.
    others.clear();
    let mut late = welcomed(waiting);
    let read = late.read();
    assert_whole(&read);
    assert_eq!(read.usage.dropped, first.usage.dropped);
    assert!(agent.is_running());
}

/// Little more than a debug build has resident of its own.
const MEMORY: u64 = 4 << 20;

#[test]
fn at_its_memory_limit_it_counts_on_and_a_kill_loses_nothing() {
    let Some(limit) = under::MemoryLimit::new(MEMORY) else { return };
    let folder = tempfile::tempdir().unwrap();
    let start = |folder: tempfile::TempDir| {
        let command = Agent::command_by(
            under::command(super::program(), &limit.prelude()),
            folder.path(),
            // No slice is too long while the kernel takes its pages and gives them back, however slowly.
            &["--tick", "5s"],
        );
        Agent::spawned(folder, command)
    };
    let mut agent = start(folder);
    let first = agent.greet().read();
    for _ in 0..5 {
        // All of its pages that the kernel can take, it takes; then it ends whoever has the most.
        limit.eat();
        let read = agent.greet().read();
        assert_whole(&read);
        assert_eq!(read.usage.gaps, first.usage.gaps, "no slice was too long");
    }
    assert!(limit.reached() > 0, "the limit was reached");
    assert!(agent.is_running(), "{}", agent.log());
    // As many hosts as it serves, none of which reads: what it owes them has a bound below the limit.
    let floods: Vec<_> = (0..16)
        .map(|_| {
            let stream = UnixStream::connect(agent.socket()).unwrap();
            stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
            let mut flood = stream;
            let _ = flood.write_all(&frame(hello(1, 1)));
            let requests = frame(Request::Read).repeat(2000);
            let _ = flood.write_all(&requests);
            flood
        })
        .collect();
    std::thread::sleep(Duration::from_millis(500));
    assert!(agent.is_running(), "{}", agent.log());
    drop(floods);
    let before = agent.greet_when_there_is_room().read();
    assert_whole(&before);
    let agent = start(agent.signal("-KILL").1);
    let after = agent.greet().read();
    assert_whole(&after);
    assert_eq!(after.usage.dropped, before.usage.dropped);
    assert_eq!(after.identity.instance, before.identity.instance + 1);
}
