//! Exit codes, as in sysexits.h.

/// The command line is wrong.
pub const USAGE: u8 = 64;
/// Input data is wrong.
pub const DATAERR: u8 = 65;
/// Something that is needed is not there.
pub const UNAVAILABLE: u8 = 69;
/// The system refused something it does not refuse.
pub const OSERR: u8 = 71;
/// A file cannot be made.
pub const CANTCREAT: u8 = 73;
/// Not allowed.
pub const NOPERM: u8 = 77;
