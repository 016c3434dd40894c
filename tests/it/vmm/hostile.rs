//! Sockets behind which there is no VMM, or one that cannot be believed: each is named, in time, in bounded memory.

use super::{PATIENCE, SHORT, Server, said};
use guestmeter::host::Kind;
use guestmeter::host::vmm::{Vmm, VmmCause, VmmError, VmmKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

const HTTP: [VmmKind; 2] = [VmmKind::Firecracker, VmmKind::CloudHypervisor];

/// What a VMM of `kind` is said to be wrong with, where every connection is met with these bytes.
async fn complaint(kind: VmmKind, says: impl Into<Vec<u8>>) -> VmmError {
    complaint_within(PATIENCE, kind, says).await
}

/// Of one that falls silent behind these bytes.
async fn silent_complaint(kind: VmmKind, says: impl Into<Vec<u8>>) -> VmmError {
    complaint_within(SHORT, kind, says).await
}

async fn complaint_within(limit: Duration, kind: VmmKind, says: impl Into<Vec<u8>>) -> VmmError {
    let says: Arc<[u8]> = says.into().into();
    let server = Server::start(move |mut stream| {
        let says = Arc::clone(&says);
        async move {
            let _ = stream.write_all(&says).await;
            drain(&mut stream).await;
        }
    });
    asked(&server.vmm(kind, limit)).await
}

/// Memory and CPUs fail alike; the first is given back.
async fn asked(vmm: &Vmm) -> VmmError {
    let began = Instant::now();
    let error = vmm.memory().await.unwrap_err();
    let other = vmm.cpus().await.unwrap_err();
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    assert_eq!(
        std::mem::discriminant(&error.cause),
        std::mem::discriminant(&other.cause),
        "{error} / {other}"
    );
    error
}

async fn drain(stream: &mut UnixStream) {
    let mut rest = [0; 4096];
    while stream.read(&mut rest).await.is_ok_and(|count| count > 0) {}
}

fn response(head: &str, body: &str) -> String {
    format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn nobody_is_there() {
    let folder = tempfile::tempdir().unwrap();
    for kind in VmmKind::ALL {
        let mut address = Server::start(|_| async {}).address(kind);
        address.path = folder.path().join("none");
        let error = asked(&Vmm::new(address.clone(), PATIENCE)).await;
        assert!(said(&error).ends_with(": there is no socket at this path"), "{error}");
        assert_eq!(error.cause.kind(), Kind::TryAgain);
        assert!(error.cause.hint().is_some());

        address.path = folder.path().join(kind.scheme());
        drop(UnixListener::bind(&address.path).unwrap());
        let error = asked(&Vmm::new(address, PATIENCE)).await;
        assert!(said(&error).ends_with(": nobody listens at this socket"), "{error}");
    }
}

#[tokio::test]
async fn silence() {
    for kind in HTTP {
        let error = silent_complaint(kind, "").await;
        assert!(said(&error).ends_with(": no answer within 400ms"), "{error}");
    }
    let error = silent_complaint(VmmKind::Qmp, "").await;
    assert_eq!(
        said(&error),
        "greeting: no greeting within 400ms: a QMP socket serves one client at a time, and another one may be \
         connected"
    );
}

#[tokio::test]
async fn another_program() {
    for kind in HTTP {
        let error = complaint(kind, "SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n").await;
        assert!(
            said(&error).contains(&format!("this is not {}: its answer is no HTTP", kind.name())),
            "{error}"
        );
        assert_eq!(error.cause.kind(), Kind::Peer);
    }
    let error = complaint(VmmKind::Qmp, "SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n").await;
    let expected = "greeting: this is not QEMU: its first line is \"SSH-2.0-OpenSSH_9.2p1 Debian-2\"";
    assert_eq!(said(&error), expected);
}

#[tokio::test]
async fn qmp_where_http_is_expected() {
    let greeting = "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 2, \"minor\": 0, \"major\": 10}, \
                    \"package\": \"\"}, \"capabilities\": [\"oob\"]}}\r\n";
    for kind in HTTP {
        let error = complaint(kind, greeting).await;
        assert!(matches!(error.cause, VmmCause::NotThisVmm { .. }), "{error}");
    }
}

#[tokio::test]
async fn http_where_qmp_is_expected() {
    let error = complaint(VmmKind::Qmp, response("400 Bad Request", "{}")).await;
    assert!(said(&error).ends_with("its first line is \"HTTP/1.1 400 Bad Request\""), "{error}");
}

#[tokio::test]
async fn an_end_at_once_or_in_the_middle() {
    for kind in VmmKind::ALL {
        let server = Server::start(|stream| async move { drop(stream) });
        let error = asked(&server.vmm(kind, PATIENCE)).await;
        assert!(matches!(error.cause, VmmCause::Closed), "{error:?}");
        for half in
            ["HTTP/1.1 200 OK\r\nContent-Le", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"state\":"]
        {
            let server = Server::start(move |mut stream| async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(half.as_bytes()).await;
            });
            if kind != VmmKind::Qmp {
                let error = asked(&server.vmm(kind, PATIENCE)).await;
                assert!(matches!(error.cause, VmmCause::Closed), "{error:?}");
            }
        }
    }
    let server = Server::start(|mut stream| async move {
        let _ = stream.write_all(b"{\"QMP\": {\"version\":").await;
    });
    let error = asked(&server.vmm(VmmKind::Qmp, PATIENCE)).await;
    assert!(matches!(error.cause, VmmCause::Closed), "{error:?}");
}

#[tokio::test]
async fn half_an_answer_and_then_nothing() {
    for kind in HTTP {
        let error = silent_complaint(kind, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"state\":").await;
        assert!(matches!(error.cause, VmmCause::TimedOut(_)), "{error:?}");
    }
}

/// Bytes without an end, until the other side has had enough; how many it took.
async fn flood(kind: VmmKind, head: &'static str, more: &'static [u8]) -> (VmmError, u64) {
    let written = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&written);
    let server = Server::start(move |mut stream| {
        let counter = Arc::clone(&counter);
        async move {
            let chunk = more.repeat(4096 / more.len());
            let _ = stream.write_all(head.as_bytes()).await;
            while stream.write_all(&chunk).await.is_ok() {
                counter.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            }
        }
    });
    let error = server.vmm(kind, PATIENCE).memory().await.unwrap_err();
    (error, written.load(Ordering::Relaxed))
}

