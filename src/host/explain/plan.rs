//! Orgs that the edge's book leaves out.

use super::cause::Cause;
use super::timeline::Timeline;

/// Whose usage is sampled. An unknown plan is compared.
const SAMPLED: &str = "pro";

pub(super) fn explain(timeline: &mut Timeline<'_>) {
    let left_out = timeline.books.plan.as_deref().is_some_and(|plan| plan != SAMPLED);
    if left_out && timeline.spans.iter().all(|span| span.edge.is_empty()) {
        timeline.blame(0..timeline.spans.len(), Cause::FreeOrg);
    }
}
