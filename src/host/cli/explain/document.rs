//! An explanation as JSON. Amounts in ns pass 2^53 and are decimal strings; those of a difference may be negative.

use crate::host::cli::books::{self, instant, line, number};
use crate::host::cli::error::CliError;
use crate::host::decimal::signed;
use crate::host::explain::{Amount, Books, Entry, Explanation, Question};
use crate::host::parity::Drift;
use crate::units::{MibNanos, Nanos};
use serde::Serialize;
use serde_json::value::RawValue;

#[derive(Serialize)]
struct Document<'a> {
    sandbox: &'a str,
    from: String,
    to: String,
    agree: bool,
    cell: AmountDocument,
    edge: AmountDocument,
    /// Samples of an hour that is not over.
    pending: AmountDocument,
    difference: AmountDocument,
    drift: Option<Box<RawValue>>,
    causes: Vec<CauseDocument>,
    timeline: Vec<SpanDocument>,
}

#[derive(Serialize)]
struct AmountDocument {
    active_ns: String,
    memory_mib_ns: String,
    memory_gib_seconds: Box<RawValue>,
    cpu_millicpu_ns: String,
}

#[derive(Serialize)]
struct CauseDocument {
    cause: &'static str,
    why: &'static str,
    #[serde(flatten)]
    amount: AmountDocument,
    spans: Vec<WindowDocument>,
}

#[derive(Serialize)]
struct WindowDocument {
    from: String,
    to: String,
}

#[derive(Serialize)]
struct SpanDocument {
    from: String,
    to: String,
    cell: Vec<SizeDocument>,
    edge: Vec<SizeDocument>,
    cause: Option<&'static str>,
}

#[derive(Serialize)]
struct SizeDocument {
    memory_mib: u64,
    cpu_millis: u64,
}

pub(super) fn json(books: &Books, question: &Question, explained: &Explanation) -> Result<String, CliError> {
    let causes = explained.findings.iter().map(|finding| {
        Ok(CauseDocument {
            cause: finding.cause.name(),
            why: finding.cause.sentence(),
            amount: amount(finding.amount)?,
            spans: finding.spans.iter().map(|(from, to)| window(*from, *to)).collect(),
        })
    });
    let spans = explained.timeline.iter().filter(|span| !span.cell.is_empty() || !span.edge.is_empty());
    let timeline = spans.map(|span| SpanDocument {
        from: instant(span.from),
        to: instant(span.to),
        cell: sizes(&books.cell, &span.cell),
        edge: sizes(&books.edge, &span.edge),
        cause: span.cause.map(|cause| cause.name()),
    });
    let document = Document {
        sandbox: &books.sandbox,
        from: instant(question.from),
        to: instant(question.to),
        agree: explained.agrees(),
        cell: amount(explained.cell)?,
        edge: amount(explained.edge)?,
        pending: amount(explained.pending)?,
        difference: amount(explained.difference())?,
        drift: drift(explained).map(number).transpose()?,
        causes: causes.collect::<Result<_, CliError>>()?,
        timeline: timeline.collect(),
    };
    line(&document)
}

/// As `parity` says it; `None` where neither book has anything.
fn drift(explained: &Explanation) -> Option<String> {
    let [cell, edge] =
        [explained.cell, explained.edge].map(|book| MibNanos(book.memory_mib_ns.unsigned_abs()));
    (cell.0 > 0 || edge.0 > 0).then(|| Drift { cell, edge }.ratio())
}

pub(super) fn gib_seconds(memory_mib_ns: i128) -> String {
    signed(memory_mib_ns < 0, books::gib_seconds(MibNanos(memory_mib_ns.unsigned_abs())))
}

fn amount(amount: Amount) -> Result<AmountDocument, CliError> {
    Ok(AmountDocument {
        active_ns: amount.active_ns.to_string(),
        memory_mib_ns: amount.memory_mib_ns.to_string(),
        memory_gib_seconds: number(gib_seconds(amount.memory_mib_ns))?,
        cpu_millicpu_ns: amount.cpu_millis_ns.to_string(),
    })
}

fn window(from: Nanos, to: Nanos) -> WindowDocument {
    WindowDocument { from: instant(from), to: instant(to) }
}

fn sizes(book: &[Entry], places: &[usize]) -> Vec<SizeDocument> {
    let entries = places.iter().filter_map(|place| book.get(*place));
    entries
        .map(|entry| SizeDocument { memory_mib: entry.size.memory_mib, cpu_millis: entry.size.cpu.0 })
        .collect()
}
