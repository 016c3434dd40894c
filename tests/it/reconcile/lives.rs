//! Lives and their names: where each begins and ends, and whose time is whose.

use super::story::{SECOND, Story, at, claim, epoch, names, size};
use guestmeter::host::reconcile::{Call, Claim, Evidence, Impossible, Segment, Totals, Verdict, VmState};
use guestmeter::units::Nanos;
use guestmeter::wire::message::{Ack, Id};

#[test]
fn a_checkpoint_moves_the_end_forward() {
    let mut story = Story::started();
    story.claim(claim(5, 5, 4096));
    story.call(10, Call::Pausing { epoch: Some(epoch(1).id) });
    let checkpoint = Claim { checkpoint: true, ..claim(12, 12, 4096) };
    story.claim(checkpoint);
    assert_eq!((story.rows(), story.samples()), (vec![(0, Some(12), 4096)], vec![(0, 12, 4096)]));
    story.call(100, Call::Resumed { epoch: epoch(2), size: None, paused: true });
    assert_eq!(story.rows(), [(0, Some(12), 4096), (100, None, 4096)]);
}

#[test]
fn naming_is_no_edge() {
    let mut story = Story::started();
    story.claim(claim(5, 5, 4096));
    let unnamed =
        story.claim(Claim { epoch: Id::default(), base: claim(0, 6, 4096).usage, ..claim(8, 8, 4096) });
    assert_eq!(names(&unnamed), ["gap"]);
    assert_eq!((unnamed.ack, unnamed.name), (None, true));
    story.call(9, Call::Named { epoch: epoch(2) });
    story.claim(Claim { epoch: epoch(2).id, base: claim(0, 6, 4096).usage, ..claim(10, 10, 4096) });
    story.call(20, Call::Destroyed { epoch: None });
    assert_eq!(story.rows(), [(0, Some(20), 4096)]);
    assert_eq!(
        story.samples(),
        [(0, 5, 4096), (6, 20, 4096)],
        "what it counted since 6 s, it counted unnamed"
    );
}

/// It is named after the platform's word, which is dated before.
#[test]
fn a_guest_that_is_named_to_be_paused_is_paused() {
    let named = |answered| {
        let mut story = Story::started();
        story.claim(claim(5, 5, 4096));
        story.call(12, Call::Named { epoch: epoch(2) });
        if answered {
            let base = claim(0, 8, 4096).usage;
            story.claim(Claim { epoch: epoch(2).id, base, ..claim(13, 9, 4096) });
            story.tail(epoch(1), 13, base);
            story.claim(Claim { epoch: epoch(2).id, base, checkpoint: true, ..claim(14, 10, 4096) });
        }
        story.call(10, Call::Pausing { epoch: Some(epoch(2).id) });
        story
    };
    let mut story = named(true);
    assert_eq!(story.rows(), [(0, Some(14), 4096)], "up to the checkpoint");
    story.call(1000, Call::Destroyed { epoch: Some(epoch(2).id) });
    assert_eq!(story.rows(), [(0, Some(14), 4096)]);
    assert_eq!(story.samples(), [(0, 8, 4096), (10, 12, 4096)]);
    story.ledger.check_envelope();
    let mut story = named(false);
    story.call(1000, Call::Resumed { epoch: epoch(3), size: None, paused: true });
    assert_eq!(story.rows(), [(0, Some(10), 4096), (1000, None, 4096)]);
    let mut story = named(true);
    story.call(16, Call::Resumed { epoch: epoch(3), size: None, paused: false });
    assert_eq!(story.rows(), [(0, None, 4096)], "it was not paused after all");
}

#[test]
fn a_name_that_was_never_answered_leaves_its_interval_to_the_next() {
    let mut story = Story::started();
    story.call(30, Call::Named { epoch: epoch(2) });
    story.claim(Claim { epoch: epoch(2).id, ..claim(35, 33, 4096) });
    story.call(40, Call::Destroyed { epoch: None });
    assert_eq!(story.rows(), [(0, Some(40), 4096)]);
    assert_eq!(story.samples(), [(2, 40, 4096)]);
}

#[test]
fn the_tail_of_an_earlier_name_ends_where_the_next_began() {
    let mut story = Story::started();
    story.claim(claim(10, 10, 4096));
    story.call(60, Call::Named { epoch: epoch(2) });
    let base = claim(0, 30, 4096).usage;
    story.claim(Claim { epoch: epoch(2).id, base, ..claim(61, 51, 4096) });
    assert_eq!(story.samples(), [(0, 10, 4096)]);
    story.tail(epoch(1), 61, base);
    assert_eq!(story.samples(), [(0, 30, 4096)]);
    story.call(70, Call::Destroyed { epoch: None });
    assert_eq!(story.samples(), [(0, 30, 4096), (40, 70, 4096)]);
}

