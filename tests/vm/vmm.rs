//! QEMU's own word as `host::vmm` reads it, against the rig's own connection to the same QEMU.

use crate::rig::template::{bare, two_nodes};
use crate::rig::{HUNG, MIB, Machine, Vm};
use guestmeter::host::vmm::{Vmm, VmmAddress, VmmCause, VmmEvent, VmmKind, VmmMemory, VmmWatch};
use guestmeter::units::Bytes;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;
use tokio::runtime::Runtime;

/// For one question to QEMU, which answers in milliseconds.
const LIMIT: Duration = Duration::from_secs(60);

struct Asked {
    runtime: Runtime,
    vmm: Vmm,
}

impl Asked {
    fn of(vm: &Vm, limit: Duration) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let address = VmmAddress { kind: VmmKind::Qmp, path: vm.qmp_path() };
        Self { runtime, vmm: Vmm::new(address, limit) }
    }

    fn memory(&self) -> VmmMemory {
        self.runtime.block_on(self.vmm.memory()).unwrap()
    }

    fn watch(&self) -> VmmWatch {
        self.runtime.block_on(self.vmm.watch()).unwrap()
    }

    fn next(&self, watch: &mut VmmWatch) -> VmmEvent {
        let next = async { tokio::time::timeout(HUNG, watch.next()).await };
        self.runtime.block_on(next).expect("an event").unwrap()
    }

    /// Waits for events until one says that `device` has `mib` MiB: QEMU tells of the way there, too.
    fn until(&self, watch: &mut VmmWatch, device: &str, mib: u64) {
        loop {
            match self.next(watch) {
                VmmEvent::Changed(change) if change.plugged == Bytes::mib(mib) => {
                    assert_eq!(change.device.as_deref(), Some(device));
                    return;
                }
                VmmEvent::Changed(_) => {}
                VmmEvent::AskAgain => panic!("the connection was made again"),
            }
        }
    }
}

fn same_as_the_rig(asked: &Asked, vm: &mut Vm) {
    let memory = asked.memory();
    let devices = vm.memory_devices();
    let sum = |of: fn(&crate::rig::MemoryDevice) -> u64| Bytes(devices.iter().map(of).sum());
    assert_eq!(memory.plugged, Ok(sum(|device| device.plugged_bytes)));
    assert_eq!(memory.requested, sum(|device| device.requested_bytes));
    assert_eq!(memory.maximum, Bytes(devices.len() as u64 * 2048 * MIB));
    assert_eq!(memory.ignored, Vec::<String>::new());
}

#[test]
fn qemus_word_is_what_the_rig_hears_at_every_size() {
    let mut vm = bare().restore(42);
    let asked = Asked::of(&vm, LIMIT);
    let cpus = asked.runtime.block_on(asked.vmm.cpus()).unwrap();
    assert_eq!((cpus.present, cpus.maximum), (2, None));
    for mib in [0, 2, 130, 300, 2048, 126, 0] {
        vm.resize(0, mib);
        vm.wait_quiet(Duration::from_secs(1));
        same_as_the_rig(&asked, &mut vm);
        assert_eq!(asked.memory().total(), Some(Bytes::mib(512 + mib)));
        let guest = vm.witness_exact("");
        assert_eq!(guest.bytes("memory.total_bytes"), (512 + mib) * MIB, "the guest is of the same mind");
    }
}

#[test]
fn an_unplug_that_did_not_finish_is_told_as_it_is() {
    let mut vm = bare().restore(42);
    vm.online_by_policy();
    vm.resize(0, 1024);
    vm.sh("mkdir -p /tmp/held && mount -t tmpfs -o size=700m none /tmp/held");
    vm.sh("dd if=/dev/zero of=/tmp/held/file bs=1M count=600");
    vm.request(0, 0);
    vm.wait_quiet(Duration::from_secs(2));
    let asked = Asked::of(&vm, LIMIT);
    same_as_the_rig(&asked, &mut vm);
    let memory = asked.memory();
    assert_eq!(memory.requested, Bytes::ZERO);
    assert!(memory.plugged.unwrap() > Bytes::mib(100), "{memory:?}");
}

#[test]
fn devices_are_summed_and_a_dimm_is_boot_memory() {
    let mut vm = two_nodes().restore(42);
    vm.resize(0, 130);
    vm.resize(1, 258);
    vm.wait_quiet(Duration::from_secs(1));
    let asked = Asked::of(&vm, LIMIT);
    same_as_the_rig(&asked, &mut vm);
    assert_eq!(asked.memory().total(), Some(Bytes::mib(512 + 130 + 258)));

    vm.qmp("object-add", json!({ "qom-type": "memory-backend-ram", "id": "d0", "size": 256 * MIB }));
    vm.qmp("device_add", json!({ "driver": "pc-dimm", "id": "dimm0", "memdev": "d0" }));
    let memory = asked.memory();
    assert_eq!((memory.boot, memory.plugged), (Bytes::mib(768), Ok(Bytes::mib(388))));
}

#[test]
fn a_plain_vm_is_its_boot_memory_exactly_to_its_guest_and_paused_or_not_to_its_vmm() {
    let mut vm = Machine::new("6.12").boot();
    let reading = vm.witness_exact("");
    assert_eq!(reading.bytes("memory.total_bytes"), 512 * MIB);
    assert_eq!(reading.text("memory.state"), "settled");
    let asked = Asked::of(&vm, LIMIT);
    let plain = VmmMemory {
        boot: Bytes::mib(512),
        plugged: Ok(Bytes::ZERO),
        requested: Bytes::ZERO,
        maximum: Bytes::ZERO,
        ignored: Vec::new(),
    };
    assert_eq!(asked.memory(), plain);
    vm.stop();
    assert_eq!(asked.memory(), plain);
}

