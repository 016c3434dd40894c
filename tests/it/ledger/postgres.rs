//! A PostgreSQL server of the tests' own: Debian's package, a private directory, a Unix socket, and nobody's process.

use std::io::Write;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Debian's `nobody`: the server refuses to run as root.
const NOBODY: u32 = 65534;
const SUPERUSER: &str = "guestmeter";

/// A server, stopped by its process id when the last test that uses it ends.
pub struct Server {
    folder: TempDir,
    programs: PathBuf,
    stop: Sender<()>,
    keeper: Option<JoinHandle<()>>,
}

static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());

impl Server {
    /// The one that all tests share; `None`, said aloud, where the package is not installed.
    pub fn shared() -> Option<Arc<Self>> {
        let mut shared = SHARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(server) = shared.upgrade() {
            return Some(server);
        }
        let server = Arc::new(Self::start(&["fsync=off", "shared_buffers=64MB"])?);
        *shared = Arc::downgrade(&server);
        Some(server)
    }

    /// One of its own, with these settings.
    pub fn start(settings: &[&str]) -> Option<Self> {
        Self::start_as(settings, |_| None)
    }

    /// One whose databases are on a disk of 24 MiB, in a mount namespace of the server's own.
    pub fn start_on_small_disk() -> Option<Self> {
        let allowed = Command::new("unshare").args(["--mount", "true"]).output().unwrap();
        if !allowed.status.success() {
            let _ = writeln!(std::io::stderr(), "skipped: no mount namespace here");
            return None;
        }
        let server = Self::start_as(&["fsync=off", "shared_buffers=16MB"], |folder| {
            let disk = folder.join("disk");
            std::fs::create_dir(&disk).unwrap();
            let mut command = Command::new("unshare");
            let mount = "mount -t tmpfs -o size=24m,uid=65534,gid=65534,mode=700 tmpfs \"$1\" && shift && exec \"$@\"";
            command.args(["--mount", "sh", "-c", mount, "sh"]).arg(disk);
            Some(command)
        })?;
        let disk = server.folder().join("disk");
        let made = server.tool(
            "psql",
            &["-d", "postgres", "-c", &format!("CREATE TABLESPACE small LOCATION '{}'", disk.display())],
        );
        assert!(made.status.success(), "{made:?}");
        let made = server.tool(
            "psql",
            &[
                "-d",
                "postgres",
                "-c",
                "ALTER SYSTEM SET default_tablespace = small",
                "-c",
                "SELECT pg_reload_conf()",
            ],
        );
        assert!(made.status.success(), "{made:?}");
        Some(server)
    }

    /// `wrapper` is a command that runs the server's, which comes after its arguments.
    fn start_as(settings: &[&str], wrapper: impl Fn(&Path) -> Option<Command>) -> Option<Self> {
        let Some(programs) = programs() else {
            // Past the test harness, which keeps what a passing test prints.
            let _ = writeln!(std::io::stderr(), "skipped: no PostgreSQL here: apt-get install postgresql");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        if rustix::process::geteuid().is_root() {
            chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let data = folder.path().join("data");
        let mut initdb = as_nobody(&programs.join("initdb"));
        initdb.args([
            "--auth=trust",
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--username",
            SUPERUSER,
        ]);
        let made = initdb.arg("--pgdata").arg(&data).current_dir("/").output().unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let mut postgres = as_nobody(&programs.join("postgres"));
        if let Some(mut wrapped) = wrapper(folder.path()) {
            wrapped.arg(postgres.get_program()).args(postgres.get_args());
            postgres = wrapped;
        }
        postgres.arg("-D").arg(&data).arg("-k").arg(folder.path()).args(["-c", "listen_addresses="]);
        for setting in settings {
            postgres.args(["-c", setting]);
        }
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        postgres.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let (stop, stopped) = channel();
        // The server dies with the thread that started it, so that one is there for nothing else.
        let keeper = std::thread::spawn(move || keep(postgres.spawn().unwrap(), &stopped));
        let server = Self { folder, programs, stop, keeper: Some(keeper) };
        server.wait();
        Some(server)
    }

    fn wait(&self) {
        let give_up = Instant::now() + Duration::from_secs(60);
        while !self.tool("pg_isready", &[]).status.success() {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < give_up, "PostgreSQL does not answer:\n{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Every process of the server stands still until what this gives is dropped.
    pub fn stop_still(&self) -> StoodStill {
        let first = self.first_process();
        let mut stopped = vec![first];
        send(first, rustix::process::Signal::STOP);
        for child in self.children() {
            send(child, rustix::process::Signal::STOP);
            stopped.push(child);
        }
        StoodStill(stopped)
    }

    fn first_process(&self) -> i32 {
        let file = std::fs::read_to_string(self.folder().join("data/postmaster.pid")).unwrap();
        file.lines().next().unwrap().parse().unwrap()
    }

    fn children(&self) -> Vec<i32> {
        let first = self.first_process();
        let children = std::fs::read_to_string(format!("/proc/{first}/task/{first}/children")).unwrap();
        children.split_whitespace().map(|child| child.parse().unwrap()).collect()
    }

    /// Ends every process of the server at once but its first, which begins anew by what the log of writes has.
    pub fn crash(&self) {
        send(self.children()[0], rustix::process::Signal::KILL);
    }

    /// Where its socket is.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn tool(&self, name: &str, arguments: &[&str]) -> std::process::Output {
        let mut tool = Command::new(self.programs.join(name));
        tool.arg("--host").arg(self.folder()).args(["--username", SUPERUSER]).args(arguments);
        tool.env_remove("PGDATABASE").output().unwrap()
    }

    /// A new, empty database.
    pub fn database(&self, name: &str) -> String {
        let made = self.tool("createdb", &[name]);
        assert!(made.status.success(), "createdb: {}", String::from_utf8_lossy(&made.stderr));
        format!("postgres:///{name}?host={}&user={SUPERUSER}", self.folder().display())
    }
}

/// Processes that stand still.
pub struct StoodStill(Vec<i32>);

impl Drop for StoodStill {
    fn drop(&mut self) {
        for process in &self.0 {
            send(*process, rustix::process::Signal::CONT);
        }
    }
}

fn send(process: i32, signal: rustix::process::Signal) {
    let process = rustix::process::Pid::from_raw(process).unwrap();
    let _ = rustix::process::kill_process(process, signal);
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop.send(());
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

/// Until told to stop: a fast shutdown, and the end of it if that takes long.
fn keep(mut server: Child, stopped: &Receiver<()>) {
    let _ = stopped.recv();
    let pid = rustix::process::Pid::from_child(&server);
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
    let give_up = Instant::now() + Duration::from_secs(10);
    while matches!(server.try_wait(), Ok(None)) {
        if Instant::now() >= give_up {
            let _ = server.kill();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs as nobody where this is root, and dies with the thread that started it.
fn as_nobody(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if rustix::process::geteuid().is_root() {
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    }
    command.arg(program).env("HOME", "/").env("LC_ALL", "C.UTF-8");
    command
}

/// Debian keeps the server's programs of each release in a folder of its own.
fn programs() -> Option<PathBuf> {
    let releases = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let folders = releases.filter_map(|release| Some(release.ok()?.path().join("bin")));
    folders.filter(|folder| folder.join("postgres").exists()).max()
}
