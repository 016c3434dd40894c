//! `demo`: the whole loop on this machine, without a VM or root, with its result checked.

mod guest;
mod incident;
mod platform;
mod process;
mod proof;
mod tally;
mod worker;

use super::Outcome;
use super::error::CliError;
use super::output::{Output, complain};
use crate::capacity::{Memory, Precision};
use crate::host::client::{Client, Reading};
use crate::host::error::ClientError;
use crate::host::ledger::LedgerError;
use crate::host::table;
use crate::host::target::TargetError;
use crate::host::text::{gib_seconds, span};
use crate::units::{Bytes, Nanos};
use crate::wire::message::Report;
use guest::Guest;
use incident::Questions;
use indicatif::{ProgressBar, ProgressStyle};
use platform::{ORG, Ordered, Platform, SANDBOX};
use proof::{Check, Measured};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use worker::{Described, Worker};

/// How long the agent lives before it is looked at.
const LIFE: Duration = Duration::from_secs(3);
/// And how long the one after it.
const SECOND_LIFE: Duration = Duration::from_secs(2);
/// How often it reports meanwhile.
const GLANCE: Duration = Duration::from_millis(200);
/// For one question; a build may run beside the demo.
const ANSWER: Duration = Duration::from_secs(5);
/// All of it.
const DEMO_MAX: Duration = Duration::from_secs(90);
/// Of a guest that cannot say what memory it has.
const MEMORY_MIB_UNKNOWN: u64 = 1024;

