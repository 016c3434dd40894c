//! What counts as a change, and who hears of it when.

use super::*;

fn hotplugged(world: &mut World, millis: u64, plugged_mib: u64) -> Vec<Action> {
    world.capacity = capacity(plugged_mib);
    world.wake(at(millis), Some(Event::Hotplug))
}

fn reasons(actions: &[Action]) -> Vec<Reason> {
    reports(actions).iter().map(|report| report.reason).collect()
}

#[test]
fn a_watcher_hears_of_a_change_at_once_and_of_one_in_each_interval() {
    let mut world = World::greeted();
    world.ask(at(2_000), watch(10_000));
    let [report] = reports(&hotplugged(&mut world, 3_000, 128)).try_into().unwrap();
    assert_eq!((report.reason, report.memory.plugged), (Reason::Capacity, Some(Bytes::mib(128))));
    assert_eq!(*world.looks.last().unwrap(), Depth::Full, "a report is made of a full look");
    assert!(reports(&hotplugged(&mut world, 4_000, 256)).is_empty(), "one interval has not passed");
    assert!(reports(&hotplugged(&mut world, 5_000, 384)).is_empty());
    let [report] = reports(&world.wake(at(13_000), None)).try_into().unwrap();
    assert_eq!((report.reason, report.memory.plugged), (Reason::Capacity, Some(Bytes::mib(384))));
    assert_eq!(reasons(&world.wake(at(23_000), None)), [Reason::Query], "without a change, each interval");
    assert_eq!(reasons(&hotplugged(&mut world, 23_001, 0)), [Reason::Capacity], "which holds up no change");
}

#[test]
fn a_change_of_cpus_is_one_too() {
    let mut world = World::greeted();
    world.ask(at(2_000), watch(10_000));
    world.capacity.cpu.effective = crate::units::MilliCpu(500);
    assert_eq!(reasons(&world.wake(at(7_000), None)), [Reason::Capacity], "a tick sees it");
}

/// Boot memory that is given back, or a balloon: nothing was plugged.
#[test]
fn a_move_of_mem_total_alone_is_no_change() {
    let mut world = World::greeted();
    world.ask(at(2_000), watch(1_000));
    world.capacity.memory.mem_total = Some(Bytes::mib(399));
    assert!(reports(&world.wake(at(2_500), Some(Event::Hotplug))).is_empty());
    assert_eq!(reasons(&world.wake(at(3_000), None)), [Reason::Query]);

    let mut world = World::greeted();
    world.ask(at(60_000), wait_settled(None, 1_000, 10_000));
    world.capacity.memory.mem_total = Some(Bytes::mib(398));
    assert!(replies(&world.wake(at(60_750), None)).is_empty());
    assert_eq!(reports(&world.wake(at(61_000), None)).len(), 1, "the quiet time does not begin anew");
}

/// `plugged` is an upper bound there, which a part of a block does not move.
#[test]
fn without_an_exact_number_mem_total_tells_whether_memory_is_quiet() {
    let mut world = World::greeted();
    world.capacity.memory.precision = crate::capacity::Precision::Bounded;
    world.ask(at(60_000), wait_settled(None, 1_000, 10_000));
    world.capacity.memory.mem_total = Some(Bytes::mib(398));
    world.wake(at(60_750), None);
    assert!(replies(&world.wake(at(61_500), None)).is_empty(), "0.75 s since it moved");
    assert_eq!(reports(&world.wake(at(61_750), None)).len(), 1);
}
