//! Which versions are spoken, and what may change between them.
//!
//! A running agent may be months older than its host, since a restored snapshot revives the old binary. So:
//! - the host speaks every version from [`MIN`] to [`CURRENT`] for ever; `MIN` never rises;
//! - within a version a struct is frozen but for fields appended to the end of a message, which an older reader
//!   skips as trailing bytes; nested structs are frozen whole; enum variants are only appended;
//! - a new kind of message needs no new version: a reader that does not know it answers `Unsupported`;
//! - anything else is a new version, and its golden bytes stand beside the old ones, which stay.

/// The oldest version that is understood.
pub const MIN: u16 = 1;
/// The version that this build prefers.
pub const CURRENT: u16 = 1;

/// The newest version that both sides speak, or `None` without one.
#[must_use]
pub fn negotiate(peer_min: u16, peer_max: u16) -> Option<u16> {
    let newest = CURRENT.min(peer_max);
    (newest >= MIN && newest >= peer_min).then_some(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_is_chosen() {
        assert_eq!(negotiate(1, 1), Some(1));
        assert_eq!(negotiate(1, u16::MAX), Some(CURRENT));
        assert_eq!(negotiate(0, 1), Some(1));
    }

    #[test]
    fn strangers_have_none() {
        assert_eq!(negotiate(CURRENT + 1, CURRENT + 2), None);
        assert_eq!(negotiate(0, 0), None);
        assert_eq!(negotiate(2, 1), None, "an empty range");
    }
}