/// Why the demo could not be shown.
#[derive(Debug, thiserror::Error)]
pub(super) enum DemoError {
    /// No private directory.
    #[error("demo: making a directory in {}: {error}", .path.display())]
    Directory {
        /// Where.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A file of a part's cannot be made, or run.
    #[error("demo: {}: {error}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The directory's path makes no address.
    #[error("demo: {0}; set TMPDIR to a shorter path")]
    Address(#[from] TargetError),
    /// A part does not run.
    #[error(transparent)]
    Process(#[from] process::ProcessError),
    /// The agent did not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The worker did not answer, or not as it should.
    #[error("demo: the worker: {error}; it said:\n{log}")]
    Api {
        /// The attempt.
        error: worker::ApiError,
        /// Its last words.
        log: String,
    },
    /// The ledger cannot be asked.
    #[error("demo: {0}")]
    Ledger(#[from] LedgerError),
    /// The ledger has no row of a VM that it was told of.
    #[error("demo: the ledger has no row of the VM that could be opened again")]
    NoRow,
    /// A command of this program failed.
    #[error("demo: guestmeter {command}: {status}")]
    Question {
        /// What it was asked.
        command: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// It answered something else than JSON.
    #[error("demo: the JSON of explain: {0}")]
    Json(#[from] serde_json::Error),
    /// Standard output.
    #[error(transparent)]
    Output(io::Error),
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
    // Whichever ends first, dropping the show ends its parts and removes its directory.
    let shown = tokio::select! {
        shown = timeout(DEMO_MAX, show(output)) => shown.unwrap_or(Err(DemoError::Late)),
        _ = interrupt.recv() => Err(DemoError::Interrupted),
        _ = terminate.recv() => Err(DemoError::Interrupted),
    };
    match shown {
        Ok(outcome) => Ok(outcome),
        Err(DemoError::Client(error)) => {
            complain(&error);
            Ok(Outcome::Unreachable)
        }
        Err(DemoError::Output(error)) => Err(CliError::Output(error)),
        Err(error) => Err(error.into()),
    }
}

async fn show(output: &mut Output) -> Result<Outcome, DemoError> {
    // Readable by this user alone. It outlives what runs in it.
    let folder = tempfile::Builder::new().prefix("guestmeter-").tempdir();
    let folder = folder.map_err(|error| DemoError::Directory { path: std::env::temp_dir(), error })?;
    say(
        output,
        "1. An agent starts on this machine: the one that is baked into a VM's image, here as a process\n   \
         of this user, on a Unix socket instead of vsock, reading this machine's own kernel files.\n",
    )?;
    let mut guest = Guest::start(folder.path())?;
    let client = Client::new(guest.target()?, ANSWER);
    guest.answers(&client).await?;
    let (last, mut checks) = crash(&mut guest, &client, output).await?;
    checks.extend(billing(folder.path(), &guest, &last, output).await?);
    if checks.iter().all(|check| check.holds) {
        say(
            output,
            "\nNothing was lost, and what was wrong has its name. Next: `guestmeter worker --help`, and \
             README.md for a real VM.",
        )?;
        Ok(Outcome::Fine)
    } else {
        say(output, "\nThe numbers above do not hold: please report this with the text above.")?;
        Ok(Outcome::Found)
    }
}

/// The agent's death and return; its last report.
async fn crash(
    guest: &mut Guest,
    client: &Client,
    output: &mut Output,
) -> Result<(Report, Vec<Check>), DemoError> {
    live(client, LIFE).await?;
    let asked = Instant::now();
    let before = client.read().await?;
    let answered = Instant::now();
    say(output, "2. What `guestmeter read` says of it:\n")?;
    output.text(&table::report(&before, output.look())).map_err(DemoError::Output)?;
    say(output, &format!("\n   {}\n   {}\n", why(&before.report.memory), why_dropped(&before)))?;

    say(
        output,
        "3. The agent is killed (kill -9) and started again. Its counters are in two checksummed slots of a\n   \
         state file, so the new one goes on where the old one was.\n",
    )?;
    guest.kill_and_restart()?;
    guest.answers(client).await?;
    live(client, SECOND_LIFE).await?;
    let asked_again = Instant::now();
    let after = client.read().await?;
    let least = asked_again.saturating_duration_since(answered);
    let most = asked.elapsed();
    let measured = Measured { before: &before.report, after: &after.report, least, most };
    let checks = proof::checks(&measured);
    tell(&checks, output)?;
    Ok((after.report, checks))
}

/// A worker, a VM's life as its manager tells it, the books, and an incident in them.
async fn billing(
    folder: &Path,
    guest: &Guest,
    report: &Report,
    output: &mut Output,
) -> Result<Vec<Check>, DemoError> {
    say(
        output,
        "\n4. The host's side: a worker polls the agent and keeps the books in a SQLite ledger. A VM manager\n   \
         tells it of each step of a VM's life, by HTTP on a Unix socket; here the demo is the VM manager.\n",
    )?;
    let total = report.memory.total();
    let memory_mib = total.map_or(MEMORY_MIB_UNKNOWN, mib).max(1);
    let base_memory_mib = report.memory.boot.map_or(memory_mib, mib);
    let target = guest.target()?.to_string();
    let mut worker =
        Worker::start(folder, &Described { sandbox: SANDBOX, org: ORG, target, base_memory_mib })?;
    worker.answers().await?;
    let ordered = Ordered { memory_mib, cpu: report.cpu.effective };
    let seen = Platform::new(&worker, guest, output).run(ordered).await?;
    let status = worker.end().await?;

    say(output, "\n5. The worker has stopped. What its ledger has of that VM:\n")?;
    let mut questions = Questions::new(folder, &seen, output)?;
    let (rows, samples) = questions.books().await?;
    let mut checks =
        vec![Check { holds: status.success(), text: format!("the worker stopped cleanly: {status}") }];
    let memory_known = total.is_some();
    let books = tally::Books { seen: &seen, rows: &rows, samples: &samples, ordered, memory_known };
    checks.extend(tally::checks(&books));
    checks.push(questions.healthy()?);
    tell(&checks, output)?;

    say(
        output,
        "\n6. A known incident is put into that ledger: the VM's last row is open again, as if its host had died\n   \
         before it could close it. Hours later the VM is long gone, and billed on:\n",
    )?;
    let mut questions = Questions::new(folder, &seen, output)?;
    let closed = questions.reopen().await?;
    let named = questions.incident(closed)?;
    tell(std::slice::from_ref(&named), output)?;
    checks.push(named);
    Ok(checks)
}

fn say(output: &mut Output, text: &str) -> Result<(), DemoError> {
    output.line(text).map_err(DemoError::Output)
}

fn tell(checks: &[Check], output: &mut Output) -> Result<(), DemoError> {
    checks.iter().try_for_each(|check| say(output, &check.line()))
}

fn mib(bytes: Bytes) -> u64 {
    bytes.0 >> 20
}

/// Some seconds of life, with the counters as they rise.
async fn live(client: &Client, life: Duration) -> Result<(), DemoError> {
    let bar = bar(life);
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

/// On a terminal alone, by milliseconds.
fn bar(length: Duration) -> ProgressBar {
    let bar = ProgressBar::new(u64::try_from(length.as_millis()).unwrap_or(u64::MAX));
    if let Ok(style) = ProgressStyle::with_template("   {bar:30} {msg}") {
        bar.set_style(style);
    }
    bar
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
        span(guest::TICK.into()),
    )
}
