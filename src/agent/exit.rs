//! Exit codes: those of sysexits.h, and `doctor`'s own.

/// All is well.
pub(super) const SUCCESS: u8 = 0;
/// `doctor` found that the reading is not exact.
pub(super) const INEXACT: u8 = 1;
/// The command line is wrong.
pub(super) const USAGE: u8 = 64;
/// Something that is needed is not there.
pub(super) const UNAVAILABLE: u8 = 69;
/// A system call that is not on the agent's list was made: the agent is broken, or not itself any more.
pub(super) const SOFTWARE: u8 = 70;
/// The system refused something it does not refuse.
pub(super) const OSERR: u8 = 71;
/// A file cannot be made.
pub(super) const CANTCREAT: u8 = 73;
/// Not allowed.
pub(super) const NOPERM: u8 = 77;
