//! One number that stands for everything that happened: every operation, completion and decision is folded into it,
//! so two runs of the same seed that differ anywhere end with different hashes.

/// 64-bit FNV-1a over words, little-endian byte order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trace(u64);

impl Trace {
    /// Nothing has happened.
    pub fn new() -> Trace {
        Trace(0xcbf2_9ce4_8422_2325)
    }
    /// Folds one number in.
    pub fn add(&mut self, word: u64) {
        for byte in word.to_le_bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    /// Folds several numbers in.
    pub fn all(&mut self, words: &[u64]) {
        for word in words {
            self.add(*word);
        }
    }
    /// The hash so far.
    pub fn hash(&self) -> u64 {
        self.0
    }
}

impl Default for Trace {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::Trace;

    #[test]
    fn order_and_value_both_count() {
        let of = |words: &[u64]| {
            let mut t = Trace::new();
            t.all(words);
            t.hash()
        };
        assert_eq!(of(&[1, 2, 3]), of(&[1, 2, 3]));
        assert_ne!(of(&[1, 2, 3]), of(&[2, 1, 3]));
        assert_ne!(of(&[1, 2, 3]), of(&[1, 2, 4]));
        // FNV-1a of eight zero bytes, computed by the definition: the offset basis times the prime, eight times.
        let by_hand = (0..8).fold(0xcbf2_9ce4_8422_2325_u64, |h, _| h.wrapping_mul(0x0000_0100_0000_01b3));
        assert_eq!(of(&[0]), by_hand);
    }
}
