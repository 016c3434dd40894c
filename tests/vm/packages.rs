//! The agent's packages in a guest that has none of it: installed, they serve the host without a word of configuration;
//! taken out, they leave nothing.

use crate::rig::template::with_systemd;
use crate::rig::{HUNG, MIB, Vm};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// What `systemd/package` made; without it there is nothing to install.
fn package(suffix: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/package");
    let version = env!("CARGO_PKG_VERSION");
    let path = folder.join(suffix.replace("VERSION", version));
    assert!(path.exists(), "{} is missing: run systemd/package first", path.display());
    path
}

/// A guest whose image has no agent.
fn bare() -> Vm {
    let mut vm = with_systemd().restore(42);
    vm.sh("systemctl --quiet disable guestmeterd.socket guestmeterd.service");
    vm.sh("find /usr -name '*guestmeterd*' -exec rm {} + && userdel guestmeter");
    vm.sh("systemctl daemon-reload && systemctl reset-failed");
    assert!(vm.try_read().is_none(), "there is no agent");
    vm
}

/// Every path on the disk and of the agent in /run, and every user; but the books of the package manager itself.
fn everything(vm: &mut Vm) -> BTreeSet<String> {
    let find = "find / /run -xdev -not -path '/var/log/*' -not -path '/tmp/*' -not -path '/run/systemd/*' \
        -not -path '/var/lib/dpkg/*' -not -path '/proc/*' -not -path '/run/log/*' -not -path '/run/udev/*' \
        -not -name '*-' -not -name '.pwd.lock'";
    let found = vm.sh(&format!("{find}; cut -d: -f1 /etc/passwd /etc/group"));
    found.lines().map(str::to_owned).collect()
}

fn serves(vm: &mut Vm) {
    vm.wait("the agent to answer", HUNG, |vm| vm.try_read().is_some());
    let reading = vm.read_exact();
    assert_eq!(reading.bytes("memory.plugged_bytes"), 130 * MIB);
    for unit in ["guestmeterd.socket", "guestmeterd.service"] {
        assert_eq!(vm.sh(&format!("systemctl is-enabled {unit}")).trim(), "enabled", "by its preset");
    }
    assert_eq!(vm.sh("ps -o user:20= -C guestmeterd").trim(), "guestmeter");
    assert_eq!(vm.sh("systemctl --failed --no-legend --plain"), "");
}

fn is_gone(vm: &mut Vm, before: &BTreeSet<String>) {
    assert!(vm.try_read().is_none(), "nobody answers");
    let after = everything(vm);
    let left: Vec<&String> = after.difference(before).collect();
    let lost: Vec<&String> = before.difference(&after).collect();
    assert!(left.is_empty() && lost.is_empty(), "left: {left:?}, lost: {lost:?}");
}

#[test]
fn a_package_serves_without_configuration_and_leaves_nothing() {
    let (deb, tarball) =
        (package("guestmeterd_VERSION-1_amd64.deb"), package("guestmeterd-VERSION-x86_64-linux.tar.gz"));
    let mut vm = bare();
    vm.put(&std::fs::read(deb).unwrap(), "/tmp/guestmeterd.deb");
    let before = everything(&mut vm);

    vm.sh("dpkg -i /tmp/guestmeterd.deb 2>&1");
    serves(&mut vm);
    // An update leaves what was decided since, and the count goes on.
    let first = vm.read_exact();
    vm.sh("systemctl --quiet disable guestmeterd.service && dpkg -i /tmp/guestmeterd.deb 2>&1");
    assert_eq!(vm.run("systemctl is-enabled guestmeterd.service").text().trim(), "disabled");
    vm.wait("the agent to answer", HUNG, |vm| vm.try_read().is_some());
    let second = vm.read_exact();
    assert_eq!(second.bytes("identity.instance"), first.bytes("identity.instance") + 1);
    assert!(second.bytes("usage.active.seconds") >= first.bytes("usage.active.seconds"));
    vm.sh("dpkg --purge guestmeterd 2>&1");
    is_gone(&mut vm, &before);

    // The tarball, as into an image that is being made: enabled, not started.
    vm.put(&std::fs::read(tarball).unwrap(), "/tmp/guestmeterd.tar.gz");
    vm.sh("tar -C /tmp -xf /tmp/guestmeterd.tar.gz && mv /tmp/guestmeterd-*-linux /tmp/agent");
    vm.sh("/tmp/agent/install 2>&1");
    assert!(vm.try_read().is_none(), "it starts with the next boot");
    vm.sh("systemctl daemon-reload && systemctl start guestmeterd.socket guestmeterd.service");
    serves(&mut vm);
    vm.sh("/tmp/agent/install --uninstall 2>&1");
    is_gone(&mut vm, &before);
}
