//! The meter against a second, naive one, over random histories: pauses, clones' clocks, restarts, new ticks.

use guestmeter::meter::{ACTIVE_UNIT, Amounts, CPU_UNIT, Event, MEMORY_UNIT, Meter, Rate, Usage};
use guestmeter::units::{Bytes, MilliCpu, Nanos};
use proptest::prelude::*;

/// One wake-up of an agent.
#[derive(Clone, Debug)]
struct Step {
    moved: Moved,
    rate: Rate,
    event: Event,
    /// The agent was killed before it, and read its state back.
    restarted: bool,
    /// It came back with this tick.
    tick: Option<Nanos>,
}

/// How far the clock went since the last one.
#[derive(Clone, Copy, Debug)]
enum Moved {
    Ns(i64),
    /// So many ns past the cap.
    PastCap(i64),
}

fn rate() -> impl Strategy<Value = Rate> {
    (0..=Bytes::PHYSICAL_MAX.0, 0..=8_192_000u64)
        .prop_map(|(memory, cpu)| Rate { memory: Bytes(memory), cpu: MilliCpu(cpu) })
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        5 => Just(Event::Tick),
        2 => Just(Event::Capacity),
        2 => Just(Event::Checkpoint),
        2 => Just(Event::Resume),
        1 => Just(Event::Release),
        1 => Just(Event::Start),
    ]
}

fn tick() -> impl Strategy<Value = Nanos> {
    (1..20_000_000_000u64).prop_map(Nanos)
}

/// Steps of some seconds, and now and then of a day, of nothing, of just a cap, or back.
fn step() -> impl Strategy<Value = Step> {
    let moved = prop_oneof![
        8 => (0..25_000_000_000i64).prop_map(Moved::Ns),
        1 => (0..86_400_000_000_000i64).prop_map(Moved::Ns),
        1 => Just(Moved::Ns(0)),
        1 => (-30_000_000_000..0i64).prop_map(Moved::Ns),
        2 => (-1..=1i64).prop_map(Moved::PastCap),
    ];
    let new_tick = prop_oneof![9 => Just(None), 1 => tick().prop_map(Some)];
    (moved, rate(), event(), prop::bool::weighted(0.1), new_tick)
        .prop_map(|(moved, rate, event, restarted, tick)| Step { moved, rate, event, restarted, tick })
}

/// A restart: the state as the agent's state file holds it.
fn through_a_state_file(meter: &Meter) -> Meter {
    postcard::from_bytes(&postcard::to_allocvec(meter).unwrap()).unwrap()
}

fn play(meter: &mut Meter, now: &mut Nanos, step: &Step) {
    if step.restarted {
        *meter = through_a_state_file(meter);
    }
    if let Some(tick) = step.tick {
        meter.set_tick(tick);
    }
    let delta = match step.moved {
        Moved::Ns(delta) => delta,
        Moved::PastCap(delta) => i64::try_from(meter.cap().0).unwrap() + delta,
    };
    *now = Nanos(now.0.saturating_add_signed(delta));
    meter.observe(*now, step.rate, step.event);
}

/// The table once more, from the page and not from the code: plain sums, in i128, in the smallest units.
#[derive(Default)]
struct Ledger {
    counted: [i128; 3],
    dropped: [i128; 3],
    suspended: i128,
    uncertain: i128,
    gaps: u64,
    anomalies: u64,
    held: bool,
    last: Option<(i128, [i128; 3])>,
}

const UNITS: [i128; 3] = [ACTIVE_UNIT as i128, MEMORY_UNIT as i128, CPU_UNIT as i128];

impl Ledger {
    fn observe(&mut self, tick: i128, now: i128, rate: [i128; 3], event: Event) {
        let (cap, resume) = (2 * tick, event == Event::Resume);
        self.held = self.held && event != Event::Release;
        match self.last {
            None => self.cut(now.min(tick), now - now.min(tick), rate),
            Some((from, _)) if now < from => {
                self.anomalies += 1;
                self.held = self.held && !resume;
            }
            Some((from, _)) if self.held && (resume || now - from > cap) => {
                self.suspended += now - from;
                self.held = false;
            }
            Some((from, rate)) if self.held => self.cut(now - from, 0, rate),
            Some((from, rate)) if resume && now - from > cap => self.cut(0, now - from, rate),
            Some((from, rate)) if resume => {
                self.uncertain += now - from;
                self.cut(now - from, 0, rate);
            }
            Some((from, rate)) if now - from > cap => self.cut(cap, now - from - cap, rate),
            Some((from, rate)) => self.cut(now - from, 0, rate),
        }
        self.held = self.held || event == Event::Checkpoint;
        self.last = Some((now, rate));
    }

    fn cut(&mut self, counted: i128, dropped: i128, rate: [i128; 3]) {
        self.gaps += u64::from(dropped > 0);
        for (at, unit) in UNITS.into_iter().enumerate() {
            let old_carry = if dropped > 0 { self.counted[at] % unit } else { 0 };
            self.counted[at] += counted * rate[at] - old_carry;
            self.dropped[at] += dropped * rate[at] + old_carry;
        }
    }
}

