//! A deterministic world of a host, its VMM, and guests: nothing is real in it but what is to be proved.
//!
//! Real are the agent's [`Session`](crate::session::Session) with its meter and saved state, woken as its edge wakes it
//! and killed between any two of its actions, and now and then the wire's codec. Invented, from a seed alone, are true
//! time, guest clocks that freeze, jump, drift and go back over pauses, a VMM with snapshots, clones and rollbacks,
//! virtio-mem that plugs slowly or in part, messages that are lost, late, doubled and overtaken, half-open connections,
//! agents of an older build, and a host's worker with a ledger of epochs, marks and what it posted.
//!
//! The world knows the truth, and judges: [`Invariant`] says what must hold, with each bound. [`check`] lives through
//! one small world, [`check_seeds`] through many (`guestmeter simulate --check-seeds N`), [`Fleet`] through days of many
//! sandboxes, beside the two tickers that the meter is to replace (`guestmeter simulate`). A world that breaks a law is
//! lived through again with somebody who listens, and tells its last events in words.
//!
//! | file | what lives there |
//! |---|---|
//! | `world` | true time, what is due, the VMs and sandboxes |
//! | `guest`, `memory`, `wakeups`, `agent` | a guest's clocks, its virtio-mem, what is due in it, one wake-up of its agent |
//! | `vmm`, `operator`, `mishaps`, `faults` | what a VMM does, who asks it to and when, what goes wrong |
//! | `channel`, `host`, `conversation`, `stranger` | messages, a worker, what it says and hears, who else asks |
//! | `account` | the worker's books of a sandbox, beside the truth |
//! | `law`, `shadow`, `slice`, `finish` | what must hold; what is checked of an agent's lineage, and of the books in the end |
//! | `ticker`, `fleet`, `show`, `seeds` | two tickers, many sandboxes, their outcome, many worlds |
//! | `soak` | the real worker's books of a fleet: reconcile, ledger, parity, explain |
//! | `stories` | named short worlds, as tests |

mod account;
mod agent;
mod channel;
mod conversation;
mod faults;
mod finish;
mod fleet;
mod guest;
mod host;
mod law;
mod memory;
mod mishaps;
mod operator;
mod random;
mod seeds;
mod shadow;
pub mod show;
mod slice;
mod soak;
#[cfg(test)]
mod stories;
mod stranger;
mod ticker;
mod vmm;
mod wakeups;
mod world;

pub use faults::{Fault, FaultError, Faults};
pub use fleet::{Cause, Declared, Fleet, Lived, Outcome, Policy};
pub use law::Invariant;
pub use seeds::{Checked, check_seeds};
pub use soak::{SoakError, Soaked};

use crate::units::Nanos;
use guest::SECOND;
use law::Breach;
use random::Random;
use world::{Settings, World};

/// The last events of a story that are told.
const STORY: usize = 60;

/// A seed whose world broke a law.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The seed.
    pub seed: u64,
    /// Which law.
    pub invariant: Invariant,
    /// With which numbers.
    pub text: String,
    /// What happened last, in words.
    pub story: Vec<String>,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "seed {} breaks {}: {}", self.seed, self.invariant, self.text)?;
        for line in &self.story {
            writeln!(f, "  {line}")?;
        }
        Ok(())
    }
}

/// Lives through the world of `seed`; says how many events it had.
///
/// # Errors
/// The law that it broke, with its story.
pub fn check(seed: u64) -> Result<u64, Box<Broken>> {
    let mut world = World::new(seed, drawn(seed), false);
    match live(&mut world) {
        Ok(()) => Ok(world.steps),
        Err(breach) => Err(Box::new(tell(seed, drawn(seed), breach))),
    }
}

fn live(world: &mut World) -> Result<(), Breach> {
    world.create();
    world.run_faults()?;
    world.finish()
}

/// The same world again, with somebody who listens.
fn tell(seed: u64, settings: Settings, breach: Breach) -> Broken {
    let mut world = World::new(seed, settings, true);
    // It breaks again, at the same event.
    let _ = live(&mut world);
    let story = world.story();
    let story = story.get(story.len().saturating_sub(STORY)..).unwrap_or_default().to_vec();
    Broken { seed, invariant: breach.invariant, text: breach.text, story }
}

/// What kind of world a seed is.
fn drawn(seed: u64) -> Settings {
    let mut random = Random::new(seed ^ 0x5EED);
    let faults = match random.below(8) {
        0 => Faults::NONE,
        1..4 => Faults::all(),
        _ => Faults::all()
            .iter()
            .fold(Faults::NONE, |faults, fault| if random.once_in(3) { faults.with(fault) } else { faults }),
    };
    Settings {
        faults,
        length: random.between(60 * SECOND, 240 * SECOND),
        tick: Nanos::from_secs(5),
        poll: random.choose(2, &[5, 15]) * SECOND,
        lifecycle: 20 * SECOND,
        fault: 8 * SECOND,
        message: random.choose(10, &[40, 200]),
        accounts: 4,
        tickers: false,
    }
}
