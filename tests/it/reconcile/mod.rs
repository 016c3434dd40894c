//! The host's decisions over random true worlds, and over random lies.

mod ledger;
mod lives;
mod long;
mod story;
mod verdicts;
mod world;

use guestmeter::host::explain::{Books, Entry, Question, explain};
use guestmeter::host::reconcile::{Account, Claim, Evidence, Policy, reconcile};
use guestmeter::units::{Bytes, MilliCpu, Nanos};
use guestmeter::wire::message::Id;
use ledger::Ledger;
use proptest::prelude::*;
use world::{Act, START, World, act};

/// Feeds all of it.
fn post(evidence: &[Evidence], policy: &Policy) -> Ledger {
    let mut account = Account::new("sb", "org");
    let mut ledger = Ledger::default();
    for piece in evidence {
        ledger.commit(&reconcile(&mut account, piece, policy));
    }
    ledger
}

fn world() -> impl Strategy<Value = World> {
    let acts = prop::collection::vec(act(), 0..14);
    (acts, prop::collection::vec(0..400u64, 1..20)).prop_map(|(acts, delays)| World::run(&acts, &delays))
}

/// No pause that nobody announced, and no guest that loses its name.
fn calm_world() -> impl Strategy<Value = World> {
    let calm = act().prop_filter("a surprise", |act| !matches!(act, Act::Bare(_) | Act::Adopt(_)));
    let acts = prop::collection::vec(calm, 0..14);
    (acts, prop::collection::vec(0..400u64, 1..20)).prop_map(|(acts, delays)| World::run(&acts, &delays))
}

/// A claim as a guest may forge it.
#[derive(Clone, Debug)]
struct Lie {
    epoch: Option<u8>,
    boot: Option<u8>,
    seq: Option<u64>,
    active: Option<u64>,
    base: Option<u64>,
    memory: Option<u64>,
    cpu: Option<u64>,
    dropped: Option<u64>,
}

fn lie() -> impl Strategy<Value = (prop::sample::Index, Lie)> {
    let number =
        || prop::option::weighted(0.3, prop_oneof![Just(0), Just(u64::MAX), 0..4_000_000_000_000u64]);
    let small = || prop::option::weighted(0.1, 0..8u8);
    let memory = prop::option::weighted(0.3, prop_oneof![0..(1u64 << 37), Just(u64::MAX)]);
    let lie = (small(), small(), number(), number(), number(), memory, number(), number()).prop_map(
        |(epoch, boot, seq, active, base, memory, cpu, dropped)| Lie {
            epoch,
            boot,
            seq,
            active,
            base,
            memory,
            cpu,
            dropped,
        },
    );
    (any::<prop::sample::Index>(), lie)
}

impl Lie {
    fn tell(self, claim: &mut Claim) {
        claim.epoch = self.epoch.map_or(claim.epoch, |epoch| Id([epoch; 16]));
        claim.boot_id = self.boot.map_or(claim.boot_id, |boot| Id([boot; 16]));
        claim.seq = self.seq.unwrap_or(claim.seq);
        claim.usage.active = self.active.map_or(claim.usage.active, Nanos);
        claim.base.active = self.base.map_or(claim.base.active, Nanos);
        claim.size.memory = self.memory.map(Bytes).or(claim.size.memory);
        claim.size.cpu = self.cpu.map(MilliCpu).or(claim.size.cpu);
        claim.dropped = self.dropped.map_or(claim.dropped, Nanos);
    }
}

/// All evidence can be put in order, however late.
fn patient() -> Policy {
    Policy { recent_max: 1_000_000, ..Policy::default() }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "World::run(&{:?}, &{:?})", self.acts, self.delays)
    }
}

