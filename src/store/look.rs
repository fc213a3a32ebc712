//! Questions about a range that need no I/O: is it mapped, is a change of it under way.

use super::format::batch::Stamp;
use super::format::page::Entry;
use super::log::Newest;
use super::request::{Io, Phase};
use super::slice::Slice;
use super::write::Extent;
use crate::base::{BLOCK, CHUNK_BLOCKS, Status, VolumeId};

impl Slice {
    /// Whether the bytes from `offset` on are mapped, and how many of the `len` bytes (within one chunk) from there on
    /// are the same; `None` while the log is being opened. A block of 4 KiB is mapped as a whole, a lost one too.
    ///
    /// # Errors
    /// `OutOfRange`, `Gone`.
    pub fn mapped_run(&self, volume: VolumeId, offset: u64, len: u32) -> Result<Option<(bool, u32)>, Status> {
        match self.phase() {
            Phase::Ready => {}
            Phase::Starting { .. } => return Ok(None),
            Phase::Failed(_) | Phase::Dead(_) => return Err(Status::Gone),
        }
        let io = Io { volume, offset, len, stamp: Stamp::NONE, tag: 0 };
        let slot = self.check_range(&io)?;
        let extent = Extent::of(&io);
        let Some(leaf) = self.index.leaf(slot, extent.first / CHUNK_BLOCKS) else { return Ok(Some((false, len))) };
        let first = (extent.first % CHUNK_BLOCKS) as usize;
        let mapped = |at: usize| leaf.entry(at) != Entry::NONE;
        let same = (first..first + extent.count as usize).take_while(|at| mapped(*at) == mapped(first)).count();
        let run = (same * BLOCK) as u32 - extent.head;
        Ok(Some((mapped(first), run.min(len))))
    }

    /// True while a write or zeroing that touches the range (within one chunk) has begun and not ended.
    pub fn is_changing(&self, volume: VolumeId, offset: u64, len: u32) -> bool {
        let extent = Extent::of(&Io { volume, offset, len, stamp: Stamp::NONE, tag: 0 });
        let unstable = |block| !matches!(self.log.newest(volume, block), Newest::None);
        self.staging.overlaps(volume, &extent) || (extent.first..extent.first + u64::from(extent.count)).any(unstable)
    }
}
