//! What a slice tells about itself.

use super::error::StoreError;
use super::format::batch::Stamp;
use super::slice::Slice;
use crate::base::{BLOCK, ShardId, VolumeId};

/// Counters since the slice was started.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Blocks that hosts wrote.
    pub user_blocks: u64,
    /// Blocks that cleaning moved.
    pub moved_blocks: u64,
    /// Checkpoint pages written.
    pub page_blocks: u64,
    /// Batches written (a header block each).
    pub batches: u64,
    /// Host reads.
    pub reads: u64,
    /// Segments cleaned.
    pub cleaned_segments: u64,
    /// Checkpoints completed.
    pub checkpoints: u64,
    /// Blocks whose checksum did not fit, by reads, cleaning or scrub.
    pub checksum_errors: u64,
    /// Blocks that the device could not read.
    pub media_errors: u64,
    /// Blocks marked as lost by cleaning, because they could not be read or verified when they had to move.
    pub lost_blocks: u64,
    /// Headers that could not be read or verified by cleaning or scrub; their segment is left as it is.
    pub damaged_headers: u64,
    /// Writes refused because the pool was full.
    pub capacity_exceeded: u64,
    /// Blocks verified by scrub.
    pub scrubbed_blocks: u64,
    /// Batches replayed when the slice was opened.
    pub replayed_batches: u64,
    /// Batches dropped as torn when the slice was opened.
    pub torn_batches: u64,
}

impl Counters {
    pub(super) fn read_error(&mut self, checksum: bool) {
        if checksum {
            self.checksum_errors += 1;
        } else {
            self.media_errors += 1;
        }
    }

    /// Blocks written to the medium for each block that hosts wrote, counting moved blocks only: the write
    /// amplification of cleaning.
    pub fn cleaning_amplification(&self) -> f64 {
        (self.user_blocks + self.moved_blocks) as f64 / (self.user_blocks.max(1)) as f64
    }
}

/// How full a slice is and what it has been doing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Bytes per block.
    pub block_bytes: u32,
    /// Blocks of all segments.
    pub blocks: u64,
    /// Blocks that hosts may have mapped at the same time, index pages included.
    pub limit: u64,
    /// Blocks mapped by volumes.
    pub mapped: u64,
    /// Live blocks on the medium: mapped ones that are not lost, and checkpoint pages.
    pub live: u64,
    /// Blocks that can still be mapped.
    pub free: u64,
    /// Segments.
    pub segments: u32,
    /// Segments that may be written.
    pub segments_free: u32,
    /// Segments that are dead but wait for a checkpoint.
    pub segments_waiting: u32,
    /// Memory of the index, bytes.
    pub index_bytes: u64,
    /// Sequence number of the last stable batch.
    pub stable: u64,
    /// Requests under way: reads, staged writes, batches.
    pub under_way: usize,
    /// Damage found while opening that did not keep the slice from serving.
    pub damage: Option<StoreError>,
    /// Counters.
    pub counters: Counters,
}

impl Slice {
    /// How full the slice is and what it has been doing.
    pub fn usage(&self) -> Usage {
        let limit = self.limit_blocks();
        let mut counters = self.counters;
        counters.batches = self.log.written_batches;
        Usage {
            block_bytes: BLOCK as u32,
            blocks: self.geometry.blocks(),
            limit,
            mapped: self.index.mapped(),
            live: self.segments.live_total(),
            free: limit.saturating_sub(self.committed_blocks()),
            segments: self.geometry.segments,
            segments_free: self.segments.free(),
            segments_waiting: self.segments.waiting(),
            index_bytes: self.index.bytes(),
            stable: self.log.stable(),
            under_way: self.reads.len() + self.staging.len() + self.log.under_way(),
            damage: self.damage,
            counters,
        }
    }

    /// The newest durable write of a shard in this slice, as its stamp says: where its owner goes on after a restart.
    /// Epoch and LSN are 0 when there was none.
    pub fn last_stamp(&self, shard: ShardId) -> Stamp {
        self.index.stamp(shard).unwrap_or(Stamp { shard, ..Stamp::NONE })
    }

    /// Whether a block is mapped (lost blocks are); `None` when there is no such volume.
    pub fn is_mapped(&self, volume: VolumeId, block: u64) -> Option<bool> {
        let slot = self.index.slot(volume)?;
        Some(self.index.entry(slot, block).addr != super::format::Addr::NONE)
    }

    /// Blocks that a volume has mapped in this slice; `None` when there is no such volume.
    pub fn mapped_blocks(&self, volume: VolumeId) -> Option<u64> {
        self.index.slot(volume).map(|slot| self.index.volume(slot).mapped)
    }
}
