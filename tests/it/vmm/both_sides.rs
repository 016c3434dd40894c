//! A guest's report beside its VMM's word.

use crate::golden::full_report;
use guestmeter::capacity::Precision;
use guestmeter::host::vmm::compare::{What, compare};
use guestmeter::host::vmm::{Doubt, VmmCpus, VmmMemory};
use guestmeter::units::Bytes;
use guestmeter::wire::message::Report;

/// 512 MiB, 130 of 300 MiB plugged, two CPUs.
fn guest() -> Report {
    let mut report = full_report();
    report.memory.boot = Some(Bytes::mib(512));
    report.memory.plugged = Some(Bytes::mib(130));
    report.memory.requested = Some(Bytes::mib(300));
    report.memory.precision = Precision::Exact;
    (report.memory.lower, report.memory.upper) = (None, None);
    report.cpu.online = Some(2);
    report
}

fn vmm(plugged: u64) -> VmmMemory {
    VmmMemory {
        boot: Bytes::mib(512),
        plugged: Ok(Bytes::mib(plugged)),
        requested: Bytes::mib(300),
        maximum: Bytes::mib(2048),
        ignored: Vec::new(),
    }
}

const CPUS: VmmCpus = VmmCpus { present: 2, maximum: None };

fn differs(report: &Report, before: &VmmMemory, after: &VmmMemory, cpus: VmmCpus) -> Vec<What> {
    let rows = compare(report, before, after, cpus);
    rows.iter().filter(|row| row.differs).map(|row| row.what).collect()
}

#[test]
fn the_same_numbers_agree_and_others_do_not() {
    assert_eq!(differs(&guest(), &vmm(130), &vmm(130), CPUS), []);
    assert_eq!(differs(&guest(), &vmm(128), &vmm(128), CPUS), [What::Plugged]);
    assert_eq!(differs(&guest(), &vmm(132), &vmm(132), CPUS), [What::Plugged]);
    let asked = VmmMemory { requested: Bytes::mib(302), ..vmm(130) };
    assert_eq!(differs(&guest(), &asked, &asked, CPUS), [What::Requested]);
}

#[test]
fn what_moves_between_the_two_answers_is_no_difference() {
    assert_eq!(differs(&guest(), &vmm(0), &vmm(300), CPUS), []);
    assert_eq!(differs(&guest(), &vmm(300), &vmm(128), CPUS), []);
    assert_eq!(differs(&guest(), &vmm(132), &vmm(300), CPUS), [What::Plugged]);
}

#[test]
fn bounds_agree_as_long_as_the_spans_meet() {
    let mut bounded = guest();
    bounded.memory.precision = Precision::Bounded;
    (bounded.memory.lower, bounded.memory.upper) = (Some(Bytes::mib(2)), Some(Bytes::mib(130)));
    assert_eq!(differs(&bounded, &vmm(2), &vmm(2), CPUS), []);
    assert_eq!(differs(&bounded, &vmm(0), &vmm(0), CPUS), [What::Plugged]);
    assert_eq!(differs(&bounded, &vmm(132), &vmm(132), CPUS), [What::Plugged]);
}

#[test]
fn a_guest_may_see_less_than_it_has_and_never_more() {
    let mut report = guest();
    (report.memory.boot, report.cpu.online) = (Some(Bytes::mib(500)), Some(1));
    assert_eq!(differs(&report, &vmm(130), &vmm(130), CPUS), []);
    (report.memory.boot, report.cpu.online) = (Some(Bytes::mib(513)), Some(3));
    assert_eq!(differs(&report, &vmm(130), &vmm(130), CPUS), [What::Boot, What::Cpus]);
    let may_grow = VmmCpus { present: 2, maximum: Some(4) };
    assert_eq!(differs(&report, &vmm(130), &vmm(130), may_grow), [What::Boot]);
}

#[test]
fn what_one_side_does_not_know_differs_from_nothing_but_the_impossible() {
    let mut silent = guest();
    (silent.memory.boot, silent.memory.plugged, silent.memory.requested) = (None, None, None);
    silent.cpu.online = None;
    assert_eq!(differs(&silent, &vmm(7), &vmm(9), CPUS), []);
    let doubted = VmmMemory { plugged: Err(Doubt::Balloon), ..vmm(0) };
    assert_eq!(differs(&guest(), &doubted, &doubted, CPUS), []);
    let mut impossible = guest();
    impossible.memory.plugged = Some(Bytes::mib(2050));
    assert_eq!(differs(&impossible, &doubted, &doubted, CPUS), [What::Plugged]);
}
