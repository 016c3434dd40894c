//! `checkpoint`: the last word before a pause, with nothing left open behind it.

use super::Outcome;
use super::args::CheckpointArgs;
use super::error::CliError;
use super::lifecycle::{acknowledge, client, done, failed, show, undone, wait_settled};
use super::output::{Output, complain, complaint};
use crate::host::client::{Client, Reading};
use crate::host::conversation::Conversation;
use crate::host::error::{Cause, ClientError};
use crate::host::state_file::{Closed, Minted, StateFile};
use crate::wire::message::{Checkpoint, EpochSource};
use std::time::Duration;

pub(super) async fn run(args: CheckpointArgs, output: &mut Output) -> Result<Outcome, CliError> {
    let client = client(args.target.clone(), args.retry_for);
    let mut state = match &args.life.minted.state {
        Some(path) => Some(StateFile::open_existing(path, args.retry_for).await?),
        None => None,
    };
    let mut unsettled = false;
    if let Some(limit) = args.settle.wait_settled {
        unsettled = !settled(&client, &args, limit).await;
    }
    let closed = match (&mut state, args.life.minted.epoch) {
        (Some(state), _) => match state.checkpoint(&client, args.life.event.as_deref()).await {
            Ok(Closed { conversation, reading }) => (conversation, reading),
            Err(error) => return undone(error),
        },
        (None, Some(epoch)) => match close_count(&client, epoch).await {
            Ok(closed) => closed,
            Err(error) => return Ok(failed(&error)),
        },
        (None, None) => {
            return Err(CliError::Usage("--state or --epoch says which epoch is closed".to_owned()));
        }
    };
    let (mut conversation, reading) = closed;
    let shown = show(&reading, args.json, output);
    let acknowledged = match &shown {
        Ok(()) => acknowledge(&mut conversation, &reading, args.no_ack).await,
        Err(_) => Ok(()),
    };
    let closed = conversation.close().await;
    let outcome = done(
        "the checkpoint is taken all the same, and the count is held",
        acknowledged.and(closed),
        unsettled,
    );
    shown.map(|()| outcome)
}

/// Whether memory has settled, as far as can be known. Whatever keeps it from that keeps nobody from the checkpoint.
async fn settled(client: &Client, args: &CheckpointArgs, limit: Duration) -> bool {
    let waiting = async {
        let mut conversation = client.retrying(|| client.converse()).await?;
        let verdict = wait_settled(&mut conversation, limit, &args.settle, args.expect).await?;
        conversation.close().await?;
        Ok::<_, ClientError>(verdict)
    };
    match waiting.await {
        Ok(verdict) => {
            if !verdict.fine {
                complaint(&verdict.line);
            }
            verdict.fine
        }
        Err(error) => {
            complain(&error);
            false
        }
    }
}

async fn close_count(client: &Client, epoch: Minted) -> Result<(Conversation, Reading), ClientError> {
    let Minted { id, number } = epoch;
    client
        .retrying(|| async {
            let mut conversation = client.converse().await?;
            if conversation.welcome().epoch.source == EpochSource::Provisional {
                return Err(ClientError { target: client.target().clone(), cause: Cause::Unnamed });
            }
            let reading = conversation.checkpoint(Checkpoint { epoch: id, number }).await?;
            Ok((conversation, reading))
        })
        .await
}
