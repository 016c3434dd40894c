//! `ledger`: books in and out, and old ones made small.

use super::Outcome;
use super::books::{DbArgs, clock, instant, line, parse_when};
use super::error::CliError;
use super::output::{Output, complaint};
use crate::host::ledger::{Access, ExportError, Imported};
use crate::units::Nanos;
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Move books in and out of a ledger
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(super) struct LedgerArgs {
    #[command(subcommand)]
    command: LedgerCommand,
}

#[derive(Debug, Subcommand)]
enum LedgerCommand {
    Import(ImportArgs),
    Export(ExportArgs),
    Prune(PruneArgs),
}

/// Take orgs, scale events and samples from a file of JSON lines
///
/// {"type":"org","id","plan"}, {"type":"scale","id","sandbox","org","memory_mib","cpu_millis","started_at","ended_at"},
/// {"type":"sample",...} with the same fields. Times are RFC 3339 or integer nanoseconds since 1970; a scale event that
/// goes on has null for its end. A line that does not fit stops the import with its number and leaves the ledger as it
/// was. Importing a file twice changes nothing. The ledger is made if it is not there.
#[derive(Debug, clap::Args)]
struct ImportArgs {
    /// The file, or - for standard input
    file: PathBuf,
    /// The counts as a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    db: DbArgs,
}

/// Print a ledger's orgs, scale events and samples as JSON lines that `import` takes
#[derive(Debug, clap::Args)]
struct ExportArgs {
    #[command(flatten)]
    db: DbArgs,
}

/// Replace old rows by hourly totals
///
/// Rows that ended before the instant become totals of whole hours, by sandbox and size. From then on nothing that began
/// earlier is taken, and windows before the instant must be whole hours. It may be stopped and run again at any time.
#[derive(Debug, clap::Args)]
struct PruneArgs {
    /// The instant: on the hour, at least a day ago
    #[arg(long, value_name = "INSTANT", value_parser = parse_when)]
    before: Nanos,
    /// What a day ago is counted from [default: this machine's clock]
    #[arg(long, value_name = "INSTANT", value_parser = parse_when)]
    now: Option<Nanos>,
    #[command(flatten)]
    db: DbArgs,
}

#[derive(Serialize)]
struct ImportedDocument {
    lines: u64,
    orgs: u64,
    scale_events: u64,
    samples: u64,
    unchanged: u64,
}

pub(super) async fn run(args: LedgerArgs, output: &mut Output) -> Result<Outcome, CliError> {
    match args.command {
        LedgerCommand::Import(args) => import(&args, output).await,
        LedgerCommand::Export(args) => export(&args).await,
        LedgerCommand::Prune(args) => prune(&args, output).await,
    }
}

async fn import(args: &ImportArgs, output: &mut Output) -> Result<Outcome, CliError> {
    let name = args.file.display().to_string();
    let (input, length) = open(&args.file).map_err(|error| CliError::Open { path: name.clone(), error })?;
    let ledger = args.db.open(Access::Create).await?;
    let bar = progress(length);
    let imported = ledger.import(input, &name, |bytes| bar.set_position(bytes)).await;
    bar.finish_and_clear();
    let imported = imported?;
    ledger.close().await;
    let Imported { lines, orgs, scale_events, samples, unchanged } = imported;
    if args.json {
        let document = ImportedDocument { lines, orgs, scale_events, samples, unchanged };
        output.line(&line(&document)?)?;
    } else {
        output.line(&format!(
            "{lines} lines: {orgs} orgs, {scale_events} scale events, {samples} samples; {unchanged} rows were there"
        ))?;
    }
    Ok(Outcome::Fine)
}

/// The input, and its length where it has one.
fn open(path: &Path) -> io::Result<(Box<dyn BufRead>, Option<u64>)> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdin().lock()), None));
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory, not a file of lines"));
    }
    Ok((Box::new(BufReader::new(file)), metadata.is_file().then_some(metadata.len())))
}

/// Hidden where standard error is no terminal.
fn progress(length: Option<u64>) -> ProgressBar {
    let (bar, template) = match length {
        Some(length) => (ProgressBar::new(length), "{bar:30} {bytes} of {total_bytes}, {eta} to go"),
        None => (ProgressBar::no_length(), "{spinner} {bytes}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

async fn export(args: &ExportArgs) -> Result<Outcome, CliError> {
    let ledger = args.db.open(Access::Read).await?;
    let mut stdout = BufWriter::new(io::stdout().lock());
    let exported = ledger.export(&mut stdout).await.map_err(|error| match error {
        ExportError::Ledger(error) => CliError::Ledger(error),
        ExportError::Output(error) => CliError::Output(error),
    })?;
    stdout.flush()?;
    drop(stdout);
    ledger.close().await;
    if exported.pruned_before > Nanos::ZERO {
        let before = instant(exported.pruned_before);
        complaint(&format!("before {before} this ledger has hourly totals only; they are not exported"));
    }
    Ok(Outcome::Fine)
}

async fn prune(args: &PruneArgs, output: &mut Output) -> Result<Outcome, CliError> {
    let ledger = args.db.open(Access::Write).await?;
    let bar = ProgressBar::no_length();
    let bar = match ProgressStyle::with_template("{spinner} {pos} rows") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    };
    let pruned = ledger.prune(args.before, args.now.unwrap_or_else(clock), |rows| bar.inc(rows)).await;
    bar.finish_and_clear();
    let pruned = pruned?;
    ledger.close().await;
    output.line(&format!(
        "{} scale events and {} samples are hourly totals now; {} answered calls and verdicts forgotten",
        pruned.scale_events, pruned.samples, pruned.notes
    ))?;
    Ok(Outcome::Fine)
}
