//! `guestmeterd`: arguments, library call, exit code.

fn main() -> std::process::ExitCode {
    guestmeter::agent::run(std::env::args_os().skip(1))
}
