//! `demo`: the whole loop on this machine, without a VM or root, with its result checked.

mod agent;
mod proof;

use super::Outcome;
use super::error::CliError;
use super::output::{Output, complain};
use crate::capacity::{Memory, Precision};
use crate::host::client::{Client, Reading};
use crate::host::error::ClientError;
use crate::host::table;
use crate::host::text::{gib_seconds, span};
use crate::units::{Bytes, Nanos};
use agent::AgentProcess;
use indicatif::{ProgressBar, ProgressStyle};
use proof::Measured;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

/// How long the agent lives before it is looked at.
const LIFE: Duration = Duration::from_secs(3);
/// And how long the one after it.
const SECOND_LIFE: Duration = Duration::from_secs(2);
/// How often it reports meanwhile.
const GLANCE: Duration = Duration::from_millis(200);
/// For one question; a build may run beside the demo.
const ANSWER: Duration = Duration::from_secs(5);
/// All of it.
const DEMO_MAX: Duration = Duration::from_secs(30);

/// Why the demo could not be shown.
#[derive(Debug, thiserror::Error)]
pub(super) enum DemoError {
    /// The agent did not run.
    #[error(transparent)]
    Agent(#[from] agent::AgentError),
    /// The agent did not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A signal.
    #[error("demo: interrupted")]
    Interrupted,
    /// Far longer than it ever takes.
    #[error("demo: not done within {DEMO_MAX:?}")]
    Late,
}

pub(super) async fn run(output: &mut Output) -> Result<Outcome, CliError> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::Runtime)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(CliError::Runtime)?;
    // Whichever ends first, dropping the show ends the agent and removes its directory.
    let shown = tokio::select! {
        shown = timeout(DEMO_MAX, show(output)) => shown.unwrap_or_else(|_| Err(DemoError::Late.into())),
        _ = interrupt.recv() => Err(DemoError::Interrupted.into()),
        _ = terminate.recv() => Err(DemoError::Interrupted.into()),
    };
    match shown {
        Err(CliError::Demo(DemoError::Client(error))) => {
            complain(&error);
            Ok(Outcome::Unreachable)
        }
        other => other,
    }
}

async fn show(output: &mut Output) -> Result<Outcome, CliError> {
    output.line(
        "1. An agent starts on this machine: the one that is baked into a VM's image, here as a process",
    )?;
    output.line(
        "   of this user, on a Unix socket instead of vsock, reading this machine's own kernel files.\n",
    )?;
    let mut agent = AgentProcess::start().map_err(DemoError::from)?;
    let client = Client::new(agent.target().map_err(DemoError::from)?, ANSWER);
    agent.answers(&client).await.map_err(DemoError::from)?;
    live(&client, LIFE).await?;

    let asked = Instant::now();
    let before = client.read().await.map_err(DemoError::from)?;
    let answered = Instant::now();
    output.line("2. What `guestmeter read` says of it:\n")?;
    output.text(&table::report(&before, output.look()))?;
    output.line(&format!("\n   {}\n   {}\n", why(&before.report.memory), why_dropped(&before)))?;

    output.line(
        "3. The agent is killed (kill -9) and started again. Its counters are in two checksummed slots of a",
    )?;
    output.line("   state file, so the new one goes on where the old one was.\n")?;
    agent.kill().map_err(DemoError::from)?;
    agent.restart().map_err(DemoError::from)?;
    agent.answers(&client).await.map_err(DemoError::from)?;
    live(&client, SECOND_LIFE).await?;
    let asked_again = Instant::now();
    let after = client.read().await.map_err(DemoError::from)?;
    let least = asked_again.saturating_duration_since(answered);
    let most = asked.elapsed();

    let measured = Measured { before: &before.report, after: &after.report, least, most };
    let checks = proof::checks(&measured);
    for check in &checks {
        output.line(&format!("   {} {}", if check.holds { "✓" } else { "✗" }, check.text))?;
    }
    if checks.iter().all(|check| check.holds) {
        output.line("\nNothing was lost. Next: `guestmeter read --help`, and README.md for a real VM.")?;
        Ok(Outcome::Fine)
    } else {
        output.line("\nThe numbers above do not hold: please report this with the text above.")?;
        Ok(Outcome::Found)
    }
}

/// Some seconds of life, with the counters as they rise.
async fn live(client: &Client, life: Duration) -> Result<(), DemoError> {
    let bar = ProgressBar::new(u64::try_from(life.as_millis()).unwrap_or(u64::MAX));
    if let Ok(style) = ProgressStyle::with_template("   {bar:30} {msg}") {
        bar.set_style(style);
    }
    let began = Instant::now();
    let mut watcher = client.watch(GLANCE).await?;
    while began.elapsed() < life {
        let usage = watcher.next().await?.report.usage;
        bar.set_position(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
        let running = Nanos(u64::try_from(usage.active.total()).unwrap_or(u64::MAX));
        bar.set_message(format!("running {}, memory {}", span(running), gib_seconds(usage.memory.whole)));
    }
    bar.finish_and_clear();
    Ok(())
}

/// What the label on the plugged memory means on this machine.
fn why(memory: &Memory) -> String {
    match (memory.precision, memory.added) {
        (Precision::Exact, Some(Bytes::ZERO)) => {
            "Exact: no virtio-mem memory was added to this machine, so there is nothing to be unsure of."
                .to_owned()
        }
        (Precision::Exact, _) => {
            "Exact: the kernel's own numbers leave room for one value of the plugged memory only.".to_owned()
        }
        (Precision::Bounded, _) => {
            "Bounded: this user may not read what would make it exact (see `guestmeterd doctor`). \
             In an image, systemd opens those files for the agent."
                .to_owned()
        }
    }
}

fn why_dropped(reading: &Reading) -> String {
    let usage = &reading.report.usage;
    if usage.dropped.is_zero() {
        return "Nothing was dropped.".to_owned();
    }
    format!(
        "Dropped: {} of this machine's life before the agent's first look. It counts at most one tick ({}) that \
         it\n   did not see, and says what it left out.",
        span(usage.dropped.active),
        span(agent::TICK.into()),
    )
}
