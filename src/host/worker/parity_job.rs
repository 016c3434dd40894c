//! Every hour both books are compared, once their last samples are in.

use super::core::Core;
use super::metrics::label;
use crate::host::ledger::LedgerError;
use crate::host::ledger::usage::HOUR;
use crate::host::parity::alert::{Alert, Rule};
use crate::host::parity::{self, Compared, Summary, TOLERANCE};
use crate::units::Nanos;
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked whether an hour can be compared.
const LOOK: Duration = Duration::from_secs(20);
/// Comparisons that are logged one by one.
const LOGGED_MAX: usize = 20;

/// Until the worker stops.
pub(super) async fn run(core: Arc<Core>) {
    let mut rule = Rule::default();
    let mut done = Nanos::ZERO;
    loop {
        let end = parity::settled_end(core.clock.now().unix);
        if core.config().parity.enabled && end > done {
            match check(&core, end, &mut rule).await {
                Ok(()) => done = end,
                Err(error) => tracing::error!(%error, "parity could not be checked; tried again"),
            }
        }
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// The hour that ends at `end`.
async fn check(core: &Core, end: Nanos, rule: &mut Rule) -> Result<(), LedgerError> {
    let start = end.saturating_sub(HOUR);
    let now = core.clock.now().unix;
    let mut all: Vec<Compared> = Vec::new();
    let ledger = core.desk.ledger();
    let summary = parity::run(ledger, (start, end), now, Rule::BY, TOLERANCE, |_, compared| {
        all.extend_from_slice(compared);
        Ok::<(), LedgerError>(())
    })
    .await?;
    report(core, start, &summary, &all);
    let alerts = rule.judge(start, &all);
    let systemic = alerts.iter().any(|alert| matches!(alert, Alert::Systemic { .. }));
    core.metrics.parity_systemic.set(i64::from(systemic));
    core.metrics.parity_alerts.set(i64::try_from(alerts.len()).unwrap_or(i64::MAX));
    for alert in &alerts {
        match alert {
            Alert::Org { org } => {
                tracing::error!(org, "alert: the books of an org differ, two hours in a row");
            }
            Alert::Systemic { orgs } => {
                tracing::error!(
                    orgs = orgs.len(),
                    "alert: the books of many orgs differ: the fault is not theirs"
                );
            }
        }
    }
    core.metrics.parity_checked.set(i64::try_from(now.0 / Nanos::SECOND.0).unwrap_or(i64::MAX));
    Ok(())
}

fn report(core: &Core, start: Nanos, summary: &Summary, compared: &[Compared]) {
    for one in compared.iter().filter(|one| one.flagged).take(LOGGED_MAX) {
        tracing::warn!(org = one.org, drift = one.drift.percent(), "parity: the books differ");
    }
    tracing::info!("parity bucket={} {summary}", instant(start));
    let gauge = |name, count| {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        core.metrics.parity.get_or_create(&label(name)).set(count);
    };
    gauge("checked", summary.checked);
    gauge("flagged", summary.flagged);
    gauge("skipped_free", summary.skipped_free);
}

fn instant(at: Nanos) -> String {
    crate::host::table::timestamp(at)
}
