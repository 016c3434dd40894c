//! The demo's ledger: asked as a person would ask it, and with a known incident put into it.

use super::DemoError;
use super::platform::{ORG, SANDBOX, Seen};
use super::process::this_program;
use super::proof::Check;
use super::worker::database;
use crate::host::cli::books::instant;
use crate::host::cli::output::Output;
use crate::host::ledger::usage::HOUR;
use crate::host::ledger::{
    Access, Change, Ledger, Limits, NewAccount, Posted, Posting, RowPut, SampleRow, ScaleEvent,
};
use crate::host::text::span;
use crate::units::Nanos;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What `explain` calls the incident.
const CAUSE: &str = "row_left_open";
/// How long the books are asked about, once the VM is gone.
const AFTER: Nanos = HOUR;
/// And how much later: samples of an hour are waited for until it is over.
const LATER: Nanos = Nanos(3 * HOUR.0);

/// The ledger, and the window that the questions are about.
pub(super) struct Questions<'a> {
    database: String,
    program: PathBuf,
    output: &'a mut Output,
    /// Whole seconds, to be read by a person.
    from: Nanos,
    ended: Nanos,
}

/// Of `explain --json`, what is checked.
#[derive(Debug, Deserialize)]
pub(super) struct Explained {
    agree: bool,
    causes: Vec<Cause>,
}

#[derive(Debug, Deserialize)]
struct Cause {
    cause: String,
    active_ns: String,
}

impl<'a> Questions<'a> {
    pub(super) fn new(folder: &Path, seen: &Seen, output: &'a mut Output) -> Result<Self, DemoError> {
        let (from, ended) = (seen.began_at, seen.ended_at);
        Ok(Self {
            database: database(folder),
            program: this_program("ledger's questions")?,
            output,
            from: Nanos(from.0 - from.0 % Nanos::SECOND.0),
            ended: Nanos((ended.0 / Nanos::SECOND.0).saturating_add(1).saturating_mul(Nanos::SECOND.0)),
        })
    }

    /// Both books of the sandbox.
    pub(super) async fn books(&self) -> Result<(Vec<ScaleEvent>, Vec<SampleRow>), DemoError> {
        let ledger = self.open(Access::Read).await?;
        let (from, to) = (self.from.saturating_sub(AFTER), self.ended.saturating_add(AFTER));
        let rows = ledger.scale_events(SANDBOX, from, to).await?;
        let samples = ledger.samples(SANDBOX, from, to).await?;
        ledger.close().await;
        let lasts = |start: Nanos, end: Option<Nanos>| end != Some(start);
        Ok((
            rows.into_iter().filter(|row| lasts(row.started_at, row.ended_at)).collect(),
            samples.into_iter().filter(|one| lasts(one.started_at, Some(one.ended_at))).collect(),
        ))
    }

    /// Asks about the VM's life, right after it.
    pub(super) fn healthy(&mut self) -> Result<Check, DemoError> {
        let (from, to) = (instant(self.from), instant(self.ended));
        self.show(&["usage", "--org", ORG, "--from", &from, "--to", &to])?;
        let (first, last) = self.hours();
        self.show(&["parity", "--from", &instant(first), "--to", &instant(last)])?;
        let question = ["explain", "--sandbox", SANDBOX, "--from", &from, "--to", &to];
        self.show(&question)?;
        let Explained { agree, causes } = self.explained(&question)?;
        let text = "both books agree: there is nothing to explain".to_owned();
        Ok(Check { holds: agree && causes.is_empty(), text })
    }

    /// Opens the last row again, as it stands when a host dies before it could close it. Returns when it was closed.
    pub(super) async fn reopen(&self) -> Result<Nanos, DemoError> {
        let (rows, _) = self.books().await?;
        let last = rows.into_iter().next_back();
        let (last, closed, epoch) =
            last.and_then(|row| Some((row.clone(), row.ended_at?, row.epoch?))).ok_or(DemoError::NoRow)?;
        let ledger = self.open(Access::Write).await?;
        let account = ledger.account(SANDBOX).await?.ok_or(DemoError::NoRow)?;
        let ScaleEvent { org, size, started_at, .. } = last;
        let posting = Posting {
            sandbox: SANDBOX.to_owned(),
            account: NewAccount {
                expected_version: account.version,
                org: account.org,
                mark: account.mark,
                state: account.state,
                updated_at: account.updated_at,
            },
            answers: None,
            changes: vec![Change::Row(RowPut { epoch, org, size, started_at, ended_at: None })],
        };
        let posted = ledger.post_one(&posting).await?;
        ledger.close().await;
        if matches!(posted, Posted::Done { .. }) { Ok(closed) } else { Err(DemoError::NoRow) }
    }

