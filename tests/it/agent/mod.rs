//! The real `guestmeterd`, as a child process on a Unix socket in a directory of its own.

mod command_line;
mod faults;
mod hostile;
mod kill;
mod notifying;
mod pausing;
mod restart;
mod resuming;
mod serving;
mod unheard;
mod units;

use guestmeter::units::{Bytes, Nanos};
use guestmeter::wire::message::{
    Hello, Id, Message, Notify, Refusal, RefusalCode, Reply, Report, Request, Resume, Welcome,
};
use guestmeter::wire::{self, Decoder};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Who waits longer waits for what hangs; a healthy answer takes milliseconds, on a busy machine seconds.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn program() -> &'static str {
    env!("CARGO_BIN_EXE_guestmeterd")
}

/// Runs it to its end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    Command::new(program()).args(arguments).output().unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// An agent that serves; killed with its test.
pub(crate) struct Agent {
    folder: TempDir,
    process: Process,
}

impl Agent {
    pub(crate) fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), &[])
    }

    pub(crate) fn start_in(folder: TempDir, extra: &[&str]) -> Self {
        let command = Self::command(folder.path(), extra);
        Self::spawned(folder, command)
    }

    /// Starts it by a command of the test's own.
    pub(crate) fn spawned(folder: TempDir, mut command: Command) -> Self {
        let agent = Self { folder, process: Process::start(&mut command) };
        drop(agent.connect());
        agent
    }

    pub(crate) fn command(folder: &Path, extra: &[&str]) -> Command {
        Self::command_by(Command::new(program()), folder, extra)
    }

    /// By a command that takes its arguments.
    pub(crate) fn command_by(mut command: Command, folder: &Path, extra: &[&str]) -> Command {
        let listen = format!("unix://{}", folder.join("agent.sock").display());
        let state = folder.join("state");
        command.args(["--listen", &listen, "--notify", "none", "--state"]).arg(state).args(extra);
        command.env_remove("NOTIFY_SOCKET").stdin(Stdio::null()).stdout(Stdio::null());
        let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
        command.stderr(log);
        command
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Waits for the socket.
    pub(crate) fn connect(&self) -> Client {
        let since = Instant::now();
        loop {
            match UnixStream::connect(self.socket()) {
                Ok(stream) => return Client::new(stream),
                Err(error) if since.elapsed() > PATIENCE => panic!("no agent: {error}\n{}", self.log()),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Connected and welcomed.
    pub(crate) fn greet(&self) -> Client {
        let mut client = self.connect();
        client.hello();
        client
    }

    /// Connected and welcomed, once who hung up before has made room.
    pub(crate) fn greet_when_there_is_room(&self) -> Client {
        let mut greeted = None;
        until("there is room", || {
            let mut client = self.connect();
            // One that is turned away may be hung up on before it has said anything.
            let _ = client.stream.write_all(&frame(hello(1, 1)));
            match client.receive() {
                Some(Reply::Welcome(_)) => greeted = Some(client),
                Some(Reply::Error(refusal)) => assert_eq!(refusal.code, RefusalCode::Busy),
                None => {}
                other => panic!("no Welcome but {other:?}"),
            }
            greeted.is_some()
        });
        greeted.unwrap()
    }

    /// What is logged behind an answer may come after it.
    pub(crate) fn until_logged(&self, text: &str) {
        let since = Instant::now();
        while !self.log().contains(text) {
            assert!(since.elapsed() < PATIENCE, "{text:?} is not in\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a signal and waits for the end.
    pub(crate) fn signal(mut self, signal: &str) -> (std::process::ExitStatus, TempDir) {
        let sent = Command::new("kill").args([signal, &self.pid().to_string()]).status().unwrap();
        assert!(sent.success());
        let status = self.process.wait();
        (status, self.folder)
    }
}

/// A child that does not outlive its test, even a failing one.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    pub(crate) fn wait(&mut self) -> std::process::ExitStatus {
        wait(&mut self.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait(child: &mut Child) -> std::process::ExitStatus {
    let since = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(since.elapsed() < PATIENCE, "the process does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A host's end of a connection, in the smallest form.
pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    decoder: Decoder,
}

impl Client {
    pub(crate) fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream, decoder: Decoder::new() }
    }

    pub(crate) fn send(&mut self, request: Request) {
        self.stream.write_all(&frame(request)).unwrap();
    }

    /// The next reply, or `None` once the agent has closed.
    pub(crate) fn receive(&mut self) -> Option<Reply> {
        loop {
            if let Some(frame) = self.decoder.next().unwrap() {
                match wire::decode(&frame).unwrap() {
                    Message::Reply(reply) => return Some(reply),
                    Message::Request(request) => panic!("an agent sent {request:?}"),
                }
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(length) => self.decoder.push(&bytes[..length]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                // A machine that is paused and goes on interrupts who waits with a time limit.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("no reply: {error}"),
            }
        }
    }

    pub(crate) fn hello(&mut self) -> Welcome {
        self.send(hello(1, 1));
        match self.receive() {
            Some(Reply::Welcome(welcome)) => welcome,
            other => panic!("no Welcome but {other:?}"),
        }
    }

    pub(crate) fn report(&mut self) -> Report {
        match self.receive() {
            Some(Reply::Report(report)) => *report,
            other => panic!("no Report but {other:?}"),
        }
    }

    /// What the agent says on the connection that it opened.
    pub(crate) fn notified(&mut self) -> Notify {
        match self.receive() {
            Some(Reply::Notify(notify)) => *notify,
            other => panic!("no Notify but {other:?}"),
        }
    }

    /// The answer to a `Resume`.
    pub(crate) fn resume(&mut self, resume: Resume) -> Report {
        self.send(Request::Resume(resume));
        self.report()
    }

    pub(crate) fn read(&mut self) -> Report {
        self.send(Request::Read);
        self.report()
    }

    /// The error in the place of a reading.
    pub(crate) fn refused(&mut self) -> Refusal {
        self.send(Request::Read);
        match self.receive() {
            Some(Reply::Error(refusal)) => refusal,
            other => panic!("no Error but {other:?}"),
        }
    }
}

/// The host's naming of an epoch.
pub(crate) fn named(number: u8, paused: bool, requested: Option<Bytes>) -> Resume {
    let (epoch, sandbox) = (Id([number; 16]), "sandbox".to_owned());
    Resume {
        epoch,
        number: number.into(),
        paused,
        sandbox,
        at: Nanos::ZERO,
        mark: None,
        requested,
        boot: None,
    }
}

/// A host that agents notify.
pub(crate) struct Host {
    listener: UnixListener,
}

impl Host {
    pub(crate) fn bind(path: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { listener }
    }

    /// The next connection of an agent, if one comes within `time`.
    pub(crate) fn accept_within(&self, time: Duration) -> Option<Client> {
        let since = Instant::now();
        while since.elapsed() < time {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).unwrap();
                    return Some(Client::new(stream));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }

    pub(crate) fn accept(&self) -> Client {
        self.accept_within(PATIENCE).expect("an agent dials")
    }
}

/// Waits for it.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The clock that an agent counts by.
pub(crate) fn monotonic() -> Nanos {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Nanos(u64::try_from(now.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap())
}

/// Clock ticks (a hundredth of a second each) that the process has run.
pub(crate) fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

pub(crate) fn hello(version_min: u16, version_max: u16) -> Request {
    Request::Hello(Hello { version_min, version_max, nonce: 4711 })
}

pub(crate) fn frame(request: Request) -> Vec<u8> {
    let mut bytes = Vec::new();
    wire::encode(&Message::Request(request), &mut bytes).unwrap();
    bytes
}
