//! VERIFY, WRITE AND VERIFY, COMPARE AND WRITE, ORWRITE, WRITE ATOMIC, PRE-FETCH and SYNCHRONIZE CACHE.

use super::rig::Rig;
use crate::base::Status;
use crate::iscsi::lu::Begin;
use crate::volume::Kind;
use crate::wire::scsi::{Key, asc, be32};

fn bytes(n: usize, seed: usize) -> Vec<u8> {
    (0..n).map(|i| ((i * 7 + seed) % 251) as u8).collect()
}

/// The three sizes of a command with LBA and blocks: its CDB.
fn sizes(codes: [u8; 3], flags: u8, lba: u64, blocks: u32) -> [String; 3] {
    [
        format!("{:02x} {flags:02x} {lba:08x} 00 {blocks:04x} 00", codes[0]),
        format!("{:02x} {flags:02x} {lba:08x} {blocks:08x} 00 00", codes[1]),
        format!("{:02x} {flags:02x} {lba:016x} {blocks:08x} 00 00", codes[2]),
    ]
}

const VERIFY: [u8; 3] = [0x2f, 0xaf, 0x8f];
const WRITE_VERIFY: [u8; 3] = [0x2e, 0xae, 0x8e];

#[test]
fn verify_compares_what_it_is_told_to() {
    for size in [512usize, 4096] {
        let mut rig = Rig::new(size as u32);
        let data = bytes(3 * size, 1);
        rig.good("2a 00 00000005 00 0003 00", &data);
        for (at, cdb) in sizes(VERIFY, 0x02, 5, 3).iter().enumerate() {
            rig.good(cdb, &data);
            let mut other = data.clone();
            other[size + 9 + at] ^= 0x58;
            let ended = rig.run(cdb, &other);
            assert_eq!(
                (ended.sense, ended.info),
                (Some((Key::Miscompare, asc::MISCOMPARE)), Some((size + 9 + at) as u64))
            );
        }
        // Without data: the medium is read; whatever came is not looked at.
        for cdb in sizes(VERIFY, 0x10, 5, 3) {
            rig.good(&cdb, &[]);
            assert_eq!(rig.log.pop(), Some((Kind::Read, 5, 3)));
        }
        // One block for all.
        rig.good("41 00 00000020 00 0009 00", &data[..size]);
        for cdb in sizes(VERIFY, 0x06, 0x20, 9) {
            rig.good(&cdb, &data[..size]);
        }
        rig.disk[0x23 * size + 17] ^= 1;
        let ended = rig.run(&sizes(VERIFY, 0x06, 0x20, 9)[2], &data[..size]);
        assert_eq!((ended.sense, ended.info), (Some((Key::Miscompare, asc::MISCOMPARE)), Some((3 * size + 17) as u64)));
        for flags in [0x04, 0x22, 0xe2, 0x24] {
            for cdb in sizes(VERIFY, flags, 5, 1) {
                rig.fails(&cdb, &data[..size], Key::IllegalRequest, asc::INVALID_FIELD_IN_CDB);
            }
        }
        for (lba, blocks) in [(5000, 1), (4999, 2), (0x8000_0000, 1), (0xffff_ffff, 1), (5001, 0), (0x8000_0000, 0)] {
            for flags in [0x00, 0x02, 0x06] {
                for cdb in sizes(VERIFY, flags, lba, blocks) {
                    rig.fails(&cdb, &vec![0; blocks as usize * size], Key::IllegalRequest, asc::LBA_OUT_OF_RANGE);
                }
            }
        }
    }
}

#[test]
fn a_verify_of_a_long_range_reads_it_in_pieces_and_says_what_failed() {
    let mut rig = Rig::new(512);
    rig.good("8f 00 0000000000000000 00001388 00 00", &[]);
    let pieces: Vec<_> = rig.log.iter().map(|(_, lba, blocks)| (*lba, *blocks)).collect();
    assert_eq!(pieces, [(0, 2048), (2048, 2048), (4096, 904)]);
    rig.fail = Some(Status::MediaError);
    rig.fails("8f 00 0000000000000000 00001388 00 00", &[], Key::MediumError, asc::UNRECOVERED_READ);
}

