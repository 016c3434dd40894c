//! The demo's agent: a child process of this executable, with a private directory, ended with the demo.

use crate::host::client::Client;
use crate::host::error::ClientError;
use crate::host::target::{Target, TargetError};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Shorter than an agent's default, so that there are some in the demo.
pub(super) const TICK: Duration = Duration::from_secs(2);
/// The longest until the agent answers.
const START_MAX: Duration = Duration::from_secs(10);
const START_POLL: Duration = Duration::from_millis(20);
/// The part of the agent's log that is shown when it fails.
const LOG_TAIL_BYTES: u64 = 2048;

/// Why there is no agent.
#[derive(Debug, thiserror::Error)]
pub(in crate::host::cli) enum AgentError {
    /// No private directory.
    #[error("demo: making a directory for the agent in {}: {error}", .path.display())]
    Directory {
        /// Where.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// This program cannot start itself.
    #[error("demo: starting {}: {error}", .path.display())]
    Start {
        /// The executable.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It cannot be ended.
    #[error("demo: killing the agent: {0}")]
    Kill(io::Error),
    /// It ended by itself.
    #[error("demo: the agent ended with {status}; it said:\n{log}")]
    Ended {
        /// How.
        status: ExitStatus,
        /// Its last words.
        log: String,
    },
    /// The directory's path makes no address.
    #[error("demo: {0}; set TMPDIR to a shorter path")]
    Address(#[from] TargetError),
    /// It runs, but does not answer.
    #[error("demo: {error}; the agent said:\n{log}")]
    Silent {
        /// The last attempt.
        error: ClientError,
        /// Its last words.
        log: String,
    },
}

/// A running agent; dropped, it is killed and its directory removed.
pub(super) struct AgentProcess {
    directory: TempDir,
    child: Child,
}

impl AgentProcess {
    pub(super) fn start() -> Result<Self, AgentError> {
        // Readable by this user alone.
        let directory = tempfile::Builder::new().prefix("guestmeter-").tempdir();
        let directory =
            directory.map_err(|error| AgentError::Directory { path: std::env::temp_dir(), error })?;
        let child = spawn(&directory)?;
        Ok(Self { directory, child })
    }

    pub(super) fn target(&self) -> Result<Target, AgentError> {
        Ok(address(&self.directory).parse()?)
    }

    /// Waits for the first answer; a process that has ended will give none.
    pub(super) async fn answers(&mut self, client: &Client) -> Result<(), AgentError> {
        let began = Instant::now();
        loop {
            let error = match client.read().await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(AgentError::Ended { status, log: self.log_tail() });
            }
            if began.elapsed() > START_MAX {
                return Err(AgentError::Silent { error, log: self.log_tail() });
            }
            tokio::time::sleep(START_POLL).await;
        }
    }

    /// SIGKILL: the agent has no say in it.
    pub(super) fn kill(&mut self) -> Result<(), AgentError> {
        self.child.kill().map_err(AgentError::Kill)?;
        self.child.wait().map(drop).map_err(AgentError::Kill)
    }

    /// Another agent on the state of the one that was killed.
    pub(super) fn restart(&mut self) -> Result<(), AgentError> {
        self.child = spawn(&self.directory)?;
        Ok(())
    }

    fn log_tail(&self) -> String {
        let read = || -> io::Result<String> {
            let mut log = File::open(self.directory.path().join("log"))?;
            let length = log.metadata()?.len();
            log.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
            let mut tail = Vec::new();
            log.take(LOG_TAIL_BYTES).read_to_end(&mut tail)?;
            Ok(String::from_utf8_lossy(&tail).into_owned())
        };
        read().unwrap_or_else(|error| format!("(its log cannot be read: {error})"))
    }
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        // It may have ended already, which is what is wanted.
        let _ = self.kill();
    }
}

fn address(directory: &TempDir) -> String {
    format!("unix://{}", directory.path().join("agent.sock").display())
}

fn spawn(directory: &TempDir) -> Result<Child, AgentError> {
    let path = std::env::current_exe()
        .map_err(|error| AgentError::Start { path: PathBuf::from("/proc/self/exe"), error })?;
    let failed = |error| AgentError::Start { path: path.clone(), error };
    let log = File::options().create(true).append(true).open(directory.path().join("log")).map_err(failed)?;
    let mut command = Command::new(&path);
    let tick = format!("{}s", TICK.as_secs());
    command.args([
        super::super::AGENT,
        "--listen",
        &address(directory),
        "--notify",
        "none",
        "--tick",
        &tick,
        "--state",
    ]);
    command.arg(directory.path().join("state"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().map_err(failed)
}
