//! A running machine: commands in the guest, the VMM's word, and its end.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::guest::{Guest, Output};
use super::image::images;
use super::machine::Machine;
use super::qmp::{MemoryDevice, Qmp};
use super::snapshot::{Saved, make_disk};
use super::vsock::{start_vhost, threads};
use super::{HUNG, MIB};

const POLL: Duration = Duration::from_millis(100);
/// How often memory is looked at before it counts as quiet: a guest that does not run changes nothing.
const LOOKS_MIN: u32 = 4;
/// Long enough for a driver to begin with a request, or to give it up.
const UNMET_QUIET: Duration = Duration::from_secs(5);

/// A running machine; dropping it kills it.
pub(crate) struct Vm {
    qemu: Child,
    pub(super) vhost: Option<Child>,
    links: Option<Links>,
    pub(super) dir: TempDir,
    machine: Machine,
}

struct Links {
    qmp: Qmp,
    guest: Guest,
}

impl Drop for Vm {
    fn drop(&mut self) {
        for process in [Some(&mut self.qemu), self.vhost.as_mut()].into_iter().flatten() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Vm {
    /// Starts QEMU and connects to it; `incoming` names what was saved of such a machine.
    pub(super) fn start(machine: &Machine, incoming: Option<&Saved>) -> Result<Self, String> {
        let dir = tempfile::Builder::new().prefix("gm-vm-").tempdir().expect("a temporary directory");
        if machine.portable && machine.root {
            make_disk(dir.path(), images().path("root"), incoming);
        }
        let plugged_at_boot = machine.vsock_cid.filter(|_| !machine.portable);
        let vhost = plugged_at_boot.map(|cid| start_vhost(dir.path(), cid)).transpose()?;
        let qemu = machine.start_qemu(dir.path(), incoming.map(Saved::memory_path).as_deref());
        let mut vm = Self { qemu, vhost, links: None, dir, machine: machine.clone() };
        let links = vm.connect();
        vm.links = Some(vm.with_last_words(links)?);
        Ok(vm)
    }

    pub(super) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// QEMU's process id.
    pub(super) fn pid(&self) -> Pid {
        Pid::from_child(&self.qemu)
    }

    fn connect(&self) -> Result<Links, String> {
        let qmp = Qmp::new(self.connect_to("qmp")?)?;
        Ok(Links { qmp, guest: Guest::new(self.connect_to("control")?) })
    }

    fn connect_to(&self, name: &str) -> Result<UnixStream, String> {
        let start = Instant::now();
        loop {
            match UnixStream::connect(self.dir.path().join(name)) {
                Ok(stream) => return Ok(stream),
                Err(error) if start.elapsed() > HUNG => {
                    return Err(format!("{name}: {error}"));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// The Unix socket through which the guest's vsock is reached.
    pub(crate) fn vsock_path(&self) -> PathBuf {
        self.dir.path().join("vsock")
    }

    /// A QMP socket that the rig leaves alone.
    pub(crate) fn qmp_path(&self) -> PathBuf {
        self.dir.path().join("qmp-vmm")
    }

    /// Ends the test with `error` and what the guest and the VMM last said.
    pub(crate) fn fail(&self, error: &str) -> ! {
        panic!("{error}{}", self.last_words())
    }

    /// The same to a step that may be tried again.
    pub(super) fn with_last_words<T>(&self, step: Result<T, String>) -> Result<T, String> {
        step.map_err(|error| error + &self.last_words())
    }

    fn last_words(&self) -> String {
        let tail = |name: &str| {
            let bytes = std::fs::read(self.dir.path().join(name)).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let lines = text.lines().collect::<Vec<_>>();
            lines.get(lines.len().saturating_sub(25)..).unwrap_or_default().join("\n")
        };
        format!(
            "\n--- console ({})\n{}\n--- QEMU\n{}\n--- vhost-device-vsock, threads: {}\n{}",
            self.machine.name(),
            tail("console.log"),
            tail("qemu-system-x86_64.err"),
            self.vhost.as_ref().map(threads).unwrap_or_default(),
            tail("vhost-device-vsock.err"),
        )
    }

    fn links(&mut self) -> &mut Links {
        self.links.as_mut().expect("connected at boot")
    }

    /// Runs `command` in the guest, whatever it ends with.
    pub(crate) fn run(&mut self, command: &str) -> Output {
        self.run_for(command, HUNG)
    }

    pub(crate) fn run_for(&mut self, command: &str, timeout: Duration) -> Output {
        self.links().guest.run(command, timeout).unwrap_or_else(|error| self.fail(&error))
    }

    /// Runs `command` in the guest, which has to succeed, and gives what it printed.
    pub(crate) fn sh(&mut self, command: &str) -> String {
        let output = self.run(command);
        if output.code != 0 {
            self.fail(&format!("in the guest, `{command}` ended with {}: {}", output.code, output.stderr));
        }
        output.text().trim_end().to_owned()
    }

    /// Waits until the control port answers.
    pub(super) fn takes_commands(&mut self, timeout: Duration) -> Result<(), String> {
        self.links().guest.run("true", timeout).map(drop)
    }

    pub(crate) fn qmp(&mut self, command: &str, arguments: Value) -> Value {
        self.try_qmp(command, arguments).unwrap_or_else(|error| self.fail(&error))
    }

    pub(super) fn try_qmp(&mut self, command: &str, arguments: Value) -> Result<Value, String> {
        self.links().qmp.execute(command, arguments)
    }

    pub(crate) fn memory_devices(&mut self) -> Vec<MemoryDevice> {
        self.links().qmp.memory_devices().unwrap_or_else(|error| self.fail(&error))
    }

    /// What the VMM says is plugged, over all devices.
    pub(crate) fn plugged(&mut self) -> u64 {
        self.memory_devices().iter().map(|device| device.plugged_bytes).sum()
    }

    /// Asks for `mib` MiB from the device numbered `device`; says nothing of what comes of it.
    pub(crate) fn request(&mut self, device: usize, mib: u64) {
        let path = format!("/machine/peripheral/vm{device}");
        let arguments = json!({ "path": path, "property": "requested-size", "value": mib * MIB });
        self.qmp("qom-set", arguments);
    }

    /// Asks for `mib` MiB and waits until the VMM says that they are there.
    pub(crate) fn resize(&mut self, device: usize, mib: u64) {
        self.request(device, mib);
        self.wait(&format!("device {device} to reach {mib} MiB"), HUNG, |vm| {
            vm.memory_devices().get(device).is_some_and(|device| device.plugged_bytes == mib * MIB)
        });
    }

    /// Waits until the VMM and the guest have said the same for `quiet`, or for longer while a request is not met: its
    /// driver may not have begun.
    pub(crate) fn wait_quiet(&mut self, quiet: Duration) -> u64 {
        let (mut last, mut since, mut looks) = (self.memory_on_both_sides(), Instant::now(), 0);
        self.wait("memory to stay as it is", quiet + HUNG, |vm| {
            let now = vm.memory_on_both_sides();
            looks += 1;
            if now != last {
                (last, since, looks) = (now, Instant::now(), 0);
            }
            let enough = if is_met(&last.0) { quiet } else { quiet.max(UNMET_QUIET) };
            since.elapsed() >= enough && looks >= LOOKS_MIN
        });
        last.0.iter().map(|device| device.plugged_bytes).sum()
    }

    /// The guest comes after the VMM: it uses what is plugged, or shows it offline, a moment later. One that an unplug
    /// leaves short of memory is not asked: a command more may be one too many.
    fn memory_on_both_sides(&mut self) -> (Vec<MemoryDevice>, Option<String>) {
        let devices = self.memory_devices();
        // A block may go between its name and its state: what is said then is not said again.
        let guest =
            "grep ^MemTotal: /proc/meminfo; cat /sys/devices/system/memory/memory*/state 2>/dev/null; true";
        let guest = is_met(&devices).then(|| self.sh(guest));
        (devices, guest)
    }

    /// A balloon comes to a running machine that is portable.
    pub(crate) fn plug_balloon(&mut self, deflate_on_oom: bool) {
        let balloon = json!({ "driver": "virtio-balloon-pci", "id": "balloon0", "bus": "balloon-port", "deflate-on-oom": deflate_on_oom });
        self.qmp("device_add", balloon);
    }

    /// Takes `mib` MiB away from the guest with the balloon (0 gives all back) and waits until it is done.
    pub(crate) fn inflate(&mut self, mib: u64) {
        // QEMU counts boot memory alone here, never virtio-mem.
        let whole = self.machine.boot_mib * MIB;
        let target = whole - mib * MIB;
        self.qmp("balloon", json!({ "value": target }));
        self.wait(&format!("the balloon to hold {mib} MiB"), HUNG, |vm| {
            vm.qmp("query-balloon", json!({})).get("actual").and_then(Value::as_u64) == Some(target)
        });
    }

    pub(crate) fn wait(&mut self, what: &str, timeout: Duration, mut done: impl FnMut(&mut Self) -> bool) {
        let waited = self.try_wait(what, timeout, |vm| Ok(done(vm)));
        waited.unwrap_or_else(|error| {
            let devices = self.memory_devices();
            self.fail(&format!("{error}; the VMM says {devices:?}"));
        });
    }

    /// For a step that may be tried again.
    pub(super) fn try_wait(
        &mut self,
        what: &str,
        timeout: Duration,
        mut done: impl FnMut(&mut Self) -> Result<bool, String>,
    ) -> Result<(), String> {
        let start = Instant::now();
        while !done(self)? {
            if start.elapsed() > timeout {
                return Err(format!("waited {timeout:?} for {what}"));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

fn is_met(devices: &[MemoryDevice]) -> bool {
    devices.iter().all(|device| device.plugged_bytes == device.requested_bytes)
}
