//! Whose word counts: the host's books against the guest's, one piece of evidence at a time.
//!
//! [`reconcile`] takes a piece of [`Evidence`] into a sandbox's [`Account`] and returns a [`Decision`]: what to post
//! to the ledger, what to acknowledge, and what was found. It reads no clock and does no I/O; time is in the evidence.
//!
//! # The rules
//! - Time comes from the host's own intervals: a life runs from the platform's word of its start to that of its end.
//!   `scale_event` rows are those intervals; usage samples are how much of them the guest has witnessed, and behind
//!   its last report the host's word again. `credit` lays the guest's count into the host's time.
//! - Memory and CPU come from confirmed capacity, at most what was requested. `authority` dates each change.
//! - Reports are absolute, so doubled, late and lost ones heal. `account` puts late evidence where it belongs.
//! - A claim that cannot be (`bounds`), or that is behind what its guest has said before, is credited nothing.
//!
//! # Example
//! ```
//! use guestmeter::host::reconcile::{Account, Call, Evidence, Lifecycle, Minted, Policy, Requested, reconcile};
//! use guestmeter::units::Nanos;
//! use guestmeter::wire::message::Id;
//!
//! let mut account = Account::new("sb-1", "acme");
//! let epoch = Minted { id: Id([7; 16]), number: 1 };
//! let size = Requested { memory_mib: Some(4096), cpu: None };
//! let started = Lifecycle { at: Nanos::from_secs(1000), call: Call::Started { epoch, size } };
//! let decision = reconcile(&mut account, &Evidence::Lifecycle(started), &Policy::default());
//! assert_eq!(decision.rows[0].size.memory_mib, 4096, "until a report confirms less");
//! assert_eq!(decision.rows[0].end, None);
//! ```

#![deny(clippy::float_arithmetic)]

mod account;
mod authority;
mod books;
mod bounds;
mod credit;
mod decision;
mod evidence;
mod fact;
mod judge;
mod life;
mod lifecycle;
mod policy;
mod runs;
mod size;
mod state;
mod verdict;

pub use account::{Account, Current};
pub use decision::{Cut, Decision, Row, Sample};
pub use evidence::{Answer, Call, Claim, Evidence, Lifecycle, Minted, Segment, Told, Totals, VmState};
pub use policy::{Policy, Tolerance};
pub use size::{Confirmed, Requested, Size, derived_cpu};
pub use verdict::{Books, GapCause, Impossible, Plug, RECORD_PAUSE, Verdict};

use crate::wire::message::{Ack, Id};

/// Takes `evidence` into `account` and says what follows.
///
/// The account has changed when this returns: commit it together with what the decision posts, or forget it and read
/// the last committed one again.
pub fn reconcile(account: &mut Account, evidence: &Evidence, policy: &Policy) -> Decision {
    let mut decision = Decision::default();
    account.take(evidence, policy, &mut decision);
    match evidence {
        Evidence::Report(told) => {
            if let Some(of) = &told.copy_of {
                decision.verdicts.push(Verdict::Clone { of: of.clone() });
            }
            let claim = &told.claim;
            let known = account.knows(claim.epoch);
            decision.name = claim.epoch == Id::default() || !known || decision.wants_another_name();
            decision.segments = claim.segments_waiting > 0;
            if known && !decision.blocked() {
                decision.ack = Some(Ack { epoch: claim.epoch, seq: claim.seq });
            }
        }
        // One that is another sandbox's, in a clone, or of a life long forgotten, is nobody's to wait for.
        Evidence::Segment(segment) => {
            decision.ack = Some(Ack { epoch: segment.epoch, seq: segment.seq });
        }
        _ => {}
    }
    decision
}
