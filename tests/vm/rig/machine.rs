//! What a virtual machine is made of: QEMU under TCG, with what a test names and nothing else.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::image::images;
use super::retry::once_more;
use super::snapshot::disk_path;
use super::vm::Vm;

/// Boots take 6 to 16 s on an idle machine; a busy one may need several times that.
const BOOT_TIMEOUT: Duration = Duration::from_mins(4);

/// What a machine is made of. Start from [`Machine::new`], name what is special, then [`Machine::boot`].
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(super) kernel: String,
    pub(super) root: bool,
    append: String,
    pub(super) boot_mib: u64,
    memory: Vec<VirtioMem>,
    unplugged_accessible: bool,
    balloon: Option<&'static str>,
    pub(super) vsock_cid: Option<u32>,
    /// The vsock device sits where it can be taken from: with it, a machine cannot be saved.
    pub(super) portable: bool,
    generations: Vec<&'static str>,
    counts_instructions: bool,
    cpus: u8,
}

#[derive(Clone, Debug)]
struct VirtioMem {
    requested_mib: u64,
    block_mib: u64,
}

impl Machine {
    /// 512 MiB, two CPUs, the small image on `kernel` ("5.10" to "7.3"), no device beyond the control port.
    pub(crate) fn new(kernel: &str) -> Self {
        Self {
            kernel: kernel.to_owned(),
            root: false,
            append: String::new(),
            boot_mib: 512,
            memory: Vec::new(),
            unplugged_accessible: false,
            balloon: None,
            vsock_cid: None,
            portable: false,
            generations: Vec::new(),
            counts_instructions: false,
            cpus: 2,
        }
    }

    /// The image with systemd instead of the small one.
    pub(crate) fn systemd(mut self) -> Self {
        self.root = true;
        self
    }

    /// One CPU alone: whoever is woken need not be woken from another.
    pub(crate) fn one_cpu(mut self) -> Self {
        self.cpus = 1;
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

    /// What kernels before 5.16 want of a virtio-mem device: else their driver refuses it.
    pub(crate) fn unplugged_accessible(mut self) -> Self {
        self.unplugged_accessible = true;
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

    /// One that can be saved: the vsock device is plugged in once it runs, and out again before.
    pub(crate) fn portable(mut self, cid: u32) -> Self {
        self.portable = true;
        self.vsock(cid)
    }

    /// A VMGenID device, whose value is new in each QEMU.
    pub(crate) fn vmgenid(mut self) -> Self {
        self.generations.push("vmgenid,guid=auto");
        self
    }

    /// A VMClock page; the guest reads it from kernel 7.3 on.
    pub(crate) fn vmclock(mut self) -> Self {
        self.generations.push("vmclock");
        self
    }

    /// One instruction takes one nanosecond of the guest's clock; slower, for both CPUs share a thread of QEMU's.
    pub(crate) fn counting_instructions(mut self) -> Self {
        self.counts_instructions = true;
        self
    }

    /// Starts the machine and waits until it takes commands.
    pub(crate) fn boot(self) -> Vm {
        let start = Instant::now();
        let booted = once_more(&self.name(), || {
            let mut vm = Vm::start(&self, None)?;
            let up = vm.booted();
            vm.with_last_words(up).map(|()| vm)
        });
        let vm = booted.unwrap_or_else(|error| panic!("{error}"));
        eprintln!("[{:>5.1} s to boot {}]", start.elapsed().as_secs_f32(), self.name());
        vm
    }

    /// For messages.
    pub(super) fn name(&self) -> String {
        format!("{} {}", self.kernel, if self.root { "systemd" } else { "initrd" })
    }

    /// Starts QEMU; with `incoming`, it waits for what was saved there.
    pub(super) fn start_qemu(&self, dir: &Path, incoming: Option<&Path>) -> Child {
        let mut command = launcher("qemu-system-x86_64", dir);
        let path = |name: &str| dir.join(name).display().to_string();
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        command.args(["-smp", &self.cpus.to_string()]);
        if self.counts_instructions {
            command.args(["-accel", "tcg,thread=single", "-icount", "shift=0"]);
        } else {
            command.args(["-accel", "tcg,thread=multi"]);
        }
        command.args(["-machine", "q35"]);
        command.arg("-serial").arg(format!("file:{}", path("console.log")));
        for socket in ["qmp", "qmp-vmm"] {
            command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", path(socket)));
        }
        command.args(["-device", "virtio-serial-pci", "-chardev"]);
        command.arg(format!("socket,id=control,path={},server=on,wait=off", path("control")));
        command.args(["-device", "virtserialport,chardev=control,name=guestmeter.control"]);
        self.add_images(&mut command, dir);
        self.add_memory(&mut command);
        if let Some(deflate) = self.balloon {
            command.arg("-device").arg(format!("virtio-balloon-pci,id=balloon0,deflate-on-oom={deflate}"));
        }
        if self.portable {
            command.args(["-device", "pcie-root-port,id=vsock-port,chassis=1"]);
            command.args(["-device", "pcie-root-port,id=balloon-port,chassis=2"]);
        } else if self.vsock_cid.is_some() {
            command.arg("-chardev").arg(format!("socket,id=vsock,path={}", path("vhost")));
            command.args(["-device", "vhost-user-vsock-pci,id=vsock0,chardev=vsock"]);
        }
        for device in &self.generations {
            command.args(["-device", device]);
        }
        if let Some(path) = incoming {
            command.arg("-incoming").arg(format!("file:{}", path.display()));
        }
        command.spawn().expect("setpriv and qemu-system-x86_64 start")
    }

    fn add_images(&self, command: &mut Command, dir: &Path) {
        let images = images();
        command.arg("-kernel").arg(images.path(&format!("kernel-{}", self.kernel)));
        command.arg("-initrd").arg(images.path(&format!("initrd-{}", self.kernel)));
        let mut append = format!("console=ttyS0 panic=-1{}", self.append);
        if self.root {
            append.push_str(" guestmeter.root=1");
            // Of a machine that is saved, the disk has to be kept as well.
            let overlay = disk_path(dir);
            let drive = if overlay.exists() {
                format!("file={},format=qcow2", overlay.display())
            } else {
                format!("file={},format=raw,snapshot=on", images.path("root").display())
            };
            command.args(["-drive", &format!("{drive},if=none,id=root")]);
            command.args(["-device", "virtio-blk-pci,drive=root"]);
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
            let accessible = if self.unplugged_accessible { ",unplugged-inaccessible=off" } else { "" };
            command.arg(format!(
                "virtio-mem-pci,id=vm{index},memdev=vmem{index},node={index},requested-size={requested}M,block-size={block}M{accessible}"
            ));
        }
    }
}

impl Vm {
    fn booted(&mut self) -> Result<(), String> {
        self.takes_commands(BOOT_TIMEOUT)?;
        if self.machine().portable {
            self.plug_vsock()?;
        }
        self.vsock_is_up()
    }
}

/// `setpriv` has the kernel kill the process when the test's thread is gone, whatever ended it.
pub(super) fn launcher(program: &str, dir: &Path) -> Command {
    let log = File::create(dir.join(format!("{}.err", program.rsplit('/').next().unwrap_or(program))));
    let log = log.expect("a log file in the temporary directory");
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", program]);
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
    command
}
