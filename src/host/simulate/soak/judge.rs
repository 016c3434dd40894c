//! Both books against the truth, and what an operator would be told of them.

use super::super::account::Row;
use super::super::fleet::{Cause as Whereabouts, lives, whereabouts};
use super::super::guest::{BEGIN, SECOND};
use super::super::world::World;
use super::Soaked;
use super::desk::Desk;
use crate::host::explain::{Books, Cause, Finding, Happening, Question, explain};
use crate::host::ledger::usage::HOUR;
use crate::host::ledger::{Ledger, LedgerError};
use crate::host::parity::alert::{Alert, Rule};
use crate::host::parity::{self, By, Compared, Drift, TOLERANCE};
use crate::host::reconcile::Policy;
use crate::units::{MibNanos, Nanos};
use crate::wire::message::Id;
use std::collections::{BTreeMap, BTreeSet};

/// How far a sandbox's book may be beyond what is declared.
pub(super) const APART: u64 = SECOND;
/// What must not be is told so often.
const WRONG_MAX: usize = 100;

/// What is true of a sandbox.
pub(super) struct Lived {
    pub(super) name: String,
    pub(super) org: String,
    free: bool,
    /// Running time; and of pauses that nobody announced.
    run: u64,
    stood_still: u64,
    /// Run, and declared not to be billed; not run, and declared to be.
    short: Vec<(Whereabouts, u64)>,
    long: u64,
    hours: BTreeSet<u64>,
    called: Vec<Happening>,
    ended: u64,
}

/// What is true of the sandboxes of a world.
pub(super) fn lived(world: &World, desk: &Desk, free: bool) -> Vec<Lived> {
    let accounts = world.accounts.iter().zip(&desk.sandboxes);
    accounts
        .map(|(account, sandbox)| {
            let truth = &account.books.truth;
            let [ran, ..] = truth.ran.map(|amount| u64::try_from(amount).unwrap_or(u64::MAX));
            Lived {
                name: sandbox.name.clone(),
                org: desk.org.clone(),
                free,
                run: truth.run,
                stood_still: sandbox.stood_still,
                short: short(&account.books.rows, &sandbox.blocked, truth.run.saturating_sub(ran)),
                long: sandbox.unnoticed.saturating_add(ran.saturating_sub(truth.run)),
                hours: sandbox.hours.clone(),
                called: sandbox.called.clone(),
                ended: BEGIN.saturating_add(world.now),
            }
        })
        .collect()
}

/// Run, but declared not to be billed, over all lives; a guest's clock was slow by `drift`. `dropped` and `suspended`
/// are the agent's own words in each report, `clock_back` its `anomalies`; `unnamed` and `unanswered` are the host's
/// `gap` of a guest without a name, and `interval` is more than the host's own book has.
fn short(rows: &[Row], blocked: &BTreeSet<Id>, drift: u64) -> Vec<(Whereabouts, u64)> {
    let mut short = vec![(Whereabouts::Drift, drift)];
    for (at, (row, life)) in rows.iter().zip(lives(rows)).enumerate() {
        // `rollback`, and nobody named it: the host credits nothing, and says so.
        if blocked.contains(&row.epoch.id) {
            short.push((Whereabouts::RolledBack, life.1.saturating_sub(life.0)));
            continue;
        }
        // Where the VM stopped, the host's word of its end is known; where it got another name, the guest's alone.
        let ran_on = rows.get(at + 1).is_some_and(|next| {
            next.life.vm == row.life.vm && row.life.to == Some(next.life.from) && !next.paused
        });
        let mut beyond = row.beyond();
        for (cause, lost) in whereabouts(row, life, (0, 0)) {
            let told = match cause {
                Whereabouts::Unreported => !ran_on,
                Whereabouts::Unanswered => row.reach.is_none() && !ran_on,
                _ => false,
            };
            let lost = u64::try_from(lost).unwrap_or(0);
            if cause == Whereabouts::Interval {
                beyond = beyond.saturating_sub(lost);
            }
            if !told {
                short.push((cause, lost));
            }
        }
        // The real host's interval of a name given as it ran begins later than this world's: where its reports do.
        short.push((Whereabouts::Interval, beyond));
    }
    short
}

