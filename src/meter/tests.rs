use super::*;
use proptest::prelude::*;

const TICK: Nanos = Nanos::from_secs(5);
const RATE: Rate = Rate { memory: Bytes::mib(1024), cpu: MilliCpu(1000) };
const OTHER: Rate = Rate { memory: Bytes::mib(4096), cpu: MilliCpu(2500) };

fn secs(tenths: u64) -> Nanos {
    Nanos(tenths * 100_000_000)
}

/// A meter whose first observation, at 1 s, is behind it.
fn running() -> Meter {
    let mut meter = Meter::new(TICK);
    meter.observe(secs(10), RATE, Event::Start);
    meter
}

fn active(meter: &Meter) -> Nanos {
    Nanos(u64::try_from(meter.usage().active.total()).unwrap())
}

#[test]
fn first_observation_counts_at_most_a_tick_at_its_own_capacity() {
    let mut meter = Meter::new(TICK);
    let slice = meter.observe(secs(72), RATE, Event::Start);
    assert_eq!((slice.rule, slice.from, slice.rate), (Rule::First, None, RATE));
    assert_eq!(slice.counted, secs(50));
    assert_eq!(slice.dropped, RATE.over(secs(22)));
    assert_eq!(meter.usage().gaps, 1);
    assert_eq!(meter.usage().memory, Count { whole: 5 * 1024, carry: 0 });
    assert_eq!(meter.usage().cpu, Count { whole: 5000, carry: 0 });
}

#[test]
fn first_observation_within_a_tick_drops_nothing() {
    let meter = running();
    assert_eq!(active(&meter), secs(10));
    assert!(meter.usage().dropped.is_zero());
    assert_eq!(meter.usage().gaps, 0);
}

#[test]
fn a_slice_belongs_to_the_capacity_at_its_start() {
    let mut meter = running();
    meter.observe(secs(20), OTHER, Event::Capacity);
    assert_eq!(meter.usage().memory.whole, 2 * 1024);
    meter.observe(secs(30), RATE, Event::Capacity);
    assert_eq!(meter.usage().memory.whole, 2 * 1024 + 4096);
}

#[test]
fn backwards_clock_counts_nothing_and_is_an_anomaly() {
    let mut meter = running();
    let slice = meter.observe(secs(5), RATE, Event::Tick);
    assert_eq!((slice.rule, slice.counted), (Rule::Backwards, Nanos::ZERO));
    assert_eq!((meter.usage().anomalies, meter.usage().gaps), (1, 0));
    meter.observe(secs(15), RATE, Event::Tick);
    assert_eq!(active(&meter), secs(20), "the next slice starts where the clock went back to");
}

#[test]
fn backwards_clock_with_a_resume_still_ends_the_hold() {
    let mut meter = running();
    meter.observe(secs(20), RATE, Event::Checkpoint);
    meter.observe(secs(15), RATE, Event::Resume);
    assert!(!meter.held());
}

#[test]
fn held_and_a_resume_suspends_everything() {
    let mut meter = running();
    meter.observe(secs(23), RATE, Event::Checkpoint);
    let before = *meter.usage();
    let slice = meter.observe(secs(5000), RATE, Event::Resume);
    assert_eq!((slice.rule, slice.suspended), (Rule::HeldResume, secs(4977)));
    assert_eq!(meter.usage().active, before.active, "the carry is kept");
    assert_eq!(meter.usage().suspended, secs(4977));
    assert!(!meter.held());
}

#[test]
fn held_and_a_jump_is_a_resume() {
    let mut meter = running();
    meter.observe(secs(20), RATE, Event::Checkpoint);
    let slice = meter.observe(secs(121), RATE, Event::Tick);
    assert_eq!((slice.rule, slice.suspended), (Rule::HeldJump, secs(101)));
    assert!(!meter.held());
    assert_eq!(meter.usage().gaps, 0);
}

#[test]
fn held_within_the_cap_counts_and_stays_held() {
    let mut meter = running();
    meter.observe(secs(20), RATE, Event::Checkpoint);
    let slice = meter.observe(secs(120), RATE, Event::Tick);
    assert_eq!((slice.rule, slice.counted), (Rule::Held, secs(100)));
    assert!(meter.held());
}

#[test]
fn resume_across_more_than_the_cap_drops_all_and_the_old_carry() {
    let mut meter = running();
    meter.observe(secs(13), RATE, Event::Tick);
    let slice = meter.observe(secs(114), RATE, Event::Resume);
    assert_eq!((slice.rule, slice.counted), (Rule::ResumeGap, Nanos::ZERO));
    assert_eq!(slice.dropped.active, secs(101 + 3));
    assert_eq!(meter.usage().active, Count { whole: 1, carry: 0 });
    assert_eq!(meter.usage().gaps, 1);
}

#[test]
fn resume_within_the_cap_counts_and_is_uncertain() {
    let mut meter = running();
    let slice = meter.observe(secs(110), RATE, Event::Resume);
    assert_eq!((slice.rule, slice.counted), (Rule::ResumeShort, secs(100)));
    assert_eq!(meter.usage().uncertain, secs(100));
}

#[test]
fn a_release_ends_the_hold_and_counts_as_an_ordinary_observation() {
    let mut meter = running();
    meter.observe(secs(20), RATE, Event::Checkpoint);
    let slice = meter.observe(secs(30), RATE, Event::Release);
    assert_eq!((slice.rule, slice.counted), (Rule::Plain, secs(10)));
    assert!(!meter.held());
    assert_eq!(meter.usage().uncertain, Nanos::ZERO);
}

