//! Exit codes: those of sysexits.h, and `doctor`'s own.

/// `doctor` found that the reading is not exact.
pub(super) const INEXACT: u8 = 1;
/// The command line is wrong.
pub(super) const USAGE: u8 = 64;
/// Something that is needed is not there.
pub(super) const UNAVAILABLE: u8 = 69;
/// The system refused something it does not refuse.
pub(super) const OSERR: u8 = 71;
/// A file cannot be made.
pub(super) const CANTCREAT: u8 = 73;
/// Not allowed.
pub(super) const NOPERM: u8 = 77;
