//! What a host asks of one agent: a report, a stream of them, a report once memory has settled; and what it tells
//! one around a pause.

use super::conversation::Conversation;
use super::error::{Cause, ClientError, Kind, Step};
use super::random::Backoff;
use super::target::Target;
use crate::units::Bytes;
use crate::wire::message::{Ack, Agent, Checkpoint, Report, Request, Resume, Segments, SegmentsAfter, Watch};
use std::time::{Duration, Instant};

/// The longest that one question may take where nothing else is said.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// What no clock of this machine can step over.
const TIMEOUT_MAX: Duration = Duration::from_hours(24);
/// The pauses between attempts: a guest that was just restored may need some.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// Reports that come faster than any agent is asked for wait in the socket: half of the shortest interval.
const WATCH_PACE: Duration = Duration::from_millis(50);
/// An attempt that ends as the time for all of them does may still say why.
const RETRY_GRACE: Duration = Duration::from_millis(50);

/// Asks one agent. Each question opens its own connection, so nothing is left open across a snapshot of the VM.
#[derive(Clone, Debug)]
pub struct Client {
    target: Target,
    timeout: Duration,
    patience: Duration,
}

/// A report with what only the host knows of it.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Who was asked.
    pub target: Target,
    /// Who answered.
    pub agent: Agent,
    /// What it said.
    pub report: Report,
    /// Guest's real-time clock − host's at the midpoint of the request, in ns; `None` where no request brackets
    /// the report.
    pub skew_ns: Option<i64>,
}

/// How a wait for settled memory ended.
#[derive(Clone, Debug)]
pub struct SettleOutcome {
    /// Whether it settled, by the agent's own judgement.
    pub settled: bool,
    /// The last word on the memory.
    pub reading: Reading,
}

/// The reports of one `Watch`, as they come.
pub struct Watcher {
    conversation: Conversation,
    /// The answer to the request, until it is taken.
    first: Option<Reading>,
    patience: Duration,
    /// When the last one was taken.
    taken: Instant,
}

impl Client {
    /// A client of `target`. Nothing is opened yet. A question may take at most `timeout`, connecting included, and
    /// never more than a day.
    #[must_use]
    pub fn new(target: Target, timeout: Duration) -> Self {
        let timeout = timeout.min(TIMEOUT_MAX);
        Self { target, timeout, patience: timeout }
    }

