//! From a command line to a running agent: everything is opened, then privilege is given up, then it serves.

use super::address::{Address, NotifyAddress, PORT_DEFAULT};
use super::cli::Options;
use super::daemon::{Daemon, Sockets};
use super::hardening::{self, Measure};
use super::listener::{ListenError, Listener};
use super::notifier::Notifier;
use super::once::kernel_options;
use super::passed::Passed;
use super::poller::Poller;
use super::privilege::{PrivilegeError, User};
use super::signals::Traces;
use super::state::{StateError, StateFile, Stored, Unusable};
use super::supervisor::Supervisor;
use super::uevent::Uevents;
use super::witness::Witness;
use super::{Process, boot_id, clock, exit, log as logging};
use crate::session::{Limits, Myself, Session};
use crate::wire::message::{Agent, Id};
use crate::wire::version;
use std::io;

/// Why the agent cannot start.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("descriptors from systemd: {0}")]
    Passed(io::Error),
    #[error(transparent)]
    BootId(#[from] boot_id::BootIdError),
    #[error("the event loop: {0}")]
    Loop(io::Error),
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
            Self::Passed(_) | Self::Loop(_) | Self::Supervisor(_) => exit::OSERR,
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
pub(super) fn serve(options: &Options, process: Process) -> Result<(), StartError> {
    open(options, process)?.run().map_err(StartError::Loop)
}

/// Opens all, gives up what is not needed any more, and makes the loop.
// Neither this nor its larger parts are inlined: the loop would stand on their frames, 16 KiB, as long as it runs.
#[inline(never)]
fn open(options: &Options, process: Process) -> Result<Box<Daemon>, StartError> {
    logging::start();
    super::stop::survive_broken_pipes().map_err(StartError::Loop)?;
    let mut passed = Passed::take().map_err(StartError::Passed)?;
    let boot_id = boot_id::read(&options.proc_root)?;
    let user = options.user.as_deref().map(User::find).transpose()?;
    let (state, stored) = open_state(options, boot_id)?;
    let traces = Traces::open(options, &mut passed.sources);
    say_traces(&traces);
    let sockets = open_sockets(options, passed.sockets, traces)?;
    let supervisor = Supervisor::from_env(clock::now().monotonic).map_err(StartError::Supervisor)?;
    let (saved, baseline) = match stored {
        Some(stored) => (Some(stored.session), stored.baseline),
        None => (None, None),
    };
    let witness = Witness::open(kernel_options(options), passed.sources, baseline);
    give_up_privilege(user.as_ref(), &state)?;
    if process == Process::Own {
        say_measures(&hardening::apply(options, sockets.listens_later()));
    }
    let limits = Limits { notify: options.notify != NotifyAddress::None, ..Limits::default() };
    let session = Session::new(myself(boot_id), options.tick, limits, saved);
    let allowed = options.allow_peers.clone();
    Ok(Box::new(Daemon::new(session, witness, state, supervisor, sockets, allowed)))
}

/// The state file, and what is taken up of it.
#[inline(never)]
fn open_state(options: &Options, boot_id: Id) -> Result<(StateFile, Option<Box<Stored>>), StartError> {
    let (state, found) = StateFile::open(&options.state, boot_id)?;
    if let Err(error) = state.take_room() {
        log::error!("{error}; what cannot be saved is not reported");
    }
    Ok((state, taken_up(options, found).map(Box::new)))
}

#[inline(never)]
fn open_sockets(
    options: &Options,
    passed: Vec<(String, std::os::fd::OwnedFd)>,
    traces: Traces,
) -> Result<Sockets, StartError> {
    let mut poller = Poller::new().map_err(StartError::Loop)?;
    let listeners = listen(&mut poller, options, passed)?;
    let uevents = Uevents::open(&mut poller)
        .inspect_err(|error| {
            log::warn!("no hotplug events ({error}): blocks and CPUs are read with each report");
        })
        .ok();
    let notifier = Notifier::new(options.notify.clone());
    Sockets::new(poller, listeners, notifier, uevents, traces).map_err(StartError::Loop)
}

/// What the agent denies itself: one line, and one for each measure that failed.
fn say_measures(measures: &[Measure]) {
    let names: Vec<&str> =
        measures.iter().filter(|measure| measure.taken.is_ok()).map(|measure| measure.name).collect();
    log::info!("confined: {}", names.join(", "));
    for Measure { name, taken } in measures {
        if let Err(refused) = taken {
            log::warn!("not confined by {name}: {refused}");
        }
    }
}

/// Which resumes will be noticed without the host's word.
fn say_traces(traces: &Traces) {
    if let Ok(vmclock) = &traces.vmclock {
        log::info!("resumes are noticed by VMClock: {}", vmclock.describe());
    }
    if let Ok(vmgenid) = &traces.vmgenid {
        log::info!("resumes are noticed by VMGenID: {}", vmgenid.describe());
    }
}

fn listen(
    poller: &mut Poller,
    options: &Options,
    passed: Vec<(String, std::os::fd::OwnedFd)>,
) -> Result<(Vec<Listener>, Vec<Address>), StartError> {
    let (mut listeners, mut unheard) = (Vec::new(), Vec::new());
    for (name, socket) in passed {
        listeners.push(Listener::passed(poller, name, socket)?);
    }
    let default = [Address::Vsock { port: PORT_DEFAULT }];
    let addresses =
        if options.listen.is_empty() && listeners.is_empty() { &default } else { options.listen.as_slice() };
    for address in addresses {
        match Listener::bind(poller, address) {
            Ok(listener) => listeners.push(listener),
            // The count does not wait for somebody to tell it to.
            Err(error) if matches!(address, Address::Vsock { .. }) => {
                log::error!("{error}{}; it counts, and tries again each 30 s", hint(&error));
                unheard.push(address.clone());
            }
            Err(error) => return Err(error.into()),
        }
    }
    for listener in &listeners {
        log::info!("listening at {}", listener.name());
    }
    Ok((listeners, unheard))
}

fn hint(error: &ListenError) -> &'static str {
    match error {
        ListenError::System { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            " (ports below 1024 are root's, or guestmeterd.socket's: is it enabled?)"
        }
        ListenError::System { source, .. }
            if source.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) =>
        {
            " (the guest has no vsock: is vmw_vsock_virtio_transport loaded?)"
        }
        _ => "",
    }
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

fn myself(boot_id: Id) -> Myself {
    Myself {
        agent: Agent {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            git: env!("GUESTMETER_GIT").to_owned(),
            protocol: version::CURRENT,
            capabilities: ["watch", "wait-settled", "epochs", "notify"].map(str::to_owned).to_vec(),
        },
        boot_id,
    }
}