#[test]
fn a_base_that_moved_is_another_life_under_the_same_name() {
    let mut story = Story::started();
    story.claim(claim(10, 10, 4096));
    let moved = story.claim(Claim { base: claim(0, 3, 4096).usage, ..claim(20, 20, 4096) });
    assert!(matches!(moved.verdicts[..], [Verdict::Rollback { named: false, .. }]), "{moved:?}");
    assert_eq!((moved.ack, moved.name), (None, true));
}

#[test]
fn a_first_report_from_before_its_life_is_named_anew() {
    let mut story = Story::started();
    let early = story.claim(claim(20, 500, 4096));
    assert!(matches!(early.verdicts[..], [Verdict::Impossible(Impossible::Time { .. })]), "{early:?}");
    assert!(early.name && early.posts_nothing());
    story.call(21, Call::Named { epoch: epoch(2) });
    let named = Claim { epoch: epoch(2).id, base: claim(0, 500, 4096).usage, ..claim(25, 504, 4096) };
    assert_eq!(names(&story.claim(named)), ["agree"]);
    story.call(30, Call::Destroyed { epoch: None });
    assert_eq!(story.samples(), [(21, 30, 4096)]);
}

#[test]
fn the_tail_of_an_earlier_name_has_the_size_of_its_row() {
    let mut story = Story::started();
    story.claim(claim(10, 10, 4096));
    story.call(20, Call::Scaled { size: size(1024) });
    // The name of 60 s never arrives, that of 80 s does.
    story.call(60, Call::Named { epoch: epoch(2) });
    story.call(80, Call::Named { epoch: epoch(3) });
    let base = claim(0, 70, 4096).usage;
    story.claim(Claim { epoch: epoch(3).id, base, ..claim(85, 75, 1024) });
    story.tail(epoch(1), 85, base);
    story.call(90, Call::Destroyed { epoch: None });
    assert_eq!(story.rows(), [(0, Some(20), 4096), (20, Some(90), 1024)]);
    assert_eq!(story.samples(), [(0, 10, 4096), (20, 80, 1024), (80, 90, 1024)]);
    story.ledger.check_envelope();
}

#[test]
fn a_carry_that_a_cut_dropped_is_no_rollback_and_bills_no_less() {
    let mut story = Story::started();
    let half = |claim: Claim| Claim {
        usage: Totals { active: Nanos(claim.usage.active.0 + SECOND / 2), ..claim.usage },
        received: Nanos(claim.received.0 + SECOND / 2),
        ..claim
    };
    story.claim(half(claim(10, 10, 4096)));
    let dropped = Claim { dropped: Nanos(SECOND / 2), ..claim(15, 10, 4096) };
    assert_eq!(names(&story.claim(dropped)), ["gap", "agree"]);
    let rolled = story.claim(Claim { dropped: Nanos(SECOND / 2), ..claim(20, 9, 4096) });
    assert_eq!(names(&rolled), ["rollback"], "a whole unit is");
    story.call(20, Call::Resumed { epoch: epoch(2), size: None, paused: true });
    assert_eq!(story.ledger.active(), Nanos(10 * SECOND + SECOND / 2), "the most that was counted");
}

#[test]
fn a_snapshot_given_up_is_no_edge() {
    let mut story = Story::started();
    story.claim(claim(5, 5, 4096));
    story.call(10, Call::Pausing { epoch: Some(epoch(1).id) });
    story.claim(Claim { checkpoint: true, ..claim(11, 11, 4096) });
    assert_eq!(story.rows(), [(0, Some(11), 4096)]);
    story.call(14, Call::Resumed { epoch: epoch(2), size: None, paused: false });
    assert_eq!(story.rows(), [(0, None, 4096)], "it ran on");
    let base = claim(0, 14, 4096).usage;
    story.claim(Claim { epoch: epoch(2).id, base, ..claim(20, 20, 4096) });
    story.tail(epoch(1), 20, base);
    story.call(30, Call::Destroyed { epoch: None });
    assert_eq!(story.rows(), [(0, Some(30), 4096)]);
    assert_eq!(story.samples(), [(0, 14, 4096), (14, 30, 4096)]);
}

#[test]
fn a_segment_of_another_sandbox_is_freed_and_credited_to_nobody() {
    let mut story = Story::started();
    let usage = claim(0, 25, 4096).usage;
    let epoch = Id([9; 16]);
    let decision =
        story.tell(&Evidence::Segment(Segment { epoch, seq: 3, received: at(5), usage, last: true }));
    assert_eq!(decision.ack, Some(Ack { epoch, seq: 3 }));
    assert!(decision.posts_nothing());
}

