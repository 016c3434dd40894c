//! A small soak: two hours of twenty sandboxes with every fault, in real books; `guestmeter simulate --soak`
//! has one of a whole day.

use guestmeter::host::simulate::{Faults, Fleet, Soaked};
use std::num::NonZero;

fn soak(fleet: &Fleet) -> Soaked {
    let folder = tempfile::tempdir().unwrap();
    fleet.soak(folder.path(), NonZero::new(2).unwrap(), |_| {}).unwrap()
}

#[test]
fn books_of_a_fleet_with_every_fault_are_the_truth_less_what_is_declared() {
    let soaked = soak(&Fleet { hours: 2, sandboxes: 20, faults: Faults::all(), seed: 1 });
    assert_eq!(soaked.wrong, Vec::<String>::new(), "{soaked:#?}");
    assert_eq!(soaked.skipped_free.0, soaked.skipped_free.1);
    assert!(soaked.skipped_free.0 >= 4, "two orgs of two hours pay nothing: {soaked:#?}");
    assert!(soaked.reports > 5000 && soaked.postings > 500, "{soaked:#?}");
}
