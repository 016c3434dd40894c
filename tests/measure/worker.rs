//! A worker that holds a fleet: `worker AGENTS SECONDS`. The agents are the real session behind Unix sockets, all in this
//! process; the worker is the real one, in its own. `tests/measure/worker` runs it.

use guestmeter::capacity::{Capacity, Cpu, Memory, MemoryState, Precision};
use guestmeter::session::{Action, ConnectionId, Depth, Event, Limits, Myself, Session, Signals};
use guestmeter::units::{Bytes, MilliCpu, Nanos};
use guestmeter::wire::message::{Agent, Clock, Id, Message, Reply};
use guestmeter::wire::{self, Decoder};
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

const P99_MAX: f64 = 0.050;
const MEMORY_MAX_KIB: u64 = 64 * 1024;
/// Calls at once while the fleet starts.
const STARTERS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(120);

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let agents = numbers.first().and_then(|count| usize::try_from(*count).ok()).unwrap_or(5000);
    let seconds = numbers.get(1).copied().unwrap_or(60);
    match measure(agents, Duration::from_secs(seconds)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("measure-worker: {error}");
            ExitCode::from(70)
        }
    }
}

fn measure(agents: usize, span: Duration) -> Result<bool, Failure> {
    let folder = tempfile::tempdir()?;
    rustix::process::setrlimit(
        rustix::process::Resource::Nofile,
        rustix::process::Rlimit {
            current: Some(u64::try_from(agents)? * 2 + 1024),
            maximum: rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum,
        },
    )?;
    describe(folder.path(), agents)?;
    let path = folder.path().to_owned();
    std::thread::spawn(move || serve_all(&path, agents));
    let worker = Worker::start(folder.path())?;
    start_all(&worker.socket, agents)?;
    // A whole round after the last call: what the calls left behind is done.
    std::thread::sleep(Duration::from_secs(11));
    let (before, cpu_before, began) = (worker.look()?, worker.cpu()?, Instant::now());
    std::thread::sleep(span);
    let (after, cpu_after, took) = (worker.look()?, worker.cpu()?, began.elapsed());
    Ok(report(agents, &worker, &before, &after, (cpu_after - cpu_before) / took.as_secs_f64(), took)?)
}

fn report(
    agents: usize,
    worker: &Worker,
    before: &Metrics,
    after: &Metrics,
    load: f64,
    took: Duration,
) -> Result<bool, Failure> {
    let polls = after.polls - before.polls;
    let expected = agents as f64 * took.as_secs_f64() / 5.0;
    let (p50, p99) = (quantile(before, after, 0.50), quantile(before, after, 0.99));
    let missed = after.missed - before.missed;
    let unanswered = after.failed - before.failed;
    let (resident, peak) = (worker.status("VmRSS")?, worker.status("VmHWM")?);
    let line = |name: &str, value: f64, at_most: f64, good: bool| {
        let verdict = if good { "ok" } else { "FAILED" };
        println!("count {name:<34} {value:>10.0}  (at most {at_most}) {verdict}");
        good
    };
    println!("count {:<34} {agents:>10}", "agents");
    println!("count {:<34} {polls:>10}  in {:.0} s", "polls", took.as_secs_f64());
    println!("count {:<34} {:>10.0}", "µs of half of the polls, at most", p50 * 1e6);
    let mut good = line("µs of 99 in 100 polls, at most", p99 * 1e6, P99_MAX * 1e6, p99 < P99_MAX);
    good &= line("missed polls", missed as f64, 0.0, missed == 0);
    good &= line("unanswered polls", unanswered as f64, 0.0, unanswered == 0);
    good &= line("KiB resident", resident as f64, MEMORY_MAX_KIB as f64, resident <= MEMORY_MAX_KIB);
    good &= line("KiB resident at most", peak as f64, MEMORY_MAX_KIB as f64, peak <= MEMORY_MAX_KIB);
    println!("ratio {:<34} {:>10.3}  (1 is each agent once in 5 s)", "polls", polls as f64 / expected);
    println!("ratio {:<34} {load:>10.3}  (1 is one core)", "CPU of the worker");
    Ok(good && (0.98..1.02).contains(&(polls as f64 / expected)))
}

/// The upper end of the bucket that the quantile falls into.
fn quantile(before: &Metrics, after: &Metrics, part: f64) -> f64 {
    let total = (after.polls - before.polls) as f64;
    let within = |index: usize| (after.buckets[index].1 - before.buckets[index].1) as f64 >= total * part;
    (0..after.buckets.len())
        .find(|index| within(*index))
        .map_or(f64::INFINITY, |index| after.buckets[index].0)
}

