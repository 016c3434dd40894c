//! The worker's configuration: one TOML file. Every field that is not known is named; nothing is read twice.

use super::span;
use crate::host::ledger::Location;
use crate::host::tiers::{Tiers, TiersError};
use crate::host::toml_text::{self, TomlError};
use serde::{Deserialize, Deserializer, de};
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// A longer file is no configuration.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The ledger: `sqlite:PATH` or `postgres://…`.
    #[serde(deserialize_with = "location")]
    pub db: Location,
    /// The directory with one descriptor for each sandbox.
    pub sandboxes: PathBuf,
    /// The price table, for the memory sizes that have a price; without one, every size has.
    pub tiers: Option<PathBuf>,
    /// The HTTP API.
    #[serde(default)]
    pub api: Api,
    /// How agents are asked.
    #[serde(default)]
    pub poll: Poll,
    /// How VMMs are asked.
    #[serde(default)]
    pub vmm: VmmPoll,
    /// What the five calls may take.
    #[serde(default)]
    pub lifecycle: Lifecycle,
    /// Whether agents are heard.
    #[serde(default)]
    pub notify: Notify,
    /// The hourly comparison of both books.
    #[serde(default)]
    pub parity: Parity,
    /// What `/metrics` shows.
    #[serde(default)]
    pub metrics: Metrics,
    /// What is written to standard error.
    #[serde(default)]
    pub log: Log,
}

/// The HTTP API.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    /// The Unix socket.
    pub socket: PathBuf,
    /// Who may open it: `"0600"` the worker's user, `"0660"` its group too.
    pub mode: SocketMode,
    /// A loopback address to serve too; needs `token_file`.
    pub tcp: Option<SocketAddr>,
    /// The file whose first line is the bearer token.
    pub token_file: Option<PathBuf>,
    /// Connections at once; more wait.
    pub connections: usize,
}

/// The permissions of the API's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum SocketMode {
    /// The worker's own user.
    #[serde(rename = "0600")]
    Owner,
    /// Its group too.
    #[serde(rename = "0660")]
    Group,
}

/// How agents are asked.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Poll {
    /// From one question to the next of the same agent.
    #[serde(deserialize_with = "span::deserialize")]
    pub interval: Duration,
    /// The longest that one agent may take, connecting included.
    #[serde(deserialize_with = "span::deserialize")]
    pub timeout: Duration,
    /// Agents asked at once.
    pub concurrency: usize,
    /// How often the books take what a quiet sandbox has used, so that a crash loses no more evidence than this.
    #[serde(deserialize_with = "span::deserialize")]
    pub save: Duration,
    /// An agent that has not answered for so long is given up: its sandbox is billed by what was requested.
    #[serde(deserialize_with = "span::deserialize")]
    pub lost: Duration,
}

/// How VMMs are asked, where descriptors name them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VmmPoll {
    /// From one question to the next of the same VMM; sooner where it, or its guest, does not answer.
    #[serde(deserialize_with = "span::deserialize")]
    pub interval: Duration,
    /// The longest that one may take.
    #[serde(deserialize_with = "span::deserialize")]
    pub timeout: Duration,
}

/// What the five calls may take.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Lifecycle {
    /// For a `pausing` that names no deadline.
    #[serde(deserialize_with = "span::deserialize")]
    pub deadline: Duration,
    /// What a call may ask for at most.
    #[serde(deserialize_with = "span::deserialize")]
    pub deadline_max: Duration,
}

/// Whether agents are heard.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Notify {
    /// Whether the socket that belongs to each `hvsock` target is listened at.
    pub hybrid: bool,
    /// The AF_VSOCK port for all `vsock` targets.
    pub vsock_port: Option<u32>,
}

/// The hourly comparison of both books.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Parity {
    /// Whether it runs.
    pub enabled: bool,
}

/// What `/metrics` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// A series for each sandbox: as many as there are sandboxes.
    pub per_sandbox: bool,
}

/// What is written to standard error.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// As lines of text or of JSON.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or what tracing's filters can say beyond that.
    pub filter: String,
}

