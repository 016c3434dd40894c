//! Peers that are no agent, or not one this host can talk to: each is named, in time, with exit code 69.

use super::script::{self, Peer, bytes};
use super::{PATIENCE, Server, drain, guestmeter, run, stderr, stdout};
use guestmeter::wire::message::{Hello, RefusalCode, Reply};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::channel;
use std::time::Instant;

/// Reads one target; the one line it says, without the target.
fn complaint(target: &str, limit: &str) -> String {
    let began = Instant::now();
    let output = run(&["read", target, "--timeout", limit]);
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    assert_eq!(stdout(&output), "");
    let said = stderr(&output);
    assert_eq!(said.lines().count(), 1, "{said}");
    let line = said.trim_end().strip_prefix("guestmeter: ").unwrap();
    line.strip_prefix(target).unwrap().strip_prefix(": ").unwrap().to_owned()
}

/// What a peer says to one reader that asks it, however long that takes.
fn complaint_about(treat: impl FnOnce(UnixStream) + Send + 'static) -> String {
    complaint_within("60s", treat)
}

fn complaint_within(limit: &str, treat: impl FnOnce(UnixStream) + Send + 'static) -> String {
    let server = Server::start(treat);
    let said = complaint(&server.unix(), limit);
    server.finish();
    said
}

fn hello(stream: &mut UnixStream) -> Hello {
    Peer::new(stream.try_clone().unwrap()).hello()
}

fn welcome(nonce: u64, protocol: u16) -> Reply {
    Reply::Welcome(script::welcome(nonce, protocol))
}

#[test]
fn a_path_without_a_socket() {
    let folder = tempfile::tempdir().unwrap();
    let said = complaint(&format!("unix://{}/none", folder.path().display()), "60s");
    assert_eq!(said, "there is no socket at this path (is the VM running, and is this its VMM's socket?)");
}

#[test]
fn a_socket_that_nobody_listens_at() {
    let folder = tempfile::tempdir().unwrap();
    drop(UnixListener::bind(folder.path().join("s")).unwrap());
    let said = complaint(&format!("unix://{}/s", folder.path().display()), "60s");
    assert_eq!(said, "nobody listens at this socket");
}

