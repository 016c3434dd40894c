//! Flags, exit codes, and how the agent is started.

use super::{Agent, Client, PATIENCE, Process, run, stderr};
use guestmeter::capacity::Precision;
use guestmeter::units::Bytes;
use std::fs::File;
use std::io::Read;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

#[test]
fn bad_usage_is_64_and_names_the_flag_and_the_value() {
    for (arguments, wanted) in [
        (vec!["--tick", "5"], "--tick \"5\""),
        (vec!["--tick", "0s"], "--tick \"0s\""),
        (vec!["--listen", "tcp://x"], "--listen \"tcp://x\""),
        (vec!["--listen", "vsock://3:1020"], "--listen \"vsock://3:1020\""),
        (vec!["--notify", "vsock://any:1"], "--notify \"vsock://any:1\""),
        (vec!["--allow-peer", "-1"], "--allow-peer \"-1\""),
        (vec!["--state", ""], "--state \"\""),
        (vec!["--frobnicate"], "--frobnicate"),
        (vec!["serve"], "\"serve\""),
    ] {
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        let text = stderr(&output);
        assert!(text.starts_with("guestmeterd: ") && text.contains(wanted), "{arguments:?}: {text}");
    }
}

#[test]
fn version_and_help_go_to_standard_output() {
    let version = run(&["--version"]);
    let text = String::from_utf8(version.stdout).unwrap();
    assert!(
        version.status.success()
            && text.starts_with(concat!("guestmeterd ", env!("CARGO_PKG_VERSION"), " ("))
    );
    assert!(text.contains("protocol 1 to 1"), "{text}");
    let help = run(&["--help"]);
    assert!(help.status.success() && String::from_utf8(help.stdout).unwrap().contains("--device-config"));
}

/// Runs the agent where it cannot start; gives its exit code and last words.
fn refused(listen: &str, state: &str) -> (Option<i32>, String) {
    let output = run(&["--listen", listen, "--notify", "none", "--state", state]);
    (output.status.code(), stderr(&output))
}

#[test]
fn where_it_cannot_start_it_says_which_file_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let listen = format!("unix://{}", path("agent.sock"));

    let (code, text) = refused(&listen, &path("no/such/state"));
    assert_eq!(code, Some(73), "{text}");
    assert!(text.contains("no/such/state") && text.contains("--state"), "{text}");

    std::fs::write(path("file"), "data").unwrap();
    let (code, text) = refused(&format!("unix://{}", path("file")), &path("state"));
    assert_eq!(code, Some(69), "{text}");
    assert!(text.contains("exists and is not a socket"), "{text}");

    let _other = UnixListener::bind(path("taken.sock")).unwrap();
    let (code, text) = refused(&format!("unix://{}", path("taken.sock")), &path("state"));
    assert_eq!(code, Some(69), "{text}");
    assert!(text.contains("somebody listens there already"), "{text}");

    let output = run(&[
        "--listen",
        &listen,
        "--notify",
        "none",
        "--state",
        &path("state"),
        "--proc-root",
        &path("none"),
    ]);
    assert_eq!(output.status.code(), Some(69));
    assert!(stderr(&output).contains("none/sys/kernel/random/boot_id"), "{}", stderr(&output));

    let output = run(&[
        "--listen",
        &listen,
        "--notify",
        "none",
        "--state",
        &path("state"),
        "--user",
        "nobody-of-that-name",
    ]);
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("nobody-of-that-name"), "{}", stderr(&output));
}

#[test]
fn a_socket_that_is_passed_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("passed.sock");
    let state = folder.path().join("state");
    let mut activate = Command::new("systemd-socket-activate");
    activate
        .arg("--listen")
        .arg(&socket)
        .args([super::program(), "--notify", "none", "--state"])
        .arg(&state)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = Process::start(&mut activate);
    let since = Instant::now();
    let stream = loop {
        match UnixStream::connect(&socket) {
            Ok(stream) => break stream,
            Err(error) => assert!(since.elapsed() < PATIENCE, "{error}"),
        }
    };
    let mut client = Client::new(stream);
    client.hello();
    assert_eq!(client.read().identity.seq, 1);
    // It was replaced by the agent, under the same number.
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    assert!(child.wait().success());
    assert!(socket.exists(), "systemd's socket is not the agent's to remove");
}

/// A machine that is paused and goes on interrupts who waits with a time limit.
fn received(socket: &UnixDatagram, bytes: &mut [u8]) -> usize {
    loop {
        match socket.recv(bytes) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            other => return other.unwrap(),
        }
    }
}

/// Takes each message as it comes, up to the last: the kernel keeps few for who is late, and the agent waits for nobody.
fn heard_by(systemd: UnixDatagram) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut bytes = [0; 1024];
        loop {
            let length = received(&systemd, &mut bytes);
            let text = String::from_utf8(bytes[..length].to_vec()).unwrap();
            let last = text == "STOPPING=1\n";
            if sender.send(text).is_err() || last {
                return;
            }
        }
    });
    receiver
}

