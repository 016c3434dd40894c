//! One visit to a guest: what is said, and the evidence it gives. Decides only which epoch a guest has to hear of.

use super::acks::Acks;
use super::clock::Clock;
use super::order::{Life, Named};
use crate::host::client::{Client, Reading};
use crate::host::conversation::Conversation;
use crate::host::error::{Cause, ClientError, Kind};
use crate::host::reconcile::{Claim, Evidence, Segment, Told};
use crate::units::Nanos;
use crate::wire::message::{Checkpoint, Epoch, EpochSource, Id, Mark, Request, Resume, SegmentsAfter};

/// What a guest has said.
pub(super) struct Heard {
    pub(super) reading: Reading,
    /// Segments first, then the report.
    pub(super) evidence: Vec<Evidence>,
    pub(super) received: Nanos,
}

/// Which epoch a guest has to hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Saying {
    /// It is in its sandbox's epoch.
    Nothing,
    /// The one that it has not confirmed.
    Again(Named),
    /// A new one: it lives on in an epoch that nobody named, or in one of its past.
    New,
    /// The same, but with a number above the guest's: the platform says that this life is its sandbox's.
    Above(Named),
    /// It is in a later one, which somebody else named.
    Foreign,
}

/// By what the guest says of its epoch.
pub(super) fn saying(life: &Life, guest: Epoch) -> Saying {
    let Some(current) = life.epoch else { return Saying::Foreign };
    let named = guest.source == EpochSource::Host;
    if named && guest.id == current.id {
        return Saying::Nothing;
    }
    if named && guest.number > current.number {
        return if current.confirmed { Saying::Foreign } else { Saying::Above(current) };
    }
    if current.confirmed { Saying::New } else { Saying::Again(current) }
}

/// A report, and the segments that wait with it. What is committed is acknowledged first; how often that was.
pub(super) async fn read(client: &Client, clock: &Clock, acks: &Acks) -> Result<(Heard, u64), ClientError> {
    if acks.is_empty() {
        let asked = clock.now().unix;
        let (mut conversation, reading) = client.converse_with(&Request::Read).await?;
        return Ok((heard(&mut conversation, clock, reading, Some(asked), None).await?, 0));
    }
    let mut conversation = client.converse().await?;
    let mut acked = 0;
    for ack in acks.clone() {
        match conversation.ack(ack).await {
            Ok(()) => acked += 1,
            // It is in another life by now, and has nothing left of this one.
            Err(ClientError { cause: Cause::Refused(_), .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let heard = again(&mut conversation, clock).await?;
    Ok((heard, acked))
}

/// Another report on a conversation that is open.
pub(super) async fn again(conversation: &mut Conversation, clock: &Clock) -> Result<Heard, ClientError> {
    let asked = clock.now().unix;
    let reading = conversation.read().await?;
    heard(conversation, clock, reading, Some(asked), None).await
}

/// Says an epoch.
pub(super) async fn resume(
    conversation: &mut Conversation,
    clock: &Clock,
    sandbox: &str,
    named: Named,
    mark: Option<Mark>,
    copy_of: Option<String>,
) -> Result<Heard, ClientError> {
    let resume = Resume {
        epoch: named.id,
        number: named.number,
        paused: named.paused,
        sandbox: sandbox.to_owned(),
        at: named.at,
        mark,
        requested: named.requested,
        boot: None,
    };
    let asked = clock.now().unix;
    let reading = conversation.resume(resume).await?;
    heard(conversation, clock, reading, Some(asked), copy_of).await
}

/// Closes the count.
pub(super) async fn checkpoint(
    conversation: &mut Conversation,
    clock: &Clock,
    epoch: (Id, u64),
) -> Result<Heard, ClientError> {
    let asked = clock.now().unix;
    let reading = conversation.checkpoint(Checkpoint { epoch: epoch.0, number: epoch.1 }).await?;
    heard(conversation, clock, reading, Some(asked), None).await
}

async fn heard(
    conversation: &mut Conversation,
    clock: &Clock,
    reading: Reading,
    asked: Option<Nanos>,
    copy_of: Option<String>,
) -> Result<Heard, ClientError> {
    let received = clock.now().unix;
    let mut evidence = Vec::new();
    // An ack frees them, so they are read before one is sent.
    if reading.report.tail.segments_waiting > 0 {
        let after = SegmentsAfter { epoch: reading.report.identity.epoch.id, seq: 0 };
        let waiting = conversation.segments(after).await?;
        let read = clock.now().unix;
        evidence.extend(waiting.segments.iter().map(|segment| Evidence::Segment(Segment::of(segment, read))));
    }
    let claim = Claim::of(&reading.report, asked, received);
    evidence.push(Evidence::Report(Told { claim, copy_of }));
    Ok(Heard { reading, evidence, received })
}

/// What kind of failure, for a metric.
pub(super) fn failure(error: &ClientError) -> &'static str {
    match (&error.cause, error.cause.kind()) {
        (Cause::TimedOut { .. }, _) => "timeout",
        (_, Kind::TryAgain) => "unreachable",
        (_, Kind::Peer) => "garbage",
        (_, Kind::Epoch) => "other_epoch",
        (_, Kind::Ours) => "ours",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(number: u8, confirmed: bool) -> Named {
        let id = Id([number; 16]);
        Named { id, number: number.into(), paused: true, at: Nanos(0), requested: None, confirmed }
    }

    fn host(number: u8) -> Epoch {
        Epoch { id: Id([number; 16]), source: EpochSource::Host, number: number.into() }
    }

    #[test]
    fn a_guest_hears_what_it_has_not_confirmed_and_else_something_new() {
        let life = |confirmed| {
            let mut life = Life::default();
            life.begin(named(5, confirmed));
            life
        };
        let unnamed = Epoch::default();
        for (life, guest, expected) in [
            (life(true), host(5), Saying::Nothing),
            (life(false), host(5), Saying::Nothing),
            (life(false), unnamed, Saying::Again(named(5, false))),
            (life(false), host(4), Saying::Again(named(5, false))),
            (life(true), unnamed, Saying::New),
            (life(true), host(4), Saying::New),
            (life(true), host(6), Saying::Foreign),
            (life(false), host(6), Saying::Above(named(5, false))),
            (Life::default(), unnamed, Saying::Foreign),
        ] {
            assert_eq!(saying(&life, guest), expected, "{guest:?}");
        }
    }
}
