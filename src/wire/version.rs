//! Which versions are spoken, and what may change between them.

/// The oldest version that is understood. A restored snapshot revives an old agent, so this never rises.
pub const MIN: u16 = 1;
/// The version that this build prefers.
pub const CURRENT: u16 = 1;
