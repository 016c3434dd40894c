//! From a command line to a running agent: everything is opened, then privilege is given up, then it serves.

use super::address::{Address, PORT_DEFAULT};
use super::cli::Options;
use super::daemon::{Daemon, Sockets};
use super::listener::{ListenError, Listener};
use super::once::kernel_options;
use super::passed::Passed;
use super::privilege::{PrivilegeError, User};
use super::state::{StateError, StateFile, Stored, Unusable};
use super::supervisor::Supervisor;
use super::uevent::Uevents;
use super::witness::Witness;
use super::{boot_id, clock, exit, log as logging};
use crate::session::{Limits, Myself, Session};
use crate::wire::message::Agent;
use crate::wire::version;
use std::io;

/// Why the agent cannot start.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("descriptors from systemd: {0}")]
    Passed(io::Error),
    #[error(transparent)]
    BootId(#[from] boot_id::BootIdError),
    #[error("the event loop cannot be made: {0}")]
    Runtime(io::Error),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    #[error("NOTIFY_SOCKET: {0}")]
    Supervisor(io::Error),
}

impl StartError {
    /// The number of sysexits.h.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Passed(_) | Self::Runtime(_) | Self::Supervisor(_) => exit::OSERR,
            Self::BootId(_) => exit::UNAVAILABLE,
            Self::Listen(ListenError::System { source, .. })
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                exit::NOPERM
            }
            Self::Listen(_) => exit::UNAVAILABLE,
            Self::State(StateError::Open { source, .. })
                if matches!(*source, rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) =>
            {
                exit::NOPERM
            }
            Self::State(_) => exit::CANTCREAT,
            Self::Privilege(PrivilegeError::NoSuchUser(_)) => exit::USAGE,
            Self::Privilege(PrivilegeError::Read { .. }) => exit::OSERR,
            Self::Privilege(_) => exit::NOPERM,
        }
    }
}

/// Runs the agent until a signal ends it.
pub(super) fn serve(options: &Options) -> Result<(), StartError> {
    logging::start();
    let passed = Passed::take().map_err(StartError::Passed)?;
    let boot_id = boot_id::read(&options.proc_root)?;
    let user = options.user.as_deref().map(User::find).transpose()?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(StartError::Runtime)?;
    let (state, found) = StateFile::open(&options.state, boot_id)?;
    let (saved, baseline) = match taken_up(options, found) {
        Some(stored) => (Some(stored.session), stored.baseline),
        None => (None, None),
    };
    let witness = Witness::open(kernel_options(options), passed.sources, baseline);
    runtime.block_on(async {
        let listeners = listen(options, passed.sockets)?;
        let uevents = Uevents::open()
            .inspect_err(|error| {
                log::warn!("no hotplug events ({error}): a change is seen at the next tick or request");
            })
            .ok();
        let sockets = Sockets::new(listeners, uevents).map_err(StartError::Runtime)?;
        let supervisor = Supervisor::from_env(clock::now().monotonic).map_err(StartError::Supervisor)?;
        give_up_privilege(user.as_ref(), &state)?;
        let session = Session::new(myself(boot_id), options.tick, Limits::default(), saved);
        let allowed = options.allow_peers.clone();
        Daemon::new(session, witness, state, supervisor, sockets, allowed)
            .run()
            .await
            .map_err(StartError::Runtime)
    })
}

fn listen(
    options: &Options,
    passed: Vec<(String, std::os::fd::OwnedFd)>,
) -> Result<Vec<Listener>, StartError> {
    let mut listeners = Vec::new();
    for (name, socket) in passed {
        listeners.push(Listener::passed(name, socket)?);
    }
    let default = [Address::Vsock { port: PORT_DEFAULT }];
    let addresses =
        if options.listen.is_empty() && listeners.is_empty() { &default } else { options.listen.as_slice() };
    for address in addresses {
        listeners.push(Listener::bind(address)?);
    }
    for listener in &listeners {
        log::info!("listening at {}", listener.name());
    }
    Ok(listeners)
}

/// Whether the count goes on, said either way.
fn taken_up(options: &Options, found: Result<super::state::Found, Unusable>) -> Option<Stored> {
    let path = options.state.display();
    match found {
        Ok(found) => {
            if let Some(problem) = found.damaged {
                log::warn!("state file {path}: one slot is damaged ({problem}), the other is used");
            }
            log::info!("state file {path}: the count goes on");
            Some(found.stored)
        }
        Err(Unusable::Empty) => {
            log::info!("state file {path}: new; the count begins");
            None
        }
        Err(reason) => {
            log::warn!("state file {path}: {reason}; the count begins again in a provisional epoch");
            None
        }
    }
}

fn give_up_privilege(user: Option<&User>, state: &StateFile) -> Result<(), StartError> {
    match user {
        Some(user) => {
            let (uid, gid) = user.ids();
            state.give_to(uid, gid)?;
            user.become_it()?;
        }
        None if rustix::process::geteuid().is_root() => {
            log::warn!("running as root; --user NAME gives that up once all is open");
        }
        None => {}
    }
    Ok(())
}

fn myself(boot_id: crate::wire::message::Id) -> Myself {
    Myself {
        agent: Agent {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            git: env!("GUESTMETER_GIT").to_owned(),
            protocol: version::CURRENT,
            capabilities: vec!["watch".to_owned(), "wait-settled".to_owned()],
        },
        boot_id,
    }
}
