//! A short name for the bytes in which a sender names a series, so that a known series costs one look-up.

use std::sync::LazyLock;

use xxhash_rust::xxh3::xxh3_128_with_secret;

/// Random for each process: nobody outside can choose bytes that share a key.
static SECRET: LazyLock<[u8; 192]> = LazyLock::new(|| {
    let mut secret = [0; 192];
    let random = ahash::RandomState::new();
    for (i, part) in secret.chunks_exact_mut(8).enumerate() {
        part.copy_from_slice(&random.hash_one(i).to_le_bytes());
    }
    secret
});

/// 128 bits of hash of some bytes. Two that differ are taken to come from different bytes and, over all series of
/// a process's life, equal ones from the same: at a billion series the odds against it are 1 in 10^20.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Key([u64; 2]);

impl Key {
    #[inline]
    pub fn of(bytes: &[u8]) -> Key {
        let h = xxh3_128_with_secret(bytes, &*SECRET);
        Key([h as u64 | 1, (h >> 64) as u64])
    }

    /// For keys of keys.
    #[inline]
    pub fn to_bytes(self) -> [u8; 16] {
        let mut out = [0; 16];
        let (a, b) = out.split_at_mut(8);
        a.copy_from_slice(&self.0[0].to_le_bytes());
        b.copy_from_slice(&self.0[1].to_le_bytes());
        out
    }

    /// Of nothing: never what [`Key::of`] gives.
    pub const NONE: Key = Key([0, 0]);

    pub(crate) fn is_none(self) -> bool {
        self == Key::NONE
    }

    #[inline]
    pub(crate) fn hash(self) -> u64 {
        self.0[1]
    }
}
