//! Orgs with their plans, and the accounts of sandboxes.

use super::Ledger;
use super::entry::{Account, NewAccount, check_name, check_text, id_of, signed, unsigned};
use super::error::{LedgerCause, LedgerError};
use super::events::Fault;
use crate::meter::Count;
use crate::units::Nanos;
use crate::wire::message::{Counters, Mark};
use sqlx::any::AnyRow;
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, Row};
use std::collections::BTreeMap;

const COLUMNS: &str = "SELECT sandbox, org, version, boot_id, active_seconds, active_carry, mib_seconds, \
    mib_carry, millicpu_seconds, millicpu_carry, state, updated_at FROM account";

impl Ledger {
    /// A connection to ask with.
    pub(super) async fn ask(&self) -> Result<PoolConnection<Any>, LedgerCause> {
        self.same_file()?;
        match self.pool.acquire().await {
            Ok(connection) => Ok(connection),
            Err(error) => Err(self.cause_of_begin(&error).await),
        }
    }

    /// States an org's plan; `None` for unknown.
    ///
    /// # Errors
    /// A ledger that cannot be written, or a name that it does not take.
    pub async fn set_plan(&self, org: &str, plan: Option<&str>) -> Result<(), LedgerError> {
        self.bounded(async {
            let mut writing = self.write().await?;
            set_plan(writing.connection(), org, plan).await.map_err(|fault| fault.of(self))?;
            writing.commit().await
        })
        .await
    }

    /// An org's plan; `None` where it is not known.
    ///
    /// # Errors
    /// A ledger that cannot be asked.
    pub async fn plan(&self, org: &str) -> Result<Option<String>, LedgerError> {
        self.bounded(async {
            let mut connection = self.ask().await?;
            let row = sqlx::query("SELECT plan FROM org WHERE id = $1")
                .bind(org)
                .fetch_optional(&mut *connection)
                .await
                .map_err(|error| self.cause(&error))?;
            row.map_or(Ok(None), |row| row.try_get(0)).map_err(|error| self.cause(&error))
        })
        .await
    }

    /// Every org whose plan is known.
    ///
    /// # Errors
    /// A ledger that cannot be asked.
    pub async fn plans(&self) -> Result<BTreeMap<String, String>, LedgerError> {
        self.bounded(async {
            let mut connection = self.ask().await?;
            let rows = sqlx::query("SELECT id, plan FROM org WHERE plan IS NOT NULL")
                .fetch_all(&mut *connection)
                .await
                .map_err(|error| self.cause(&error))?;
            let pair = |row: &AnyRow| Ok((row.try_get(0)?, row.try_get(1)?));
            rows.iter().map(pair).collect::<Result<_, sqlx::Error>>().map_err(|error| self.cause(&error))
        })
        .await
    }

    /// A sandbox's account, if it was ever posted to.
    ///
    /// # Errors
    /// A ledger that cannot be asked.
    pub async fn account(&self, sandbox: &str) -> Result<Option<Account>, LedgerError> {
        self.bounded(async {
            let mut connection = self.ask().await?;
            let sql = sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE sandbox = $1"));
            let row = sqlx::query(sql).bind(sandbox).fetch_optional(&mut *connection).await;
            let row = row.map_err(|error| self.cause(&error))?;
            row.map(|row| account(&row).map_err(|fault| fault.of(self))).transpose()
        })
        .await
    }

    /// A page of accounts in the order of their sandboxes, after this one: what a worker reads when it starts.
    ///
    /// # Errors
    /// A ledger that cannot be asked.
    pub async fn accounts(&self, after: Option<&str>, at_most: u32) -> Result<Vec<Account>, LedgerError> {
        self.bounded(async {
            let mut connection = self.ask().await?;
            let sql = sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE sandbox > $1 ORDER BY sandbox LIMIT $2"));
            let rows = sqlx::query(sql)
                .bind(after.unwrap_or_default())
                .bind(i64::from(at_most))
                .fetch_all(&mut *connection)
                .await
                .map_err(|error| self.cause(&error))?;
            rows.iter().map(|row| account(row).map_err(|fault| fault.of(self))).collect()
        })
        .await
    }

