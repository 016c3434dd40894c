//! Each verdict of the table, and what it does to the books.

use super::story::{SECOND, Story, at, claim, epoch, names, size};
use guestmeter::host::reconcile::{
    Call, Claim, Confirmed, Evidence, GapCause, Impossible, Size, Told, Verdict, VmState,
};
use guestmeter::units::{MilliCpu, Nanos};
use guestmeter::wire::message::{Ack, Id};

#[test]
fn books_that_agree_are_acknowledged_and_post_nothing_until_they_close() {
    let mut story = Story::started();
    for second in [5, 10, 15] {
        let decision = story.claim(claim(second, second, 4096));
        assert_eq!(names(&decision), ["agree"]);
        assert!(decision.posts_nothing(), "{decision:?}");
        assert_eq!(decision.ack, Some(Ack { epoch: epoch(1).id, seq: second + 1 }));
    }
    assert_eq!(story.rows(), [(0, None, 4096)]);
    story.call(17, Call::Destroyed { epoch: Some(epoch(1).id) });
    assert_eq!((story.rows(), story.samples()), (vec![(0, Some(17), 4096)], vec![(0, 17, 4096)]));
}

#[test]
fn a_sample_closes_at_the_hour() {
    let mut story = Story::started();
    story.claim(claim(3598, 3598, 4096));
    story.claim(claim(3603, 3603, 4096));
    assert_eq!(story.samples(), [(0, 3600, 4096)]);
    story.call(7210, Call::Destroyed { epoch: None });
    assert_eq!(story.samples(), [(0, 3600, 4096), (3600, 7200, 4096), (7200, 7210, 4096)]);
}

#[test]
fn what_a_guest_did_not_count_is_not_in_its_samples() {
    let mut story = Story::started();
    story.claim(claim(10, 10, 4096));
    let dropped = Claim { dropped: Nanos(50 * SECOND), ..claim(70, 20, 4096) };
    let decision = story.claim(dropped);
    assert_eq!(names(&decision), ["gap", "guest_low"]);
    assert_eq!(decision.verdicts[0], Verdict::Gap { cause: GapCause::Cap, active: Nanos(50 * SECOND) });
    story.call(75, Call::Destroyed { epoch: None });
    assert_eq!(story.samples(), [(0, 25, 4096)]);
    assert_eq!(story.rows(), [(0, Some(75), 4096)]);
}

#[test]
fn growth_bills_from_its_confirmation_and_shrink_from_its_request() {
    let mut story = Story::started();
    story.claim(claim(5, 5, 4096));
    story.call(7, Call::Scaled { size: size(8192) });
    let pending = story.claim(claim(10, 10, 4096));
    assert_eq!(names(&pending), ["plug_pending", "agree"]);
    assert_eq!(names(&story.claim(claim(15, 15, 8192))), ["agree"]);
    story.call(22, Call::Scaled { size: size(1024) });
    story.claim(claim(25, 25, 1024));
    story.call(30, Call::Destroyed { epoch: None });
    assert_eq!(story.samples(), [(0, 15, 4096), (15, 22, 8192), (22, 30, 1024)]);
    assert_eq!(story.rows(), [(0, Some(15), 4096), (15, Some(22), 8192), (22, Some(30), 1024)]);
}

#[test]
fn short_and_stuck_plugs_are_told_after_the_settle_time() {
    let mut story = Story::started();
    assert_eq!(names(&story.claim(claim(5, 5, 1024))), ["plug_pending", "agree"]);
    assert_eq!(names(&story.claim(claim(11, 11, 1024))), ["plug_partial", "agree"]);
    story.call(20, Call::Scaled { size: size(512) });
    let stuck = story.claim(claim(35, 35, 1024));
    assert!(names(&stuck).contains(&"plug_excess"), "{stuck:?}");
    assert_eq!(
        story.rows(),
        [(0, Some(20), 1024), (20, None, 512)],
        "the first report applies back to the start"
    );
}

#[test]
fn memory_that_went_without_a_request_bills_less_from_where_it_was_last_seen() {
    let mut story = Story::started();
    story.claim(claim(5, 5, 4096));
    story.claim(claim(20, 20, 2048));
    story.call(30, Call::Destroyed { epoch: None });
    assert_eq!(story.samples(), [(0, 5, 4096), (5, 30, 2048)]);
}

