//! Any bytes from an API socket: an answer that can be true, or an error that can be shown.

use guestmeter::host::vmm::http::{self, Answer, BODY_BYTES_MAX};
use guestmeter::host::vmm::{Failed, VmmCause, VmmCpus, VmmKind, VmmMemory, cloud_hypervisor, firecracker};
use guestmeter::units::Bytes;
use std::cell::Cell;
use std::future::Future;

/// The first byte says whose API it is. If its next bit is set the rest is the raw bytes of every answer in turn,
/// parted by lines of `--`; else the parts are bodies, each after the three digits of its status.
pub fn check(input: &[u8]) {
    let Some((&how, said)) = input.split_first() else { return };
    let kind = if how & 1 == 0 { VmmKind::Firecracker } else { VmmKind::CloudHypervisor };
    let parts: Vec<&[u8]> = parted(said);
    let raw = how & 2 != 0;
    let turn = Cell::new(0);
    let ask = |request: &'static str| {
        let part = parts.get(turn.replace(turn.get() + 1)).copied().unwrap_or_default();
        async move {
            let answer = if raw { exchanged(kind, request, part).await } else { Ok(bodied(part)) };
            answer.map_err(|cause| Failed { request, cause })
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(asked(kind, ask, || turn.set(0)));
}

fn parted(said: &[u8]) -> Vec<&[u8]> {
    let (mut parts, mut rest) = (Vec::new(), said);
    while let Some(end) = rest.windows(4).position(|window| window == b"\n--\n") {
        parts.push(&rest[..end]);
        rest = &rest[end + 4..];
    }
    parts.push(rest);
    parts
}

async fn exchanged(kind: VmmKind, request: &'static str, part: &[u8]) -> Result<Answer, VmmCause> {
    let (ours, mut theirs) = tokio::io::duplex(32 << 10);
    let says = async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut asked = [0; 1024];
        let count = theirs.read(&mut asked).await.unwrap_or_default();
        if count > 0 {
            let text = String::from_utf8_lossy(&asked[..count]);
            assert!(text.starts_with(request) && text.ends_with("\r\n\r\n"), "{text}");
            // A client that has seen enough is gone.
            let _ = theirs.write_all(part).await;
        }
        drop(theirs);
    };
    tokio::join!(http::get(ours, kind, request), says).0
}

fn bodied(part: &[u8]) -> Answer {
    let (status, body) = part.split_at(part.len().min(3));
    let status = std::str::from_utf8(status).ok().and_then(|digits| digits.parse().ok()).unwrap_or(200);
    Answer { status, server: None, body: body.to_vec() }
}

async fn asked<F>(kind: VmmKind, ask: impl Fn(&'static str) -> F, again: impl Fn())
where
    F: Future<Output = Result<Answer, Failed>>,
{
    let (memory, cpus) = match kind {
        VmmKind::CloudHypervisor => {
            let memory = cloud_hypervisor::memory(&ask).await;
            again();
            (memory, cloud_hypervisor::cpus(&ask).await)
        }
        _ => {
            let memory = firecracker::memory(&ask).await;
            again();
            (memory, firecracker::cpus(&ask).await)
        }
    };
    match memory {
        Ok(memory) => believable(&memory),
        Err(failed) => expected(&failed),
    }
    match cpus {
        Ok(VmmCpus { present, maximum }) => {
            assert!(present > 0 && maximum.is_none_or(|maximum| present <= maximum));
        }
        Err(failed) => expected(&failed),
    }
}

fn believable(memory: &VmmMemory) {
    let most = memory.boot.checked_add(memory.maximum).expect("a sum that was looked at");
    assert!(most <= Bytes::PHYSICAL_MAX, "{memory:?}");
    assert!(memory.requested <= memory.maximum, "{memory:?}");
    assert!(
        memory.plugged.is_err() || memory.plugged.is_ok_and(|plugged| plugged <= memory.maximum),
        "{memory:?}"
    );
}

/// What bytes alone can cause; and it can be shown.
fn expected(failed: &Failed) {
    let text = failed.cause.to_string();
    assert!(!text.contains(char::is_control), "{text:?}");
    assert!(text.chars().count() < 8000, "{} characters", text.chars().count());
    match &failed.cause {
        VmmCause::Closed
        | VmmCause::NotThisVmm { .. }
        | VmmCause::Refused { .. }
        | VmmCause::NotRunning(_)
        | VmmCause::Malformed(_) => {}
        VmmCause::TooLong(bytes) => assert_eq!(*bytes, BODY_BYTES_MAX),
        other => panic!("{}: {other:?}", failed.request),
    }
}
