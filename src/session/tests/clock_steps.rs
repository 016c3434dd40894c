//! Steps of the guest's wall clock, however many and however far: the count is as if there were none.

use super::world::*;
use super::*;
use crate::meter::Usage;
use proptest::prelude::*;

/// So long after the one before; by so much the wall clock is off from then on, if it is set; whether the agent dies.
type Wake = (u64, Option<i64>, bool);

fn wake() -> impl Strategy<Value = Wake> {
    let seconds = prop_oneof![-2..3i64, -100_000_000..100_000_000i64, Just(-1_700_000_000)];
    let wait = prop_oneof![8 => 0..5_000u64, 1 => 5_000..200_000u64];
    (wait, prop::option::weighted(0.3, seconds), prop::bool::weighted(0.1))
}

/// What is counted over these wake-ups, with the wall clock as it is set or as it would be.
fn usage(wakes: &[Wake], set: bool) -> Usage {
    let mut world = World::greeted();
    let (mut millis, mut offset) = (1_000, 0);
    for &(wait, step, dies) in wakes {
        millis += wait;
        offset = step.filter(|_| set).unwrap_or(offset);
        let mut now = at(millis);
        let nanos = offset.saturating_mul(1_000_000_000);
        now.realtime_unix = Nanos(now.realtime_unix.0.saturating_add_signed(nanos));
        if dies {
            world = World::new(Some(world.session.saved().clone()));
            world.wake(now, Some(Event::Connected(HOST)));
            world.ask(now, hello(1, 1));
        }
        // Where there is a step, time is counted at once: so it is where there is none.
        world.ask(now, Request::Read);
    }
    *world.session.saved().meter.usage()
}

proptest! {
    #[test]
    fn a_wall_clock_that_steps_changes_no_count(wakes in prop::collection::vec(wake(), 1..60)) {
        prop_assert_eq!(usage(&wakes, true), usage(&wakes, false));
    }
}
