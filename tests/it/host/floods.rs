//! Guests that never stop sending: given up by name, in time, and to nobody else's cost.

use super::script::{self, Script};
use super::{PATIENCE, run, stderr, stdout};
use crate::agent::Agent;
use guestmeter::host::{Client, Target};
use guestmeter::wire::frame::{self, MAGIC, PAYLOAD_MAX};
use guestmeter::wire::message::Reply;
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Sends the same to whoever connects, until that one hangs up.
struct Flood(TempDir);

impl Flood {
    fn of(first: Vec<u8>, again: Vec<u8>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (first, again) = (first.clone(), again.repeat(1 + 65_536 / again.len()));
                std::thread::spawn(move || pour(stream, &first, &again));
            }
        });
        Self(folder)
    }

    fn target(&self) -> String {
        format!("unix://{}", self.0.path().join("s").display())
    }
}

fn pour(mut stream: UnixStream, first: &[u8], again: &[u8]) {
    let mut sent = stream.write_all(first);
    let mut poured = 0_u64;
    while sent.is_ok() {
        sent = stream.write_all(again);
        poured += u64::try_from(again.len()).unwrap();
        assert!(poured < 1 << 30, "read without end");
    }
}

fn unknown_frame() -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode(0xEE, b"from the future", &mut bytes).unwrap();
    bytes
}

/// Each header's checksum is the magic of the next one, and each claims the longest payload.
fn overlapping_header() -> Vec<u8> {
    let length = u32::try_from(PAYLOAD_MAX).unwrap().to_le_bytes();
    [&MAGIC[..], &[1, 0x81, 0, 0], &length].concat()
}

fn complaint(flood: &Flood) -> String {
    let output = run(&["read", &flood.target(), "--timeout", "60s"]);
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    assert_eq!(stdout(&output), "");
    stderr(&output).trim_end().replace(&format!("guestmeter: {}: ", flood.target()), "")
}

#[test]
fn each_kind_of_flood_is_given_up_by_name() {
    let floods = [
        (unknown_frame(), "it sent more than 64 frames of unknown kinds and no answer"),
        (overlapping_header(), "it sent more than 64 frames with a wrong checksum and no answer"),
        ([unknown_frame(), overlapping_header()].concat(), "it sent more than 64 frames"),
        (b"x".to_vec(), "it speaks another protocol"),
        ([unknown_frame(), vec![b'x'; 16_000]].concat(), "it sent more than 262144 bytes and no answer"),
    ];
    for (again, cause) in floods {
        let said = complaint(&Flood::of(vec![], again.clone()));
        assert!(said.starts_with(cause), "{said}");
    }
}

#[test]
fn behind_a_stale_start_of_a_frame_too() {
    let said = complaint(&Flood::of(overlapping_header(), unknown_frame()));
    assert!(said.starts_with("it sent more than 64 frames of unknown kinds"), "{said}");
}

/// A good guest's reports come while others pour without end, each of which is tried again and again.
#[test]
fn a_good_guest_is_watched_beside_hostile_ones() {
    let agent = Agent::start();
    let good = format!("unix://{}", agent.socket().display());
    let floods = [unknown_frame(), overlapping_header(), b"x".to_vec()].map(|again| Flood::of(vec![], again));
    let targets = floods.each_ref().map(Flood::target);
    let mut arguments = vec!["watch", "--json", "--interval", "100ms"];
    arguments.extend(targets.iter().map(String::as_str));
    arguments.push(&good);
    let child = super::guestmeter(&arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut watch = super::watching::Watch(child);
    let reports = super::watching::lines(watch.0.stdout.take().unwrap());
    for _ in 0..20 {
        let line = reports.recv_timeout(PATIENCE).expect("the good guest's reports");
        let report: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(report["target"], good.as_str());
    }
}

/// Each report is in order: they are taken one by one, as slowly as the fastest watch has them.
#[test]
fn reports_without_end_are_taken_at_the_pace_of_a_watch() {
    let hostile = Script::one(|peer| {
        peer.greet(Some("sandbox"), script::named(1, 1));
        peer.request();
        let report = Reply::Report(Box::new(script::report("sandbox", script::named(1, 1))));
        let again = script::bytes(report).repeat(64);
        while peer.stream.write_all(&again).is_ok() {}
    });
    let agent = Agent::start();
    let good = format!("unix://{}", agent.socket().display());
    let arguments = ["watch", "--json", "--interval", "100ms", &hostile.target(), &good];
    let began = Instant::now();
    let child = super::guestmeter(&arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut watch = super::watching::Watch(child);
    let reports = super::watching::lines(watch.0.stdout.take().unwrap());
    let (mut of_good, mut of_hostile) = (0, 0);
    while of_good < 10 {
        let line = reports.recv_timeout(PATIENCE).expect("the good guest's reports");
        let report: serde_json::Value = serde_json::from_str(&line).unwrap();
        if report["target"] == good.as_str() { of_good += 1 } else { of_hostile += 1 }
    }
    let most = 2 + began.elapsed().as_millis() / 50;
    assert!((1..=most).contains(&of_hostile), "{of_hostile} of at most {most}");
    drop(watch);
    hostile.finish();
}

#[tokio::test]
async fn the_longest_limits_are_no_panic() {
    let agent = Agent::start();
    let target: Target = format!("unix://{}", agent.socket().display()).parse().unwrap();
    let client = Client::new(target, Duration::MAX).patient(Duration::MAX);
    let mut watcher = client.watch(Duration::MAX).await.unwrap();
    watcher.next().await.unwrap();
    let next = tokio::time::timeout(Duration::from_millis(50), watcher.next()).await;
    assert!(next.is_err(), "nothing changed, and the interval is long");
    let settled = client.wait_settled(None, Duration::MAX, Duration::MAX);
    let settled = tokio::time::timeout(Duration::from_millis(200), settled).await;
    assert!(settled.is_err() || settled.unwrap().is_ok(), "a wait that long ends by its caller");
}