    /// Asks the same of the books with the incident in them, hours later. Each nanosecond since the row was to be
    /// closed is the incident's.
    pub(super) fn incident(&mut self, closed: Nanos) -> Result<Check, DemoError> {
        let (from, to) = (instant(self.from), instant(self.ended.saturating_add(AFTER)));
        let now = instant(self.ended.saturating_add(LATER));
        let (first, last) = self.hours();
        let last = last.saturating_add(AFTER);
        let parity =
            ["parity", "--from", &instant(first), "--to", &instant(last), "--now", &now, "--by-sandbox"];
        self.show(&parity)?;
        let question = ["explain", "--sandbox", SANDBOX, "--from", &from, "--to", &to, "--now", &now];
        self.show(&question)?;
        let explained = self.explained(&question)?;
        let expected = self.ended.saturating_add(AFTER).saturating_sub(closed);
        Ok(explained.names(expected))
    }

    /// Whole hours around the VM's life.
    fn hours(&self) -> (Nanos, Nanos) {
        let hour = |at: Nanos| Nanos(at.0 - at.0 % HOUR.0);
        (hour(self.from), hour(self.ended).saturating_add(HOUR))
    }

    /// Runs a command before the reader's eyes. What it found is for them to see; that it could not ask is an error.
    fn show(&mut self, arguments: &[&str]) -> Result<(), DemoError> {
        self.output.line(&format!("   $ guestmeter {}", arguments.join(" "))).map_err(DemoError::Output)?;
        let status = self.command(arguments).status().map_err(|error| self.unasked(error))?;
        self.output.line("").map_err(DemoError::Output)?;
        match status.code() {
            Some(0 | 1) => Ok(()),
            _ => Err(DemoError::Question { command: arguments.join(" "), status }),
        }
    }

    fn explained(&self, arguments: &[&str]) -> Result<Explained, DemoError> {
        let mut command = self.command(arguments);
        let output = command.arg("--json").stdout(Stdio::piped()).output();
        let output = output.map_err(|error| self.unasked(error))?;
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("GUESTMETER_DB", &self.database).stdin(Stdio::null());
        command
    }

    fn unasked(&self, error: std::io::Error) -> DemoError {
        DemoError::File { path: self.program.clone(), error }
    }

    async fn open(&self, access: Access) -> Result<Ledger, DemoError> {
        let location = self.database.parse().map_err(crate::host::ledger::LedgerError::from)?;
        Ok(Ledger::open_with(location, access, Limits::default()).await?)
    }
}

impl Explained {
    /// The incident alone, with all of its time.
    fn names(&self, expected: Nanos) -> Check {
        let told = match self.causes.as_slice() {
            [only] if only.cause == CAUSE => only.active_ns.parse::<i128>().ok(),
            _ => None,
        };
        let causes: Vec<&str> = self.causes.iter().map(|cause| cause.cause.as_str()).collect();
        let text = match told {
            Some(ns) => format!(
                "explain names {CAUSE} and nothing else, with {} s: to the nanosecond what was put in",
                crate::host::decimal::quotient(ns.unsigned_abs(), 1_000_000_000, 9).unwrap_or_default()
            ),
            None => format!("explain names {causes:?}, not {CAUSE} with {}", span(expected)),
        };
        Check { holds: told == Some(-i128::from(expected.0)), text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(causes: &[(&str, i64)]) -> Explained {
        let cause = |(cause, active): &(&str, i64)| Cause {
            cause: (*cause).to_owned(),
            active_ns: active.to_string(),
        };
        Explained { agree: causes.is_empty(), causes: causes.iter().map(cause).collect() }
    }

    #[test]
    fn only_the_incident_with_each_nanosecond_of_it_holds() {
        let hour = Nanos(3_600_000_000_001);
        assert!(explained(&[(CAUSE, -3_600_000_000_001)]).names(hour).holds);
        for causes in [
            vec![],
            vec![(CAUSE, -3_600_000_000_000)],
            vec![(CAUSE, 3_600_000_000_001)],
            vec![("cap", -3_600_000_000_001)],
            vec![(CAUSE, -3_600_000_000_001), ("cap", -1)],
        ] {
            assert!(!explained(&causes).names(hour).holds, "{causes:?}");
        }
    }
}
