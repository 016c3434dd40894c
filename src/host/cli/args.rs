//! The command line.

use super::values::{
    parse_interval, parse_limit, parse_settle_timeout, parse_size, parse_span, parse_target,
};
use crate::host::target::Target;
use crate::units::Bytes;
use crate::wire::version;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

static VERSION: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{} ({}), protocol {} to {}",
        env!("CARGO_PKG_VERSION"),
        env!("GUESTMETER_GIT"),
        version::MIN,
        version::CURRENT
    )
});

const AFTER_HELP: &str = "\
A TARGET is one of
  vsock://CID[:PORT]       a VM of this machine's kernel (vhost-vsock)
  hvsock://PATH[:PORT]     a VM whose VMM bridges vsock to a Unix socket
  unix://PATH              an agent on this machine, without a VM
PORT is 1020 where none is given.

Exit codes: 0 fine, 1 something was found (memory is short), 2 bad usage, 65 bad data,
69 a target is unreachable; else as in sysexits.h.";

/// Ask the agents inside microVMs what memory and CPU they really have, and for how long they had it
#[derive(Debug, Parser)]
#[command(name = "guestmeter", version = VERSION.as_str(), after_help = AFTER_HELP, max_term_width = 100)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Read(ReadArgs),
    Watch(WatchArgs),
    WaitSettled(WaitSettledArgs),
    Replay(ReplayArgs),
    /// Show the whole loop on this machine, without a VM or root: an agent, its report, its death and return
    #[cfg(feature = "agent")]
    Demo,
    /// Print a completion script for a shell
    Completions {
        /// Whose script
        shell: clap_complete::Shell,
    },
}

/// Read one report of each target
///
/// Targets are asked at once and shown as they answer. Those that do not answer are named on standard error, and
/// the exit code is 69.
#[derive(Debug, clap::Args)]
pub(super) struct ReadArgs {
    /// Whom to ask
    #[arg(required = true, value_name = "TARGET", value_parser = parse_target)]
    pub(super) targets: Vec<Target>,
    /// One JSON object a line (guestmeter.report/1) instead of tables
    #[arg(long)]
    pub(super) json: bool,
    /// The longest to wait for one target
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_limit)]
    pub(super) timeout: Duration,
}

/// Watch targets until interrupted
///
/// A report comes at each change of memory or CPU, and at least once in an interval. On a terminal it is a table
/// that is redrawn in place, else a line for each report. A target that goes away is tried again until it is back.
#[derive(Debug, clap::Args)]
pub(super) struct WatchArgs {
    /// Whom to watch
    #[arg(required = true, value_name = "TARGET", value_parser = parse_target)]
    pub(super) targets: Vec<Target>,
    /// The longest without a report, and the shortest between two; 100ms to 1h
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_interval)]
    pub(super) interval: Duration,
    /// One JSON object a line (guestmeter.report/1) instead of a table
    #[arg(long)]
    pub(super) json: bool,
}

/// Wait until a target's memory has settled
///
/// Settled is: the plugged memory is what is expected; where that is not given, what the VMM requested; where the
/// guest cannot read that either, unchanged for the quiet time. The exit code is 0 when it settled in time, else 1.
#[derive(Debug, clap::Args)]
pub(super) struct WaitSettledArgs {
    /// Whom to ask
    #[arg(value_name = "TARGET", value_parser = parse_target)]
    pub(super) target: Target,
    /// What virtio-mem was asked for, all devices together and without boot memory: 512M, 1GiB
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(super) expect: Option<Bytes>,
    /// How long nothing may have changed where nothing else tells
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_span)]
    pub(super) quiet: Duration,
    /// When to give up; at most 1h
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_settle_timeout)]
    pub(super) timeout: Duration,
    /// Print the report as a JSON object (guestmeter.report/1)
    #[arg(long)]
    pub(super) json: bool,
}

/// Count recorded observations, and say what is counted, what is dropped, and why
///
/// The file has one JSON object a line: {"at_ns":N,"memory_bytes":N,"cpu_millis":N,"event":"E"}, where E is start
/// (once, first), tick, capacity, checkpoint, resume or release. The first line may have "tick_ns". The result is
/// the `usage` object of `read --json`, or on a terminal a table of it.
#[derive(Debug, clap::Args)]
pub(super) struct ReplayArgs {
    /// The file, or - for standard input
    pub(super) file: PathBuf,
    /// The longest time between two observations of a healthy agent; goes before the file's own [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = parse_limit)]
    pub(super) tick: Option<Duration>,
    /// Print each slice too
    #[arg(long)]
    pub(super) slices: bool,
    /// JSON objects, one a line, on a terminal too
    #[arg(long)]
    pub(super) json: bool,
}
