//! Why two books differ, by name: a pure function of the books as they stand.
//!
//! [`explain`] lays the cell's book (scale events: what the host says) and the edge's (samples: what the guest counted)
//! side by side, and asks of each stretch where they differ which known failure leaves books like these. A cause is
//! told from the structure of the books and from what is known to have happened, and gets the seconds of the stretches
//! it explains; each stretch has one cause. What nothing explains is [`Cause::Unexplained`].
//!
//! The steps, each of which leaves to the next what it does not know: `plan`, `overlap` (more than one sample at
//! once), `smear`, `ticks` (each sample a little short or long), `holes` (a row without samples), `orphans`
//! (samples without a row), `sizes`. Beside the difference: `charge`.

#![deny(clippy::float_arithmetic)]

mod books;
mod cause;
mod charge;
mod holes;
mod ids;
pub mod lines;
mod orphans;
mod overlap;
mod plan;
mod question;
mod sizes;
mod smear;
mod stored;
mod ticks;
mod timeline;
mod total;

pub use books::{Books, Charge, Entry, Found, Happening, What};
pub use cause::{Amount, Cause, Finding, SPANS_MAX};
pub use question::Question;
pub use timeline::Span;

use timeline::Timeline;

/// Both books of one sandbox over a window, and why they differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What the cell's book has.
    pub cell: Amount,
    /// What the edge's book has.
    pub edge: Amount,
    /// What cannot be compared yet: samples of an hour that is not over.
    pub pending: Amount,
    /// The causes, the one with the most memory first. None: the books agree.
    pub findings: Vec<Finding>,
    /// The window, cut wherever either book changes.
    pub timeline: Vec<Span>,
}

impl Explanation {
    /// Whether there is nothing to explain.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.findings.is_empty()
    }

    /// What the edge's book has beyond the cell's.
    #[must_use]
    pub fn difference(&self) -> Amount {
        self.edge - self.cell
    }
}

/// Explains why the books differ in the window of `question`. Puts them in order: the places in the timeline are those
/// of the ordered books.
#[must_use]
pub fn explain(books: &mut Books, question: &Question) -> Explanation {
    books.arrange();
    let mut timeline = Timeline::new(books, question);
    let whole = timeline.total(Timeline::cell_amount);
    let pending = total::set_aside(&mut timeline);
    plan::explain(&mut timeline);
    overlap::explain(&mut timeline);
    smear::explain(&mut timeline);
    let carried = ticks::explain(&mut timeline);
    let tolerated = holes::explain(&mut timeline);
    orphans::explain(&mut timeline);
    sizes::explain(&mut timeline);
    let mut findings = total::findings(&mut timeline, carried, tolerated);
    findings.extend(charge::findings(books, question));
    let edge = timeline.total(Timeline::edge_amount);
    Explanation { cell: whole - pending, edge, pending, findings, timeline: timeline.spans }
}
