//! Calls of the platform, each once, and the epochs minted for them.

use super::Ledger;
use super::entry::{Answer, Begun, Event, Minted, check_name, check_text, id_of, signed, unsigned};
use super::error::{LedgerCause, LedgerError};
use crate::host::random::mint_epoch;
use crate::units::Nanos;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

/// The most calls that one question about a sandbox gets.
const EVENTS_MAX: i64 = 100_000;
/// How far ahead of this host a clock may be that a guest's number is believed to come from: one guest's word must not use up
/// the numbers of all.
const NUMBER_LEAD_MAX: Nanos = Nanos::from_secs(10 * 366 * 86_400);

impl Ledger {
    /// Records a call, and mints its epoch if it begins a life; both are committed when this returns. A repeated call
    /// gets what the first one got, and its answer once there is one.
    ///
    /// # Errors
    /// An id that another call has: another sandbox, another kind.
    pub async fn begin_event(&self, event: &Event) -> Result<Begun, LedgerError> {
        self.bounded(async {
            check_event(event)?;
            let mut writing = self.write().await?;
            let begun = begin(writing.connection(), event).await.map_err(|fault| fault.of(self))?;
            writing.commit().await?;
            Ok(begun)
        })
        .await
    }

    /// Gives a recorded event its answer, unless it has one. The answer it has from now on, its first.
    ///
    /// # Errors
    /// As for [`Ledger::begin_event`].
    pub async fn answer_event(&self, answer: &Answer) -> Result<String, LedgerError> {
        self.bounded(async {
            let mut writing = self.write().await?;
            let first = claim(writing.connection(), answer).await.map_err(|fault| fault.of(self))?;
            writing.commit().await?;
            Ok(first.unwrap_or_else(|| answer.text.clone()))
        })
        .await
    }

    /// What is known of a call, if it ever came.
    ///
    /// # Errors
    /// A ledger that cannot be asked.
    pub async fn event(&self, id: &str) -> Result<Option<(Event, Begun)>, LedgerError> {
        self.bounded(async {
            let mut connection = self.ask().await?;
            find(&mut connection, id).await.map_err(|fault| fault.of(self))
        })
        .await
    }

    /// A sandbox's calls with an instant in `[from, to)`, oldest first.
    ///
    /// # Errors
    /// A ledger that cannot be asked.
    pub async fn events(&self, sandbox: &str, from: Nanos, to: Nanos) -> Result<Vec<Event>, LedgerError> {
        let sql = "SELECT id, kind, at, epoch FROM event \
                   WHERE sandbox = $1 AND at >= $2 AND at < $3 ORDER BY at, id LIMIT $4";
        self.between(sql, (sandbox, from, to), EVENTS_MAX, |row| event(row, sandbox)).await
    }

    /// Mints an epoch that no call of the platform asked for, such as an adoption's.
    ///
    /// # Errors
    /// A ledger that cannot be written.
    pub async fn mint(&self, sandbox: &str, at: Nanos) -> Result<Minted, LedgerError> {
        self.bounded(async {
            check_name("sandbox", sandbox)?;
            let mut writing = self.write().await?;
            let minted = mint(writing.connection(), sandbox, at, 0).await.map_err(|fault| fault.of(self))?;
            writing.commit().await?;
            Ok(minted)
        })
        .await
    }

    /// Mints another epoch in the place of the one with number `refused`, above the number `latest` that its guest has
    /// heard; the call that the refused one was minted for has this one then.
    ///
    /// # Errors
    /// A ledger that cannot be written; a `latest` that no clock could have given, which is a guest's word alone.
    pub async fn mint_above(
        &self,
        sandbox: &str,
        at: Nanos,
        refused: u64,
        latest: u64,
    ) -> Result<Minted, LedgerError> {
        self.bounded(async {
            check_name("sandbox", sandbox)?;
            if latest > at.0.saturating_add(NUMBER_LEAD_MAX.0) {
                let fault = "more than ten years ahead of this host's clock";
                return Err(LedgerCause::Invalid {
                    what: format!("the guest's epoch number {latest}"),
                    fault,
                });
            }
            let mut writing = self.write().await?;
            let connection = writing.connection();
            let minted = mint(connection, sandbox, at, latest).await.map_err(|fault| fault.of(self))?;
            sqlx::query("UPDATE event SET epoch = $1 WHERE epoch = $2")
                .bind(signed("epoch", minted.number)?)
                .bind(signed("epoch", refused)?)
                .execute(&mut *connection)
                .await
                .map_err(|error| self.cause(&error))?;
            writing.commit().await?;
            Ok(minted)
        })
        .await
    }

    /// A sandbox's epochs, oldest first.
    ///
    /// # Errors
    /// A ledger that cannot be asked.
    pub async fn epochs(&self, sandbox: &str) -> Result<Vec<Minted>, LedgerError> {
        self.bounded(async {
            let sql = "SELECT number, id, sandbox, minted_at FROM epoch WHERE sandbox = $1 ORDER BY number";
            let mut connection = self.ask().await?;
            let rows = sqlx::query(sql).bind(sandbox).fetch_all(&mut *connection).await;
            let rows = rows.map_err(|error| self.cause(&error))?;
            rows.iter().map(|row| minted(row).map_err(|fault| fault.of(self))).collect()
        })
        .await
    }
}

/// What the database says, or what its content says.
pub(super) enum Fault {
    Sql(sqlx::Error),
    Cause(LedgerCause),
}

