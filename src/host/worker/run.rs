//! From a configuration to a worker that runs, is reloaded, and stops cleanly.

use super::api::{self, Service};
use super::config::{Config, ConfigError, Log, LogFormat};
use super::core::{Commit, Core};
use super::descriptors::Descriptors;
use super::desk::Desk;
use super::directory::Directory;
use super::metrics::Metrics;
use super::parity_job;
use super::poller::Poller;
use super::serve::{ServeError, Sockets};
use super::watching::Watching;
use crate::host::ledger::{Access, Ledger, LedgerError, Limits};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// How long what is under way may take once the worker is to stop.
const STOP_MAX: Duration = Duration::from_secs(8);
/// And how long the last commits may.
const SAVE_MAX: Duration = Duration::from_secs(10);
/// Accounts that are saved at once.
const SAVE_BATCH: usize = 512;
/// How often the clock is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// A ledger that takes longer is down: a call of the platform waits for it.
const LEDGER: Limits = Limits {
    connect: Duration::from_secs(2),
    lock: Duration::from_secs(2),
    statement: Duration::from_secs(5),
    connections: 4,
};

/// Why a worker does not run.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Its configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Its sockets.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// Its drop-in directory.
    #[error("{}: {error}", path.display())]
    Directory {
        /// Where.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// What it logs.
    #[error("log.filter: {0}")]
    Filter(String),
    /// Signals.
    #[error("waiting for signals: {0}")]
    Signals(io::Error),
}

/// What a look at a configuration found.
#[derive(Debug)]
pub struct Checked {
    /// Sandboxes that are described.
    pub sandboxes: usize,
    /// Files that cannot be used, and why.
    pub faults: Vec<(String, String)>,
}

/// Reads the configuration and the descriptors, and nothing else.
///
/// # Errors
/// The configuration cannot be used, or the directory not be read.
pub fn check(path: &Path) -> Result<Checked, WorkerError> {
    let config = Config::read(path)?;
    config.tiers_mib()?;
    filter(&config.log)?;
    let mut descriptors = Descriptors::new(config.sandboxes.clone());
    let read = descriptors.read_all();
    let changes = read.map_err(|error| WorkerError::Directory { path: config.sandboxes, error })?;
    let faults = descriptors.faults().map(|(file, fault)| (file.to_owned(), fault.to_string())).collect();
    Ok(Checked { sandboxes: changes.len(), faults })
}

/// Runs until SIGTERM or SIGINT; SIGHUP has it read its configuration and all descriptors anew.
///
/// # Errors
/// It cannot start. What fails later is logged, counted and tried again.
pub async fn run(path: &Path) -> Result<(), WorkerError> {
    let config = Config::read(path)?;
    let logging = start_logging(&config.log)?;
    let tiers_mib = config.tiers_mib()?;
    let ledger = Ledger::open_with(config.db.clone(), Access::Create, LEDGER).await?;
    let (metrics, mut registry) = Metrics::new();
    let (tasks, desk_tasks) = (TaskTracker::new(), TaskTracker::new());
    let desk = Desk::open(ledger.clone(), metrics.clone(), &desk_tasks);
    let sockets = Sockets::bind(&config.api).await?;
    let directory = config.sandboxes.clone();
    let watching = Watching::start(directory.clone());
    let mut watching = watching.map_err(|error| WorkerError::Directory { path: directory, error })?;
    let mut signals = Signals::new().map_err(WorkerError::Signals)?;

    let poller = Arc::new(Poller::new(config.poll.concurrency));
    let core = Arc::new(Core::new(config, tiers_mib, desk, metrics, Arc::clone(&poller), tasks.clone()));
    core.metrics.show_sandboxes(&mut registry, &core);
    let service = Service { core: Arc::clone(&core), registry: Arc::new(registry) };
    let (router, _) = api::router(service);
    if let Some(address) = sockets.tcp_address() {
        tracing::info!(%address, "serves loopback TCP, to whoever bears the token");
    }
    let mut directory = Directory::new(Arc::clone(&core), Arc::clone(&poller));
    // Before anybody asks: a sandbox that is described is never unknown.
    if let Some(first) = watching.next().await {
        directory.take(first);
    }
    sockets.serve(&router, &tasks, &core.stop);
    let reread = Arc::new(Notify::new());
    tasks.spawn(directory.run(watching, Arc::clone(&reread)));
    poller.run(&core);
    tasks.spawn(parity_job::run(Arc::clone(&core)));
    tasks.spawn(watch_clock(Arc::clone(&core)));
    tell_systemd(sd_notify::NotifyState::Ready);
    tracing::info!(ledger = %ledger.location(), "the worker runs");

    while signals.next().await == Asked::Reload {
        reload_config(path, &core, &logging);
        reread.notify_one();
    }
    tell_systemd(sd_notify::NotifyState::Stopping);
    stop(core, tasks, desk_tasks, ledger).await;
    Ok(())
}

