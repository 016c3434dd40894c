//! Requests of a host that names lives, and what comes back.

use super::world::*;
use super::*;
use crate::meter::{Count, Counters};
use crate::wire::message::{Checkpoint, Report, Resume, Segment, Segments, SegmentsAfter};

pub(super) fn id(number: u64) -> Id {
    Id([u8::try_from(number).unwrap(); 16])
}

pub(super) fn resume(number: u64) -> Resume {
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

pub(super) fn fresh(number: u64) -> Request {
    Request::Resume(Resume { paused: false, ..resume(number) })
}

pub(super) fn paused(number: u64) -> Request {
    Request::Resume(resume(number))
}

pub(super) fn checkpoint(number: u64) -> Request {
    Request::Checkpoint(Checkpoint { epoch: id(number), number })
}

pub(super) fn ack(number: u64, seq: u64) -> Request {
    Request::Ack(Ack { epoch: id(number), seq })
}

pub(super) fn one_report(actions: &[Action]) -> Report {
    let mut reports = reports(actions);
    assert_eq!(reports.len(), 1, "{actions:?}");
    reports.remove(0)
}

pub(super) fn one_refusal(actions: &[Action]) -> RefusalCode {
    let refusals = refusals(actions);
    assert_eq!(refusals.len(), 1, "{actions:?}");
    refusals[0].code
}

pub(super) fn segments(world: &mut World, millis: u64) -> Vec<Segment> {
    let all = Request::Segments(SegmentsAfter { epoch: Id::default(), seq: 0 });
    match replies(&world.ask(at(millis), all)).as_slice() {
        [Reply::Segments(Segments { segments, more: false })] => segments.clone(),
        other => panic!("{other:?}"),
    }
}

pub(super) fn vmclock(disruption: u64) -> Signals {
    Signals { vmclock: Some(Vmclock { disruption, generation: None }), vmgenid: None }
}

/// Named at 2 s.
pub(super) fn named() -> World {
    let mut world = World::greeted();
    world.ask(at(2_000), fresh(1));
    world
}

pub(super) fn of_seconds(seconds: u64) -> Counters {
    Counters {
        active: Count { whole: seconds, carry: 5 },
        memory: Count { whole: seconds * 512, carry: 6 },
        cpu: Count { whole: seconds * 2000, carry: 7 },
        // Nothing counts it yet.
        cpu_used: Nanos::ZERO,
    }
}
