//! What a host asks of one agent: a report, a stream of them, a report once memory has settled.

use super::asked::Asked;
use super::connection::{Connection, name};
use super::error::{Cause, ClientError, Step};
use super::target::Target;
use crate::units::Bytes;
use crate::wire::message::{Agent, RefusalCode, Reply, Report, Request, WaitSettled, Watch};
use std::time::{Duration, Instant};

/// The longest that one question may take where nothing else is said.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// Asks one agent. Each question opens its own connection, so nothing is left open across a snapshot of the VM.
#[derive(Clone, Debug)]
pub struct Client {
    target: Target,
    timeout: Duration,
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
    client: Client,
    connection: Connection,
    /// The answer to the request, until it is taken.
    first: Option<Reading>,
    patience: Duration,
}

impl Client {
    /// A client of `target`. Nothing is opened yet. A question may take at most `timeout`, connecting included.
    #[must_use]
    pub fn new(target: Target, timeout: Duration) -> Self {
        Self { target, timeout }
    }

    /// Whom it asks.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// One report, now.
    ///
    /// # Errors
    /// See [`Cause`]: nobody there, another protocol, no common version, no answer in time.
    pub async fn read(&self) -> Result<Reading, ClientError> {
        self.ask(&Request::Read).await.map(|(_, reading)| reading)
    }

    /// Reports at each change of the capacity and at least once in `interval`, until the connection ends.
    ///
    /// # Errors
    /// As for [`Client::read`].
    pub async fn watch(&self, interval: Duration) -> Result<Watcher, ClientError> {
        let request = Request::Watch(Watch { interval: interval.into() });
        let (connection, first) = self.ask(&request).await?;
        let patience = interval.saturating_add(self.timeout);
        Ok(Watcher { client: self.clone(), connection, first: Some(first), patience })
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
        let request =
            Request::WaitSettled(WaitSettled { expected, quiet: quiet.into(), timeout: limit.into() });
        let mut connection = Connection::open(&self.target, &request, self.timeout).await?;
        // The agent counts the limit from when it heard of it, and answers at a look after it.
        let patience = limit.saturating_add(self.timeout);
        match connection.receive(Step::Settled, patience).await? {
            Reply::Report(report) => {
                let reading = self.reading(&connection, *report, None);
                Ok(SettleOutcome { settled: true, reading })
            }
            Reply::Error(refusal) if refusal.code == RefusalCode::Timeout => {
                let asked = Asked::now();
                connection.send(Request::Read, self.timeout).await?;
                let report = self.report(&mut connection, self.timeout).await?;
                let reading = self.reading(&connection, report, Some(asked));
                Ok(SettleOutcome { settled: false, reading })
            }
            Reply::Error(refusal) => Err(self.fail(Cause::Refused(refusal))),
            other => Err(self.fail(Cause::Unexpected { message: name(&other), step: Step::Settled })),
        }
    }

    /// Connects, asks, and takes the first report, in all within the timeout.
    async fn ask(&self, request: &Request) -> Result<(Connection, Reading), ClientError> {
        let deadline = Instant::now() + self.timeout;
        let mut connection = Connection::open(&self.target, request, self.timeout).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        let report = self.report(&mut connection, left).await?;
        let asked = connection.asked;
        let reading = self.reading(&connection, report, Some(asked));
        Ok((connection, reading))
    }

    async fn report(&self, connection: &mut Connection, limit: Duration) -> Result<Report, ClientError> {
        match connection.receive(Step::Report, limit).await? {
            Reply::Report(report) => Ok(*report),
            Reply::Error(refusal) => Err(self.fail(Cause::Refused(refusal))),
            other => Err(self.fail(Cause::Unexpected { message: name(&other), step: Step::Report })),
        }
    }

    fn reading(&self, connection: &Connection, report: Report, asked: Option<Asked>) -> Reading {
        let skew_ns = asked.and_then(|asked| asked.skew_ns(report.clock.realtime_unix));
        Reading { target: self.target.clone(), agent: connection.welcome.agent.clone(), report, skew_ns }
    }

    fn fail(&self, cause: Cause) -> ClientError {
        ClientError { target: self.target.clone(), cause }
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
        let report = self.client.report(&mut self.connection, self.patience).await?;
        Ok(self.client.reading(&self.connection, report, None))
    }
}
