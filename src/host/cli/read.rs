//! `read`: one report of each target, shown as they come, so that a dead one delays nobody.

use super::Outcome;
use super::args::ReadArgs;
use super::error::CliError;
use super::output::{Output, complain};
use super::read_vmm;
use crate::host::client::{Client, Reading};
use crate::host::error::ClientError;
use crate::host::{json, table};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Connections at once: a process has 1024 descriptors where nobody raised that.
const CONNECTIONS_MAX: usize = 256;

pub(super) async fn run(args: ReadArgs, output: &mut Output) -> Result<Outcome, CliError> {
    if let Some(vmm) = args.vmm {
        let [target] = args.targets.as_slice() else { return Err(CliError::VmmOne(args.targets.len())) };
        let client = Client::new(target.clone(), args.timeout);
        return read_vmm::run(&client, vmm, args.timeout, args.json, output).await;
    }
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut asking = JoinSet::new();
    for target in args.targets {
        let slots = Arc::clone(&slots);
        let client = Client::new(target, args.timeout);
        asking.spawn(async move {
            // The semaphore is never closed; without a slot the question is asked all the same.
            let _slot = slots.acquire().await.ok();
            client.read().await
        });
    }
    let mut outcome = Outcome::Fine;
    let mut shown = 0_usize;
    while let Some(answer) = asking.join_next().await {
        let answer: Result<Reading, ClientError> = answer.map_err(CliError::Task)?;
        match answer {
            Ok(reading) if args.json => output.line(&json::report(&reading)?)?,
            Ok(reading) => {
                let gap = if shown == 0 { "" } else { "\n" };
                output.text(&format!("{gap}{}", table::report(&reading, output.look())))?;
                shown += 1;
            }
            Err(error) => {
                complain(&error);
                outcome = Outcome::Unreachable;
            }
        }
    }
    Ok(outcome)
}
