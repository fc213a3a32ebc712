//! WRITE SAME, UNMAP, GET LBA STATUS, and a pool without space.

use super::rig::{BLOCKS, Rig};
use crate::base::{Status, VolumeId};
use crate::iscsi::lu::{Begin, Event, Step};
use crate::volume::{Detail, Kind, Run};
use crate::wire::scsi::{Key, asc, be32, be64};

const BAD: u16 = asc::INVALID_FIELD_IN_CDB;

#[test]
fn write_same_repeats_a_block() {
    for size in [512usize, 4096] {
        let mut rig = Rig::new(size as u32);
        let block: Vec<u8> = (0..size).map(|i| (i % 253) as u8 + 1).collect();
        for blocks in [1, 5, 256, 257] {
            rig.disk.fill(0xee);
            rig.good(&format!("41 00 00000003 00 {blocks:04x} 00"), &block);
            let (from, to) = (3 * size, (3 + blocks) * size);
            assert!(rig.disk[from..to].chunks(size).all(|b| b == block));
            assert!(rig.disk[..from].iter().chain(&rig.disk[to..]).all(|b| *b == 0xee));
        }
        // 0 blocks are not all blocks to the end: WSNZ is 1.
        rig.fails(&format!("93 00 {:016x} 00000000 00 00", BLOCKS - 700), &block, Key::IllegalRequest, BAD);
        assert!(rig.disk[(BLOCKS as usize - 700) * size..].iter().all(|b| *b == 0xee));
    }
}

#[test]
fn write_same_of_zeroes_and_unmap_are_long_requests() {
    let mut rig = Rig::new(512);
    for (cdb, data, kind) in [
        ("41 00 00000000 00 0100 00", vec![0; 512], Kind::WriteZeroes),
        ("41 08 00000000 00 0100 00", vec![0; 512], Kind::Deallocate),
        ("93 01 0000000000000000 00000100 00 00", vec![], Kind::WriteZeroes),
        ("93 09 0000000000000000 00000100 00 00", vec![], Kind::Deallocate),
    ] {
        rig.disk.fill(0xff);
        rig.log.clear();
        rig.good(cdb, &data);
        assert_eq!(rig.log, [(kind, 0, 256)]);
    }
    // UNMAP asked for with a block that is not zero: the block is written.
    rig.good("41 08 00000000 00 0004 00", &[7; 512]);
    assert!(rig.disk[..2048].iter().all(|b| *b == 7));
}

#[test]
fn write_same_refuses_what_it_does_not_know() {
    let mut rig = Rig::new(512);
    // ANCHOR with and without UNMAP: ANC_SUP is 0; WRPROTECT.
    for flags in [0x10, 0x18, 0x20, 0xe0] {
        rig.fails(&format!("41 {flags:02x} 00000000 00 0001 00"), &[0; 512], Key::IllegalRequest, BAD);
        rig.fails(&format!("93 {flags:02x} 0000000000000000 00000001 00 00"), &[0; 512], Key::IllegalRequest, BAD);
    }
    for len in [256, 1024] {
        rig.fails("41 08 00000000 00 0001 00", &vec![1; len], Key::IllegalRequest, BAD);
    }
    rig.fails("93 01 0000000000000000 00000001 00 00", &[0; 512], Key::IllegalRequest, BAD);
    for lba in [5001u64, 0x8000_0000, 0xffff_ffff] {
        rig.fails(&format!("41 00 {lba:08x} 00 0000 00"), &[0; 512], Key::IllegalRequest, asc::LBA_OUT_OF_RANGE);
    }
    rig.fails("93 00 0000000000001387 00000002 00 00", &[0; 512], Key::IllegalRequest, asc::LBA_OUT_OF_RANGE);
}

