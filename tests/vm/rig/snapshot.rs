//! Saving a machine to a file and restoring it in a new QEMU, as often as a test likes.

use super::HUNG;
use super::machine::Machine;
use super::retry::once_more;
use super::vm::Vm;
use serde_json::json;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// A machine as it was. The files have no names: they are gone with the last of the processes that use them.
pub(crate) struct Saved {
    machine: Machine,
    memory: File,
    disk: Option<File>,
}

impl Saved {
    /// The machine in a new QEMU, with a vsock device of its own and under `cid`, before its first instruction.
    pub(crate) fn restore_paused(&self, cid: u32) -> Vm {
        self.restored(cid, |_| Ok(()))
    }

    /// The same, running: it takes commands and connections.
    pub(crate) fn restore(&self, cid: u32) -> Vm {
        self.restored(cid, |vm| {
            vm.try_qmp("cont", json!({}))?;
            vm.vsock_is_up()?;
            vm.takes_commands(HUNG)
        })
    }

    fn restored(&self, cid: u32, then: fn(&mut Vm) -> Result<(), String>) -> Vm {
        let start = Instant::now();
        let machine = self.machine.clone().portable(cid);
        let restored = once_more(&machine.name(), || {
            let mut vm = Vm::start(&machine, Some(self))?;
            let up = vm.is_read().and_then(|()| vm.plug_vsock()).and_then(|()| then(&mut vm));
            vm.with_last_words(up).map(|()| vm)
        });
        let vm = restored.unwrap_or_else(|error| panic!("{error}"));
        eprintln!("[{:>5.1} s to restore {}]", start.elapsed().as_secs_f32(), machine.name());
        vm
    }

    pub(super) fn memory_path(&self) -> PathBuf {
        path_of(&self.memory)
    }
}

impl Vm {
    /// Waits until QEMU has read what was saved; the machine is paused then.
    fn is_read(&mut self) -> Result<(), String> {
        let status = |vm: &mut Self| {
            let answer = vm.try_qmp("query-status", json!({}))?;
            Ok::<_, String>(answer["status"].as_str().unwrap_or_default().to_owned())
        };
        self.try_wait("the snapshot to be read", HUNG, |vm| Ok(status(vm)? != "inmigrate"))?;
        match status(self)?.as_str() {
            "paused" => Ok(()),
            other => Err(format!("restored, but not to a pause: {other}")),
        }
    }

    /// Saves the machine, which is then paused and without vsock; [`Vm::go_on`] undoes both.
    pub(crate) fn save(&mut self) -> Saved {
        assert!(self.machine().portable, "only a portable machine can be saved");
        let memory = tempfile::tempfile().expect("a temporary file");
        self.detach_vsock();
        self.stop();
        self.qmp("migrate-set-parameters", json!({ "max-bandwidth": 1_u64 << 34 }));
        self.qmp("migrate", json!({ "uri": format!("file:{}", path_of(&memory).display()) }));
        self.wait("the machine to be saved", HUNG, |vm| {
            let migration = vm.qmp("query-migrate", json!({}));
            let status = migration["status"].as_str().unwrap_or_default().to_owned();
            if status == "failed" {
                vm.fail(&format!("saving: {migration}"));
            }
            status == "completed"
        });
        let disk = self.disk_path().exists().then(|| {
            let mut copy = tempfile::tempfile().expect("a temporary file");
            let mut disk = File::open(self.disk_path()).expect("the disk opens");
            std::io::copy(&mut disk, &mut copy).expect("the disk copied");
            copy
        });
        Saved { machine: self.machine().clone(), memory, disk }
    }

    /// The machine that was saved runs on, beside what is restored from it.
    pub(crate) fn go_on(&mut self) {
        self.plug_vsock().unwrap_or_else(|error| self.fail(&error));
        self.cont();
    }

    fn disk_path(&self) -> PathBuf {
        disk_path(self.dir.path())
    }
}

pub(super) fn disk_path(dir: &Path) -> PathBuf {
    dir.join("root.qcow2")
}

/// The root file system's changes: saved ones, or none yet.
pub(super) fn make_disk(dir: &Path, base: &Path, saved: Option<&Saved>) {
    let disk = disk_path(dir);
    if let Some(changes) = saved.and_then(|saved| saved.disk.as_ref()) {
        std::fs::copy(path_of(changes), disk).expect("the saved disk copied");
        return;
    }
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
        .args([base, &disk])
        .stdin(Stdio::null())
        .status();
    assert!(made.expect("qemu-img runs").success(), "no overlay over {}", base.display());
}

fn path_of(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()))
}
