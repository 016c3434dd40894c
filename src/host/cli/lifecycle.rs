//! What the commands around a pause share.

use super::error::CliError;
use super::output::{Output, complain};
use super::{Outcome, args::SettleArgs};
use crate::host::client::{Client, Reading, TIMEOUT_DEFAULT};
use crate::host::conversation::Conversation;
use crate::host::error::{ClientError, Kind};
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

/// `--wait-settled` as a question.
pub(super) async fn wait_settled(
    conversation: &mut Conversation,
    settle: &SettleArgs,
    expect: Option<Bytes>,
) -> Result<super::wait_settled::Verdict, ClientError> {
    let outcome = conversation.wait_settled(expect, settle.quiet, settle.timeout).await?;
    Ok(super::wait_settled::Verdict::new(outcome, expect, settle.timeout))
}
