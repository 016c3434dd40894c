//! An explanation for a person: the sums, the causes, and the timeline in as few lines as it takes.

use super::document::gib_seconds;
use crate::host::cli::books::instant;
use crate::host::decimal::{quotient, signed};
use crate::host::explain::{Amount, Books, Cause, Entry, Explanation, Question, Span};
use crate::host::table::{self, Look};
use crate::host::text::{Safe, vcpus};
use crate::units::{Bytes, Nanos};

/// A person reads no more lines than this; JSON has them all.
const LINES_MAX: usize = 60;

pub(super) fn text(books: &Books, question: &Question, explained: &Explanation, look: Look) -> String {
    let (from, to) = (instant(question.from), instant(question.to));
    let mut text = format!("{}  {from} to {to}\n", Safe(&books.sandbox));
    let mut sums = vec![
        sum("host's book (cell)", explained.cell),
        sum("guest's book (edge)", explained.edge),
        sum("difference", explained.difference()),
    ];
    if explained.pending != Amount::default() {
        sums.push(sum("not posted yet", explained.pending));
    }
    text.push_str(&table::grid(&["", "SECONDS", "GiB·s", "vCPU·s"], &sums, look));
    if explained.agrees() {
        text.push_str("agree\n");
        return text;
    }
    text.push('\n');
    let causes: Vec<[String; 4]> =
        explained.findings.iter().map(|finding| sum(finding.cause.name(), finding.amount)).collect();
    text.push_str(&table::grid(&["CAUSE", "SECONDS", "GiB·s", "vCPU·s"], &causes, look));
    for finding in &explained.findings {
        text.push_str(&format!(
            "{}: {}{}\n",
            finding.cause.name(),
            finding.cause.sentence(),
            first(&finding.spans)
        ));
    }
    text.push('\n');
    text.push_str(&timeline(books, question, explained, look));
    text
}

fn sum(name: &str, amount: Amount) -> [String; 4] {
    let thousandths =
        |of: i128, unit| signed(of < 0, quotient(of.unsigned_abs(), unit, 3).unwrap_or_default());
    let seconds = thousandths(amount.active_ns, 1_000_000_000);
    let vcpu_seconds = thousandths(amount.cpu_millis_ns, 1_000_000_000_000);
    [name.to_owned(), seconds, gib_seconds(amount.memory_mib_ns), vcpu_seconds]
}

/// Where a cause is at work.
fn first(spans: &[(Nanos, Nanos)]) -> String {
    match spans {
        [] => String::new(),
        [(from, to)] => format!(" ({} to {})", instant(*from), instant(*to)),
        [(from, to), rest @ ..] => {
            format!(" ({} to {}, and {} more)", instant(*from), instant(*to), rest.len())
        }
    }
}

/// One line of the timeline.
struct Line {
    from: Nanos,
    to: Nanos,
    cell: String,
    edge: String,
    causes: Vec<Cause>,
}

fn timeline(books: &Books, question: &Question, explained: &Explanation, look: Look) -> String {
    let mut lines: Vec<Line> = Vec::new();
    for span in &explained.timeline {
        let line = line(books, span);
        match lines.last_mut() {
            Some(last) if (&last.cell, &last.edge) == (&line.cell, &line.edge) => last.join(&line),
            Some(last) if line.interrupts(last, question.noise()) => last.join(&line),
            _ => lines.push(line),
        }
    }
    let more = lines.len().saturating_sub(LINES_MAX);
    let rows: Vec<[String; 5]> = lines.iter().take(LINES_MAX).map(Line::row).collect();
    let mut text = table::grid(&["FROM", "TO", "CELL", "EDGE", "CAUSE"], &rows, look);
    if more > 0 {
        text.push_str(&format!("and {more} more; --json has them all\n"));
    }
    text
}

fn line(books: &Books, span: &Span) -> Line {
    let sizes = |book: &[Entry], places: &[usize]| {
        let sizes = places.iter().filter_map(|place| book.get(*place)).map(|entry| {
            format!("{} {}", table::bytes(Bytes::mib(entry.size.memory_mib)), vcpus(entry.size.cpu))
        });
        sizes.collect::<Vec<_>>().join(" + ")
    };
    Line {
        from: span.from,
        to: span.to,
        cell: sizes(&books.cell, &span.cell),
        edge: sizes(&books.edge, &span.edge),
        causes: span.cause.into_iter().collect(),
    }
}

impl Line {
    /// Whether one book has nothing for a moment, as between two ticks.
    fn interrupts(&self, before: &Self, noise: Nanos) -> bool {
        let sliver = self.to.saturating_sub(self.from) <= noise;
        let same_cell = self.cell == before.cell && self.edge.is_empty();
        let same_edge = self.edge == before.edge && self.cell.is_empty();
        sliver && (same_cell || same_edge)
    }

    fn join(&mut self, other: &Self) {
        self.to = other.to;
        for cause in &other.causes {
            if !self.causes.contains(cause) {
                self.causes.push(*cause);
            }
        }
    }

    fn row(&self) -> [String; 5] {
        let or_none = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        let causes: Vec<&str> = self.causes.iter().map(|cause| cause.name()).collect();
        [instant(self.from), instant(self.to), or_none(&self.cell), or_none(&self.edge), causes.join(" ")]
    }
}
