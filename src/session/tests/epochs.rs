//! Lives of a guest, from the agent's side: named, resumed, cloned.

use super::lives::*;
use super::world::*;
use super::*;
use crate::wire::message::{Epoch, EpochSource, Resume, Signal};

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
fn what_the_host_says_of_boot_memory_reaches_the_edge_and_a_restarted_agent() {
    let mut world = World::greeted();
    let stated = Stated { requested: Some(Bytes::mib(64)), boot: Some(Bytes::mib(512)) };
    let resume = Resume { requested: stated.requested, boot: stated.boot, ..resume(2) };
    assert!(world.ask(at(3_000), Request::Resume(resume)).contains(&Action::Resumed(stated)));
    let mut world = World::new(Some(world.session.saved().clone()));
    assert!(world.wake(at(4_000), None).contains(&Action::Resumed(stated)));
}

#[test]
fn a_resume_that_is_refused_states_nothing() {
    let mut world = named();
    let stated = |number, mib| Resume { boot: Some(Bytes::mib(mib)), ..resume(number) };
    let mut actions = Vec::new();
    for resume in [stated(9, 512), stated(5, 1024), stated(9, 2048)] {
        let request = Request::Resume(resume);
        actions.extend(world.session.step(at(3_000), Event::Request { from: HOST, request }));
    }
    let told: Vec<_> = actions.iter().filter(|action| matches!(action, Action::Resumed(_))).collect();
    assert_eq!(told, [&Action::Resumed(Stated { requested: None, boot: Some(Bytes::mib(512)) })]);
}

#[test]
fn what_was_asked_of_a_life_tells_nothing_of_one_that_was_noticed() {
    let mut world = named();
    let stated = Stated { requested: Some(Bytes::mib(64)), boot: Some(Bytes::mib(512)) };
    world.signals = vmclock(1);
    world.ask(
        at(3_000),
        Request::Resume(Resume { requested: stated.requested, boot: stated.boot, ..resume(2) }),
    );
    world.signals = vmclock(2);
    let noticed = world.wake(at(4_000), None);
    assert!(noticed.contains(&Action::Resumed(Stated { requested: None, ..stated })), "{noticed:?}");
}
