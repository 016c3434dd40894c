//! `guestmeter`: arguments, library call, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    guestmeter::host::cli::run(std::env::args_os())
}
