//! Lives of a guest, from the agent's side: named, held, resumed, cloned, rolled back.

use super::world::*;
use super::*;
use crate::meter::{Count, Counters};
use crate::wire::message::{Checkpoint, Epoch, EpochSource, Mark, Resume, Segments, SegmentsAfter, Signal};

fn id(number: u64) -> Id {
    Id([u8::try_from(number).unwrap(); 16])
}

fn resume(number: u64) -> Resume {
    Resume {
        epoch: id(number),
        number,
        paused: true,
        sandbox: "s".to_owned(),
        at: Nanos::ZERO,
        mark: None,
        requested: None,
        boot: None,
    }
}

fn fresh(number: u64) -> Request {
    Request::Resume(Resume { paused: false, ..resume(number) })
}

fn paused(number: u64) -> Request {
    Request::Resume(resume(number))
}

fn checkpoint(number: u64) -> Request {
    Request::Checkpoint(Checkpoint { epoch: id(number), number })
}

fn ack(number: u64, seq: u64) -> Request {
    Request::Ack(Ack { epoch: id(number), seq })
}

fn one_report(actions: &[Action]) -> crate::wire::message::Report {
    let mut reports = reports(actions);
    assert_eq!(reports.len(), 1, "{actions:?}");
    reports.remove(0)
}

fn one_refusal(actions: &[Action]) -> RefusalCode {
    let refusals = refusals(actions);
    assert_eq!(refusals.len(), 1, "{actions:?}");
    refusals[0].code
}

fn segments(world: &mut World, millis: u64) -> Vec<crate::wire::message::Segment> {
    let all = Request::Segments(SegmentsAfter { epoch: Id::default(), seq: 0 });
    match replies(&world.ask(at(millis), all)).as_slice() {
        [Reply::Segments(Segments { segments, more: false })] => segments.clone(),
        other => panic!("{other:?}"),
    }
}

fn vmclock(disruption: u64) -> Signals {
    Signals { vmclock: Some(Vmclock { disruption, generation: None }), vmgenid: None }
}

/// Named at 2 s.
fn named() -> World {
    let mut world = World::greeted();
    world.ask(at(2_000), fresh(1));
    world
}

#[test]
fn a_fresh_start_is_named_in_place_and_all_since_boot_is_its_own() {
    let mut world = World::greeted();
    world.ask(at(1_500), Request::Read);
    let report = one_report(&world.ask(at(2_000), fresh(7)));
    let epoch = Epoch { id: id(7), source: EpochSource::Host, number: 7 };
    assert_eq!(
        (report.identity.epoch, report.identity.seq),
        (epoch, 2),
        "the provisional epoch's numbers go on"
    );
    assert_eq!(report.base, meter::Usage::default());
    assert_eq!((report.usage.active.whole, report.reason, report.resume), (2, Reason::Query, None));
    assert_eq!(report.identity.sandbox.as_deref(), Some("s"));
}

#[test]
fn a_resume_is_answered_from_a_hot_look_and_read_fully_right_behind() {
    let mut world = named();
    let looks = world.looks.len();
    let report = one_report(&world.ask(at(3_000), paused(2)));
    assert_eq!(world.looks.get(looks..), Some([Depth::Hot, Depth::Full].as_slice()));
    assert_eq!((report.reason, report.identity.seq), (Reason::Resume, 1));
    assert_eq!(
        report.resume.map(|resume| (resume.signal, resume.detected)),
        Some((Signal::Host, at(3_000).monotonic))
    );
    assert_eq!(report.base, report.usage, "the new epoch has used nothing");
    assert!(report.usage.uncertain == Nanos::from_secs(1), "a pause may hide in the second before it");
}

#[test]
fn the_same_id_again_is_an_ordinary_request_and_its_mark_is_ignored() {
    let mut world = named();
    let first = one_report(&world.ask(at(3_000), paused(2)));
    let mark = Some(Mark { boot_id: Id([9; 16]), counters: of_seconds(1_000) });
    let again = one_report(&world.ask(at(4_000), Request::Resume(Resume { mark, ..resume(2) })));
    assert_eq!((again.reason, again.identity.seq, again.base), (Reason::Query, 2, first.base));
    assert_eq!(again.usage.active.whole, first.usage.active.whole + 1);
}