#[test]
fn an_ssh_server() {
    // A frame may follow what it says: it has all its time.
    let said = complaint_within("5s", |mut stream| {
        stream.write_all(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n").unwrap();
        drain(&mut stream);
    });
    assert_eq!(
        said,
        "it speaks another protocol: its first bytes are \"SSH-2.0-\" \
         (is this guestmeterd's port? Its default is 1020)"
    );
}

#[test]
fn a_web_server() {
    let said = complaint_about(|mut stream| {
        let mut request = [0; 64];
        assert!(stream.read(&mut request).unwrap() > 0);
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").unwrap();
    });
    assert!(said.contains("its first bytes are \"HTTP/1.1\""), "{said}");
}

#[test]
fn noise_without_end_is_not_read_without_end() {
    let said = complaint_about(|mut stream| {
        let noise = [b'x'; 8192];
        let mut written = 0_u64;
        while stream.write_all(&noise).is_ok() {
            written += 8192;
            assert!(written < 64 << 20, "the reader goes on for ever");
        }
    });
    assert!(said.contains("its first bytes are \"xxxxxxxx\""), "{said}");
}

#[test]
fn one_that_accepts_and_says_nothing() {
    let began = Instant::now();
    let said = complaint_within("1s", |mut stream| drain(&mut stream));
    assert_eq!(
        said,
        "no answer within 1s while its Welcome was awaited (is the VM paused, or the port another program's?)"
    );
    assert!(began.elapsed().as_millis() >= 1000);
}

#[test]
fn one_that_closes_at_once() {
    let said = complaint_about(drop);
    assert!(said.starts_with("the peer closed the connection") || said.starts_with("the connection broke"));
}

#[test]
fn one_that_says_half_a_welcome() {
    let said = complaint_within("1s", |mut stream| {
        let nonce = hello(&mut stream).nonce;
        let whole = bytes(welcome(nonce, 1));
        stream.write_all(&whole[..whole.len() / 2]).unwrap();
        drain(&mut stream);
    });
    assert!(said.starts_with("no answer within 1s while its Welcome was awaited"), "{said}");
}

#[test]
fn an_answer_to_somebody_elses_hello() {
    let said = complaint_about(|mut stream| {
        let nonce = hello(&mut stream).nonce;
        stream.write_all(&bytes(welcome(nonce ^ 1, 1))).unwrap();
        drain(&mut stream);
    });
    assert!(said.starts_with("its Welcome has nonce 0x"), "{said}");
    assert!(said.ends_with("stale bytes of another connection"), "{said}");
}

#[test]
fn an_agent_of_a_newer_protocol_names_both_ranges() {
    let said = complaint_about(|mut stream| {
        let hello = hello(&mut stream);
        let text = format!(
            "this agent speaks protocol versions 2 to 3, the host {} to {}",
            hello.version_min, hello.version_max
        );
        stream.write_all(&bytes(Reply::Error(RefusalCode::Version.because(text)))).unwrap();
    });
    assert_eq!(
        said,
        "no common protocol version: this guestmeter speaks 1 to 1; the agent says: this agent speaks protocol \
         versions 2 to 3, the host 1 to 1 (install a guestmeter on the host that is as new as the guest's agent)"
    );
}

#[test]
fn an_agent_that_chooses_a_version_nobody_offered() {
    let said = complaint_about(|mut stream| {
        let nonce = hello(&mut stream).nonce;
        stream.write_all(&bytes(welcome(nonce, 2))).unwrap();
        drain(&mut stream);
    });
    assert!(said.starts_with("it chose protocol version 2; this guestmeter speaks 1 to 1"), "{said}");
}

#[test]
fn one_that_welcomes_twice() {
    let said = complaint_about(|mut stream| {
        let nonce = hello(&mut stream).nonce;
        stream.write_all(&bytes(welcome(nonce, 1))).unwrap();
        stream.write_all(&bytes(welcome(nonce, 1))).unwrap();
        drain(&mut stream);
    });
    assert_eq!(said, "it sent Welcome while its report was awaited");
}

#[test]
fn a_refusal_cannot_steer_the_terminal() {
    let said = complaint_about(|mut stream| {
        let _ = hello(&mut stream);
        let text = "\u{1b}[2J\u{1b}]0;pwned\u{7}\nguestmeter: all is well".to_owned();
        stream.write_all(&bytes(Reply::Error(RefusalCode::Busy.because(text)))).unwrap();
    });
    assert!(!said.contains('\u{1b}') && !said.contains('\u{7}'), "{said:?}");
    assert!(said.contains("\\u{1b}[2J"), "{said}");
}

#[test]
fn garbage_before_an_answer_is_skipped() {
    let said = complaint_about(|mut stream| {
        let nonce = hello(&mut stream).nonce;
        stream.write_all(b"stale bytes of the life before GMTR\x01\x82").unwrap();
        stream.write_all(&bytes(welcome(nonce, 1))).unwrap();
        let text = "four connections are open already".to_owned();
        stream.write_all(&bytes(Reply::Error(RefusalCode::Busy.because(text)))).unwrap();
    });
    assert!(said.starts_with("the agent refused (Busy): four connections are open already"), "{said}");
}

#[test]
fn a_dead_target_does_not_delay_the_others() {
    let (told, hang_up) = channel::<()>();
    let silent = Server::start(move |stream| {
        let _ = hang_up.recv_timeout(PATIENCE);
        drop(stream);
    });
    let gone = "unix:///nowhere/at/all";
    let mut child = guestmeter(&["read", &silent.unix(), gone, "--timeout", "60s"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = vec![0; 256];
    let count = child.stderr.as_mut().unwrap().read(&mut first).unwrap();
    // The other one says nothing until this was told.
    let first = String::from_utf8_lossy(&first[..count]).into_owned();
    assert!(first.contains(gone) && !first.contains(&silent.unix()), "{first}");
    told.send(()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(69));
    silent.finish();
}