impl Fault {
    pub(super) fn of(self, ledger: &Ledger) -> LedgerCause {
        match self {
            Self::Sql(error) => ledger.cause(&error),
            Self::Cause(cause) => cause,
        }
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<LedgerCause> for Fault {
    fn from(cause: LedgerCause) -> Self {
        Self::Cause(cause)
    }
}

fn check_event(event: &Event) -> Result<(), LedgerCause> {
    check_name("event", &event.id)?;
    check_name("sandbox", &event.sandbox)?;
    check_name("kind", &event.kind)
}

async fn begin(connection: &mut AnyConnection, event: &Event) -> Result<Begun, Fault> {
    if !insert(connection, event, None).await? {
        let Some((known, begun)) = find(connection, &event.id).await? else {
            return Err(LedgerCause::Database("an event came and went".to_owned()).into());
        };
        same_call(&known, event)?;
        return Ok(begun);
    }
    let mut epoch = None;
    if event.mints {
        let minted = mint(connection, &event.sandbox, event.at, 0).await?;
        sqlx::query("UPDATE event SET epoch = $2 WHERE id = $1")
            .bind(event.id.as_str())
            .bind(signed("epoch", minted.number)?)
            .execute(connection)
            .await?;
        epoch = Some(minted);
    }
    Ok(Begun { first: true, epoch, answer: None })
}

/// Writes the answer where there is none; else the answer that is there.
pub(super) async fn claim(connection: &mut AnyConnection, answer: &Answer) -> Result<Option<String>, Fault> {
    check_event(&answer.event)?;
    check_text("answer", answer.text.len())?;
    if insert(connection, &answer.event, Some(&answer.text)).await? {
        return Ok(None);
    }
    let Some((known, _)) = find(connection, &answer.event.id).await? else {
        return Err(LedgerCause::Database("an event came and went".to_owned()).into());
    };
    same_call(&known, &answer.event)?;
    let claimed = sqlx::query("UPDATE event SET answer = $2 WHERE id = $1 AND answer IS NULL")
        .bind(answer.event.id.as_str())
        .bind(answer.text.as_str())
        .execute(&mut *connection)
        .await?;
    if claimed.rows_affected() == 1 {
        return Ok(None);
    }
    let first = sqlx::query_scalar("SELECT answer FROM event WHERE id = $1")
        .bind(answer.event.id.as_str())
        .fetch_one(connection)
        .await?;
    Ok(Some(first))
}

/// Whether it was not there yet.
async fn insert(connection: &mut AnyConnection, event: &Event, answer: Option<&str>) -> Result<bool, Fault> {
    let inserted = sqlx::query(
        "INSERT INTO event (id, sandbox, kind, at, answer) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
    )
    .bind(event.id.as_str())
    .bind(event.sandbox.as_str())
    .bind(event.kind.as_str())
    .bind(signed("at", event.at.0)?)
    .bind(answer.map(str::to_owned))
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

fn same_call(known: &Event, asked: &Event) -> Result<(), Fault> {
    let fault = if known.sandbox != asked.sandbox {
        "it is another sandbox's"
    } else if known.kind != asked.kind {
        "it is another kind of call"
    } else {
        return Ok(());
    };
    Err(LedgerCause::Conflict { id: format!("event {}", asked.id), fault }.into())
}

async fn find(connection: &mut AnyConnection, id: &str) -> Result<Option<(Event, Begun)>, Fault> {
    let sql = "SELECT p.number, p.id, p.sandbox, p.minted_at, e.sandbox, e.kind, e.at, e.answer \
               FROM event AS e LEFT JOIN epoch AS p ON p.number = e.epoch WHERE e.id = $1";
    let Some(row) = sqlx::query(sql).bind(id).fetch_optional(connection).await? else { return Ok(None) };
    let number: Option<i64> = row.try_get(0)?;
    let epoch = number.map(|_| minted(&row)).transpose()?;
    let event = Event {
        id: id.to_owned(),
        sandbox: row.try_get(4)?,
        kind: row.try_get(5)?,
        at: Nanos(unsigned(row.try_get(6)?)?),
        mints: epoch.is_some(),
    };
    Ok(Some((event, Begun { first: false, epoch, answer: row.try_get(7)? })))
}

fn event(row: &AnyRow, sandbox: &str) -> Result<Event, Fault> {
    let epoch: Option<i64> = row.try_get(3)?;
    Ok(Event {
        id: row.try_get(0)?,
        sandbox: sandbox.to_owned(),
        kind: row.try_get(1)?,
        at: Nanos(unsigned(row.try_get(2)?)?),
        mints: epoch.is_some(),
    })
}

/// Above all that were minted here and above `latest`, and no less than the time.
async fn mint(
    connection: &mut AnyConnection,
    sandbox: &str,
    at: Nanos,
    latest: u64,
) -> Result<Minted, Fault> {
    let id = mint_epoch()
        .map_err(|error| LedgerCause::Database(format!("no random number from the system: {error}")))?;
    let least = signed("epoch", at.0.max(latest.saturating_add(1)))?;
    let sql =
        "UPDATE epoch_last SET number = CASE WHEN number >= $1 THEN number + 1 ELSE $1 END RETURNING number";
    let number: i64 = sqlx::query_scalar(sql).bind(least).fetch_one(&mut *connection).await?;
    sqlx::query("INSERT INTO epoch (number, id, sandbox, minted_at) VALUES ($1, $2, $3, $4)")
        .bind(number)
        .bind(id.0.to_vec())
        .bind(sandbox)
        .bind(signed("at", at.0)?)
        .execute(connection)
        .await?;
    Ok(Minted { id, number: unsigned(number)?, sandbox: sandbox.to_owned(), minted_at: at })
}

fn minted(row: &AnyRow) -> Result<Minted, Fault> {
    Ok(Minted {
        number: unsigned(row.try_get(0)?)?,
        id: id_of(row.try_get(1)?)?,
        sandbox: row.try_get(2)?,
        minted_at: Nanos(unsigned(row.try_get(3)?)?),
    })
}
