//! Sectors that say which write they came from, so that whatever a reader finds can be traced: the right write, an
//! older one, one to another place, or no write at all.

use super::SECTOR;

/// What a sector of 512 bytes turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// All zeroes.
    Zero,
    /// The sector that this write put here.
    Write(u32),
    /// A whole sector of this write, but it belongs to another volume or place.
    Elsewhere {
        /// The write.
        write: u32,
        /// Its volume.
        volume: u32,
        /// The sector's number in that volume.
        sector: u64,
    },
    /// Nothing that was ever written.
    Garbage,
}

impl Found {
    /// What the sector `n` before this one is when both are of one write that went to one place.
    #[must_use]
    pub fn back(self, n: u64) -> Found {
        match self {
            Found::Elsewhere { write, volume, sector } => {
                Found::Elsewhere { write, volume, sector: sector.wrapping_sub(n) }
            }
            same => same,
        }
    }
}

/// The writer and reader of the patterns of one run.
#[derive(Clone, Copy, Debug)]
pub struct Pattern {
    salt: u64,
}

impl Pattern {
    /// Patterns of one run differ from those of another: what a run finds of an older one is garbage.
    pub fn new(salt: u64) -> Pattern {
        Pattern { salt }
    }

    /// Fills whole sectors: write `write` (1 or more) to `volume`, beginning at its sector `first`.
    pub fn fill(&self, volume: u32, first: u64, write: u32, out: &mut [u8]) {
        assert!(write != 0 && out.len().is_multiple_of(SECTOR), "zero is not a write, and sectors are whole");
        for (i, sector) in out.chunks_exact_mut(SECTOR).enumerate() {
            for (word, bytes) in self.words(volume, first + i as u64, write).zip(sector.chunks_exact_mut(8)) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
        }
    }

    /// Says what the sector at this place is.
    pub fn find(&self, volume: u32, number: u64, sector: &[u8]) -> Found {
        assert_eq!(sector.len(), SECTOR, "one sector at a time");
        if sector.iter().all(|b| *b == 0) {
            return Found::Zero;
        }
        let word = |i: usize| u64::from_le_bytes(sector[i * 8..][..8].try_into().expect("eight bytes"));
        let (write, volume_there, number_there) = (word(0) as u32, (word(0) >> 32) as u32, word(1));
        if write == 0 || !self.words(volume_there, number_there, write).enumerate().all(|(i, w)| w == word(i)) {
            Found::Garbage
        } else if (volume_there, number_there) == (volume, number) {
            Found::Write(write)
        } else {
            Found::Elsewhere { write, volume: volume_there, sector: number_there }
        }
    }

    /// The 64 words of a sector: who and where in the first two, then words that no other sector has.
    fn words(self, volume: u32, number: u64, write: u32) -> impl Iterator<Item = u64> {
        let who = u64::from(volume) << 32 | u64::from(write);
        let mut word =
            (self.salt ^ who).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93);
        (0..SECTOR / 8).map(move |i| match i {
            0 => who,
            1 => number,
            _ => {
                word = (word ^ (word >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93) | 1;
                word
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sector_names_its_write_and_any_other_byte_is_noticed() {
        let p = Pattern::new(42);
        let mut data = vec![0u8; 2048];
        p.fill(3, 100, 7, &mut data);
        assert_eq!(p.find(3, 101, &data[512..1024]), Found::Write(7));
        assert_eq!(p.find(3, 100, &data[512..1024]), Found::Elsewhere { write: 7, volume: 3, sector: 101 });
        assert_eq!(p.find(4, 101, &data[512..1024]), Found::Elsewhere { write: 7, volume: 3, sector: 101 });
        assert_eq!(Pattern::new(43).find(3, 101, &data[512..1024]), Found::Garbage);
        assert_eq!(p.find(3, 0, &[0; 512]), Found::Zero);
        for byte in 0..512 {
            let mut bad = data[..512].to_vec();
            bad[byte] ^= 1;
            assert_eq!(p.find(3, 100, &bad), Found::Garbage, "byte {byte}");
        }
    }
}
