//! The real `guestmeter`, against real agents and against peers that are none.

mod bridge;
mod command_line;
#[cfg(feature = "agent")]
mod cycle;
#[cfg(feature = "agent")]
mod demo;
#[cfg(feature = "agent")]
mod floods;
#[cfg(feature = "agent")]
mod hooks;
mod json;
mod lifecycle;
mod listening;
mod manual;
mod peers;
#[cfg(feature = "agent")]
mod reading;
mod reading_vmm;
mod script;
mod state_file;
mod trace;
#[cfg(feature = "agent")]
mod watching;

use std::io::Read;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;
use tempfile::TempDir;

/// Who waits longer waits for what hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// `guestmeter`, as in a script: no terminal, no colours, no input.
fn guestmeter(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_guestmeter"));
    command.args(arguments).env_remove("COLUMNS").env_remove("NO_COLOR").stdin(Stdio::null());
    command
}

/// Runs it to its end.
fn run(arguments: &[&str]) -> Output {
    guestmeter(arguments).output().unwrap()
}

/// What JSON has as a decimal string.
#[cfg(feature = "agent")]
fn ns(value: &serde_json::Value) -> u64 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no decimal string: {value}"))
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Something that listens at a Unix socket and treats one connection in its own way.
struct Server {
    folder: TempDir,
    thread: JoinHandle<()>,
}

impl Server {
    fn start(treat: impl FnOnce(UnixStream) + Send + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        let thread = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            treat(stream);
        });
        Self { folder, thread }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    fn unix(&self) -> String {
        format!("unix://{}", self.path().display())
    }

    fn hybrid(&self, port: u32) -> String {
        format!("hvsock://{}:{port}", self.path().display())
    }

    /// What the peer asserted must have held.
    fn finish(self) {
        self.thread.join().unwrap();
    }
}

/// Reads until the peer closes; what is never closed fails by its time limit.
fn drain(stream: &mut UnixStream) {
    let mut rest = Vec::new();
    // A reset is an end too.
    let _ = stream.read_to_end(&mut rest);
}
