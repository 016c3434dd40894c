//! Telling a guest which epoch it is in: committed first, then said, then its answer committed.

use super::core::{Commit, Core};
use super::desk::NotPosted;
use super::fleet::{Sandbox, State};
use super::metrics::label;
use super::order::Named;
use super::talk::{self, Heard, Saying};
use crate::host::client::Client;
use crate::host::conversation::Conversation;
use crate::host::error::{Cause, ClientError, Kind};
use crate::host::reconcile::{Call, Evidence, Lifecycle, Minted};
use crate::wire::message::Welcome;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// Between two attempts to reach a guest that was just restored.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_millis(500);

/// Why a guest is not in its sandbox's epoch.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unnamed {
    /// It has none.
    #[error("its descriptor names no agent")]
    NoAgent,
    /// It could not be reached, or did not answer as it should.
    #[error(transparent)]
    Guest(#[from] ClientError),
    /// The epoch could not be committed.
    #[error("the ledger: {0}")]
    Ledger(NotPosted),
    /// Another host has named it since.
    #[error("the guest is in a later epoch, number {0}, which this ledger's sandbox does not have")]
    Foreign(u64),
    /// No time is left.
    #[error("the guest did not answer within {0:?}")]
    Late(Duration),
}

/// A guest that is in its sandbox's epoch.
pub(super) struct Reached {
    pub(super) conversation: Conversation,
    /// What it said to being named, committed; `None` where it knew.
    pub(super) heard: Option<Heard>,
}

