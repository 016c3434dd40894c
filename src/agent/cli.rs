//! `guestmeterd`'s command line.

use super::address::{Address, NotifyAddress};
use crate::units::Nanos;
use std::ffi::OsString;
use std::path::PathBuf;

/// `--help`.
pub const HELP: &str = "\
guestmeterd: meters the memory and CPU this VM really has, and answers its host

Usage: guestmeterd [OPTIONS]
       guestmeterd [OPTIONS] doctor         which sources are readable, and why a reading is `bounded`
       guestmeterd [OPTIONS] open-sources   for ExecStartPre=+: opens what needs privilege and stores it in systemd

Options:
  --listen URI        vsock://any:PORT or unix:///PATH; repeatable
                      [default: the sockets systemd passes, else vsock://any:1020]
  --notify URI        vsock://2:PORT, unix:///PATH or none: who is told of boots and resumes
                      [default: vsock://2:1020]
  --tick TIME         how often to look where nothing happens, 100ms to 1h [default: 5s]
  --state PATH        counters that survive the agent; on a tmpfs [default: /run/guestmeter/state]
  --cgroup PATH       the cgroup of the sandbox, for its CPU quota
  --device-config     also read virtio-mem's own registers; writes to PCI configuration space
  --allow-peer CID    let this CID connect too, beside the host; repeatable
  --user NAME         become this user once all is open
  --proc-root PATH    [default: /proc]
  --sys-root PATH     [default: /sys]
  --dev-root PATH     where vmclock0 is [default: /dev]
  --no-seccomp        let it make any system call: for valgrind and the like, which make their own inside it
  --once              print one reading as key=value lines and exit
  --version           print version, revision and protocol version
  --help              print this
";

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Serve until told to stop.
    Serve(Options),
    /// One reading, as `key=value` lines.
    Once(Options),
    /// Which sources are readable.
    Doctor(Options),
    /// Put privileged descriptors into systemd's store.
    OpenSources(Options),
    /// `--version`.
    Version,
    /// `--help`.
    Help,
}

/// How to do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where to listen; empty for systemd's sockets or the default.
    pub listen: Vec<Address>,
    /// Where to notify.
    pub notify: NotifyAddress,
    /// How often to look where nothing happens.
    pub tick: Nanos,
    /// The state file.
    pub state: PathBuf,
    /// The cgroup watched.
    pub cgroup: Option<PathBuf>,
    /// Whether virtio-mem's configuration space is read.
    pub device_config: bool,
    /// CIDs let in beside the host's.
    pub allow_peers: Vec<u32>,
    /// Who to become.
    pub user: Option<String>,
    /// Whether system calls that are not on the agent's list end it.
    pub seccomp: bool,
    /// procfs.
    pub proc_root: PathBuf,
    /// sysfs.
    pub sys_root: PathBuf,
    /// Where device files are.
    pub dev_root: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            notify: NotifyAddress::Host { port: super::address::PORT_DEFAULT },
            tick: Nanos::from_secs(5),
            state: PathBuf::from("/run/guestmeter/state"),
            cgroup: None,
            device_config: false,
            allow_peers: Vec::new(),
            user: None,
            seccomp: true,
            proc_root: PathBuf::from("/proc"),
            sys_root: PathBuf::from("/sys"),
            dev_root: PathBuf::from("/dev"),
        }
    }
}

/// The shortest tick.
const TICK_MIN: Nanos = Nanos(100_000_000);
/// The longest.
const TICK_MAX: Nanos = Nanos::from_secs(3600);

/// Bad usage, naming the flag and the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// A flag's value cannot be used.
    #[error("{flag} {value:?}: {cause}")]
    Value {
        /// The flag.
        flag: &'static str,
        /// What it was given.
        value: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The command line itself is wrong.
    #[error("{0}")]
    Line(String),
    /// Not one of the commands.
    #[error("{0:?} is not a command; there are doctor and open-sources")]
    Command(String),
    /// More than one thing to do.
    #[error("{0} and {1} cannot go together")]
    Both(&'static str, &'static str),
}

/// Reads the arguments, the program's name left out.
///
/// # Errors
/// The first thing that is wrong.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    use lexopt::Arg::{Long, Short, Value};
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut options = Options::default();
    let mut mode: Option<&'static str> = None;
    while let Some(argument) = parser.next().map_err(line)? {
        match argument {
            Long("listen") => options.listen.push(parsed(&mut parser, "--listen")?),
            Long("notify") => options.notify = parsed(&mut parser, "--notify")?,
            Long("tick") => options.tick = tick(&text(&mut parser, "--tick")?)?,
            Long("state") => options.state = path(&mut parser, "--state")?,
            Long("cgroup") => options.cgroup = Some(path(&mut parser, "--cgroup")?),
            Long("device-config") => options.device_config = true,
            Long("allow-peer") => options.allow_peers.push(parsed(&mut parser, "--allow-peer")?),
            Long("user") => options.user = Some(text(&mut parser, "--user")?),
            Long("proc-root") => options.proc_root = path(&mut parser, "--proc-root")?,
            Long("sys-root") => options.sys_root = path(&mut parser, "--sys-root")?,
            Long("dev-root") => options.dev_root = path(&mut parser, "--dev-root")?,
            Long("no-seccomp") => options.seccomp = false,
            Long("once") => set(&mut mode, "--once")?,
            Long("version") | Short('V') => return Ok(Command::Version),
            Long("help") | Short('h') => return Ok(Command::Help),
            Value(value) => match value.to_str() {
                Some("doctor") => set(&mut mode, "doctor")?,
                Some("open-sources") => set(&mut mode, "open-sources")?,
                _ => return Err(UsageError::Command(value.to_string_lossy().into_owned())),
            },
            Long(_) | Short(_) => return Err(line(argument.unexpected())),
        }
    }
    Ok(match mode {
        Some("--once") => Command::Once(options),
        Some("doctor") => Command::Doctor(options),
        Some(_) => Command::OpenSources(options),
        None => Command::Serve(options),
    })
}

