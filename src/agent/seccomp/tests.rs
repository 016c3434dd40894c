//! The filter is for good, so each case is a process: this test program again, told which call to make.
#![allow(unsafe_code, reason = "system calls that nothing else would make")]

use super::*;
use crate::agent::exit;
use std::process::{Command, Output};

/// Tells the child what to do.
const CASE: &str = "GUESTMETER_TEST_CALL";

/// Not a test of its own: what the others run.
#[test]
fn child() {
    let Ok(case) = std::env::var(CASE) else { return };
    let options = Options { notify: NotifyAddress::None, ..Options::default() };
    // What a case needs is opened before, as the agent does.
    let pid = rustix::process::getpid().as_raw_pid();
    apply(&options, false).unwrap();
    let [number, first, second, third] = arguments(&case, pid);
    // SAFETY: calls that the filter does not let through, or that harm nobody.
    let result = unsafe { libc::syscall(number, first, second, third, 0, 0, 0) };
    eprintln!("it came back with {result}");
    std::process::exit(0);
}

/// The number and three arguments. Strings are NULL: a call that were let through would fail, and the test with it.
fn arguments(case: &str, pid: i32) -> [c_long; 4] {
    let family = |family: i32| [libc::SYS_socket, family.into(), libc::SOCK_STREAM.into(), 0];
    let netlink =
        |kind: i32| [libc::SYS_socket, libc::AF_NETLINK.into(), libc::SOCK_DGRAM.into(), kind.into()];
    match case {
        "execve" => [libc::SYS_execve, 0, 0, 0],
        "clone" => [libc::SYS_clone, 0, 0, 0],
        "clone3" => [libc::SYS_clone3, 0, 0, 0],
        "ptrace" => [libc::SYS_ptrace, 0, 0, 0],
        "setuid" => [libc::SYS_setuid, 0, 0, 0],
        "bpf" => [libc::SYS_bpf, 0, 0, 0],
        "kill" => [libc::SYS_kill, 1, 0, 0],
        "tgkill" => [libc::SYS_tgkill, 1, 1, 0],
        "rt_sigaction" => [libc::SYS_rt_sigaction, libc::SIGSYS.into(), 0, 0],
        "mmap" => [libc::SYS_mmap, 0, 4096, (libc::PROT_READ | libc::PROT_EXEC).into()],
        "mprotect" => [libc::SYS_mprotect, 0, 4096, libc::PROT_EXEC.into()],
        "open to write" => [libc::SYS_openat, libc::AT_FDCWD.into(), 0, libc::O_WRONLY.into()],
        "open to make" => [libc::SYS_openat, libc::AT_FDCWD.into(), 0, libc::O_CREAT.into()],
        "inet" => family(libc::AF_INET),
        "vsock" => family(libc::AF_VSOCK),
        "routes" => netlink(libc::NETLINK_ROUTE),
        "hotplug" => netlink(libc::NETLINK_KOBJECT_UEVENT),
        "unlink" => [libc::SYS_unlinkat, libc::AT_FDCWD.into(), 0, 0],
        "ioctl" => [libc::SYS_ioctl, 0, 0, 0],
        "open to read" => [libc::SYS_openat, libc::AT_FDCWD.into(), 0, libc::O_RDONLY.into()],
        "signal itself" => [libc::SYS_tgkill, pid.into(), pid.into(), 0],
        "getpid" => [libc::SYS_getpid, 0, 0, 0],
        other => panic!("{other}"),
    }
}

fn run(case: &str) -> (Output, String) {
    let program = std::env::current_exe().unwrap();
    let test = ["agent::seccomp::tests::child", "--exact", "--nocapture"];
    let output = Command::new(program).args(test).env(CASE, case).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, text)
}

#[test]
fn what_is_not_on_the_list_is_named_and_ends_the_process() {
    for case in [
        "execve",
        "clone",
        "clone3",
        "ptrace",
        "setuid",
        "bpf",
        "kill",
        "tgkill",
        "rt_sigaction",
        "mmap",
        "mprotect",
        "open to write",
        "open to make",
        "inet",
        "vsock",
        "routes",
        "unlink",
        "ioctl",
    ] {
        let (output, text) = run(case);
        let [number, ..] = arguments(case, 0);
        assert_eq!(output.status.code(), Some(exit::SOFTWARE.into()), "{case}: {text}");
        assert!(text.contains(&format!("system call {number} is not on the agent's list")), "{case}: {text}");
    }
}

#[test]
fn what_is_on_it_comes_back() {
    for case in ["open to read", "signal itself", "getpid", "hotplug"] {
        let (output, text) = run(case);
        assert!(output.status.success() && text.contains("it came back"), "{case}: {text}");
    }
}

#[test]
fn it_dials_and_removes_only_what_it_was_told_to() {
    let calls = |options: &Options| rules(options, false).unwrap().into_keys().collect::<Vec<_>>();
    let quiet = Options { notify: NotifyAddress::None, ..Options::default() };
    let (quiet_calls, dialing) = (calls(&quiet), calls(&Options::default()));
    assert!(!quiet_calls.contains(&libc::SYS_connect) && dialing.contains(&libc::SYS_connect));
    assert!(!dialing.contains(&libc::SYS_unlinkat));
    let unix = Options { listen: vec![Address::Unix("/s".into())], ..quiet };
    assert!(calls(&unix).contains(&libc::SYS_unlinkat));
    let late: Vec<_> = rules(&unix, true).unwrap().into_keys().collect();
    assert!(late.contains(&libc::SYS_listen) && !calls(&unix).contains(&libc::SYS_listen));
    assert!(compile(rules(&unix, true).unwrap()).unwrap().len() < 4096, "the kernel's limit");
}
