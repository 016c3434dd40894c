//! QEMU's monitor protocol over any stream: greeting, capabilities, one command at a time, events between.
//!
//! A command has an id, so that an answer that came too late is not taken for the next one's.

use super::address::VmmKind;
use super::error::{Failed, Limit, Said, VmmCause};
use super::qmp_line::{self, Device, Line, Status, Summary};
use super::{VmmCpus, VmmEvent, VmmMemory};
use serde::de::{DeserializeOwned, IgnoredAny};
use std::collections::VecDeque;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// QEMU's largest machine has 4096 CPUs, which `query-cpus-fast` lists in some 200 bytes each.
pub const LINE_BYTES_MAX: usize = 1 << 20;
const READ_BYTES: usize = 8 << 10;
/// QEMU sends one event a second for each device, and has 256 of them at most.
const EVENTS_MAX: usize = 256;

/// A connection that was greeted and takes commands.
#[derive(Debug)]
pub struct Qmp<S> {
    stream: S,
    /// What came and is no whole line yet, or was not looked at.
    received: Vec<u8>,
    last_id: u64,
    events: VecDeque<VmmEvent>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Qmp<S> {
    /// Waits for the greeting, then leaves capabilities negotiation.
    ///
    /// # Errors
    /// No greeting: another client has the socket; or this is no QMP.
    pub async fn open(stream: S, limit: Limit) -> Result<Self, Failed> {
        let events = VecDeque::from([VmmEvent::AskAgain]);
        let mut qmp = Self { stream, received: Vec::new(), last_id: 0, events };
        let greeted = limit.hold("greeting", qmp.greeted()).await;
        greeted.map_err(|failed| match failed.cause {
            VmmCause::TimedOut(after) => Failed { cause: VmmCause::NoGreeting(after), ..failed },
            _ => failed,
        })?;
        let _: IgnoredAny = qmp.execute("qmp_capabilities", limit).await?;
        Ok(qmp)
    }

    /// The memory, now. What events told before is forgotten: this is newer.
    ///
    /// # Errors
    /// See [`VmmCause`].
    pub async fn memory(&mut self, limit: Limit) -> Result<VmmMemory, Failed> {
        self.running(limit).await?;
        let summary: Summary = self.execute("query-memory-size-summary", limit).await?;
        let request = "query-memory-devices";
        let devices: Vec<Device> = self.execute(request, limit).await?;
        self.events.clear();
        qmp_line::memory(devices, &summary).map_err(|cause| Failed { request, cause })
    }

    /// The CPUs, now.
    ///
    /// # Errors
    /// See [`VmmCause`].
    pub async fn cpus(&mut self, limit: Limit) -> Result<VmmCpus, Failed> {
        self.running(limit).await?;
        let request = "query-cpus-fast";
        let listed: Vec<IgnoredAny> = self.execute(request, limit).await?;
        qmp_line::cpus(&listed).map_err(|cause| Failed { request, cause })
    }

    /// The next event, without a limit in time. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// The connection ended, or is no QMP any more.
    pub async fn event(&mut self) -> Result<VmmEvent, VmmCause> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            // An answer that nobody waits for any more is passed over.
            self.line().await?;
        }
    }

    async fn running(&mut self, limit: Limit) -> Result<(), Failed> {
        let request = "query-status";
        let status: Status = self.execute(request, limit).await?;
        qmp_line::running(&status).map_err(|cause| Failed { request, cause })
    }

    async fn execute<T: DeserializeOwned>(
        &mut self,
        command: &'static str,
        limit: Limit,
    ) -> Result<T, Failed> {
        limit.hold(command, self.answered(command)).await
    }

    async fn answered<T: DeserializeOwned>(&mut self, command: &str) -> Result<T, VmmCause> {
        self.last_id += 1;
        let question = serde_json::json!({ "execute": command, "id": self.last_id });
        self.stream.write_all(format!("{question}\n").as_bytes()).await.map_err(broken)?;
        loop {
            let (line, bytes) = self.line().await?;
            match line {
                Line::Return(Some(id)) if id == self.last_id => return qmp_line::answer(&bytes),
                // QEMU names no id where it could not read the command.
                Line::Error { id, class, text } if id.is_none_or(|id| id == self.last_id) => {
                    return Err(VmmCause::Refused { code: class, text });
                }
                _ => {}
            }
        }
    }

    async fn greeted(&mut self) -> Result<(), VmmCause> {
        let bytes = self.next_line().await?;
        match qmp_line::line(&bytes) {
            Ok(Line::Greeting) => Ok(()),
            _ => {
                let said = Said::Line(qmp_line::shown(&bytes));
                Err(VmmCause::NotThisVmm { expected: VmmKind::Qmp, said })
            }
        }
    }

    /// The next line, with its event, if it is one, put aside.
    async fn line(&mut self) -> Result<(Line, Vec<u8>), VmmCause> {
        let bytes = self.next_line().await?;
        let line = qmp_line::line(&bytes)?;
        if line == Line::SizeChange {
            if self.events.len() >= EVENTS_MAX {
                self.events = VecDeque::from([VmmEvent::AskAgain]);
            }
            self.events.push_back(VmmEvent::Changed(qmp_line::size_change(&bytes)?));
        }
        Ok((line, bytes))
    }

    /// Without its newline. Takes bytes out of the buffer only with the whole line, so that it can be dropped.
    async fn next_line(&mut self) -> Result<Vec<u8>, VmmCause> {
        let mut looked_at = 0;
        loop {
            let fresh = self.received.get(looked_at..).unwrap_or_default();
            if let Some(end) = fresh.iter().position(|byte| *byte == b'\n') {
                let rest = self.received.split_off(looked_at + end + 1);
                let mut line = std::mem::replace(&mut self.received, rest);
                line.pop();
                return Ok(line);
            }
            if self.received.len() > LINE_BYTES_MAX {
                return Err(VmmCause::TooLong(LINE_BYTES_MAX));
            }
            looked_at = self.received.len();
            let mut chunk = [0; READ_BYTES];
            match self.stream.read(&mut chunk).await.map_err(broken)? {
                0 => return Err(VmmCause::Closed),
                count => self.received.extend_from_slice(chunk.get(..count).unwrap_or_default()),
            }
        }
    }
}

fn broken(error: std::io::Error) -> VmmCause {
    match error.kind() {
        std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset => VmmCause::Closed,
        _ => VmmCause::Broken(error),
    }
}
