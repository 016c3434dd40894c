//! What a host gets on a connection, good host or bad.

use super::{Agent, Client, PATIENCE, cpu_ticks, frame, hello};
use guestmeter::units::{Bytes, Nanos};
use guestmeter::wire::message::{Ack, Id, Reason, RefusalCode, Reply, Request, WaitSettled, Watch};
use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

/// Half of what a connection may idle; far more than what an end takes, however busy the machine.
const IDLE: Duration = Duration::from_secs(30);

fn refusal(reply: Option<Reply>) -> (RefusalCode, String) {
    match reply {
        Some(Reply::Error(refusal)) => (refusal.code, refusal.text),
        other => panic!("no Error but {other:?}"),
    }
}

fn boot_id() -> Id {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    Id(u128::from_str_radix(&text.trim().replace('-', ""), 16).unwrap().to_be_bytes())
}

fn mem_total() -> Bytes {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let kib: u64 = text.lines().next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    Bytes(kib * 1024)
}

#[test]
fn hello_and_read_give_this_machines_numbers() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let welcome = client.hello();
    assert_eq!((welcome.nonce, welcome.boot_id, welcome.agent.protocol), (4711, boot_id(), 1));
    assert_eq!(welcome.agent.version, env!("CARGO_PKG_VERSION"));

    let first = client.read();
    assert_eq!((first.identity.seq, first.identity.instance, first.reason), (1, 1, Reason::Query));
    assert_eq!(first.memory.mem_total, Some(mem_total()));
    assert!(first.cpu.effective.0 >= 1);
    std::thread::sleep(Duration::from_millis(200));
    let second = client.read();
    assert_eq!(second.identity.seq, 2);
    let passed = u128::from(second.clock.monotonic.0 - first.clock.monotonic.0);
    assert!(passed >= 200_000_000);
    assert_eq!(second.usage.active.total() - first.usage.active.total(), passed, "counted to the nanosecond");
    let memory = first.memory.total().or(first.memory.mem_total).unwrap();
    assert_eq!(second.usage.memory.total() - first.usage.memory.total(), passed * u128::from(memory.0));
    let cpu = u128::from(first.cpu.effective.0);
    assert_eq!(second.usage.cpu.total() - first.usage.cpu.total(), passed * cpu);
}

#[test]
fn two_requests_in_one_write_with_hello_are_answered_in_order() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let mut bytes = frame(hello(1, 1));
    bytes.extend(frame(Request::Read));
    bytes.extend(frame(Request::Ack(Ack { epoch: Id::default(), seq: 1 })));
    bytes.extend(frame(Request::Read));
    client.stream.write_all(&bytes).unwrap();
    assert!(matches!(client.receive(), Some(Reply::Welcome(_))));
    assert_eq!(client.report().identity.seq, 1);
    assert_eq!(refusal(client.receive()).0, RefusalCode::UnknownEpoch);
    assert_eq!(client.report().identity.seq, 2);
}

#[test]
fn a_hundred_requests_in_one_write_are_all_answered() {
    let agent = Agent::start();
    let mut client = agent.greet();
    client.stream.write_all(&frame(Request::Read).repeat(100)).unwrap();
    for seq in 1..=100 {
        assert_eq!(client.report().identity.seq, seq);
    }
}

#[test]
fn a_frame_is_found_after_garbage_and_in_single_bytes() {
    let agent = Agent::start();
    let mut client = agent.greet();
    let mut bytes = b"left over from before the snapshot GMT GMTRGMT".to_vec();
    bytes.extend(frame(Request::Read));
    for byte in bytes {
        client.stream.write_all(&[byte]).unwrap();
    }
    let report = client.report();
    assert_eq!((report.identity.seq, report.tail.garbage_bytes), (1, 46), "what was skipped is told");
    let mut other = agent.greet();
    other.stream.write_all(b"x").unwrap();
    assert_eq!(other.read().tail.garbage_bytes, 47, "of all connections");
}

/// As `socat` does when its input ends.
#[test]
fn a_peer_that_has_closed_its_half_gets_all_its_answers() {
    let agent = Agent::start();
    for one_write in [true, false] {
        let mut client = agent.connect();
        let quiet = Nanos(300_000_000);
        let timeout = Nanos::from_secs(60);
        let wait = WaitSettled { expected: None, quiet, timeout };
        let asked = [hello(1, 1), Request::Read, Request::WaitSettled(wait), Request::Read];
        if one_write {
            client.stream.write_all(&asked.map(frame).concat()).unwrap();
        } else {
            asked.into_iter().for_each(|request| client.send(request));
        }
        client.stream.shutdown(Shutdown::Write).unwrap();
        assert!(matches!(client.receive(), Some(Reply::Welcome(_))));
        assert_eq!(client.report().reason, Reason::Query);
        assert_eq!(client.report().reason, Reason::Settled);
        assert_eq!(client.report().reason, Reason::Query);
        assert!(client.receive().is_none(), "then it is closed");
    }
}

