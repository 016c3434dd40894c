//! The `guestmeter` command: arguments in, exit code out.

mod args;
#[cfg(feature = "agent")]
mod demo;
mod error;
mod output;
mod read;
mod replay;
mod values;

mod wait_settled;
mod watch;

use args::{Args, Command};
use clap::{CommandFactory, Parser};
use error::CliError;
use output::Output;
use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

/// How a command that ran to its end turned out.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// Nothing to say.
    Fine,
    /// It found what it looked for: memory that is short, numbers that do not hold.
    Found,
    /// A target could not be reached.
    Unreachable,
    /// The agent inside this executable ended.
    #[cfg(feature = "agent")]
    Agent(ExitCode),
}

/// The demo's child. Not a command for a person: neither help nor completions name it.
#[cfg(feature = "agent")]
const AGENT: &str = "agent";

/// Runs `guestmeter` with these arguments, the program's name first.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    #[cfg(feature = "agent")]
    if let [_, command, rest @ ..] = arguments.as_slice()
        && command == AGENT
    {
        return finish(agent(rest.to_vec()));
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
        Command::Replay(args) => replay::run(&args, &mut output),
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

/// The demo's child: `guestmeterd` in this executable, for `cargo run` builds no other. It dies with the demo.
#[cfg(feature = "agent")]
fn agent(arguments: Vec<OsString>) -> Result<Outcome, CliError> {
    let kill = Some(rustix::process::Signal::KILL);
    rustix::process::set_parent_process_death_signal(kill)
        .map_err(|error| CliError::Runtime(error.into()))?;
    Ok(Outcome::Agent(crate::agent::run(arguments)))
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
        Ok(Outcome::Unreachable) => ExitCode::from(error::UNREACHABLE),
        #[cfg(feature = "agent")]
        Ok(Outcome::Agent(code)) => code,
        // `guestmeter … | head`: the reader has what it wanted.
        Err(CliError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            output::complaint(&error.to_string());
            ExitCode::from(error.exit_code())
        }
    }
}
