//! An agent that cannot listen where it should: it counts all the same, says so once, and tries again.

use super::{Agent, PATIENCE, Process, program};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, bind, getsockname, socket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The agent, which may not listen at the ports below 1024; on this machine no test listens at vsock.
fn unprivileged() -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program());
    }
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-net_bind_service", program()]);
    command
}

#[test]
fn a_vsock_port_that_is_not_its_to_take_costs_no_count() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--listen", "vsock://any:1020", "--tick", "5s"];
    let command = Agent::command_by(unprivileged(), folder.path(), &flags);
    let agent = Agent::spawned(folder, command);
    let (first, second) = (agent.greet().read(), agent.greet().read());
    assert!(second.usage.active.total() > first.usage.active.total());
    assert_eq!(second.usage.dropped, first.usage.dropped);
    let log = agent.log();
    assert_eq!(log.matches("vsock://any:1020: Permission denied").count(), 1, "{log}");
    assert!(log.contains("guestmeterd.socket's: is it enabled?); it counts, and tries again"), "{log}");
}

/// As its unit starts it where the socket unit failed: it once ended with 77, twice a second.
#[test]
fn with_no_socket_at_all_it_stays_and_ends_when_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut command = unprivileged();
    command.args(["--notify", "none", "--state"]).arg(folder.path().join("state"));
    command.env_remove("NOTIFY_SOCKET").stdin(Stdio::null()).stdout(Stdio::null());
    let mut agent = Process::start(command.stderr(std::fs::File::create(&log).unwrap()));
    let said = || std::fs::read_to_string(&log).unwrap();
    let since = Instant::now();
    while !said().contains("ready: ") {
        assert!(since.elapsed() < PATIENCE && agent.is_running(), "{}", said());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(agent.is_running());
    let sent = Command::new("kill").args(["-TERM", &agent.id().to_string()]).status().unwrap();
    assert!(sent.success());
    assert!(agent.wait().success(), "{}", said());
}

/// `VMADDR_PORT_ANY`.
const ANY_PORT: u32 = u32::MAX;

/// A vsock port that is taken and at which nobody can connect: a socket bound to it that does not listen.
fn take_a_port() -> Option<(OwnedFd, u32)> {
    let socket = match socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None) {
        Err(Errno::EAFNOSUPPORT) => {
            crate::under::skip("there is no vsock here: modprobe vsock");
            return None;
        }
        socket => socket.unwrap(),
    };
    let any = VsockAddr::new(vsock::VMADDR_CID_ANY, ANY_PORT);
    bind(socket.as_raw_fd(), &any).unwrap();
    let port = getsockname::<VsockAddr>(socket.as_raw_fd()).unwrap().port();
    Some((socket, port))
}

/// What is refused once is tried again. That a port is listened at in the end is strace's word: on this machine nobody
/// must be able to connect.
#[test]
fn what_could_not_be_opened_is_opened_once_it_can_be() {
    let Some((taken, port)) = take_a_port() else { return };
    let Some(mut strace) = crate::under::strace() else { return };
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    // The agent's own socket is the first that is bound, and listened at; the kernel's events are the third.
    strace.arg(&trace).args(["-e", "trace=bind,listen", "-e", "inject=bind:error=EPERM:when=3"]);
    strace.args(["-e", "inject=listen:syscall=getpid:retval=0:when=2+", program()]);
    let address = format!("vsock://any:{port}");
    let command = Agent::command_by(strace, folder.path(), &["--listen", &address]);
    let agent = Agent::spawned(folder, command);
    agent.until_logged("ready: ");
    let log = agent.log();
    assert!(log.contains(&format!("{address}: Address already in use")), "{log}");
    assert!(log.contains("no hotplug events (Operation not permitted"), "{log}");
    drop(taken);
    agent.until_logged(&format!("listening at {address}"));
    agent.until_logged("hotplug events are heard again");
    let trace = std::fs::read_to_string(trace).unwrap();
    assert_eq!(trace.matches("listen(").count(), 2, "{trace}");
    agent.greet().read();
}