#[test]
fn a_clock_jump_that_is_not_held_is_capped() {
    let mut meter = running();
    let slice = meter.observe(secs(111), RATE, Event::Tick);
    assert_eq!((slice.rule, slice.counted), (Rule::Capped, secs(100)));
    assert_eq!(slice.dropped.active, secs(1));
}

#[test]
fn seed_carries_forward_no_drift() {
    let mut meter = Meter::new(Nanos::from_secs(20));
    meter.observe(Nanos::ZERO, RATE, Event::Start);
    for slice in 1..=200 {
        meter.observe(secs(195 * slice), RATE, Event::Tick);
    }
    assert_eq!(meter.usage().active, Count { whole: 3900, carry: 0 });
}

#[test]
fn seed_sub_second_ticks_accumulate() {
    let mut meter = Meter::new(TICK);
    meter.observe(Nanos::ZERO, RATE, Event::Start);
    let whole: Vec<u64> = (1..=3)
        .map(|slice| {
            meter.observe(secs(4 * slice), RATE, Event::Tick);
            meter.usage().active.whole
        })
        .collect();
    assert_eq!(whole, [0, 0, 1]);
}

#[test]
fn seed_cap_discards_remainder() {
    let mut meter = Meter::new(TICK);
    meter.observe(Nanos::ZERO, RATE, Event::Start);
    meter.observe(secs(9), RATE, Event::Tick);
    assert_eq!(meter.usage().active, Count { whole: 0, carry: 900_000_000 });
    meter.observe(secs(9 + 105), RATE, Event::Tick);
    assert_eq!(meter.usage().active, Count { whole: 10, carry: 0 }, "0.9 s must not come back");
    assert_eq!(meter.usage().dropped.active, secs(9 + 5));
}

#[test]
fn a_capped_slice_keeps_its_own_remainder() {
    let mut meter = Meter::new(Nanos(1_250_000_000));
    meter.observe(Nanos::ZERO, RATE, Event::Start);
    meter.observe(secs(30), RATE, Event::Tick);
    assert_eq!(meter.usage().active, Count { whole: 2, carry: 500_000_000 });
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::Tick),
        2 => Just(Event::Capacity),
        1 => Just(Event::Checkpoint),
        1 => Just(Event::Resume),
        1 => Just(Event::Release),
    ]
}

fn rate() -> impl Strategy<Value = Rate> {
    (0..=Bytes::PHYSICAL_MAX.0, 0..=8_192_000u64)
        .prop_map(|(memory, cpu)| Rate { memory: Bytes(memory), cpu: MilliCpu(cpu) })
}

/// Steps of any size up to an hour, and now and then back.
fn step() -> impl Strategy<Value = (i64, Rate, Event)> {
    let delta =
        prop_oneof![6 => 0..12_000_000_000i64, 1 => 0..3_600_000_000_000i64, 1 => -5_000_000_000..0i64];
    (delta, rate(), event())
}

fn moved(now: Nanos, delta: i64) -> Nanos {
    Nanos(now.0.saturating_add_signed(delta))
}

proptest! {
    #[test]
    fn the_law_holds(steps in prop::collection::vec(step(), 1..80), start in 0..100_000_000_000u64) {
        let mut meter = Meter::new(TICK);
        let (mut now, mut observed) = (Nanos(start), Amounts::default());
        let mut held_rate = None;
        for (delta, rate, event) in steps {
            let before = *meter.usage();
            let from = meter.last().map_or(Nanos::ZERO, |(from, _)| from);
            now = moved(now, delta);
            let slice = meter.observe(now, rate, event);
            if slice.suspended == Nanos::ZERO {
                let rate_then = held_rate.unwrap_or(rate);
                observed = observed.saturating_add(Rate::over(rate_then, now.saturating_sub(from)));
            }
            held_rate = Some(rate);
            let usage = meter.usage();
            prop_assert_eq!(usage.active.total() + u128::from(usage.dropped.active.0), u128::from(observed.active.0));
            prop_assert_eq!(usage.memory.total() + usage.dropped.memory.0, observed.memory.0);
            prop_assert_eq!(usage.cpu.total() + usage.dropped.cpu.0, observed.cpu.0);
            prop_assert!(usage.active.carry < ACTIVE_UNIT && usage.memory.carry < MEMORY_UNIT && usage.cpu.carry < CPU_UNIT);
            prop_assert!(usage.active.whole >= before.active.whole);
            prop_assert!(usage.memory.whole >= before.memory.whole);
            prop_assert!(usage.cpu.whole >= before.cpu.whole);
        }
    }

    #[test]
    fn splitting_an_interval_changes_nothing(cuts in prop::collection::vec(0..10_000_000_000u64, 0..20), rate in rate()) {
        let end = Nanos::from_secs(10);
        let (mut whole, mut split) = (Meter::new(TICK), Meter::new(TICK));
        whole.observe(Nanos::ZERO, rate, Event::Start);
        split.observe(Nanos::ZERO, rate, Event::Start);
        let mut cuts = cuts;
        cuts.sort_unstable();
        for cut in cuts {
            split.observe(Nanos(cut), rate, Event::Tick);
        }
        whole.observe(end, rate, Event::Tick);
        split.observe(end, rate, Event::Tick);
        prop_assert_eq!(whole, split);
    }

    #[test]
    fn no_input_panics_or_wraps(steps in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u64>(), event()), 1..30), tick in any::<u64>()) {
        let mut meter = Meter::new(Nanos(tick));
        let mut whole = 0;
        for (now, memory, cpu, event) in steps {
            meter.observe(Nanos(now), Rate { memory: Bytes(memory), cpu: MilliCpu(cpu) }, event);
            prop_assert!(meter.usage().memory.whole >= whole);
            whole = meter.usage().memory.whole;
        }
    }
}
