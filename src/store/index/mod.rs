//! Where every block of every volume is. Per volume a directory of pages (512 chunks each), per chunk a leaf of 512
//! entries of 8 bytes: address and CRC32C. Leaves are the only memory that grows with mapped blocks.
//!
//! What stays true: an entry names a place only when the batch that wrote the block is stable; the live counts of
//! [`super::segments::Segments`] are changed by the caller for every entry that [`Index::set`] replaces.

mod dir;
mod leaves;
mod volumes;

pub(super) use dir::{Dir, PageState};
pub(super) use leaves::Leaf;
pub(super) use volumes::{Life, Slot, Volume};

use super::format::batch::Stamp;
use super::format::page::{ENTRIES, Entry};
use super::format::{Addr, VolumeMeta};
use crate::base::limits::SHARDS;
use crate::base::{CHUNK_BLOCKS, ShardId, VolumeId};
use leaves::Leaves;
use volumes::Ids;

/// No leaf, no directory page.
pub(super) const NIL: u32 = u32::MAX;
const _: () = assert!(ENTRIES as u64 == CHUNK_BLOCKS);

/// How large an index may grow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Leaves that writes may bring about.
    pub leaves: usize,
    /// Further leaves for writes that were already under way when the last of those was taken.
    pub slack: usize,
    /// Volumes.
    pub volumes: usize,
    /// Blocks of the slice: every place in it is below.
    pub blocks: u64,
}

/// The index of one slice.
pub(super) struct Index {
    volumes: Vec<Volume>,
    ids: Ids,
    dirs: Vec<Dir>,
    dirs_free: Vec<u32>,
    leaves: Leaves,
    room: Room,
    dirty_leaves: u64,
    mapped: u64,
    /// Of the mapped blocks, those that are lost and take no space.
    lost: u64,
    /// No volume id from here on was ever used in this slice.
    floor: u32,
    /// The newest stable write of each shard.
    stamps: Vec<Stamp>,
}

impl Index {
    /// An empty index. Its tables are reserved now and never move.
    pub fn new(room: Room) -> Index {
        let leaves = room.leaves + room.slack;
        Index {
            volumes: Vec::with_capacity(room.volumes),
            ids: Ids::new(room.volumes),
            dirs: Vec::with_capacity(leaves),
            dirs_free: Vec::with_capacity(leaves),
            leaves: Leaves::new(leaves, room.blocks),
            room,
            dirty_leaves: 0,
            mapped: 0,
            lost: 0,
            floor: 0,
            stamps: (0..SHARDS).map(|n| Stamp { shard: ShardId(n), ..Stamp::NONE }).collect(),
        }
    }

