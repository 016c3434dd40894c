//! Several questions on one connection: see who answers, name its life, acknowledge, close.

use super::asked::Asked;
use super::client::{Client, Reading, SettleOutcome};
use super::connection::{Connection, name};
use super::error::{Cause, ClientError, Life, Step};
use crate::units::Bytes;
use crate::wire::message::{
    Ack, Acked, Checkpoint, Epoch, EpochSource, RefusalCode, Reply, Report, Request, Resume, Segments,
    SegmentsAfter, WaitSettled, Welcome,
};
use std::time::{Duration, Instant};

/// How long an agent may take to close its end: it does so as soon as it sees ours closed.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// An open connection whose agent has said who it is. Each question takes at most the client's timeout.
///
/// Made by [`Client::converse`] or [`Client::converse_with`]. [`Conversation::close`] it before the VM is paused:
/// dropping it closes this end too, but does not wait for the other.
pub struct Conversation {
    client: Client,
    connection: Connection,
}

impl Conversation {
    /// Connects and greets.
    pub(super) async fn open(client: &Client) -> Result<Self, ClientError> {
        let connection = Connection::open(client.target(), None, client.timeout()).await?;
        Ok(Self { client: client.clone(), connection })
    }

    /// Connects, greets and asks in one write; in all within the timeout.
    pub(super) async fn open_with(client: &Client, first: &Request) -> Result<(Self, Reading), ClientError> {
        let deadline = Instant::now() + client.timeout();
        let connection = Connection::open(client.target(), Some(first), client.timeout()).await?;
        let mut conversation = Self { client: client.clone(), connection };
        let left = deadline.saturating_duration_since(Instant::now());
        let report = conversation.report(left).await?;
        let asked = conversation.connection.asked;
        let reading = conversation.reading(report, Some(asked));
        conversation.confirm(first, &reading.report)?;
        Ok((conversation, reading))
    }

    /// Who answers: its boot, sandbox, epoch and last report as they were when it was greeted.
    #[must_use]
    pub fn welcome(&self) -> &Welcome {
        &self.connection.welcome
    }

    /// One report, now.
    ///
    /// # Errors
    /// As for [`Client::read`].
    pub async fn read(&mut self) -> Result<Reading, ClientError> {
        self.ask(Request::Read).await
    }

    /// Names the life that begins; the answer is its first report. Asked again with the same epoch it is answered
    /// again and changes nothing.
    ///
    /// # Errors
    /// [`Cause::Refused`] with `StaleEpoch` for a number that is not above all that were named before;
    /// [`Cause::OtherEpoch`] where the answer tells of another life; else as for [`Client::read`].
    pub async fn resume(&mut self, resume: Resume) -> Result<Reading, ClientError> {
        self.ask(Request::Resume(resume)).await
    }

    /// Closes the count before a pause and holds it; the answer is the epoch's last report. Asked again it is
    /// answered again.
    ///
    /// # Errors
    /// [`Cause::Refused`] with `StaleEpoch` or `UnknownEpoch` where the guest is in another epoch; else as for
    /// [`Client::read`].
    pub async fn checkpoint(&mut self, checkpoint: Checkpoint) -> Result<Reading, ClientError> {
        self.ask(Request::Checkpoint(checkpoint)).await
    }

    /// Says that everything up to this report is committed: the agent forgets what it kept for it.
    ///
    /// # Errors
    /// [`Cause::Refused`] with `UnknownEpoch` for a provisional epoch or a report that is not there yet; else as
    /// for [`Client::read`].
    pub async fn ack(&mut self, ack: Ack) -> Result<(), ClientError> {
        let step = Step::Acked;
        match self.exchange(Request::Ack(ack), step).await? {
            Reply::Acked(Acked { epoch, seq }) if (epoch, seq) == (ack.epoch, ack.seq) => Ok(()),
            Reply::Acked(_) => Err(self.fail(Cause::Unexpected { message: "Acked of another report", step })),
            other => Err(self.fail(unexpected(other, step))),
        }
    }

    /// Stretches of this and of earlier epochs that no host has acknowledged, but those of `after.epoch` up to
    /// `after.seq`; oldest first. Where there are `more`, acknowledge these and ask again.
    ///
    /// # Errors
    /// As for [`Client::read`].
    pub async fn segments(&mut self, after: SegmentsAfter) -> Result<Segments, ClientError> {
        match self.exchange(Request::Segments(after), Step::Segments).await? {
            Reply::Segments(segments) => Ok(segments),
            other => Err(self.fail(unexpected(other, Step::Segments))),
        }
    }

