//! Spans of months: what is posted is whole, and what is kept has a bound.

use super::ledger::{HOUR, Ledger};
use super::story::{SECOND, Story, at, claim, epoch, names, size};
use super::world::{Act, World};
use guestmeter::host::reconcile::{Account, Call, Claim, Evidence, Policy, VmState, reconcile};
use guestmeter::units::Nanos;
use proptest::prelude::*;

const DAY: u64 = 24 * 3600;
/// The ledger refuses a longer state, and with it all that the sandbox posts. A page has a little more around it.
const STATE_MAX: usize = 64 * 1024 - 1024;

fn bytes(account: &Account) -> usize {
    postcard::to_allocvec(account).unwrap().len()
}

/// Whole hours from 0 s to the end of the samples, and nothing between them.
fn assert_whole(story: &Story, until: u64) {
    let samples = story.samples();
    assert!(samples.windows(2).all(|pair| pair[0].1 == pair[1].0), "a hole");
    assert_eq!((samples.first().unwrap().0, samples.last().unwrap().1), (0, until));
    assert_eq!(story.ledger.active(), Nanos(until * SECOND));
}

#[test]
fn a_life_that_is_told_half_a_year_late_is_posted_whole_and_kept_short() {
    let now = 170 * DAY;
    let mut story = Story::started();
    story.vmm(now, VmState::Running, 4096);
    assert!(bytes(&story.account) < STATE_MAX, "{}", bytes(&story.account));
    for poll in 1..100 {
        let second = now + poll * 5;
        story.claim(claim(second, second, 4096));
        assert!(bytes(&story.account) < STATE_MAX, "{}", bytes(&story.account));
    }
    story.call(now + 600, Call::Destroyed { epoch: None });
    assert_whole(&story, now + 600);
    assert_eq!(story.rows(), [(0, Some(now + 600), 4096)]);
}

#[test]
fn a_life_of_half_a_year_that_ends_at_once_is_kept_short_too() {
    let mut story = Story::started();
    story.call(170 * DAY, Call::Destroyed { epoch: None });
    assert!(bytes(&story.account) < STATE_MAX, "{}", bytes(&story.account));
    assert_whole(&story, 170 * DAY);
    // A platform that corrects itself: it was gone after a hundred days.
    story.call(100 * DAY + 7, Call::Pausing { epoch: Some(epoch(1).id) });
    assert!(bytes(&story.account) < STATE_MAX, "{}", bytes(&story.account));
}

#[test]
fn a_guest_that_is_silent_for_years_is_kept_short() {
    let mut story = Story::started();
    story.claim(claim(5, 5, 4096));
    let mut hour = 0;
    while hour < 3 * 365 * 24 {
        hour += if hour < 3000 { 7 } else { 700 };
        story.clock(hour * 3600 + 300);
        assert!(bytes(&story.account) < STATE_MAX, "{} after {hour} h", bytes(&story.account));
    }
    assert_whole(&story, hour * 3600);
    // It is heard again, and has counted all the while.
    let second = hour * 3600 + 310;
    let heard = story.claim(Claim { asked: Some(at(second)), ..claim(second, second, 4096) });
    assert_eq!(names(&heard), ["agree"]);
    story.call(second, Call::Destroyed { epoch: None });
    assert_whole(&story, second);
}

/// The worker was down for a month; the first it hears is the guest, which was paused for ten days of it unseen.
#[test]
fn what_a_guest_counted_while_nobody_asked_is_posted_as_it_counted() {
    let mut story = Story::started();
    story.claim(claim(5, 5, 4096));
    let (second, counted) = (30 * DAY + 7, 20 * DAY);
    story.claim(claim(second, counted, 4096));
    assert!(bytes(&story.account) < STATE_MAX, "{}", bytes(&story.account));
    story.call(second, Call::Destroyed { epoch: None });
    assert_eq!(story.ledger.active(), Nanos(counted * SECOND));
}

/// What came in the month is told after it, out of order.
#[test]
fn a_month_that_is_told_late_is_told_anew() {
    let mut story = Story::started();
    story.claim(claim(5, 5, 4096));
    story.clock(30 * DAY);
    assert_whole(&story, 30 * DAY - 3600);
    story.call(10 * DAY, Call::Scaled { size: size(1024) });
    story.call(20 * DAY + 30, Call::Destroyed { epoch: None });
    assert_eq!(story.rows(), [(0, Some(10 * DAY), 4096), (10 * DAY, Some(20 * DAY + 30), 1024)]);
    assert_whole(&story, 20 * DAY + 30);
    story.ledger.check_envelope();
    assert!(bytes(&story.account) < STATE_MAX, "{}", bytes(&story.account));
}

/// A VM that nobody but the platform tells of.
#[test]
fn a_life_that_is_scaled_each_hour_for_half_a_year_is_kept_short() {
    let mut story = Story::started();
    for hour in 1..170 * 24 {
        let decision = story.call_unchecked(hour * 3600 + 7, Call::Scaled { size: size(1024 << (hour % 4)) });
        assert!(decision.samples.len() < 40, "{hour}: {}", decision.samples.len());
        assert!(bytes(&story.account) < STATE_MAX / 4, "{} after {hour} h", bytes(&story.account));
    }
    story.call(170 * DAY, Call::Destroyed { epoch: None });
    assert_whole(&story, 170 * DAY);
    story.ledger.check_envelope();
}

