//! The command line.

use super::explain::ExplainArgs;
use super::ledger::LedgerArgs;
use super::parity::ParityArgs;
use super::usage::UsageArgs;
use super::values::{
    Owner, parse_epoch, parse_event, parse_interval, parse_limit, parse_mode, parse_owner, parse_sandbox,
    parse_settle_timeout, parse_size, parse_span, parse_target, parse_vmm,
};
use super::watch_order::Column;
#[cfg(feature = "agent")]
use crate::host::simulate::Faults;
use crate::host::state_file::Minted;
use crate::host::target::{PORT_DEFAULT, Target};
use crate::host::vmm::VmmAddress;
use crate::units::Bytes;
use crate::wire::version;
use clap::{Parser, Subcommand};
#[cfg(feature = "agent")]
use std::num::NonZero;
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

Exit codes: 0 fine, 1 something was found (memory is short, guest and VMM differ), 2 bad usage,
65 bad data or another epoch than the guest's, 69 a target is unreachable; else as in sysexits.h.";

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
    Checkpoint(CheckpointArgs),
    Resume(ResumeArgs),
    Listen(ListenArgs),
    Worker(WorkerArgs),
    Replay(ReplayArgs),
    Usage(UsageArgs),
    Parity(ParityArgs),
    Explain(ExplainArgs),
    Ledger(LedgerArgs),
    #[cfg(feature = "agent")]
    Simulate(SimulateArgs),
    /// Show the whole loop on this machine, without a VM or root: an agent, a worker, the books, and an error found in them
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
/// the exit code is 69. With --vmm one target is shown beside its VMM's own word, which is asked before and after
/// it; the exit code is 1 when they cannot both be true.
#[derive(Debug, clap::Args)]
pub(super) struct ReadArgs {
    /// Whom to ask
    #[arg(required = true, value_name = "TARGET", value_parser = parse_target)]
    pub(super) targets: Vec<Target>,
    /// The target's VMM: qmp://PATH (a -qmp socket that nobody else uses), firecracker://PATH or
    /// cloud-hypervisor://PATH
    #[arg(long, value_name = "VMM", value_parser = parse_vmm)]
    pub(super) vmm: Option<VmmAddress>,
    /// One JSON object a line (guestmeter.report/1, guestmeter.vmm/1) instead of tables
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
    /// Only what its host has named so; may be given more than once
    #[arg(long, value_name = "NAME", value_parser = parse_sandbox)]
    pub(super) sandbox: Vec<String>,
    /// The table's order: names from the first on, amounts from the greatest down
    #[arg(long, value_name = "COLUMN", value_enum, default_value_t)]
    pub(super) sort: Column,
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

/// Close a guest's count before its VM is paused, and hold it
///
/// Prints the final report of the epoch, acknowledges it, and closes the connection from both ends: after exit code 0 or 1 the
/// VM may be paused and saved. The count is held until `resume`; whatever runs on after it, the source VM of a snapshot
/// included, needs one, and so does a VM that is not paused after all (`resume --not-paused`). Asking again is safe. With
/// --state a guest that no host has named is named first. Exit codes: 0 taken; 1 taken, but memory has not settled, or the
/// guest did not hear that it was; 65 not taken, for the guest is in another epoch; 69 not taken.
#[derive(Debug, clap::Args)]
pub(super) struct CheckpointArgs {
    /// Whom to ask
    #[arg(value_name = "TARGET", value_parser = parse_target)]
    pub(super) target: Target,
    #[command(flatten)]
    pub(super) life: LifeArgs,
    /// Do not acknowledge the report: the guest keeps what leads up to it
    #[arg(long)]
    pub(super) no_ack: bool,
    /// What virtio-mem was asked for, all devices together and without boot memory: 512M, 1GiB
    #[arg(long, value_name = "SIZE", requires = "wait_settled", value_parser = parse_size)]
    pub(super) expect: Option<Bytes>,
    #[command(flatten)]
    pub(super) settle: SettleArgs,
    /// How long to go on trying to reach the guest, and to wait for a state file that is in use
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = parse_limit)]
    pub(super) retry_for: Duration,
    /// Print the report as a JSON object (guestmeter.report/1)
    #[arg(long)]
    pub(super) json: bool,
}

