//! Every kind of damage, planted in a block, is found and called by its name; legal contents are not.

use super::*;
use crate::base::rng::Rng;

const JUDGE: Judge = Judge { volume: 0xaa, writer: 0x77 };
const LBA: u64 = 1000;

fn allowed(floor: u32, ceiling: u32) -> Allowed {
    Allowed { floor, ceiling, acknowledged: true }
}

fn stamp(generation: u32) -> Stamp {
    Stamp {
        volume: 0xaa,
        sector: 0,
        operation: 1 << 48 | u64::from(generation),
        writer: 0x77,
        generation,
        sectors: 8,
        index: 0,
    }
}

/// A block of `size` bytes written at `lba` with the fields of `base`.
fn block_at(lba: u64, base: Stamp, size: usize) -> Vec<u8> {
    let mut out = vec![0; size];
    let per_block = (size / SECTOR) as u64;
    for (at, sector) in out.chunks_exact_mut(SECTOR).enumerate() {
        Stamp { sector: lba * per_block + at as u64, index: at as u16, ..base }.emit(sector);
    }
    out
}

fn block(generation: u32) -> Vec<u8> {
    block_at(LBA, stamp(generation), 4096)
}

fn damage(data: &[u8], a: Allowed) -> Damage {
    match JUDGE.judge(LBA, data, a) {
        Verdict::Damaged(d) => *d,
        other => panic!("not noticed: {other:?}"),
    }
}

#[test]
fn what_is_allowed_passes() {
    for g in 5..=7 {
        assert_eq!(JUDGE.judge(LBA, &block(g), allowed(5, 7)), Verdict::Holds(g));
        assert_eq!(JUDGE.judge(LBA, &block_at(LBA, stamp(g), 512), allowed(5, 7)), Verdict::Holds(g));
    }
    let mut noise = vec![0; 4096];
    Rng::new(1).fill(&mut noise);
    for data in [vec![0; 4096], noise, block_at(LBA, Stamp { writer: 1, ..stamp(3) }, 4096)] {
        for ceiling in [0, 2] {
            assert_eq!(JUDGE.judge(LBA, &data, allowed(0, ceiling)), Verdict::Unknown);
        }
    }
    assert_eq!(JUDGE.judge(LBA, &block(2), allowed(0, 2)), Verdict::Holds(2));
}

#[test]
fn stale_lost_and_future() {
    let d = damage(&block(4), allowed(5, 7));
    assert_eq!(d.kind, DamageKind::Stale);
    assert_eq!(
        d.to_string(),
        "LBA 1000: stale: holds generation 4 (operation 1.4); generation 5 was acknowledged, up to 7 sent"
    );
    let seen = Allowed { acknowledged: false, ..allowed(5, 5) };
    assert!(damage(&block(4), seen).to_string().ends_with("generation 5 was read before"));
    let d = damage(&[0; 4096], allowed(5, 5));
    assert_eq!(d.to_string(), "LBA 1000: lost: reads as zeroes; generation 5 was acknowledged");
    assert_eq!(damage(&block(8), allowed(5, 7)).kind, DamageKind::Future);
    assert_eq!(damage(&block(1), allowed(0, 0)).kind, DamageKind::Future, "never sent to this block");
}

#[test]
fn misdirected_also_onto_a_block_never_written() {
    for a in [allowed(5, 7), allowed(0, 0), allowed(0, 1)] {
        let d = damage(&block_at(LBA + 3, stamp(6), 4096), a);
        assert_eq!(d.kind, DamageKind::Misdirected);
        assert!(d.to_string().contains("holds LBA 1003, generation 6 (operation 1.6)"), "{d}");
    }
}

#[test]
fn other_volume_and_other_writer() {
    let d = damage(&block_at(LBA, Stamp { volume: 0xbb, ..stamp(6) }, 4096), allowed(6, 6));
    assert_eq!(d.kind, DamageKind::OtherVolume);
    assert!(d.to_string().contains("volume 00000000000000bb"), "{d}");
    // Our own writer's block of another volume is wrong wherever it turns up.
    assert_eq!(
        damage(&block_at(LBA, Stamp { volume: 0xbb, ..stamp(6) }, 4096), allowed(0, 0)).kind,
        DamageKind::OtherVolume
    );
    assert_eq!(
        damage(&block_at(LBA, Stamp { writer: 9, ..stamp(6) }, 4096), allowed(6, 6)).kind,
        DamageKind::OtherWriter
    );
}

#[test]
fn torn_at_every_sector_names_the_seam() {
    for cut in 1..8 {
        let mut data = block(6);
        data[cut * SECTOR..].copy_from_slice(&block(7)[cut * SECTOR..]);
        for a in [allowed(6, 7), allowed(0, 7), allowed(7, 7)] {
            let d = damage(&data, a);
            assert_eq!(d.kind, DamageKind::Torn, "cut {cut}");
            assert!(d.found.contains("generation 6") && d.found.contains("generation 7"), "{d}");
        }
    }
    let mut data = block(6);
    data[4 * SECTOR..].copy_from_slice(&block(7)[4 * SECTOR..]);
    assert_eq!(
        damage(&data, allowed(6, 7)).to_string(),
        "LBA 1000: torn: sectors 0-3 generation 6 (operation 1.6), 4-7 generation 7 (operation 1.7); \
         generation 6 was acknowledged, up to 7 sent"
    );
    // A first write that arrived in part over unknown content.
    let mut data = vec![0; 4096];
    data[..SECTOR].copy_from_slice(&block(1)[..SECTOR]);
    let d = damage(&data, allowed(0, 1));
    assert_eq!((d.kind, d.found.as_str()), (DamageKind::Torn, "sectors 0 generation 1 (operation 1.1), 1-7 zeroes"));
}

#[test]
fn same_generation_of_two_operations_is_torn() {
    let mut data = block(6);
    let other = block_at(LBA, Stamp { operation: 99, ..stamp(6) }, 4096);
    data[..SECTOR].copy_from_slice(&other[..SECTOR]);
    assert_eq!(damage(&data, allowed(6, 6)).kind, DamageKind::Torn);
}

#[test]
fn bit_flips_are_found_and_located_wherever_they_are() {
    let mut rng = Rng::new(8);
    for _ in 0..400 {
        let bit = rng.below(4096 * 8) as usize;
        let mut data = block(6);
        data[bit / 8] ^= 1 << (bit % 8);
        for a in [allowed(6, 6), allowed(5, 8)] {
            let d = damage(&data, a);
            assert_eq!(d.kind, DamageKind::BitFlip, "bit {bit}: {d}");
            assert!(d.found.ends_with(&format!("first at byte {}", bit / 8)), "bit {bit}: {d}");
        }
    }
    let mut data = block(6);
    data[600] ^= 3;
    assert_eq!(damage(&data, allowed(6, 6)).found, "2 bits of generation 6 (operation 1.6) differ, first at byte 600");
}

#[test]
fn garbage_and_shifted_data() {
    let mut noise = vec![0; 4096];
    Rng::new(2).fill(&mut noise);
    assert_eq!(damage(&noise, allowed(5, 5)).kind, DamageKind::Garbage);
    // The right data, one sector off: every sector is misdirected.
    let mut data = block(6);
    data.rotate_left(SECTOR);
    assert_eq!(damage(&data, allowed(6, 6)).kind, DamageKind::Misdirected);
}
