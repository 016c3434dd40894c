//! Both books of a sandbox as a ledger keeps them.

use super::{Books, Entry, Found, Happening, What};
use crate::host::ledger::{self, Ledger, LedgerError};
use crate::host::reconcile::Size;
use crate::units::Nanos;

/// What lies so far before and behind the window helps to tell why.
const AROUND: Nanos = Nanos::from_secs(86_400);

impl Books {
    /// What `ledger` has of `sandbox` in `[from, to)`, and around it.
    ///
    /// # Errors
    /// A ledger that cannot be asked.
    pub async fn stored(ledger: &Ledger, sandbox: &str, from: Nanos, to: Nanos) -> Result<Self, LedgerError> {
        let (from, to) = (from.saturating_sub(AROUND), to.saturating_add(AROUND));
        let rows = ledger.scale_events(sandbox, from, to).await?;
        let samples = ledger.samples(sandbox, from, to).await?;
        let org = rows.first().map(|row| &row.org).or(samples.first().map(|sample| &sample.org));
        let plan = match org {
            Some(org) => ledger.plan(org).await?,
            None => None,
        };
        let size = |size: ledger::Size| Size { memory_mib: size.memory.0, cpu: size.cpu };
        let cell = rows.iter().map(|row| Entry {
            id: row.id.clone(),
            start: row.started_at,
            end: row.ended_at,
            size: size(row.size),
            epoch: row.epoch,
        });
        let edge = samples.iter().map(|sample| Entry {
            id: sample.id.clone(),
            start: sample.started_at,
            end: Some(sample.ended_at),
            size: size(sample.size),
            epoch: sample.epoch,
        });
        Ok(Self {
            sandbox: sandbox.to_owned(),
            plan,
            cell: cell.filter(lasts).collect(),
            edge: edge.filter(lasts).collect(),
            happened: happened(ledger, sandbox, from, to).await?,
            ..Self::default()
        })
    }
}

/// A row that proved wrong is left with no length.
fn lasts(entry: &Entry) -> bool {
    entry.end != Some(entry.start)
}

/// Calls of the platform, and what the host found.
async fn happened(
    ledger: &Ledger,
    sandbox: &str,
    from: Nanos,
    to: Nanos,
) -> Result<Vec<Happening>, LedgerError> {
    let calls = ledger.events(sandbox, from, to).await?;
    let verdicts = ledger.verdicts(sandbox, from, to).await?;
    let calls =
        calls.iter().filter_map(|call| Some(Happening { at: call.at, what: What::of_call(&call.kind)? }));
    let found = verdicts.iter().filter_map(|verdict| {
        let detail = serde_json::from_str(&verdict.detail).unwrap_or_default();
        Some(Happening { at: verdict.at, what: What::Found(Found::of(&verdict.verdict, &detail)?) })
    });
    Ok(calls.chain(found).collect())
}