/// Name the life that begins after a pause, a restore or a fresh start
///
/// Each life between two pauses is an epoch: a random id and a number above all that this guest had before. Every VM
/// that runs on after a `checkpoint` needs its own: one that was restored, one restored twice, and the source of a
/// snapshot too. Prints the first report of the epoch, acknowledges it, and closes the connection. To ask again after a
/// failure is safe: with the same --event, or with --state alone until there was an answer. The exit code is 1 when
/// something was found: a clone (the guest was another sandbox before), a rollback (its counters were behind what was
/// known), a mark of another boot, memory that is short or over.
#[derive(Debug, clap::Args)]
pub(super) struct ResumeArgs {
    /// Whom to ask
    #[arg(value_name = "TARGET", value_parser = parse_target)]
    pub(super) target: Target,
    /// Which sandbox it is from now on, at most 128 bytes
    #[arg(long, value_name = "NAME", value_parser = parse_sandbox)]
    pub(super) sandbox: String,
    #[command(flatten)]
    pub(super) life: LifeArgs,
    /// The VM was not paused: a fresh start, a snapshot that was given up, a guest that is taken over
    #[arg(long)]
    pub(super) not_paused: bool,
    /// What virtio-mem was asked for, all devices together and without boot memory: 512M, 1GiB
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(super) expect: Option<Bytes>,
    /// The boot memory that the VM was given: the report then has it, and not what the guest finds
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(super) boot: Option<Bytes>,
    /// With --epoch: the last report known of this sandbox, as --json printed it; - for standard input
    ///
    /// A guest that was restored from an older snapshot has counters behind it; they are raised to it, so that what it
    /// counts again is told from what it had counted. Of several lines the last one holds.
    #[arg(long, value_name = "FILE", conflicts_with = "state")]
    pub(super) mark: Option<PathBuf>,
    /// Do not acknowledge the report: the guest keeps what leads up to it
    #[arg(long)]
    pub(super) no_ack: bool,
    #[command(flatten)]
    pub(super) settle: SettleArgs,
    /// How long to go on trying to reach the guest, and to wait for a state file that is in use
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = parse_limit)]
    pub(super) retry_for: Duration,
    /// Print each report as a JSON object (guestmeter.report/1)
    #[arg(long)]
    pub(super) json: bool,
}

/// Print what guests say unasked, until interrupted
///
/// A guest's agent dials its host after a start, after a resume that it noticed, and once memory has settled after it.
/// Any process of the guest can do the same, so what it says is a hint: the agent is dialled back, and what it says
/// there is the evidence. A report of a named epoch that the agent confirms is acknowledged. A provisional one is not:
/// name it with `resume`, or it will be said again.
#[derive(Debug, clap::Args)]
pub(super) struct ListenArgs {
    /// X_1020, where X is the VMM's vsock socket (Firecracker, Cloud Hypervisor); or the word vsock, for all guests of
    /// this machine's kernel
    ///
    /// The VMM has to be able to connect to the socket: run this as its user, or as root with --owner. One that is left over
    /// is replaced.
    #[arg(value_name = "PATH|vsock")]
    pub(super) place: PathBuf,
    /// The socket's owner and group, as numbers: those that the VMM runs as [default: this process's]
    #[arg(long, value_name = "UID[:GID]", value_parser = parse_owner)]
    pub(super) owner: Option<Owner>,
    /// The socket's permission bits, in octal: whoever may write may connect
    #[arg(long, value_name = "MODE", default_value = "600", value_parser = parse_mode)]
    pub(super) mode: u32,
    /// The vsock port to listen at
    #[arg(long, value_name = "PORT", default_value_t = PORT_DEFAULT, conflicts_with = "dial", value_parser = clap::value_parser!(u32).range(1..i64::from(u32::MAX)))]
    pub(super) port: u32,
    /// Whom to dial back [default: hvsock://X, or the CID that dialled]
    #[arg(long, value_name = "TARGET", value_parser = parse_target)]
    pub(super) dial: Option<Target>,
    /// The longest to wait for an agent that is dialled back
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_limit)]
    pub(super) timeout: Duration,
    /// Acknowledge nothing
    #[arg(long)]
    pub(super) no_ack: bool,
    /// One JSON object a line (guestmeter.notification/1)
    #[arg(long)]
    pub(super) json: bool,
}

