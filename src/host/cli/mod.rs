//! The `guestmeter` command: arguments in, exit code out.

mod args;
mod books;
mod checkpoint;
#[cfg(feature = "agent")]
mod demo;
#[cfg(test)]
mod docs;
mod error;
mod explain;
mod ledger;
mod lifecycle;
mod listen;
mod manual;
mod output;
mod parity;
mod read;
mod read_vmm;
mod replay;
mod resume;
#[cfg(feature = "agent")]
mod simulate;
mod usage;
mod values;
mod wait_settled;
mod watch;
mod watch_order;
mod worker;

use args::{Args, Command};
use clap::{CommandFactory, Parser};
use error::CliError;
use output::Output;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::ExitCode;

/// How a command that ran to its end turned out.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// Nothing to say.
    Fine,
    /// It found what it looked for: memory that is short, numbers that do not hold.
    Found,
    /// The guest is in another epoch than the one that was named.
    OtherEpoch,
    /// A target could not be reached.
    Unreachable,
    /// The agent inside this executable ended.
    #[cfg(feature = "agent")]
    Agent(u8),
}

/// The demo's children. Not commands for a person: neither help nor completions name them.
#[cfg(feature = "agent")]
const AGENT: &str = "agent";
/// The same of [`Command::Worker`].
#[cfg(feature = "agent")]
const WORKER: &str = "demo-worker";

/// The packager's: makes the manual pages. Not a command for a person either.
const MANUAL: &str = "manual";

/// Runs `guestmeter` with these arguments, the program's name first.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    #[cfg_attr(not(feature = "agent"), allow(unused_mut, reason = "only the demo's children change them"))]
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    #[cfg(feature = "agent")]
    match arguments.as_mut_slice() {
        [_, command, rest @ ..] if command == AGENT => return finish(agent(rest.to_vec())),
        [_, command, ..] if command == WORKER => {
            if let Err(error) = die_with_parent() {
                return finish(Err(error));
            }
            *command = "worker".into();
        }
        _ => {}
    }
    if let [_, command, directory] = arguments.as_slice()
        && command == MANUAL
    {
        return finish(manual::run(Path::new(directory)));
    }
    let args = match Args::try_parse_from(arguments) {
        Ok(args) => args,
        Err(error) => {
            let code = if error.use_stderr() { error::USAGE } else { 0 };
            return match error.print() {
                Ok(()) => ExitCode::from(code),
                Err(error) => finish(Err(CliError::Output(error))),
            };
        }
    };
    finish(dispatch(args.command))
}

fn dispatch(command: Command) -> Result<Outcome, CliError> {
    let mut output = Output::new();
    match command {
        Command::Read(args) => on_runtime(read::run(args, &mut output)),
        Command::Watch(args) => on_runtime(watch::run(args, &mut output)),
        Command::WaitSettled(args) => on_runtime(wait_settled::run(args, &mut output)),
        Command::Checkpoint(args) => on_runtime(checkpoint::run(args, &mut output)),
        Command::Resume(args) => on_runtime(resume::run(args, &mut output)),
        Command::Listen(args) => on_runtime(listen::run(args, &mut output)),
        Command::Worker(args) => worker::run(&args, &mut output),
        Command::Replay(args) => replay::run(&args, &mut output),
        Command::Usage(args) => on_runtime(usage::run(args, &mut output)),
        Command::Parity(args) => on_runtime(parity::run(args, &mut output)),
        Command::Explain(args) => on_runtime(explain::run(args, &mut output)),
        Command::Ledger(args) => on_runtime(ledger::run(args, &mut output)),
        #[cfg(feature = "agent")]
        Command::Simulate(args) => simulate::run(&args, &mut output),
        #[cfg(feature = "agent")]
        Command::Demo => on_runtime(demo::run(&mut output)),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "guestmeter", &mut script);
            output.bytes(&script)?;
            Ok(Outcome::Fine)
        }
    }
}

/// `guestmeterd` in this executable, for `cargo run` builds no other. It dies with the demo.
#[cfg(feature = "agent")]
fn agent(arguments: Vec<OsString>) -> Result<Outcome, CliError> {
    die_with_parent()?;
    Ok(Outcome::Agent(crate::agent::run(arguments, crate::agent::Process::Own)))
}

#[cfg(feature = "agent")]
fn die_with_parent() -> Result<(), CliError> {
    let kill = Some(rustix::process::Signal::KILL);
    rustix::process::set_parent_process_death_signal(kill).map_err(|error| CliError::Runtime(error.into()))
}

/// One thread is enough for a person's questions.
fn on_runtime(work: impl Future<Output = Result<Outcome, CliError>>) -> Result<Outcome, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(CliError::Runtime)?.block_on(work)
}

fn finish(result: Result<Outcome, CliError>) -> ExitCode {
    match result {
        Ok(Outcome::Fine) => ExitCode::SUCCESS,
        Ok(Outcome::Found) => ExitCode::from(error::FOUND),
        Ok(Outcome::OtherEpoch) => ExitCode::from(error::BAD_DATA),
        Ok(Outcome::Unreachable) => ExitCode::from(error::UNREACHABLE),
        #[cfg(feature = "agent")]
        Ok(Outcome::Agent(code)) => ExitCode::from(code),
        // `guestmeter … | head`: the reader has what it wanted.
        Err(CliError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            output::complaint(&error.to_string());
            ExitCode::from(error.exit_code())
        }
    }
}
