//! Both books side by side: the window cut wherever either of them changes.

use super::books::{Books, Entry, Happening, What};
use super::cause::{Amount, Cause};
use super::question::Question;
use crate::host::reconcile::Size;
use crate::units::Nanos;

/// A stretch in which neither book changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its start.
    pub from: Nanos,
    /// Its end.
    pub to: Nanos,
    /// Rows of the cell's book, by their places in it.
    pub cell: Vec<usize>,
    /// Rows of the edge's book, by their places in it.
    pub edge: Vec<usize>,
    /// Why the two differ here.
    pub cause: Option<Cause>,
}

/// How the books stand to each other in a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Nothing,
    Same,
    CellOnly,
    EdgeOnly,
    SizeDiffers,
    /// More than one row of a book at once.
    Many,
}

/// Both books over a window, and what is known about the differences so far.
pub(super) struct Timeline<'a> {
    pub books: &'a Books,
    pub question: &'a Question,
    pub spans: Vec<Span>,
}

impl<'a> Timeline<'a> {
    pub fn new(books: &'a Books, question: &'a Question) -> Self {
        let (from, to, now) = (question.from, question.to, question.now);
        let mut cuts = vec![from, to];
        for entry in books.cell.iter().chain(&books.edge) {
            if let Some((start, end)) = entry.within(from, to, now) {
                cuts.extend([start, end]);
            }
        }
        let edges = books.happened.iter().filter(|happening| happening.is_edge());
        cuts.extend(edges.map(|happening| happening.at).filter(|at| *at > from && *at < to));
        cuts.sort_unstable();
        cuts.dedup();
        let mut spans: Vec<Span> = Vec::with_capacity(cuts.len());
        let mut cell = Open::default();
        let mut edge = Open::default();
        for pair in cuts.windows(2) {
            let [start, end] = pair else { continue };
            cell.at(*start, &books.cell, now);
            edge.at(*start, &books.edge, now);
            let span = Span {
                from: *start,
                to: *end,
                cell: cell.places.clone(),
                edge: edge.places.clone(),
                cause: None,
            };
            spans.push(span);
        }
        Self { books, question, spans }
    }

    pub fn cell(&self, place: usize) -> Option<&'a Entry> {
        self.books.cell.get(place)
    }

    pub fn edge(&self, place: usize) -> Option<&'a Entry> {
        self.books.edge.get(place)
    }

    pub fn cell_size(&self, span: &Span) -> Option<Size> {
        self.cell(*span.cell.first()?).map(|entry| entry.size)
    }

    pub fn edge_size(&self, span: &Span) -> Option<Size> {
        self.edge(*span.edge.first()?).map(|entry| entry.size)
    }

    pub fn kind(&self, span: &Span) -> Kind {
        match (span.cell.as_slice(), span.edge.as_slice()) {
            ([], []) => Kind::Nothing,
            ([_], []) => Kind::CellOnly,
            ([], [_]) => Kind::EdgeOnly,
            ([_], [_]) if self.cell_size(span) == self.edge_size(span) => Kind::Same,
            ([_], [_]) => Kind::SizeDiffers,
            _ => Kind::Many,
        }
    }

    /// What the cell's book has in a span.
    pub fn cell_amount(&self, span: &Span) -> Amount {
        self.amount(&self.books.cell, &span.cell, span)
    }

    /// What the edge's book has in a span.
    pub fn edge_amount(&self, span: &Span) -> Amount {
        self.amount(&self.books.edge, &span.edge, span)
    }

    fn amount(&self, book: &[Entry], places: &[usize], span: &Span) -> Amount {
        let entries = places.iter().filter_map(|place| book.get(*place));
        entries.fold(Amount::default(), |sum, entry| sum + Amount::of(entry.size, span.span()))
    }

    /// The sum of `of` over all spans.
    pub fn total(&self, of: impl Fn(&Self, &Span) -> Amount) -> Amount {
        self.spans.iter().fold(Amount::default(), |sum, span| sum + of(self, span))
    }

    /// What the edge's book has beyond the cell's in a span.
    pub fn difference(&self, span: &Span) -> Amount {
        self.edge_amount(span) - self.cell_amount(span)
    }

    /// Stretches of spans of one kind that nothing has explained yet, as ranges of places.
    pub fn groups(&self, wanted: Kind) -> Vec<std::ops::Range<usize>> {
        let fits = |span: &Span| span.cause.is_none() && self.kind(span) == wanted;
        let mut groups: Vec<std::ops::Range<usize>> = Vec::new();
        for (place, _) in self.spans.iter().enumerate().filter(|(_, span)| fits(span)) {
            match groups.last_mut() {
                Some(last) if last.end == place => last.end = place + 1,
                _ => groups.push(place..place + 1),
            }
        }
        groups
    }

    /// Start and end of a range of spans.
    pub fn reach(&self, group: &std::ops::Range<usize>) -> Option<(Nanos, Nanos)> {
        let spans = self.spans.get(group.clone())?;
        Some((spans.first()?.from, spans.last()?.to))
    }

    /// Names the cause of what is not explained yet in a range of spans.
    pub fn blame(&mut self, group: std::ops::Range<usize>, cause: Cause) {
        for span in self.spans.get_mut(group).unwrap_or_default() {
            span.cause.get_or_insert(cause);
        }
    }

    /// Whether something of this kind happened in `[from, to]`.
    pub fn happened(&self, from: Nanos, to: Nanos, fits: impl Fn(&What) -> bool) -> bool {
        let within = |happening: &&Happening| happening.at >= from && happening.at <= to;
        self.books.happened.iter().filter(within).any(|happening| fits(&happening.what))
    }
}

impl Span {
    /// How long it is.
    #[must_use]
    pub fn span(&self) -> Nanos {
        self.to.saturating_sub(self.from)
    }
}

impl Happening {
    /// Whether the VM or the worker changes at it.
    fn is_edge(&self) -> bool {
        !matches!(self.what, What::Report { .. } | What::Found(_))
    }
}

/// The rows of a book that are open at an instant, which only goes forward.
#[derive(Default)]
struct Open {
    places: Vec<usize>,
    next: usize,
}

impl Open {
    fn at(&mut self, at: Nanos, book: &[Entry], now: Nanos) {
        while let Some(entry) = book.get(self.next)
            && entry.start <= at
        {
            self.places.push(self.next);
            self.next += 1;
        }
        self.places.retain(|place| book.get(*place).is_some_and(|entry| entry.end.unwrap_or(now) > at));
    }
}