#[tokio::test]
async fn what_has_no_end_is_not_read_without_end() {
    const SOCKET_BUFFERS: u64 = 1 << 20;
    for kind in HTTP {
        let (error, read) =
            flood(kind, "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", b"[[").await;
        assert!(matches!(error.cause, VmmCause::TooLong(1_048_576)), "{error:?}");
        assert!(read < (1 << 20) + SOCKET_BUFFERS, "{read} bytes");
        let (error, _) = flood(kind, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b"x").await;
        assert!(matches!(error.cause, VmmCause::TooLong(_)), "{error:?}");
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (error, _) = flood(kind, chunked, b"4\r\naaaa\r\n").await;
        assert!(matches!(error.cause, VmmCause::TooLong(_)), "{error:?}");
        for (head, more) in [("HTTP/1.1 200 OK\r\n", &b"X-A: b\r\n"[..]), ("HTTP/1.1 200 OK\r\nX-A: ", b"b")]
        {
            let (error, read) = flood(kind, head, more).await;
            assert!(matches!(error.cause, VmmCause::NotThisVmm { .. }), "{error:?}");
            assert!(read < 300 << 10, "{read} bytes, of which a socket holds some 200 KiB");
        }
    }
    let (error, read) = flood(VmmKind::Qmp, "", b"x").await;
    assert!(matches!(error.cause, VmmCause::TooLong(1_048_576)), "{error:?}");
    assert!(read < (1 << 20) + SOCKET_BUFFERS, "{read} bytes");
}

