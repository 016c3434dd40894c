//! A part of the demo: a child process of this executable with a log of its own, ended with the demo.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The longest until a part answers, or ends.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
/// The part of a log that is shown when its writer fails.
const LOG_TAIL_BYTES: u64 = 2048;

/// Why a part of the demo does not run.
#[derive(Debug, thiserror::Error)]
pub(in crate::host::cli) enum ProcessError {
    /// This program cannot start itself.
    #[error("demo: starting {} as the {name}: {error}", .path.display())]
    Start {
        /// Which part.
        name: &'static str,
        /// The executable.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// No signal reaches it.
    #[error("demo: a signal to the {name}: {error}")]
    Signal {
        /// Which part.
        name: &'static str,
        /// What the system says.
        error: io::Error,
    },
    /// It ended by itself.
    #[error("demo: the {name} ended with {status}; it said:\n{log}")]
    Ended {
        /// Which part.
        name: &'static str,
        /// How.
        status: ExitStatus,
        /// Its last words.
        log: String,
    },
    /// It runs, but does not answer, or does not end.
    #[error("demo: the {name}: {error}; it said:\n{log}")]
    Silent {
        /// Which part.
        name: &'static str,
        /// The last attempt.
        error: String,
        /// Its last words.
        log: String,
    },
}

/// A running part; dropped, it is killed.
pub(super) struct Process {
    name: &'static str,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts this executable with `arguments`, the last of its words going to `log`.
    pub(super) fn start(
        name: &'static str,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        log: PathBuf,
    ) -> Result<Self, ProcessError> {
        let path = this_program(name)?;
        let failed = |error| ProcessError::Start { name, path: path.clone(), error };
        let output = File::options().create(true).append(true).open(&log).map_err(failed)?;
        let mut command = Command::new(&path);
        command.args(arguments).env_remove("NOTIFY_SOCKET");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
        let child = command.spawn().map_err(failed)?;
        Ok(Self { name, log, child })
    }

    /// Waits for the first answer to `ask`; a process that has ended will give none.
    pub(super) async fn answers<T, E: ToString>(
        &mut self,
        ask: impl AsyncFn() -> Result<T, E>,
    ) -> Result<T, ProcessError> {
        let began = Instant::now();
        loop {
            let error = match ask().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error.to_string(),
            };
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(ProcessError::Ended { name: self.name, status, log: self.log_tail() });
            }
            if began.elapsed() > PATIENCE {
                return Err(ProcessError::Silent { name: self.name, error, log: self.log_tail() });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// SIGKILL: it has no say in it.
    pub(super) fn kill(&mut self) -> Result<(), ProcessError> {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed.map(drop).map_err(|error| ProcessError::Signal { name: self.name, error })
    }

    /// It stands still, as a guest whose VM is paused.
    pub(super) fn stop(&self) -> Result<(), ProcessError> {
        self.signal(rustix::process::Signal::STOP)
    }

    pub(super) fn go_on(&self) -> Result<(), ProcessError> {
        self.signal(rustix::process::Signal::CONT)
    }

    /// SIGTERM, and waits until it has ended; how it did.
    pub(super) async fn end(&mut self) -> Result<ExitStatus, ProcessError> {
        self.signal(rustix::process::Signal::TERM)?;
        let began = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) if began.elapsed() <= PATIENCE => tokio::time::sleep(POLL).await,
                Ok(None) => {
                    let error = format!("it has not ended within {PATIENCE:?}");
                    return Err(ProcessError::Silent { name: self.name, error, log: self.log_tail() });
                }
                Err(error) => return Err(ProcessError::Signal { name: self.name, error }),
            }
        }
    }

    fn signal(&self, signal: rustix::process::Signal) -> Result<(), ProcessError> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal)
            .map_err(|error| ProcessError::Signal { name: self.name, error: error.into() })
    }

    pub(super) fn log_tail(&self) -> String {
        let read = || -> io::Result<String> {
            let mut log = File::open(&self.log)?;
            let length = log.metadata()?.len();
            log.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
            let mut tail = Vec::new();
            log.take(LOG_TAIL_BYTES).read_to_end(&mut tail)?;
            Ok(String::from_utf8_lossy(&tail).into_owned())
        };
        read().unwrap_or_else(|error| format!("(its log cannot be read: {error})"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already, which is what is wanted.
        let _ = self.kill();
    }
}

/// Where this executable is; `name` is what it is wanted for.
pub(super) fn this_program(name: &'static str) -> Result<PathBuf, ProcessError> {
    let unknown = |error| ProcessError::Start { name, path: PathBuf::from("/proc/self/exe"), error };
    std::env::current_exe().map_err(unknown)
}
