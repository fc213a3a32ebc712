//! What verify mode writes: every 512-byte sector says which volume and sector it is for, which operation wrote it, as
//! which generation of its block, by which writer, and carries a CRC32C. The rest of the sector is a pattern computed from
//! those fields, so that damage can be located to the bit.
//!
//! ```text
//! 0  magic "PlxStamp"   8  volume    16 sector (512-byte units from the start of the volume)
//! 24 operation          32 writer    40 generation (u32)   44 sectors in the write (u16)   46 index in it (u16)
//! 48 pattern ...        508 CRC32C of bytes 0..508
//! ```
//! All little-endian. A sector is the unit because it is the smallest piece a disk tears at.

use crate::base::crc::crc32c;

/// Bytes per stamped sector.
pub const SECTOR: usize = 512;
const MAGIC: u64 = u64::from_le_bytes(*b"PlxStamp");
const PATTERN_AT: usize = 48;
const CRC_AT: usize = 508;

/// The meaning of a sector's first 48 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// Identity of the volume it was written to.
    pub volume: u64,
    /// Where it was written: 512-byte sectors from the start of the volume.
    pub sector: u64,
    /// Number of the write that carried it; see [`show_operation`].
    pub operation: u64,
    /// Who wrote it: a number drawn anew for every run without a log, and kept by the log otherwise.
    pub writer: u64,
    /// Which generation of its block this is; counts from 1.
    pub generation: u32,
    /// Sectors in the same write.
    pub sectors: u16,
    /// Which of them this is.
    pub index: u16,
}

/// What 512 bytes turn out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sector {
    /// A whole stamped sector.
    Valid(Stamp),
    /// There is a stamp, but the CRC does not match; [`diagnose`] says more.
    Broken,
    /// All bytes are zero.
    Zeroes,
    /// No stamp: data nobody here wrote, or a stamp that lost its magic.
    Foreign,
}

/// What is wrong with a sector whose CRC does not match.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Diagnosis {
    /// The write it is from. When the stamp itself was hit by a single bit, the repaired one.
    pub stamp: Stamp,
    /// Bits that differ from what that write wrote.
    pub bits: u32,
    /// First byte that differs, 0..512.
    pub byte: u16,
}

