//! What each kind of request does, alone.

use super::harness::{Harness, meta};
use crate::base::{BLOCK, CHUNK_BLOCKS, Status};
use crate::store::{Limits, Phase, StoreError};

const B: u64 = Harness::BLOCK_SECTORS;

fn each(test: impl Fn(&mut Harness)) {
    for (volatile, memory) in [(false, true), (true, true), (false, false), (true, false)] {
        let mut h = Harness::new(40, Limits::tiny(), volatile, memory, 5);
        assert_eq!(h.set_volume(meta(1, 4 << 20)), Status::Ok);
        test(&mut h);
        h.close();
    }
}

#[test]
fn written_blocks_read_back_also_after_a_crash() {
    each(|h| {
        for n in 0..20 {
            assert_eq!(h.write_wait(1, n * 3 * B, (1 + n % 5) * B), Status::Ok);
        }
        h.verify();
        assert_eq!(h.read_wait(1, 0, 512 * B), Status::Ok);
        h.crash();
        h.verify();
        assert_eq!(h.slice.usage().counters.checksum_errors, 0);
        assert!(h.slice.usage().counters.replayed_batches > 0);
        let shard = crate::base::ShardId(0);
        assert_eq!(h.slice.last_stamp(shard).lsn, 20);
        let m = *h.slice.volumes().next().unwrap();
        assert_eq!(m, meta(1, 4 << 20));
    });
}

#[test]
fn a_write_ends_only_when_it_is_durable() {
    let mut h = Harness::new(32, Limits::tiny(), true, true, 5);
    h.set_volume(meta(1, 4 << 20));
    let flushes = h.disk.flushes;
    h.disk.held = true;
    let tag = h.write(1, 0, B).unwrap();
    for _ in 0..50 {
        h.turn();
    }
    assert!(!h.ended.contains_key(&tag), "the flush has not ended");
    h.disk.held = false;
    assert_eq!(h.wait(tag), Status::Ok);
    assert!(h.disk.flushes > flushes);
}

#[test]
fn parts_of_blocks_keep_the_rest() {
    each(|h| {
        h.write_wait(1, 0, 4 * B);
        for (first, sectors) in [(1, 1), (6, 5), (3, 1), (15, 2), (30, 9), (100, 3)] {
            assert_eq!(h.write_wait(1, first, sectors), Status::Ok);
        }
        h.verify();
        // Many at once into the same block, while earlier ones are under way.
        for n in 0..40 {
            h.retry(|h| h.write(1, n % 13, 1 + n % 4));
            if n % 3 == 0 {
                h.turn();
            }
        }
        h.verify();
        h.crash();
        h.verify();
    });
}

#[test]
fn zeroes_give_space_back_and_ragged_edges_keep_the_rest() {
    each(|h| {
        h.write_wait(1, 0, 64 * B);
        assert_eq!(h.blocks(1), 64);
        h.zero_wait(1, 8 * B, 8 * B);
        assert_eq!(h.blocks(1), 56);
        h.zero_wait(1, 20 * B + 3, 4 * B);
        assert_eq!(h.blocks(1), 53);
        h.zero_wait(1, 40 * B + 2, 3);
        h.zero_wait(1, 100 * B + 1, 20);
        assert_eq!(h.blocks(1), 53);
        h.verify();
        h.crash();
        assert_eq!(h.blocks(1), 53);
        h.verify();
    });
}

#[test]
fn large_writes_and_reads_go_in_parts() {
    each(|h| {
        assert_eq!(h.write_wait(1, 0, 256 * B), Status::Ok);
        for n in 0..64 {
            h.write_wait(1, n * 4 * B, B);
        }
        assert_eq!(h.read_wait(1, 0, 256 * B), Status::Ok);
        assert_eq!(h.read_wait(1, 3, 256 * B - 7), Status::Ok);
        h.verify();
    });
}

