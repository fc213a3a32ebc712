//! Damage on the medium: detected, never served as data, never dropped in silence.

use super::harness::{Harness, meta};
use crate::base::{BLOCK, Status};
use crate::device::DeviceError;
use crate::store::format::superblock::SLOTS;
use crate::store::{Damage, Limits, Phase, StoreError};

const B: u64 = Harness::BLOCK_SECTORS;

/// A slice with some blocks, checkpointed, and some more after that.
fn filled(memory: bool) -> Harness {
    let mut h = Harness::new(48, Limits { mark_idle_ns: 0, ..Limits::tiny() }, true, memory, 9);
    h.set_volume(meta(1, 4 << 20));
    for n in 0..40 {
        h.write_wait(1, n * 11 * B, 3 * B);
    }
    assert_eq!(h.checkpoint(), Status::Ok);
    for n in 0..20 {
        h.write_wait(1, n * 17 * B, 2 * B);
    }
    h
}

/// Block of the slice -> byte on the device.
fn byte(h: &Harness, block: u32) -> usize {
    h.cfg.offset as usize + block as usize * BLOCK
}

/// Whether any read of the whole volume ends with something else than what was written.
fn reads_fail(h: &mut Harness) -> bool {
    h.media_errors_ok = true;
    h.verify();
    h.media_errors > 0
}

#[test]
fn a_flip_anywhere_is_detected_or_harmless() {
    // One bit in every block of the device, at a place in the block that changes from block to block.
    let mut h = filled(true);
    h.crash();
    h.verify();
    let blocks = (h.cfg.len as usize / BLOCK) as u32;
    let (mut refused, mut failed, mut unused) = (0, 0, 0);
    for block in 0..blocks {
        let at = byte(&h, block) + (block as usize * 769) % BLOCK;
        h.disk.flip(at, 1 << (block % 8));
        match h.crash_phase() {
            Phase::Failed(StoreError::Damaged { .. } | StoreError::Hole { .. }) => refused += 1,
            Phase::Ready => {
                let sound = h.fsck().is_clean();
                let fails = reads_fail(&mut h);
                assert!(!(sound && fails), "block {block}: reads fail but the checker is content");
                if fails {
                    failed += 1;
                } else {
                    unused += 1;
                }
            }
            other => panic!("block {block}: {other:?}"),
        }
        h.media_errors = 0;
        h.disk.flip(at, 1 << (block % 8));
        h.ended.clear();
    }
    assert!(refused > 5 && failed > 50 && unused > 100, "{refused} {failed} {unused}");
}

#[test]
fn every_byte_of_both_superblock_slots_may_rot_in_one_copy() {
    let mut h = filled(true);
    for copy in SLOTS.into_iter().flatten() {
        for n in (0..BLOCK).step_by(61) {
            let at = byte(&h, copy) + n;
            h.disk.flip(at, 0x40);
            assert_eq!(h.crash_phase(), Phase::Ready);
            h.disk.flip(at, 0x40);
        }
    }
    h.verify();
}

#[test]
fn a_batch_that_later_ones_call_durable_is_never_dropped() {
    let mut h = filled(true);
    // The header of the first batch after the checkpoint: found by its magic number behind the checkpoint's pages.
    let report = h.fsck();
    assert!(report.is_clean() && report.slices[0].replayed >= 20);
    let magic = h.disk.cache.windows(4).enumerate().filter(|(_, w)| w == b"PLXB").map(|(at, _)| at);
    let headers: Vec<usize> = magic.collect();
    let mut holes = 0;
    for at in headers {
        h.disk.flip(at + 100, 1);
        match h.crash_phase() {
            Phase::Failed(StoreError::Hole { batch, durable, .. }) => {
                assert!(batch <= durable);
                assert!(!h.fsck().is_clean());
                holes += 1;
            }
            Phase::Ready => h.verify(),
            other => panic!("{other:?}"),
        }
        h.disk.flip(at + 100, 1);
    }
    assert!(holes >= 15, "{holes}");
    h.crash();
    h.verify();
}

#[test]
fn a_damaged_leaf_answers_with_media_errors_until_written_again() {
    let mut h = filled(true);
    assert_eq!(h.checkpoint(), Status::Ok);
    h.crash();
    // Leaves are the only blocks whose loss opens with damage noted.
    let blocks = (h.cfg.len as usize / BLOCK) as u32;
    let mut found = 0;
    for block in 32..blocks {
        let at = byte(&h, block) + 2000;
        h.disk.flip(at, 2);
        if h.crash_phase() == Phase::Ready
            && let Some(StoreError::Damaged { what: Damage::Leaf, addr, .. }) = h.slice.usage().damage
        {
            assert_eq!(addr.0, block);
            assert!(reads_fail(&mut h));
            assert_eq!(h.write_wait(1, 0, B), Status::Ok);
            assert_eq!(h.read_wait(1, 0, B), Status::Ok);
            found += 1;
            break;
        }
        h.disk.flip(at, 2);
    }
    assert_eq!(found, 1);
}

#[test]
fn cleaning_marks_what_it_can_not_verify_as_lost() {
    let mut h = Harness::new(48, Limits::tiny(), false, true, 9);
    h.set_volume(meta(1, 8 << 20));
    for n in 0..30 {
        h.write_wait(1, n * 8 * B, B);
    }
    // Damage one live block, then overwrite others until its segment is cleaned.
    let victim = 3 * 8;
    let needle = {
        let buf = h.read_raw(1, victim);
        h.disk.cache.windows(64).position(|w| w == &buf[..64]).unwrap()
    };
    h.disk.flip(needle + 1000, 1);
    h.media_errors_ok = true;
    let mut turn = 0;
    while h.slice.usage().counters.lost_blocks == 0 {
        turn += 1;
        assert!(turn < 3000, "never cleaned: {:?}", h.slice.usage());
        h.write_wait(1, (400 + turn * 7 % 300) * B, 4 * B);
        // It is left alone for some seconds: the medium might read better.
        h.now = h.now.after_ns(100_000_000);
    }
    h.media_errors = 0;
    assert_eq!(h.read_wait(1, victim * B, B), Status::MediaError);
    h.crash();
    assert_eq!(h.read_wait(1, victim * B, B), Status::MediaError);
    assert_eq!(h.write_wait(1, victim * B, 1), Status::MediaError, "part of a lost block can not be written");
    assert_eq!(h.write_wait(1, victim * B, B), Status::Ok);
    assert_eq!(h.read_wait(1, victim * B, B), Status::Ok);
}

#[test]
fn read_errors_end_with_media_error_and_pass() {
    for memory in [true, false] {
        let mut h = filled(memory);
        h.disk.faults.read = Some(DeviceError::Media);
        h.media_errors_ok = true;
        assert_eq!(h.read_wait(1, 0, B), Status::MediaError);
        assert_eq!(h.write_wait(1, 1, 1), Status::MediaError);
        h.disk.faults.read = None;
        h.verify();
        assert!(h.slice.usage().counters.media_errors >= 2);
        h.close();
    }
}