fn unmap(ranges: &[(u64, u32)]) -> (String, Vec<u8>) {
    let mut list = vec![0; 8];
    list[0..2].copy_from_slice(&(ranges.len() as u16 * 16 + 6).to_be_bytes());
    list[2..4].copy_from_slice(&(ranges.len() as u16 * 16).to_be_bytes());
    for (lba, blocks) in ranges {
        list.extend(lba.to_be_bytes());
        list.extend(blocks.to_be_bytes());
        list.extend([0; 4]);
    }
    (format!("42 00 00000000 00 {:04x} 00", list.len()), list)
}

#[test]
fn unmap_gives_back_every_range_or_none() {
    let mut rig = Rig::new(512);
    rig.disk.fill(0x61);
    let (cdb, list) = unmap(&[(1, 2), (9, 0), (100, 1), (BLOCKS, 0)]);
    rig.good(&cdb, &list);
    assert_eq!(rig.log, [(Kind::Deallocate, 1, 2), (Kind::Deallocate, 100, 1)]);
    assert!(rig.disk[512..3 * 512].iter().all(|b| *b == 0) && rig.disk[3 * 512] == 0x61);
    rig.log.clear();
    // The last range is wrong: the first is not touched either.
    let (cdb, list) = unmap(&[(1, 2), (BLOCKS - 1, 2)]);
    rig.fails(&cdb, &list, Key::IllegalRequest, asc::LBA_OUT_OF_RANGE);
    let (cdb, list) = unmap(&[(u64::MAX, 2)]);
    rig.fails(&cdb, &list, Key::IllegalRequest, asc::LBA_OUT_OF_RANGE);
    assert!(rig.log.is_empty());
    rig.good("42 00 00000000 00 0000 00", &[]);
    let (cdb, list) = unmap(&[]);
    rig.good(&cdb, &list);
    rig.fails(&cdb.replace("42 00", "42 01"), &list, Key::IllegalRequest, BAD);
    // Cut lists.
    let (_, list) = unmap(&[(1, 2), (3, 4)]);
    for cut in 1..list.len() {
        let ended = rig.run(&format!("42 00 00000000 00 {cut:04x} 00"), &list[..cut]);
        assert_eq!(ended.sense, Some((Key::IllegalRequest, asc::PARAMETER_LIST_LENGTH)), "cut at {cut}");
    }
    let most = vec![(0, 1); 256];
    let (cdb, list) = unmap(&most);
    rig.good(&cdb, &list);
    let (cdb, list) = unmap(&[most, vec![(0, 1)]].concat());
    rig.fails(&cdb, &list, Key::IllegalRequest, asc::PARAMETER_LIST_LENGTH);
}

/// The descriptors of a GET LBA STATUS: first block, blocks, provisioning status.
fn status(rig: &mut Rig, lba: u64, allocation: u32) -> Vec<(u64, u32, u8)> {
    let data = rig.good(&format!("9e 12 {lba:016x} {allocation:08x} 00 00"), &[]);
    assert_eq!(be32(&data, 0) as usize, data.len() - 4);
    data[8..].chunks(16).map(|d| (be64(d, 0), be32(d, 8), d[12])).collect()
}

