//! Starting a virtual machine, and ending it: QEMU under TCG, with what a test names and nothing else.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::MIB;
use super::guest::{Guest, Output};
use super::image::images;
use super::qmp::{MemoryDevice, Qmp};

/// Boots take 6 to 16 s on an idle machine; a busy one may need several times that.
const BOOT_TIMEOUT: Duration = Duration::from_secs(150);
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// What a machine is made of. Start from [`Machine::new`], name what is special, then [`Machine::boot`].
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    kernel: String,
    root: bool,
    append: String,
    boot_mib: u64,
    memory: Vec<VirtioMem>,
    balloon: Option<&'static str>,
    vsock_cid: Option<u32>,
}

#[derive(Clone, Debug)]
struct VirtioMem {
    requested_mib: u64,
    block_mib: u64,
}

impl Machine {
    /// 512 MiB, two CPUs, the small image on `kernel` ("6.1", "6.12"), no device beyond the control port.
    pub(crate) fn new(kernel: &str) -> Self {
        Self {
            kernel: kernel.to_owned(),
            root: false,
            append: String::new(),
            boot_mib: 512,
            memory: Vec::new(),
            balloon: None,
            vsock_cid: None,
        }
    }

    /// The image with systemd instead of the small one.
    pub(crate) fn systemd(mut self) -> Self {
        self.root = true;
        self
    }

    /// Hot-plugged memory is onlined into ZONE_MOVABLE, from which it can always be unplugged.
    pub(crate) fn online_movable(self) -> Self {
        self.append("memhp_default_state=online_movable")
    }

    /// Hot-plugged memory is onlined by the kernel's own policy, contig-zones; 6.1 leaves it offline.
    pub(crate) fn append(mut self, words: &str) -> Self {
        self.append.push(' ');
        self.append.push_str(words);
        self
    }

    /// One virtio-mem device more, with blocks of 2 MiB; each sits on a NUMA node of its own if there are two.
    pub(crate) fn memory(self, requested_mib: u64) -> Self {
        self.memory_in_blocks(requested_mib, 2)
    }

    pub(crate) fn memory_in_blocks(mut self, requested_mib: u64, block_mib: u64) -> Self {
        self.memory.push(VirtioMem { requested_mib, block_mib });
        self
    }

    pub(crate) fn balloon(mut self) -> Self {
        self.balloon = Some("off");
        self
    }

    pub(crate) fn balloon_deflating_on_oom(mut self) -> Self {
        self.balloon = Some("on");
        self
    }

    pub(crate) fn vsock(mut self, cid: u32) -> Self {
        self.vsock_cid = Some(cid);
        self
    }

    /// Starts the machine and waits until it takes commands.
    pub(crate) fn boot(self) -> Vm {
        let dir = tempfile::Builder::new().prefix("gm-vm-").tempdir().expect("a temporary directory");
        let vhost = self.vsock_cid.map(|cid| start_vhost(dir.path(), cid));
        let start = Instant::now();
        let qemu = self.start_qemu(dir.path());
        let mut vm =
            Vm { processes: vhost.into_iter().chain([qemu]).collect(), links: None, dir, machine: self };
        vm.links = Some(vm.connect().unwrap_or_else(|error| vm.fail(&error)));
        vm.run_for("true", BOOT_TIMEOUT);
        eprintln!(
            "[{:>5.1} s to boot {} {}]",
            start.elapsed().as_secs_f32(),
            vm.machine.kernel,
            vm.image_name()
        );
        vm
    }

    fn start_qemu(&self, dir: &Path) -> Child {
        let mut command = launcher("qemu-system-x86_64", dir);
        let path = |name: &str| dir.join(name).display().to_string();
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-smp", "2"]);
        command.args(["-accel", "tcg,thread=multi", "-machine", "q35"]);
        command.arg("-serial").arg(format!("file:{}", path("console.log")));
        command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", path("qmp")));
        command.args(["-device", "virtio-serial-pci", "-chardev"]);
        command.arg(format!("socket,id=control,path={},server=on,wait=off", path("control")));
        command.args(["-device", "virtserialport,chardev=control,name=guestmeter.control"]);
        self.add_images(&mut command);
        self.add_memory(&mut command);
        if let Some(deflate) = self.balloon {
            command.arg("-device").arg(format!("virtio-balloon-pci,id=balloon0,deflate-on-oom={deflate}"));
        }
        if self.vsock_cid.is_some() {
            command.arg("-chardev").arg(format!("socket,id=vsock,path={}", path("vhost")));
            command.args(["-device", "vhost-user-vsock-pci,chardev=vsock"]);
        }
        command.spawn().expect("setpriv and qemu-system-x86_64 start")
    }

    fn add_images(&self, command: &mut Command) {
        let images = images();
        command.arg("-kernel").arg(images.path(&format!("kernel-{}", self.kernel)));
        command.arg("-initrd").arg(images.path(&format!("initrd-{}", self.kernel)));
        let mut append = format!("console=ttyS0 panic=-1{}", self.append);
        if self.root {
            append.push_str(" guestmeter.root=1");
            let drive =
                format!("file={},format=raw,if=none,id=root,snapshot=on", images.path("root").display());
            command.args(["-drive", &drive, "-device", "virtio-blk-pci,drive=root"]);
        }
        command.args(["-append", &append]);
    }

