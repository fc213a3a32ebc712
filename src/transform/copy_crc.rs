//! The one copy that a written block gets, with its checksum computed on the way.
//!
//! Two passes over a piece that fits the first-level cache beat one pass of our own making: the checksum pass brings
//! the source into the cache, and the copy that follows runs at the speed of the machine's best block move. Measured
//! on Zen 4, 4 KiB, source and target in the second-level cache: checksum then copy 136 ns, copy then checksum 177 ns,
//! a fused loop of 512-bit loads, stores and carry-less multiplications 160 to 210 ns, pieces of 1 KiB 215 ns
//! (`cargo bench --bench device copy`).

use crate::base::crc::{Crc32c, crc32c};

/// Bytes handled at a time: small enough to stay in the first-level cache between the passes.
const PIECE: usize = 4096;

/// Copies `src` to `dst`, which must be of the same length, and returns the CRC32C of what was copied.
#[inline]
pub fn copy_crc32c(dst: &mut [u8], src: &[u8]) -> u32 {
    assert_eq!(dst.len(), src.len(), "source and target are equally long");
    if src.len() <= PIECE {
        let crc = crc32c(src);
        dst.copy_from_slice(src);
        return crc;
    }
    let mut crc = Crc32c::new();
    for (d, s) in dst.chunks_mut(PIECE).zip(src.chunks(PIECE)) {
        crc.update(s);
        d.copy_from_slice(s);
    }
    crc.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    #[test]
    fn copies_everything_and_checksums_it() {
        let mut rng = Rng::new(8);
        let mut src = vec![0; 3 * PIECE + 1];
        rng.fill(&mut src);
        for len in [0, 1, 31, 512, 4095, 4096, 4097, 8192, 3 * PIECE + 1] {
            let mut dst = vec![0xee; len];
            assert_eq!(copy_crc32c(&mut dst, &src[..len]), crc32c(&src[..len]), "{len}");
            assert_eq!(dst, src[..len]);
        }
        assert_eq!(copy_crc32c(&mut [0; 32], &[0xff; 32]), 0x62a8_ab43, "RFC 3720 B.4");
    }

    #[test]
    #[should_panic(expected = "equally long")]
    fn lengths_must_agree() {
        copy_crc32c(&mut [0; 2], &[0; 3]);
    }
}