#[test]
fn a_checkpoint_holds_and_only_a_resume_or_a_release_ends_it() {
    let mut world = named();
    let report = one_report(&world.ask(at(3_000), checkpoint(1)));
    assert_eq!((report.reason, report.tail.held), (Reason::Checkpoint, true));
    assert!(one_report(&world.ask(at(4_000), Request::Read)).tail.held);
    world.ask(at(4_000), ack(1, 3));
    world.wake(at(9_000), None);
    let report = one_report(&world.ask(at(10_000), paused(2)));
    assert!(!report.tail.held);
    assert_eq!(report.usage.suspended, Nanos::from_secs(1), "since the last observation");
    assert_eq!(report.usage.active.whole, 9, "the hold's ticks within the cap were counted");

    let mut world = named();
    world.ask(at(3_000), checkpoint(1));
    let report = one_report(&world.ask(at(4_000), fresh(2)));
    assert_eq!(
        (report.tail.held, report.usage.suspended),
        (false, Nanos::ZERO),
        "given up: nothing was paused"
    );
    assert_eq!(report.usage.active.whole, 4);
}

#[test]
fn a_jump_past_the_cap_while_held_is_a_resume_that_the_host_then_names_in_place() {
    let mut world = named();
    world.ask(at(3_000), checkpoint(1));
    world.wake(at(63_000), None);
    assert_eq!(world.session.saved().epoch, Epoch::default());
    assert_eq!(world.session.saved().resume.map(|resume| resume.signal), Some(Signal::Clock));
    world.wake(at(63_000), Some(Event::Connected(HOST_AGAIN)));
    world.ask_from(HOST_AGAIN, at(63_000), hello(1, 1));
    let report = one_report(&world.ask_from(HOST_AGAIN, at(64_000), paused(2)));
    assert_eq!(report.usage.suspended, Nanos::from_secs(60));
    assert_eq!((report.reason, report.identity.epoch.number), (Reason::Resume, 2));
    let since = report.usage.since(&report.base);
    assert_eq!((since.active.whole, since.active.carry), (1, 0), "the second before its name is its own");
}

#[test]
fn what_the_old_epoch_used_last_waits_as_a_segment_until_it_is_acked() {
    let mut world = named();
    world.ask(at(3_000), ack(1, 1));
    world.ask(at(4_000), paused(2));
    let [tail] = segments(&mut world, 4_000).try_into().unwrap();
    assert_eq!((tail.epoch.number, tail.seq, tail.boundary), (1, 2, crate::wire::message::Boundary::Resume));
    assert_eq!((tail.usage.active.whole, tail.rate.map(|rate| rate.memory)), (4, Some(Bytes::mib(512))));
    assert!(matches!(replies(&world.ask(at(5_000), ack(1, 1))).as_slice(), [Reply::Acked(_)]));
    assert_eq!(segments(&mut world, 5_000).len(), 1, "an ack of what came before frees nothing");
    assert!(matches!(replies(&world.ask(at(5_000), ack(1, 2))).as_slice(), [Reply::Acked(_)]));
    assert!(segments(&mut world, 5_000).is_empty());
}

#[test]
fn a_capacity_change_ends_a_segment_that_is_named_with_its_epoch() {
    let mut world = World::greeted();
    world.capacity = capacity(1024);
    world.wake(at(3_000), Some(Event::Hotplug));
    let [segment] = segments(&mut world, 3_000).try_into().unwrap();
    assert_eq!((segment.epoch, segment.boundary), (Epoch::default(), crate::wire::message::Boundary::Event));
    world.ask(at(4_000), fresh(1));
    let [segment] = segments(&mut world, 4_000).try_into().unwrap();
    assert_eq!((segment.epoch.number, segment.usage.memory.whole), (1, 3 * 512));
}

#[test]
fn an_epoch_that_was_never_named_leaves_nothing() {
    let mut world = World::greeted();
    world.capacity = capacity(1024);
    world.wake(at(3_000), Some(Event::Hotplug));
    let report = one_report(&world.ask(at(4_000), paused(1)));
    assert!(segments(&mut world, 4_000).is_empty());
    assert_eq!(report.usage.since(&report.base), Counters::default(), "a template's past is nobody's");
}

