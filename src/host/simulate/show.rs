//! A fleet's outcome, as a table for a person and as JSON.

use super::fleet::{Cause, Declared, Fleet, Lived, Outcome, Policy};
use super::seeds::Checked;
use super::soak::Soaked;
use crate::host::table::{Look, titled_table};
use crate::host::text::grouped;
use comfy_table::{CellAlignment, Table};
use serde_json::{Value, json};

/// Names the shape of the JSON.
pub const SCHEMA: &str = "guestmeter.simulation/1";

/// A table of the three policies, then one of where each one's seconds went.
#[must_use]
pub fn table(fleet: &Fleet, lived: &Lived, look: Look) -> String {
    let clones = lived.sandboxes.saturating_sub(fleet.sandboxes);
    let mut text = format!(
        "{} sandboxes and {} clones of them lived {} lives within {} h, and ran for {} s in all (seed {}, faults: {})\n\n",
        grouped(fleet.sandboxes),
        grouped(clones),
        grouped(lived.lives),
        grouped(fleet.hours),
        seconds(lived.run),
        fleet.seed,
        fleet.faults
    );
    text.push_str(&format!("{}\n\n", policies(lived, look).trim_fmt()));
    text.push_str(&format!("{}\n", causes(lived, look).trim_fmt()));
    text
}

fn policies(lived: &Lived, look: Look) -> Table {
    let header = ["COUNTED BY", "BILLED s", "LOST s", "DOUBLED s", "DROPPED s", "DRIFT", "UNDECLARED s"];
    let mut table = titled_table(&header, look);
    for outcome in &lived.outcomes {
        table.add_row([
            outcome.policy.name().to_owned(),
            seconds(outcome.posted),
            seconds(outcome.lost()),
            seconds(outcome.doubled()),
            seconds(dropped(outcome)),
            format!("{} %", percent(drift_ppm(outcome, lived.run))),
            seconds(undeclared(outcome)),
        ]);
    }
    align(&mut table, 1..header.len());
    table
}

fn causes(lived: &Lived, look: Look) -> Table {
    let header = ["COUNTED BY", "LOST s", "DOUBLED s", "DECLARED", "BECAUSE"];
    let mut table = titled_table(&header, look);
    for outcome in &lived.outcomes {
        let mut name = outcome.policy.name();
        for (cause, lost, doubled) in outcome.causes.iter().filter(|(_, lost, doubled)| lost + doubled > 0) {
            table.add_row([
                std::mem::take(&mut name).to_owned(),
                some(*lost),
                some(*doubled),
                cause.declared().map_or("", Declared::name).to_owned(),
                because(*cause).to_owned(),
            ]);
        }
    }
    align(&mut table, 1..3);
    table
}

pub(super) fn align(table: &mut Table, columns: std::ops::Range<usize>) {
    for column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// What a cause means, in words.
pub(super) const fn because(cause: Cause) -> &'static str {
    match cause {
        Cause::Truncation => "each tick is cut to whole seconds",
        Cause::FirstGuess => "a first look is billed an interval, whatever ran",
        Cause::Cap => "more than two intervals between two looks",
        Cause::Carry => "a carry was forgotten at a cap, a first look or a restart",
        Cause::Tail => "run since the last look, never billed",
        Cause::Paused => "billed while the VM stood still",
        Cause::Dropped => "more than the cap without a look, part of it perhaps a pause",
        Cause::Unnamed => "gap: before an epoch had its base, a state being lost or nobody having named it",
        Cause::ClockBack => "anomalies: the guest's clock went back over a pause",
        Cause::Interval => "beyond the host's own interval of the epoch",
        Cause::Suspended => "between checkpoint and pause, resume and its notice",
        Cause::Uncertain => "a noticed pause within the cap",
        Cause::Unannounced => "a pause nobody announced: at most the cap of each",
        Cause::Unanswered => "requested_only: no agent answered, billed by what was requested",
        Cause::Unreported => "the end of a life behind its last report, billed by the host's word",
        Cause::RolledBack => "an epoch's highest count, kept over a rollback that nobody had named yet",
        Cause::Drift => "the guest's clock against the host's",
    }
}

/// What was cut deliberately.
fn dropped(outcome: &Outcome) -> u128 {
    let cut = |cause: Cause| cause == Cause::Cap || cause.declared() == Some(Declared::Dropped);
    outcome.causes.iter().filter(|(cause, ..)| cut(*cause)).map(|(_, lost, _)| lost).sum()
}

/// The tickers say nothing of what they lose and double.
fn undeclared(outcome: &Outcome) -> u128 {
    match outcome.policy {
        Policy::Truncating | Policy::Carrying => outcome.lost() + outcome.doubled(),
        Policy::Meter => outcome.undeclared,
    }
}

/// (billed − run) / run, in millionths.
fn drift_ppm(outcome: &Outcome, run: u128) -> i64 {
    let of = |part: u128| i64::try_from(part * 1_000_000 / run.max(1)).unwrap_or(i64::MAX);
    of(outcome.posted.saturating_sub(run)) - of(run.saturating_sub(outcome.posted))
}

