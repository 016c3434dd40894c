//! The agent's I/O: one thread, one loop.
//!
//! [`run`] takes a command line: [`cli`] reads it, `start` opens everything and gives privilege up, `hardening` denies
//! the process whatever else it could do, `daemon` is the loop that carries out what [`crate::session`] decides. `signals` are the traces that resumes leave, `listener` is
//! where hosts connect, `notifier` the connection that the agent opens itself.

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
mod hardening;
mod listener;
mod log;
mod memory;
mod notifier;
mod passed;
mod poller;
mod privilege;
mod seccomp;
mod signals;
pub mod state;
mod stop;
mod supervisor;
#[doc = include_str!("threat_model.md")]
pub mod threat_model {}
mod uevent;
pub mod witness;

pub use address::{Address, AddressError, NotifyAddress};

use crate::wire::version;
use cli::Command;
use std::ffi::OsString;
use std::io::Write;

/// Whose process the agent runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// Its own: once all is open it is confined to what the agent does, for good.
    Own,
    /// Another program's, which goes on doing what it does.
    Shared,
}

/// Runs `guestmeterd` with these arguments, the program's name left out; gives its exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>, process: Process) -> u8 {
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
            let (text, exact) = doctor::examine(&options, process);
            let printed = print(&text);
            if exact { printed } else { exit::INEXACT }
        }
        Command::OpenSources(options) => match open_sources::store(&options) {
            Ok(()) => exit::SUCCESS,
            Err(error) => fail(&format_args!("{error}"), exit::OSERR),
        },
        Command::Serve(options) => match start::serve(&options, process) {
            Ok(()) => exit::SUCCESS,
            Err(error) => fail(&format_args!("{error}"), error.exit_code()),
        },
    }
}

fn print(text: &str) -> u8 {
    let mut output = std::io::stdout();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Ok(()) => exit::SUCCESS,
        Err(_) => exit::OSERR,
    }
}

fn fail(error: &std::fmt::Arguments<'_>, code: u8) -> u8 {
    // Nobody is left to tell if standard error is gone.
    let _ = writeln!(std::io::stderr(), "guestmeterd: {error}");
    code
}