#[test]
fn systemd_hears_ready_alive_status_and_stopping() {
    let folder = tempfile::tempdir().unwrap();
    let notify = folder.path().join("notify");
    let systemd = UnixDatagram::bind(&notify).unwrap();
    let mut command = Agent::command(folder.path(), &["--tick", "100ms"]);
    let heard = heard_by(systemd);
    let since = Instant::now();
    let mut child = Process::start(command.env("NOTIFY_SOCKET", &notify).env("WATCHDOG_USEC", "400000"));
    let hear = || heard.recv_timeout(PATIENCE).unwrap();
    let ready = hear();
    assert!(ready.contains("READY=1\n") && ready.contains("STATUS=boot memory"), "{ready}");
    for _ in 0..4 {
        assert_eq!(hear(), "WATCHDOG=1\n");
    }
    let waited = since.elapsed().as_millis();
    assert!(
        (290..PATIENCE.as_millis()).contains(&waited),
        "4 in {waited} ms, with a limit of 400 ms for each"
    );
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let since = Instant::now();
    while hear() != "STOPPING=1\n" {
        assert!(since.elapsed() < PATIENCE);
    }
    assert!(child.wait().success());
}

#[test]
fn as_root_it_becomes_another_user_for_good() {
    if !is_root() {
        crate::under::skip("only root can become another user");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start_in(folder, &["--user", "nobody"]);
    // It serves only once it has become that user.
    assert_eq!(agent.greet().read().identity.seq, 1);
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(field("Uid:"), "65534\t65534\t65534\t65534");
    assert_eq!(field("Gid:"), "65534\t65534\t65534\t65534");
    assert_eq!(field("Groups:"), "65534");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Threads:"), "1");
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata) == 0)
}

#[test]
fn a_log_that_nobody_reads_any_more_does_not_end_the_count() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Agent::command(folder.path(), &[]);
    let (reader, writer) = std::io::pipe().unwrap();
    command.stderr(writer);
    let mut agent = Agent::spawned(folder, command);
    drop(reader);
    let mut noisy = agent.greet();
    // Garbage is hung up on, and said: into a broken pipe.
    let _ = std::io::Write::write_all(&mut noisy.stream, &[b'x'; 70_000]);
    assert!(noisy.receive().is_none());
    assert_eq!(agent.greet().read().identity.seq, 1);
    assert!(agent.is_running());
}

#[test]
fn standard_descriptors_that_are_closed_are_not_taken_by_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::command(folder.path(), &[]);
    let mut shell = Command::new("bash");
    shell.args(["-c", "exec \"$@\" <&- >&- 2>&-", "bash"]).arg(agent.get_program()).args(agent.get_args());
    let agent = Agent::spawned(folder, shell);
    assert_eq!(agent.greet().read().identity.seq, 1);
    for standard in 0..3 {
        let target = std::fs::read_link(format!("/proc/{}/fd/{standard}", agent.pid())).unwrap();
        assert_eq!(target, Path::new("/dev/null"), "{standard}");
    }
}

/// A guest with 130 MiB plugged, as files; what only root may read is not among them but given back apart.
pub(super) fn captured_guest(folder: &Path) -> (String, String) {
    let captured = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/6.12-130");
    let copied = Command::new("cp").arg("-a").arg(&captured).arg(folder.join("guest")).status().unwrap();
    assert!(copied.success());
    let root = folder.join("guest");
    std::fs::rename(root.join("proc/iomem"), folder.join("iomem")).unwrap();
    let flags = File::create_new(folder.join("kpageflags")).unwrap();
    crate::fixtures::write_kpageflags(&captured, &flags);
    std::fs::create_dir_all(root.join("proc/sys/kernel/random")).unwrap();
    let boot_id = root.join("proc/sys/kernel/random/boot_id");
    std::fs::write(boot_id, "01234567-89ab-cdef-0123-456789abcdef\n").unwrap();
    let path = |name: &str| root.join(name).to_str().unwrap().to_owned();
    (path("proc"), path("sys"))
}

#[test]
fn sources_that_were_opened_with_privilege_are_used() {
    let folder = tempfile::tempdir().unwrap();
    let (proc, sys) = captured_guest(folder.path());
    let roots = ["--proc-root", &proc, "--sys-root", &sys];
    let without = Agent::start_in(tempfile::tempdir().unwrap(), &roots).greet().read();
    assert_eq!(without.memory.precision, Precision::Bounded, "nothing to tell it what is hidden");

    // What systemd does with its descriptor store: numbers from 3 on, names, and the process they are meant for.
    let agent = Agent::command(folder.path(), &roots);
    let mut shell = Command::new("bash");
    shell.args(["-c", "export LISTEN_PID=$$; exec \"$@\" 3<\"$IOMEM\" 4<\"$KPAGEFLAGS\"", "bash"]);
    shell.arg(agent.get_program()).args(agent.get_args());
    shell.env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", "guestmeter-iomem:guestmeter-kpageflags");
    shell.env("IOMEM", folder.path().join("iomem")).env("KPAGEFLAGS", folder.path().join("kpageflags"));
    let agent = Agent::spawned(folder, shell);
    let with = agent.greet().read();
    assert_eq!(with.memory.precision, Precision::Exact, "{with:?}");
    assert_eq!(with.memory.plugged, Some(Bytes::mib(130)));
}