#[test]
fn write_and_verify_writes_and_reads_back() {
    for size in [512usize, 4096] {
        let mut rig = Rig::new(size as u32);
        let data = bytes(4 * size, 3);
        for flags in [0x00, 0x02, 0x10] {
            for cdb in sizes(WRITE_VERIFY, flags, 9, 4) {
                rig.disk.fill(0);
                rig.log.clear();
                rig.good(&cdb, &data);
                assert_eq!(rig.disk[9 * size..13 * size], data);
                let check = if flags & 2 != 0 { Kind::Compare } else { Kind::Read };
                assert_eq!(rig.log, [(Kind::Write, 9, 4), (check, 9, 4)]);
            }
        }
        // Fewer blocks came than the CDB says: those are written.
        rig.disk.fill(0);
        rig.good(&sizes(WRITE_VERIFY, 0x02, 9, 4)[0], &data[..2 * size]);
        assert_eq!(rig.disk[9 * size..11 * size], data[..2 * size]);
        assert!(rig.disk[11 * size..].iter().all(|b| *b == 0));
        for flags in [0x04, 0x06, 0x20] {
            rig.fails(&sizes(WRITE_VERIFY, flags, 9, 4)[1], &data, Key::IllegalRequest, asc::INVALID_FIELD_IN_CDB);
        }
        rig.fails(&sizes(WRITE_VERIFY, 0, 4999, 2)[2], &data, Key::IllegalRequest, asc::LBA_OUT_OF_RANGE);
    }
}

#[test]
fn compare_and_write_is_one_step_and_says_where_it_differs() {
    for (size, most) in [(512usize, 128u32), (4096, 16)] {
        let mut rig = Rig::new(size as u32);
        let page = rig.good("12 01 b0 00ff 00", &[]);
        assert_eq!(u32::from(page[5]), most);
        let cdb = |lba: u64, blocks: u32| format!("89 00 {lba:016x} 000000 {blocks:02x} 00 00");
        for blocks in [1, 2, most] {
            let len = blocks as usize * size;
            let mut data = vec![b'A'; len];
            rig.disk[..len].fill(b'A');
            data.extend(vec![b'B'; len]);
            rig.good(&cdb(0, blocks), &data);
            assert!(rig.disk[..len].iter().all(|b| *b == b'B'));
            assert_eq!(rig.log.pop(), Some((Kind::CompareWrite, 0, blocks)));
            // Again: now the blocks are others.
            data[..len].fill(b'B');
            data[len - 27] = b'C';
            let ended = rig.run(&cdb(0, blocks), &data);
            assert_eq!((ended.sense, ended.info), (Some((Key::Miscompare, asc::MISCOMPARE)), Some(len as u64 - 27)));
        }
        let bad = asc::INVALID_FIELD_IN_CDB;
        rig.fails(&cdb(0, most + 1), &[], Key::IllegalRequest, bad);
        // Too much and too little data.
        rig.fails(&cdb(0, 1), &vec![0; 4 * size], Key::IllegalRequest, bad);
        rig.fails(&cdb(0, 3), &vec![0; 4 * size], Key::IllegalRequest, bad);
        rig.fails(&cdb(4999, 2), &vec![0; 4 * size], Key::IllegalRequest, asc::LBA_OUT_OF_RANGE);
        rig.good(&cdb(0, 0), &[]);
        rig.fails("89 20 0000000000000000 000000 01 00 00", &vec![0; 2 * size], Key::IllegalRequest, bad);
    }
}

#[test]
fn or_write_adds_bits_in_pieces_and_starts_over_when_somebody_writes() {
    let mut rig = Rig::new(512);
    let cdb = |lba: u64, blocks: u32| format!("8b 00 {lba:016x} {blocks:08x} 00 00");
    rig.disk[..300 * 512].fill(0x50);
    rig.good(&cdb(0, 256), &vec![0xa5; 256 * 512]);
    assert!(rig.disk[..256 * 512].iter().all(|b| *b == 0xf5) && rig.disk[256 * 512] == 0x50);
    let pieces = rig.log.iter().filter(|(k, _, _)| *k == Kind::CompareWrite).count();
    assert_eq!(pieces, 2, "two pieces of the longest compare-write");
    // Somebody sets a bit between read and write: it is not lost.
    rig.disk.fill(0);
    rig.race = Some((1, 700));
    rig.good(&cdb(0, 2), &[0x80; 1024]);
    assert_eq!((rig.disk[699], rig.disk[700], rig.disk[701]), (0x80, 0x81, 0x80));
    assert!(rig.race.is_none());
    rig.good(&cdb(0, 0), &[]);
    rig.fails(&cdb(5001, 0), &[], Key::IllegalRequest, asc::LBA_OUT_OF_RANGE);
    rig.fails("8b 20 0000000000000000 00000001 00 00", &[0; 512], Key::IllegalRequest, asc::INVALID_FIELD_IN_CDB);
    rig.fail = Some(Status::CapacityExceeded);
    rig.fails(&cdb(0, 1), &[1; 512], Key::DataProtect, asc::SPACE_ALLOCATION_FAILED);
}

