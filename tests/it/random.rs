//! Where a kill falls, and what is asked: it need not be unforeseeable, only everywhere, and again from the same seed.

/// Small, fast, seeded; the seed is not zero.
pub struct Random(pub u64);

impl Random {
    /// Any number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
