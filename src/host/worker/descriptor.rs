//! One sandbox's descriptor: who it is, who pays, where its agent and its VMM are.

use super::config::read_bounded;
use crate::host::target::Target;
use crate::host::toml_text::{self, TomlError};
use crate::host::vmm::VmmAddress;
use crate::units::Bytes;
use serde::{Deserialize, Deserializer, de};
use std::fmt::Display;
use std::io;
use std::path::Path;
use std::str::FromStr;

/// A longer file is no descriptor.
const FILE_BYTES_MAX: u64 = 16 * 1024;
/// The protocol's limit for a sandbox's name.
const SANDBOX_BYTES_MAX: usize = 128;
/// The ledger's limit for an org's and a plan's.
const NAME_BYTES_MAX: usize = 256;

/// What a file of the drop-in directory says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Descriptor {
    /// The sandbox's name, at most 128 bytes.
    pub sandbox: String,
    /// Who pays.
    pub org: String,
    /// The org's plan; unknown where none is given.
    pub plan: Option<String>,
    /// Where the agent is; none in an image without one.
    #[serde(default, deserialize_with = "from_text")]
    pub target: Option<Target>,
    /// What the VM boots with, virtio-mem excluded.
    pub base_memory_mib: u64,
    /// Where the agent's notifications arrive, where that does not follow from the target: `unix:///run/notify.sock`.
    #[serde(default, deserialize_with = "from_text")]
    pub notify: Option<Target>,
    /// The VMM's control socket: `qmp://PATH`, `firecracker://PATH`, `cloud-hypervisor://PATH`.
    #[serde(default, deserialize_with = "from_text")]
    pub vmm: Option<VmmAddress>,
}

/// Why a descriptor cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DescriptorError {
    /// The file cannot be read.
    #[error("{0}")]
    Read(#[from] io::Error),
    /// Not a descriptor; says where.
    #[error(transparent)]
    Toml(#[from] TomlError),
    /// A file that is far too long.
    #[error("it has more than {FILE_BYTES_MAX} bytes")]
    Size,
    /// A value that cannot be.
    #[error("{field} {why}")]
    Value {
        /// Which.
        field: &'static str,
        /// What it must be.
        why: &'static str,
    },
    /// Two files of one sandbox: the one that came first holds.
    #[error("sandbox {sandbox:?} is described by {by} already")]
    Twice {
        /// Which sandbox.
        sandbox: String,
        /// The file that holds.
        by: String,
    },
}

impl Descriptor {
    /// Of a sandbox whose file is gone, by its books.
    pub(super) fn bare(sandbox: &str, org: &str) -> Self {
        Self {
            sandbox: sandbox.to_owned(),
            org: org.to_owned(),
            plan: None,
            target: None,
            base_memory_mib: 0,
            notify: None,
            vmm: None,
        }
    }

    /// Reads and checks one; `None` where the file is gone.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, DescriptorError> {
        match read_bounded(path, FILE_BYTES_MAX) {
            Ok(Some(text)) => text.parse().map(Some),
            Ok(None) => Err(DescriptorError::Size),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn check(&self) -> Result<(), DescriptorError> {
        let fault = |field, why| Err(DescriptorError::Value { field, why });
        if !named(&self.sandbox, SANDBOX_BYTES_MAX) || self.sandbox.contains('/') {
            return fault("sandbox", "must have 1 to 128 bytes, no control character and no slash");
        }
        if !named(&self.org, NAME_BYTES_MAX) {
            return fault("org", "must have 1 to 256 bytes and no control character");
        }
        if self.plan.as_ref().is_some_and(|plan| !named(plan, NAME_BYTES_MAX)) {
            return fault("plan", "must have 1 to 256 bytes and no control character");
        }
        if !(1..=Bytes::PHYSICAL_MAX.0 >> 20).contains(&self.base_memory_mib) {
            return fault("base_memory_mib", "must be at least 1, and at most 4 PiB");
        }
        if self.notify.as_ref().is_some_and(|at| !matches!(at, Target::Unix(_))) {
            return fault("notify", "must be a Unix socket, unix:///PATH");
        }
        Ok(())
    }
}

impl FromStr for Descriptor {
    type Err = DescriptorError;

    fn from_str(text: &str) -> Result<Self, DescriptorError> {
        let descriptor: Self = toml_text::read(text)?;
        descriptor.check()?;
        Ok(descriptor)
    }
}

fn named(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn from_text<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "sandbox = 'sb-1'\norg = 'acme'\nplan = 'pro'\ntarget = 'hvsock:///run/vm/v.sock'\n\
        base_memory_mib = 1024\nvmm = 'firecracker:///run/vm/api.sock'\n";

    #[test]
    fn a_descriptor_says_who_it_is() {
        let descriptor = WHOLE.parse::<Descriptor>().unwrap();
        assert_eq!(descriptor.target, Some("hvsock:///run/vm/v.sock".parse().unwrap()));
        assert_eq!(descriptor.base_memory_mib, 1024);
        let least = "sandbox = 'a'\norg = 'b'\nbase_memory_mib = 1".parse::<Descriptor>().unwrap();
        assert_eq!((least.target, least.plan, least.vmm), (None, None, None));
    }

    #[test]
    fn what_is_no_descriptor_is_told_why() {
        for (was, is, said) in [
            ("'sb-1'", "''", "sandbox must have 1 to 128 bytes"),
            ("'sb-1'", "'a/b'", "no slash"),
            ("'sb-1'", "\"a\\u0007\"", "no control character"),
            ("'acme'", "''", "org must have"),
            ("org", "orga", "unknown field `orga`"),
            ("1024", "0", "base_memory_mib must be at least 1"),
            ("1024", "-1", "invalid value: integer `-1`"),
            ("hvsock:///run/vm/v.sock", "tcp://x", "vsock://"),
            ("firecracker:", "bochs:", "cloud-hypervisor://"),
            ("plan = 'pro'", "notify = 'vsock://3'", "notify must be a Unix socket"),
            ("base_memory_mib = 1024", "base_memory", "line 5"),
        ] {
            let text = WHOLE.replace(was, is);
            let error = text.parse::<Descriptor>().expect_err(&text).to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
