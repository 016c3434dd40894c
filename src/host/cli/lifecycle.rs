//! What the commands around a pause share.

use super::error::CliError;
use super::output::{Output, complain, complaint};
use super::wait_settled::Verdict;
use super::{Outcome, args::SettleArgs};
use crate::host::client::{Client, Reading, TIMEOUT_DEFAULT};
use crate::host::conversation::Conversation;
use crate::host::error::{ClientError, Kind};
use crate::host::state_file::LifeError;
use crate::host::target::Target;
use crate::host::{json, table};
use crate::units::Bytes;
use crate::wire::message::Ack;
use std::time::Duration;

/// Attempts that a limit is divided into: one may hang on a connection that a pause has left dead.
const ATTEMPTS_LEAST: u32 = 3;

/// A client that tries for so long in all.
pub(super) fn client(target: Target, retry_for: Duration) -> Client {
    let attempt = TIMEOUT_DEFAULT.min(retry_for / ATTEMPTS_LEAST).max(Duration::from_millis(1));
    Client::new(target, attempt).patient(retry_for)
}

/// Says what went wrong; the exit code tells a guest in another epoch from one that cannot be reached.
pub(super) fn failed(error: &ClientError) -> Outcome {
    complain(error);
    match error.cause.kind() {
        Kind::Epoch => Outcome::OtherEpoch,
        _ => Outcome::Unreachable,
    }
}

/// The same where a state file is kept: its own faults stop the command.
pub(super) fn undone(error: LifeError) -> Result<Outcome, CliError> {
    match error {
        LifeError::Guest(error) => Ok(failed(&error)),
        LifeError::File(error) => Err(error.into()),
    }
}

pub(super) fn show(reading: &Reading, as_json: bool, output: &mut Output) -> Result<(), CliError> {
    if as_json {
        output.line(&json::report(reading)?)?;
    } else {
        output.text(&table::report(reading, output.look()))?;
    }
    Ok(())
}

/// Says that what was just shown need not be kept for the host, where it was not told otherwise.
pub(super) async fn acknowledge(
    conversation: &mut Conversation,
    reading: &Reading,
    no_ack: bool,
) -> Result<(), ClientError> {
    if no_ack {
        return Ok(());
    }
    let identity = &reading.report.identity;
    conversation.ack(Ack { epoch: identity.epoch.id, seq: identity.seq }).await
}

/// What was asked for is done; that its end went wrong is something to look at, and no reason to take it for undone.
pub(super) fn done(what: &str, end: Result<(), ClientError>, found: bool) -> Outcome {
    if let Err(error) = &end {
        complain(error);
        complaint(&format!("{}: {what}", error.target));
    }
    if found || end.is_err() { Outcome::Found } else { Outcome::Fine }
}

/// `--wait-settled` as a question.
pub(super) async fn wait_settled(
    conversation: &mut Conversation,
    limit: Duration,
    settle: &SettleArgs,
    expect: Option<Bytes>,
) -> Result<Verdict, ClientError> {
    let outcome = conversation.wait_settled(expect, settle.quiet, limit).await?;
    Ok(Verdict::new(outcome, expect, limit))
}
