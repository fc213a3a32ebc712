//! What a stable record does to the index and the live counts. Live batches and recovery go through the same
//! function, so that a replay ends where the slice had been.

use super::error::StoreError;
use super::format::Addr;
use super::format::batch::{Kind, Record};
use super::format::page::Entry;
use super::index::{Index, Slot};
use super::planted::{Planted, Rules};
use super::segments::Segments;
use crate::base::CHUNK_BLOCKS;

/// What remains to be done after a record was applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    /// Nothing.
    Done,
    /// The volume got smaller: its blocks from the first one named up to the second one must be dropped.
    Shrunk(Slot, u64, u64),
    /// The volume is gone: all of it must be given back.
    Doomed(Slot),
}

/// Applies one record whose payload starts at `base` plus its own offset.
///
/// # Errors
/// [`StoreError::Limit`] when the index may not grow further; only recovery with smaller limits than before sees it.
pub(super) fn apply(
    record: &Record<'_>,
    base: Addr,
    index: &mut Index,
    segments: &mut Segments,
    rules: Rules,
) -> Result<Effect, StoreError> {
    let full = StoreError::Limit("index_bytes");
    match record.kind {
        Kind::Data => {
            index.note_stamp(record.stamp);
            switch(record, base, index, segments).ok_or(full)?;
        }
        Kind::Move => switch_moved(record, base, index, segments, rules).ok_or(full)?,
        Kind::Zero => {
            index.note_stamp(record.stamp);
            zero(record, index, segments).ok_or(full)?;
        }
        Kind::Lost => lose(record, index, segments).ok_or(full)?,
        Kind::VolumeSet => return set_volume(record, index),
        Kind::VolumeDelete => {
            index.raise_floor(record.volume.0.saturating_add(1));
            return Ok(index.doom_volume(record.volume).map_or(Effect::Done, Effect::Doomed));
        }
        Kind::Leaf | Kind::Dir | Kind::Manifest => {}
    }
    Ok(Effect::Done)
}

/// The part of the record that lies within the volume as it is now: its slot and how many blocks; 0 when the volume is
/// gone or has become smaller.
#[inline]
fn within(record: &Record<'_>, index: &Index) -> Option<(Slot, u32)> {
    let slot = index.slot(record.volume)?;
    let left = index.volume(slot).meta.blocks().saturating_sub(record.first);
    Some((slot, u64::from(record.count).min(left) as u32))
}

#[inline]
fn switch(record: &Record<'_>, base: Addr, index: &mut Index, segments: &mut Segments) -> Option<()> {
    let Some((slot, count)) = within(record, index) else { return Some(()) };
    if count == 0 {
        return Some(());
    }
    let at = base.plus(record.payload_at);
    segments.add(at, count);
    for i in 0..count {
        let entry = Entry { addr: at.plus(i), crc: record.crc(i) };
        let old = index.set(slot, record.first + u64::from(i), entry)?;
        if old.addr.is_place() {
            segments.remove(old.addr);
        }
    }
    Some(())
}

fn switch_moved(
    record: &Record<'_>,
    base: Addr,
    index: &mut Index,
    segments: &mut Segments,
    rules: Rules,
) -> Option<()> {
    let Some((slot, count)) = within(record, index) else { return Some(()) };
    for i in 0..count {
        let block = record.first + u64::from(i);
        let now = index.entry(slot, block);
        let overwritten = now.addr != record.from(i);
        if overwritten && !(rules.breaks(Planted::MoveOverOverwrite) && now.addr.is_place()) {
            continue;
        }
        let entry = Entry { addr: base.plus(record.payload_at + i), crc: record.crc(i) };
        segments.add(entry.addr, 1);
        index.set(slot, block, entry)?;
        segments.remove(now.addr);
    }
    Some(())
}

fn zero(record: &Record<'_>, index: &mut Index, segments: &mut Segments) -> Option<()> {
    let Some((slot, count)) = within(record, index) else { return Some(()) };
    let (mut block, end) = (record.first, record.first + u64::from(count));
    while block < end {
        let chunk_end = (block / CHUNK_BLOCKS + 1) * CHUNK_BLOCKS;
        if index.leaf(slot, block / CHUNK_BLOCKS).is_none() {
            block = chunk_end;
            continue;
        }
        let old = index.set(slot, block, Entry::NONE)?;
        if old.addr.is_place() {
            segments.remove(old.addr);
        }
        block += 1;
    }
    Some(())
}

fn lose(record: &Record<'_>, index: &mut Index, segments: &mut Segments) -> Option<()> {
    let Some((slot, count)) = within(record, index) else { return Some(()) };
    for i in 0..count {
        let block = record.first + u64::from(i);
        let now = index.entry(slot, block);
        if now.addr == record.from(i) && now.addr.is_place() {
            index.set(slot, block, Entry::LOST)?;
            segments.remove(now.addr);
        }
    }
    Some(())
}

fn set_volume(record: &Record<'_>, index: &mut Index) -> Result<Effect, StoreError> {
    let meta = record.meta().expect("the header's records were proven");
    let before = index.slot(meta.id).map_or(0, |slot| index.volume(slot).meta.blocks());
    let slot = index.put_volume(meta).ok_or(StoreError::Limit("volumes"))?;
    if meta.blocks() < before { Ok(Effect::Shrunk(slot, meta.blocks(), before)) } else { Ok(Effect::Done) }
}

/// Gives blocks of a volume back, a bounded number of leaves at a time: after a shrink, or all of them after a delete.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trim {
    pub slot: Slot,
    /// The next chunk to look at.
    pub chunk: u64,
    /// First block to drop.
    pub from: u64,
    /// One past the last chunk.
    pub end: u64,
}

impl Trim {
    /// Drops blocks `from..to` of a volume.
    pub fn new(slot: Slot, from: u64, to: u64) -> Trim {
        Trim { slot, chunk: from / CHUNK_BLOCKS, from, end: to.div_ceil(CHUNK_BLOCKS) }
    }

    /// Drops at most `leaves` leaves; true when nothing is left to do.
    pub fn step(&mut self, mut leaves: u32, index: &mut Index, segments: &mut Segments) -> bool {
        let per_dir = CHUNK_BLOCKS;
        while self.chunk < self.end && leaves > 0 {
            let Some(_) = index.dir(self.slot, (self.chunk / per_dir) as usize) else {
                self.chunk = (self.chunk / per_dir + 1) * per_dir;
                continue;
            };
            let first = self.chunk * CHUNK_BLOCKS;
            let from = self.from.saturating_sub(first) as usize;
            if index.drop_leaf_from(self.slot, self.chunk, from, |addr| segments.remove(addr)) {
                leaves -= 1;
            }
            self.chunk += 1;
        }
        self.chunk >= self.end
    }
}
