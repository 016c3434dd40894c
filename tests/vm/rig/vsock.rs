//! The vsock device of a machine: a process of its own, plugged in at boot or while the machine runs.

use super::HUNG;
use super::image::images;
use super::machine::launcher;
use super::vm::Vm;
use serde_json::{Value, json};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

/// Some seconds after boot or plugging, the guest's driver has it.
const UP_TIMEOUT: Duration = Duration::from_secs(60);
/// What a guest that is up takes to answer, many times over.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);
/// Looks in a row at a device that sleeps; the rig waits a moment between two.
const QUIET_LOOKS: u32 = 2;

/// How often each thread of a process was switched to and from: as long as none is, none does anything.
fn switches(pid: u32) -> Option<String> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let mut all = String::new();
    for thread in threads {
        let status = std::fs::read_to_string(thread.ok()?.path().join("status")).ok()?;
        let of_interest = |line: &&str| line.starts_with("State:") || line.contains("ctxt_switches:");
        status.lines().filter(of_interest).for_each(|line| all.push_str(line));
    }
    (!all.contains("R (running)")).then_some(all)
}

/// The device's threads, for messages: one that has ended serves nobody.
pub(super) fn threads(vhost: &Child) -> String {
    let names = std::fs::read_dir(format!("/proc/{}/task", vhost.id())).into_iter().flatten().map(|thread| {
        let name = thread.and_then(|thread| std::fs::read_to_string(thread.path().join("comm")));
        name.unwrap_or_default().trim().to_owned()
    });
    names.collect::<Vec<_>>().join(", ")
}

pub(super) fn start_vhost(dir: &Path, cid: u32) -> Result<Child, String> {
    let program = images().path("vhost-device-vsock").display().to_string();
    let mut command = launcher(&program, dir);
    command.arg("--guest-cid").arg(cid.to_string());
    command.arg("--socket").arg(dir.join("vhost")).arg("--uds-path").arg(dir.join("vsock"));
    let mut child = command.spawn().expect("setpriv and vhost-device-vsock start");
    let start = Instant::now();
    while !dir.join("vhost").exists() {
        if start.elapsed() > UP_TIMEOUT {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("vhost-device-vsock made no socket in {UP_TIMEOUT:?}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(child)
}

impl Vm {
    /// Plugs the vsock device in, with the machine's CID; the guest's driver finds it once the machine runs.
    pub(super) fn plug_vsock(&mut self) -> Result<(), String> {
        let cid = self.machine().vsock_cid.expect("a machine with vsock");
        self.vhost = Some(start_vhost(self.dir.path(), cid)?);
        let address = json!({ "type": "unix", "data": { "path": self.dir.path().join("vhost") } });
        let socket = json!({ "type": "socket", "data": { "addr": address, "server": false } });
        self.try_qmp("chardev-add", json!({ "id": "vsock", "backend": socket }))?;
        let device = json!({ "driver": "vhost-user-vsock-pci", "id": "vsock0", "chardev": "vsock", "bus": "vsock-port" });
        self.try_qmp("device_add", device).map(drop)
    }

    /// Waits until the guest's driver has started the device, if there is one. Before that nobody may connect to it:
    /// vhost-device-vsock 0.3.0 has the guest's memory a moment before its queues, and a host's connection in that
    /// moment ends its thread for good, as it does while the machine is stopped.
    pub(super) fn vsock_is_up(&mut self) -> Result<(), String> {
        if self.vhost.is_none() {
            return Ok(());
        }
        let path = json!({ "path": "/machine/peripheral/vsock0/virtio-backend" });
        self.try_wait("the guest to start its vsock device", UP_TIMEOUT, |vm| {
            Ok(vm.try_qmp("x-query-virtio-status", path.clone())?["vhost-started"] == true)
        })
    }

    /// Waits until nothing is under way through the vsock device: what a peer has read to its end, the device may still
    /// have to tell the guest of, and if the machine stops in that moment the device's thread ends for good.
    pub(super) fn vsock_is_quiet(&mut self) {
        let Some(pid) = self.vhost.as_ref().map(Child::id) else { return };
        let (mut last, mut looks) = (None, 0);
        self.wait("the vsock device to sleep", HUNG, |_| {
            let now = switches(pid);
            looks = if now == last { looks + 1 } else { 0 };
            last = now;
            looks >= QUIET_LOOKS
        });
    }

    /// A connection to `port` in the guest. Each attempt has one of its own: what the guest loses of one, as while
    /// nobody listens yet, does not come back.
    pub(crate) fn dial(&self, port: u32) -> UnixStream {
        let start = Instant::now();
        loop {
            match self.try_dial(port) {
                Ok(stream) => return stream,
                Err(error) if start.elapsed() > HUNG => {
                    self.fail(&format!("waited {HUNG:?} for port {port} of the guest: {error}"));
                }
                Err(_) => std::thread::sleep(POLL),
            }
        }
    }

    fn try_dial(&self, port: u32) -> io::Result<UnixStream> {
        let mut stream = UnixStream::connect(self.vsock_path())?;
        stream.set_read_timeout(Some(DIAL_TIMEOUT))?;
        stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
        let (mut answer, mut byte) = (Vec::new(), [0]);
        // To the byte and no further: the rest is the guest's.
        while byte != *b"\n" {
            stream.read_exact(&mut byte)?;
            answer.push(byte[0]);
        }
        if !answer.starts_with(b"OK ") {
            return Err(io::Error::new(ErrorKind::InvalidData, String::from_utf8_lossy(&answer)));
        }
        stream.set_read_timeout(Some(HUNG))?;
        Ok(stream)
    }

    /// Takes it out, with every connection that goes through it.
    pub(crate) fn detach_vsock(&mut self) {
        self.qmp("device_del", json!({ "id": "vsock0" }));
        self.wait("the guest to let the vsock device go", HUNG, |vm| {
            let devices = vm.qmp("qom-list", json!({ "path": "/machine/peripheral" }));
            let names = devices.as_array().into_iter().flatten().map(|device| &device["name"]);
            !names.collect::<Vec<_>>().contains(&&Value::from("vsock0"))
        });
        // Gone from the list, the device still holds its socket for a moment.
        self.wait("the vsock device's socket to be let go", HUNG, |vm| {
            vm.try_qmp("chardev-remove", json!({ "id": "vsock" })).is_ok()
        });
        if let Some(mut vhost) = self.vhost.take() {
            let _ = vhost.kill();
            let _ = vhost.wait();
        }
        for socket in ["vhost", "vsock"] {
            let _ = std::fs::remove_file(self.dir.path().join(socket));
        }
    }
}