/// Seed 241324 of the simulation: the ack of a segment freed the epoch's tail, which had the same number.
#[test]
fn an_ack_of_a_segment_that_was_given_out_frees_none_that_comes_later() {
    let mut world = named();
    world.capacity = capacity(64);
    world.wake(at(3_000), Some(Event::Hotplug));
    let given = segments(&mut world, 3_500);
    assert_eq!(given.len(), 1);
    world.ask(at(6_000), paused(2));
    for _ in 0..2 {
        world.ask(at(6_500), ack(1, given[0].seq));
        let tail = segments(&mut world, 7_000);
        assert_eq!(tail.iter().map(|segment| segment.usage.active.whole).collect::<Vec<_>>(), [6]);
    }
}

/// Seed 36926 of the simulation: it freed what was never delivered.
#[test]
fn an_ack_from_the_future_of_an_older_epoch_is_refused() {
    let mut world = named();
    world.ask(at(4_000), paused(2));
    assert_eq!(one_refusal(&world.ask(at(5_000), ack(1, 3))), RefusalCode::UnknownEpoch);
    assert_eq!(segments(&mut world, 5_000).len(), 1);
    assert!(matches!(replies(&world.ask(at(5_000), ack(1, 2))).as_slice(), [Reply::Acked(_)]));
}

#[test]
fn acks_of_what_is_not_here_are_named_errors_and_the_connection_stays() {
    let mut world = World::greeted();
    world.ask(at(1_500), Request::Read);
    let provisional = Request::Ack(Ack { epoch: Id::default(), seq: 1 });
    assert_eq!(one_refusal(&world.ask(at(2_000), provisional)), RefusalCode::UnknownEpoch);
    world.ask(at(2_000), fresh(1));
    assert_eq!(one_refusal(&world.ask(at(2_000), ack(1, 3))), RefusalCode::UnknownEpoch, "of the future");
    assert_eq!(one_refusal(&world.ask(at(2_000), ack(9, 1))), RefusalCode::UnknownEpoch, "of no epoch here");
    let actions = world.ask(at(2_000), ack(1, 2));
    assert!(matches!(actions.as_slice(), [Action::Save, Action::Send { reply: Reply::Acked(_), .. }]));
}

#[test]
fn a_lower_number_is_refused_even_behind_a_provisional_epoch() {
    let mut world = named();
    world.ask(at(3_000), paused(5));
    assert_eq!(one_refusal(&world.ask(at(3_000), paused(4))), RefusalCode::StaleEpoch);
    world.signals = vmclock(1);
    world.wake(at(3_100), None);
    world.ask(at(3_200), checkpoint(5));
    world.signals = vmclock(2);
    world.wake(at(4_000), None);
    assert_eq!(world.session.saved().epoch, Epoch::default());
    assert_eq!(one_refusal(&world.ask(at(4_000), fresh(5))), RefusalCode::StaleEpoch);
    assert_eq!(
        one_refusal(&world.ask(at(4_000), Request::Resume(Resume { epoch: Id::default(), ..resume(9) }))),
        RefusalCode::Malformed
    );
}

#[test]
fn a_checkpoint_of_another_epoch_is_refused_and_does_not_hold() {
    let mut world = World::greeted();
    assert_eq!(one_refusal(&world.ask(at(2_000), checkpoint(1))), RefusalCode::UnknownEpoch, "name it first");
    world.ask(at(2_000), fresh(2));
    assert_eq!(one_refusal(&world.ask(at(2_000), checkpoint(1))), RefusalCode::StaleEpoch);
    assert_eq!(one_refusal(&world.ask(at(2_000), checkpoint(3))), RefusalCode::UnknownEpoch);
    assert!(!world.session.saved().meter.held());
}

fn of_seconds(seconds: u64) -> Counters {
    Counters {
        active: Count { whole: seconds, carry: 5 },
        memory: Count { whole: seconds * 512, carry: 6 },
        cpu: Count { whole: seconds * 2000, carry: 7 },
        // Nothing counts it yet.
        cpu_used: Nanos::ZERO,
    }
}

