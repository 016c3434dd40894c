//! `parity`: whether the host's and the guests' books agree.

use super::Outcome;
use super::books::{DbArgs, WindowArgs, gib_seconds, instant, line, number};
use super::error::CliError;
use super::output::Output;
use crate::host::ledger::usage::HOUR;
use crate::host::parity::{self, By, Compared, Summary, TOLERANCE};
use crate::host::table;
use crate::host::text::Safe;
use serde::Serialize;
use serde_json::value::RawValue;

/// A leap year of hours: a window of centuries is a slip of the hand.
const HOURS_MAX: u64 = 366 * 24;

/// Compare the host's book with the guests', hour by hour
///
/// For every org that has time in either book: drift = (edge - cell) / cell, where cell is what the host's scale events
/// say and edge what the guests' samples say. More than 2 % is flagged, and the exit code is 1. Orgs whose plan is known
/// and not pro are skipped and counted.
#[derive(Debug, clap::Args)]
pub(super) struct ParityArgs {
    #[command(flatten)]
    window: WindowArgs,
    /// Compare each sandbox: two that drift against each other do not hide
    #[arg(long)]
    by_sandbox: bool,
    /// One JSON object a line: each comparison, then the counts
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    db: DbArgs,
}

#[derive(Serialize)]
struct ComparedDocument<'a> {
    org: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox: Option<&'a str>,
    bucket: String,
    cell_gib_seconds: Box<RawValue>,
    edge_gib_seconds: Box<RawValue>,
    drift: Box<RawValue>,
    flagged: bool,
}

#[derive(Serialize)]
struct SummaryDocument {
    checked: u64,
    flagged: u64,
    skipped_free: u64,
    tolerance: Box<RawValue>,
    worst: Option<Box<RawValue>>,
}

pub(super) async fn run(args: ParityArgs, output: &mut Output) -> Result<Outcome, CliError> {
    if args.window.to.saturating_sub(args.window.from).0 / HOUR.0 >= HOURS_MAX {
        return Err(CliError::Usage(format!("--from and --to are more than {HOURS_MAX} hours apart")));
    }
    let ledger = args.db.ask().await?;
    let by = if args.by_sandbox { By::Sandbox } else { By::Org };
    let (window, now) = ((args.window.from, args.window.to), args.window.now());
    let mut rows: Vec<[String; 6]> = Vec::new();
    let summary = parity::run(&ledger, window, now, by, TOLERANCE, |_, compared| {
        if args.json {
            return compared.iter().try_for_each(|one| print(one, output));
        }
        // Of a year of a large cell a person wants what is wrong.
        rows.extend(compared.iter().filter(|one| one.flagged).map(row));
        Ok::<(), CliError>(())
    })
    .await?;
    ledger.close().await;
    if args.json {
        output.line(&line(&summary_document(&summary)?)?)?;
    } else {
        if !rows.is_empty() {
            let header = ["HOUR", "ORG", "SANDBOX", "CELL GiB·s", "EDGE GiB·s", "DRIFT"];
            output.text(&table::grid(&header, &rows, output.look()))?;
        }
        output.line(&format!(
            "parity {} to {}: {summary}",
            instant(args.window.from),
            instant(args.window.to)
        ))?;
    }
    Ok(if summary.flagged > 0 { Outcome::Found } else { Outcome::Fine })
}

fn print(one: &Compared, output: &mut Output) -> Result<(), CliError> {
    let document = ComparedDocument {
        org: &one.org,
        sandbox: one.sandbox.as_deref(),
        bucket: instant(one.bucket),
        cell_gib_seconds: number(gib_seconds(one.drift.cell))?,
        edge_gib_seconds: number(gib_seconds(one.drift.edge))?,
        drift: number(one.drift.ratio())?,
        flagged: one.flagged,
    };
    Ok(output.line(&line(&document)?)?)
}

fn row(one: &Compared) -> [String; 6] {
    [
        instant(one.bucket),
        Safe(&one.org).to_string(),
        one.sandbox.as_deref().map(|sandbox| Safe(sandbox).to_string()).unwrap_or_default(),
        gib_seconds(one.drift.cell),
        gib_seconds(one.drift.edge),
        one.drift.percent(),
    ]
}

fn summary_document(summary: &Summary) -> Result<SummaryDocument, CliError> {
    let tolerance = crate::host::decimal::quotient(u128::from(TOLERANCE.0), 1000, 3).unwrap_or_default();
    Ok(SummaryDocument {
        checked: summary.checked,
        flagged: summary.flagged,
        skipped_free: summary.skipped_free,
        tolerance: number(tolerance)?,
        worst: summary.worst.map(|worst| number(worst.ratio())).transpose()?,
    })
}
