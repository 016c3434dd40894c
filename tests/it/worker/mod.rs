//! The real worker, as a child process with real agents on Unix sockets and a real ledger.

mod api;
mod descriptors;
mod faults;
mod guests;
mod kill;
mod life;
mod long_ago;
mod monitoring;
mod python;
mod running;
mod trouble;
mod unit;

use guestmeter::host::ledger::{Access, Ledger, Limits, SampleRow, ScaleEvent, Verdict};
use guestmeter::units::Nanos;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;

/// Who waits longer waits for what hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Below the share of [`FAST`]'s deadline that a guest has, and far above what a busy machine makes of a second.
const SOON: Duration = Duration::from_secs(20);
const LATER: Nanos = Nanos(4_000_000_000_000_000_000);

/// A child that does not outlive its test, even a failing one.
struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    fn wait(&mut self) -> std::process::ExitStatus {
        let mut ended = None;
        until("the process ends", || {
            ended = self.0.try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for it.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The machine's clock.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_nanos()).unwrap()
}

/// An id for a call that no other call has.
fn event() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("event-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A worker with its directory: configuration, descriptors, ledger, sockets, logs.
struct Worker {
    folder: TempDir,
    process: Option<Process>,
    db: String,
    /// For how long each sandbox's calls were under way, in ns.
    under_way: Mutex<BTreeMap<String, u64>>,
}

/// Polls twice a second, and waits for a guest as long as a busy machine may take.
const FAST: &str = "[poll]\ninterval = '500ms'\ntimeout = '400ms'\nlost = '2s'\nsave = '1s'\n\
                    [lifecycle]\ndeadline = '30s'\n";

impl Worker {
    /// Runs with these settings beyond its paths.
    fn start(settings: &str) -> Self {
        let mut worker = Self::prepare(settings);
        worker.run();
        worker
    }

    fn prepare(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let db = format!("sqlite:{}", folder.path().join("ledger.db").display());
        Self::prepare_in(folder, db, settings)
    }

    fn prepare_in(folder: TempDir, db: String, settings: &str) -> Self {
        std::fs::create_dir(folder.path().join("sandboxes")).unwrap();
        let worker = Self { folder, process: None, db, under_way: Mutex::default() };
        worker.configure(settings);
        worker
    }

    fn configure(&self, settings: &str) {
        let api = if settings.contains("[api]") { "" } else { "[api]\n" };
        let text = format!(
            "db = '{}'\nsandboxes = '{}'\n{settings}\n{api}",
            self.db,
            self.path("sandboxes").display()
        );
        let socket = format!("[api]\nsocket = '{}'\n", self.path("api.sock").display());
        std::fs::write(self.path("worker.toml"), text.replace("[api]\n", &socket)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_guestmeter"));
        command.args(["worker", "--config"]).arg(self.path("worker.toml"));
        command.env_remove("NOTIFY_SOCKET").stdin(Stdio::null()).stdout(Stdio::null());
        let log = std::fs::File::options().create(true).append(true).open(self.path("worker.log")).unwrap();
        command.stderr(log);
        command
    }

    /// Starts it, and waits until it answers.
    fn run(&mut self) {
        assert!(self.process.is_none());
        self.process = Some(Process::start(&mut self.command()));
        let since = Instant::now();
        while self.try_get("/healthz").is_none() {
            if let Some(status) = self.process.as_mut().unwrap().0.try_wait().unwrap() {
                panic!("the worker ended, {status}:\n{}", self.log());
            }
            assert!(since.elapsed() < PATIENCE, "the worker does not answer:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn kill(&mut self) {
        self.process.take().unwrap().kill();
    }

    /// Stops it cleanly.
    fn stop(&mut self) {
        let mut process = self.process.take().unwrap();
        process.signal("-TERM");
        let status = process.wait();
        assert!(status.success(), "{status}:\n{}", self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("worker.log")).unwrap_or_default()
    }

    /// Describes a sandbox, by write and rename.
    fn describe(&self, sandbox: &str, more: &str) {
        let text = format!("sandbox = '{sandbox}'\norg = 'acme'\nbase_memory_mib = 1024\n{more}\n");
        let path = self.path("sandboxes").join(format!("{sandbox}.toml"));
        std::fs::write(path.with_extension("new"), text).unwrap();
        std::fs::rename(path.with_extension("new"), path).unwrap();
    }

    /// Describes it, and waits until it is known.
    fn add(&self, sandbox: &str, more: &str) {
        self.describe(sandbox, more);
        until("the sandbox is known", || self.get(&format!("/v1/sandboxes/{sandbox}")).0 == 200);
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.try_get(path).unwrap_or_else(|| panic!("the worker does not answer:\n{}", self.log()))
    }

    fn try_get(&self, path: &str) -> Option<(u16, String)> {
        http(&self.path("api.sock"), "GET", path, "").ok()
    }

    fn post(&self, path: &str, body: &str) -> (u16, String) {
        let answer = http(&self.path("api.sock"), "POST", path, body);
        answer.unwrap_or_else(|error| panic!("{path}: {error}\n{}", self.log()))
    }

    /// A call that is made once; its status and answer.
    fn try_call(&self, sandbox: &str, call: &str, body: &Value) -> (u16, Value) {
        let (status, text) = self.post(&format!("/v1/sandboxes/{sandbox}/{call}"), &body.to_string());
        (status, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}")))
    }

    /// A call that succeeds.
    fn call(&self, sandbox: &str, call: &str, more: Value) -> Value {
        let epoch = self.epoch(sandbox);
        let began = Instant::now();
        let mut body = json!({ "event_id": event(), "at": now(), "epoch": epoch });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        // A ledger that a busy machine keeps waiting says so, and that the call may be made again.
        while began.elapsed() < PATIENCE {
            let (status, answer) = self.try_call(sandbox, call, &body);
            if (status, &answer["error"]) != (503, &json!("ledger")) {
                assert_eq!(status, 200, "{call}: {answer}\n{}", self.log());
                self.was_under_way(sandbox, began);
                return answer;
            }
        }
        panic!("{call}: the ledger takes nothing\n{}", self.log());
    }

    /// Something of the sandbox was under way until now.
    fn was_under_way(&self, sandbox: &str, since: Instant) {
        let passed = u64::try_from(since.elapsed().as_nanos()).unwrap();
        *self.under_way.lock().unwrap().entry(sandbox.to_owned()).or_default() += passed;
    }

    /// Of a row, what no sample need be of: what a guest did while it was asked is not told by its answer.
    fn uncounted_most(&self, sandbox: &str) -> u64 {
        1_000_000_000 + self.under_way.lock().unwrap().get(sandbox).copied().unwrap_or_default()
    }

    /// Waits for an answer to a poll that begins now, for a call behind it that asks the guest nothing.
    fn until_heard(&self, sandbox: &str) {
        let began = Instant::now();
        let seq = || self.view(sandbox)["report"]["seq"].as_u64();
        let before = seq();
        until("the guest is heard", || seq() != before);
        self.was_under_way(sandbox, began);
    }

    fn view(&self, sandbox: &str) -> Value {
        let (status, text) = self.get(&format!("/v1/sandboxes/{sandbox}"));
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// The epoch it is in; null where it has none.
    fn epoch(&self, sandbox: &str) -> Value {
        self.view(sandbox)["epoch"]["id"].clone()
    }

    fn until_agent(&self, sandbox: &str, state: &str) {
        let since = Instant::now();
        loop {
            let view = self.view(sandbox);
            if view["agent"] == state {
                return;
            }
            assert!(since.elapsed() < PATIENCE, "{sandbox} is not {state}: {view}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The value of a metric's line, all before the space; 0 where there is none.
    fn metric(&self, series: &str) -> f64 {
        let (status, text) = self.get("/metrics");
        assert_eq!(status, 200);
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Asks its ledger.
    fn books<T>(&self, ask: impl AsyncFnOnce(Ledger) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let location = self.db.parse().unwrap();
            let ledger = Ledger::open_with(location, Access::Read, Limits::default()).await.unwrap();
            ask(ledger).await
        })
    }

    /// Rows of the cell's book, those of no length left out.
    fn rows(&self, sandbox: &str) -> Vec<ScaleEvent> {
        let rows = self.books(async |ledger| ledger.scale_events(sandbox, Nanos(0), LATER).await.unwrap());
        rows.into_iter().filter(|row| row.ended_at != Some(row.started_at)).collect()
    }

    fn samples(&self, sandbox: &str) -> Vec<SampleRow> {
        let rows = self.books(async |ledger| ledger.samples(sandbox, Nanos(0), LATER).await.unwrap());
        rows.into_iter().filter(|row| row.ended_at != row.started_at).collect()
    }

    fn verdicts(&self, sandbox: &str) -> Vec<Verdict> {
        self.books(async |ledger| ledger.verdicts(sandbox, Nanos(0), LATER).await.unwrap())
    }
}

/// One request on a connection of its own: status and body.
fn http(socket: &Path, method: &str, path: &str, body: &str) -> std::io::Result<(u16, String)> {
    let mut stream = UnixStream::connect(socket)?;
    exchange(&mut stream, method, path, "", body)
}

fn exchange(
    stream: &mut (impl Read + Write),
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> std::io::Result<(u16, String)> {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: worker\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let broken = || std::io::Error::new(std::io::ErrorKind::UnexpectedEof, answer.clone());
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(broken)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(broken)?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Ok((status, if chunked { unchunked(body) } else { body.to_owned() }))
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        whole.push_str(&rest[..size]);
        body = rest[size..].strip_prefix("\r\n").unwrap_or_default();
    }
    whole
}

/// A real agent in a directory of its own.
struct Guest {
    folder: TempDir,
    process: Process,
    tick: &'static str,
}

impl Guest {
    /// Nothing is dropped of one that stands still, or is dead, for less than two ticks.
    fn start() -> Self {
        Self::ticking("5s")
    }

    fn ticking(tick: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let process = Self::process(folder.path(), tick);
        Self { folder, process, tick }
    }

    fn process(folder: &Path, tick: &str) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_guestmeterd"));
        let socket = |name| format!("unix://{}", folder.join(name).display());
        command.args(["--listen", &socket("agent.sock"), "--notify", &socket("notify.sock")]);
        command.args(["--tick", tick, "--state"]).arg(folder.join("state"));
        command.env_remove("NOTIFY_SOCKET").stdin(Stdio::null()).stdout(Stdio::null());
        let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
        command.stderr(log);
        Process::start(&mut command)
    }

    /// Dies at once, and what it has saved goes.
    fn lose_state(&mut self) {
        self.process.kill();
        std::fs::remove_file(self.folder.path().join("state")).unwrap();
    }

    /// Comes back; it is dead already.
    fn restart_in_place(&mut self) {
        self.process = Self::process(self.folder.path(), self.tick);
    }

    /// The lines of a descriptor that say where it is.
    fn target(&self) -> String {
        let socket = |name: &str| format!("unix://{}", self.folder.path().join(name).display());
        format!("target = '{}'\nnotify = '{}'", socket("agent.sock"), socket("notify.sock"))
    }
}

/// What rows come to, in ns, with `now` for those that are open.
fn length(rows: &[ScaleEvent], now: u64) -> u64 {
    rows.iter().map(|row| row.ended_at.map_or(now, |end| end.0) - row.started_at.0).sum()
}