/// Asks the ledger, and holds it against what is true.
pub(super) async fn judge(
    ledger: &Ledger,
    lives: &[Lived],
    poll: u64,
    soaked: &mut Soaked,
) -> Result<(), LedgerError> {
    let ended = lives.iter().map(|lived| lived.ended).max().unwrap_or(BEGIN);
    let from = Nanos(BEGIN - BEGIN % HOUR.0);
    let to = Nanos((ended / HOUR.0 + 1) * HOUR.0);
    let policy = Policy { poll: Nanos(poll), ..Policy::default() };
    let day = Question::new(from, to, to.saturating_add(HOUR), &policy);
    let mut all = BTreeMap::new();
    for lived in lives {
        let mut books = Books::stored(ledger, &lived.name, from, to).await?;
        books.happened.extend(lived.called.iter().cloned());
        time(lived, &books, soaked);
        for finding in causes(lived, &mut books, &day, soaked) {
            *soaked.causes.entry(finding.cause.name()).or_default() += 1;
        }
        all.insert(lived.name.as_str(), (lived, books));
    }
    let flagged = compare(ledger, lives, &day, soaked).await?;
    let named = named(flagged, &mut all, &day, soaked);
    alerts(ledger, &named, &day, soaked).await?;
    soaked.wrong.truncate(WRONG_MAX);
    Ok(())
}

/// Running time by both books, and the truth.
fn time(lived: &Lived, books: &Books, soaked: &mut Soaked) {
    let sum = |entries: &[crate::host::explain::Entry]| -> u64 {
        let span = |entry: &crate::host::explain::Entry| {
            entry.end.unwrap_or(Nanos(lived.ended)).saturating_sub(entry.start).0
        };
        entries.iter().map(span).sum()
    };
    let (cell, edge) = (sum(&books.cell), sum(&books.edge));
    let Lived { name, run, stood_still, long, .. } = lived;
    let short: u64 = lived.short.iter().map(|(_, span)| *span).sum();
    for (cause, span) in &lived.short {
        *soaked.short.entry(*cause).or_default() += u128::from(*span);
    }
    soaked.sandboxes += 1;
    soaked.run += u128::from(*run);
    soaked.cell += u128::from(cell);
    soaked.edge += u128::from(edge);
    soaked.long += u128::from(*long);
    let interval = run.saturating_add(*stood_still);
    let beyond = run.saturating_sub(short).saturating_sub(edge).max(edge.saturating_sub(run + long));
    soaked.worst = soaked.worst.max(beyond);
    if beyond > APART {
        soaked.wrong.push(format!(
            "{name}: the edge's book has {edge} ns; {run} ns were run, {short} ns less and {long} ns more are declared"
        ));
    }
    soaked.worst_cell = soaked.worst_cell.max(cell.abs_diff(interval));
    if cell.abs_diff(interval) > APART {
        soaked.wrong.push(format!("{name}: the cell's book has {cell} ns of an interval of {interval} ns"));
    }
}

/// Why the books differ, if they do; a cause that is no fault of the world is wrong.
fn causes(lived: &Lived, books: &mut Books, question: &Question, soaked: &mut Soaked) -> Vec<Finding> {
    let findings = explain(books, question).findings;
    for finding in &findings {
        let declared = matches!(
            finding.cause,
            Cause::Cap
                | Cause::UnannouncedPause
                | Cause::Unnamed
                | Cause::SilentGuest
                | Cause::Rollback
                | Cause::ColdBoot
        ) || (lived.free && finding.cause == Cause::FreeOrg);
        if !declared {
            soaked.uncaused += 1;
            let Question { from, to, .. } = question;
            let Finding { cause, amount, spans } = finding;
            let (cause, first) = (cause.name(), spans.first());
            soaked
                .wrong
                .push(format!("{}, {from} to {to}: {cause} {amount:?}, first at {first:?}", lived.name));
        }
    }
    findings
}

