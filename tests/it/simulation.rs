//! The simulated world, from outside: laws over many seeds, and what `guestmeter simulate` says.
//!
//! `tests/run` checks ten thousand seeds with the release build (`guestmeter simulate --check-seeds 10000`), `--full` a
//! million; here are as many as a debug build can take, and those that once broke a law.

use guestmeter::host::simulate::{Declared, Fault, Faults, Fleet, Policy, check, check_seeds};
use std::num::NonZero;
use std::process::{Command, Output};

/// One seed a line; what it broke stands behind `#`.
const REGRESSIONS: &str = include_str!("simulation-seeds.txt");

fn simulate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_guestmeter")).arg("simulate").args(arguments).output().unwrap()
}

fn one() -> NonZero<usize> {
    NonZero::new(1).unwrap()
}

#[test]
fn no_law_breaks_in_the_first_seeds() {
    let checked = check_seeds(1, 300, NonZero::new(2).unwrap(), |_| {});
    for broken in &checked.broken {
        println!("{broken}");
    }
    assert_eq!((checked.seeds, checked.broken.len()), (300, 0));
}

#[test]
fn seeds_that_once_broke_a_law_keep_it() {
    let seeds = REGRESSIONS.lines().filter_map(|line| line.split('#').next()?.trim().parse().ok());
    let mut checked = 0;
    for seed in seeds {
        if let Err(broken) = check(seed) {
            panic!("{broken}");
        }
        checked += 1;
    }
    assert!(checked > 0);
}

#[test]
fn a_seed_is_one_world() {
    assert_eq!(check(4242), check(4242));
    let fleet = Fleet { hours: 1, sandboxes: 4, faults: Faults::all(), seed: 9 };
    let (one, two) = (fleet.live(one(), |_| {}), fleet.live(NonZero::new(3).unwrap(), |_| {}));
    assert_eq!((one.run, one.events, one.outcomes), (two.run, two.events, two.outcomes));
}

#[test]
fn each_fault_alone_keeps_the_laws_and_is_felt() {
    let mut quiet = Vec::new();
    let calm = Fleet { hours: 2, sandboxes: 3, faults: Faults::NONE, seed: 5 }.live(one(), |_| {});
    for fault in Faults::all().iter() {
        let fleet = Fleet { hours: 2, sandboxes: 3, faults: Faults::NONE.with(fault), seed: 5 };
        let lived = fleet.live(one(), |_| {});
        for broken in &lived.broken {
            println!("{broken}");
        }
        assert!(lived.broken.is_empty(), "{fault:?}");
        if lived.events == calm.events {
            quiet.push(fault);
        }
    }
    assert_eq!(quiet, Vec::<Fault>::new(), "faults that change nothing");
}

#[test]
fn the_truncating_ticker_drifts_the_carrying_one_hides_and_the_meter_declares() {
    let lived = Fleet { hours: 12, sandboxes: 8, faults: Faults::all(), seed: 1 }.live(one(), |_| {});
    assert!(lived.broken.is_empty(), "{:?}", lived.broken.first());
    let outcome = |policy| lived.outcomes.iter().find(|outcome| outcome.policy == policy).unwrap();
    let permille = |ns: u128| ns * 1000 / lived.run;

    let truncating = outcome(Policy::Truncating);
    let short = permille(lived.run - truncating.posted);
    assert!((20..=30).contains(&short), "about 2.5 % are truncated away: {short} per mille");

    let carrying = outcome(Policy::Carrying);
    assert!(permille(carrying.posted.abs_diff(lived.run)) < 5, "in all it seems right");
    assert!(carrying.doubled() > 0 && carrying.lost() > 0, "but it bills pauses, and loses as much");

    let meter = outcome(Policy::Meter);
    assert_eq!(meter.undeclared, 0);
    assert!(permille(meter.lost() + meter.doubled()) < 10, "{meter:?}");
    for (cause, lost, doubled) in &meter.causes {
        let declared = cause.declared();
        assert!(declared.is_some(), "{cause:?}");
        assert!(
            declared == Some(Declared::Uncertain) || lost + 1 > *doubled,
            "{cause:?} bills what did not run"
        );
    }
    for outcome in &lived.outcomes {
        assert_eq!(outcome.posted + outcome.lost(), lived.run + outcome.doubled(), "{:?}", outcome.policy);
    }
}

#[test]
fn without_faults_the_meter_bills_what_ran_but_for_the_edges() {
    let lived = Fleet { hours: 24, sandboxes: 3, faults: Faults::NONE, seed: 1 }.live(one(), |_| {});
    let meter = lived.outcomes.iter().find(|outcome| outcome.policy == Policy::Meter).unwrap();
    assert_eq!(meter.undeclared, 0);
    assert!(meter.lost() < u128::from(lived.lives) * 1_000_000_000, "{meter:?}");
    assert_eq!(meter.doubled(), 0, "{meter:?}");
}

#[test]
fn the_command_shows_a_table_or_one_object() {
    let shown = simulate(&["--hours", "1", "--sandboxes", "2", "--seed", "3"]);
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    let text = String::from_utf8(shown.stdout).unwrap();
    for policy in ["truncating ticker", "carrying ticker", "guestmeter"] {
        assert!(text.contains(policy), "{text}");
    }

    let json = simulate(&["--hours", "1", "--sandboxes", "2", "--seed", "3", "--json"]);
    let document: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&document["schema"], &document["seed"]), (&"guestmeter.simulation/1".into(), &"3".into()));
    assert_eq!(document["policies"][2]["undeclared_ms"], 0);
    let causes = document["policies"][2]["causes"].as_array().unwrap();
    assert!(causes.iter().all(|cause| cause["declared"].is_string()), "{causes:?}");
    assert_eq!(document["broken"], serde_json::json!([]));
}

#[test]
fn the_command_checks_as_many_seeds_as_one_likes() {
    let checked = simulate(&["--check-seeds", "40", "--seed", "500", "--jobs", "1"]);
    assert_eq!(checked.status.code(), Some(0));
    let text = String::from_utf8(checked.stdout).unwrap();
    assert!(text.starts_with("40 seeds, ") && text.ends_with("0 broke a law\n"), "{text}");
}

#[test]
fn a_fault_that_is_none_is_bad_usage() {
    let refused = simulate(&["--faults", "gremlins"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("\"gremlins\" is no fault"));
    assert_eq!(simulate(&["--check-seeds", "5", "--hours", "5"]).status.code(), Some(2));
}