#[test]
fn volumes_are_created_resized_and_deleted() {
    each(|h| {
        h.set_volume(meta(2, 6 << 20));
        h.write_wait(2, 0, 8 * B);
        h.write_wait(2, 900 * B, 40 * B);
        h.write_wait(2, 1100 * B, 4 * B);
        assert_eq!(h.blocks(2), 52);
        assert_eq!(h.set_volume(meta(2, 904 * BLOCK as u64)), Status::Ok);
        assert_eq!(h.blocks(2), 12);
        assert_eq!(h.set_volume(meta(2, 6 << 20)), Status::Ok);
        h.verify();
        h.crash();
        h.verify();
        assert_eq!(h.blocks(2), 12);
        assert_eq!(h.delete_volume(2), Status::Ok);
        assert_eq!(h.delete_volume(2), Status::Gone);
        let tag = h.read(1, 0, 1).unwrap();
        assert_eq!(h.wait(tag), Status::Ok);
        h.crash();
        assert_eq!(h.slice.volumes().count(), 1);
        assert_eq!(h.slice.volume_floor(), 3);
        assert_eq!(h.checkpoint(), Status::Ok);
        h.crash();
        assert_eq!((h.slice.volumes().count(), h.slice.volume_floor()), (1, 3));
    });
}

#[test]
fn a_checkpoint_makes_replay_short() {
    each(|h| {
        for n in 0..60 {
            h.write_wait(1, (n * 37 % 500) * B, 2 * B);
        }
        assert_eq!(h.checkpoint(), Status::Ok);
        assert_eq!(h.checkpoint(), Status::Ok);
        h.write_wait(1, 5 * B, B);
        h.crash();
        let replayed = h.slice.usage().counters.replayed_batches;
        assert!(replayed < 20, "{replayed}");
        h.verify();
        for round in 0..5 {
            h.write_wait(1, round * B, B);
            h.crash();
            h.verify();
        }
    });
}

#[test]
fn out_of_range_unknown_and_bad_requests_are_refused() {
    each(|h| {
        let tag = h.write(1, (4 << 20) / 512 - 1, 1).unwrap();
        assert_eq!(h.wait(tag), Status::Ok);
        let tag = h.write(1, (4 << 20) / 512, 1).unwrap();
        assert_eq!(h.wait(tag), Status::OutOfRange);
        let tag = h.write(9, 0, 1).unwrap();
        assert_eq!(h.wait(tag), Status::Gone);
        let bad = crate::store::VolumeMeta { lba_bytes: 1000, ..meta(3, 1000) };
        assert_eq!(h.set_volume(bad), Status::Unsupported);
        for id in 2..=16 {
            assert_eq!(h.set_volume(meta(id, 1 << 20)), Status::Ok);
        }
        assert_eq!(h.set_volume(meta(17, 1 << 20)), Status::Busy);
    });
}

#[test]
fn a_full_pool_refuses_writers_only_and_recovers() {
    each(|h| {
        h.set_volume(meta(1, 64 << 20));
        let mut written = 0;
        let refused = loop {
            match h.write_wait(1, written * 8 * B, 8 * B) {
                Status::Ok => written += 1,
                status => break status,
            }
        };
        assert_eq!(refused, Status::CapacityExceeded);
        let usage = h.slice.usage();
        assert!(usage.free < 10 && usage.mapped > usage.blocks / 3, "{usage:?}");
        assert_eq!(h.read_wait(1, 0, B), Status::Ok);
        // Overwriting what is mapped needs no more space.
        for n in 0..200 {
            assert_eq!(h.write_wait(1, (n * 7 % written) * 8 * B, 8 * B), Status::Ok);
        }
        assert_eq!(h.zero_wait(1, 0, 64 * B), Status::Ok);
        assert_eq!(h.write_wait(1, 0, 32 * B), Status::Ok);
        h.verify();
        h.crash();
        h.verify();
        assert_eq!(h.delete_volume(1), Status::Ok);
        h.set_volume(meta(2, 64 << 20));
        for n in 0..written / 2 {
            assert_eq!(h.write_wait(2, n * 8 * B, 8 * B), Status::Ok);
        }
        h.verify();
    });
}

