//! Any bytes from a QMP socket: an answer that can be true, or an error; what follows is the same in one piece or many.

use guestmeter::host::vmm::qmp::{LINE_BYTES_MAX, Qmp};
use guestmeter::host::vmm::{Failed, Limit, VmmCause, VmmCpus, VmmEvent, VmmMemory};
use guestmeter::units::Bytes;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The first byte is how many bytes come at once; the rest is what QEMU says, whatever it is asked.
pub fn check(input: &[u8]) {
    let Some((&piece, said)) = input.split_first() else { return };
    let whole = ask(said, usize::MAX);
    let pieces = ask(said, usize::from(piece).max(1));
    assert_eq!(format!("{whole:?}"), format!("{pieces:?}"));
}

/// What a client makes of it: both questions, then the events that are left.
type Heard = (Result<VmmMemory, Failed>, Result<VmmCpus, Failed>, Vec<VmmEvent>, String);

fn ask(said: &[u8], piece: usize) -> Option<Heard> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let limit = Limit::new(Duration::from_secs(60));
        let mut qmp = match Qmp::open(Said { left: said, piece }, limit).await {
            Ok(qmp) => qmp,
            Err(failed) => {
                expected(&failed.cause);
                return None;
            }
        };
        let memory = qmp.memory(limit).await;
        match &memory {
            Ok(memory) => believable(memory),
            Err(failed) => expected(&failed.cause),
        }
        let cpus = qmp.cpus(limit).await;
        match &cpus {
            Ok(cpus) => assert!(cpus.present > 0),
            Err(failed) => expected(&failed.cause),
        }
        let mut events = Vec::new();
        let end = loop {
            match qmp.event().await {
                Ok(event) => events.push(event),
                Err(cause) => break cause,
            }
        };
        expected(&end);
        Some((memory, cpus, events, format!("{end:?}")))
    })
}

fn believable(memory: &VmmMemory) {
    let most = memory.boot.checked_add(memory.maximum).expect("a sum that was looked at");
    assert!(most <= Bytes::PHYSICAL_MAX, "{memory:?}");
    assert!(memory.requested <= memory.maximum, "{memory:?}");
    assert!(memory.plugged.expect("QEMU tells") <= memory.maximum, "{memory:?}");
}

/// What bytes alone can cause; and it can be shown.
fn expected(cause: &VmmCause) {
    let text = cause.to_string();
    assert!(!text.contains(char::is_control), "{text:?}");
    assert!(text.chars().count() < 8000, "{} characters", text.chars().count());
    match cause {
        VmmCause::Closed
        | VmmCause::NotThisVmm { .. }
        | VmmCause::Refused { .. }
        | VmmCause::NotRunning(_)
        | VmmCause::Malformed(_) => {}
        VmmCause::TooLong(bytes) => assert_eq!(*bytes, LINE_BYTES_MAX),
        other => panic!("{other:?}"),
    }
}

/// A peer that takes what it is asked, and says what it says in pieces.
struct Said<'a> {
    left: &'a [u8],
    piece: usize,
}

impl AsyncRead for Said<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = self.left.len().min(self.piece).min(out.remaining());
        let (now, later) = self.left.split_at(count);
        out.put_slice(now);
        self.left = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Said<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
