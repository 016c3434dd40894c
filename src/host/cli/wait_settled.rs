//! `wait-settled`: what a script needs before it trusts a resize.

use super::Outcome;
use super::args::WaitSettledArgs;
use super::error::CliError;
use super::output::{Output, complain};
use crate::capacity::MemoryState;
use crate::host::client::{Client, SettleOutcome, TIMEOUT_DEFAULT};
use crate::host::{json, table};
use crate::units::Nanos;

pub(super) async fn run(args: WaitSettledArgs, output: &mut Output) -> Result<Outcome, CliError> {
    let client = Client::new(args.target, TIMEOUT_DEFAULT);
    let SettleOutcome { settled, reading } =
        match client.wait_settled(args.expect, args.quiet, args.timeout).await {
            Ok(outcome) => outcome,
            Err(error) => {
                complain(&error);
                return Ok(Outcome::Unreachable);
            }
        };
    let memory = &reading.report.memory;
    // Quiet memory that is not what the VMM asked for has come to rest, but not where it should.
    let aside = matches!(memory.state, MemoryState::Short | MemoryState::Over) && args.expect.is_none();
    let verdict = match (settled, aside) {
        (true, false) => "settled".to_owned(),
        (true, true) => memory.state.name().to_owned(),
        (false, _) => format!("not settled after {}", table::duration(Nanos::from(args.timeout))),
    };
    if args.json {
        output.line(&json::report(&reading)?)?;
    } else {
        let amounts = table::plugged_against(memory, args.expect);
        let precision = memory.precision.name();
        output.line(&format!("{}: {verdict}: {amounts} ({precision})", reading.target))?;
    }
    Ok(if settled && !aside { Outcome::Fine } else { Outcome::Found })
}
