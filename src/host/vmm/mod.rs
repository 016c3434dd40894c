//! The VMM's own word on a VM: what it was booted with, what virtio-mem has given it and is asked to give, its CPUs.
//!
//! A [`VmmAddress`] says where a VMM is asked, a [`Vmm`] asks it. QEMU is asked by QMP, Firecracker and Cloud
//! Hypervisor by their HTTP APIs, all on Unix sockets. Nothing here changes a VM.
//!
//! Unlike the guest the VMM is no tenant's, but it is another program: whatever comes from its socket is bounded in
//! size and in time, and a number that cannot be true is an error.
//!
//! ```no_run
//! use guestmeter::host::vmm::Vmm;
//! use std::time::Duration;
//!
//! # async fn ask() -> Result<(), Box<dyn std::error::Error>> {
//! let vmm = Vmm::new("firecracker:///run/fc.sock".parse()?, Duration::from_secs(5));
//! let memory = vmm.memory().await?;
//! match memory.plugged {
//!     Ok(plugged) => println!("{plugged} of {} asked for", memory.requested),
//!     Err(doubt) => println!("at most {}: {doubt}", memory.maximum),
//! }
//! # Ok(())
//! # }
//! ```

mod address;
mod api;
pub mod cloud_hypervisor;
pub mod compare;
mod error;
pub mod firecracker;
pub mod http;
pub mod qmp;
mod qmp_line;
pub mod show;
mod watch;

pub use address::{VmmAddress, VmmAddressError, VmmAddressFault, VmmKind};
pub use error::{Failed, Limit, Said, VmmCause, VmmError};
pub use watch::VmmWatch;

use crate::units::Bytes;
use qmp::Qmp;
use std::fmt;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;
use tokio::net::UnixStream;

/// What a VM has by its VMM's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmmMemory {
    /// What it was booted with, and DIMMs added since: what a guest calls boot memory.
    pub boot: Bytes,
    /// What virtio-mem has given, over all its devices; or why this VMM's answer does not tell.
    pub plugged: Result<Bytes, Doubt>,
    /// What virtio-mem is asked to give.
    pub requested: Bytes,
    /// The most that can be added to `boot`: the size of the virtio-mem devices; zero without one.
    pub maximum: Bytes,
    /// Memory devices that are in none of these numbers: their kinds, and their names where they have one.
    pub ignored: Vec<String>,
}

/// Why an answer does not tell what is plugged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Cloud Hypervisor takes a balloon out of the sum, and how large it is the guest states.
    Balloon,
    /// Cloud Hypervisor before version 52 repeats what was requested.
    RepeatsRequest,
}

/// The CPUs of a VM by its VMM's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmmCpus {
    /// How many it has now; of Cloud Hypervisor, how many it was last asked to have.
    pub present: u32,
    /// How many it can have, where the VMM says so.
    pub maximum: Option<u32>,
}

/// What a VMM tells without being asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmmEvent {
    /// A virtio-mem device gave or took memory. QEMU sends at most one a second, the last of them always.
    Changed(SizeChange),
    /// Nobody knows what changed until now: ask. The first event of each connection.
    AskAgain,
}

/// The new size of one virtio-mem device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SizeChange {
    /// The device's name, where it has one.
    pub device: Option<String>,
    /// What it has given now.
    pub plugged: Bytes,
}

/// Asks one VMM. Each question opens its own connections and closes them: a QMP socket held open is closed to others.
#[derive(Clone, Debug)]
pub struct Vmm {
    address: VmmAddress,
    timeout: Duration,
}

impl VmmMemory {
    /// Boot and plugged memory together.
    #[must_use]
    pub fn total(&self) -> Option<Bytes> {
        self.boot.checked_add(self.plugged.ok()?)
    }

    /// Refuses numbers that no VM has.
    fn checked(self) -> Result<Self, VmmCause> {
        let impossible = |what: String| Err(VmmCause::Malformed(what));
        let most = self.boot.saturating_add(self.maximum);
        if most > Bytes::PHYSICAL_MAX {
            return impossible(format!("boot and pluggable memory are {most}, more than any machine's"));
        }
        if self.requested > self.maximum {
            return impossible(format!("{} are requested of {}", self.requested, self.maximum));
        }
        match self.plugged {
            Ok(plugged) if plugged > self.maximum => {
                impossible(format!("{plugged} are plugged of {}", self.maximum))
            }
            _ => Ok(self),
        }
    }
}