#[test]
fn without_an_agent_the_request_is_billed_and_said_so() {
    let mut story = Story::started();
    let decision = story.call(40, Call::Destroyed { epoch: None });
    let billed = Size { memory_mib: 4096, cpu: MilliCpu(1000) };
    assert_eq!(decision.verdicts, [Verdict::RequestedOnly { span: Nanos(40 * SECOND), size: billed }]);
    assert_eq!(story.samples(), [(0, 40, 4096)]);
}

#[test]
fn an_hour_closes_over_a_silent_guest_and_is_put_right_when_it_speaks() {
    let mut story = Story::started();
    story.claim(claim(3000, 3000, 4096));
    assert!(story.clock(3700).posts_nothing(), "there is time yet");
    let closed = story.clock(3600 + 120);
    assert_eq!(names(&closed), ["requested_only"]);
    assert_eq!(story.samples(), [(0, 3600, 4096)]);
    assert!(story.clock(3800).posts_nothing());
    story.claim(claim(4000, 3100, 4096));
    assert_eq!(story.samples(), [(0, 3000, 4096)], "of 1000 s it has counted 100, the last ones");
    story.call(4000, Call::Destroyed { epoch: None });
    assert_eq!(story.samples(), [(0, 3000, 4096), (3600, 3700, 4096)]);
}

#[test]
fn a_counter_behind_itself_is_credited_nothing_until_it_is_named() {
    let mut story = Story::started();
    story.claim(claim(100, 100, 4096));
    let rolled = story.claim(Claim { seq: 3, ..claim(120, 40, 4096) });
    assert!(matches!(rolled.verdicts[..], [Verdict::Rollback { named: false, .. }]), "{rolled:?}");
    assert_eq!((rolled.ack, rolled.name), (None, true));
    let mark = story.account.mark(Id([0xb1; 16])).unwrap();
    assert_eq!(mark.counters.active.whole, 100, "what the Resume carries");
    story.call(121, Call::Named { epoch: epoch(2) });
    let base = claim(0, 100, 4096).usage;
    let named = Claim { epoch: epoch(2).id, seq: 1, base, rebased: true, ..claim(125, 104, 4096) };
    assert_eq!(names(&story.claim(named)), ["rollback", "agree"]);
    story.call(130, Call::Destroyed { epoch: None });
    assert_eq!(story.samples(), [(0, 100, 4096), (121, 130, 4096)]);
}

#[test]
fn an_older_copy_that_still_has_its_old_name_is_a_rollback() {
    let mut story = Story::started();
    story.claim(claim(10, 10, 4096));
    story.call(20, Call::Pausing { epoch: None });
    story.call(30, Call::Resumed { epoch: epoch(2), size: None, paused: true });
    let base = claim(0, 20, 4096).usage;
    story.claim(Claim { epoch: epoch(2).id, base, ..claim(35, 25, 4096) });
    let old = story.claim(Claim { seq: 12, ..claim(40, 12, 4096) });
    assert_eq!(names(&old), ["rollback"]);
    let late = story.claim(Claim { seq: 12, asked: Some(at(15)), ..claim(41, 12, 4096) });
    assert_eq!(names(&late), ["stale_epoch"], "asked for in time, only late");
}

#[test]
fn a_late_segment_raises_its_epoch_within_its_interval() {
    let mut story = Story::started();
    story.claim(claim(10, 10, 4096));
    story.vmm(10, VmState::Gone, 0);
    story.call(60, Call::Started { epoch: epoch(2), size: size(4096) });
    assert_eq!(story.samples(), [(0, 10, 4096)]);
    let usage = claim(0, 25, 4096).usage;
    let decision = story.tail(epoch(1), 70, usage);
    assert_eq!(names(&decision), ["stale_epoch", "duplicate"], "the VM was gone by then");
    assert_eq!(decision.ack, Some(Ack { epoch: epoch(1).id, seq: 20 }));
}

#[test]
fn a_clone_is_told_from_its_parent_and_credited_to_nobody() {
    let mut story = Story::started();
    let told =
        Told { claim: Claim { epoch: Id([9; 16]), ..claim(5, 500, 4096) }, copy_of: Some("parent".into()) };
    let decision = story.tell(&Evidence::Report(told));
    assert_eq!(names(&decision), ["stale_epoch", "clone"]);
    assert_eq!((decision.ack, decision.name), (None, true));
}

