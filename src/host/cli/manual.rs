//! The manual pages, made of what `--help` says: so there is one place to say it. Packagers call this, as
//! `guestmeter manual DIRECTORY`.

use super::args::Args;
use super::{CliError, Outcome};
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use jiff::Timestamp;
use std::path::Path;

/// The manual's name, at the head of every page.
const MANUAL: &str = "guestmeter";

/// Writes `guestmeter.1`, a page for each of its commands, and `guestmeterd.8` where this program has the agent.
pub(super) fn run(directory: &Path) -> Result<Outcome, CliError> {
    let mut command = Args::command().disable_help_subcommand(true);
    command.build();
    write_all(&command, "1", directory)?;
    #[cfg(feature = "agent")]
    {
        let mut agent = agent::command();
        agent.build();
        write_all(&agent, "8", directory)?;
    }
    Ok(Outcome::Fine)
}

fn write_all(command: &Command, section: &str, directory: &Path) -> Result<(), CliError> {
    for inner in command.get_subcommands() {
        write_all(inner, section, directory)?;
    }
    // The version of a page is the program's, without the revision: the same text gives the same bytes.
    let source = format!("guestmeter {}", env!("CARGO_PKG_VERSION"));
    let page = Man::new(command.clone()).section(section).date(date()).source(source).manual(MANUAL);
    let failed = |error| CliError::Open { path: directory.display().to_string(), error };
    page.generate_to(directory).map(drop).map_err(failed)
}

/// `SOURCE_DATE_EPOCH`'s day, as packages have it; a page has to have one.
fn date() -> String {
    let stated = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse().ok());
    let instant = stated.and_then(|seconds| Timestamp::from_second(seconds).ok()).unwrap_or_default();
    instant.strftime("%F").to_string()
}

/// The agent has no clap, to stay small: its page is read from its help.
#[cfg(feature = "agent")]
mod agent {
    use crate::agent::cli::HELP;
    use clap::{Arg, Command};

    /// What its exit codes mean, as `src/agent/exit.rs` has them.
    const AFTER: &str = "\
Exit codes: 0 all is well, 1 doctor found that the reading is not exact, 64 bad usage, 69 something that is needed is
not there, 70 a system call that is not on its list was made, 71 the system refused something, 73 a file cannot be
made, 77 not allowed.

FILES
  /run/guestmeter/state   the counters, which outlive the agent but not the boot

It needs no configuration. What an attacker can and cannot do to it is in the documentation of the crate guestmeter,
module agent::threat_model.";

    pub(super) fn command() -> Command {
        let (head, options) = HELP.split_once("Options:\n").unwrap_or((HELP, ""));
        let (about, usage) = head.split_once("\n\n").unwrap_or((head, ""));
        let about = about.split_once(": ").map_or(about, |(_, about)| about);
        let mut command = Command::new("guestmeterd").about(about).after_help(AFTER);
        for line in usage.lines().filter_map(|line| line.trim().strip_prefix("guestmeterd [OPTIONS] ")) {
            let (name, about) = line.split_once("  ").unwrap_or((line, ""));
            command = command.subcommand(Command::new(name).about(about.trim()));
        }
        let mut found: Vec<(&'static str, String)> = Vec::new();
        for line in options.lines().map(str::trim) {
            match (line.strip_prefix("--"), found.last_mut()) {
                (Some(option), _) => {
                    let (option, help) = option.split_once("  ").unwrap_or((option, ""));
                    found.push((option, help.trim().to_owned()));
                }
                (None, Some((_, help))) => *help = format!("{help} {line}"),
                (None, None) => {}
            }
        }
        let command = command.disable_help_flag(true).disable_help_subcommand(true);
        command.args(found.into_iter().map(argument))
    }

    fn argument((option, help): (&'static str, String)) -> Arg {
        let (name, value) =
            option.split_once(' ').map_or((option, None), |(name, value)| (name, Some(value)));
        let argument = Arg::new(name).long(name).help(help);
        match value {
            Some(value) => argument.value_name(value),
            None => argument.num_args(0),
        }
    }
}