#[test]
fn a_write_that_ends_within_a_block_leaves_the_rest_of_it_alone() {
    let mut rig = Rig::new(512);
    let cdb = |lba: u32, blocks: u16| format!("2a 00 {lba:08x} 00 {blocks:04x} 00");
    rig.disk.fill(0x11);
    rig.announced = Some(200);
    rig.good(&cdb(3, 1), &[0xee; 200]);
    assert_eq!(rig.log, [(Kind::Read, 3, 1), (Kind::CompareWrite, 3, 1)]);
    assert!(rig.disk[3 * 512..3 * 512 + 200].iter().all(|b| *b == 0xee));
    // Whole blocks before it, and somebody who writes the rest of the last one meanwhile: both are there.
    rig.announced = Some(1124);
    rig.race = Some((1, 7 * 512 + 511));
    rig.good(&cdb(5, 9), &[0xdd; 1124]);
    assert!(rig.race.is_none() && rig.disk[5 * 512..5 * 512 + 1124].iter().all(|b| *b == 0xdd));
    assert_eq!((rig.disk[5 * 512 + 1124], rig.disk[7 * 512 + 511], rig.disk[8 * 512]), (0x11, 0x11 | 1, 0x11));
    assert!(rig.disk[..3 * 512].iter().chain(&rig.disk[3 * 512 + 200..5 * 512]).all(|b| *b == 0x11));
    rig.fail = Some(Status::CapacityExceeded);
    rig.announced = Some(1);
    rig.fails(&cdb(0, 1), &[1], Key::DataProtect, asc::SPACE_ALLOCATION_FAILED);
}

#[test]
fn an_atomic_write_is_as_long_as_the_volume_promises() {
    let mut rig = Rig::new(512);
    let cdb = |lba: u64, boundary: u16, blocks: u16| format!("9c 08 {lba:016x} {boundary:04x} {blocks:04x} 00 00");
    rig.fails(&cdb(0, 0, 1), &[0; 512], Key::IllegalRequest, asc::INVALID_OPCODE);
    assert_eq!(be32(&rig.good("12 01 b0 00ff 00", &[]), 44), 0);
    rig.units[0].info.atomic_blocks = 8;
    let page = rig.good("12 01 b0 00ff 00", &[]);
    assert_eq!((be32(&page, 44), be32(&page, 48)), (8, 8));
    rig.good(&cdb(8, 0, 8), &[7; 4096]);
    assert_eq!(rig.log.pop(), Some((Kind::Write, 8, 8)));
    rig.good(&cdb(0, 0, 0), &[]);
    let bad = asc::INVALID_FIELD_IN_CDB;
    rig.fails(&cdb(0, 0, 9), &[0; 9 * 512], Key::IllegalRequest, bad);
    rig.fails(&cdb(1, 0, 1), &[0; 512], Key::IllegalRequest, bad);
    rig.fails(&cdb(0, 8, 8), &[0; 4096], Key::IllegalRequest, bad);
    rig.fails(&cdb(0, 0, 2), &[0; 512], Key::IllegalRequest, bad);
    rig.fails(&cdb(5000, 0, 2), &[0; 1024], Key::IllegalRequest, asc::LBA_OUT_OF_RANGE);
    rig.fails(&cdb(u64::MAX - 7, 0, 0), &[], Key::IllegalRequest, asc::LBA_OUT_OF_RANGE);
}

#[test]
fn caches_are_flushed_and_prefetching_is_accepted() {
    let mut rig = Rig::new(512);
    rig.good("35 00 00000000 00 0000 00", &[]);
    rig.good("91 02 0000000000000007 00000009 00 00", &[]);
    assert_eq!(rig.log, [(Kind::Flush, 0, 0), (Kind::Flush, 0, 0)]);
    rig.good("34 02 00000000 03 0001 00", &[]);
    rig.good("90 00 0000000000000000 00000000 00 00", &[]);
    for cdb in ["34 00 00001389 00 0000 00", "90 00 ffffffffffffffff 00000001 00 00", "35 00 00001387 00 0002 00"] {
        rig.fails(cdb, &[], Key::IllegalRequest, asc::LBA_OUT_OF_RANGE);
    }
}

#[test]
fn an_auto_contingent_allegiance_is_refused() {
    let mut rig = Rig::new(512);
    for cdb in ["28 00 00000000 00 0001 04", "00 00 00 00 00 04", "8f 00 0000000000000000 00000001 00 04"] {
        rig.fails(cdb, &[], Key::IllegalRequest, asc::INVALID_FIELD_IN_CDB);
    }
    let mut cdb = [0; 16];
    cdb[0] = 0x28;
    assert!(matches!(rig.begin(&cdb), Begin::End(_)));
}