impl VmmCpus {
    fn checked(self) -> Result<Self, VmmCause> {
        match (self.present, self.maximum) {
            (0, _) => Err(VmmCause::Malformed("a VM without a CPU".to_owned())),
            (present, Some(maximum)) if present > maximum => {
                Err(VmmCause::Malformed(format!("{present} CPUs of {maximum}")))
            }
            _ => Ok(self),
        }
    }
}

impl Vmm {
    /// Asks at `address`. Nothing is opened yet. A question may take at most `timeout`, connecting included.
    #[must_use]
    pub fn new(address: VmmAddress, timeout: Duration) -> Self {
        Self { address, timeout }
    }

    /// Whom it asks.
    #[must_use]
    pub fn address(&self) -> &VmmAddress {
        &self.address
    }

    /// The memory, now.
    ///
    /// # Errors
    /// See [`VmmCause`]: nobody there, another VMM, no VM in it, refused, malformed, no answer in time.
    pub async fn memory(&self) -> Result<VmmMemory, VmmError> {
        let limit = Limit::new(self.timeout);
        let answer = match self.address.kind {
            VmmKind::Qmp => match self.open(limit).await {
                Ok(mut qmp) => qmp.memory(limit).await,
                Err(failed) => Err(failed),
            },
            VmmKind::Firecracker => firecracker::memory(self.api(limit)).await,
            VmmKind::CloudHypervisor => cloud_hypervisor::memory(self.api(limit)).await,
        };
        answer.map_err(|failed| failed.at(&self.address))
    }

    /// The CPUs, now.
    ///
    /// # Errors
    /// As for [`Vmm::memory`].
    pub async fn cpus(&self) -> Result<VmmCpus, VmmError> {
        let limit = Limit::new(self.timeout);
        let answer = match self.address.kind {
            VmmKind::Qmp => match self.open(limit).await {
                Ok(mut qmp) => qmp.cpus(limit).await,
                Err(failed) => Err(failed),
            },
            VmmKind::Firecracker => firecracker::cpus(self.api(limit)).await,
            VmmKind::CloudHypervisor => cloud_hypervisor::cpus(self.api(limit)).await,
        };
        answer.map_err(|failed| failed.at(&self.address))
    }

    /// What changes, as QEMU tells it. Holds the QMP socket: questions meanwhile go through the [`VmmWatch`].
    ///
    /// # Errors
    /// Another VMM than QEMU; else as for [`Vmm::memory`].
    pub async fn watch(&self) -> Result<VmmWatch, VmmError> {
        VmmWatch::open(self.clone()).await
    }

    async fn open(&self, limit: Limit) -> Result<Qmp<UnixStream>, Failed> {
        let stream = limit.hold("connecting", connect(&self.address.path)).await?;
        Qmp::open(stream, limit).await
    }

    /// One connection a request: nothing is left of one in the next.
    fn api<'a>(&'a self, limit: Limit) -> impl Fn(&'static str) -> Carried<'a> {
        move |request| {
            let exchange = async move {
                let stream = connect(&self.address.path).await?;
                http::get(stream, self.address.kind, request).await
            };
            Box::pin(limit.hold(request, exchange))
        }
    }
}

/// A request on its way.
type Carried<'a> = Pin<Box<dyn Future<Output = Result<http::Answer, Failed>> + Send + 'a>>;

async fn connect(path: &Path) -> Result<UnixStream, VmmCause> {
    UnixStream::connect(path).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => VmmCause::NoSocket,
        io::ErrorKind::ConnectionRefused => VmmCause::NobodyAtSocket,
        _ => VmmCause::Connect(error),
    })
}

impl Doubt {
    /// As `guestmeter.vmm/1` spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Balloon => "balloon",
            Self::RepeatsRequest => "repeats_request",
        }
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Balloon => "a balloon is taken out of this VMM's sum, and the guest states its size",
            Self::RepeatsRequest => "Cloud Hypervisor before version 52 repeats what was requested",
        })
    }
}