/// Parity by sandbox: whether the right orgs were left out, and which hours are flagged.
async fn compare(
    ledger: &Ledger,
    lives: &[Lived],
    day: &Question,
    soaked: &mut Soaked,
) -> Result<Vec<Compared>, LedgerError> {
    let mut flagged = Vec::new();
    let keep = |_: Nanos, compared: &[Compared]| {
        flagged.extend(compared.iter().filter(|compared| compared.flagged).cloned());
        Ok::<(), LedgerError>(())
    };
    let summary = parity::run(ledger, (day.from, day.to), day.now, By::Sandbox, TOLERANCE, keep).await?;
    soaked.compared = (summary.checked, summary.flagged);
    let free = lives.iter().filter(|lived| lived.free);
    let hours: BTreeSet<(&str, u64)> =
        free.flat_map(|lived| lived.hours.iter().map(|hour| (lived.org.as_str(), *hour))).collect();
    soaked.skipped_free = (summary.skipped_free, hours.len() as u64);
    if summary.skipped_free != hours.len() as u64 {
        soaked.wrong.push(format!("skipped_free={}, not {}", summary.skipped_free, hours.len()));
    }
    Ok(flagged)
}

/// What of each org's hours has a cause with a name, in MiB·ns: each hour of a sandbox that is flagged is explained.
fn named(
    flagged: Vec<Compared>,
    all: &mut BTreeMap<&str, (&Lived, Books)>,
    day: &Question,
    soaked: &mut Soaked,
) -> BTreeMap<(String, Nanos), i128> {
    let mut named: BTreeMap<(String, Nanos), i128> = BTreeMap::new();
    for Compared { org, sandbox, bucket, .. } in flagged {
        let Some((lived, books)) = sandbox.and_then(|sandbox| all.get_mut(sandbox.as_str())) else {
            continue;
        };
        let hour = Question { from: bucket, to: bucket.saturating_add(HOUR), ..day.clone() };
        let findings = causes(lived, books, &hour, soaked);
        let sum: i128 = findings.iter().map(|finding| finding.amount.memory_mib_ns).sum();
        *named.entry((org, bucket)).or_default() += sum;
    }
    named
}

/// The alerts of parity by org: less what has a cause with a name, nothing may be flagged.
async fn alerts(
    ledger: &Ledger,
    named: &BTreeMap<(String, Nanos), i128>,
    day: &Question,
    soaked: &mut Soaked,
) -> Result<(), LedgerError> {
    let mut rule = Rule::default();
    let judge = |hour: Nanos, compared: &[Compared]| {
        for alert in rule.judge(hour, compared) {
            soaked.alerts.0 += 1;
            let orgs = match &alert {
                Alert::Org { org } => std::slice::from_ref(org),
                Alert::Systemic { orgs } => orgs.as_slice(),
            };
            for one in compared.iter().filter(|one| orgs.contains(&one.org)) {
                let named = named.get(&(one.org.clone(), hour)).copied().unwrap_or(0);
                let edge = i128::try_from(one.drift.edge.0).unwrap_or(i128::MAX).saturating_sub(named);
                let edge = MibNanos(u128::try_from(edge).unwrap_or(0));
                if (Drift { edge, ..one.drift }).exceeds(TOLERANCE) {
                    soaked.alerts.1 += 1;
                    let drift = one.drift;
                    soaked
                        .wrong
                        .push(format!("{alert:?} at {hour}: of {drift:?} {named} MiB·ns have a cause"));
                }
            }
        }
        Ok::<(), LedgerError>(())
    };
    parity::run(ledger, (day.from, day.to), day.now, Rule::BY, TOLERANCE, judge).await?;
    Ok(())
}
