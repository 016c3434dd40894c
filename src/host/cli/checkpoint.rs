//! `checkpoint`: the last word before a pause, with nothing left open behind it.

use super::Outcome;
use super::args::CheckpointArgs;
use super::error::CliError;
use super::lifecycle::{acknowledge, client, failed, show, wait_settled};
use super::output::Output;
use super::wait_settled::Verdict;
use crate::host::client::{Client, Reading};
use crate::host::conversation::Conversation;
use crate::host::error::{Cause, ClientError, Life};
use crate::wire::message::{Checkpoint, Epoch, EpochSource, Id};
use std::cell::Cell;

pub(super) async fn run(args: CheckpointArgs, output: &mut Output) -> Result<Outcome, CliError> {
    let client = client(args.target.clone(), args.retry_for);
    if args.settle.wait_settled {
        match settled(&client, &args).await {
            Ok(verdict) if verdict.fine => {}
            // Memory on its way would go into the snapshot: nothing is held, and the script sees why.
            Ok(verdict) => {
                verdict.show(args.json, output)?;
                return Ok(verdict.outcome());
            }
            Err(error) => return Ok(failed(&error)),
        }
    }
    let (conversation, reading) = match closed_count(&client, &args).await {
        Ok(answer) => answer,
        Err(error) => return Ok(failed(&error)),
    };
    show(&reading, args.json, output)?;
    match finish(conversation, &reading, args.no_ack).await {
        Ok(()) => Ok(Outcome::Fine),
        Err(error) => Ok(failed(&error)),
    }
}

async fn settled(client: &Client, args: &CheckpointArgs) -> Result<Verdict, ClientError> {
    let mut conversation = client.retrying(|| client.converse()).await?;
    wait_settled(&mut conversation, &args.settle, args.expect).await
}

/// Asks for the epoch that was given, or for the one the guest is in when it is first reached.
async fn closed_count(
    client: &Client,
    args: &CheckpointArgs,
) -> Result<(Conversation, Reading), ClientError> {
    let chosen = Cell::new(None);
    client
        .retrying(|| async {
            let mut conversation = client.converse().await?;
            let checkpoint = match chosen.get() {
                Some(checkpoint) => checkpoint,
                None => choose(conversation.welcome().epoch, args.epoch, args.number)
                    .map_err(|cause| ClientError { target: client.target().clone(), cause })?,
            };
            chosen.set(Some(checkpoint));
            let reading = conversation.checkpoint(checkpoint).await?;
            Ok((conversation, reading))
        })
        .await
}

/// The epoch to close, seen the guest's current one.
fn choose(current: Epoch, id: Option<Id>, number: Option<u64>) -> Result<Checkpoint, Cause> {
    match (id, number) {
        (None, _) if current.source == EpochSource::Provisional => Err(Cause::Unnamed),
        (None, _) => Ok(Checkpoint { epoch: current.id, number: current.number }),
        (Some(epoch), Some(number)) => Ok(Checkpoint { epoch, number }),
        (Some(epoch), None) if epoch == current.id => Ok(Checkpoint { epoch, number: current.number }),
        (Some(id), None) => {
            let life = |epoch| Box::new(Life { epoch, sandbox: None });
            let wanted = life(Epoch { id, source: EpochSource::Host, number: 0 });
            Err(Cause::OtherEpoch { wanted, found: life(current) })
        }
    }
}

async fn finish(mut conversation: Conversation, reading: &Reading, no_ack: bool) -> Result<(), ClientError> {
    acknowledge(&mut conversation, reading, no_ack).await?;
    conversation.close().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_epoch_is_closed_where_none_is_given_and_never_another_one() {
        let named = Epoch { id: Id([7; 16]), source: EpochSource::Host, number: 17 };
        let seven = Checkpoint { epoch: Id([7; 16]), number: 17 };
        assert_eq!(choose(named, None, None).unwrap(), seven);
        assert_eq!(choose(named, Some(Id([7; 16])), None).unwrap(), seven);
        let other = choose(named, Some(Id([8; 16])), Some(18)).unwrap();
        assert_eq!(other, Checkpoint { epoch: Id([8; 16]), number: 18 });
        let error = choose(named, Some(Id([8; 16])), None).unwrap_err().to_string();
        assert!(error.starts_with("the guest is in epoch 17 (0707"), "{error}");
        assert!(error.ends_with("not in epoch 08080808080808080808080808080808"), "{error}");
        let provisional = choose(Epoch::default(), None, None).unwrap_err();
        assert!(matches!(provisional, Cause::Unnamed));
    }
}
