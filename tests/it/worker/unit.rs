//! The shipped unit, checked by systemd's own tool; and the start and stop that it is told of.

use super::*;
use std::os::unix::net::UnixDatagram;

/// Whether systemd's tool is there; a build machine must have it.
fn has_systemd() -> bool {
    let found = Command::new("systemd-analyze").arg("--version").output();
    let found = found.is_ok_and(|output| output.status.success());
    if !found {
        let why = "systemd-analyze is missing: apt-get install systemd";
        assert!(std::env::var_os("CI").is_none(), "{why}");
        crate::under::skip(why);
    }
    found
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    if !has_systemd() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/guestmeter-worker.service");
    let unit = folder.path().join("guestmeter-worker.service");
    let text = std::fs::read_to_string(shipped).unwrap();
    std::fs::write(&unit, text.replace("/usr/bin/guestmeter", env!("CARGO_BIN_EXE_guestmeter"))).unwrap();
    let run =
        |arguments: &[&str]| Command::new("systemd-analyze").args(arguments).arg(&unit).output().unwrap();
    let verified = run(&["verify"]);
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("guestmeter")).collect();
    assert!(verified.status.success() && ours.is_empty(), "{said}");
    // It opens the sockets of others, which is why it is root; a fifth of what a unit without a sandbox has.
    let exposure = run(&["security", "--offline=true", "--threshold=20"]);
    assert!(exposure.status.success(), "{}", String::from_utf8_lossy(&exposure.stdout));
}

#[test]
fn systemd_is_told_when_it_serves_reloads_and_stops() {
    let mut worker = Worker::prepare(FAST);
    let path = worker.path("notify.sock");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    let heard = || {
        let mut text = [0; 256];
        let length = loop {
            match systemd.recv(&mut text) {
                // A machine that is paused and goes on interrupts who waits with a time limit.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                other => break other.unwrap(),
            }
        };
        String::from_utf8_lossy(&text[..length]).trim().to_owned()
    };
    worker.process = Some(Process::start(worker.command().env("NOTIFY_SOCKET", &path)));
    assert_eq!(heard(), "READY=1");
    assert_eq!(worker.get("/healthz").0, 200);
    worker.process.as_ref().unwrap().signal("-HUP");
    assert_eq!((heard(), heard()), ("RELOADING=1".to_owned(), "READY=1".to_owned()));
    worker.stop();
    assert_eq!(heard(), "STOPPING=1");
}
