//! Asks the ledger hour by hour: what is in memory is one hour.

use super::{By, Compared, PerMille, Summary, buckets, check};
use crate::host::ledger::{Ledger, LedgerError};
use crate::units::Nanos;

/// Compares the books of each hour of `[from, to)`; what is open goes on until `now`. Each hour's comparisons are given
/// to `on_hour` with its start, an hour without any too; an error of that ends the run.
///
/// # Errors
/// A ledger that cannot be asked, or what `on_hour` says.
pub async fn run<E: From<LedgerError>>(
    ledger: &Ledger,
    (from, to): (Nanos, Nanos),
    now: Nanos,
    by: By,
    tolerance: PerMille,
    mut on_hour: impl FnMut(Nanos, &[Compared]) -> Result<(), E>,
) -> Result<Summary, E> {
    let plans = ledger.plans().await?;
    let mut summary = Summary::default();
    for (start, end) in buckets(from, to) {
        let totals = ledger.totals(start, end, now).await?;
        let compared = check(start, &totals, &plans, by, tolerance, &mut summary);
        on_hour(start, &compared)?;
    }
    Ok(summary)
}
