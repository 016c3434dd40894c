//! The system calls that the agent makes once all is open; any other ends it, and is named.
//!
//! What is left to whoever takes the agent over: to read what its user may read, to talk on sockets that are open, and
//! to dial where it was told to notify; where it could not listen, to do so. Files cannot be made or opened for writing, memory cannot be made executable,
//! and no process, thread or other kind of socket can be had.

mod violation;

use super::address::{Address, NotifyAddress};
use super::cli::Options;
use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use std::collections::BTreeMap;

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub(super) enum SeccompError {
    /// The rules make no filter.
    #[error("there are no rules for this architecture")]
    Rules(#[from] BackendError),
    /// The kernel does not take it, or not the signal that names violations.
    #[error("the kernel refuses: {0}")]
    Kernel(#[from] std::io::Error),
}

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// With any arguments. Grouped by what makes them.
const ALWAYS: &[c_long] = &[
    // The loop.
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_ctl,
    // No call where the clock is read without the kernel; on some VMs it cannot be.
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_restart_syscall,
    // Connections and the service manager.
    libc::SYS_ppoll,
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_close,
    // Kernel files, the state file, the log.
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_getdents64,
    libc::SYS_sysinfo,
    libc::SYS_sched_getaffinity,
    // Memory.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // The standard library and the C library, now and then.
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// What newer architectures do not have.
#[cfg(target_arch = "x86_64")]
const ALWAYS_HERE: &[c_long] = &[libc::SYS_stat, libc::SYS_time];
#[cfg(not(target_arch = "x86_64"))]
const ALWAYS_HERE: &[c_long] = &[];

const ARCH: Option<TargetArch> = if cfg!(target_arch = "x86_64") {
    Some(TargetArch::x86_64)
} else if cfg!(target_arch = "aarch64") {
    Some(TargetArch::aarch64)
} else if cfg!(target_arch = "riscv64") {
    Some(TargetArch::riscv64)
} else {
    None
};

/// Makes it the law for this thread, for good: a violation is named on standard error and ends the process.
/// One that lacks a listener makes it later.
pub(super) fn apply(options: &Options, listens_later: bool) -> Result<usize, SeccompError> {
    let rules = rules(options, listens_later)?;
    let calls = rules.len();
    let program = compile(rules)?;
    violation::name_them()?;
    match seccompiler::apply_filter(&program) {
        Ok(()) => Ok(calls),
        Err(seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error)) => Err(error.into()),
        // Of a filter that is empty, or is for other threads too.
        Err(_) => Err(std::io::Error::from(std::io::ErrorKind::InvalidInput).into()),
    }
}

fn compile(rules: Rules) -> Result<BpfProgram, BackendError> {
    // Found by its name, it would bring 12 KB of tables of small letters.
    let arch = ARCH.ok_or(BackendError::InvalidTargetArch(String::new()))?;
    // A trap does not run the call either, and unlike a kill it says which one it was. Calls by the numbers of another
    // architecture are killed.
    SeccompFilter::new(rules, SeccompAction::Trap, SeccompAction::Allow, arch)?.try_into()
}

fn rules(options: &Options, listens_later: bool) -> Result<Rules, BackendError> {
    let mut rules = Rules::new();
    // One by one: collected, they would be sorted first, by 8 KiB of code.
    for call in ALWAYS.iter().chain(ALWAYS_HERE) {
        rules.insert(*call, Vec::new());
    }
    // Files that exist, for reading.
    let opening = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | (libc::O_TMPFILE & !libc::O_DIRECTORY);
    rules.insert(libc::SYS_openat, vec![lacks(2, opening)?]);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_open, vec![lacks(1, opening)?]);
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![lacks(2, libc::PROT_EXEC)?]);
    }
    rules.insert(libc::SYS_fcntl, vec![is(1, libc::F_GETFD)?, is(1, libc::F_GETFL)?]);
    // How a panic ends: by a signal to itself.
    let myself = rustix::process::getpid().as_raw_pid();
    for call in [libc::SYS_tgkill, libc::SYS_tkill] {
        rules.insert(call, vec![is(0, myself)?]);
    }
    // Hotplug events are listened to again where that ended.
    let mut families = vec![hotplug()?];
    rules.insert(libc::SYS_bind, Vec::new());
    if let Some(family) = family(&options.notify) {
        families.push(is(0, family)?);
        rules.insert(libc::SYS_connect, Vec::new());
    }
    if listens_later {
        families.push(is(0, libc::AF_VSOCK)?);
        rules.insert(libc::SYS_listen, Vec::new());
        rules.insert(libc::SYS_ioctl, vec![is(1, i32::try_from(libc::FIONBIO).unwrap_or(-1))?]);
    }
    rules.insert(libc::SYS_socket, families);
    if options.listen.iter().any(|address| matches!(address, Address::Unix(_))) {
        // Its own socket, at the end.
        rules.insert(libc::SYS_unlinkat, Vec::new());
    }
    Ok(rules)
}

/// A socket of hotplug events, and of nothing else that netlink has.
fn hotplug() -> Result<SeccompRule, BackendError> {
    let equals = |argument, value: i32| {
        let (length, value) = (SeccompCmpArgLen::Dword, value.cast_unsigned().into());
        SeccompCondition::new(argument, length, SeccompCmpOp::Eq, value)
    };
    SeccompRule::new(vec![equals(0, libc::AF_NETLINK)?, equals(2, libc::NETLINK_KOBJECT_UEVENT)?])
}

/// Of the sockets that the agent makes to notify.
fn family(notify: &NotifyAddress) -> Option<i32> {
    match notify {
        NotifyAddress::Host { .. } => Some(libc::AF_VSOCK),
        NotifyAddress::Unix(_) => Some(libc::AF_UNIX),
        NotifyAddress::None => None,
    }
}

/// Argument number `argument` is `value`.
fn is(argument: u8, value: i32) -> Result<SeccompRule, BackendError> {
    condition(argument, SeccompCmpOp::Eq, value.cast_unsigned().into())
}

/// Argument number `argument` has none of `bits`.
fn lacks(argument: u8, bits: i32) -> Result<SeccompRule, BackendError> {
    condition(argument, SeccompCmpOp::MaskedEq(bits.cast_unsigned().into()), 0)
}

fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?])
}

#[cfg(test)]
mod tests;