impl Stamp {
    fn key(&self) -> u64 {
        let mut x = self.sector ^ self.volume.rotate_left(17) ^ self.writer.rotate_left(31);
        x = x.wrapping_add(self.operation.wrapping_mul(0x9e37_79b9_7f4a_7c15)) ^ u64::from(self.generation) << 32;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Fills one sector. `out` is exactly [`SECTOR`] bytes.
    pub fn emit(&self, out: &mut [u8]) {
        let out: &mut [u8; SECTOR] = out.try_into().expect("a sector is 512 bytes");
        let key = self.key();
        for (piece, word) in out.as_chunks_mut::<8>().0.iter_mut().zip(&TEMPLATE) {
            *piece = (word ^ key).to_le_bytes();
        }
        for (at, word) in [(0, MAGIC), (8, self.volume), (16, self.sector), (24, self.operation), (32, self.writer)] {
            out[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        out[40..44].copy_from_slice(&self.generation.to_le_bytes());
        out[44..46].copy_from_slice(&self.sectors.to_le_bytes());
        out[46..48].copy_from_slice(&self.index.to_le_bytes());
        let crc = crc32c(&out[..CRC_AT]);
        out[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    }

    /// The fields as they stand in the bytes, proven or not; `None` without the magic.
    fn read(data: &[u8; SECTOR]) -> Option<Stamp> {
        let word = |at: usize| u64::from_le_bytes(data[at..at + 8].try_into().expect("eight bytes"));
        let short = |at: usize| u16::from_le_bytes([data[at], data[at + 1]]);
        (word(0) == MAGIC).then(|| Stamp {
            volume: word(8),
            sector: word(16),
            operation: word(24),
            writer: word(32),
            generation: word(40) as u32,
            sectors: short(44),
            index: short(46),
        })
    }
}

/// What these 512 bytes are.
pub fn inspect(data: &[u8]) -> Sector {
    let data: &[u8; SECTOR] = data.try_into().expect("a sector is 512 bytes");
    match Stamp::read(data) {
        Some(stamp) if whole(data) => Sector::Valid(stamp),
        Some(_) => Sector::Broken,
        None if data.iter().all(|b| *b == 0) => Sector::Zeroes,
        None => Sector::Foreign,
    }
}

fn whole(data: &[u8; SECTOR]) -> bool {
    data[CRC_AT..] == crc32c(&data[..CRC_AT]).to_le_bytes()
}

/// Finds out what a sector without a valid CRC was and where it was hit; `None` when it bears no trace of a stamp.
/// Slow (microseconds): for sectors that are known to be wrong.
pub fn diagnose(data: &[u8]) -> Option<Diagnosis> {
    let mut trial: [u8; SECTOR] = data.try_into().expect("a sector is 512 bytes");
    for bit in 0..PATTERN_AT * 8 {
        trial[bit / 8] ^= 1 << (bit % 8);
        if whole(&trial) {
            let stamp = Stamp::read(&trial)?;
            return Some(Diagnosis { stamp, bits: 1, byte: (bit / 8) as u16 });
        }
        trial[bit / 8] ^= 1 << (bit % 8);
    }
    let stamp = Stamp::read(&trial)?;
    let mut want = [0u8; SECTOR];
    stamp.emit(&mut want);
    let pairs = || trial.iter().zip(&want);
    let bits = pairs().map(|(a, b)| (a ^ b).count_ones()).sum();
    let byte = pairs().position(|(a, b)| a != b).unwrap_or(0) as u16;
    Some(Diagnosis { stamp, bits, byte })
}

/// An operation number for people: the run within the log's life and the operation within the run.
pub fn show_operation(operation: u64) -> String {
    format!("{}.{}", operation >> 48, operation & ((1 << 48) - 1))
}

/// Fixed random words behind the pattern, so that sectors neither compress nor repeat.
static TEMPLATE: [u64; SECTOR / 8] = template();

const fn template() -> [u64; SECTOR / 8] {
    let mut words = [0; SECTOR / 8];
    let mut x = 0x506f_6c6c_7578_2121u64;
    let mut at = PATTERN_AT / 8;
    while at < words.len() {
        x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = x;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        words[at] = z ^ (z >> 31);
        at += 1;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Stamp {
        let (volume, operation) = (0x1122_3344_5566_7788, (1 << 48) + 99);
        Stamp { volume, sector: 40, operation, writer: 7, generation: 3, sectors: 8, index: 2 }
    }

    #[test]
    fn round_trip_and_every_single_bit_flip_is_noticed_and_located() {
        let mut good = [0u8; SECTOR];
        sample().emit(&mut good);
        assert_eq!(inspect(&good), Sector::Valid(sample()));
        for bit in 0..SECTOR * 8 {
            let mut data = good;
            data[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(inspect(&data), Sector::Broken | Sector::Foreign), "bit {bit}");
            assert_eq!(diagnose(&data), Some(Diagnosis { stamp: sample(), bits: 1, byte: (bit / 8) as u16 }));
        }
    }

    #[test]
    fn no_two_stamps_share_their_pattern() {
        let mut seen = std::collections::HashSet::new();
        let base = sample();
        for n in 0..1000u64 {
            for stamp in [
                Stamp { sector: base.sector + n, ..base },
                Stamp { operation: base.operation + 1 + n, ..base },
                Stamp { writer: base.writer + 1 + n, ..base },
            ] {
                if n == 0 && stamp == base {
                    continue;
                }
                let mut out = [0u8; SECTOR];
                stamp.emit(&mut out);
                assert!(seen.insert(out[PATTERN_AT..CRC_AT].to_vec()), "{stamp:?}");
            }
        }
    }

    #[test]
    fn what_is_not_ours() {
        assert_eq!(inspect(&[0; SECTOR]), Sector::Zeroes);
        assert_eq!(inspect(&[0xff; SECTOR]), Sector::Foreign);
        assert_eq!(diagnose(&[0xff; SECTOR]), None);
    }
}