#[test]
fn an_early_report_is_cut_to_its_interval_and_the_end_has_it_whole() {
    let mut story = Story::started();
    story.claim(claim(10, 10, 4096));
    story.call(20, Call::Pausing { epoch: None });
    story.call(30, Call::Resumed { epoch: epoch(2), size: None, paused: true });
    // Told at 31 s, one second into its interval, that it has counted three; then nothing until another name.
    let base = claim(0, 20, 4096).usage;
    story.claim(Claim { epoch: epoch(2).id, base, ..claim(31, 23, 4096) });
    story.call(40, Call::Named { epoch: epoch(3) });
    let usage = claim(0, 12, 4096).usage;
    let last = claim(0, 32, 4096).usage;
    story.claim(Claim { epoch: epoch(3).id, base: last, ..claim(41, 33, 4096) });
    let before = story.samples();
    assert_eq!(before[1], (30, 31, 4096));
    story.tail(epoch(2), 41, usage);
    assert_eq!(story.samples()[1], (30, 40, 4096), "all that its interval has");
}

/// Found by the soak: a report between two words of the end bounded the credit at the second by its own count.
#[test]
fn an_end_that_moves_forward_is_bounded_by_no_report_before_it() {
    let mut story = Story::started();
    story.claim(claim(10, 10, 4096));
    story.call(20, Call::Pausing { epoch: None });
    story.claim(claim(22, 22, 4096));
    assert_eq!(story.samples(), [(0, 20, 4096)]);
    story.call(30, Call::Pausing { epoch: None });
    assert_eq!(story.samples(), [(0, 30, 4096)]);
    story.tail(epoch(1), 40, claim(0, 27, 4096).usage);
    assert_eq!(story.samples(), [(0, 27, 4096)], "the guest's last word holds");
}

/// Found by the soak: 84 s of a guest that answered, without a name, after a pause that only the VMM had told of.
#[test]
fn who_answers_without_a_name_is_not_paused_any_more() {
    let mut story = Story::started();
    story.vmm(20, VmState::Paused, 4096);
    story.claim(Claim { epoch: Id::default(), ..claim(30, 20, 4096) });
    story.call(100, Call::Pausing { epoch: None });
    assert_eq!(story.samples(), [(0, 100, 4096)], "by the host's word");
}

/// Found by the soak: a copy of an older snapshot told more of a life than the one before it had, and the verdict said
/// by how much it rose, but no sample did.
#[test]
fn what_an_older_copy_tells_of_a_life_long_over_is_posted() {
    let mut story = half_a_day_after(1800);
    story.tail(epoch(1), 12 * HOUR_S + 1820, claim(0, 1000, 4096).usage);
    assert_eq!(story.samples()[0], (0, 1000, 4096), "told late, but it is the first word");
    let decision = story.tail(epoch(1), 12 * HOUR_S + 1830, claim(0, 1003, 4096).usage);
    assert_eq!(decision.verdicts, [Verdict::StaleEpoch { raised: Nanos(3 * SECOND) }]);
    assert_eq!(decision.samples.len(), 1, "{:?}", decision.samples);
    assert_eq!(story.samples()[0], (0, 1003, 4096));
}

#[test]
fn hours_of_a_life_long_over_go_when_its_guest_had_not_counted_them() {
    let mut story = half_a_day_after(3 * HOUR_S + 60);
    let of_the_first =
        |story: &Story| story.samples().into_iter().filter(|sample| sample.0 < 3 * HOUR_S + 60);
    let told: Vec<_> = of_the_first(&story).collect();
    assert_eq!(told.len(), 4, "by the host's word: {told:?}");
    story.tail(epoch(1), 15 * HOUR_S + 80, claim(0, 1003, 4096).usage);
    let counted: Vec<_> = of_the_first(&story).collect();
    assert_eq!(counted, [(2 * HOUR_S, 2 * HOUR_S + 943, 4096), (3 * HOUR_S, 3 * HOUR_S + 60, 4096)]);
}

const HOUR_S: u64 = 3600;

/// Epoch 1 ended at `second` without having answered; epoch 2 has been heard each hour since.
fn half_a_day_after(second: u64) -> Story {
    let mut story = Story::started();
    for hour in 1..=second / HOUR_S {
        story.clock(hour * HOUR_S + 130);
    }
    story.call(second, Call::Pausing { epoch: None });
    let from = second + 10;
    story.call(from, Call::Resumed { epoch: epoch(2), size: None, paused: true });
    for hour in 1..13 {
        let heard = from + hour * HOUR_S;
        story.claim(Claim { epoch: epoch(2).id, ..claim(heard, hour * HOUR_S, 4096) });
    }
    story
}