#[test]
fn counters_behind_the_hosts_mark_are_raised_with_their_base_and_that_is_no_usage() {
    let mut world = named();
    let counters = Counters { cpu_used: Nanos(9), ..of_seconds(1_000) };
    let mark = Mark { boot_id: Id([9; 16]), counters };
    let report = one_report(&world.ask(at(3_000), Request::Resume(Resume { mark: Some(mark), ..resume(2) })));
    assert_eq!(Counters::from(&report.base), counters);
    assert_eq!(report.usage.rebased.cpu_used, Nanos(9));
    assert_eq!(report.usage.since(&report.base), Counters::default());
    assert_eq!(report.usage.rebased.active, Nanos(997_000_000_005));
    assert_eq!(report.tail.findings, [Finding::Rollback]);
    let usage = one_report(&world.ask(at(4_000), Request::Read)).usage;
    let observed = u128::from(at(4_000).monotonic.0);
    assert_eq!(
        usage.active.total() + u128::from(usage.dropped.active.0),
        observed + u128::from(usage.rebased.active.0)
    );
}

#[test]
fn a_mark_behind_the_counters_changes_nothing_and_one_of_another_boot_is_ignored_and_said() {
    let mut world = named();
    let behind = Mark { boot_id: Id([9; 16]), counters: of_seconds(1) };
    let report =
        one_report(&world.ask(at(3_000), Request::Resume(Resume { mark: Some(behind), ..resume(2) })));
    assert_eq!(
        (report.tail.findings.as_slice(), report.usage.rebased),
        ([].as_slice(), meter::Amounts::default())
    );
    let foreign = Mark { boot_id: Id([8; 16]), counters: of_seconds(1_000) };
    let report =
        one_report(&world.ask(at(4_000), Request::Resume(Resume { mark: Some(foreign), ..resume(3) })));
    assert_eq!(report.tail.findings, [Finding::MarkIgnored]);
    let absurd = Mark { boot_id: Id([9; 16]), counters: of_seconds(u64::MAX / 2000) };
    let absurd = Request::Resume(Resume { mark: Some(absurd), ..resume(4) });
    assert_eq!(one_refusal(&world.ask(at(5_000), absurd)), RefusalCode::Malformed);
}

#[test]
fn a_clone_is_named_for_another_sandbox_and_says_so() {
    let mut world = named();
    let other = Resume { sandbox: "t".to_owned(), ..resume(2) };
    let report = one_report(&world.ask(at(3_000), Request::Resume(other)));
    assert_eq!(
        (report.identity.sandbox.as_deref(), report.tail.findings.as_slice()),
        (Some("t"), [Finding::Clone].as_slice())
    );
    let report =
        one_report(&world.ask(at(4_000), Request::Resume(Resume { sandbox: "t".to_owned(), ..resume(3) })));
    assert!(report.tail.findings.is_empty(), "findings are of one epoch");
}

#[test]
fn two_signals_of_one_resume_are_one_resume() {
    let mut world = named();
    world.signals = Signals { vmgenid: Some(0), ..vmclock(1) };
    world.wake(at(2_500), None);
    world.ask(at(3_000), checkpoint(1));
    world.signals = Signals { vmgenid: Some(0), ..vmclock(2) };
    world.wake(at(3_500), None);
    assert_eq!(world.session.saved().resume.map(|resume| resume.signal), Some(Signal::Vmclock));
    world.signals = Signals { vmgenid: Some(1), ..vmclock(2) };
    world.wake(at(4_000), None);
    let report = one_report(&world.ask(at(4_500), paused(2)));
    assert_eq!(report.resume.map(|resume| resume.detected), Some(at(3_500).monotonic));
    assert_eq!(report.resume.unwrap().latency_max, Some(Nanos(500_000_000)));
    assert_eq!(report.usage.since(&report.base).active.total(), 1_000_000_000);
    world.signals = Signals { vmgenid: Some(1), ..vmclock(3) };
    world.wake(at(5_000), None);
    assert_eq!(
        world.session.saved().epoch,
        Epoch::default(),
        "a device tells once of one resume: another one"
    );
}

#[test]
fn a_late_signal_after_the_host_named_the_resume_opens_nothing_and_after_a_checkpoint_it_does() {
    let mut world = named();
    world.signals = vmclock(1);
    world.wake(at(2_500), None);
    world.ask(at(3_000), paused(2));
    world.signals = vmclock(2);
    world.wake(at(4_000), None);
    assert_eq!(world.session.saved().epoch.number, 2);
    world.ask(at(5_000), checkpoint(2));
    world.signals = vmclock(3);
    world.wake(at(5_500), None);
    assert_eq!(world.session.saved().epoch, Epoch::default());
}

