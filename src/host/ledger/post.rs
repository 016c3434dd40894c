//! A decision into the ledger: all of it or nothing, once, and only if the account is still the one it was made from.

use super::Ledger;
use super::accounts;
use super::entry::{Change, Posted, Posting, Verdict, check_name, check_text, signed, unsigned};
use super::error::{LedgerCause, LedgerError, LedgerFault};
use super::events::{self, Fault};
use super::location::Engine;
use super::open::Writing;
use super::put;
use crate::units::Nanos;
use sqlx::AnyConnection;

/// The advisory lock that a prune takes alone, and postings together: none of them may have seen the time before it.
pub(super) const PRUNE_LOCK: i64 = 0x676d_7472_7072_756e;

impl Ledger {
    /// Posts one decision.
    ///
    /// # Errors
    /// A ledger that cannot be written, or a value that contradicts it. Nothing was changed then, unless the error
    /// is of the [`TryAgain`](super::LedgerFault::TryAgain) kind: then it is not known, and posting again tells.
    pub async fn post_one(&self, posting: &Posting) -> Result<Posted, LedgerError> {
        self.bounded(async {
            let mut writing = self.write().await?;
            let posted = self.apply(&mut writing, posting, &mut None).await?;
            match posted {
                Posted::Done { .. } => writing.commit().await?,
                _ => writing.rollback().await?,
            }
            Ok(posted)
        })
        .await
    }

    /// Posts many decisions, each on its own: one that does not fit leaves the others as they would be without it. Fast
    /// where all succeed, for they share a transaction then. A ledger that fails is not asked again for the rest.
    pub async fn post(&self, postings: &[Posting]) -> Vec<Result<Posted, LedgerError>> {
        if postings.len() > 1 {
            match self.bounded(self.together(postings)).await {
                Ok(Some(posted)) => return posted.into_iter().map(Ok).collect(),
                Ok(None) => {}
                Err(error) => return postings.iter().map(|_| Err(error.clone())).collect(),
            }
        }
        let mut posted = Vec::with_capacity(postings.len());
        let mut failed: Option<LedgerError> = None;
        for posting in postings {
            let one = match &failed {
                Some(error) => Err(error.clone()),
                None => self.post_one(posting).await,
            };
            if let Err(error) = &one
                && error.fault() != LedgerFault::Data
            {
                failed = Some(error.clone());
            }
            posted.push(one);
        }
        posted
    }

    /// Whether it takes anything at all: writes what is there already.
    ///
    /// # Errors
    /// A ledger that cannot be written.
    pub async fn probe(&self) -> Result<(), LedgerError> {
        self.bounded(async {
            let mut writing = self.write().await?;
            let same = sqlx::query("UPDATE pruned SET before = before").execute(writing.connection()).await;
            same.map_err(|error| self.cause(&error))?;
            writing.commit().await
        })
        .await
    }

    /// The instant before which only hourly totals are kept: no row that begins earlier is new.
    ///
    /// # Errors
    /// A ledger that cannot be asked.
    pub async fn pruned_before(&self) -> Result<Nanos, LedgerError> {
        self.bounded(async {
            let mut connection = self.ask().await?;
            let before = pruned_at(&mut connection).await;
            before.map_err(|fault| fault.of(self))
        })
        .await
    }

    /// `None` where one of them is not simply done.
    async fn together(&self, postings: &[Posting]) -> Result<Option<Vec<Posted>>, LedgerCause> {
        // In one order by all workers, so that two never wait for each other.
        let mut order: Vec<(usize, &Posting)> = postings.iter().enumerate().collect();
        order.sort_by(|(_, a), (_, b)| a.sandbox.cmp(&b.sandbox));
        let mut writing = self.write().await?;
        let mut pruned = None;
        let mut posted = Vec::with_capacity(order.len());
        for (index, posting) in order {
            match self.apply(&mut writing, posting, &mut pruned).await {
                Ok(done @ Posted::Done { .. }) => posted.push((index, done)),
                Err(cause) if cause.fault() != LedgerFault::Data => return Err(cause),
                _ => {
                    writing.rollback().await?;
                    return Ok(None);
                }
            }
        }
        writing.commit().await?;
        posted.sort_by_key(|(index, _)| *index);
        Ok(Some(posted.into_iter().map(|(_, done)| done).collect()))
    }

    /// `pruned` is the instant before which nothing new is taken, once it is known in this transaction.
    async fn apply(
        &self,
        writing: &mut Writing<'_>,
        posting: &Posting,
        pruned: &mut Option<Nanos>,
    ) -> Result<Posted, LedgerCause> {
        let engine = self.location().engine();
        apply(writing.connection(), engine, posting, pruned).await.map_err(|fault| fault.of(self))
    }
}

async fn apply(
    connection: &mut AnyConnection,
    engine: Engine,
    posting: &Posting,
    pruned: &mut Option<Nanos>,
) -> Result<Posted, Fault> {
    if let Some(answer) = &posting.answers
        && let Some(first) = events::claim(connection, answer).await?
    {
        return Ok(Posted::Repeat(first));
    }
    let Some(version) = accounts::update(connection, &posting.sandbox, &posting.account).await? else {
        return Ok(Posted::Stale);
    };
    for change in &posting.changes {
        match change {
            Change::Row(row) => {
                let before = pruned_before(connection, engine, pruned).await?;
                put::row(connection, &posting.sandbox, row, before).await?;
            }
            Change::Sample(counted) => {
                let before = pruned_before(connection, engine, pruned).await?;
                put::sample(connection, &posting.sandbox, counted, before).await?;
            }
            Change::Cut { epoch, at } => put::cut(connection, &posting.sandbox, *epoch, *at).await?,
            Change::Verdict(found) => verdict(connection, &posting.sandbox, found).await?,
        }
    }
    Ok(Posted::Done { version })
}

/// The instant before which only hourly totals are kept; no prune moves it until this transaction ends.
pub(super) async fn pruned_before(
    connection: &mut AnyConnection,
    engine: Engine,
    known: &mut Option<Nanos>,
) -> Result<Nanos, Fault> {
    if let Some(before) = *known {
        return Ok(before);
    }
    // SQLite's transaction is the only one that writes. A statement sees what was committed before it began, so the
    // lock comes in one of its own.
    if engine == Engine::Postgres {
        sqlx::query("SELECT pg_advisory_xact_lock_shared($1)")
            .bind(PRUNE_LOCK)
            .execute(&mut *connection)
            .await?;
    }
    Ok(*known.insert(pruned_at(connection).await?))
}

/// As it was last committed.
async fn pruned_at(connection: &mut AnyConnection) -> Result<Nanos, Fault> {
    let before: i64 = sqlx::query_scalar("SELECT before FROM pruned").fetch_one(connection).await?;
    Ok(Nanos(unsigned(before)?))
}

async fn verdict(connection: &mut AnyConnection, sandbox: &str, verdict: &Verdict) -> Result<(), Fault> {
    check_name("verdict id", &verdict.id)?;
    check_name("verdict", &verdict.verdict)?;
    check_text("verdict detail", verdict.detail.len())?;
    let sql = "INSERT INTO verdict (id, sandbox, at, verdict, detail) VALUES ($1, $2, $3, $4, $5) \
               ON CONFLICT (id) DO NOTHING";
    sqlx::query(sql)
        .bind(verdict.id.as_str())
        .bind(sandbox)
        .bind(signed("at", verdict.at.0)?)
        .bind(verdict.verdict.as_str())
        .bind(verdict.detail.as_str())
        .execute(connection)
        .await?;
    Ok(())
}
