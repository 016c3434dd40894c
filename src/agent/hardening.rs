//! What the agent denies itself once all is open, by its own hand: under systemd it is the second lock, elsewhere the
//! only one.
//!
//! Memory is not locked: there is no secret in it, and locking would keep the whole program resident where a third is
//! used. The unit's `MemoryMin=` keeps what is used.
#![allow(unsafe_code, reason = "prctl(2) is not whole in the safe interfaces")]

use super::cli::Options;
use super::privilege;
use super::seccomp::{self, SeccompError};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::set_no_new_privs;

/// One thing that it denies itself.
#[derive(Debug)]
pub(super) struct Measure {
    pub(super) name: &'static str,
    /// How, or why not.
    pub(super) taken: Result<String, Refused>,
}

/// Why a measure was not taken. The agent serves all the same: a meter that stays down helps nobody.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error(transparent)]
    System(#[from] Errno),
    #[error("seccomp: {0}")]
    Seccomp(#[from] SeccompError),
    #[error("--no-seccomp was given")]
    NotWanted,
}

/// Takes every measure, in an order in which none forbids the next. Acts on the thread and on the process: the process
/// must be the agent's own.
/// An agent that lacks a listener makes it later.
pub(super) fn apply(options: &Options, listens_later: bool) -> Vec<Measure> {
    let done = |taken: Result<(), Errno>, how: &str| Ok(taken.map(|()| how.to_owned())?);
    vec![
        Measure {
            name: "no memory image",
            taken: done(no_memory_image(), "no core dump, no ptrace by its own user"),
        },
        Measure {
            name: "no capabilities",
            taken: done(privilege::drop_capabilities(), "all five sets are empty"),
        },
        Measure { name: "no new privileges", taken: done(set_no_new_privs(true), "no program gives it any") },
        Measure { name: "no writable code", taken: no_writable_code(options) },
        Measure { name: "system calls", taken: system_calls(options, listens_later) },
    ]
}

fn no_memory_image() -> Result<(), Errno> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let limit = getrlimit(Resource::Core);
    if limit.current == Some(0) && limit.maximum == Some(0) {
        return Ok(());
    }
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
}

/// `PR_SET_MDWE` of Linux 6.3.
fn no_writable_code(options: &Options) -> Result<String, Refused> {
    const PR_SET_MDWE: libc::c_int = 65;
    const PR_MDWE_REFUSE_EXEC_GAIN: libc::c_ulong = 1;
    let none: libc::c_ulong = 0;
    // SAFETY: changes what mappings may be made later; touches no memory.
    let refused = unsafe { libc::prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, none, none, none) };
    match refused {
        0 => Ok("the kernel makes no memory executable any more".to_owned()),
        _ if options.seccomp => Ok("by the system calls alone: the kernel is older than 6.3".to_owned()),
        _ => Err(std::io::Error::last_os_error()
            .raw_os_error()
            .map_or(Errno::INVAL, Errno::from_raw_os_error)
            .into()),
    }
}

fn system_calls(options: &Options, listens_later: bool) -> Result<String, Refused> {
    if !options.seccomp {
        return Err(Refused::NotWanted);
    }
    let calls = seccomp::apply(options, listens_later)?;
    Ok(format!("{calls} are allowed, any other ends it"))
}