#[test]
fn one_that_waits_on_is_waited_for_until_it_is_gone_and_then_makes_room() {
    let agent = Agent::start();
    let mut client = agent.greet();
    let never = Some(Bytes((1 << 20) + 1));
    let hour = Nanos::from_secs(3600);
    client.send(Request::WaitSettled(WaitSettled { expected: never, quiet: hour, timeout: hour }));
    client.stream.shutdown(Shutdown::Write).unwrap();
    let before = cpu_ticks(agent.pid());
    let mut others: Vec<Client> = (0..3).map(|_| agent.greet()).collect();
    others[0].send(Request::WaitSettled(WaitSettled {
        expected: None,
        quiet: Nanos::SECOND,
        timeout: Nanos::from_secs(60),
    }));
    others[0].report();
    assert!(cpu_ticks(agent.pid()) - before < 25, "an end that was seen keeps nobody awake");
    drop(client);
    // Nobody waits an hour for it.
    agent.greet_when_there_is_room();
}

#[test]
fn another_protocol_is_hung_up_on_and_the_agent_lives() {
    let mut agent = Agent::start();
    let mut client = agent.connect();
    let line = b"GET / HTTP/1.1\r\nHost: guest\r\n\r\n";
    // The agent may hang up before all of it is written.
    let _ = client.stream.write_all(&line.repeat(70_000 / line.len()));
    assert!(client.receive().is_none());
    assert!(agent.log().contains("GET / HT"), "the log shows what came: {}", agent.log());
    assert_eq!(agent.greet().read().identity.seq, 1);
    assert!(agent.is_running());
}

#[test]
fn a_malformed_request_and_a_reply_are_refused_and_the_connection_stays() {
    let agent = Agent::start();
    let mut client = agent.greet();
    let mut bytes = Vec::new();
    guestmeter::wire::frame::encode(0x07, &[0xff; 3], &mut bytes).unwrap();
    client.stream.write_all(&bytes).unwrap();
    assert_eq!(refusal(client.receive()).0, RefusalCode::Malformed);
    bytes.clear();
    guestmeter::wire::frame::encode(0x55, b"from the future", &mut bytes).unwrap();
    client.stream.write_all(&bytes).unwrap();
    assert_eq!(refusal(client.receive()).0, RefusalCode::Unsupported);
    bytes.clear();
    guestmeter::wire::frame::encode(0x84, &[0; 17], &mut bytes).unwrap();
    client.stream.write_all(&bytes).unwrap();
    assert_eq!(refusal(client.receive()).0, RefusalCode::Unsupported);
    assert_eq!(client.read().identity.seq, 1);
}

#[test]
fn a_newer_host_is_told_both_version_ranges_then_hung_up_on() {
    let agent = Agent::start();
    let mut client = agent.connect();
    client.send(hello(2, 3));
    let (code, text) = refusal(client.receive());
    assert_eq!(code, RefusalCode::Version);
    assert!(text.contains("1 to 1") && text.contains("2 to 3"), "{text}");
    assert!(client.receive().is_none());
}

#[test]
fn a_request_before_hello_is_refused_and_hello_may_still_come() {
    let agent = Agent::start();
    let mut client = agent.connect();
    client.send(Request::Read);
    assert_eq!(refusal(client.receive()).0, RefusalCode::Handshake);
    client.hello();
    assert_eq!(client.read().identity.seq, 1);
}

#[test]
fn who_says_nothing_is_hung_up_on_after_the_handshake_time() {
    let agent = Agent::start();
    let since = Instant::now();
    let mut client = agent.connect();
    assert!(client.receive().is_none());
    let waited = since.elapsed();
    assert!(waited >= Duration::from_millis(1_900) && waited < IDLE, "{waited:?}");
}

#[test]
fn a_fifth_connection_is_refused_as_busy_until_one_ends() {
    let agent = Agent::start();
    let mut clients: Vec<Client> = (0..4).map(|_| agent.greet()).collect();
    let mut fifth = agent.connect();
    let (code, text) = refusal(fifth.receive());
    assert_eq!(code, RefusalCode::Busy);
    assert!(text.contains('4'), "{text}");
    assert!(fifth.receive().is_none());
    for client in &mut clients {
        client.read();
    }
    drop(clients.pop());
    agent.greet_when_there_is_room();
}

