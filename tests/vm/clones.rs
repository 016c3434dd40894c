//! One snapshot restored twice: two guests that nothing inside tells apart.

use crate::rig::template::{RUN, with_vmgenid};
use crate::rig::{HUNG, Platform, Vm, passed, used};
use guestmeter::wire::message::{EpochSource, Finding, Report, Resume};

fn provisional(platform: &Platform, vm: &mut Vm) -> Report {
    let mut report = platform.read(vm);
    vm.wait("the restore to be noticed", HUNG, |vm| {
        report = platform.read(vm);
        report.identity.epoch.source == EpochSource::Provisional
    });
    report
}

#[test]
fn clones_and_their_source_are_told_apart_by_the_hosts_epochs_and_billed_once() {
    let mut platform = Platform::new();
    let mut source = with_vmgenid().restore(42);
    let (life, _) = platform.adopt(&mut source, "parent");
    std::thread::sleep(RUN);
    let last = platform.checkpoint(&mut source, &life);
    let saved = source.save();

    // Both alive at once, with different CIDs, and asked for their names after the fact.
    let mut one = saved.restore(43);
    let mut two = saved.restore(44);
    let (before_one, before_two) = (provisional(&platform, &mut one), provisional(&platform, &mut two));
    assert_eq!(before_one.identity.boot_id, before_two.identity.boot_id, "the kernel cannot tell");
    assert_eq!(before_one.identity.sandbox, before_two.identity.sandbox, "nor the agent");
    let (first, second) = (platform.mint("one"), platform.mint("two"));
    let named_one = platform.resume(&mut one, &first);
    let named_two = platform.resume(&mut two, &second);
    for (named, life) in [(&named_one, &first), (&named_two, &second)] {
        assert_eq!(named.identity.epoch.id, life.epoch);
        assert_eq!(named.identity.sandbox.as_deref(), Some(life.sandbox.as_str()));
        assert_eq!(named.tail.findings, [Finding::Clone]);
        // The parent's life is the parent's: each base holds it whole.
        assert!(named.base.active.total() >= last.usage.active.total());
        passed(&last, named);
    }

    // The source goes on; its hold ends with a life of its own.
    source.go_on();
    let on = platform.mint("parent");
    let named = platform.resume(&mut source, &on);
    assert_eq!(named.tail.findings, []);
    assert_eq!(named.identity.sandbox.as_deref(), Some("parent"));
    let (end_one, end_two, end) = (
        platform.checkpoint(&mut one, &first),
        platform.checkpoint(&mut two, &second),
        platform.checkpoint(&mut source, &on),
    );
    for (named, end) in [(&named_one, &end_one), (&named_two, &end_two), (&named, &end)] {
        let own = used(end).checked_sub(used(named)).expect("counters never go down");
        assert_eq!(own.as_nanos(), passed(named, end).clock, "each is billed for its own time, once");
    }
    crossed_names_are_refused(&mut platform, &mut one, &first, &second);
}

/// The host's messages for one reach the other, late or twice.
fn crossed_names_are_refused(platform: &mut Platform, one: &mut Vm, first: &Resume, second: &Resume) {
    let stale = Resume { number: first.number, ..second.clone() };
    let refused = platform.try_resume(one, &stale).expect_err("a number that was named already");
    assert!(refused.to_string().contains("number"), "{refused}");
    let refused = platform.try_checkpoint(one, second).expect_err("its sibling's epoch");
    assert!(refused.to_string().contains(&second.epoch.to_string()), "{refused}");
    let still = platform.read(one);
    assert_eq!(still.identity.epoch.id, first.epoch);
}