/// Which life a call is of.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct LifeArgs {
    #[command(flatten)]
    pub(super) minted: MintedArgs,
    /// With --state: which call this is. The same again is the same call, with the same epoch
    #[arg(long, value_name = "ID", requires = "state", conflicts_with = "epoch", value_parser = parse_event)]
    pub(super) event: Option<String>,
}

/// Who mints epochs: this command, which keeps them in a file, or the caller.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct MintedArgs {
    /// Where the sandbox's last epoch and counters are kept, as JSON; `resume` makes it
    ///
    /// On a machine with a worker or a ledger, take --epoch from there. The file is one sandbox's, on a disk that outlives the
    /// VM; copies of a VM have files of their own. It is locked, and on disk before anything is sent or acknowledged. An
    /// epoch that was not answered is used again, one that was answered never.
    #[arg(long, value_name = "FILE")]
    pub(super) state: Option<PathBuf>,
    /// The epoch, as the caller's ledger has it: 32 hex digits, and a number above all that this guest had before
    #[arg(long, value_name = "ID:NUMBER", value_parser = parse_epoch)]
    pub(super) epoch: Option<Minted>,
}

#[derive(Debug, clap::Args)]
pub(super) struct SettleArgs {
    /// Wait until memory has settled, at most so long, at most 1h: after a resume, with a second report; before a checkpoint,
    /// which is taken in any case
    #[arg(long, value_name = "TIME", value_parser = parse_settle_timeout)]
    pub(super) wait_settled: Option<Duration>,
    /// How long nothing may have changed where nothing else tells
    #[arg(long, value_name = "TIME", default_value = "2s", requires = "wait_settled", value_parser = parse_span)]
    pub(super) quiet: Duration,
}

/// Keep the books of this machine's sandboxes
///
/// Polls the agents of the sandboxes that the drop-in directory describes, hears their notifications, takes the
/// lifecycle calls of a VM manager on a local HTTP API, reconciles the three, and posts to the ledger. SIGHUP has it read
/// its configuration and the directory anew; SIGTERM stops it cleanly.
#[derive(Debug, clap::Args)]
pub(super) struct WorkerArgs {
    /// The configuration, a TOML file
    #[arg(long, value_name = "FILE")]
    pub(super) config: PathBuf,
    /// Read the configuration and the descriptors, say what is wrong with them, and exit: 1 where a descriptor cannot be
    /// used
    #[arg(long)]
    pub(super) check: bool,
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

/// Simulate a fleet with faults, and show what each way of counting would lose and double
///
/// Nothing is measured here: from the seed alone, guests with real agents live through pauses, snapshots, clones,
/// rollbacks, crashes and lost messages. Three ways of counting are compared with the truth: a host's ticker that
/// truncates each tick to seconds, one that carries the rest, and this meter. The exit code is 1 when this meter
/// breaks one of its laws; its seed and a short story say how.
#[cfg(feature = "agent")]
#[derive(Debug, clap::Args)]
pub(super) struct SimulateArgs {
    /// How long the fleet lives
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=8760))]
    pub(super) hours: u64,
    /// How many sandboxes it begins with; clones come and go beside
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(super) sandboxes: u64,
    /// What goes wrong: all, none, or a list of clocks, pauses, clones, rollbacks, aborts, boots, crashes, state,
    /// old-agents, starvation, messages, connections, hosts, strangers, memory
    #[arg(long, value_name = "LIST", default_value = "all")]
    pub(super) faults: Faults,
    /// Where chance begins
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) seed: u64,
    /// Instead of a fleet, check the laws in so many small worlds, of this seed and those after it
    #[arg(long, value_name = "N", conflicts_with_all = ["hours", "sandboxes", "faults"])]
    pub(super) check_seeds: Option<u64>,
    /// Instead of comparing ways of counting, keep the worker's own books of the fleet in a ledger of its own, and hold
    /// them against the truth: reconcile, SQLite, parity, and what explain says of every sandbox
    #[arg(long, conflicts_with = "check_seeds")]
    pub(super) soak: bool,
    /// Threads to use [default: one for each processor]
    #[arg(long, value_name = "N")]
    pub(super) jobs: Option<NonZero<usize>>,
    /// One JSON object instead of a table
    #[arg(long)]
    pub(super) json: bool,
}