#[tokio::test]
async fn endless_provisional_answers_and_endless_events_end_in_time() {
    let server = Server::start(|mut stream| async move {
        while stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
    let began = Instant::now();
    let error = server.vmm(VmmKind::Firecracker, SHORT).memory().await.unwrap_err();
    assert!(began.elapsed() < PATIENCE, "{error}");

    let server = Server::start(|mut stream| async move {
        let event = "{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \
                     \"event\": \"MEMORY_DEVICE_SIZE_CHANGE\", \"data\": {\"id\": \"vm0\", \"size\": 2097152}}\r\n";
        let _ = stream.write_all(b"{\"QMP\": {}}\r\n").await;
        while stream.write_all(event.as_bytes()).await.is_ok() {}
    });
    let began = Instant::now();
    let error = server.vmm(VmmKind::Qmp, SHORT).memory().await.unwrap_err();
    assert_eq!(said(&error), "qmp_capabilities: no answer within 400ms");
    assert!(began.elapsed() < PATIENCE, "{error}");
}

#[tokio::test]
async fn a_byte_now_and_then_does_not_lengthen_the_limit() {
    let began = Instant::now();
    let server = Server::start(|mut stream| async move {
        for byte in response("200 OK", "{\"state\":\"Running\"}").bytes() {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if stream.write_all(&[byte]).await.is_err() {
                return;
            }
        }
    });
    let error = server.vmm(VmmKind::Firecracker, SHORT).memory().await.unwrap_err();
    assert_eq!(said(&error), "GET /: no answer within 400ms");
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
}

#[tokio::test]
async fn one_that_reads_nothing() {
    for kind in VmmKind::ALL {
        let server = Server::start(|stream| async move {
            tokio::time::sleep(PATIENCE).await;
            drop(stream);
        });
        let error = asked(&server.vmm(kind, SHORT)).await;
        assert!(matches!(error.cause, VmmCause::TimedOut(_) | VmmCause::NoGreeting(_)), "{error:?}");
    }
}

/// Answers of a Firecracker whose device says `hotplug`; the cause of its refusal.
async fn hotplug(hotplug: &'static str) -> String {
    let server = Server::start(move |mut stream| async move {
        let mut request = [0; 4096];
        let count = stream.read(&mut request).await.unwrap();
        let request = String::from_utf8_lossy(&request[..count]).into_owned();
        let body = match request.split(' ').nth(1).unwrap() {
            "/" => "{\"state\":\"Running\"}",
            "/machine-config" => "{\"mem_size_mib\":512,\"vcpu_count\":2}",
            _ => hotplug,
        };
        let _ = stream.write_all(response("200 OK", body).as_bytes()).await;
    });
    match server.vmm(VmmKind::Firecracker, PATIENCE).memory().await {
        Ok(memory) => panic!("{memory:?} of {hotplug}"),
        Err(VmmError { cause: VmmCause::Malformed(what), request: "GET /hotplug/memory", .. }) => what,
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn numbers_that_cannot_be() {
    for (answer, what) in [
        ("", "EOF"),
        ("<html></html>", "expected value"),
        ("null", "invalid type: null"),
        ("{\"total_size_mib\":1024,\"plugged_size_mib\":0}", "missing field `requested_size_mib`"),
        ("{\"total_size_mib\":1024,\"plugged_size_mib\":-1,\"requested_size_mib\":0}", "expected u64"),
        ("{\"total_size_mib\":1024,\"plugged_size_mib\":1.5,\"requested_size_mib\":0}", "expected u64"),
        ("{\"total_size_mib\":1024,\"plugged_size_mib\":\"4\",\"requested_size_mib\":0}", "expected u64"),
        (
            "{\"total_size_mib\":1024,\"plugged_size_mib\":1e400,\"requested_size_mib\":0}",
            "number out of range",
        ),
        ("{\"total_size_mib\":18446744073709551616,\"plugged_size_mib\":0,\"requested_size_mib\":0}", "u64"),
        (
            "{\"total_size_mib\":18446744073709551615,\"plugged_size_mib\":0,\"requested_size_mib\":0}",
            "more than any machine's",
        ),
        ("{\"total_size_mib\":1024,\"plugged_size_mib\":1026,\"requested_size_mib\":0}", "plugged of"),
        ("{\"total_size_mib\":1024,\"plugged_size_mib\":0,\"requested_size_mib\":1026}", "requested of"),
        (
            "{\"total_size_mib\":9,\"plugged_size_mib\":1,\"plugged_memory_mib\":2,\"requested_size_mib\":1}",
            "duplicate field",
        ),
    ] {
        let said = hotplug(answer).await;
        assert!(said.contains(what), "{answer}: {said}");
    }
}

#[tokio::test]
async fn a_refusal_cannot_steer_the_terminal_or_fill_it() {
    for (body, ends) in [
        ("{\"fault_message\":\"\\u001b[2J\\u0007 all is well\"}".to_owned(), "\\u{1b}[2J\\u{7} all is well"),
        ("[\"a\",\"b\"]".to_owned(), "a: b"),
        ("x".repeat(100_000), "x…"),
    ] {
        for kind in HTTP {
            let error = complaint(kind, response("500 ", &body)).await;
            let text = said(&error);
            assert!(text.contains("refused (500): ") && text.ends_with(ends), "{text}");
            assert!(text.chars().count() < 400 && !text.contains(char::is_control), "{text:?}");
        }
    }
}

#[tokio::test]
async fn only_qemu_can_be_watched() {
    for kind in HTTP {
        let error = Server::start(|_| async {}).vmm(kind, SHORT).watch().await.unwrap_err();
        assert_eq!(
            said(&error),
            format!("watching: {} tells of no changes; it has to be asked", kind.name())
        );
    }
}
