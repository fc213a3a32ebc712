//! Which block of which volume is where, as checkpoint and log say: the checker's own index, plain and slow.

use crate::base::{CHUNK_BLOCKS, VolumeId};
use crate::store::format::batch::{Kind, Record};
use crate::store::format::page::Entry;
use crate::store::format::{Addr, VolumeMeta};
use std::collections::BTreeMap;

const LEAF: usize = CHUNK_BLOCKS as usize;

struct Volume {
    meta: VolumeMeta,
    leaves: BTreeMap<u64, Box<[u64; LEAF]>>,
}

/// The mapping of a slice.
pub struct Map(BTreeMap<VolumeId, Volume>);

impl Map {
    /// Nothing is mapped.
    pub fn new() -> Map {
        Map(BTreeMap::new())
    }

    /// How many volumes there are.
    pub fn volumes(&self) -> usize {
        self.0.len()
    }

    /// True when the volume exists.
    pub fn has(&self, volume: VolumeId) -> bool {
        self.0.contains_key(&volume)
    }

    /// A volume comes to be or changes; blocks past its end are dropped.
    pub fn put(&mut self, meta: VolumeMeta) {
        let volume = self.0.entry(meta.id).or_insert_with(|| Volume { meta, leaves: BTreeMap::new() });
        volume.meta = meta;
        let blocks = meta.blocks();
        let (chunk, within) = (blocks / CHUNK_BLOCKS, (blocks % CHUNK_BLOCKS) as usize);
        volume.leaves.split_off(&(chunk + u64::from(within > 0)));
        if let Some(leaf) = volume.leaves.get_mut(&chunk) {
            leaf[within..].fill(Entry::NONE.pack());
        }
    }

    /// Where a block is.
    pub fn entry(&self, volume: VolumeId, block: u64) -> Entry {
        let leaf = self.0.get(&volume).and_then(|v| v.leaves.get(&(block / CHUNK_BLOCKS)));
        leaf.map_or(Entry::NONE, |leaf| Entry::unpack(leaf[(block % CHUNK_BLOCKS) as usize]))
    }

    /// Sets where a block is; of a volume that does not exist, or past its end, nothing is kept.
    pub fn set(&mut self, volume: VolumeId, block: u64, entry: Entry) {
        let Some(volume) = self.0.get_mut(&volume) else { return };
        if block >= volume.meta.blocks() {
            return;
        }
        let leaf = volume.leaves.entry(block / CHUNK_BLOCKS).or_insert_with(|| Box::new([0; LEAF]));
        leaf[(block % CHUNK_BLOCKS) as usize] = entry.pack();
    }

    /// Does what a record of the log says; `base` is the first payload block of its batch.
    pub fn apply(&mut self, record: &Record<'_>, base: Addr) {
        let blocks = (0..record.count).map(|i| (i, record.first + u64::from(i)));
        match record.kind {
            Kind::Data => {
                for (i, block) in blocks {
                    let entry = Entry { addr: base.plus(record.payload_at + i), crc: record.crc(i) };
                    self.set(record.volume, block, entry);
                }
            }
            Kind::Move => {
                for (i, block) in blocks {
                    if self.entry(record.volume, block).addr == record.from(i) {
                        let entry = Entry { addr: base.plus(record.payload_at + i), crc: record.crc(i) };
                        self.set(record.volume, block, entry);
                    }
                }
            }
            Kind::Zero => blocks.for_each(|(_, block)| self.clear(record.volume, block)),
            Kind::Lost => {
                for (i, block) in blocks {
                    if self.entry(record.volume, block).addr == record.from(i) {
                        self.set(record.volume, block, Entry::LOST);
                    }
                }
            }
            Kind::VolumeSet => {
                if let Ok(meta) = record.meta() {
                    self.put(meta);
                }
            }
            Kind::VolumeDelete => drop(self.0.remove(&record.volume)),
            Kind::Leaf | Kind::Dir | Kind::Manifest => {}
        }
    }

    fn clear(&mut self, volume: VolumeId, block: u64) {
        if self.entry(volume, block) != Entry::NONE {
            self.set(volume, block, Entry::NONE);
        }
    }

    /// Every block that is mapped or lost: volume, block, entry.
    pub fn entries(&self) -> impl Iterator<Item = (VolumeId, u64, Entry)> {
        self.0.iter().flat_map(|(id, volume)| {
            volume.leaves.iter().flat_map(move |(chunk, leaf)| {
                let blocks = leaf.iter().enumerate().map(move |(i, word)| (chunk * CHUNK_BLOCKS + i as u64, *word));
                blocks.map(|(block, word)| (*id, block, Entry::unpack(word))).filter(|(.., e)| *e != Entry::NONE)
            })
        })
    }
}
