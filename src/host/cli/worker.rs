//! `worker`: the host worker, until it is told to stop.

use super::Outcome;
use super::args::WorkerArgs;
use super::error::CliError;
use super::output::{Output, complaint};
use crate::host::worker;

/// Guests, ledger and API are waited for, not worked for: two threads are enough.
const THREADS: usize = 2;

pub(super) fn run(args: &WorkerArgs, output: &mut Output) -> Result<Outcome, CliError> {
    if args.check {
        return check(args, output);
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(THREADS).enable_all().build().map_err(CliError::Runtime)?;
    runtime.block_on(worker::run(&args.config))?;
    Ok(Outcome::Fine)
}

fn check(args: &WorkerArgs, output: &mut Output) -> Result<Outcome, CliError> {
    let found = worker::check(&args.config)?;
    for (file, fault) in &found.faults {
        complaint(&format!("{file}: {fault}"));
    }
    let name = args.config.display();
    let (sandboxes, faults) = (found.sandboxes, found.faults.len());
    output.line(&format!("{name}: {sandboxes} sandboxes described, {faults} files that cannot be used"))?;
    Ok(if faults == 0 { Outcome::Fine } else { Outcome::Found })
}