    fn add_memory(&self, command: &mut Command) {
        let boot = self.boot_mib;
        command.arg("-m").arg(format!("{boot}M,slots=4,maxmem=8G"));
        command.arg("-object").arg(format!("memory-backend-memfd,share=on,id=ram0,size={boot}M"));
        if self.memory.len() > 1 {
            command.args(["-numa", "node,nodeid=0,cpus=0-1,memdev=ram0"]);
            for node in 1..self.memory.len() {
                command.arg("-numa").arg(format!("node,nodeid={node}"));
            }
        } else {
            command.args(["-machine", "memory-backend=ram0"]);
        }
        for (index, device) in self.memory.iter().enumerate() {
            let backend = format!("memory-backend-memfd,share=on,id=vmem{index},size=2G,reserve=off");
            command.args(["-object", &backend, "-device"]);
            let (requested, block) = (device.requested_mib, device.block_mib);
            command.arg(format!(
                "virtio-mem-pci,id=vm{index},memdev=vmem{index},node={index},requested-size={requested}M,block-size={block}M"
            ));
        }
    }
}

/// `setpriv` has the kernel kill the process when the test's thread is gone, whatever ended it.
fn launcher(program: &str, dir: &Path) -> Command {
    let log = File::create(dir.join(format!("{}.err", program.rsplit('/').next().unwrap_or(program))));
    let log = log.expect("a log file in the temporary directory");
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", program]);
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
    command
}

fn start_vhost(dir: &Path, cid: u32) -> Child {
    let program = images().path("vhost-device-vsock").display().to_string();
    let mut command = launcher(&program, dir);
    command.arg("--guest-cid").arg(cid.to_string());
    command.arg("--socket").arg(dir.join("vhost")).arg("--uds-path").arg(dir.join("vsock"));
    let child = command.spawn().expect("setpriv and vhost-device-vsock start");
    let start = Instant::now();
    while !dir.join("vhost").exists() && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

/// A running machine; dropping it kills it.
pub(crate) struct Vm {
    processes: Vec<Child>,
    links: Option<Links>,
    dir: TempDir,
    machine: Machine,
}

struct Links {
    qmp: Qmp,
    guest: Guest,
}

impl Drop for Vm {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Vm {
    fn connect(&self) -> Result<Links, String> {
        let qmp = Qmp::new(self.connect_to("qmp")?)?;
        Ok(Links { qmp, guest: Guest::new(self.connect_to("control")?) })
    }

    fn connect_to(&self, name: &str) -> Result<UnixStream, String> {
        let start = Instant::now();
        loop {
            match UnixStream::connect(self.dir.path().join(name)) {
                Ok(stream) => return Ok(stream),
                Err(error) if start.elapsed() > Duration::from_secs(20) => {
                    return Err(format!("{name}: {error}"));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    fn image_name(&self) -> &'static str {
        if self.machine.root { "systemd" } else { "initrd" }
    }

    /// The Unix socket through which the guest's vsock is reached.
    pub(crate) fn vsock_path(&self) -> PathBuf {
        self.dir.path().join("vsock")
    }

    /// Ends the test with `error` and what the guest and the VMM last said.
    pub(crate) fn fail(&self, error: &str) -> ! {
        let tail = |name: &str| {
            let bytes = std::fs::read(self.dir.path().join(name)).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let lines = text.lines().collect::<Vec<_>>();
            lines.get(lines.len().saturating_sub(25)..).unwrap_or_default().join("\n")
        };
        panic!(
            "{error}\n--- console ({} {})\n{}\n--- QEMU\n{}\n--- vhost-device-vsock\n{}",
            self.machine.kernel,
            self.image_name(),
            tail("console.log"),
            tail("qemu-system-x86_64.err"),
            tail("vhost-device-vsock.err"),
        )
    }

    fn links(&mut self) -> &mut Links {
        self.links.as_mut().expect("connected at boot")
    }

    /// Runs `command` in the guest, whatever it ends with.
    pub(crate) fn run(&mut self, command: &str) -> Output {
        self.run_for(command, COMMAND_TIMEOUT)
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

    pub(crate) fn qmp(&mut self, command: &str, arguments: Value) -> Value {
        self.links().qmp.execute(command, arguments).unwrap_or_else(|error| self.fail(&error))
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
        self.wait(&format!("device {device} to reach {mib} MiB"), Duration::from_secs(30), |vm| {
            vm.memory_devices().get(device).is_some_and(|device| device.plugged_bytes == mib * MIB)
        });
    }

    /// Waits until the VMM has said the same for `quiet`.
    pub(crate) fn wait_quiet(&mut self, quiet: Duration) -> u64 {
        let (mut last, mut since) = (self.plugged(), Instant::now());
        self.wait("the plugged size to stay", quiet + Duration::from_secs(60), |vm| {
            let now = vm.plugged();
            if now != last {
                (last, since) = (now, Instant::now());
            }
            since.elapsed() >= quiet
        });
        last
    }

    /// Takes `mib` MiB away from the guest with the balloon (0 gives all back) and waits until it is done.
    pub(crate) fn inflate(&mut self, mib: u64) {
        // QEMU counts boot memory alone here, never virtio-mem.
        let whole = self.machine.boot_mib * MIB;
        let target = whole - mib * MIB;
        self.qmp("balloon", json!({ "value": target }));
        self.wait(&format!("the balloon to hold {mib} MiB"), Duration::from_secs(60), |vm| {
            vm.qmp("query-balloon", json!({})).get("actual").and_then(Value::as_u64) == Some(target)
        });
    }

    pub(crate) fn wait(&mut self, what: &str, timeout: Duration, mut done: impl FnMut(&mut Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            if start.elapsed() > timeout {
                let devices = self.memory_devices();
                self.fail(&format!("waited {timeout:?} for {what}; the VMM says {devices:?}"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