fn percent(ppm: i64) -> String {
    let hundredths = (ppm.unsigned_abs() + 50) / 100;
    let sign = match (hundredths, ppm) {
        (0, _) => "",
        (_, ..0) => "-",
        _ => "+",
    };
    format!("{sign}{}.{:02}", hundredths / 100, hundredths % 100)
}

/// With one decimal, rounded to the nearest.
pub(super) fn seconds(nanos: u128) -> String {
    let tenths = (nanos + 50_000_000) / 100_000_000;
    let whole = u64::try_from(tenths / 10).unwrap_or(u64::MAX);
    format!("{}.{}", grouped(whole), tenths % 10)
}

fn some(nanos: u128) -> String {
    if nanos == 0 { String::new() } else { seconds(nanos) }
}

/// One object. Times are whole milliseconds of running time; `drift` is (billed − run) / run in millionths.
#[must_use]
pub fn json(fleet: &Fleet, lived: &Lived) -> String {
    let policies: Vec<Value> = lived.outcomes.iter().map(|outcome| policy(outcome, lived.run)).collect();
    let broken: Vec<Value> = lived.broken.iter().map(broken).collect();
    json!({
        "schema": SCHEMA,
        "seed": fleet.seed.to_string(),
        "hours": fleet.hours,
        "sandboxes": fleet.sandboxes,
        "clones": lived.sandboxes.saturating_sub(fleet.sandboxes),
        "faults": fleet.faults.to_string(),
        "lives": lived.lives,
        "events": lived.events,
        "run_ms": millis(lived.run),
        "policies": policies,
        "broken": broken,
    })
    .to_string()
}

/// One object: how many seeds were checked, and which broke what.
#[must_use]
pub fn seeds_json(first: u64, checked: &Checked) -> String {
    let broken: Vec<Value> = checked.broken.iter().map(broken).collect();
    json!({
        "schema": SCHEMA,
        "seed": first.to_string(),
        "seeds": checked.seeds,
        "events": checked.events,
        "broken": broken,
    })
    .to_string()
}

/// A soak as one JSON object.
#[must_use]
pub fn soak_json(fleet: &Fleet, soaked: &Soaked) -> String {
    let short: serde_json::Map<String, Value> =
        soaked.short.iter().map(|(cause, ns)| (cause.name().to_owned(), millis(*ns).into())).collect();
    json!({
        "schema": SCHEMA,
        "seed": fleet.seed.to_string(),
        "hours": fleet.hours,
        "sandboxes": soaked.sandboxes,
        "faults": fleet.faults.to_string(),
        "reports": soaked.reports,
        "postings": soaked.postings,
        "run_ms": millis(soaked.run),
        "cell_ms": millis(soaked.cell),
        "edge_ms": millis(soaked.edge),
        "short_ms": short,
        "long_ms": millis(soaked.long),
        "worst_cell_ns": soaked.worst_cell.to_string(),
        "worst_ns": soaked.worst.to_string(),
        "checked": soaked.compared.0,
        "flagged": soaked.compared.1,
        "flagged_for_no_cause": soaked.uncaused,
        "alerts": soaked.alerts.0,
        "alerts_for_no_cause": soaked.alerts.1,
        "skipped_free": soaked.skipped_free.0,
        "free": soaked.skipped_free.1,
        "causes": soaked.causes,
        "wrong": soaked.wrong,
    })
    .to_string()
}

fn policy(outcome: &Outcome, run: u128) -> Value {
    let causes: Vec<Value> = outcome
        .causes
        .iter()
        .filter(|(_, lost, doubled)| lost + doubled > 0)
        .map(|(cause, lost, doubled)| {
            json!({
                "cause": cause.name(),
                "declared": cause.declared().map(Declared::name),
                "lost_ms": millis(*lost),
                "doubled_ms": millis(*doubled),
            })
        })
        .collect();
    json!({
        "policy": outcome.policy.name(),
        "billed_ms": millis(outcome.posted),
        "lost_ms": millis(outcome.lost()),
        "doubled_ms": millis(outcome.doubled()),
        "dropped_ms": millis(dropped(outcome)),
        "undeclared_ms": millis(undeclared(outcome)),
        "drift_ppm": drift_ppm(outcome, run),
        "causes": causes,
    })
}

fn broken(broken: &super::Broken) -> Value {
    json!({
        "seed": broken.seed.to_string(),
        "invariant": broken.invariant.name(),
        "text": broken.text,
        "story": broken.story,
    })
}

fn millis(nanos: u128) -> u64 {
    u64::try_from(nanos / 1_000_000).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drift_is_signed_and_rounded() {
        assert_eq!(percent(-25_641), "-2.56");
        assert_eq!(percent(10_000), "+1.00");
        assert_eq!(percent(-49), "0.00");
        let outcome = Outcome { policy: Policy::Meter, posted: 975, causes: Vec::new(), undeclared: 0 };
        assert_eq!(drift_ppm(&outcome, 1000), -25_000);
    }

    #[test]
    fn seconds_have_one_decimal() {
        assert_eq!(seconds(1_234_567_890_000_000), "1,234,567.9");
        assert_eq!(seconds(40_000_000), "0.0");
    }
}