    /// What may safely be asked again ([`Client::resume`] and what stands below it) is, for as long as this in all;
    /// without it for one timeout. Each attempt opens a new connection, for a pause can leave an old one dead.
    #[must_use]
    pub fn patient(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Whom it asks.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The longest that one question may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// One report, now.
    ///
    /// # Errors
    /// See [`Cause`]: nobody there, another protocol, no common version, no answer in time.
    pub async fn read(&self) -> Result<Reading, ClientError> {
        self.converse_with(&Request::Read).await.map(|(_, reading)| reading)
    }

    /// Reports at each change of the capacity and at least once in `interval`, until the connection ends.
    ///
    /// # Errors
    /// As for [`Client::read`].
    pub async fn watch(&self, interval: Duration) -> Result<Watcher, ClientError> {
        let request = Request::Watch(Watch { interval: interval.into() });
        let (conversation, first) = self.converse_with(&request).await?;
        let patience = interval.saturating_add(self.timeout);
        Ok(Watcher { conversation, first: Some(first), patience, taken: Instant::now() })
    }

    /// Waits until `plugged` is what is `expected`, or where that is not stated, what the VMM requested, or where
    /// that is not known either, until nothing changed for `quiet`. Gives up after `limit`, which the agent may
    /// shorten to an hour; that is an outcome, not an error.
    ///
    /// # Errors
    /// As for [`Client::read`].
    pub async fn wait_settled(
        &self,
        expected: Option<Bytes>,
        quiet: Duration,
        limit: Duration,
    ) -> Result<SettleOutcome, ClientError> {
        let mut conversation = self.retrying(|| self.converse()).await?;
        conversation.wait_settled(expected, quiet, limit).await
    }

    /// Connects and greets: whoever answers is known before anything is asked of it.
    ///
    /// # Errors
    /// As for [`Client::read`].
    pub async fn converse(&self) -> Result<Conversation, ClientError> {
        Conversation::open(self).await
    }

    /// Connects, greets and asks the first question in one write, which saves a round trip. It must be one that a
    /// report answers: `Read`, `Resume`, `Checkpoint` or `Watch`.
    ///
    /// # Errors
    /// As for [`Client::read`], and for what the question itself may fail by.
    pub async fn converse_with(&self, first: &Request) -> Result<(Conversation, Reading), ClientError> {
        Conversation::open_with(self, first).await
    }

    /// [`Conversation::resume`] on a connection of its own, which is closed after it. What it answers is delivered
    /// again until it is [acknowledged](Client::ack).
    ///
    /// # Errors
    /// As for [`Conversation::resume`], once there is no time for another attempt.
    pub async fn resume(&self, resume: &Resume) -> Result<Reading, ClientError> {
        let request = Request::Resume(resume.clone());
        self.retrying(|| self.ask_and_close(&request)).await
    }

    /// [`Conversation::checkpoint`] on a connection of its own. When this returns, nothing of the connection is
    /// left: the VM may be paused.
    ///
    /// # Errors
    /// As for [`Conversation::checkpoint`], once there is no time for another attempt.
    pub async fn checkpoint(&self, checkpoint: Checkpoint) -> Result<Reading, ClientError> {
        let request = Request::Checkpoint(checkpoint);
        self.retrying(|| self.ask_and_close(&request)).await
    }

    /// [`Conversation::ack`] on a connection of its own, which is closed after it.
    ///
    /// # Errors
    /// As for [`Conversation::ack`], once there is no time for another attempt.
    pub async fn ack(&self, ack: Ack) -> Result<(), ClientError> {
        self.retrying(|| async {
            let mut conversation = self.converse().await?;
            conversation.ack(ack).await?;
            conversation.close().await
        })
        .await
    }

    /// [`Conversation::segments`] on a connection of its own, which is closed after it.
    ///
    /// # Errors
    /// As for [`Conversation::segments`], once there is no time for another attempt.
    pub async fn segments(&self, after: SegmentsAfter) -> Result<Segments, ClientError> {
        self.retrying(|| async {
            let mut conversation = self.converse().await?;
            let segments = conversation.segments(after).await?;
            conversation.close().await?;
            Ok(segments)
        })
        .await
    }

    /// Does `work` again, after a pause that doubles, for as long as it fails by what may pass
    /// ([`Kind::TryAgain`]) and there is time. It must be safe to repeat: a `Resume` is, with the same epoch.
    ///
    /// # Errors
    /// The last one of `work`; [`Cause::TimedOut`] where the first attempt took all the time.
    pub async fn retrying<T, W>(&self, mut work: impl FnMut() -> W) -> Result<T, ClientError>
    where
        W: Future<Output = Result<T, ClientError>>,
    {
        let began = Instant::now();
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        let mut last = None;
        loop {
            let left = self.patience.saturating_sub(began.elapsed());
            match tokio::time::timeout(left.saturating_add(RETRY_GRACE), work()).await {
                Ok(Err(error)) if error.cause.kind() == Kind::TryAgain => {
                    let pause = backoff.pause();
                    if self.patience.saturating_sub(began.elapsed()) <= pause {
                        return Err(error);
                    }
                    last = Some(error);
                    tokio::time::sleep(pause).await;
                }
                Ok(done) => return done,
                Err(_) => {
                    let cause = Cause::TimedOut { step: Step::Exchange, after: self.patience };
                    return Err(last.unwrap_or_else(|| ClientError { target: self.target.clone(), cause }));
                }
            }
        }
    }

    async fn ask_and_close(&self, request: &Request) -> Result<Reading, ClientError> {
        let (conversation, reading) = self.converse_with(request).await?;
        conversation.close().await?;
        Ok(reading)
    }
}

impl Watcher {
    /// The next report, at most an interval and the client's timeout from now.
    ///
    /// # Errors
    /// The connection ended or the agent fell silent: watch again to go on.
    pub async fn next(&mut self) -> Result<Reading, ClientError> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        tokio::time::sleep(WATCH_PACE.saturating_sub(self.taken.elapsed())).await;
        let report = self.conversation.report(self.patience).await?;
        self.taken = Instant::now();
        Ok(self.conversation.reading(report, None))
    }
}
