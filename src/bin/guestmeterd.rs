//! `guestmeterd`: arguments, library call, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    guestmeter::agent::run(std::env::args_os().skip(1))
}
