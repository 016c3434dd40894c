//! The demo's guest: an agent on a Unix socket, which this machine's kernel stands in as a VM for.

use super::DemoError;
use super::process::Process;
use crate::host::cli::AGENT;
use crate::host::client::Client;
use crate::host::target::{Target, TargetError};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Shorter than an agent's default, so that there are some in the demo.
pub(super) const TICK: Duration = Duration::from_secs(2);

/// A running agent with its state; dropped, it is killed.
pub(super) struct Guest {
    folder: PathBuf,
    process: Process,
}

impl Guest {
    pub(super) fn start(folder: &Path) -> Result<Self, DemoError> {
        Ok(Self { folder: folder.to_owned(), process: spawn(folder)? })
    }

    pub(super) fn target(&self) -> Result<Target, TargetError> {
        address(&self.folder).parse()
    }

    /// Waits for its first answer.
    pub(super) async fn answers(&mut self, client: &Client) -> Result<(), DemoError> {
        Ok(self.process.answers(async || client.read().await.map(drop)).await?)
    }

    /// SIGKILL, and another agent on the state of the one that was killed.
    pub(super) fn kill_and_restart(&mut self) -> Result<(), DemoError> {
        self.process.kill()?;
        self.process = spawn(&self.folder)?;
        Ok(())
    }

    pub(super) fn pause(&self) -> Result<(), DemoError> {
        Ok(self.process.stop()?)
    }

    pub(super) fn resume(&self) -> Result<(), DemoError> {
        Ok(self.process.go_on()?)
    }
}

fn address(folder: &Path) -> String {
    format!("unix://{}", folder.join("agent.sock").display())
}

fn spawn(folder: &Path) -> Result<Process, DemoError> {
    let tick = format!("{}s", TICK.as_secs());
    let state = folder.join("state").display().to_string();
    let (listen, notify) = (address(folder), "none".to_owned());
    let options = [("--listen", listen), ("--notify", notify), ("--tick", tick), ("--state", state)];
    let arguments = options.into_iter().flat_map(|(option, value)| [option.to_owned(), value]);
    let arguments = std::iter::once(AGENT.to_owned()).chain(arguments);
    Ok(Process::start("agent", arguments, folder.join("agent.log"))?)
}
