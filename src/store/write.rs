//! Writes and zeroes of hosts: into the open batch at once where that is possible, through staging otherwise.

use super::format::Stream;
use super::format::batch::{Described, Kind};
use super::index::Slot;
use super::request::{Io, Outcome};
use super::slice::Slice;
use super::space::LEAF_BLOCKS;
use super::staging::Body;
use crate::base::limits::ATOMIC_BYTES;
use crate::base::{BLOCK, CHUNK, CHUNK_BLOCKS, Status};
use crate::device::Queue;
use crate::mem::Pool;
use crate::transform::copy_crc32c;

/// The blocks that a request touches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// First block.
    pub first: u64,
    /// Blocks, edges included.
    pub count: u32,
    /// Bytes of the first block before the request.
    pub head: u32,
    /// Bytes of the last block within the request, 1..=4096.
    pub tail: u32,
}

impl Extent {
    /// The extent of a request that lies within one chunk.
    pub fn of(io: &Io) -> Extent {
        let block = BLOCK as u64;
        let end = io.offset + u64::from(io.len);
        assert!(
            io.len >= 512 && io.len.is_multiple_of(512) && io.offset.is_multiple_of(512),
            "requests are whole 512-byte sectors"
        );
        assert!(io.offset / CHUNK == (end - 1) / CHUNK, "a request lies within one chunk");
        let first = io.offset / block;
        let last = (end - 1) / block;
        let tail = (end - last * block) as u32;
        Extent { first, count: (last - first + 1) as u32, head: (io.offset % block) as u32, tail }
    }
    /// True when it is whole blocks.
    pub fn is_whole(&self) -> bool {
        self.head == 0 && self.tail as usize == BLOCK
    }
    /// True when the two share a block.
    pub fn overlaps(&self, other: &Extent) -> bool {
        self.first < other.first + u64::from(other.count) && other.first < self.first + u64::from(self.count)
    }
}

impl Slice {
    /// Writes `data` (`io.len` bytes, copied within the call). Ends with `Ok` when it is durable. Aligned ranges of
    /// [`ATOMIC_BYTES`] are atomic: after a crash, and for a read that runs at the same time, each is old or new as a whole.
    ///
    /// # Errors
    /// `OutOfRange`, `CapacityExceeded`, `MediaError` (only where part of a damaged block is written), `Gone`.
    pub fn write<Q: Queue>(&mut self, io: Io, data: &[u8], q: &mut Q, pool: &mut Pool) -> Outcome {
        assert_eq!(data.len(), io.len as usize, "payload and length agree");
        if let Some(refused) = self.refusal(io.tag) {
            return refused;
        }
        let extent = Extent::of(&io);
        let slot = match self.check_range(&io) {
            Ok(slot) => slot,
            Err(status) => return Outcome::ended(io.tag, status),
        };
        if let Some(refused) = self.check_capacity(&io, slot, &extent) {
            return refused;
        }
        if self.reads.shields(io.volume, &extent) {
            return Outcome::Later(None);
        }
        if !extent.is_whole() || self.staging.overlaps(io.volume, &extent) {
            return self.stage(io, extent, Some(data), q, pool);
        }
        let Some(batch) = self.batch_for(extent.count, q, pool) else {
            return self.write_in_parts(io, extent, data, q, pool);
        };
        let what = Described { volume: io.volume, first: extent.first, count: extent.count, stamp: io.stamp };
        self.append_data(batch, what, data);
        self.log.wait(batch, io.tag);
        self.headroom = self.headroom.saturating_sub(u64::from(extent.count) + LEAF_BLOCKS);
        Outcome::Pending
    }

    /// Makes a range read as zeroes and gives its space back. Ends with `Ok` when that is durable.
    ///
    /// # Errors
    /// As for [`Slice::write`]; `CapacityExceeded` only where the edges of the range are parts of blocks.
    pub fn zero<Q: Queue>(&mut self, io: Io, q: &mut Q, pool: &mut Pool) -> Outcome {
        if let Some(refused) = self.refusal(io.tag) {
            return refused;
        }
        let extent = Extent::of(&io);
        if let Err(status) = self.check_range(&io) {
            return Outcome::ended(io.tag, status);
        }
        if self.reads.shields(io.volume, &extent) {
            return Outcome::Later(None);
        }
        if !extent.is_whole() || self.staging.overlaps(io.volume, &extent) {
            return self.stage(io, extent, None, q, pool);
        }
        let what = Described { volume: io.volume, first: extent.first, count: extent.count, stamp: io.stamp };
        match self.append_bare(Kind::Zero, what, q, pool) {
            Some(batch) => {
                self.log.wait(batch, io.tag);
                Outcome::Pending
            }
            None => Outcome::Later(None),
        }
    }

    pub(super) fn check_range(&self, io: &Io) -> Result<Slot, Status> {
        let slot = self.index.slot(io.volume).ok_or(Status::Gone)?;
        let bytes = self.index.volume(slot).meta.bytes;
        let end = io.offset + u64::from(io.len);
        if end > bytes { Err(Status::OutOfRange) } else { Ok(slot) }
    }

