//! `usage`: what an org used in a window, and what it costs.

use super::Outcome;
use super::books::{CapacityDocument, DbArgs, WindowArgs, gib_seconds, instant, line, number};
use super::error::CliError;
use super::output::{Output, complaint};
use crate::host::ledger::{SizeTotal, Usage};
use crate::host::table::{self, Look};
use crate::host::text::Safe;
use crate::host::tiers::{Bill, Tiers};
use crate::units::{Bytes, Nanos};
use serde::Serialize;
use serde_json::value::RawValue;
use std::path::{Path, PathBuf};

/// Ask a ledger what an org used
///
/// Each row of the host's book counts with the part of it that lies in the window. What is open goes on until --now.
#[derive(Debug, clap::Args)]
pub(super) struct UsageArgs {
    /// Whose usage
    #[arg(long)]
    org: String,
    #[command(flatten)]
    window: WindowArgs,
    /// A price table (TOML): prints what it costs, and what is not in the table; then the exit code is 1
    #[arg(long, value_name = "FILE")]
    tiers: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    db: DbArgs,
}

#[derive(Serialize)]
struct UsageDocument<'a> {
    org: &'a str,
    from: String,
    to: String,
    memory_mib_ns: String,
    memory_gib_seconds: Box<RawValue>,
    cpu_millicpu_ns: String,
    active_ns: String,
    by_capacity: Vec<CapacityDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    price: Option<PriceDocument<'a>>,
}

#[derive(Serialize)]
struct PriceDocument<'a> {
    currency: &'a str,
    total: String,
    off_tier: Vec<CapacityDocument>,
}

pub(super) async fn run(args: UsageArgs, output: &mut Output) -> Result<Outcome, CliError> {
    let tiers = args.tiers.as_deref().map(read_tiers).transpose()?;
    let ledger = args.db.ask().await?;
    let usage = ledger.usage(&args.org, args.window.from, args.window.to, args.window.now()).await?;
    ledger.close().await;
    let bill = tiers.map(|tiers| tiers.bill(&usage)).transpose()?;
    if args.json {
        output.line(&line(&document(&args, &usage, bill.as_ref())?)?)?;
    } else {
        output.text(&text(&args, &usage, bill.as_ref(), output.look()))?;
    }
    match bill {
        Some(bill) if !bill.off_tier.is_empty() => {
            complaint("some memory is in no tier of the price table, and not in the total");
            Ok(Outcome::Found)
        }
        _ => Ok(Outcome::Fine),
    }
}

pub(super) fn read_tiers(path: &Path) -> Result<Tiers, CliError> {
    let name = || path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| CliError::Open { path: name(), error })?;
    Tiers::parse(&text).map_err(|error| CliError::TierFile { path: name(), error })
}

fn document<'a>(
    args: &'a UsageArgs,
    usage: &Usage,
    bill: Option<&'a Bill>,
) -> Result<UsageDocument<'a>, CliError> {
    Ok(UsageDocument {
        org: &args.org,
        from: instant(args.window.from),
        to: instant(args.window.to),
        memory_mib_ns: usage.memory().0.to_string(),
        memory_gib_seconds: number(gib_seconds(usage.memory()))?,
        cpu_millicpu_ns: usage.cpu().0.to_string(),
        active_ns: usage.active_ns().to_string(),
        by_capacity: capacities(&usage.by_size),
        price: bill.map(|bill| PriceDocument {
            currency: &bill.currency,
            total: bill.total.to_string(),
            off_tier: capacities(&bill.off_tier),
        }),
    })
}

fn capacities(totals: &[SizeTotal]) -> Vec<CapacityDocument> {
    totals.iter().map(|total| CapacityDocument::new(total.size, total.active_ns)).collect()
}

fn text(args: &UsageArgs, usage: &Usage, bill: Option<&Bill>, look: Look) -> String {
    let mut rows: Vec<[String; 4]> = usage.by_size.iter().map(row).collect();
    let all = [
        "all".to_owned(),
        String::new(),
        running(usage.active_ns()),
        format!("{} GiB·s", gib_seconds(usage.memory())),
    ];
    rows.push(all);
    let table = table::grid(&["MEMORY", "CPU", "RUNNING", "MEMORY TIME"], &rows, look);
    let mut text =
        format!("{}  {} to {}\n{table}", Safe(&args.org), instant(args.window.from), instant(args.window.to));
    if let Some(bill) = bill {
        text.push_str(&format!("{} {}\n", bill.total, Safe(&bill.currency)));
        for total in &bill.off_tier {
            let memory = table::bytes(Bytes::mib(total.size.memory.0));
            text.push_str(&format!("off tier: {memory} for {}: no price\n", running(total.active_ns)));
        }
    }
    text
}

fn row(total: &SizeTotal) -> [String; 4] {
    let one = Usage { by_size: vec![*total] };
    [
        table::bytes(Bytes::mib(total.size.memory.0)),
        crate::host::text::vcpus(total.size.cpu),
        running(total.active_ns),
        format!("{} GiB·s", gib_seconds(one.memory())),
    ]
}

/// Of many sandboxes together; past what a clock can show, its end.
fn running(active_ns: u128) -> String {
    table::duration(Nanos(u64::try_from(active_ns).unwrap_or(u64::MAX)))
}