/// It died a month ago unseen, and what was billed since is taken back, however much of it is forgotten.
#[test]
fn a_life_that_proves_to_have_ended_a_month_ago_is_cut_there() {
    for gone in [true, false] {
        let mut story = Story::started();
        story.vmm(10, VmState::Running, 4096);
        for hour in 1..30 * 24 {
            story.call_unchecked(hour * 3600 + 7, Call::Scaled { size: size(1024 << (hour % 4)) });
            story.clock(hour * 3600 + 600);
        }
        assert!(story.ledger.active() > Nanos(28 * 24 * HOUR));
        if gone {
            story.vmm(30 * DAY, VmState::Gone, 0);
        } else {
            story.call(30 * DAY, Call::Started { epoch: epoch(2), size: size(4096) });
            story.call(30 * DAY + 5, Call::Destroyed { epoch: Some(epoch(2).id) });
        }
        let later = if gone { None } else { Some((30 * DAY, Some(30 * DAY + 5), 4096)) };
        assert_eq!(
            story.rows(),
            [(0, Some(10), 4096)].into_iter().chain(later).collect::<Vec<_>>(),
            "gone {gone}"
        );
        assert_eq!(story.samples().first(), Some(&(0, 10, 4096)));
        assert_eq!(story.ledger.active(), Nanos((10 + if gone { 0 } else { 5 }) * SECOND));
        // The platform was only late: it ran until then.
        story.call(30 * DAY - 60, Call::Destroyed { epoch: Some(epoch(1).id) });
        assert_eq!(
            story.ledger.active(),
            Nanos((30 * DAY - 60 + if gone { 0 } else { 5 }) * SECOND),
            "gone {gone}"
        );
        let lived: u64 = story.rows().iter().map(|(start, end, _)| end.unwrap() - start).sum();
        assert_eq!(lived, 30 * DAY - 60 + if gone { 0 } else { 5 }, "gone {gone}");
        story.ledger.check_envelope();
    }
}

/// However often sizes change and lives begin in it.
#[test]
fn a_busy_year_told_at_once_is_kept_short() {
    let mut story = Story::started();
    story.policy = Policy::default();
    let mut second = 0;
    for number in 2..60_u8 {
        for step in 0..20_u64 {
            second += 5 * 3600 + 7;
            story.call(second, Call::Scaled { size: size(1024 << (step % 4)) });
        }
        story.call(second + 1, Call::Pausing { epoch: None });
        story.call(second + 2 * DAY, Call::Resumed { epoch: epoch(number), size: None, paused: true });
        second += 2 * DAY;
        assert!(bytes(&story.account) < STATE_MAX, "{} of {number}", bytes(&story.account));
    }
    story.ledger.check_envelope();
    assert!(second * SECOND > 300 * 24 * HOUR);
}

/// Acts that take up to a hundred days each.
fn long_act() -> impl Strategy<Value = Act> {
    let ms = || prop_oneof![1..30_000u64, 1..8_640_000_000u64];
    prop_oneof![
        2 => (1..30_000u64).prop_map(Act::Run),
        3 => ms().prop_map(Act::Silent),
        2 => (prop_oneof![Just(1024u64), Just(4096), Just(8192)], 0..8_000u64).prop_map(|(mib, ms)| Act::Scale(mib, ms)),
        2 => (ms(), any::<bool>()).prop_map(|(ms, asked)| Act::Pause(ms, asked)),
        1 => Just(Act::Vmm),
        1 => (0..3_000u64).prop_map(Act::Adopt),
        1 => ms().prop_map(Act::Die),
        1 => ms().prop_map(Act::Reboot),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

    /// Whatever comes late, and wherever the clock is told. What is later than the policy can put in order changes ends
    /// alone: then the books need not fit to the nanosecond.
    #[test]
    fn years_of_anything_are_kept_short(
        acts in prop::collection::vec(long_act(), 0..24),
        late in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        by in prop_oneof![2 => Just(5usize), 1 => 6..30usize],
        clocks in any::<u64>(),
    ) {
        let world = World::run(&acts, &[3]);
        let mut evidence = world.evidence.clone();
        let mut moved = std::collections::BTreeSet::new();
        for place in late {
            let from = place.index(evidence.len());
            let to = (from + by).min(evidence.len() - 1);
            if by > 5 || (from..=to).all(|place| moved.insert(place)) {
                let piece = evidence.remove(from);
                evidence.insert(to, piece);
            }
        }
        let (mut account, mut ledger, policy) = (Account::new("sb", "org"), Ledger::default(), Policy::default());
        let mut now = Nanos::ZERO;
        for (index, piece) in evidence.iter().enumerate() {
            ledger.commit(&reconcile(&mut account, piece, &policy));
            prop_assert!(bytes(&account) < STATE_MAX, "{} after {piece:?}", bytes(&account));
            now = now.max(at_of(piece));
            if clocks >> (index % 64) & 1 == 1 {
                ledger.commit(&reconcile(&mut account, &Evidence::Clock(now), &policy));
                prop_assert!(bytes(&account) < STATE_MAX, "{} at {now:?}", bytes(&account));
            }
        }
        ledger.check();
        if by == 5 {
            ledger.check_envelope();
        }
    }
}

fn at_of(piece: &Evidence) -> Nanos {
    match piece {
        Evidence::Report(told) => told.claim.received,
        Evidence::Segment(segment) => segment.received,
        Evidence::Vmm(answer) => answer.received,
        Evidence::Lifecycle(call) => call.at,
        Evidence::Clock(at) => *at,
    }
}
