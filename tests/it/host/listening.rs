//! `listen`: what a guest says unasked is a hint, whoever says it, however badly.

use super::script::{BOOT, Peer, Script, named, report};
use super::{PATIENCE, drain, guestmeter, run, stderr};
use guestmeter::wire::message::{Ack, Epoch, Id, Message, Notify, Reply, Report, Request};
use guestmeter::wire::{self};
use rustix::net::RecvFlags;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// `guestmeter listen`, killed with its test.
struct Listen {
    child: Child,
    folder: TempDir,
    shown: Receiver<String>,
    said: Receiver<String>,
}

impl Listen {
    /// Dials `agent` back.
    fn start(agent: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), &["--dial", agent])
    }

    fn start_in(folder: TempDir, arguments: &[&str]) -> Self {
        let path = folder.path().join("v.sock_1020");
        let mut child = guestmeter(&["listen", path.to_str().unwrap(), "--json", "--timeout", "60s"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let shown = lines(child.stdout.take().unwrap());
        let said = lines(child.stderr.take().unwrap());
        let listen = Self { child, folder, shown, said };
        let began = Instant::now();
        while !listen.path().exists() {
            assert!(began.elapsed() < PATIENCE, "no socket");
            std::thread::sleep(Duration::from_millis(5));
        }
        listen
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("v.sock_1020")
    }

    /// As a process of the guest, any one.
    fn dial(&self) -> Peer {
        let began = Instant::now();
        loop {
            match UnixStream::connect(self.path()) {
                Ok(stream) => return Peer::new(stream),
                // Between bind and listen.
                Err(error) if began.elapsed() > PATIENCE => panic!("{error}"),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Dials and notifies.
    fn notify(&self, report: &Report) -> Peer {
        let mut peer = self.dial();
        notify(&mut peer, report);
        peer
    }

    /// Dials and notifies, again and again until a place is free and there is an answer.
    fn answered(&self, report: &Report) -> Peer {
        let began = Instant::now();
        loop {
            let peer = self.dial();
            // Who is turned away is hung up on at once.
            let said = (&peer.stream).write_all(&frame(report));
            let answer = rustix::net::recv(&peer.stream, &mut [0; 1], RecvFlags::PEEK);
            if said.is_ok() && matches!(answer, Ok((_, 1))) {
                return peer;
            }
            assert!(began.elapsed() < PATIENCE, "no place is free");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn next(&self) -> Value {
        serde_json::from_str(&self.shown.recv_timeout(PATIENCE).unwrap()).unwrap()
    }

    fn complaint(&self) -> String {
        self.said.recv_timeout(PATIENCE).unwrap()
    }

    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }
}

impl Drop for Listen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(source: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(source).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

fn frame(report: &Report) -> Vec<u8> {
    let agent = super::script::welcome(0, 1).agent;
    let mut bytes = Vec::new();
    let notify = Notify { agent, report: report.clone() };
    wire::encode(&Message::Reply(Reply::Notify(Box::new(notify))), &mut bytes).unwrap();
    bytes
}

fn notify(peer: &mut Peer, report: &Report) {
    peer.stream.write_all(&frame(report)).unwrap();
}

/// An agent that answers one `Read` with this.
fn agent_says(report: Report) -> Script {
    Script::one(move |peer| {
        peer.greet(Some("a"), report.identity.epoch);
        assert_eq!(peer.request(), Request::Read);
        peer.report(report);
    })
}

/// Report `seq` of epoch 3.
fn of_epoch_3(seq: u64) -> Report {
    let mut report = report("a", named(3, 9));
    report.identity.seq = seq;
    report
}

#[test]
fn a_hint_that_the_agent_confirms_is_shown_beside_it_and_acknowledged() {
    let agent = agent_says(of_epoch_3(7));
    let listen = Listen::start(&agent.target());
    let mode = std::fs::metadata(listen.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut peer = listen.notify(&of_epoch_3(5));
    assert_eq!(peer.acked(), Ack { epoch: named(3, 9).id, seq: 5 });
    let shown = listen.next();
    assert_eq!(shown["schema"], "guestmeter.notification/1");
    assert_eq!(shown["hint"]["identity"]["seq"], 5);
    assert_eq!(shown["evidence"]["identity"]["seq"], 7);
    assert_eq!(shown["evidence"]["target"], agent.target());
    assert_eq!(
        (&shown["acked"], &shown["doubt"], &shown["error"]),
        (&true.into(), &Value::Null, &Value::Null)
    );
    peer.closed();
    agent.finish();
}

#[test]
fn the_vms_path_says_whom_to_dial() {
    let folder = tempfile::tempdir().unwrap();
    let vmm = UnixListener::bind(folder.path().join("v.sock")).unwrap();
    let bridge = std::thread::spawn(move || {
        let (mut stream, _) = vmm.accept().unwrap();
        let mut line = [0; 13];
        stream.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"CONNECT 1020\n");
        stream.write_all(b"OK 1\n").unwrap();
        let mut peer = Peer::new(stream);
        peer.greet(Some("a"), named(3, 9));
        assert_eq!(peer.request(), Request::Read);
        peer.report(of_epoch_3(5));
    });
    let listen = Listen::start_in(folder, &["--no-ack"]);
    let mut peer = listen.notify(&of_epoch_3(5));
    peer.closed();
    let shown = listen.next();
    let target = format!("hvsock://{}:1020", listen.folder.path().join("v.sock").display());
    assert_eq!(shown["evidence"]["target"], target);
    assert_eq!((&shown["acked"], &shown["doubt"]), (&false.into(), &"not asked for".into()));
    bridge.join().unwrap();
}

#[test]
fn what_is_forged_or_provisional_is_shown_and_not_acknowledged() {
    let forged = |forge: fn(&mut Report)| {
        let mut hint = of_epoch_3(5);
        forge(&mut hint);
        hint
    };
    for (hint, doubt) in [
        (forged(|hint| hint.identity.boot_id = Id([9; 16])), "another boot"),
        (forged(|hint| hint.identity.epoch = named(4, 10)), "another epoch"),
        (forged(|hint| hint.identity.seq = 1 << 40), "has not made"),
        (forged(|hint| hint.identity.epoch = Epoch::default()), "its epoch is provisional"),
        (forged(|hint| hint.usage.active.whole += 1_000_000), ""),
    ] {
        let agent = agent_says(of_epoch_3(7));
        let listen = Listen::start(&agent.target());
        let mut peer = listen.notify(&hint);
        if doubt.is_empty() {
            // Its numbers do not matter: they are not taken over, and the ack names what the agent has said itself.
            peer.acked();
        }
        peer.closed();
        let shown = listen.next();
        assert_eq!(shown["evidence"]["identity"]["boot_id"], BOOT.to_string());
        assert_eq!(shown["acked"], doubt.is_empty());
        assert!(shown["doubt"].as_str().unwrap_or_default().contains(doubt), "{shown}");
        agent.finish();
    }
}

#[test]
fn an_agent_that_cannot_be_asked_leaves_a_hint_alone() {
    let listen = Listen::start("unix:///nowhere/at/all");
    let mut peer = listen.notify(&of_epoch_3(5));
    peer.closed();
    let shown = listen.next();
    assert_eq!((&shown["acked"], &shown["evidence"]), (&false.into(), &Value::Null));
    assert!(shown["error"].as_str().unwrap().contains("there is no socket at this path"), "{shown}");
}

#[test]
fn what_is_no_notification_is_named_and_hinders_nobody() {
    let agent = agent_says(of_epoch_3(7));
    let listen = Listen::start(&agent.target());
    let mut hello = Vec::new();
    wire::encode(&Message::Request(Request::Read), &mut hello).unwrap();
    let mut welcome = Vec::new();
    let reply = Reply::Welcome(super::script::welcome(1, 1));
    wire::encode(&Message::Reply(reply), &mut welcome).unwrap();
    let whole = frame(&of_epoch_3(5));
    let cases: [(&[u8], &str); 5] = [
        (b"GET / HTTP/1.1\r\n\r\n", "it speaks another protocol: its first bytes are \"GET / HT\""),
        (&[b'x'; 80_000], "it speaks another protocol: its first bytes are \"xxxxxxxx\""),
        (&hello, "it sent a host's request while its notification was awaited"),
        (&welcome, "it sent Welcome while its notification was awaited"),
        (&whole[..whole.len() / 2], "the peer closed the connection while its notification was awaited"),
    ];
    for (bytes, said) in cases {
        let mut peer = listen.dial();
        // It may be cut off before it has said all of it.
        let _ = peer.stream.write_all(bytes);
        let _ = peer.stream.shutdown(std::net::Shutdown::Write);
        let complaint = listen.complaint();
        assert!(complaint.contains(said), "{complaint}");
        // Its place stays taken for a quarter of that, and there is a second one.
        std::thread::sleep(Duration::from_secs(1));
    }
    listen.answered(&of_epoch_3(5)).acked();
    assert_eq!(listen.next()["acked"], true);
    agent.finish();
}

/// One that never finishes, one that sends a byte now and then, one that never stops: each has its time, and no more.
#[test]
fn the_slow_and_the_endless_are_given_up_in_time() {
    let endless = agent_says(of_epoch_3(7));
    let listen = Listen::start(&endless.target());
    let whole = frame(&of_epoch_3(5));
    let began = Instant::now();
    let (mut half, mut dripping) = (listen.dial(), listen.dial());
    half.stream.write_all(&whole[..whole.len() - 1]).unwrap();
    let drip = whole.clone();
    let dripper = std::thread::spawn(move || {
        for byte in drip {
            if dripping.stream.write_all(&[byte]).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    for _ in 0..2 {
        let complaint = listen.complaint();
        assert!(complaint.contains("no answer within 5s while its notification was awaited"), "{complaint}");
    }
    assert!((4..PATIENCE.as_secs()).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    drop(half);
    dripper.join().unwrap();

    let began = Instant::now();
    let mut peer = listen.answered(&of_epoch_3(5));
    peer.stream.set_write_timeout(Some(PATIENCE)).unwrap();
    // Notifications instead of the answer to the ack.
    while peer.stream.write_all(&whole).is_ok() {
        assert!(began.elapsed() < PATIENCE, "it is listened to for ever");
    }
    let shown = listen.next();
    assert_eq!(shown["acked"], false);
    assert!(shown["doubt"].as_str().unwrap().contains("no answer within 5s"), "{shown}");
    endless.finish();
}

#[test]
fn a_flood_is_turned_away_and_a_guest_is_heard_after_it() {
    let agent = agent_says(of_epoch_3(7));
    let listen = Listen::start(&agent.target());
    // One that was served and hung up on: all that it opens for long is open.
    let mut first = listen.dial();
    first.stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    listen.complaint();
    drain(&mut first.stream);
    let quiet = listen.descriptors();
    let flood: Vec<UnixStream> = (0..300).map(|_| listen.dial().stream).collect();
    let is_closed = |stream: &&UnixStream| {
        stream.set_nonblocking(true).unwrap();
        matches!((&mut &**stream).read(&mut [0; 1]), Ok(0))
    };
    let (began, mut closed) = (Instant::now(), 0);
    while closed < 298 {
        assert!(began.elapsed() < PATIENCE, "{closed}");
        let most = listen.descriptors();
        assert!(most <= quiet + 4, "{quiet} descriptors, then {most}");
        std::thread::sleep(Duration::from_millis(50));
        closed = flood.iter().filter(is_closed).count();
    }
    drop(flood);
    listen.answered(&of_epoch_3(5)).acked();
    assert_eq!(listen.next()["acked"], true);
    agent.finish();
}

#[test]
fn a_place_that_cannot_be_used_is_told_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("v.sock_1020");
    let text = path.to_str().unwrap();
    let refused = |arguments: &[&str], code: i32| {
        let output = run(&[&["listen"], arguments].concat());
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        stderr(&output)
    };
    std::fs::write(&path, "data").unwrap();
    assert!(refused(&[text], 69).ends_with("exists and is not a socket\n"));
    std::fs::remove_file(&path).unwrap();
    let listener = UnixListener::bind(&path).unwrap();
    assert!(refused(&[text], 69).ends_with("somebody listens there already\n"));
    drop(listener);
    let nameless = folder.path().join("v.sock");
    assert!(refused(&[nameless.to_str().unwrap()], 2).contains("say whom to dial back with --dial"));
    let both = refused(&["vsock", "--dial", "vsock://3"], 2);
    assert!(both.ends_with("--dial names one guest, but at vsock all are heard\n"), "{both}");
}

#[test]
fn ended_by_a_signal_it_removes_its_socket_and_the_next_one_replaces_what_a_kill_leaves() {
    let mut listen = Listen::start("unix:///nowhere/at/all");
    listen.child.kill().unwrap();
    listen.child.wait().unwrap();
    assert!(listen.path().exists(), "nobody has cleaned up");
    let folder = std::mem::replace(&mut listen.folder, tempfile::tempdir().unwrap());
    let mut listen = Listen::start_in(folder, &["--dial", "unix:///nowhere/at/all"]);
    listen.notify(&of_epoch_3(5)).closed();
    listen.next();
    let pid = rustix::process::Pid::from_child(&listen.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let status = listen.child.wait().unwrap();
    assert_eq!(status.code(), Some(0), "{status:?}");
    assert!(!listen.path().exists());
}

/// The whole loop: an agent says that it has started, is named, dies, says that it is back, and is acknowledged.
#[cfg(feature = "agent")]
#[test]
fn a_real_agent_is_heard_named_and_acknowledged() {
    use crate::agent::Agent;
    let home = tempfile::tempdir().unwrap();
    let agent = format!("unix://{}", home.path().join("agent.sock").display());
    let listen = Listen::start(&agent);
    let notify = ["--notify", &format!("unix://{}", listen.path().display())];
    let running = Agent::start_in(home, &notify);
    let shown = listen.next();
    assert_eq!((&shown["hint"]["reason"], &shown["acked"]), (&"boot".into(), &false.into()));
    assert!(shown["doubt"].as_str().unwrap().contains("its epoch is provisional"), "{shown}");
    assert_eq!(shown["evidence"]["identity"]["boot_id"], shown["hint"]["identity"]["boot_id"]);

    let named =
        run(&["resume", &agent, "--sandbox", "a", "--epoch", &super::lifecycle::epoch(7, 7), "--json"]);
    assert_eq!(named.status.code(), Some(0), "{named:?}");
    let named: Value = serde_json::from_slice(&named.stdout).unwrap();
    let (_, home) = running.signal("-KILL");
    let _running = Agent::start_in(home, &notify);
    let heard = std::iter::repeat_with(|| listen.next()).find(|shown| shown["acked"] == true).unwrap();
    assert_eq!(heard["hint"]["reason"], "boot");
    assert_eq!(heard["hint"]["identity"]["instance"], 2);
    assert_eq!(heard["hint"]["identity"]["epoch"], named["identity"]["epoch"]);
    assert_eq!(heard["evidence"]["identity"]["sandbox"], "a");
    std::thread::sleep(Duration::from_millis(2500));
    assert!(listen.shown.try_recv().is_err(), "what was acknowledged is not said again");
}