fn line(error: lexopt::Error) -> UsageError {
    UsageError::Line(error.to_string())
}

fn set(mode: &mut Option<&'static str>, to: &'static str) -> Result<(), UsageError> {
    match mode.replace(to) {
        Some(before) if before != to => Err(UsageError::Both(before, to)),
        _ => Ok(()),
    }
}

fn text(parser: &mut lexopt::Parser, flag: &'static str) -> Result<String, UsageError> {
    let value = parser.value().map_err(line)?;
    match value.into_string() {
        Ok(text) if text.is_empty() => Err(bad(flag, text, "is empty")),
        Ok(text) => Ok(text),
        Err(value) => Err(bad(flag, value.to_string_lossy().into_owned(), "is not UTF-8")),
    }
}

fn parsed<T: std::str::FromStr<Err: ToString>>(
    parser: &mut lexopt::Parser,
    flag: &'static str,
) -> Result<T, UsageError> {
    let value = text(parser, flag)?;
    value.parse().map_err(|error: T::Err| bad(flag, value, &error.to_string()))
}

fn path(parser: &mut lexopt::Parser, flag: &'static str) -> Result<PathBuf, UsageError> {
    let value = parser.value().map_err(line)?;
    if value.is_empty() {
        return Err(bad(flag, String::new(), "is empty"));
    }
    Ok(PathBuf::from(value))
}

fn tick(value: &str) -> Result<Nanos, UsageError> {
    let cause = match duration(value) {
        Some(tick) if (TICK_MIN..=TICK_MAX).contains(&tick) => return Ok(tick),
        Some(_) => "must be from 100ms to 1h",
        None => "is not a time such as 5s, 500ms, 2m or 1h",
    };
    Err(bad("--tick", value.to_owned(), cause))
}

/// A whole number and its unit.
fn duration(text: &str) -> Option<Nanos> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let scale = match unit {
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(scale).map(Nanos)
}

fn bad(flag: &'static str, value: String, cause: &str) -> UsageError {
    UsageError::Value { flag, value, cause: cause.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Result<Command, UsageError> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn every_flag_is_read() {
        let line = "--listen unix:///a --listen vsock://any:7 --notify none --tick 500ms --state /s --cgroup /c \
                    --device-config --allow-peer 1 --allow-peer 3 --user u --no-seccomp --proc-root /p --sys-root /y \
                    --dev-root /v";
        let wanted = Options {
            listen: vec![Address::Unix("/a".into()), Address::Vsock { port: 7 }],
            notify: NotifyAddress::None,
            tick: Nanos(500_000_000),
            state: "/s".into(),
            cgroup: Some("/c".into()),
            device_config: true,
            allow_peers: vec![1, 3],
            user: Some("u".to_owned()),
            seccomp: false,
            proc_root: "/p".into(),
            sys_root: "/y".into(),
            dev_root: "/v".into(),
        };
        assert_eq!(of(line), Ok(Command::Serve(wanted.clone())));
        assert_eq!(of(&format!("doctor {line}")), Ok(Command::Doctor(wanted)));
        assert_eq!(of("--once"), Ok(Command::Once(Options::default())));
        assert_eq!(of("open-sources"), Ok(Command::OpenSources(Options::default())));
        assert_eq!(of(""), Ok(Command::Serve(Options::default())));
        assert_eq!(of("-V"), Ok(Command::Version));
    }

    #[test]
    fn help_names_every_flag() {
        for flag in [
            "--listen",
            "--notify",
            "--tick",
            "--state",
            "--cgroup",
            "--device-config",
            "--allow-peer",
            "--user",
            "--no-seccomp",
            "--proc-root",
            "--sys-root",
            "--dev-root",
            "--once",
            "--version",
            "--help",
            "doctor",
            "open-sources",
        ] {
            assert!(HELP.contains(flag), "{flag}");
        }
    }

    #[test]
    fn errors_name_the_flag_and_the_value() {
        for (line, wanted) in [
            ("--tick 5", "--tick \"5\": is not a time"),
            ("--tick 1ms", "--tick \"1ms\": must be from"),
            ("--tick 99999999999999999999h", "--tick \"99999999999999999999h\": is not a time"),
            ("--tick -5s", "--tick \"-5s\": is not a time"),
            ("--tick", "--tick"),
            ("--listen vsock://3:1", "--listen \"vsock://3:1\": CID \"3\""),
            ("--notify nowhere", "--notify \"nowhere\": must begin with"),
            ("--allow-peer host", "--allow-peer \"host\": invalid digit"),
            ("--frobnicate", "--frobnicate"),
            ("-x", "-x"),
            ("--once=yes", "--once"),
            ("serve", "\"serve\" is not a command"),
            ("--once doctor", "--once and doctor cannot go together"),
        ] {
            let error = of(line).unwrap_err().to_string();
            assert!(error.contains(wanted), "{line}: {error}");
        }
    }
}
