//! Where a chunk lives. Part of the on-disk contract of a store: it must never change for a store that exists.

use crate::base::limits::SHARDS;
use crate::base::{ShardId, SliceId, VolumeId};

/// The shard of a chunk: chunks of one volume walk over all shards in turn, from a start that differs between volumes,
/// so that one sequential stream uses every slice and small volumes do not all begin on the same one.
pub fn shard(volume: VolumeId, chunk: u64) -> ShardId {
    let start = u64::from(volume.0.wrapping_mul(0x9e37_79b1) >> 16);
    ShardId(((start + chunk) % u64::from(SHARDS)) as u16)
}

/// The slice of a store of `slices` slices (a power of two, at most `SHARDS`) that keeps a shard.
pub fn slice(shard: ShardId, slices: u16) -> SliceId {
    SliceId(shard.0 & (slices - 1))
}

/// The core that owns a slice, or a raw device's shard, on a node of `cores` cores.
pub fn core(number: u16, cores: u16) -> crate::base::CoreId {
    crate::base::CoreId(if cores == 1 { 0 } else { number % cores })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_spreads_evenly_over_slices() {
        for slices in [1u16, 2, 8, 64] {
            let mut count = vec![0u32; usize::from(slices)];
            for chunk in 0..1024 {
                count[usize::from(slice(shard(VolumeId(7), chunk), slices).0)] += 1;
            }
            assert!(count.iter().all(|c| *c == 1024 / u32::from(slices)));
        }
    }
}
