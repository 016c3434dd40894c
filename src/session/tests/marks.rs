//! The host's high-water mark: counters that a rollback or a lost state has put behind it.

use super::lives::*;
use super::world::*;
use super::*;
use crate::meter::Counters;
use crate::wire::message::{Mark, Resume};

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
fn the_same_id_again_is_an_ordinary_request_whose_mark_holds_where_none_has() {
    let mut world = named();
    let marked = |boot: u8, seconds| Resume {
        mark: Some(Mark { boot_id: Id([boot; 16]), counters: of_seconds(seconds) }),
        ..resume(2)
    };
    let first = one_report(&world.ask(at(3_000), Request::Resume(marked(8, 500))));
    assert_eq!(first.tail.findings, [Finding::MarkIgnored]);

    let again = one_report(&world.ask(at(4_000), Request::Resume(marked(9, 1_000))));
    assert_eq!((again.reason, again.identity.seq), (Reason::Query, 2));
    assert_eq!(Counters::from(&again.base), of_seconds(1_000));
    assert_eq!(again.usage.since(&again.base).active.total(), 1_000_000_000, "what it has used stays");
    assert_eq!(again.tail.findings, [Finding::Rollback], "a mark was taken after all");

    for ahead in [marked(9, 2_000), marked(8, 2_000)] {
        let once_more = one_report(&world.ask(at(5_000), Request::Resume(ahead)));
        assert_eq!((once_more.base, once_more.tail.findings), (again.base, again.tail.findings.clone()));
    }
    let named_3 = |mark| Request::Resume(Resume { mark, ..resume(3) });
    one_report(&world.ask(at(6_000), named_3(None)));
    let taken = one_report(&world.ask(at(6_000), named_3(marked(9, 2_000).mark)));
    assert_eq!(Counters::from(&taken.base), of_seconds(2_000), "another epoch takes its own");
}
