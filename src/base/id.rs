//! Newtypes for everything that is counted or named by a number, so that none is taken for another.

/// A reactor, numbered from 0 in the order of `--cores`; not the number of the CPU it is pinned to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct CoreId(pub u16);

/// A volume or raw device (a "bdev" in SPDK's RPC). Never reused within the life of the node's state, so that a
/// stale record can not be taken for one of a newer volume.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct VolumeId(pub u32);

/// A shard: the set of chunks that hash to it; 0..[`crate::base::limits::SHARDS`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ShardId(pub u16);

/// A slice of a store's device: one log, owned by one reactor at a time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SliceId(pub u16);

impl CoreId {
    /// As an index into per-core tables.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}
