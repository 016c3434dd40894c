//! What the commands that ask a ledger have in common: `--db`, instants, exact numbers in JSON.

use super::error::CliError;
use crate::host::decimal::quotient;
use crate::host::json::unsteering;
use crate::host::ledger::{Access, Ledger, Limits, Size, parse_instant};
use crate::units::{MibNanos, Nanos};
use serde::Serialize;
use serde_json::value::RawValue;
use std::time::{Duration, SystemTime};

/// MiB·ns in one GiB·s.
const GIB_SECOND: u128 = 1024 * 1_000_000_000;

#[derive(clap::Args)]
pub(super) struct DbArgs {
    /// The ledger: sqlite:PATH or postgres://USER@HOST/DATABASE
    #[arg(
        long,
        value_name = "LEDGER",
        env = "GUESTMETER_DB",
        hide_env_values = true,
        default_value = "sqlite:/var/lib/guestmeter/ledger.db"
    )]
    db: String,
}

/// It may hold a password.
impl std::fmt::Debug for DbArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DbArgs")
    }
}

/// The stretch of time that a question is about.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct WindowArgs {
    /// From when on: 2026-06-08T16:00:00Z, or nanoseconds since 1970
    #[arg(long, value_name = "INSTANT", value_parser = parse_when)]
    pub(super) from: Nanos,
    /// Until when, that instant excluded
    #[arg(long, value_name = "INSTANT", value_parser = parse_when)]
    pub(super) to: Nanos,
    /// Until when open rows go on [default: this machine's clock]
    #[arg(long, value_name = "INSTANT", value_parser = parse_when)]
    now: Option<Nanos>,
}

impl WindowArgs {
    pub(super) fn now(&self) -> Nanos {
        self.now.unwrap_or_else(clock)
    }
}

impl DbArgs {
    /// A person's question may take a while.
    pub(super) async fn ask(&self) -> Result<Ledger, CliError> {
        let limits = Limits { statement: Duration::from_mins(10), connections: 1, ..Limits::default() };
        Ok(Ledger::open_with(self.db.parse()?, Access::Read, limits).await?)
    }

    /// For work on all of it.
    pub(super) async fn open(&self, access: Access) -> Result<Ledger, CliError> {
        let limits = Limits { connections: 1, ..Limits::for_all_of_it() };
        Ok(Ledger::open_with(self.db.parse()?, access, limits).await?)
    }
}

/// RFC 3339, or nanoseconds since 1970 as `ledger export` may have them.
pub(super) fn parse_when(text: &str) -> Result<Nanos, String> {
    parse_instant(text).ok_or_else(|| {
        "not an instant from 1970 to 2262; write 2026-06-08T16:00:00Z, or nanoseconds since 1970".to_owned()
    })
}

/// This machine's clock.
pub(super) fn clock() -> Nanos {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map(Nanos::from).unwrap_or_default()
}

/// RFC 3339 to the nanosecond.
pub(super) fn instant(at: Nanos) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(at.0)).map_or_else(|_| at.0.to_string(), |at| at.to_string())
}

pub(super) fn gib_seconds(memory: MibNanos) -> String {
    quotient(memory.0, GIB_SECOND, 9).unwrap_or_default()
}

/// A decimal as it stands: through a float it would be another number.
pub(super) fn number(decimal: String) -> Result<Box<RawValue>, CliError> {
    Ok(RawValue::from_string(decimal)?)
}

/// One line of JSON. Names came from a file: what a terminal acts on is escaped.
pub(super) fn line(document: &impl Serialize) -> Result<String, CliError> {
    Ok(unsteering(&serde_json::to_string(document)?))
}

/// A size and how long it was had; nanoseconds pass 2^53, so they are a string.
#[derive(Serialize)]
pub(super) struct CapacityDocument {
    memory_mib: u64,
    cpu_millis: u64,
    active_ns: String,
}

impl CapacityDocument {
    pub(super) fn new(size: Size, active_ns: u128) -> Self {
        Self { memory_mib: size.memory.0, cpu_millis: size.cpu.0, active_ns: active_ns.to_string() }
    }
}
