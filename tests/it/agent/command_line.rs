//! Flags, exit codes, and how the agent is started.

use super::{Agent, Client, PATIENCE, run, stderr, wait};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::{Command, Stdio};
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
    let mut child = Command::new("systemd-socket-activate")
        .arg("--listen")
        .arg(&socket)
        .args([super::program(), "--notify", "none", "--state"])
        .arg(&state)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("systemd-socket-activate is part of Debian's systemd");
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
    assert!(wait(&mut child).success());
    assert!(socket.exists(), "systemd's socket is not the agent's to remove");
}

#[test]
fn systemd_hears_ready_alive_status_and_stopping() {
    let folder = tempfile::tempdir().unwrap();
    let notify = folder.path().join("notify");
    let systemd = UnixDatagram::bind(&notify).unwrap();
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut child = Agent::command(folder.path(), &["--tick", "100ms"])
        .env("NOTIFY_SOCKET", &notify)
        .env("WATCHDOG_USEC", "400000")
        .spawn()
        .unwrap();
    let hear = || {
        let mut bytes = [0; 1024];
        let length = systemd.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    let ready = hear();
    assert!(ready.contains("READY=1\n") && ready.contains("STATUS=boot memory"), "{ready}");
    let since = Instant::now();
    for _ in 0..4 {
        assert_eq!(hear(), "WATCHDOG=1\n");
    }
    let waited = since.elapsed().as_millis();
    assert!((290..1_600).contains(&waited), "4 in {waited} ms, with a limit of 400 ms for each");
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let since = Instant::now();
    while hear() != "STOPPING=1\n" {
        assert!(since.elapsed() < PATIENCE);
    }
    assert!(wait(&mut child).success());
}

#[test]
fn as_root_it_becomes_another_user_for_good() {
    if !rustix_is_root() {
        eprintln!("not run: only root can become another user");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::start_in(folder, &["--user", "nobody"]);
    // Answering shows that it goes on working after that.
    let socket = agent.socket();
    assert!(UnixStream::connect(&socket).is_ok());
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
    assert_eq!(agent.greet().read().identity.seq, 1);
}

fn rustix_is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata) == 0)
}
