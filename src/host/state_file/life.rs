//! The calls around a pause, with what is kept of them: on disk before it is sent, on disk before it is acknowledged.

use super::error::{StateCause, StateFileError};
use super::file::StateFile;
use super::record::Minted;
use crate::host::client::{Client, Reading};
use crate::host::conversation::Conversation;
use crate::host::error::ClientError;
use crate::host::random::mint_epoch;
use crate::units::{Bytes, Nanos};
use crate::wire::message::{Checkpoint, Counters, EpochSource, Mark, Resume, Welcome};
use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

/// How often a guest may say that it has heard a later number still.
const RAISES_MAX: u32 = 3;

/// What a host says of a life that begins.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// The platform's id of this call: the same one again is the same call.
    pub event: Option<String>,
    /// Whether the VM was paused; not for a fresh start, a snapshot that was given up, a guest that is taken over.
    pub paused: bool,
    /// What virtio-mem was asked for, all devices together.
    pub requested: Option<Bytes>,
    /// The boot memory that the VM was given.
    pub boot: Option<Bytes>,
}

/// A life that was named. Its report is kept: it may be acknowledged.
pub struct Named {
    /// Still open.
    pub conversation: Conversation,
    /// The first report of the life, or a later one where the call was repeated.
    pub reading: Reading,
    /// Which sandbox the guest was before, where that is another one: it is a clone.
    pub clone_of: Option<String>,
}

/// A count that was closed, and is held. Its report is kept: it may be acknowledged.
pub struct Closed {
    /// Still open: to be closed before the pause.
    pub conversation: Conversation,
    /// The life's last report.
    pub reading: Reading,
}

/// Why a call did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum LifeError {
    /// The guest.
    #[error(transparent)]
    Guest(#[from] ClientError),
    /// The file.
    #[error(transparent)]
    File(#[from] StateFileError),
}

impl StateFile {
    /// Names the life that begins, by the epoch of the call or a new one. A guest that has heard a later number gets one above
    /// it, for the same call.
    ///
    /// # Errors
    /// [`LifeError::File`] where nothing was sent, or the guest's answer could not be kept; else as for [`Client::resume`].
    pub async fn resume(&mut self, client: &Client, call: &Call) -> Result<Named, LifeError> {
        let event = call.event.as_deref();
        let known = self.record().epoch_of(event).map_err(|cause| self.fail(cause))?;
        let mut epoch = match known {
            Some(epoch) => epoch,
            None => self.mint(event, 0)?,
        };
        let before = RefCell::new(None);
        let mut raises = 0;
        loop {
            match self.name(client, call, epoch, &before).await {
                Ok((conversation, reading)) => {
                    self.keep(&reading)?;
                    let clone_of = before.take().filter(|before| before != self.record().sandbox());
                    return Ok(Named { conversation, reading, clone_of });
                }
                Err(error) => match error.cause.latest() {
                    Some(latest) if raises < RAISES_MAX => {
                        raises += 1;
                        epoch = self.mint(event, latest)?;
                    }
                    _ => return Err(error.into()),
                },
            }
        }
    }

    /// Closes the count of the last epoch, and holds it. A guest that is in none since it was last named gets one first.
    ///
    /// # Errors
    /// As for [`StateFile::resume`] and [`Client::checkpoint`].
    pub async fn checkpoint(&mut self, client: &Client, event: Option<&str>) -> Result<Closed, LifeError> {
        let mut conversation = client.retrying(|| client.converse()).await?;
        if conversation.welcome().epoch.source == EpochSource::Provisional {
            conversation.close().await?;
            let call = Call { event: event.map(str::to_owned), ..Call::default() };
            conversation = self.resume(client, &call).await?.conversation;
        }
        let current = conversation.welcome().epoch;
        let Some(Minted { id, number }) = self.record().last() else {
            return Err(self.fail(StateCause::NoEpoch(current.number)).into());
        };
        let asked = Checkpoint { epoch: id, number };
        let waiting = RefCell::new(Some(conversation));
        let closed = client.retrying(|| async {
            let open = waiting.borrow_mut().take();
            let mut conversation = match open {
                Some(conversation) => conversation,
                None => client.converse().await?,
            };
            let reading = conversation.checkpoint(asked).await?;
            Ok((conversation, reading))
        });
        let (conversation, reading) = closed.await?;
        self.keep(&reading)?;
        Ok(Closed { conversation, reading })
    }

    async fn name(
        &self,
        client: &Client,
        call: &Call,
        epoch: Minted,
        before: &RefCell<Option<String>>,
    ) -> Result<(Conversation, Reading), ClientError> {
        let (record, Call { paused, requested, boot, .. }) = (self.record(), call);
        let resume = |mark: Option<Mark>| Resume {
            epoch: epoch.id,
            number: epoch.number,
            paused: *paused,
            sandbox: record.sandbox().to_owned(),
            at: unix_now(),
            mark,
            requested: *requested,
            boot: *boot,
        };
        client
            .retrying(|| async {
                let mut conversation = client.converse().await?;
                let Welcome { boot_id, sandbox, epoch: current, .. } = conversation.welcome().clone();
                // An attempt that arrived has renamed it already.
                if current.id != epoch.id {
                    before.replace(sandbox);
                }
                let reading = conversation.resume(resume(record.mark(boot_id))).await?;
                Ok((conversation, reading))
            })
            .await
    }

    fn mint(&mut self, event: Option<&str>, latest: u64) -> Result<Minted, StateFileError> {
        let id = mint_epoch().map_err(|error| self.fail(StateCause::Random(error)))?;
        self.update(|record| record.mint(id, unix_now(), event, latest))
    }

    /// Nothing is acknowledged before it is kept.
    fn keep(&mut self, reading: &Reading) -> Result<(), StateFileError> {
        self.update(|record| {
            record.answered(&reading.report.identity, Counters::from(&reading.report.usage));
            Ok(())
        })
    }
}

pub(in crate::host) fn unix_now() -> Nanos {
    Nanos::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}