#[test]
fn a_signal_is_read_before_time_is_counted_and_a_welcome_of_that_moment_tells_it() {
    let mut world = named();
    world.signals = vmclock(1);
    world.wake(at(3_000), None);
    world.signals = vmclock(2);
    let greeting = world.wake(at(103_000), Some(Event::Request { from: HOST, request: hello(1, 1) }));
    let [reply] = replies(&greeting).try_into().unwrap();
    assert!(matches!(reply, Reply::Welcome(welcome) if welcome.epoch == Epoch::default()));
    let usage = *world.session.saved().meter.usage();
    assert_eq!(usage.active.whole, 3, "how much of the 100 s ran is not known");
    assert_eq!(usage.dropped.active, Nanos::from_secs(100));
}

#[test]
fn a_restarted_agent_compares_the_signals_before_it_counts() {
    let mut world = named();
    world.signals = vmclock(1);
    world.wake(at(7_000), None);
    let saved = world.session.saved().clone();
    let mut world = World::new(Some(saved));
    world.signals = vmclock(2);
    world.wake(at(9_000), None);
    assert_eq!(world.session.saved().epoch, Epoch::default());
    assert_eq!(world.session.saved().resume.map(|resume| resume.signal), Some(Signal::Vmclock));
}

#[test]
fn a_reset_connection_is_a_resume_only_while_held() {
    let reset = |connection| Event::Closed { connection, reset: true };
    let mut world = named();
    world.wake(at(3_000), Some(reset(HOST)));
    assert_eq!(world.session.saved().epoch.number, 1);
    assert_eq!(world.session.saved().findings, [Finding::ConnectionReset]);
    let mut world = named();
    world.ask(at(3_000), checkpoint(1));
    world.wake(at(4_000), Some(reset(HOST)));
    assert_eq!(world.session.saved().resume.map(|resume| resume.signal), Some(Signal::VsockReset));
}

#[test]
fn a_clock_that_is_set_is_a_resume_only_while_held() {
    let set = |clock: Clock, seconds: u64| Clock {
        realtime_unix: clock.realtime_unix.saturating_add(Nanos::from_secs(seconds)),
        ..clock
    };
    let mut world = named();
    world.wake(set(at(3_000), 3_600), None);
    assert_eq!(
        (world.session.saved().epoch.number, world.session.saved().findings.as_slice()),
        (1, [Finding::ClockStep].as_slice())
    );
    let mut world = named();
    world.ask(at(3_000), checkpoint(1));
    world.wake(set(at(4_000), 3_600), None);
    assert_eq!(world.session.saved().resume.map(|resume| resume.signal), Some(Signal::Clock));
}

#[test]
fn a_jump_that_nobody_explains_is_counted_by_the_table_and_said() {
    let mut world = named();
    world.wake(at(62_000), None);
    assert_eq!(
        (world.session.saved().epoch.number, world.session.saved().findings.as_slice()),
        (1, [Finding::ClockJump].as_slice())
    );
    assert_eq!(world.session.saved().meter.usage().dropped.active, Nanos::from_secs(50));
}

#[test]
fn what_was_sent_in_one_write_is_carried_out_in_order() {
    let mut world = named();
    for request in [paused(2), checkpoint(2), paused(3)] {
        world.session.step(at(3_000), Event::Request { from: HOST, request });
    }
    let actions = world.ask(at(3_000), ack(2, 2));
    let reports = reports(&actions);
    let told: Vec<_> = reports
        .iter()
        .map(|report| (report.identity.epoch.number, report.reason, report.tail.held))
        .collect();
    assert_eq!(told, [(2, Reason::Resume, false), (2, Reason::Checkpoint, true), (3, Reason::Resume, false)]);
}

