//! Which rows `watch` shows, and in which order. Pure.

use crate::host::client::Reading;
use crate::host::table::FleetRow;
use clap::ValueEnum;
use std::cmp::{Ordering, Reverse};

/// A column to sort by: names from the first one on, amounts from the greatest one down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Column {
    #[default]
    Target,
    Sandbox,
    Total,
    Plugged,
    Cpu,
    Running,
    Memory,
    CpuTime,
    Dropped,
    Age,
}

/// Sorts them; those of which nothing is known come last, and equal ones stay in the order of their targets.
pub(super) fn sort(rows: &mut [FleetRow<'_>], column: Column) {
    rows.sort_by(|one, other| match (one.last, other.last) {
        _ if column == Column::Target => one.target.cmp(other.target),
        (Some(reading), Some(against)) if column == Column::Sandbox => {
            name(reading).is_none().cmp(&name(against).is_none()).then(name(reading).cmp(&name(against)))
        }
        (Some(reading), Some(against)) => {
            let amounts = (amount(one, reading, column), amount(other, against, column));
            Reverse(amounts.0).cmp(&Reverse(amounts.1))
        }
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (None, None) => Ordering::Equal,
    });
}

/// The sandbox that the host has named the guest.
pub(super) fn name(reading: &Reading) -> Option<&str> {
    reading.report.identity.sandbox.as_deref()
}

/// What is not known is less than nothing.
fn amount(row: &FleetRow<'_>, reading: &Reading, column: Column) -> Option<u128> {
    let report = &reading.report;
    match column {
        Column::Target | Column::Sandbox => None,
        Column::Total => report.memory.total().map(|bytes| bytes.0.into()),
        Column::Plugged => report.memory.plugged.map(|bytes| bytes.0.into()),
        Column::Cpu => Some(report.cpu.effective.0.into()),
        Column::Running => Some(report.usage.active.total()),
        Column::Memory => Some(report.usage.memory.total()),
        Column::CpuTime => Some(report.usage.cpu.total()),
        Column::Dropped => Some(report.usage.dropped.active.0.into()),
        Column::Age => Some(row.age.0.into()),
    }
}