fn describe(folder: &Path, agents: usize) -> io::Result<()> {
    let sandboxes = folder.join("sandboxes");
    std::fs::create_dir(&sandboxes)?;
    for number in 0..agents {
        let text = format!(
            "sandbox = 'sb-{number}'\norg = 'org-{}'\nplan = 'pro'\ntarget = 'unix://{}'\nbase_memory_mib = 1024\n",
            number % 50,
            folder.join(format!("{number}.sock")).display()
        );
        std::fs::write(sandboxes.join(format!("{number}.toml")), text)?;
    }
    let text = format!(
        "db = 'sqlite:{0}/ledger.db'\nsandboxes = '{0}/sandboxes'\n[api]\nsocket = '{0}/api.sock'\n",
        folder.display()
    );
    std::fs::write(folder.join("worker.toml"), text)
}

/// The worker, ended with this.
struct Worker {
    child: Child,
    socket: PathBuf,
}

impl Worker {
    fn start(folder: &Path) -> Result<Self, Failure> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_guestmeter"));
        command.args(["worker", "--config"]).arg(folder.join("worker.toml")).env_remove("NOTIFY_SOCKET");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let worker = Self { child, socket: folder.join("api.sock") };
        let since = Instant::now();
        while http(&worker.socket, "GET", "/healthz", "").is_err() {
            if since.elapsed() > PATIENCE {
                return Err("the worker does not answer".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(worker)
    }

    fn look(&self) -> Result<Metrics, Failure> {
        Ok(Metrics::read(&http(&self.socket, "GET", "/metrics", "")?))
    }

    /// A line of its status, in KiB.
    fn status(&self, name: &str) -> Result<u64, Failure> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Ok(line.and_then(|line| line.split_whitespace().next()).ok_or("no such line")?.parse()?)
    }

    /// Seconds that it has worked.
    fn cpu(&self) -> Result<f64, Failure> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks =
            |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
        Ok((ticks(11) + ticks(12)) / rustix::param::clock_ticks_per_second() as f64)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Default)]
struct Metrics {
    polls: u64,
    missed: u64,
    failed: u64,
    /// Upper ends in seconds, and how many polls took at most so long.
    buckets: Vec<(f64, u64)>,
}

impl Metrics {
    fn read(text: &str) -> Self {
        let mut metrics = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let value = value.parse().unwrap_or(0);
            if let Some(rest) = series.strip_prefix("guestmeter_poll_seconds_bucket{le=\"") {
                let end = rest.trim_end_matches("\"}").parse().unwrap_or(f64::INFINITY);
                metrics.buckets.push((end, value));
            }
            match series {
                "guestmeter_poll_seconds_count" => metrics.polls = value,
                "guestmeter_polls_missed_total" => metrics.missed = value,
                "guestmeter_polls_total{name=\"answered\"}" => {}
                other if other.starts_with("guestmeter_polls_total") => metrics.failed += value,
                _ => {}
            }
        }
        metrics
    }
}

/// Tells the worker that all of them run, as a platform does.
fn start_all(socket: &Path, agents: usize) -> Result<(), Failure> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<(), Failure> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= agents {
                return Ok(());
            }
            let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos();
            let body = format!(
                "{{\"event_id\":\"start-{number}\",\"at\":{at},\"epoch\":null,\"memory_mib\":4096,\"cpu_millis\":1000}}"
            );
            let answer = http(socket, "POST", &format!("/v1/sandboxes/sb-{number}/started"), &body)?;
            if !answer.contains("\"confirmed\"") {
                return Err(answer.into());
            }
        }
    };
    std::thread::scope(|scope| {
        let starters: Vec<_> = (0..STARTERS).map(|_| scope.spawn(work)).collect();
        starters.into_iter().try_for_each(|starter| starter.join().map_err(|_| "a starter died")?)
    })
}

/// The body of an answer of 200.
fn http(socket: &Path, method: &str, path: &str, body: &str) -> Result<String, Failure> {
    let mut stream = std::os::unix::net::UnixStream::connect(socket)?;
    let mut request = String::new();
    write!(request, "{method} {path} HTTP/1.1\r\nhost: worker\r\nconnection: close\r\n")?;
    write!(request, "content-length: {}\r\n\r\n{body}", body.len())?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        _ => Err(answer.into()),
    }
}

/// All agents, on one thread, until the process ends.
fn serve_all(folder: &Path, agents: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for number in 0..agents {
            let listener = UnixListener::bind(folder.join(format!("{number}.sock"))).unwrap();
            tokio::spawn(Guest::new(number).serve(listener));
        }
        std::future::pending::<()>().await;
    });
}