#[test]
fn runs_of_mapped_blocks_are_joined_and_cover_the_unit() {
    let mut rig = Rig::new(512);
    assert_eq!(status(&mut rig, 0, 256), [(0, BLOCKS as u32, 1)]);
    rig.mapped[1000..2000].fill(true);
    assert_eq!(status(&mut rig, 0, 256), [(0, 1000, 1), (1000, 1000, 0), (2000, 3000, 1)]);
    assert_eq!(status(&mut rig, 0, 24), [(0, 1000, 1)]);
    assert_eq!(status(&mut rig, 0, 40), [(0, 1000, 1), (1000, 1000, 0)]);
    assert_eq!(status(&mut rig, 1000, 24), [(1000, 1000, 0)]);
    // Also from within a physical block: initiators refuse an answer that does not begin where they asked.
    assert_eq!(status(&mut rig, 1001, 24), [(1001, 999, 0)]);
    rig.units[0].info.blocks = 4999;
    assert_eq!(status(&mut rig, 4998, 24), [(4998, 1, 1)]);
    for cdb in ["9e 12 0000000000001388 00000018 00 00", "9e 12 ffffffffffffffff 00000018 00 00"] {
        rig.fails(cdb, &[], Key::IllegalRequest, asc::LBA_OUT_OF_RANGE);
    }
    rig.fails("9e 12 0000000000000000 00000017 00 00", &[], Key::IllegalRequest, BAD);
    // A physical block that is partly mapped is mapped.
    rig.units[0].info.blocks = BLOCKS;
    rig.mapped.fill(false);
    for at in [11, 1003, 1004, 4999] {
        rig.mapped[at] = true;
    }
    let runs = [(0, 8, 1), (8, 8, 0), (16, 984, 1), (1000, 8, 0), (1008, 3984, 1), (4992, 8, 0)];
    assert_eq!(status(&mut rig, 0, 256), runs);
    // Every one its own run: as many as there is room for.
    for at in 0..5000 {
        rig.mapped[at] = at / 8 % 2 == 0;
    }
    assert_eq!(status(&mut rig, 0, 8 + 16 * 20).len(), 20);
    assert_eq!(status(&mut rig, 0, 1 << 20).len(), 255);
}

#[test]
fn a_full_pool_protects_the_data() {
    let mut rig = Rig::new(512);
    rig.fail = Some(Status::CapacityExceeded);
    for (cdb, data) in [
        ("2a 00 00000000 00 0001 00", vec![1; 512]),
        ("41 00 00000000 00 0001 00", vec![1; 512]),
        ("2e 00 00000000 00 0001 00", vec![1; 512]),
        ("89 00 0000000000000000 000000 01 00 00", vec![1; 1024]),
    ] {
        rig.fails(cdb, &data, Key::DataProtect, asc::SPACE_ALLOCATION_FAILED);
    }
}

#[test]
fn a_program_never_reaches_another_volume_than_it_began_with() {
    let mut rig = Rig::new(512);
    for stage in 0..2 {
        let mut cdb = [0; 16];
        (cdb[0], cdb[7], cdb[8]) = (0x41, 0x04, 0);
        let Begin::Program(mut program, want) = rig.begin(&cdb) else { panic!("a program") };
        let data = rig.buf(&vec![7; want as usize]);
        if stage == 0 {
            rig.units[0].info.id = VolumeId(77);
        }
        let mut step = rig.with(|cx| program.start(Some(data), cx));
        if stage == 1 {
            let Step::Io { payload, .. } = step else { panic!("its first write") };
            rig.pool.put_all(payload);
            rig.units[0].info.id = VolumeId(78);
            let event = Event::Io { status: Status::Ok, detail: Detail::NONE, buf: None };
            step = rig.with(|cx| program.resume(event, cx));
        }
        let Step::End(end) = step else { panic!("it ends") };
        assert_eq!(end.sense.unwrap().key, Key::AbortedCommand);
        program.cancel(&mut rig.pool);
        assert!(rig.pool.stats().all(|s| s.free == s.total));
    }
    // A unit that becomes smaller while its blocks are looked at.
    let mut cdb = [0; 16];
    (cdb[0], cdb[1], cdb[13]) = (0x9e, 0x12, 255);
    let Begin::Program(mut program, _) = rig.begin(&cdb) else { panic!("a program") };
    let Step::Io { .. } = rig.with(|cx| program.start(None, cx)) else { panic!("its first look") };
    rig.units[0].info.blocks = 0;
    let detail = Detail::of_run(Run { mapped: false, len: 512 });
    let Step::End(end) = rig.with(|cx| program.resume(Event::Io { status: Status::Ok, detail, buf: None }, cx)) else {
        panic!("there is nothing left to look at")
    };
    assert_eq!(end.data.as_ref().unwrap().len(), 8);
    rig.pool.put_all(end.data);
}