#[test]
fn a_new_boot_is_a_reset() {
    let mut story = Story::started();
    story.claim(claim(10, 10, 4096));
    story.call(20, Call::Destroyed { epoch: None });
    story.call(30, Call::Started { epoch: epoch(2), size: size(4096) });
    let reset = Claim { epoch: epoch(2).id, boot_id: Id([0xb2; 16]), ..claim(35, 5, 4096) };
    assert_eq!(names(&story.claim(reset)), ["reset", "agree"]);
}

#[test]
fn the_impossible_is_credited_nothing() {
    let mut story = Story::started();
    story.vmm(1, VmState::Running, 4096);
    story.claim(claim(10, 10, 4096));
    for (claim, what) in [
        (claim(20, 40, 4096), "time"),
        (claim(20, 20, 8194), "memory"),
        (
            Claim {
                size: Confirmed { cpu: Some(MilliCpu(2001)), ..claim(0, 0, 1).size },
                ..claim(20, 20, 1)
            },
            "cpu",
        ),
    ] {
        let decision = story.claim(claim);
        let [Verdict::Impossible(found)] = decision.verdicts[..] else { panic!("{decision:?}") };
        let name = match found {
            Impossible::Time { .. } => "time",
            Impossible::Memory { .. } => "memory",
            Impossible::Cpu { .. } => "cpu",
        };
        assert_eq!((name, decision.ack), (what, None));
        assert!(decision.posts_nothing());
    }
    assert_eq!(names(&story.claim(claim(25, 25, 4096))), ["agree"], "measured from the last that could be");
}

#[test]
fn the_vmm_s_word_on_memory_goes_before_the_guest_s() {
    let mut story = Story::started();
    story.vmm(1, VmState::Running, 4096);
    story.claim(claim(5, 5, 1024));
    assert_eq!(story.rows(), [(0, None, 4096)], "a guest that says less than it has pays what it has");
}

#[test]
fn a_size_without_a_price_is_told() {
    let mut story = Story::started();
    story.policy.tiers_mib = vec![1024, 4096, 8192, 16384];
    assert_eq!(names(&story.claim(claim(5, 5, 4096))), ["agree"]);
    let decision = story.claim(claim(20, 20, 3000));
    assert!(decision.verdicts.contains(&Verdict::OffTier { memory_mib: 3000 }), "{decision:?}");
}

#[test]
fn an_end_told_hours_late_cuts_what_is_posted() {
    let mut story = Story::started();
    for second in (5..40_000).step_by(5) {
        story.claim(claim(second, second, 4096));
    }
    assert_eq!(story.samples().len(), 11);
    let decision = story.call(5000, Call::Destroyed { epoch: Some(epoch(1).id) });
    assert!(decision.cut.is_some(), "{decision:?}");
    assert_eq!(story.rows(), [(0, Some(5000), 4096)]);
    assert_eq!(story.samples(), [(0, 3600, 4096), (3600, 5000, 4096)]);
}

#[test]
fn a_missing_end_is_the_last_that_was_seen() {
    let mut story = Story::started();
    story.claim(claim(10, 10, 4096));
    story.call(500, Call::Resumed { epoch: epoch(2), size: None, paused: true });
    assert_eq!(story.rows(), [(0, Some(10), 4096), (500, None, 4096)]);
    story.call(30, Call::Pausing { epoch: Some(epoch(1).id) });
    assert_eq!(story.rows(), [(0, Some(30), 4096), (500, None, 4096)], "told late");
    assert_eq!(story.samples(), [(0, 30, 4096)]);
}

#[test]
fn what_waits_for_a_silent_guest_has_a_bound() {
    let mut story = Story::started();
    for day in 0..40 {
        for hour in 1..=24 {
            story.clock((day * 24 + hour) * 3600 + 200);
        }
    }
    for second in 0..100 {
        story.call(40 * 86_400 + 300 + second * 10, Call::Scaled { size: size(1024 + second) });
    }
    let state = postcard::to_allocvec(&story.account).unwrap();
    assert!(state.len() < 16 * 1024, "{} bytes", state.len());
    story.call(40 * 86_400 + 1300, Call::Destroyed { epoch: None });
    let active: u64 = story.samples().iter().map(|(start, end, _)| end - start).sum();
    assert_eq!(active, 40 * 86_400 + 1300);
    assert_eq!(story.rows().len(), 101);
    story.ledger.check_envelope();
}
