//! `wait-settled`: what a script needs before it trusts a resize.

use super::Outcome;
use super::args::WaitSettledArgs;
use super::error::CliError;
use super::lifecycle::client;
use super::output::{Output, complain};
use crate::capacity::MemoryState;
use crate::host::client::{Reading, SettleOutcome, TIMEOUT_DEFAULT};
use crate::host::{json, table};
use crate::units::{Bytes, Nanos};
use std::time::Duration;

/// How a wait for memory ended.
pub(super) struct Verdict {
    pub(super) reading: Reading,
    /// Whether memory is what it should be, and at rest.
    pub(super) fine: bool,
    /// In words.
    pub(super) line: String,
}

impl Verdict {
    pub(super) fn new(outcome: SettleOutcome, expected: Option<Bytes>, limit: Duration) -> Self {
        let SettleOutcome { settled, reading } = outcome;
        let memory = &reading.report.memory;
        // Quiet memory that is not what the VMM asked for has come to rest, but not where it should.
        let aside = matches!(memory.state, MemoryState::Short | MemoryState::Over) && expected.is_none();
        let verdict = match (settled, aside) {
            (true, false) => "settled".to_owned(),
            (true, true) => memory.state.name().to_owned(),
            (false, _) => format!("not settled after {}", table::duration(Nanos::from(limit))),
        };
        let amounts = table::plugged_against(memory, expected);
        let line = format!("{}: {verdict}: {amounts} ({})", reading.target, memory.precision.name());
        Self { fine: settled && !aside, reading, line }
    }

    pub(super) fn show(&self, as_json: bool, output: &mut Output) -> Result<(), CliError> {
        if as_json {
            output.line(&json::report(&self.reading)?)?;
        } else {
            output.line(&self.line)?;
        }
        Ok(())
    }

    pub(super) fn outcome(&self) -> Outcome {
        if self.fine { Outcome::Fine } else { Outcome::Found }
    }
}

pub(super) async fn run(args: WaitSettledArgs, output: &mut Output) -> Result<Outcome, CliError> {
    let client = client(args.target, TIMEOUT_DEFAULT);
    match client.wait_settled(args.expect, args.quiet, args.timeout).await {
        Ok(outcome) => {
            let verdict = Verdict::new(outcome, args.expect, args.timeout);
            verdict.show(args.json, output)?;
            Ok(verdict.outcome())
        }
        Err(error) => {
            complain(&error);
            Ok(Outcome::Unreachable)
        }
    }
}
