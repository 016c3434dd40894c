//! Exit codes, as in sysexits.h.

/// The command line is wrong.
pub(super) const USAGE: u8 = 64;
/// Input data is wrong.
pub(super) const DATAERR: u8 = 65;
/// Something that is needed is not there.
pub(super) const UNAVAILABLE: u8 = 69;
/// The system refused something it does not refuse.
pub(super) const OSERR: u8 = 71;
/// A file cannot be made.
pub(super) const CANTCREAT: u8 = 73;
/// Not allowed.
pub(super) const NOPERM: u8 = 77;
