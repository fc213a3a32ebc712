//! How full a slice may get, and which free segments are kept from hosts so that cleaning and checkpoints can always
//! finish.

use super::format::batch::{HEADER_USED_MAX, RECORD};
use super::format::{Geometry, Stream};
use super::slice::Slice;

/// A current and a next segment per stream.
const STREAM_SEGMENTS: u32 = 6;
/// Segments that a checkpoint needs besides those its pages fill: batches do not end where segments do.
const CHECKPOINT_SLACK: u32 = 2;
/// Free segments that only cleaning may take, besides those kept for a checkpoint.
const CLEAN_SEGMENTS: u32 = 3;
/// Blocks that a new leaf takes at most: its page twice, and a block of the reserve that holds a third copy.
pub(super) const LEAF_BLOCKS: u64 = 3;
/// Single-block moves that one header describes.
const MOVES_PER_BATCH: u32 = ((HEADER_USED_MAX - 72) / (RECORD + 8)) as u32;

/// Payload blocks that a segment holds when it is filled with full batches of moved blocks.
pub(super) fn dense_blocks(geometry: Geometry, payload_max: u32) -> u32 {
    let (mut room, mut payload) = (geometry.segment_blocks, 0);
    while room >= 2 {
        let n = payload_max.min(MOVES_PER_BATCH).min(room - 1);
        payload += n;
        room -= n + 1;
    }
    payload
}

impl Slice {
    /// Blocks that live data and index pages may take: what is left when the streams have their segments and the
    /// reserve is free, packed by cleaning, less the part that keeps cleaning cheap.
    pub(super) fn limit_blocks(&self) -> u64 {
        let kept = STREAM_SEGMENTS + self.checkpoint_segments() + CLEAN_SEGMENTS + 1;
        let segments = u64::from(self.geometry.segments.saturating_sub(kept));
        segments * u64::from(self.dense) * u64::from(self.cfg.limits.fill_percent) / 100
    }

    /// Pages of a whole checkpoint, about.
    pub(super) fn checkpoint_pages(&self) -> u64 {
        let manifest = self.index.volume_count() as u64 * 113 + self.index.dir_count() as u64 * 17;
        let segments = u64::from(self.geometry.segments) * 13;
        let pages = (self.index.leaf_count() + self.index.dir_count()) as u64;
        // Two more for the stamps of all shards, one for what does not divide evenly.
        pages + (manifest + segments).div_ceil(4000) + 3
    }

    /// Blocks spoken for: those of volumes, and every index page twice, because a checkpoint keeps the old page until it is
    /// durable.
    pub(super) fn committed_blocks(&self) -> u64 {
        self.index.placed() + 2 * self.checkpoint_pages()
    }

    /// Segments that a checkpoint fills which writes all pages anew.
    fn checkpoint_segments(&self) -> u32 {
        self.checkpoint_pages().div_ceil(u64::from(self.dense)) as u32 + CHECKPOINT_SLACK
    }

    /// Free segments that only checkpoints may take.
    pub(super) fn reserve_for_checkpoint(&self) -> u32 {
        self.checkpoint_segments() + self.log.owed(Stream::Meta)
    }

    /// Free segments that hosts may not take.
    pub(super) fn reserve(&self) -> u32 {
        self.reserve_for_checkpoint() + self.log.owed(Stream::Cold) + CLEAN_SEGMENTS
    }

    /// Free segments that a request which gives space back may not take either.
    pub(super) fn reserve_for_release(&self) -> u32 {
        self.reserve() - 2
    }

    /// What hosts may append without an exact look; once per turn.
    pub(super) fn refresh_headroom(&mut self) {
        let used = self.committed_blocks() + self.log.unapplied_blocks();
        self.headroom = self.limit_blocks().saturating_sub(used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dense_packing_counts_headers() {
        assert_eq!(dense_blocks(Geometry { segment_blocks: 16, segments: 16 }, 7), 14);
        assert_eq!(dense_blocks(Geometry { segment_blocks: 1024, segments: 16 }, 127), 1013);
    }
}
