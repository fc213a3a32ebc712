//! Unpredictable bytes for challenges, from a seed of the operating system: a hash of the seed and a counter.

use sha2::{Digest, Sha256};

/// A generator.
pub(super) struct Random {
    seed: [u8; 32],
    count: u64,
}

impl core::fmt::Debug for Random {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Random").finish_non_exhaustive()
    }
}

impl Random {
    /// From a seed that nobody can guess.
    pub fn new(seed: [u8; 32]) -> Random {
        Random { seed, count: 0 }
    }

    /// The next 32 bytes.
    pub fn bytes(&mut self) -> [u8; 32] {
        self.count += 1;
        Sha256::new().chain_update(self.seed).chain_update(self.count.to_le_bytes()).finalize().into()
    }
}