    /// `None` when the write may go on.
    fn check_capacity(&mut self, io: &Io, slot: Slot, extent: &Extent) -> Option<Outcome> {
        let chunk = extent.first / CHUNK_BLOCKS;
        let leaf_ok = self.index.may_map(slot, chunk);
        if leaf_ok && u64::from(extent.count) + LEAF_BLOCKS <= self.headroom {
            return None;
        }
        let blocks = extent.first..extent.first + u64::from(extent.count);
        let unmapped = |b: &u64| !self.index.entry(slot, *b).addr.is_place();
        let mut new = blocks.filter(unmapped).count() as u64;
        if new == 0 {
            return None;
        }
        if self.index.leaf(slot, chunk).is_none() {
            new += LEAF_BLOCKS;
        }
        let (used, limit) = (self.committed_blocks(), self.limit_blocks());
        if !leaf_ok || used + new > limit {
            self.counters.capacity_exceeded += 1;
            return Some(Outcome::ended(io.tag, Status::CapacityExceeded));
        }
        // What is under way may or may not add to the live blocks; the answer is exact once it is applied.
        (used + new + self.log.unapplied_blocks() > limit).then_some(Outcome::Later(None))
    }

    /// An open batch of the hot stream with room for `count` data blocks in one record.
    #[inline]
    fn batch_for<Q: Queue>(&mut self, count: u32, q: &mut Q, pool: &mut Pool) -> Option<usize> {
        loop {
            let batch = self.open_hot(pool)?;
            if self.log.room(batch, Kind::Data) >= count {
                return Some(batch);
            }
            // An empty batch that is too small is the last of its segment. What must not be split goes past it: an empty
            // header takes each block that is left.
            let past = !self.log.open_is_empty(Stream::Hot) || count <= self.atomic_blocks();
            if !past || !self.log.may_seal(Stream::Hot) {
                return None;
            }
            self.seal(Stream::Hot, q);
        }
    }

    /// Blocks that are never split over batches: what replay finds of a batch it finds as a whole.
    #[inline]
    fn atomic_blocks(&self) -> u32 {
        ((ATOMIC_BYTES / BLOCK) as u32).min(self.cfg.payload_max())
    }

    #[inline]
    pub(super) fn open_hot(&mut self, pool: &mut Pool) -> Option<usize> {
        let reserve = if self.log.needs_segment(Stream::Hot) { self.reserve() } else { 0 };
        self.log.open(Stream::Hot, reserve, &mut self.segments, pool)
    }

    /// Copies whole blocks into an open batch, with their checksums.
    #[inline]
    pub(super) fn append_data(&mut self, batch: usize, what: Described, data: &[u8]) {
        let (tail, payload, _) = self.log.push(batch, Kind::Data, what);
        let blocks = data.chunks_exact(BLOCK).zip(payload.chunks_exact_mut(BLOCK));
        for ((from, to), crc) in blocks.zip(tail.chunks_exact_mut(4)) {
            crc.copy_from_slice(&copy_crc32c(to, from).to_le_bytes());
        }
        self.counters.user_blocks += u64::from(what.count);
    }

    /// Adds a record without payload to the hot stream; returns its batch. Such records may use segments that writes
    /// may not: they give space back or are needed to administer a full pool.
    pub(super) fn append_bare<Q: Queue>(
        &mut self,
        kind: Kind,
        what: Described,
        q: &mut Q,
        pool: &mut Pool,
    ) -> Option<usize> {
        let mut batch = self.log.open(Stream::Hot, self.reserve_for_release(), &mut self.segments, pool)?;
        if self.log.room(batch, kind) < what.count.max(1) {
            if !self.log.may_seal(Stream::Hot) {
                return None;
            }
            self.seal(Stream::Hot, q);
            batch = self.log.open(Stream::Hot, self.reserve_for_release(), &mut self.segments, pool)?;
        }
        self.log.push(batch, kind, what);
        Some(batch)
    }

    /// A write that no single batch can take: what fits goes into this one, the rest waits in staging.
    fn write_in_parts<Q: Queue>(&mut self, io: Io, extent: Extent, data: &[u8], q: &mut Q, pool: &mut Pool) -> Outcome {
        if self.cleaner.stuck && self.log.needs_segment(Stream::Hot) {
            self.counters.capacity_exceeded += 1;
            return Outcome::ended(io.tag, Status::CapacityExceeded);
        }
        // An open batch that is empty and yet too small is the last of its segment; only a part of this write can fill it.
        let at_end = self.log.open_batch(Stream::Hot).is_some_and(|batch| batch.payload() == 0);
        let fits = extent.count <= self.cfg.payload_max() / 2 && !at_end;
        if fits || extent.count <= self.atomic_blocks() {
            // It gets a batch of its own as soon as one may be opened.
            return Outcome::Later(None);
        }
        self.stage(io, extent, Some(data), q, pool)
    }

    /// Appends blocks of a staged body from `done` on; returns how far it got. The tag is attached to the last part:
    /// batches become stable in order, so the last part's end is the whole's.
    pub(super) fn append_staged<Q: Queue>(
        &mut self,
        io: &Io,
        extent: &Extent,
        body: &Body,
        mut done: u32,
        q: &mut Q,
        pool: &mut Pool,
    ) -> u32 {
        while done < extent.count {
            let Some(part) = body.part(extent, done) else { break };
            let what =
                |count| Described { volume: io.volume, first: extent.first + u64::from(done), count, stamp: io.stamp };
            let (batch, count) = match part.data {
                None => match self.append_bare(Kind::Zero, what(part.count), q, pool) {
                    Some(batch) => (batch, part.count),
                    None => break,
                },
                Some(data) => {
                    let least = if extent.count <= self.atomic_blocks() { part.count } else { 1 };
                    let Some(batch) = self.batch_for(least, q, pool) else { break };
                    let count = part.count.min(self.log.room(batch, Kind::Data));
                    self.append_data(batch, what(count), &data[..count as usize * BLOCK]);
                    (batch, count)
                }
            };
            done += count;
            if done == extent.count {
                self.log.wait(batch, io.tag);
            }
        }
        done
    }
}
