//! Where things lie in a slice: superblocks at the head, then equal segments. Everything else computes places with
//! these functions, so that a bound is checked in one file.

use super::FormatError;
use crate::base::BLOCK;

/// Blocks kept for the superblocks at the start of a slice.
pub const HEAD_BLOCKS: u32 = 32;
/// The same in bytes (128 KiB); `probe` wants this many bytes of a device.
pub const HEAD_BYTES: usize = HEAD_BLOCKS as usize * BLOCK;
/// Fewest segments of a slice: three streams with a current and a next segment each, and room to clean.
pub const SEGMENTS_MIN: u32 = 16;
/// Smallest segment, blocks (64 KiB).
pub const SEGMENT_BLOCKS_MIN: u32 = 16;
/// Largest segment, blocks (64 MiB).
pub const SEGMENT_BLOCKS_MAX: u32 = 16384;

/// A 4 KiB block of the slice, counted from its start. 0 holds a superblock and so means "nowhere" in an index; the
/// largest number means "lost" (see [`Addr::LOST`]).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Addr(pub u32);

impl Addr {
    /// Not on the medium.
    pub const NONE: Addr = Addr(0);
    /// Was on the medium, and its content is lost: reads answer with a media error until it is written again.
    pub const LOST: Addr = Addr(u32::MAX);

    /// True for a real place (neither `NONE` nor `LOST`).
    pub fn is_place(self) -> bool {
        self != Addr::NONE && self != Addr::LOST
    }
    /// The block `n` further on.
    #[must_use]
    pub fn plus(self, n: u32) -> Addr {
        Addr(self.0 + n)
    }
}

/// A segment, counted from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SegmentId(pub u32);

impl SegmentId {
    /// No segment.
    pub const NONE: SegmentId = SegmentId(u32::MAX);
    /// As an index into per-segment tables.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The cut of a slice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// Blocks per segment; a power of two.
    pub segment_blocks: u32,
    /// Segments.
    pub segments: u32,
}

impl Geometry {
    /// The cut of a slice of `len` bytes into segments of `segment_bytes`.
    ///
    /// # Errors
    /// [`FormatError::Field`] when the segment size is no power of two in 64 KiB..=64 MiB, when fewer than
    /// [`SEGMENTS_MIN`] segments fit, or when the slice has 2^32 - 1 blocks or more (16 TiB).
    pub fn new(len: u64, segment_bytes: u64) -> Result<Geometry, FormatError> {
        let block = BLOCK as u64;
        let segment_blocks = u32::try_from(segment_bytes / block).map_err(|_| FormatError::Field)?;
        let blocks = len / block;
        if !segment_bytes.is_multiple_of(block) || blocks >= u64::from(u32::MAX) || blocks <= u64::from(HEAD_BLOCKS) {
            return Err(FormatError::Field);
        }
        let segments = (blocks - u64::from(HEAD_BLOCKS)) / u64::from(segment_blocks.max(1));
        let cut = Geometry { segment_blocks, segments: segments as u32 };
        cut.check()?;
        Ok(cut)
    }

    /// Proves the ranges that every other function here relies on.
    pub fn check(&self) -> Result<(), FormatError> {
        let size_ok = self.segment_blocks.is_power_of_two()
            && (SEGMENT_BLOCKS_MIN..=SEGMENT_BLOCKS_MAX).contains(&self.segment_blocks);
        let end = u64::from(self.segments) * u64::from(self.segment_blocks) + u64::from(HEAD_BLOCKS);
        if !size_ok || self.segments < SEGMENTS_MIN || end >= u64::from(u32::MAX) {
            return Err(FormatError::Field);
        }
        Ok(())
    }

    /// First block of a segment.
    pub fn start(&self, segment: SegmentId) -> Addr {
        assert!(segment.0 < self.segments, "segment out of range");
        Addr(HEAD_BLOCKS + segment.0 * self.segment_blocks)
    }
    /// The segment of a block.
    #[inline]
    pub fn segment(&self, addr: Addr) -> SegmentId {
        debug_assert!(self.holds(addr));
        SegmentId((addr.0 - HEAD_BLOCKS) >> self.segment_blocks.trailing_zeros())
    }
    /// The block's number within its segment.
    #[inline]
    pub fn offset(&self, addr: Addr) -> u32 {
        (addr.0 - HEAD_BLOCKS) & (self.segment_blocks - 1)
    }
    /// True when the address lies in a segment.
    pub fn holds(&self, addr: Addr) -> bool {
        addr.0 >= HEAD_BLOCKS && addr.0 < self.end().0
    }
    /// One past the last block of the last segment.
    pub fn end(&self) -> Addr {
        Addr(HEAD_BLOCKS + self.segments * self.segment_blocks)
    }
    /// Blocks from `addr` to the end of its segment.
    pub fn room(&self, addr: Addr) -> u32 {
        self.segment_blocks - self.offset(addr)
    }
    /// Blocks of all segments.
    pub fn blocks(&self) -> u64 {
        u64::from(self.segments) * u64::from(self.segment_blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_round_trip_and_bad_cuts_are_refused() {
        let g = Geometry::new(HEAD_BYTES as u64 + 20 * 65536 + 5000, 65536).unwrap();
        assert_eq!((g.segments, g.segment_blocks), (20, 16));
        let a = g.start(SegmentId(3)).plus(5);
        assert_eq!((g.segment(a), g.offset(a), g.room(a)), (SegmentId(3), 5, 11));
        assert!(g.holds(a) && !g.holds(Addr(31)) && !g.holds(g.end()));
        for (len, segment) in [(1 << 30, 3 << 16), (1 << 20, 1 << 16), (1 << 30, 4096), (1 << 44, 1 << 22), (0, 65536)]
        {
            assert_eq!(Geometry::new(len, segment), Err(FormatError::Field), "{len} {segment}");
        }
    }
}