fn wide(amount: u128) -> i128 {
    i128::try_from(amount).unwrap()
}

fn totals(usage: &Usage) -> [i128; 3] {
    [usage.active.total(), usage.memory.total(), usage.cpu.total()].map(wide)
}

fn parts(amounts: &Amounts) -> [i128; 3] {
    [u128::from(amounts.active.0), amounts.memory.0, amounts.cpu.0].map(wide)
}

fn factors(rate: Rate) -> [i128; 3] {
    [1, i128::from(rate.memory.0), i128::from(rate.cpu.0)]
}

/// Everything a bill or a verdict could be lowered by, in one list.
fn rising(usage: &Usage) -> Vec<u128> {
    let Amounts { active, memory, cpu, .. } = usage.dropped;
    let narrow = [
        usage.active.whole,
        usage.memory.whole,
        usage.cpu.whole,
        usage.suspended.0,
        usage.uncertain.0,
        usage.gaps,
        usage.anomalies,
        active.0,
    ];
    narrow.map(u128::from).into_iter().chain([memory.0, cpu.0]).collect()
}

proptest! {
    #[test]
    fn a_naive_meter_agrees(first_tick in tick(), start in 0..100_000_000_000u64, steps in prop::collection::vec(step(), 1..60)) {
        let (mut meter, mut ledger) = (Meter::new(first_tick), Ledger::default());
        let (mut now, mut tick) = (Nanos(start), first_tick);
        for step in steps {
            play(&mut meter, &mut now, &step);
            tick = step.tick.unwrap_or(tick);
            ledger.observe(i128::from(tick.0), i128::from(now.0), factors(step.rate), step.event);
            let usage = meter.usage();
            prop_assert_eq!(totals(usage), ledger.counted);
            prop_assert_eq!(parts(&usage.dropped), ledger.dropped);
            prop_assert_eq!(i128::from(usage.suspended.0), ledger.suspended);
            prop_assert_eq!(i128::from(usage.uncertain.0), ledger.uncertain);
            prop_assert_eq!((usage.gaps, usage.anomalies), (ledger.gaps, ledger.anomalies));
            prop_assert_eq!(meter.held(), ledger.held);
        }
    }

    #[test]
    fn nothing_published_goes_down_and_a_carry_stays_below_its_unit(tick in tick(), steps in prop::collection::vec(step(), 1..60)) {
        let (mut meter, mut now) = (Meter::new(tick), Nanos::ZERO);
        for step in steps {
            let before = rising(meter.usage());
            play(&mut meter, &mut now, &step);
            let usage = meter.usage();
            prop_assert!(before.iter().zip(rising(usage)).all(|(before, after)| *before <= after));
            prop_assert!(usage.active.carry < ACTIVE_UNIT);
            prop_assert!(usage.memory.carry < MEMORY_UNIT);
            prop_assert!(usage.cpu.carry < CPU_UNIT);
        }
    }

    #[test]
    fn a_look_in_between_changes_nothing_after_any_history(
        steps in prop::collection::vec(step(), 1..20),
        tick in tick(),
        (end, cuts) in (0..=1000u64, prop::collection::vec(0..=1000u64, 1..10)),
    ) {
        let (mut meter, mut now) = (Meter::new(tick), Nanos::ZERO);
        for step in &steps {
            play(&mut meter, &mut now, step);
        }
        let (_, rate) = meter.last().unwrap();
        let within_cap = |thousandths: u64| Nanos(now.0 + meter.cap().0 / 1000 * thousandths);
        let (mut whole, mut split) = (meter.clone(), meter.clone());
        whole.observe(within_cap(end), rate, Event::Tick);
        let mut cuts: Vec<u64> = cuts.into_iter().filter(|cut| *cut <= end).collect();
        cuts.sort_unstable();
        for cut in cuts.into_iter().chain([end]) {
            split.observe(within_cap(cut), rate, Event::Tick);
        }
        prop_assert_eq!(whole, split);
    }

    /// Beyond the cap a look in between saves time from being dropped; what was observed is the same.
    #[test]
    fn what_was_observed_is_the_same_however_it_is_split(tick in tick(), end in 0..86_400_000_000_000u64, cut in 0..86_400_000_000_000u64, rate in rate()) {
        let (mut whole, mut split) = (Meter::new(tick), Meter::new(tick));
        for meter in [&mut whole, &mut split] {
            meter.observe(Nanos::ZERO, rate, Event::Start);
        }
        whole.observe(Nanos(end.max(cut)), rate, Event::Tick);
        split.observe(Nanos(end.min(cut)), rate, Event::Tick);
        split.observe(Nanos(end.max(cut)), rate, Event::Tick);
        let observed = |meter: &Meter| {
            let (counted, dropped) = (totals(meter.usage()), parts(&meter.usage().dropped));
            [0, 1, 2].map(|at| counted[at] + dropped[at])
        };
        prop_assert_eq!(observed(&whole), observed(&split));
        prop_assert_eq!(observed(&whole), factors(rate).map(|factor| factor * i128::from(end.max(cut))));
    }
}
