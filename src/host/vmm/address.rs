//! Where a VMM is asked: `qmp://PATH`, `firecracker://PATH`, `cloud-hypervisor://PATH`. Decides by the text alone.

use crate::host::target::{TargetFault, socket_path};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The control socket of one VMM.
///
/// ```
/// use guestmeter::host::vmm::{VmmAddress, VmmKind};
///
/// let address: VmmAddress = "qmp:///run/vm/qmp.sock".parse()?;
/// assert_eq!(address.kind, VmmKind::Qmp);
/// assert_eq!(address.to_string(), "qmp:///run/vm/qmp.sock");
/// # Ok::<(), guestmeter::host::vmm::VmmAddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmmAddress {
    /// What is spoken there.
    pub kind: VmmKind,
    /// The Unix socket.
    pub path: PathBuf,
}

/// Which VMM, and so which protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VmmKind {
    /// QEMU, by QMP. Such a socket serves one client at a time: this one needs a `-qmp` of its own.
    Qmp,
    /// Firecracker, by its HTTP API.
    Firecracker,
    /// Cloud Hypervisor, by its HTTP API.
    CloudHypervisor,
}

/// Why a text is no address of a VMM.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("VMM address {text:?}: {fault}")]
pub struct VmmAddressError {
    text: String,
    fault: VmmAddressFault,
}

/// What is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VmmAddressFault {
    /// None of the three schemes.
    #[error("it begins with none of qmp://, firecracker://, cloud-hypervisor://")]
    Scheme,
    /// What stands behind the scheme is no socket's path.
    #[error(transparent)]
    Path(TargetFault),
}

impl VmmAddressError {
    /// What is wrong, for whoever shows the text already.
    #[must_use]
    pub fn fault(&self) -> &VmmAddressFault {
        &self.fault
    }
}

impl VmmKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Qmp, Self::Firecracker, Self::CloudHypervisor];

    /// What an address of this kind begins with, before `://`.
    #[must_use]
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Qmp => "qmp",
            Self::Firecracker => "firecracker",
            Self::CloudHypervisor => "cloud-hypervisor",
        }
    }

    /// The VMM's own name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Qmp => "QEMU",
            Self::Firecracker => "Firecracker",
            Self::CloudHypervisor => "Cloud Hypervisor",
        }
    }
}

impl FromStr for VmmAddress {
    type Err = VmmAddressError;

    fn from_str(text: &str) -> Result<Self, VmmAddressError> {
        parse(text).map_err(|fault| VmmAddressError { text: text.to_owned(), fault })
    }
}

fn parse(text: &str) -> Result<VmmAddress, VmmAddressFault> {
    let (scheme, path) = text.split_once("://").ok_or(VmmAddressFault::Scheme)?;
    let kind =
        VmmKind::ALL.into_iter().find(|kind| kind.scheme() == scheme).ok_or(VmmAddressFault::Scheme)?;
    let path = socket_path(path, kind.scheme()).map_err(VmmAddressFault::Path)?;
    Ok(VmmAddress { kind, path })
}

impl fmt::Display for VmmAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.kind.scheme(), self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> VmmAddressFault {
        text.parse::<VmmAddress>().expect_err(text).fault
    }

    #[test]
    fn each_spelling_is_read_and_written_back() {
        for (text, kind, path) in [
            ("qmp:///run/vm/qmp.sock", VmmKind::Qmp, "/run/vm/qmp.sock"),
            ("firecracker:///run/fc.sock", VmmKind::Firecracker, "/run/fc.sock"),
            ("cloud-hypervisor:///run/a:b://c", VmmKind::CloudHypervisor, "/run/a:b://c"),
        ] {
            let address: VmmAddress = text.parse().expect(text);
            assert_eq!(address, VmmAddress { kind, path: path.into() });
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn each_fault_is_told() {
        assert_eq!(fault(""), VmmAddressFault::Scheme);
        assert_eq!(fault("/run/fc.sock"), VmmAddressFault::Scheme);
        assert_eq!(fault("QMP:///run/qmp.sock"), VmmAddressFault::Scheme);
        assert_eq!(fault("unix:///run/qmp.sock"), VmmAddressFault::Scheme);
        assert_eq!(fault("qmp://"), VmmAddressFault::Path(TargetFault::NoPath));
        let relative = fault("cloud-hypervisor://run/ch.sock");
        assert_eq!(relative.to_string(), "the path is not absolute; write cloud-hypervisor:///…");
        let long = format!("firecracker:///{}", "x".repeat(107));
        assert_eq!(fault(&long), VmmAddressFault::Path(TargetFault::Long(108)));
        assert_eq!(fault("qmp:///a\0b"), VmmAddressFault::Path(TargetFault::Nul));
    }
}
