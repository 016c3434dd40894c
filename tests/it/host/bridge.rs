//! The handshake of hybrid vsock, as Firecracker, Cloud Hypervisor and vhost-device-vsock speak it.

use super::{PATIENCE, Server, drain, run, stderr};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// What is said of a VMM that treats its connection so, however long that takes.
fn complaint_about(treat: impl FnOnce(UnixStream) + Send + 'static) -> String {
    complaint_within("60s", treat)
}

fn complaint_within(limit: &str, treat: impl FnOnce(UnixStream) + Send + 'static) -> String {
    let server = Server::start(treat);
    let target = server.hybrid(1020);
    let began = Instant::now();
    let output = run(&["read", &target, "--timeout", limit]);
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    server.finish();
    let said = stderr(&output);
    said.trim_end().strip_prefix(&format!("guestmeter: {target}: ")).unwrap().to_owned()
}

/// One read must bring the whole line: Firecracker drops one that comes in parts.
fn connect_line(stream: &mut UnixStream) -> String {
    let mut line = [0; 64];
    let count = stream.read(&mut line).unwrap();
    String::from_utf8(line[..count].to_vec()).unwrap()
}

#[test]
fn the_line_is_one_write_and_frames_wait_for_the_answer() {
    let said = complaint_about(|mut stream| {
        assert_eq!(connect_line(&mut stream), "CONNECT 1020\n");
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let early = stream.read(&mut [0; 16]).unwrap_err();
        assert_eq!(early.kind(), std::io::ErrorKind::WouldBlock, "frames before OK");
    });
    assert!(said.starts_with("nobody listens at port 1020 in the guest"), "{said}");
}

#[test]
fn the_end_at_once_is_a_guest_without_a_listener() {
    let said = complaint_about(|mut stream| {
        connect_line(&mut stream);
    });
    assert_eq!(
        said,
        "nobody listens at port 1020 in the guest \
         (is guestmeterd.socket enabled in the image, and has the guest booted?)"
    );
}

#[test]
fn an_answer_in_parts_is_an_answer() {
    let said = complaint_about(|mut stream| {
        connect_line(&mut stream);
        for part in ["O", "K 10", "73741", "\n"] {
            stream.write_all(part.as_bytes()).unwrap();
            std::thread::sleep(Duration::from_millis(30));
        }
        let mut frame = [0; 4];
        stream.read_exact(&mut frame).unwrap();
        assert_eq!(&frame, b"GMTR");
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        drain(&mut stream);
    });
    assert!(said.starts_with("the peer closed the connection while its Welcome was awaited"), "{said}");
}

#[test]
fn what_follows_the_answer_in_one_segment_belongs_to_the_agent() {
    // A frame may follow what it says: it has all its time.
    let said = complaint_within("5s", |mut stream| {
        connect_line(&mut stream);
        stream.write_all(b"OK 1020\nSSH-2.0-x").unwrap();
        drain(&mut stream);
    });
    assert!(said.contains("its first bytes are \"SSH-2.0-\""), "{said}");
}

#[test]
fn an_answer_cut_short() {
    let said = complaint_about(|mut stream| {
        connect_line(&mut stream);
        stream.write_all(b"OK 10").unwrap();
    });
    assert!(said.starts_with("the VMM's socket answered \"OK 10\" to CONNECT"), "{said}");
}

#[test]
fn a_line_that_never_ends() {
    let said = complaint_about(|mut stream| {
        connect_line(&mut stream);
        let mut written = 0;
        while stream.write_all(&[b'9'; 1024]).is_ok() {
            written += 1024;
            assert!(written < 16 << 20, "the reader goes on for ever");
        }
    });
    assert!(said.starts_with("the VMM's socket answered \"99999999999999999999999999999999\""), "{said}");
}

#[test]
fn an_api_socket_instead_of_the_vsock_one() {
    let said = complaint_about(|mut stream| {
        connect_line(&mut stream);
        stream.write_all(b"HTTP/1.1 400 \r\n\r\n").unwrap();
    });
    assert!(said.contains("is this the VMM's vsock socket, and not its API socket?"), "{said}");
}

#[test]
fn a_vmm_that_says_nothing() {
    let said = complaint_within("1s", |mut stream| drain(&mut stream));
    assert!(said.starts_with("no answer within 1s while the VMM's socket was asked for the port"), "{said}");
}

/// A VMM's bridge in small, between the command and a real agent.
#[cfg(feature = "agent")]
#[test]
fn a_report_comes_through_a_bridge() {
    let agent = crate::agent::Agent::start();
    let socket = agent.socket();
    let server = Server::start(move |mut stream| {
        assert_eq!(connect_line(&mut stream), "CONNECT 52\n");
        let mut guest = UnixStream::connect(socket).unwrap();
        stream.write_all(b"OK 1073741824\n").unwrap();
        let (mut up, mut down) = (stream.try_clone().unwrap(), guest.try_clone().unwrap());
        let upward = std::thread::spawn(move || {
            std::io::copy(&mut up, &mut guest).unwrap();
            // The command has left: so does its guest's side.
            guest.shutdown(std::net::Shutdown::Both).unwrap();
        });
        std::io::copy(&mut down, &mut stream).unwrap();
        upward.join().unwrap();
    });
    let target = server.hybrid(52);
    let output = run(&["read", "--json", &target]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["target"], target);
    assert!(report["memory"]["mem_total_bytes"].as_u64().unwrap() > 0);
    server.finish();
}