proptest! {
    #[test]
    fn samples_lie_within_rows_and_never_overlap(world in world()) {
        let ledger = post(&world.evidence, &Policy::default());
        ledger.check();
        ledger.check_envelope();
        prop_assert!(ledger.rows().iter().all(|row| row.end.is_some()), "destroyed, but a row is open");
    }

    #[test]
    fn what_is_posted_is_what_ran(world in world()) {
        let ledger = post(&world.evidence, &Policy::default());
        if !world.bare {
            prop_assert!(ledger.active().0 <= world.true_active, "{} of {}", ledger.active().0, world.true_active);
            prop_assert!(ledger.memory() <= world.true_memory, "{} of {}", ledger.memory(), world.true_memory);
        }
        // A life begins with its first answer, and ends with its last: a second of network at each edge.
        let declared = world.unseen + world.unnamed + world.edges * 1_000_000_000;
        let least = world.true_active.saturating_sub(declared);
        prop_assert!(ledger.active().0 >= least, "{} of {}", ledger.active().0, world.true_active);
    }

    #[test]
    fn lies_never_reach_beyond_the_host_s_own_intervals(world in world(), lies in prop::collection::vec(lie(), 1..40)) {
        let mut evidence = world.evidence.clone();
        for (place, lie) in lies {
            let place = place.index(evidence.len());
            if let Evidence::Report(told) = &mut evidence[place] {
                lie.tell(&mut told.claim);
            }
        }
        let ledger = post(&evidence, &Policy::default());
        ledger.check();
        ledger.check_envelope();
        prop_assert!(ledger.rows().iter().all(|row| row.size.memory_mib <= 16384 && row.size.cpu.0 <= 1000));
        if !world.bare {
            prop_assert!(ledger.active().0 <= world.true_active, "{} of {}", ledger.active().0, world.true_active);
        }
    }

    #[test]
    fn books_of_a_world_without_surprises_agree(world in calm_world()) {
        let ledger = post(&world.evidence, &Policy::default());
        let entry = |start, end, size| Entry { id: String::new(), start, end, size, epoch: None };
        let mut books = Books {
            cell: ledger.rows().iter().map(|row| entry(row.start, row.end, row.size)).collect(),
            edge: ledger.samples().iter().map(|at| entry(at.start, Some(at.end), at.size)).collect(),
            ..Books::default()
        };
        let question = Question::new(Nanos(START), Nanos(world.now), Nanos(world.now), &Policy::default());
        let explanation = explain(&mut books, &question);
        prop_assert!(explanation.agrees(), "{:#?}", explanation.findings);
    }

    #[test]
    fn evidence_given_twice_changes_nothing(world in world()) {
        let policy = Policy::default();
        let mut account = Account::new("sb", "org");
        for piece in &world.evidence {
            reconcile(&mut account, piece, &policy);
            let before = account.clone();
            let again = reconcile(&mut account, piece, &policy);
            prop_assert!(again.posts_nothing(), "{piece:?}: {again:?}");
            prop_assert_eq!(&account, &before);
        }
    }

    #[test]
    fn any_order_posts_the_same(world in world(), seed in any::<u64>()) {
        let straight = post(&world.evidence, &patient());
        let mut shuffled = world.evidence.clone();
        shuffle(&mut shuffled, seed);
        let ledger = post(&shuffled, &patient());
        prop_assert_eq!(ledger.rows(), straight.rows());
        prop_assert_eq!(ledger.samples(), straight.samples());
    }

    #[test]
    fn a_little_late_posts_the_same(world in world(), swaps in prop::collection::vec(any::<prop::sample::Index>(), 0..30)) {
        let straight = post(&world.evidence, &Policy::default());
        let mut late = world.evidence.clone();
        // Each piece at most as many places late as the policy can put in order.
        let mut moved = std::collections::BTreeSet::new();
        for swap in swaps {
            let from = swap.index(late.len());
            let to = (from + 5).min(late.len() - 1);
            if (from..=to).all(|place| moved.insert(place)) {
                let piece = late.remove(from);
                late.insert(to, piece);
            }
        }
        let ledger = post(&late, &Policy::default());
        prop_assert_eq!(ledger.rows(), straight.rows());
        prop_assert_eq!(ledger.samples(), straight.samples());
    }
}

fn shuffle(evidence: &mut [Evidence], mut seed: u64) {
    for last in (1..evidence.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let other = usize::try_from(seed >> 33).unwrap() % (last + 1);
        evidence.swap(last, other);
    }
}
