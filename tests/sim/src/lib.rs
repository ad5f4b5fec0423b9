//! Seeded simulation: the pure planners driven through random histories, with the invariants checked after each
//! step. A failing seed is printed; running with it again gives the same history.
//!
//! Today: the scheduler's cycle over nodes and pods that come and go. The clock, disk and network of the other
//! rooms join here as their seams are used.

/// A small random generator (splitmix64): the whole history follows from the seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`, which must not be zero.
    pub fn below(&mut self, n: u64) -> u64 {
        self.draw() % n
    }
}
