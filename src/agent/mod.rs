//! The agent's I/O: one thread, one loop.
//!
//! [`run`] takes a command line: [`cli`] reads it, `start` opens everything and gives privilege up, `daemon` is the
//! loop that carries out what [`crate::session`] decides.

pub mod cli;

mod once;

mod doctor;

mod open_sources;

mod start;

mod daemon;

mod address;
mod boot_id;
mod clock;
mod connection;
mod descriptor;
mod exit;
mod listener;
mod log;
mod passed;
mod privilege;
pub mod state;
mod supervisor;
mod timer;
mod uevent;
pub mod witness;

pub use address::{Address, AddressError, NotifyAddress};

use crate::wire::version;
use cli::Command;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

/// Runs `guestmeterd` with these arguments, the program's name left out.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let command = match cli::parse(arguments) {
        Ok(command) => command,
        Err(error) => return fail(&format_args!("{error}\nTry guestmeterd --help."), exit::USAGE),
    };
    match command {
        Command::Help => print(cli::HELP),
        Command::Version => print(&format!(
            "guestmeterd {} ({}), protocol {} to {}\n",
            env!("CARGO_PKG_VERSION"),
            env!("GUESTMETER_GIT"),
            version::MIN,
            version::CURRENT
        )),
        Command::Once(options) => print(&once::text(&options)),
        Command::Doctor(options) => {
            let (text, exact) = doctor::examine(&options);
            let printed = print(&text);
            if exact { printed } else { ExitCode::from(exit::INEXACT) }
        }
        Command::OpenSources(options) => match open_sources::store(&options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&format_args!("{error}"), exit::OSERR),
        },
        Command::Serve(options) => match start::serve(&options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&format_args!("{error}"), error.exit_code()),
        },
    }
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(exit::OSERR),
    }
}

fn fail(error: &std::fmt::Arguments<'_>, code: u8) -> ExitCode {
    // Nobody is left to tell if standard error is gone.
    let _ = writeln!(std::io::stderr(), "guestmeterd: {error}");
    ExitCode::from(code)
}
