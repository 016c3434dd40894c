//! The VMM's own word: answers of each VMM as a real server says them, and peers that say anything else.

pub(crate) mod answers;
mod both_sides;
mod hostile;
mod numbers;
mod qmp;

use guestmeter::host::vmm::{Vmm, VmmAddress, VmmError, VmmKind};
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// Longer than any answer here takes: hundreds of thousands of lines, in a debug build, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a test waits for that is about waiting.
const SHORT: Duration = Duration::from_millis(400);

/// Something that listens at a Unix socket and treats each connection in its own way.
pub(crate) struct Server {
    folder: TempDir,
    accepting: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Server {
    fn start<F>(treat: impl Fn(UnixStream) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(treat(stream));
            }
        });
        Self { folder, accepting }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    fn address(&self, kind: VmmKind) -> VmmAddress {
        VmmAddress { kind, path: self.path() }
    }

    fn vmm(&self, kind: VmmKind, limit: Duration) -> Vmm {
        Vmm::new(self.address(kind), limit)
    }
}

/// An error without its address, which has to stand first.
fn said(error: &VmmError) -> String {
    let text = error.to_string();
    text.strip_prefix(&format!("{}: ", error.address)).expect(&text).to_owned()
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/vmm").join(name)
}