#[test]
fn a_resume_is_in_the_slice_wherever_it_stands_in_what_was_sent_with_it() {
    // Refused ones, and a checkpoint that the pause overtook.
    for before in [checkpoint(9), paused(1), checkpoint(1)] {
        let mut world = named();
        world.session.step(at(4_000), Event::Request { from: HOST, request: before.clone() });
        world.ask(at(4_000), paused(2));
        let usage = *world.session.saved().meter.usage();
        assert_eq!(usage.uncertain, Nanos::from_secs(2), "{before:?}");

        let mut world = named();
        world.session.step(at(60_000), Event::Request { from: HOST, request: before.clone() });
        world.ask(at(60_000), paused(2));
        let usage = *world.session.saved().meter.usage();
        assert_eq!((usage.active.whole, usage.dropped.active), (2, Nanos::from_secs(58)), "{before:?}");
        assert!(!world.session.saved().meter.held());
    }
}

#[test]
fn a_resume_that_comes_with_others_ends_a_hold_before_time_is_counted() {
    for before in [checkpoint(9), paused(1)] {
        let mut world = named();
        world.ask(at(3_000), checkpoint(1));
        world.session.step(at(4_000), Event::Request { from: HOST, request: before.clone() });
        world.session.step(at(4_000), Event::Request { from: HOST, request: paused(3) });
        world.ask(at(4_000), paused(2));
        let usage = *world.session.saved().meter.usage();
        assert_eq!((usage.active.whole, usage.suspended), (3, Nanos::from_secs(1)), "{before:?}");
        assert_eq!(world.session.saved().epoch.number, 3, "the late one is refused");
    }
}

#[test]
fn a_lost_state_is_a_provisional_epoch_that_an_adoption_raises_to_the_mark() {
    let mut world = World::new(None);
    world.wake(at(100_000), Some(Event::Connected(HOST)));
    world.ask(at(100_000), hello(1, 1));
    let mark = Some(Mark { boot_id: Id([9; 16]), counters: of_seconds(60) });
    let adopted = Resume { mark, paused: false, ..resume(9) };
    let report = one_report(&world.ask(at(101_000), Request::Resume(adopted)));
    assert_eq!(Counters::from(&report.base), of_seconds(60));
    assert_eq!(report.usage.since(&report.base).active.whole, 6, "one tick since boot, and the second since");
    assert_eq!(report.usage.dropped.active, Nanos::from_secs(95));
}

#[test]
fn a_restarted_agent_still_knows_what_the_host_asked_for() {
    let mut world = named();
    let requested = Some(Bytes::mib(64));
    world.ask(at(3_000), Request::Resume(Resume { requested, ..resume(2) }));
    let mut world = World::new(Some(world.session.saved().clone()));
    assert!(world.wake(at(4_000), None).contains(&Action::Resumed(Stated { requested, boot: None })));
}

#[test]
fn a_stale_epoch_is_refused_with_the_latest_number() {
    let mut world = World::greeted();
    world.ask(at(2_000), fresh(7));
    for stale in [paused(4), fresh(7 - 1), checkpoint(1)] {
        let [refusal] = refusals(&world.ask(at(3_000), stale)).try_into().unwrap();
        assert_eq!((refusal.code, refusal.latest), (RefusalCode::StaleEpoch, Some(7)));
    }
    let [refusal] = refusals(&world.ask(at(3_000), checkpoint(9))).try_into().unwrap();
    assert_eq!((refusal.code, refusal.latest), (RefusalCode::UnknownEpoch, None));
}

#[test]
fn how_late_a_resume_is_known_at_most_is_the_time_since_the_last_look() {
    let mut world = World::greeted();
    world.ask(at(2_000), fresh(1));
    world.wake(at(7_000), None);
    let report = one_report(&world.ask(at(8_500), paused(2)));
    let resumed = report.resume.unwrap();
    assert_eq!((resumed.detected, resumed.latency_max), (at(8_500).monotonic, Some(Nanos(1_500_000_000))));
}

#[test]
fn what_the_host_says_of_boot_memory_reaches_the_edge_and_a_restarted_agent() {
    let mut world = World::greeted();
    let stated = Stated { requested: Some(Bytes::mib(64)), boot: Some(Bytes::mib(512)) };
    let resume = Resume { requested: stated.requested, boot: stated.boot, ..resume(2) };
    assert!(world.ask(at(3_000), Request::Resume(resume)).contains(&Action::Resumed(stated)));
    let mut world = World::new(Some(world.session.saved().clone()));
    assert!(world.wake(at(4_000), None).contains(&Action::Resumed(stated)));
}