/// Lets what is under way end, saves what only memory holds, and closes the ledger.
async fn stop(core: Arc<Core>, tasks: TaskTracker, desk_tasks: TaskTracker, ledger: Ledger) {
    tracing::info!("the worker stops");
    core.stop.cancel();
    tasks.close();
    if tokio::time::timeout(STOP_MAX, tasks.wait()).await.is_err() {
        tracing::warn!(tasks = tasks.len(), "not everything has ended in time; it will be said again");
    }
    let saving = save(&core);
    if tokio::time::timeout(SAVE_MAX, saving).await.is_err() {
        tracing::warn!("not every account is saved; what is missing, the guests will say again");
    }
    drop(core);
    desk_tasks.close();
    ledger.close().await;
    tracing::info!("the worker has stopped");
}

async fn save(core: &Arc<Core>) {
    for batch in core.fleet.all().chunks(SAVE_BATCH) {
        let mut saving = JoinSet::new();
        for sandbox in batch {
            let (core, sandbox) = (Arc::clone(core), Arc::clone(sandbox));
            saving.spawn(async move {
                let mut state = sandbox.state.lock().await;
                let dirty = state.books.as_ref().is_some_and(super::books::Books::is_dirty);
                if (dirty || state.held.is_some())
                    && let Err(error) = core.write(&sandbox, &mut state, Commit::Now, |_| None).await
                {
                    tracing::debug!(sandbox = sandbox.name, %error, "not saved");
                }
            });
        }
        saving.join_all().await;
    }
}

/// What can change while it runs, changes; what cannot is said.
fn reload_config(path: &Path, core: &Core, logging: &Logging) {
    tell_systemd(sd_notify::NotifyState::Reloading);
    match Config::read(path).and_then(|config| config.tiers_mib().map(|tiers| (config, tiers))) {
        Ok((config, tiers_mib)) => {
            let before = core.config();
            let fixed = [
                ("db", before.db != config.db),
                ("sandboxes", before.sandboxes != config.sandboxes),
                ("api", before.api != config.api),
                ("notify", before.notify != config.notify),
                ("poll.concurrency", before.poll.concurrency != config.poll.concurrency),
                ("log.format", before.log.format != config.log.format),
            ];
            for (setting, _) in fixed.into_iter().filter(|(_, changed)| *changed) {
                tracing::warn!(setting, "changed, which takes a restart");
            }
            match filter(&config.log) {
                Ok(filter) => {
                    let _ = logging.reload(filter);
                }
                Err(error) => tracing::error!(%error, "the log goes on as before"),
            }
            core.reconfigure(config, tiers_mib);
            tracing::info!("the configuration is read anew");
        }
        Err(error) => tracing::error!(%error, "the configuration cannot be used; the one before stays"),
    }
    tell_systemd(sd_notify::NotifyState::Ready);
}

/// Steps of the machine's clock are told; the books do not follow them.
async fn watch_clock(core: Arc<Core>) {
    let mut steps = core.clock.now().step.number;
    loop {
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let now = core.clock.now();
        core.metrics.clock_offset.set(nanos_as_seconds(now.offset_ns));
        if now.step.number != steps {
            core.metrics.clock_steps.inc_by(now.step.number.saturating_sub(steps));
            steps = now.step.number;
            let by_ms = now.step.by_ns / 1_000_000;
            tracing::warn!(by_ms, "this machine's clock has stepped; the books keep their own time");
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "a gauge is a float; the books have none")]
fn nanos_as_seconds(nanos: i64) -> f64 {
    nanos as f64 / 1e9
}

type Logging = reload::Handle<EnvFilter, Registry>;

fn filter(log: &Log) -> Result<EnvFilter, WorkerError> {
    EnvFilter::builder().parse(&log.filter).map_err(|error| WorkerError::Filter(error.to_string()))
}

/// To standard error. A second worker in one process logs where the first one does.
fn start_logging(log: &Log) -> Result<Logging, WorkerError> {
    let (filter, handle) = reload::Layer::new(filter(log)?);
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_target(false);
    let _ = match log.format {
        LogFormat::Text => registry.with(lines.with_ansi(false)).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    Ok(handle)
}

/// Without systemd there is nobody to tell.
fn tell_systemd(state: sd_notify::NotifyState<'_>) {
    let _ = sd_notify::notify(&[state]);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Reload,
    Stop,
}

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.hangup.recv() => Asked::Reload,
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
        }
    }
}