    /// See [`Client::wait_settled`].
    ///
    /// # Errors
    /// As for [`Client::read`].
    pub async fn wait_settled(
        &mut self,
        expected: Option<Bytes>,
        quiet: Duration,
        limit: Duration,
    ) -> Result<SettleOutcome, ClientError> {
        let wait = WaitSettled { expected, quiet: quiet.into(), timeout: limit.into() };
        let timeout = self.client.timeout();
        self.connection.send(Request::WaitSettled(wait), timeout).await?;
        // The agent counts the limit from when it heard of it, and answers at a look after it.
        match self.connection.receive(Step::Settled, limit.saturating_add(timeout)).await? {
            Reply::Report(report) => {
                Ok(SettleOutcome { settled: true, reading: self.reading(*report, None) })
            }
            Reply::Error(refusal) if refusal.code == RefusalCode::Timeout => {
                Ok(SettleOutcome { settled: false, reading: self.read().await? })
            }
            other => Err(self.fail(unexpected(other, Step::Settled))),
        }
    }

    /// Ends it, and waits until the agent has closed its end too: after this, nothing of it is under way that a
    /// snapshot could catch.
    ///
    /// # Errors
    /// The agent does not close its end in time.
    pub async fn close(self) -> Result<(), ClientError> {
        let limit = self.client.timeout().min(CLOSE_MAX);
        self.connection.end(limit).await
    }

    async fn ask(&mut self, request: Request) -> Result<Reading, ClientError> {
        let asked = Asked::now();
        self.connection.send(request.clone(), self.client.timeout()).await?;
        let report = self.report(self.client.timeout()).await?;
        let reading = self.reading(report, Some(asked));
        self.confirm(&request, &reading.report)?;
        Ok(reading)
    }

    async fn exchange(&mut self, request: Request, step: Step) -> Result<Reply, ClientError> {
        self.connection.send(request, self.client.timeout()).await?;
        self.connection.receive(step, self.client.timeout()).await
    }

    /// The next report, in at most `limit`.
    pub(super) async fn report(&mut self, limit: Duration) -> Result<Report, ClientError> {
        match self.connection.receive(Step::Report, limit).await? {
            Reply::Report(report) => Ok(*report),
            other => Err(self.fail(unexpected(other, Step::Report))),
        }
    }

    pub(super) fn reading(&self, report: Report, asked: Option<Asked>) -> Reading {
        let skew_ns = asked.and_then(|asked| asked.skew_ns(report.clock.realtime_unix));
        let agent = self.connection.welcome.agent.clone();
        Reading { target: self.client.target().clone(), agent, report, skew_ns }
    }

    /// Whether an answer tells of the life that was named; one of another must not be committed to it.
    fn confirm(&self, request: &Request, report: &Report) -> Result<(), ClientError> {
        let identity = &report.identity;
        let wanted = match request {
            Request::Resume(resume) => {
                let epoch = Epoch { id: resume.epoch, source: EpochSource::Host, number: resume.number };
                Life { epoch, sandbox: Some(resume.sandbox.clone()) }
            }
            Request::Checkpoint(Checkpoint { epoch, number }) => {
                let epoch = Epoch { id: *epoch, source: EpochSource::Host, number: *number };
                // Which sandbox it is, whoever resumed it has said.
                Life { epoch, sandbox: identity.sandbox.clone() }
            }
            _ => return Ok(()),
        };
        let found = Life { epoch: identity.epoch, sandbox: identity.sandbox.clone() };
        if found == wanted {
            return Ok(());
        }
        let (wanted, found) = (Box::new(wanted), Box::new(found));
        Err(self.fail(Cause::OtherEpoch { wanted, found }))
    }

    fn fail(&self, cause: Cause) -> ClientError {
        ClientError { target: self.client.target().clone(), cause }
    }
}

fn unexpected(reply: Reply, step: Step) -> Cause {
    match reply {
        Reply::Error(refusal) => Cause::Refused(refusal),
        other => Cause::Unexpected { message: name(&other), step },
    }
}