/// One agent: the real session, and a kernel that never changes.
struct Guest {
    session: Session,
    capacity: Capacity,
    connections: u64,
}

impl Guest {
    fn new(number: usize) -> Self {
        let mut boot_id = [0; 16];
        boot_id[..8].copy_from_slice(&(number as u64 + 1).to_le_bytes());
        let text = || "0".to_owned();
        let agent = Agent { version: text(), git: text(), protocol: 1, capabilities: Vec::new() };
        let limits = Limits { notify: false, ..Limits::default() };
        let session = Session::new(Myself { agent, boot_id: Id(boot_id) }, Nanos::from_secs(5), limits, None);
        let mut guest = Self { session, capacity: capacity(), connections: 0 };
        guest.wake(None);
        guest
    }

    /// One connection after the other: the worker opens no two.
    async fn serve(mut self, listener: UnixListener) {
        loop {
            let pause = Duration::from_nanos(self.session.deadline().0.saturating_sub(clock().monotonic.0));
            tokio::select! {
                accepted = listener.accept() => {
                    let Ok((stream, _)) = accepted else { return };
                    self.connections += 1;
                    let id = ConnectionId(self.connections);
                    let ended = self.converse(stream, id).await;
                    self.wake(Some(Event::Closed { connection: id, reset: ended.is_err() }));
                }
                () = tokio::time::sleep(pause.max(Duration::from_millis(1))) => {
                    self.wake(None);
                }
            }
        }
    }

    async fn converse(&mut self, mut stream: UnixStream, id: ConnectionId) -> io::Result<()> {
        let mut out = self.wake(Some(Event::Connected(id)));
        let (mut decoder, mut buffer) = (Decoder::new(), [0; 4096]);
        loop {
            stream.write_all(&std::mem::take(&mut out)).await?;
            match stream.read(&mut buffer).await? {
                0 => return Ok(()),
                count => decoder.push(&buffer[..count]),
            }
            while let Ok(Some(frame)) = decoder.next() {
                if let Ok(Message::Request(request)) = wire::decode(&frame) {
                    out.extend(self.wake(Some(Event::Request { from: id, request })));
                }
            }
        }
    }

    /// One wake-up of the edge; the bytes to be sent.
    fn wake(&mut self, event: Option<Event>) -> Vec<u8> {
        let now = clock();
        let mut out = Vec::new();
        let mut look = self.act(now, Event::Signals(Signals::default()), &mut out);
        for event in event.into_iter().chain([Event::Timer]) {
            look = look.max(self.act(now, event, &mut out));
        }
        for _ in 0..3 {
            let Some(depth) = look else { break };
            let capacity = self.capacity.clone();
            look = self.act(now, Event::Observed { capacity, depth }, &mut out);
        }
        out
    }

    /// The deepest look that is asked for.
    fn act(&mut self, now: Clock, event: Event, out: &mut Vec<u8>) -> Option<Depth> {
        let mut look = None;
        for action in self.session.step(now, event) {
            match action {
                Action::Look(depth) => look = look.max(Some(depth)),
                Action::Send { reply, .. } => send(reply, out),
                _ => {}
            }
        }
        look
    }
}

fn send(reply: Reply, out: &mut Vec<u8>) {
    wire::encode(&Message::Reply(reply), out).unwrap();
}

fn clock() -> Clock {
    let read = |id| {
        let time = rustix::time::clock_gettime(id);
        Nanos(time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned())
    };
    Clock {
        monotonic: read(rustix::time::ClockId::Monotonic),
        boottime: read(rustix::time::ClockId::Boottime),
        realtime_unix: read(rustix::time::ClockId::Realtime),
    }
}

/// 1 GiB at boot and 3 GiB plugged.
fn capacity() -> Capacity {
    let plugged = Some(Bytes::mib(3072));
    Capacity {
        memory: Memory {
            boot: Some(Bytes::mib(1024)),
            requested: plugged,
            plugged,
            added: plugged,
            online: plugged,
            offline: Some(Bytes::ZERO),
            ballooned: None,
            mem_total: Some(Bytes::mib(3900)),
            state: MemoryState::Settled,
            precision: Precision::Exact,
            lower: plugged,
            upper: plugged,
            sources: Vec::new(),
        },
        cpu: Cpu {
            online: Some(1),
            quota: None,
            weight: None,
            shares: None,
            effective: MilliCpu(1000),
            usage: None,
            steal: None,
            throttled: None,
        },
    }
}
