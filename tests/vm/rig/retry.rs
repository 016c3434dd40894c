//! A step of the rig's own that failed (a VMM that does not come up, a port that does not answer) is tried again once,
//! and that is said. What a test asserts is not: a wrong value stays wrong.

use std::io::Write;

/// What `step` gives, the second time if need be; `machine` is what it was for.
pub(super) fn once_more<T>(machine: &str, step: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    twice(step, |error| say(machine, error))
}

fn twice<T>(mut step: impl FnMut() -> Result<T, String>, say: impl FnOnce(&str)) -> Result<T, String> {
    step().or_else(|error| {
        say(&error);
        step()
    })
}

/// On a line of its own and past the harness, which keeps what a passing test prints: `tests/run` counts these lines.
fn say(machine: &str, error: &str) {
    let what = error.lines().next().unwrap_or_default();
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("main");
    let _ = writeln!(std::io::stderr(), "\nretried: {test} ({machine}): {what}");
}

#[test]
fn a_step_is_tried_again_once_and_its_second_failure_holds() {
    let failing_until = |good: u32| {
        let (mut tries, mut said) = (0, Vec::new());
        let step = || {
            tries += 1;
            if tries < good { Err(format!("try {tries}")) } else { Ok(tries) }
        };
        (twice(step, |error| said.push(error.to_owned())), said)
    };
    assert_eq!(failing_until(1), (Ok(1), vec![]));
    assert_eq!(failing_until(2), (Ok(2), vec!["try 1".to_owned()]));
    assert_eq!(failing_until(3), (Err("try 2".to_owned()), vec!["try 1".to_owned()]));
}
