//! Descriptors that systemd passes: listening sockets, and sources that `open-sources` put into its store.

use super::descriptor;
use std::io;
use std::os::fd::OwnedFd;

/// What the names of stored sources begin with; all other passed descriptors are listening sockets.
pub(super) const SOURCE_PREFIX: &str = "guestmeter-";

/// Descriptors of `LISTEN_FDS`, by their name in `LISTEN_FDNAMES`.
#[derive(Debug, Default)]
pub(super) struct Passed {
    /// To accept connections from.
    pub(super) sockets: Vec<(String, OwnedFd)>,
    /// Kernel files, opened with privilege. The prefix is taken off.
    pub(super) sources: Vec<(String, OwnedFd)>,
}

impl Passed {
    /// Takes them over. To be called once, before anything else opens a descriptor.
    ///
    /// # Errors
    /// `LISTEN_FDS` names a descriptor that is not open, or the variables contradict each other.
    pub(super) fn take() -> io::Result<Self> {
        let mut passed = Self::default();
        for (name, descriptor) in descriptor::passed()? {
            match name.strip_prefix(SOURCE_PREFIX) {
                Some(source) => passed.sources.push((source.to_owned(), descriptor)),
                None => passed.sockets.push((name, descriptor)),
            }
        }
        Ok(passed)
    }
}
