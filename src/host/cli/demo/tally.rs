//! What must hold between the ledger's two books and what the VM manager saw. Pure.

use super::platform::{Ordered, Seen};
use super::proof::Check;
use crate::host::ledger::{SampleRow, ScaleEvent, Size};
use crate::host::text::{memory, span};
use crate::units::{Bytes, Mib, Nanos};
use std::time::Duration;

/// The machine's clock may be slewed meanwhile, by 0.05 %.
const SLACK: Nanos = Nanos(10_000_000);

/// Both books, and what they should come to.
pub(super) struct Books<'a> {
    pub(super) seen: &'a Seen,
    pub(super) rows: &'a [ScaleEvent],
    pub(super) samples: &'a [SampleRow],
    pub(super) ordered: Ordered,
    /// Whether the guest can say what memory it has.
    pub(super) memory_known: bool,
}

/// Every claim about them.
pub(super) fn checks(books: &Books<'_>) -> Vec<Check> {
    let mut checks = vec![calls(books.seen), host(books), guest(books)];
    if books.memory_known {
        checks.push(size(books));
    }
    checks
}

fn calls(seen: &Seen) -> Check {
    let text = if seen.unexpected.is_empty() {
        "each call was answered as it should be, after its commit".to_owned()
    } else {
        seen.unexpected.join("; ")
    };
    Check { holds: seen.unexpected.is_empty(), text }
}

/// Rows that are closed, and as long as the VM ran by the VM manager's watch.
fn host(books: &Books<'_>) -> Check {
    let sum = |of: fn(&super::platform::Life) -> Duration| -> Nanos {
        books.seen.lives.iter().map(of).sum::<Duration>().into()
    };
    let (least, most) = (sum(|life| life.least), sum(|life| life.most));
    let rows = host_sum(books.rows);
    let within = least <= rows.saturating_add(SLACK) && rows <= most.saturating_add(SLACK);
    Check {
        holds: within && books.rows.iter().all(|row| row.ended_at.is_some()),
        text: format!(
            "host's book: {}; by the VM manager's own watch it ran between {} and {}, the pause left out",
            span(rows),
            span(least),
            span(most)
        ),
    }
}

/// No more than the host's, and no less but for the moment in which the guest did not know its name.
fn guest(books: &Books<'_>) -> Check {
    let (rows, samples) = (host_sum(books.rows), guest_sum(books.samples));
    let naming: Nanos = books.seen.lives.iter().map(|life| life.naming).sum::<Duration>().into();
    let holds =
        samples <= rows.saturating_add(SLACK) && rows <= samples.saturating_add(naming).saturating_add(SLACK);
    Check {
        holds,
        text: format!(
            "guest's book: {}; it may lack the {} that it took to name its lives",
            span(samples),
            span(naming)
        ),
    }
}

fn size(books: &Books<'_>) -> Check {
    let expected = Size { memory: Mib(books.ordered.memory_mib), cpu: books.ordered.cpu };
    let sizes = || books.rows.iter().map(|row| row.size).chain(books.samples.iter().map(|one| one.size));
    Check {
        holds: sizes().count() > 0 && sizes().all(|size| size == expected),
        text: format!(
            "billed {} all along: what was asked for beyond it, the guest never got",
            memory(Bytes::mib(expected.memory.0))
        ),
    }
}

fn host_sum(rows: &[ScaleEvent]) -> Nanos {
    let lengths = rows.iter().filter_map(|row| Some(row.ended_at?.saturating_sub(row.started_at)));
    lengths.fold(Nanos::ZERO, Nanos::saturating_add)
}

fn guest_sum(samples: &[SampleRow]) -> Nanos {
    let lengths = samples.iter().map(|sample| sample.ended_at.saturating_sub(sample.started_at));
    lengths.fold(Nanos::ZERO, Nanos::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::super::platform::Life;
    use super::*;
    use crate::units::MilliCpu;

    const ORDERED: Ordered = Ordered { memory_mib: 4096, cpu: MilliCpu(2000) };

    fn seen() -> Seen {
        let ms = Duration::from_millis;
        let life = |least, most| Life { least: ms(least), most: ms(most), naming: ms(30) };
        Seen { lives: vec![life(4000, 4020), life(2000, 2010)], ..Seen::default() }
    }

    fn row(from_ms: u64, to_ms: u64) -> ScaleEvent {
        ScaleEvent {
            id: "r".to_owned(),
            sandbox: "sb-1".to_owned(),
            epoch: None,
            org: "acme".to_owned(),
            size: Size { memory: Mib(4096), cpu: MilliCpu(2000) },
            started_at: Nanos(from_ms * 1_000_000),
            ended_at: Some(Nanos(to_ms * 1_000_000)),
        }
    }

    fn sample(row: &ScaleEvent) -> SampleRow {
        let ScaleEvent { id, sandbox, epoch, org, size, started_at, ended_at } = row.clone();
        SampleRow { id, sandbox, epoch, org, size, started_at, ended_at: ended_at.unwrap() }
    }

    fn held(rows: &[ScaleEvent], samples: &[SampleRow]) -> Vec<bool> {
        let seen = seen();
        let books = Books { seen: &seen, rows, samples, ordered: ORDERED, memory_known: true };
        checks(&books).iter().map(|check| check.holds).collect()
    }

    #[test]
    fn books_of_what_was_seen_hold() {
        let rows = [row(0, 4010), row(6000, 8000)];
        let samples = [sample(&row(20, 4010)), sample(&row(6020, 8000))];
        assert_eq!(held(&rows, &samples), [true; 4]);
    }

    #[test]
    fn each_fault_breaks_its_claim() {
        let (rows, samples) = ([row(0, 4010), row(6000, 8000)], [sample(&row(0, 6000))]);
        let open = [row(0, 6010), ScaleEvent { ended_at: None, ..row(6000, 8000) }];
        assert_eq!(held(&open, &samples), [true, false, true, true]);
        assert_eq!(held(&[row(0, 8000)], &[sample(&row(0, 8000))]), [true, false, true, true]);
        assert_eq!(held(&[row(0, 5000)], &[sample(&row(0, 5000))]), [true, false, true, true]);
        assert_eq!(held(&rows, &[sample(&row(0, 6100))]), [true, true, false, true]);
        assert_eq!(held(&rows, &[sample(&row(0, 5900))]), [true, true, false, true]);
        let mut larger = rows.clone();
        larger[1].size.memory = Mib(5120);
        assert_eq!(held(&larger, &samples), [true, true, true, false]);
        assert!(!held(&[], &[])[3]);
    }

    #[test]
    fn a_call_that_went_wrong_is_told() {
        let unexpected = vec!["pausing is Unconfirmed: late".to_owned()];
        let check = calls(&Seen { unexpected, ..Seen::default() });
        assert!(!check.holds && check.text.contains("late"));
    }
}