    /// Forgets the account of a sandbox that is gone for good; its rows stay.
    ///
    /// # Errors
    /// A ledger that cannot be written.
    pub async fn forget(&self, sandbox: &str) -> Result<(), LedgerError> {
        self.bounded(async {
            let mut writing = self.write().await?;
            sqlx::query("DELETE FROM account WHERE sandbox = $1")
                .bind(sandbox)
                .execute(writing.connection())
                .await
                .map_err(|error| self.cause(&error))?;
            writing.commit().await
        })
        .await
    }
}

pub(super) async fn set_plan(
    connection: &mut AnyConnection,
    org: &str,
    plan: Option<&str>,
) -> Result<(), Fault> {
    check_name("org", org)?;
    if let Some(plan) = plan {
        check_name("plan", plan)?;
    }
    let sql =
        "INSERT INTO org (id, plan) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET plan = excluded.plan";
    sqlx::query(sql).bind(org).bind(plan.map(str::to_owned)).execute(connection).await?;
    Ok(())
}

/// The new version, or `None` where the account has another one than was expected. Locks the sandbox's books until
/// the transaction ends.
pub(super) async fn update(
    connection: &mut AnyConnection,
    sandbox: &str,
    account: &NewAccount,
) -> Result<Option<u64>, Fault> {
    check_name("sandbox", sandbox)?;
    check_name("org", &account.org)?;
    check_text("state", account.state.len())?;
    let expected = signed("version", account.expected_version)?;
    let sql = if expected == 0 {
        "INSERT INTO account (sandbox, version, org, boot_id, active_seconds, active_carry, mib_seconds, \
         mib_carry, millicpu_seconds, millicpu_carry, state, updated_at) \
         VALUES ($1, $2 + 1, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT (sandbox) DO NOTHING"
    } else {
        "UPDATE account SET version = version + 1, org = $3, boot_id = $4, active_seconds = $5, \
         active_carry = $6, mib_seconds = $7, mib_carry = $8, millicpu_seconds = $9, millicpu_carry = $10, \
         state = $11, updated_at = $12 WHERE sandbox = $1 AND version = $2"
    };
    let counters = account.mark.map(|mark| mark.counters).unwrap_or_default();
    let updated = sqlx::query(sql)
        .bind(sandbox)
        .bind(expected)
        .bind(account.org.as_str())
        .bind(account.mark.map(|mark| mark.boot_id.0.to_vec()))
        .bind(signed("active seconds", counters.active.whole)?)
        .bind(signed("active carry", counters.active.carry)?)
        .bind(signed("MiB seconds", counters.memory.whole)?)
        .bind(signed("memory carry", counters.memory.carry)?)
        .bind(signed("millicpu seconds", counters.cpu.whole)?)
        .bind(signed("CPU carry", counters.cpu.carry)?)
        .bind(account.state.clone())
        .bind(signed("updated_at", account.updated_at.0)?)
        .execute(connection)
        .await?;
    Ok((updated.rows_affected() == 1).then(|| account.expected_version.saturating_add(1)))
}

fn account(row: &AnyRow) -> Result<Account, Fault> {
    let boot_id: Option<Vec<u8>> = row.try_get(3)?;
    let counters = Counters {
        active: count(row, 4)?,
        memory: count(row, 6)?,
        cpu: count(row, 8)?,
        cpu_used: Nanos::ZERO,
    };
    let mark = boot_id.map(|bytes| id_of(bytes).map(|boot_id| Mark { boot_id, counters })).transpose()?;
    Ok(Account {
        sandbox: row.try_get(0)?,
        org: row.try_get(1)?,
        version: unsigned(row.try_get(2)?)?,
        mark,
        state: row.try_get(10)?,
        updated_at: Nanos(unsigned(row.try_get(11)?)?),
    })
}

fn count<const UNIT: u64>(row: &AnyRow, column: usize) -> Result<Count<UNIT>, Fault> {
    Ok(Count { whole: unsigned(row.try_get(column)?)?, carry: unsigned(row.try_get(column + 1)?)? })
}
