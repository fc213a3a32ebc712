//! Where requests go: a range of a volume in whole logical blocks that does not leave its chunk.

use crate::base::rng::Rng;
use crate::base::{BLOCK, CHUNK, CHUNK_BLOCKS};
use crate::sim::swarm::Swarm;
use crate::sim::{SECTOR, Shape};

/// A range of a volume, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

impl Range {
    /// Its first sector of 512 bytes.
    pub fn sector(self) -> u64 {
        self.offset / SECTOR as u64
    }

    /// Its first logical block, and how many it has.
    pub fn blocks(self, shape: Shape) -> (u64, u64) {
        let lba = u64::from(shape.lba);
        (self.offset / lba, self.len / lba)
    }

    /// A range for a request of at most `sectors_max` sectors; `None` when the volume has no room for any.
    ///
    /// Only the first [`Swarm::window`] blocks of each chunk are used, so that a small pool sees many chunks. A part
    /// of the requests goes to the first tenth, and a part keeps to whole 4 KiB blocks.
    pub fn draw(swarm: &Swarm, shape: Shape, sectors_max: u64, rng: &mut Rng) -> Option<Range> {
        let blocks = shape.bytes / BLOCK as u64;
        let (chunks, rest) = (blocks / CHUNK_BLOCKS, blocks % CHUNK_BLOCKS);
        let usable = chunks * swarm.window + rest.min(swarm.window);
        if usable == 0 {
            return None;
        }
        let one = if rng.chance(swarm.skew) { rng.below(usable.div_ceil(10)) } else { rng.below(usable) };
        let block = one / swarm.window * CHUNK_BLOCKS + one % swarm.window;
        let unit = if rng.chance(swarm.aligned) { BLOCK as u64 } else { u64::from(shape.lba) };
        let within = rng.below(BLOCK as u64 / unit) * unit;
        let offset = block * BLOCK as u64 + within;
        let end = (offset / CHUNK + 1) * CHUNK;
        let end = end.min(shape.bytes).min(offset / CHUNK * CHUNK + swarm.window * BLOCK as u64);
        // Lengths fall off as 1/n: most are one unit, some are as long as it gets.
        let units_max = (sectors_max * SECTOR as u64 / unit).max(1);
        let units = (1 + rng.below(units_max)).min(1 + rng.below(units_max)).min(1 + rng.below(units_max));
        let len = (units * unit).min((end - offset) / unit * unit);
        (len > 0).then_some(Range { offset, len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_stay_in_their_chunk_and_volume() {
        for seed in 0..200 {
            let swarm = Swarm::draw(seed);
            let mut rng = Rng::new(seed);
            for lba in [512, 4096] {
                let shape = Shape { bytes: 4096 * (1 + rng.below(3000)), lba, revision: 0 };
                for _ in 0..50 {
                    let Some(r) = Range::draw(&swarm, shape, swarm.sectors_max, &mut rng) else { continue };
                    let unit = u64::from(lba);
                    assert!(r.len > 0 && r.offset.is_multiple_of(unit) && r.len.is_multiple_of(unit));
                    assert!(r.offset + r.len <= shape.bytes);
                    assert_eq!(r.offset / CHUNK, (r.offset + r.len - 1) / CHUNK);
                    assert!(r.len <= (swarm.sectors_max * 512).max(4096));
                }
            }
        }
    }
}
