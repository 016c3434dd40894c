//! `simulate`: a fleet that does not exist, or many small worlds.

use super::Outcome;
use super::args::SimulateArgs;
use super::error::CliError;
use super::output::Output;
use crate::host::simulate::{Fleet, SoakError, check_seeds, show};
use indicatif::{ProgressBar, ProgressStyle};
use std::num::NonZero;
use std::thread::available_parallelism;

pub(super) fn run(args: &SimulateArgs, output: &mut Output) -> Result<Outcome, CliError> {
    let threads = args.jobs.or_else(|| available_parallelism().ok()).unwrap_or(NonZero::<usize>::MIN);
    match args.check_seeds {
        Some(count) => seeds(args, count, threads, output),
        None if args.soak => soak(args, threads, output),
        None => fleet(args, threads, output),
    }
}

fn fleet(args: &SimulateArgs, threads: NonZero<usize>, output: &mut Output) -> Result<Outcome, CliError> {
    let fleet = Fleet { hours: args.hours, sandboxes: args.sandboxes, faults: args.faults, seed: args.seed };
    let bar = progress(args.sandboxes, "sandboxes");
    let lived = fleet.live(threads, |done| bar.set_position(done));
    bar.finish_and_clear();
    let undeclared = lived.outcomes.iter().any(|outcome| outcome.undeclared > 0);
    if args.json {
        output.line(&show::json(&fleet, &lived))?;
    } else {
        output.text(&show::table(&fleet, &lived, output.look()))?;
        for broken in &lived.broken {
            output.text(&format!("\n{broken}"))?;
        }
    }
    Ok(if lived.broken.is_empty() && !undeclared { Outcome::Fine } else { Outcome::Found })
}

/// The ledger is a scratch one: in the directory for temporary files, and gone afterwards.
fn soak(args: &SimulateArgs, threads: NonZero<usize>, output: &mut Output) -> Result<Outcome, CliError> {
    let fleet = Fleet { hours: args.hours, sandboxes: args.sandboxes, faults: args.faults, seed: args.seed };
    let folder = tempfile::tempdir().map_err(CliError::Runtime)?;
    let bar = progress(args.sandboxes, "sandboxes");
    let soaked =
        fleet.soak(folder.path(), threads, |done| bar.set_position(done)).map_err(|error| match error {
            SoakError::Ledger(error) => error.into(),
            SoakError::Runtime(error) => CliError::Runtime(error),
        })?;
    bar.finish_and_clear();
    if args.json {
        output.line(&show::soak_json(&fleet, &soaked))?;
    } else {
        output.text(&soaked.table(&fleet, output.look()))?;
    }
    Ok(if soaked.wrong.is_empty() { Outcome::Fine } else { Outcome::Found })
}

fn seeds(
    args: &SimulateArgs,
    count: u64,
    threads: NonZero<usize>,
    output: &mut Output,
) -> Result<Outcome, CliError> {
    let bar = progress(count, "seeds");
    let checked = check_seeds(args.seed, count, threads, |done| bar.set_position(done));
    bar.finish_and_clear();
    if args.json {
        output.line(&show::seeds_json(args.seed, &checked))?;
    } else {
        for broken in &checked.broken {
            output.text(&format!("{broken}\n"))?;
        }
        let (seeds, broken) = (checked.seeds, checked.broken.len());
        output.line(&format!("{seeds} seeds, {} events: {broken} broke a law", checked.events))?;
    }
    Ok(if checked.broken.is_empty() { Outcome::Fine } else { Outcome::Found })
}

/// On standard error, and only where that is a terminal.
fn progress(length: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    let template = format!("{{bar:40}} {{pos}} of {{len}} {what}, {{eta}} left");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar
}