/// One line for each event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For a person.
    Text,
    /// For a program.
    Json,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {fault}", path.display())]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub fault: ConfigFault,
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFault {
    /// The file cannot be read.
    #[error("{0}")]
    Read(#[from] io::Error),
    /// Not a configuration.
    #[error(transparent)]
    Toml(#[from] TomlError),
    /// A file that is far too long.
    #[error("it has more than {FILE_BYTES_MAX} bytes")]
    Size,
    /// The price table.
    #[error("tiers: {0}")]
    Tiers(#[from] TiersError),
    /// A value that cannot be.
    #[error("{field} {why}")]
    Value {
        /// Which.
        field: &'static str,
        /// What it must be.
        why: &'static str,
    },
}

impl Config {
    /// Reads and checks it.
    ///
    /// # Errors
    /// It cannot be read, or says what cannot be done.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let fail = |fault| ConfigError { path: path.to_owned(), fault };
        let text = read_bounded(path, FILE_BYTES_MAX).map_err(ConfigFault::from).map_err(fail)?;
        let text = text.ok_or_else(|| fail(ConfigFault::Size))?;
        text.parse().map_err(fail)
    }

    /// The memory sizes that have a price, in MiB.
    ///
    /// # Errors
    /// The price table cannot be read, or is none.
    pub fn tiers_mib(&self) -> Result<Vec<u64>, ConfigError> {
        let Some(path) = &self.tiers else { return Ok(Vec::new()) };
        let fail = |fault| ConfigError { path: path.clone(), fault };
        let text = read_bounded(path, FILE_BYTES_MAX).map_err(ConfigFault::from).map_err(fail)?;
        let text = text.ok_or_else(|| fail(ConfigFault::Size))?;
        let tiers = Tiers::parse(&text).map_err(ConfigFault::from).map_err(fail)?;
        Ok(tiers.memory_sizes().map(|memory| memory.0).collect())
    }

    fn check(&self) -> Result<(), ConfigFault> {
        let fault = |field, why| Err(ConfigFault::Value { field, why });
        match (self.api.tcp, &self.api.token_file) {
            (Some(address), _) if !address.ip().is_loopback() => {
                return fault("api.tcp", "must be a loopback address: the API is for this machine alone");
            }
            (Some(_), None) => return fault("api.tcp", "needs api.token_file: any local user can reach it"),
            _ => {}
        }
        if self.api.connections == 0 || self.poll.concurrency == 0 {
            return fault("api.connections and poll.concurrency", "must be at least 1");
        }
        if self.poll.concurrency > 4096 {
            return fault("poll.concurrency", "must be at most 4096");
        }
        if self.poll.timeout > self.poll.interval {
            return fault("poll.timeout", "must be at most poll.interval");
        }
        if self.poll.lost < self.poll.interval {
            return fault("poll.lost", "must be at least poll.interval");
        }
        if self.lifecycle.deadline > self.lifecycle.deadline_max {
            return fault("lifecycle.deadline", "must be at most lifecycle.deadline_max");
        }
        Ok(())
    }
}

impl FromStr for Config {
    type Err = ConfigFault;

    fn from_str(text: &str) -> Result<Self, ConfigFault> {
        let config: Self = toml_text::read(text)?;
        config.check()?;
        Ok(config)
    }
}

/// The error does not quote it: it may hold a password.
fn location<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Location, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

/// The text of a file, or `None` where it is longer than `most`.
pub(super) fn read_bounded(path: &Path, most: u64) -> io::Result<Option<String>> {
    let mut text = String::new();
    let count = File::open(path)?.take(most.saturating_add(1)).read_to_string(&mut text)?;
    Ok(u64::try_from(count).is_ok_and(|count| count <= most).then_some(text))
}

impl Default for Api {
    fn default() -> Self {
        Self {
            socket: PathBuf::from("/run/guestmeter-worker/api.sock"),
            mode: SocketMode::Owner,
            tcp: None,
            token_file: None,
            connections: 64,
        }
    }
}

impl Default for Poll {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            concurrency: 64,
            save: Duration::from_secs(60),
            lost: Duration::from_secs(30),
        }
    }
}

impl Default for VmmPoll {
    fn default() -> Self {
        Self { interval: Duration::from_secs(60), timeout: Duration::from_secs(2) }
    }
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(2), deadline_max: Duration::from_secs(60) }
    }
}

impl Default for Notify {
    fn default() -> Self {
        Self { hybrid: true, vsock_port: None }
    }
}

impl Default for Parity {
    fn default() -> Self {
        Self { enabled: true }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info".to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "db = 'sqlite:/tmp/ledger.db'\nsandboxes = '/etc/guestmeter/sandboxes.d'\n";

    fn fault(more: &str) -> String {
        format!("{LEAST}{more}").parse::<Config>().expect_err(more).to_string()
    }

    #[test]
    fn two_lines_are_enough() {
        let config = LEAST.parse::<Config>().unwrap();
        assert_eq!(config.poll.interval, Duration::from_secs(5));
        assert_eq!(config.api.mode, SocketMode::Owner);
        assert!(!config.metrics.per_sandbox);
    }

    #[test]
    fn what_is_not_known_or_cannot_be_is_named() {
        for (more, said) in [
            ("[poll]\nintervall = '5s'", "unknown field `intervall`"),
            ("[poll]\ninterval = 5", "invalid type: integer `5`"),
            ("[poll]\ninterval = 'soon'", "not a span of time"),
            ("[poll]\ninterval = '1s'\ntimeout = '2s'", "poll.timeout must be at most poll.interval"),
            ("[poll]\nconcurrency = 0", "must be at least 1"),
            ("[poll]\nlost = '1s'", "poll.lost must be at least"),
            ("[api]\nmode = '0666'", "unknown variant `0666`, expected `0600` or `0660`"),
            ("[api]\ntcp = '0.0.0.0:80'\ntoken_file = '/t'", "must be a loopback address"),
            ("[api]\ntcp = '127.0.0.1:80'", "needs api.token_file"),
            ("[lifecycle]\ndeadline = '2m'", "lifecycle.deadline must be at most"),
            ("db = 'sqlite:b'", "duplicate key"),
        ] {
            let fault = fault(more);
            assert!(fault.contains(said), "{more}: {fault}");
        }
        let nothing = "".parse::<Config>().unwrap_err().to_string();
        assert!(nothing.contains("missing field `db`"), "{nothing}");
    }

    #[test]
    fn a_fault_says_where_it_is() {
        let fault = fault("[poll]\ninterval = 'soon'");
        assert!(fault.contains("line 4, column 12"), "{fault}");
    }

    #[test]
    fn a_fault_does_not_tell_the_password() {
        for db in ["postgres://u:secret@[x", "mysql://u:secret@host/d"] {
            let fault = format!("db = '{db}'\nsandboxes = '/s'").parse::<Config>().unwrap_err().to_string();
            assert!(fault.contains("line 1") && !fault.contains("secret"), "{fault}");
        }
    }
}