#[test]
fn events_tell_of_each_resize_and_the_watch_answers_between() {
    let mut vm = bare().restore(42);
    let asked = Asked::of(&vm, LIMIT);
    let mut watch = asked.watch();
    assert_eq!(asked.next(&mut watch), VmmEvent::AskAgain);
    for mib in [130, 1024, 2, 0] {
        vm.request(0, mib);
        asked.until(&mut watch, "vm0", mib);
        let memory = asked.runtime.block_on(watch.memory()).unwrap();
        assert_eq!((memory.plugged, memory.requested), (Ok(Bytes::mib(mib)), Bytes::mib(mib)));
    }
}

#[test]
fn a_watch_keeps_others_out_and_ends_with_the_machine() {
    let mut vm = bare().restore(42);
    let (asked, hasty) = (Asked::of(&vm, LIMIT), Asked::of(&vm, Duration::from_secs(2)));
    let mut watch = asked.watch();
    let error = hasty.runtime.block_on(hasty.vmm.memory()).unwrap_err();
    assert!(matches!(error.cause, VmmCause::NoGreeting(_)), "{error}");
    drop(watch);
    asked.memory();

    watch = asked.watch();
    assert_eq!(asked.next(&mut watch), VmmEvent::AskAgain);
    vm.qmp("quit", json!({}));
    let error = asked.runtime.block_on(watch.next()).unwrap_err();
    assert!(matches!(error.cause, VmmCause::Closed), "{error}");
    // Until it has gone, a machine that quits may still take a connection, and close it.
    let gone = (0..600).any(|_| {
        let error = asked.runtime.block_on(watch.next()).unwrap_err();
        std::thread::sleep(Duration::from_millis(100));
        matches!(error.cause, VmmCause::NoSocket | VmmCause::NobodyAtSocket)
    });
    assert!(gone, "somebody still listens");
}

/// `read --vmm` on the host, which has to end with `code`; the VMM's line of it.
fn both_sides(vm: &Vm, code: i32) -> Value {
    let address = format!("qmp://{}", vm.qmp_path().display());
    let output = vm.host("read", &["--json", "--timeout", "60s", "--vmm", &address]);
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(text.lines().nth(1).expect("a second line")).expect(&text)
}

#[test]
fn guest_and_vmm_side_by_side_agree_until_the_guest_lies() {
    let mut vm = bare().restore(42);
    vm.start_agent("--device-config");
    for mib in [0, 130, 300] {
        vm.resize(0, mib);
        vm.wait_quiet(Duration::from_secs(1));
        let both = both_sides(&vm, 0);
        assert_eq!(both["plugged_bytes"], mib * MIB);
        assert_eq!(both["differs"], json!([]));
    }
    // Root in the guest may show the agent any file; what the VM has, it cannot change.
    vm.sh("echo 0-3 >/tmp/online && mount --bind /tmp/online /sys/devices/system/cpu/online");
    vm.kill_agent();
    vm.start_agent("");
    let both = both_sides(&vm, 1);
    assert_eq!((&both["differs"], &both["cpus"]), (&json!(["cpus"]), &json!(2)));
}

/// One line of a recording: what was asked, `greeting`, or `nobody`; and QEMU's line.
fn recorded(to: &str, line: &str) -> String {
    let line: Value = serde_json::from_str(line).expect(line);
    format!("{}\n", json!({ "to": to, "line": line }))
}

#[test]
#[ignore = "writes fixtures"]
fn record_qmp() {
    let mut vm = Machine::new("6.12").online_movable().memory(0).boot();
    let mut qemu = BufReader::new(UnixStream::connect(vm.qmp_path()).unwrap());
    qemu.get_ref().set_read_timeout(Some(LIMIT)).unwrap();
    let mut line = String::new();
    qemu.read_line(&mut line).unwrap();
    let greeting: Value = serde_json::from_str(&line).unwrap();
    let version = &greeting["QMP"]["version"]["qemu"];
    let name = format!("qmp-{}.{}.{}.jsonl", version["major"], version["minor"], version["micro"]);
    let mut recording = recorded("greeting", &line);
    let mut ask = |command: &str, id: u64| {
        writeln!(qemu.get_mut(), "{}", json!({ "execute": command, "id": id })).unwrap();
        let mut unasked = String::new();
        loop {
            let mut line = String::new();
            qemu.read_line(&mut line).unwrap();
            if line.contains("\"event\"") {
                unasked += &recorded("nobody", &line);
            } else {
                return (recorded(command, &line), unasked);
            }
        }
    };
    recording += &ask("qmp_capabilities", 1).0;
    vm.resize(0, 130);
    let commands = ["query-status", "query-memory-size-summary", "query-memory-devices", "query-cpus-fast"];
    let mut events = String::new();
    for (command, id) in commands.into_iter().zip(2..) {
        let (answer, unasked) = ask(command, id);
        recording += &answer;
        events += &unasked;
    }
    recording += &events;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/vmm");
    std::fs::write(folder.join(name), recording).unwrap();
}