#[test]
fn a_failed_flush_or_log_write_stops_everything() {
    for flush in [true, false] {
        let mut h = Harness::new(32, Limits::tiny(), true, false, 5);
        h.set_volume(meta(1, 4 << 20));
        assert_eq!(h.write_wait(1, 0, B), Status::Ok);
        h.disk.faults.flush = flush;
        h.disk.faults.write = (!flush).then_some(crate::device::DeviceError::Media);
        assert_eq!(h.write_wait(1, B, B), Status::Gone);
        assert!(matches!(h.slice.phase(), Phase::Dead(StoreError::Device { .. })));
        let tag = h.write(1, 0, B).unwrap();
        assert_eq!(h.wait(tag), Status::Gone);
        h.crash();
        h.verify();
        assert_eq!(h.write_wait(1, B, B), Status::Ok);
        h.close();
    }
}

#[test]
fn an_idle_log_says_what_is_durable() {
    let mut h = Harness::new(32, Limits::tiny(), true, false, 5);
    h.set_volume(meta(1, 4 << 20));
    h.write_wait(1, 0, B);
    let before = h.slice.usage().counters.batches;
    assert!(h.slice.wake_at().is_some());
    for _ in 0..2100 {
        h.turn();
    }
    assert_eq!(h.slice.usage().counters.batches, before + 1);
    h.close();
}

#[test]
fn scrub_reads_everything_live() {
    each(|h| {
        for n in 0..100 {
            h.write_wait(1, n * 5 * B, 4 * B);
        }
        let tag = h.tag();
        let outcome = h.slice.scrub(0, tag);
        h.other(outcome, tag);
        assert_eq!(h.wait(tag), Status::Ok);
        assert!(h.slice.usage().counters.scrubbed_blocks > 200);
    });
}

#[test]
fn a_wrong_or_empty_device_is_refused() {
    let mut h = Harness::new(32, Limits::tiny(), true, false, 5);
    h.set_volume(meta(1, 4 << 20));
    h.cfg.store = [1; 16];
    assert_eq!(h.crash_phase(), Phase::Failed(StoreError::WrongDevice));
    h.disk.cache[8192..8192 + (128 << 10)].fill(0);
    h.slice = crate::store::Slice::open(h.cfg.clone());
    assert!(matches!(h.until_started(), Phase::Failed(StoreError::Superblock(_))));
}

#[test]
fn a_leaf_given_up_behind_a_running_checkpoint_does_not_come_back() {
    const CHUNK_SECTORS: u64 = CHUNK_BLOCKS * B;
    let mut h = Harness::new(64, Limits { mark_idle_ns: 0, ..Limits::tiny() }, false, true, 3);
    h.set_volume(meta(1, 240 << 20));
    for _ in 0..2 {
        for chunk in 0..120 {
            assert_eq!(h.write_wait(1, chunk * CHUNK_SECTORS, B), Status::Ok);
        }
        assert_eq!(h.checkpoint(), Status::Ok);
    }
    for chunk in 0..120 {
        h.write_wait(1, chunk * CHUNK_SECTORS, B);
    }
    let running = h.tag();
    let outcome = h.slice.checkpoint(running);
    h.other(outcome, running);
    h.turn();
    h.turn();
    assert_eq!(h.zero_wait(1, 0, B), Status::Ok);
    assert!(!h.ended.contains_key(&running), "the checkpoint has passed the leaf, and goes on");
    assert_eq!(h.wait(running), Status::Ok);
    h.write_wait(1, CHUNK_SECTORS, B);
    assert_eq!(h.checkpoint(), Status::Ok);
    h.crash();
    assert_eq!(h.blocks(1), 119);
    h.assert_sound();
    h.verify();
    h.close();
}