    /// The slot of a volume that exists.
    #[inline]
    pub fn slot(&self, id: VolumeId) -> Option<Slot> {
        self.ids.get(id)
    }
    /// A volume by its slot.
    #[inline]
    pub fn volume(&self, slot: Slot) -> &Volume {
        &self.volumes[slot.index()]
    }
    /// A volume by its slot, to change.
    pub fn volume_mut(&mut self, slot: Slot) -> &mut Volume {
        &mut self.volumes[slot.index()]
    }
    /// All slots that are or were in use, whatever their life.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + use<> {
        (0..self.volumes.len() as u16).map(Slot)
    }
    /// Metadata of all volumes that exist, in order of their ids.
    pub fn metas(&self) -> impl Iterator<Item = &VolumeMeta> {
        self.ids.iter().map(|slot| &self.volumes[slot.index()].meta)
    }
    /// Volumes that exist.
    pub fn volume_count(&self) -> usize {
        self.ids.len()
    }
    /// True when one more volume fits.
    pub fn volume_room(&self) -> bool {
        self.volumes.len() < self.room.volumes || self.volumes.iter().any(|v| v.life == Life::Free)
    }
    /// No volume id from here on was ever used in this slice.
    pub fn floor(&self) -> u32 {
        self.floor
    }
    /// Raises the floor (recovery).
    pub fn raise_floor(&mut self, floor: u32) {
        self.floor = self.floor.max(floor);
    }
    /// A write with this stamp is stable.
    #[inline]
    pub fn note_stamp(&mut self, stamp: Stamp) {
        if let Some(newest) = self.stamps.get_mut(usize::from(stamp.shard.0)) {
            *newest = (*newest).max(stamp);
        }
    }
    /// The newest stable write of a shard.
    pub fn stamp(&self, shard: ShardId) -> Option<Stamp> {
        self.stamps.get(usize::from(shard.0)).copied()
    }

    /// Leaves in memory.
    pub fn leaf_count(&self) -> usize {
        self.leaves.count()
    }
    /// Leaves that may be in memory, slack included.
    pub fn leaf_capacity(&self) -> usize {
        self.room.leaves + self.room.slack
    }
    /// Directory pages in memory.
    pub fn dir_count(&self) -> usize {
        self.dirs.len() - self.dirs_free.len()
    }
    /// Mapped blocks of all volumes.
    pub fn mapped(&self) -> u64 {
        self.mapped
    }
    /// Mapped blocks that have a place on the medium: all but the lost ones.
    pub fn placed(&self) -> u64 {
        self.mapped - self.lost
    }
    /// Leaves changed since they were last copied to a checkpoint.
    pub fn dirty_leaves(&self) -> u64 {
        self.dirty_leaves
    }
    /// Bytes of memory in use by leaves and directory pages.
    pub fn bytes(&self) -> u64 {
        (self.leaves.bytes() + self.dirs.len() * size_of::<Dir>()) as u64
    }

    /// Creates or changes a volume. `None` when there is no slot for a new one.
    /// The caller drops blocks past a smaller size with [`Index::drop_leaf_from`].
    pub fn put_volume(&mut self, meta: VolumeMeta) -> Option<Slot> {
        self.floor = self.floor.max(meta.id.0.saturating_add(1));
        let dirs = meta.blocks().div_ceil(CHUNK_BLOCKS * ENTRIES as u64) as usize;
        if let Some(slot) = self.ids.get(meta.id) {
            let v = &mut self.volumes[slot.index()];
            v.meta = meta;
            if v.dirs.len() < dirs {
                v.dirs.resize(dirs, NIL);
            }
            return Some(slot);
        }
        let volume = Volume { meta, dirs: vec![NIL; dirs], mapped: 0, life: Life::Live, listed: 0 };
        let slot = match self.volumes.iter().position(|v| v.life == Life::Free) {
            Some(n) => {
                self.volumes[n] = volume;
                Slot(n as u16)
            }
            None if self.volumes.len() < self.room.volumes => {
                self.volumes.push(volume);
                Slot(self.volumes.len() as u16 - 1)
            }
            None => return None,
        };
        self.ids.insert(meta.id, slot);
        Some(slot)
    }

    /// The volume does not exist from here on; its leaves and pages are given back by the caller, bit by bit.
    pub fn doom_volume(&mut self, id: VolumeId) -> Option<Slot> {
        let slot = self.ids.remove(id)?;
        self.volumes[slot.index()].life = Life::Doomed;
        Some(slot)
    }

    /// Gives the slot of a doomed volume back once nothing of it is left.
    pub fn free_volume(&mut self, slot: Slot) {
        let v = &mut self.volumes[slot.index()];
        assert!(v.life == Life::Doomed && v.mapped == 0, "only an empty doomed volume goes");
        for n in std::mem::take(&mut v.dirs) {
            if n != NIL {
                self.dirs_free.push(n);
            }
        }
        self.volumes[slot.index()].life = Life::Free;
    }

    /// A directory page of a volume, if it exists.
    #[inline]
    pub fn dir(&self, slot: Slot, number: usize) -> Option<&Dir> {
        let n = *self.volumes[slot.index()].dirs.get(number)?;
        self.dirs.get(n as usize)
    }
    /// The same, to change its pages.
    pub fn dir_mut(&mut self, slot: Slot, number: usize) -> Option<&mut Dir> {
        let n = *self.volumes[slot.index()].dirs.get(number)?;
        self.dirs.get_mut(n as usize)
    }

    /// Gives a directory page back that has become empty.
    pub fn free_dir(&mut self, slot: Slot, number: usize) {
        let n = std::mem::replace(&mut self.volumes[slot.index()].dirs[number], NIL);
        assert!(self.dirs[n as usize].is_empty(), "only an empty directory page goes");
        self.dirs_free.push(n);
    }

    /// The leaf of a chunk, if there is one.
    #[inline]
    pub fn leaf(&self, slot: Slot, chunk: u64) -> Option<Leaf<'_>> {
        let dir = self.dir(slot, (chunk / ENTRIES as u64) as usize)?;
        self.leaves.get(dir.leaf[(chunk % ENTRIES as u64) as usize])
    }

    /// Where a block is; [`Entry::NONE`] when it is unmapped or past everything ever written.
    #[inline]
    pub fn entry(&self, slot: Slot, block: u64) -> Entry {
        match self.leaf(slot, block / CHUNK_BLOCKS) {
            Some(leaf) => leaf.entry((block % CHUNK_BLOCKS) as usize),
            None => Entry::NONE,
        }
    }

    /// True when a write to this chunk would not exceed the memory for leaves.
    #[inline]
    pub fn may_map(&self, slot: Slot, chunk: u64) -> bool {
        let room = self.leaf_count() < self.room.leaves && self.dir_count() < self.room.leaves;
        room || self.leaf(slot, chunk).is_some()
    }

    /// Switches one entry and returns what it was. `None` when the leaf slab is used up, slack and all.
    #[inline]
    pub fn set(&mut self, slot: Slot, block: u64, entry: Entry) -> Option<Entry> {
        let (chunk, at) = (block / CHUNK_BLOCKS, (block % CHUNK_BLOCKS) as usize);
        let (number, chunk_at) = ((chunk / ENTRIES as u64) as usize, (chunk % ENTRIES as u64) as usize);
        let volume = &mut self.volumes[slot.index()];
        let mut dir_n = *volume.dirs.get(number)?;
        if dir_n == NIL {
            if entry == Entry::NONE {
                return Some(Entry::NONE);
            }
            dir_n = take_dir(&mut self.dirs, &mut self.dirs_free)?;
            volume.dirs[number] = dir_n;
        }
        let dir = &mut self.dirs[dir_n as usize];
        let mut leaf_n = dir.leaf[chunk_at];
        if leaf_n == NIL {
            if entry == Entry::NONE {
                return Some(Entry::NONE);
            }
            leaf_n = self.leaves.take()?;
            dir.leaf[chunk_at] = leaf_n;
        }
        let old = self.leaves.set(leaf_n, at, entry);
        self.dirty_leaves += u64::from(dir.mark_dirty(chunk_at));
        let lost = i64::from(entry == Entry::LOST) - i64::from(old == Entry::LOST);
        self.lost = self.lost.strict_add_signed(lost);
        let change = i32::from(entry != Entry::NONE) - i32::from(old != Entry::NONE);
        if change != 0 {
            self.mapped = self.mapped.strict_add_signed(i64::from(change));
            volume.mapped = volume.mapped.strict_add_signed(i64::from(change));
            dir.mapped[chunk_at] = dir.mapped[chunk_at].strict_add_signed(change as i16);
            if dir.mapped[chunk_at] == 0 {
                self.drop_leaf(slot, chunk);
            }
        }
        Some(old)
    }

    /// Takes a whole leaf out (all its entries are forgotten; its page on the medium stays until a checkpoint).
    fn drop_leaf(&mut self, slot: Slot, chunk: u64) {
        let (number, at) = ((chunk / ENTRIES as u64) as usize, (chunk % ENTRIES as u64) as usize);
        let volume = &mut self.volumes[slot.index()];
        let dir = &mut self.dirs[volume.dirs[number] as usize];
        let leaf_n = std::mem::replace(&mut dir.leaf[at], NIL);
        let gone = u64::from(std::mem::take(&mut dir.mapped[at]));
        self.mapped -= gone;
        volume.mapped -= gone;
        self.dirty_leaves -= u64::from(dir.clear_dirty(at));
        dir.lost_leaf = true;
        self.leaves.give(leaf_n);
    }

    /// Forgets the entries of a chunk from entry `from` on and reports each place that died. True when the chunk had
    /// a leaf.
    pub fn drop_leaf_from(&mut self, slot: Slot, chunk: u64, from: usize, mut died: impl FnMut(Addr)) -> bool {
        if self.leaf(slot, chunk).is_none() {
            return false;
        }
        let block = |at: usize| chunk * CHUNK_BLOCKS + at as u64;
        for at in from..ENTRIES {
            let entry = self.entry(slot, block(at));
            if entry.addr.is_place() {
                died(entry.addr);
            }
            if from == 0 {
                self.lost -= u64::from(entry == Entry::LOST);
            }
            if from != 0 && entry != Entry::NONE {
                self.set(slot, block(at), Entry::NONE);
            }
        }
        if from == 0 {
            self.drop_leaf(slot, chunk);
        }
        true
    }

    /// Recovery: puts a leaf read from a checkpoint in place, clean. `None` when it is empty or the slab is used up.
    pub fn load_leaf(&mut self, slot: Slot, chunk: u64, entries: impl Iterator<Item = Entry>) -> Option<Leaf<'_>> {
        let (number, at) = ((chunk / ENTRIES as u64) as usize, (chunk % ENTRIES as u64) as usize);
        let leaf_n = self.leaves.take()?;
        let mut mapped = 0u16;
        for (n, entry) in entries.enumerate().filter(|(_, entry)| *entry != Entry::NONE) {
            self.leaves.set(leaf_n, n, entry);
            mapped += 1;
            self.lost += u64::from(entry == Entry::LOST);
        }
        let volume = &mut self.volumes[slot.index()];
        let dir = &mut self.dirs[volume.dirs[number] as usize];
        assert_eq!(dir.leaf[at], NIL, "a leaf is loaded once");
        (dir.leaf[at], dir.mapped[at]) = (leaf_n, mapped);
        self.mapped += u64::from(mapped);
        volume.mapped += u64::from(mapped);
        if mapped == 0 {
            self.drop_leaf(slot, chunk);
            return None;
        }
        self.leaves.get(leaf_n)
    }

    /// Recovery: an empty directory page for 512 chunks of a volume. `None` when it is past the volume's end or the
    /// slab is used up.
    pub fn load_dir(&mut self, slot: Slot, number: usize) -> Option<&mut Dir> {
        let place = self.volumes[slot.index()].dirs.get_mut(number)?;
        assert_eq!(*place, NIL, "a directory page is loaded once");
        let n = take_dir(&mut self.dirs, &mut self.dirs_free)?;
        *place = n;
        Some(&mut self.dirs[n as usize])
    }

    /// Marks a leaf as changed, so that the next checkpoint writes it anew.
    pub fn touch_leaf(&mut self, slot: Slot, chunk: u64) {
        let (number, at) = ((chunk / ENTRIES as u64) as usize, (chunk % ENTRIES as u64) as usize);
        if let Some(dir) = self.dir_mut(slot, number)
            && dir.leaf[at] != NIL
        {
            let newly = dir.mark_dirty(at);
            self.dirty_leaves += u64::from(newly);
        }
    }

    /// Makes the next checkpoint write a directory page anew.
    pub fn touch_dir(&mut self, slot: Slot, number: usize) {
        if let Some(dir) = self.dir_mut(slot, number) {
            dir.rewrite = true;
        }
    }

    /// The leaf was copied to a checkpoint page: it is clean until it changes again.
    pub fn clean_leaf(&mut self, slot: Slot, chunk: u64) {
        let (number, at) = ((chunk / ENTRIES as u64) as usize, (chunk % ENTRIES as u64) as usize);
        let dir = self.dir_mut(slot, number).expect("a leaf has a directory page");
        let was = dir.clear_dirty(at);
        self.dirty_leaves -= u64::from(was);
    }
}

fn take_dir(dirs: &mut Vec<Dir>, free: &mut Vec<u32>) -> Option<u32> {
    if let Some(n) = free.pop() {
        dirs[n as usize] = Dir::EMPTY;
        return Some(n);
    }
    if dirs.len() == dirs.capacity() {
        return None;
    }
    dirs.push(Dir::EMPTY);
    Some(dirs.len() as u32 - 1)
}

#[cfg(test)]
mod tests;
