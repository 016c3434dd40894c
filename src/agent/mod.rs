//! The agent's I/O.

mod address;
mod boot_id;
pub mod cli;
pub mod clock;
mod descriptor;
mod doctor;
mod listener;
mod log;
mod once;
mod passed;
mod privilege;
pub mod state;
mod supervisor;
mod uevent;
pub mod witness;

use cli::Command;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

/// Runs `guestmeterd` with these arguments, the program's name left out.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match cli::parse(arguments) {
        Ok(Command::Help) => print(cli::HELP),
        Ok(Command::Once(options)) => print(&once::text(&options)),
        Ok(Command::Doctor(options)) => {
            let (text, exact) = doctor::examine(&options);
            let printed = print(&text);
            if exact { printed } else { ExitCode::from(1) }
        }
        Ok(Command::Version) => print(env!("CARGO_PKG_VERSION")),
        Ok(Command::Serve(_) | Command::OpenSources(_)) => ExitCode::from(69),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "guestmeterd: {error}\nTry guestmeterd --help.");
            ExitCode::from(64)
        }
    }
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(71),
    }
}
