//! The volumes of a slice: a slot each, found by id through a small sorted table.

use crate::base::VolumeId;
use crate::store::format::VolumeMeta;

/// A volume's place in the table of volumes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::store) struct Slot(pub u16);

impl Slot {
    /// As an index.
    #[inline]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Where a volume is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::store) enum Life {
    /// The slot is unused.
    Free,
    /// It exists.
    Live,
    /// Deleted; its leaves are being given back, and its checkpoint pages wait for the next checkpoint.
    Doomed,
}

/// One volume.
pub(in crate::store) struct Volume {
    /// What the hosts and the control plane know of it.
    pub meta: VolumeMeta,
    /// Its directory pages in the slab, by number; `NIL` where there is none.
    pub dirs: Vec<u32>,
    /// Blocks mapped.
    pub mapped: u64,
    /// Where it is in its life.
    pub life: Life,
    /// The last checkpoint whose manifest lists it.
    pub listed: u64,
}

/// Ids and slots, sorted by id. A lookup tries the first one before it searches: a slice often serves one volume
/// only.
pub(super) struct Ids {
    table: Vec<(u32, Slot)>,
}

impl Ids {
    pub fn new(cap: usize) -> Ids {
        Ids { table: Vec::with_capacity(cap) }
    }
    #[inline]
    pub fn get(&self, id: VolumeId) -> Option<Slot> {
        if let Some((found, slot)) = self.table.first()
            && *found == id.0
        {
            return Some(*slot);
        }
        let at = self.table.binary_search_by_key(&id.0, |(id, _)| *id).ok()?;
        Some(self.table[at].1)
    }
    pub fn insert(&mut self, id: VolumeId, slot: Slot) {
        let at = self.table.binary_search_by_key(&id.0, |(id, _)| *id).expect_err("an id is inserted once");
        self.table.insert(at, (id.0, slot));
    }
    pub fn remove(&mut self, id: VolumeId) -> Option<Slot> {
        let at = self.table.binary_search_by_key(&id.0, |(id, _)| *id).ok()?;
        Some(self.table.remove(at).1)
    }
    pub fn iter(&self) -> impl Iterator<Item = Slot> {
        self.table.iter().map(|(_, slot)| *slot)
    }
    pub fn len(&self) -> usize {
        self.table.len()
    }
}