#[test]
fn a_reader_that_does_not_read_is_dropped_and_others_are_served() {
    let agent = Agent::start();
    let mut slow = agent.greet();
    let mut other = agent.greet();
    let requests = frame(Request::Read).repeat(64);
    let since = Instant::now();
    let dropped = loop {
        if let Err(error) = slow.stream.write_all(&requests) {
            break error;
        }
        assert!(since.elapsed() < PATIENCE, "an agent that buffers without end");
    };
    assert!(
        matches!(dropped.kind(), std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset),
        "{dropped}"
    );
    agent.until_logged("bytes of replies are unread");
    other.read();
    let rss = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let rss: u64 = rss
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!(rss < 64 * 1024, "{rss} KiB");
}

#[test]
fn a_watcher_gets_a_report_at_once_and_one_each_interval() {
    let agent = Agent::start();
    let mut client = agent.greet();
    let since = Instant::now();
    client.send(Request::Watch(Watch { interval: Nanos(200_000_000) }));
    let reports: Vec<_> = (0..4).map(|_| client.report()).collect();
    let waited = since.elapsed();
    assert!(waited >= Duration::from_millis(590) && waited < PATIENCE, "{waited:?}");
    for pair in reports.windows(2) {
        let [before, after] = pair else { unreachable!() };
        assert!(after.clock.monotonic.0 - before.clock.monotonic.0 >= 200_000_000);
        assert_eq!(after.identity.seq, before.identity.seq + 1);
    }
    client.send(Request::Read);
    client.report();
}

#[test]
fn memory_that_does_not_change_is_settled_after_the_quiet_time() {
    let agent = Agent::start();
    let mut client = agent.greet();
    let since = Instant::now();
    let quiet = Nanos(600_000_000);
    let timeout = Nanos::from_secs(60);
    client.send(Request::WaitSettled(WaitSettled { expected: None, quiet, timeout }));
    assert_eq!(client.report().reason, Reason::Settled);
    assert!(since.elapsed() >= Duration::from_millis(600));
}

#[test]
fn what_never_comes_times_out_with_both_numbers() {
    let agent = Agent::start();
    let mut client = agent.greet();
    let since = Instant::now();
    let expected = Some(Bytes::mib(1 << 30));
    let timeout = Nanos(700_000_000);
    client.send(Request::WaitSettled(WaitSettled { expected, quiet: Nanos::ZERO, timeout }));
    client.send(Request::Read);
    let (code, text) = refusal(client.receive());
    assert_eq!(code, RefusalCode::Timeout);
    assert!(text.contains("expected 1073741824 MiB") && text.contains("plugged"), "{text}");
    let waited = since.elapsed();
    assert!(waited >= Duration::from_millis(690) && waited < PATIENCE, "{waited:?}");
    client.report();
}

#[test]
fn without_a_descriptor_left_it_neither_dies_nor_spins() {
    // The limit is set from outside once it serves, below what it holds already.
    let agent = Agent::start();
    let pid = agent.pid().to_string();
    let mut served = agent.greet();
    let limit = |limit: &str| {
        let set = std::process::Command::new("prlimit")
            .args(["--pid", &pid, &format!("--nofile={limit}")])
            .status();
        assert!(set.unwrap().success());
    };
    limit("4:1024");
    let mut waiting = agent.connect();
    waiting.send(hello(1, 1));
    agent.until_logged("a connection cannot be taken");
    let (before, since) = (cpu_ticks(agent.pid()), Instant::now());
    std::thread::sleep(Duration::from_millis(700));
    let used = Duration::from_millis(10 * (cpu_ticks(agent.pid()) - before));
    assert!(used < since.elapsed() * 2 / 7, "{used:?} of {:?}", since.elapsed());
    served.read();
    limit("1024:1024");
    assert!(matches!(waiting.receive(), Some(Reply::Welcome(_))), "served once there are descriptors again");
}

#[test]
fn a_peer_that_does_not_read_does_not_hold_up_the_end() {
    let agent = Agent::start();
    let mut slow = agent.greet();
    slow.stream.write_all(&frame(Request::Read).repeat(16)).unwrap();
    let since = Instant::now();
    let (status, _folder) = agent.signal("-TERM");
    assert!(status.success());
    assert!(since.elapsed() < IDLE, "{:?}", since.elapsed());
}
