//! Tests of the index against a plain map.

use super::*;
use crate::base::rng::Rng;
use crate::store::format::Name;
use std::collections::BTreeMap;

fn meta(id: u32, blocks: u64) -> VolumeMeta {
    let name = Name::new("v").unwrap();
    let bytes = blocks * 4096;
    VolumeMeta {
        id: VolumeId(id),
        uuid: [0; 16],
        name,
        bytes,
        lba_bytes: 4096,
        thin: true,
        read_only: false,
        created: 0,
    }
}

fn index(leaves: usize) -> Index {
    Index::new(Room { leaves, slack: 4, volumes: 4, blocks: 1 << 20 })
}

#[test]
fn random_sets_match_a_map() {
    let mut ix = index(2000);
    let blocks = 3 * CHUNK_BLOCKS * 512;
    let slot = ix.put_volume(meta(1, blocks)).unwrap();
    let mut model = BTreeMap::new();
    let mut rng = Rng::new(1);
    for n in 0..20_000u32 {
        // A few hot chunks, so that leaves fill and empty again.
        let block = rng.below(6) * 200 * CHUNK_BLOCKS + rng.below(40);
        let entry = if rng.chance(45) { Entry::NONE } else { Entry { addr: Addr(n + 100), crc: n } };
        let old = ix.set(slot, block, entry).unwrap();
        let expected = if entry == Entry::NONE { model.remove(&block) } else { model.insert(block, entry) };
        assert_eq!(old, expected.unwrap_or(Entry::NONE));
    }
    assert_eq!(ix.mapped(), model.len() as u64);
    for block in (0..6u64).flat_map(|c| (0..40).map(move |b| c * 200 * CHUNK_BLOCKS + b)) {
        assert_eq!(ix.entry(slot, block), model.get(&block).copied().unwrap_or(Entry::NONE));
    }
    let chunks: std::collections::BTreeSet<u64> = model.keys().map(|b| b / CHUNK_BLOCKS).collect();
    assert_eq!(ix.leaf_count(), chunks.len());
    assert_eq!(ix.dirty_leaves(), chunks.len() as u64);
}

#[test]
fn room_is_bounded_and_slack_is_for_those_under_way() {
    let mut ix = index(2);
    let slot = ix.put_volume(meta(9, CHUNK_BLOCKS * 100)).unwrap();
    let entry = Entry { addr: Addr(50), crc: 1 };
    for chunk in 0..2 {
        assert!(ix.may_map(slot, chunk));
        ix.set(slot, chunk * CHUNK_BLOCKS, entry).unwrap();
    }
    assert!(ix.may_map(slot, 1) && !ix.may_map(slot, 2));
    for chunk in 2..6 {
        ix.set(slot, chunk * CHUNK_BLOCKS, entry).unwrap();
    }
    assert_eq!(ix.set(slot, 6 * CHUNK_BLOCKS, entry), None);
    assert_eq!(ix.entry(slot, 99 * CHUNK_BLOCKS), Entry::NONE);
}

#[test]
fn dropping_reports_what_died_and_volumes_come_and_go() {
    let mut ix = index(10);
    let slot = ix.put_volume(meta(3, CHUNK_BLOCKS * 2)).unwrap();
    for b in [0, 5, 511] {
        ix.set(slot, b, Entry { addr: Addr(100 + b as u32), crc: 0 }).unwrap();
    }
    ix.set(slot, 7, Entry::LOST).unwrap();
    let mut died = Vec::new();
    assert!(ix.drop_leaf_from(slot, 0, 6, |a| died.push(a)));
    assert_eq!((died.as_slice(), ix.mapped()), (&[Addr(611)][..], 2));
    assert!(ix.drop_leaf_from(slot, 0, 0, |a| died.push(a)));
    assert_eq!((died.len(), ix.mapped(), ix.leaf_count()), (3, 0, 0));
    assert_eq!(ix.doom_volume(VolumeId(3)), Some(slot));
    assert_eq!((ix.slot(VolumeId(3)), ix.volume_count(), ix.floor()), (None, 0, 4));
    ix.free_volume(slot);
    assert_eq!(ix.put_volume(meta(4, 1)), Some(slot));
    for id in 5..8 {
        assert!(ix.put_volume(meta(id, 1)).is_some());
    }
    assert!(ix.put_volume(meta(8, 1)).is_none() && !ix.volume_room());
    assert_eq!(ix.metas().map(|m| m.id.0).collect::<Vec<_>>(), [4, 5, 6, 7]);
}