#[test]
fn open_sources_hands_them_to_systemd_and_removes_those_of_the_last_start() {
    let folder = tempfile::tempdir().unwrap();
    let (proc, _) = captured_guest(folder.path());
    let notify = folder.path().join("notify");
    let systemd = UnixDatagram::bind(&notify).unwrap();
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    for name in ["iomem", "kpageflags"] {
        std::fs::write(Path::new(&proc).join(name), name).unwrap();
    }
    let output = Command::new(super::program())
        .args(["open-sources", "--proc-root", &proc])
        .env("NOTIFY_SOCKET", &notify)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    for name in ["iomem", "kpageflags"] {
        let mut bytes = [0; 256];
        let length = received(&systemd, &mut bytes);
        assert_eq!(bytes[..length], *format!("FDSTOREREMOVE=1\nFDNAME=guestmeter-{name}\n").as_bytes());
        let (text, mut file) = receive_with_descriptor(&systemd);
        assert_eq!(text, format!("FDSTORE=1\nFDPOLL=0\nFDNAME=guestmeter-{name}\n"));
        let mut content = String::new();
        file.read_to_string(&mut content).unwrap();
        assert_eq!(content, name);
    }
}

fn receive_with_descriptor(socket: &UnixDatagram) -> (String, std::fs::File) {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut bytes = [0; 256];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
    let received = recvmsg(socket, &mut parts, &mut ancillary, RecvFlags::empty()).unwrap();
    let descriptor = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    let text = String::from_utf8(bytes[..received.bytes].to_vec()).unwrap();
    (text, std::fs::File::from(descriptor.expect("a descriptor comes with it")))
}

#[test]
fn open_sources_without_systemd_says_where_it_belongs() {
    let output =
        Command::new(super::program()).arg("open-sources").env_remove("NOTIFY_SOCKET").output().unwrap();
    assert_eq!(output.status.code(), Some(71));
    assert!(stderr(&output).contains("ExecStartPre=+"), "{}", stderr(&output));
}

#[test]
fn once_prints_a_captured_guest_and_doctor_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let (proc, sys) = captured_guest(folder.path());
    let roots = ["--proc-root", &proc, "--sys-root", &sys];
    let output = run(&[&["--once"], roots.as_slice()].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("memory.precision=bounded\n"), "{text}");
    assert!(text.contains("identity.boot_id=01234567-89ab-cdef-0123-456789abcdef\n"), "{text}");
    let doctor = run(&[&["doctor"], roots.as_slice()].concat());
    let text = String::from_utf8(doctor.stdout).unwrap();
    assert_eq!(doctor.status.code(), Some(1), "{text}");
    assert!(text.contains("no    iomem") && text.contains("The reading is bounded"), "{text}");
    for name in ["iomem", "kpageflags"] {
        std::fs::rename(folder.path().join(name), Path::new(&proc).join(name)).unwrap();
    }
    let doctor = run(&[&["doctor"], roots.as_slice()].concat());
    assert!(doctor.status.success(), "{}", String::from_utf8_lossy(&doctor.stdout));
}

/// As an attacker would have it who can write where the state is to be: it would have been made the agent's.
#[test]
fn a_state_file_that_is_somebody_elses_is_not_given_away() {
    if !is_root() {
        crate::under::skip("only root can give files away");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (state, other) = (folder.path().join("state"), folder.path().join("precious"));
    let refused = |what: &str| {
        let flags = ["--notify", "none", "--user", "nobody", "--listen"];
        let listen = format!("unix://{}", folder.path().join("s").display());
        let output = Command::new("timeout")
            .args(["60", super::program()])
            .args(flags)
            .arg(&listen)
            .arg("--state")
            .arg(&state)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(73), "{output:?}");
        assert!(stderr(&output).contains(what), "{}", stderr(&output));
    };
    std::fs::write(&other, "").unwrap();
    std::fs::hard_link(&other, &state).unwrap();
    refused("owner 0, 2 links");
    std::fs::remove_file(&other).unwrap();
    std::os::unix::fs::chown(&state, Some(1), None).unwrap();
    refused("owner 1, 1 links");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&state).unwrap()), 1);
}

#[test]
fn a_warning_is_said_once_however_often_it_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let (proc, sys) = captured_guest(folder.path());
    let flags = ["--proc-root", &proc, "--sys-root", &sys, "--tick", "100ms", "--cgroup", "none/such"];
    let agent = Agent::start_in(folder, &flags);
    let mut client = agent.greet();
    for _ in 0..3 {
        let ticked = client.read().usage.active.total() + 200_000_000;
        super::until("two ticks pass", || client.read().usage.active.total() >= ticked);
    }
    let log = agent.log();
    let mut warnings: Vec<&str> = log.lines().filter(|line| line.starts_with("<4>")).collect();
    assert!(warnings.len() > 1, "{log}");
    warnings.sort_unstable();
    assert!(warnings.windows(2).all(|pair| pair[0] != pair[1]), "{log}");
}
