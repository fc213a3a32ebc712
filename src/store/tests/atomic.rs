//! Aligned ranges of 16 KiB are old or new as a whole after a power cut, wherever in a segment they come to lie.

use super::harness::{Harness, meta};
use crate::base::limits::ATOMIC_BYTES;
use crate::base::rng::Rng;
use crate::base::{BLOCK, Status};
use crate::store::Limits;

const UNIT_SECTORS: u64 = ATOMIC_BYTES as u64 / 512;
const UNIT_BLOCKS: u64 = (ATOMIC_BYTES / BLOCK) as u64;
const UNITS: u64 = 12;

#[test]
fn a_unit_survives_a_power_cut_as_a_whole() {
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let limits = Limits { checkpoint_bytes: 1 << 20, fill_percent: 80, ..Limits::tiny() };
        let mut h = Harness::new(48, limits, true, true, seed);
        assert_eq!(h.set_volume(meta(1, 1 << 20)), Status::Ok);
        for _ in 0..3 {
            for _ in 0..20 + rng.below(60) {
                let unit = rng.below(UNITS) * UNIT_SECTORS;
                match rng.below(10) {
                    0..6 => drop(h.write(1, unit, UNIT_SECTORS)),
                    6 => drop(h.zero(1, unit, UNIT_SECTORS)),
                    // Elsewhere: a part of a block, which waits in staging, and some blocks, so that segments end anywhere.
                    7 => drop(h.write(1, UNITS * UNIT_SECTORS + rng.below(64), 1)),
                    _ => drop(h.write(1, UNITS * UNIT_SECTORS + 8 * rng.below(8), 8 * (1 + rng.below(9)))),
                }
                if rng.chance(40) {
                    h.turn();
                }
            }
            h.crash();
            for unit in 0..UNITS {
                let generations: Vec<u64> = (0..UNIT_BLOCKS)
                    .flat_map(|b| h.read_raw(1, unit * UNIT_BLOCKS + b))
                    .collect::<Vec<u8>>()
                    .chunks(512)
                    .map(|sector| u64::from_le_bytes(sector[..8].try_into().unwrap()))
                    .collect();
                let whole = generations.iter().all(|g| *g == generations[0]);
                assert!(whole, "seed {seed}: unit {unit} is torn: {generations:?}");
            }
            h.pin();
        }
        h.assert_sound();
        h.close();
    }
}