impl Core {
    /// Reaches the guest until `deadline`, and names it where it is in another epoch than its sandbox's.
    pub(super) async fn reach(
        &self,
        sandbox: &Sandbox,
        state: &mut State,
        client: &Client,
        limit: Duration,
    ) -> Result<Reached, Unnamed> {
        let deadline = Instant::now() + limit;
        let mut pause = RETRY_FIRST;
        loop {
            let error = match timeout_at(deadline, self.attempt(sandbox, state, client)).await {
                Ok(Ok(reached)) => return Ok(reached),
                Ok(Err(Unnamed::Guest(error))) if error.cause.kind() == Kind::TryAgain => error,
                Ok(Err(other)) => return Err(other),
                Err(_) => return Err(Unnamed::Late(limit)),
            };
            if Instant::now() + pause >= deadline {
                return Err(error.into());
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    async fn attempt(
        &self,
        sandbox: &Sandbox,
        state: &mut State,
        client: &Client,
    ) -> Result<Reached, Unnamed> {
        let mut conversation = client.converse().await?;
        let welcome = conversation.welcome().clone();
        self.load(sandbox, state).await.map_err(Unnamed::Ledger)?;
        let page = state.books.as_ref().and_then(|books| books.page().ok());
        let Some(page) = page else { return Err(Unnamed::Ledger(NotPosted::Stale)) };
        let named = match talk::saying(&page.life, welcome.epoch) {
            Saying::Nothing => {
                self.confirm(sandbox, state).await.map_err(Unnamed::Ledger)?;
                return Ok(Reached { conversation, heard: None });
            }
            Saying::Again(named) => named,
            Saying::New => {
                // A commit may take a while, and the guest hangs up on who is silent: it is reached anew.
                conversation.close().await?;
                let named = self.adopt(sandbox, state).await.map_err(Unnamed::Ledger)?;
                conversation = client.converse().await?;
                named
            }
            Saying::Above(refused) => {
                conversation.close().await?;
                let named = self.mint_above(sandbox, state, refused, welcome.epoch.number).await?;
                conversation = client.converse().await?;
                named
            }
            Saying::Foreign => {
                // Another worker of this ledger may have named it: what it wrote is read before the next attempt.
                state.books = None;
                return Err(Unnamed::Foreign(welcome.epoch.number));
            }
        };
        let mark = page.account.mark(welcome.boot_id);
        let copy_of = self.original(sandbox, state, &welcome);
        let clock = &self.clock;
        let told = talk::resume(&mut conversation, clock, &sandbox.name, named, mark, copy_of.clone()).await;
        let (named, heard) = match told {
            // The guest has heard a later number than its present epoch's.
            Err(error) if let Some(latest) = error.cause.latest() => {
                conversation.close().await?;
                let named = self.mint_above(sandbox, state, named, latest).await?;
                conversation = client.converse().await?;
                (named, talk::resume(&mut conversation, clock, &sandbox.name, named, mark, copy_of).await?)
            }
            told => (named, told?),
        };
        self.named(sandbox, state, named, &heard).await?;
        Ok(Reached { conversation, heard: Some(heard) })
    }

    /// Commits what a guest said to being named.
    async fn named(
        &self,
        sandbox: &Sandbox,
        state: &mut State,
        named: Named,
        heard: &Heard,
    ) -> Result<(), Unnamed> {
        let written = self
            .write(sandbox, state, Commit::Now, |draft| {
                self.take(draft, &heard.evidence);
                if let Some(epoch) = &mut draft.page.life.epoch
                    && epoch.id == named.id
                {
                    epoch.confirmed = true;
                }
                None
            })
            .await;
        match written {
            Ok(written) => {
                state.acks.extend(written.draft.acks);
                state.unnamed_since = None;
                Ok(())
            }
            Err(error) => {
                state.held = heard.evidence.last().cloned().map(Box::new);
                Err(Unnamed::Ledger(error))
            }
        }
    }

    /// The guest is in the epoch already: its answer was lost, or a worker's memory of it.
    async fn confirm(&self, sandbox: &Sandbox, state: &mut State) -> Result<(), NotPosted> {
        let page = state.books.as_ref().and_then(|books| books.page().ok());
        let confirmed = page.and_then(|page| page.life.epoch).is_some_and(|epoch| epoch.confirmed);
        if confirmed {
            return Ok(());
        }
        let confirm = |draft: &mut super::books::Draft| {
            if let Some(epoch) = &mut draft.page.life.epoch {
                epoch.confirmed = true;
            }
            None
        };
        self.write(sandbox, state, Commit::Now, confirm).await.map(|_| ())
    }

    /// Mints and commits an epoch for a guest that runs on in one that nobody named, or in one of its past. No edge of
    /// life: its row stays.
    async fn adopt(&self, sandbox: &Sandbox, state: &mut State) -> Result<Named, NotPosted> {
        let at = self.clock.now().unix;
        let minted = self.desk.mint(&sandbox.name, at).await?;
        let epoch = Minted { id: minted.id, number: minted.number };
        let page = state.books.as_ref().and_then(|books| books.page().ok());
        let requested = page.and_then(|page| page.life.epoch).and_then(|epoch| epoch.requested);
        let Minted { id, number } = epoch;
        let named = Named { id, number, paused: false, at, requested, confirmed: false };
        let named = self.rename(sandbox, state, epoch, named).await?;
        self.metrics.adoptions.inc();
        tracing::info!(
            sandbox = sandbox.name,
            number = minted.number,
            "a guest that nobody named gets an epoch"
        );
        Ok(named)
    }

    /// Mints and commits an epoch in the place of one whose number the guest refuses, for the same call.
    async fn mint_above(
        &self,
        sandbox: &Sandbox,
        state: &mut State,
        refused: Named,
        latest: u64,
    ) -> Result<Named, Unnamed> {
        let at = self.clock.now().unix;
        let minted = self.desk.mint_above(&sandbox.name, at, refused.number, latest).await;
        let minted = minted.map_err(Unnamed::Ledger)?;
        let epoch = Minted { id: minted.id, number: minted.number };
        let renamed =
            self.rename(sandbox, state, epoch, Named { id: epoch.id, number: epoch.number, ..refused });
        let named = renamed.await.map_err(Unnamed::Ledger)?;
        tracing::info!(
            sandbox = sandbox.name,
            latest,
            number = epoch.number,
            "a number above the guest's own"
        );
        Ok(named)
    }

    /// Commits another name of the life that runs.
    async fn rename(
        &self,
        sandbox: &Sandbox,
        state: &mut State,
        epoch: Minted,
        named: Named,
    ) -> Result<Named, NotPosted> {
        let written = self
            .write(sandbox, state, Commit::Now, |draft| {
                let evidence = Evidence::Lifecycle(Lifecycle { at: named.at, call: Call::Named { epoch } });
                self.take(draft, &[evidence]);
                draft.page.life.rename(named);
                None
            })
            .await?;
        written.draft.page.life.epoch.ok_or(NotPosted::Stale)
    }

    /// Whose guest this one was copied from, by its own word or by its boot.
    fn original(&self, sandbox: &Sandbox, state: &mut State, welcome: &Welcome) -> Option<String> {
        let before = state.boot.replace(welcome.boot_id);
        let first = self.fleet.booted(&sandbox.name, before, welcome.boot_id);
        let said = welcome.sandbox.clone().filter(|said| *said != sandbox.name);
        said.or(first)
    }

    /// Says that what is committed may be forgotten.
    pub(super) async fn acknowledge(&self, state: &mut State, conversation: &mut Conversation) {
        while let Some(ack) = state.acks.first() {
            match conversation.ack(ack).await {
                Ok(()) => {
                    state.acks.done(ack);
                    self.metrics.acks.inc();
                }
                Err(ClientError { cause: Cause::Refused(_), .. }) => state.acks.done(ack),
                // Said again at the next visit.
                Err(error) => return tracing::debug!(%error, "an ack did not arrive"),
            }
        }
    }

    /// Counts a failure to name.
    pub(super) fn count_unnamed(&self, error: &Unnamed) {
        let name = match error {
            Unnamed::Guest(error) => talk::failure(error),
            Unnamed::Late(_) => "timeout",
            Unnamed::Foreign(_) => "foreign_epoch",
            Unnamed::Ledger(_) => "ledger",
            Unnamed::NoAgent => return,
        };
        self.metrics.polls.get_or_create(&label(name)).inc();
    }
}
