//! INQUIRY, TEST UNIT READY, READ CAPACITY, REPORT LUNS, REQUEST SENSE, READ and WRITE.

use super::rig::{BLOCKS, Rig, unit};
use crate::base::Status;
use crate::iscsi::lu::{Attention, Begin, Io, absent};
use crate::volume::Kind;
use crate::wire::scsi::{Key, asc, be16, be32, be64};

#[test]
fn reads_and_writes_move_blocks() {
    for size in [512, 4096] {
        let mut rig = Rig::new(size);
        let data: Vec<u8> = (0..2 * size).map(|i| (i % 251) as u8).collect();
        assert!(rig.good("2a 00 00000003 00 0002 00", &data).is_empty());
        assert_eq!(rig.good("88 08 0000000000000003 00000002 00 00", &[]), data);
        assert_eq!(rig.good("08 00 0003 02 00", &[]), data);
        assert_eq!(rig.good("a8 18 00000004 00000001 00 00", &[]), data[size as usize..]);
        // Nothing is no error, but not past the end.
        assert!(rig.good("28 00 00000000 00 0000 00", &[]).is_empty());
        rig.fails("28 00 0000138a 00 0000 00", &[], Key::IllegalRequest, asc::LBA_OUT_OF_RANGE);
        rig.fails("28 00 00001387 00 0002 00", &[], Key::IllegalRequest, asc::LBA_OUT_OF_RANGE);
        rig.fails("28 00 ffffffff 00 0001 00", &[], Key::IllegalRequest, asc::LBA_OUT_OF_RANGE);
        rig.fails("8a 00 ffffffffffffffff 00000002 00 00", &[], Key::IllegalRequest, asc::LBA_OUT_OF_RANGE);
        for protect in 1..8 {
            let cdb = format!("28 {:02x} 00000000 00 0001 00", protect << 5);
            rig.fails(&cdb, &[], Key::IllegalRequest, asc::INVALID_FIELD_IN_CDB);
        }
        // One block more than the largest transfer.
        rig.units[0].info.blocks = 1 << 20;
        let most = (8 << 20) / size;
        rig.fail = Some(Status::MediaError);
        rig.fails(&format!("88 00 0000000000000000 {most:08x} 00 00"), &[], Key::MediumError, asc::UNRECOVERED_READ);
        let cdb = format!("88 00 0000000000000000 {:08x} 00 00", most + 1);
        rig.fails(&cdb, &[], Key::IllegalRequest, asc::INVALID_FIELD_IN_CDB);
    }
}

#[test]
fn a_long_transfer_is_done_in_pieces() {
    for size in [512usize, 4096] {
        let mut rig = Rig::new(size as u32);
        let (most, piece) = (BLOCKS as usize, (1 << 20) / size);
        let blocks = most.min(2 * piece + 3);
        let data: Vec<u8> = (0..blocks * size).map(|i| (i / 7 + i / 4099) as u8).collect();
        let pieces = |kind| {
            let each = (0..blocks).step_by(piece);
            each.map(|at| (kind, at as u64, piece.min(blocks - at) as u32)).collect::<Vec<_>>()
        };
        let cdb = |code: u8, flags: u8| format!("{code:02x} {flags:02x} 0000000000000000 {blocks:08x} 00 00");
        rig.good(&cdb(0x8a, 8), &data);
        assert_eq!(rig.disk[..data.len()], data);
        assert_eq!(rig.log, pieces(Kind::Write));
        rig.log.clear();
        assert!(rig.good(&cdb(0x88, 0), &[]) == data);
        assert_eq!(rig.log, pieces(Kind::Read));
        rig.log.clear();
        rig.good(&cdb(0x8f, 2), &data);
        assert_eq!(rig.log, pieces(Kind::Compare));
        // What differs in a later piece is told by its place in all of the data.
        let at = (piece + 1) * size + 5;
        rig.disk[at] ^= 1;
        for verify in [cdb(0x8f, 2), cdb(0x8f, 0x02)] {
            let ended = rig.run(&verify, &data);
            assert_eq!((ended.sense, ended.info), (Some((Key::Miscompare, asc::MISCOMPARE)), Some(at as u64)));
        }
        rig.good(&cdb(0x8e, 2), &data);
        assert_eq!(rig.disk[..data.len()], data);
        rig.disk.fill(1);
        rig.good(&cdb(0x8b, 0), &data);
        assert!(rig.disk.iter().zip(&data).all(|(got, or)| *got == or | 1));
        // An initiator with less data, or less room.
        rig.disk.fill(0);
        for code in [0x8a, 0x8e, 0x8b] {
            rig.good(&cdb(code, 0), &data[..(piece + 1) * size]);
            assert!(rig.disk[(piece + 1) * size..].iter().all(|b| *b == 0), "{code:02x}");
            assert!(rig.disk[..(piece + 1) * size] == data[..(piece + 1) * size], "{code:02x}");
        }
        rig.fails(&cdb(0x8a, 0), &data[..=piece * size], Key::IllegalRequest, asc::INVALID_FIELD_IN_IU);
        rig.log.clear();
        rig.room = piece * size + 1;
        rig.good(&cdb(0x88, 0), &[]);
        assert_eq!(rig.log, [(Kind::Read, 0, piece as u32), (Kind::Read, piece as u64, 1)]);
        // A failure half way ends it.
        rig.fail = Some(Status::CapacityExceeded);
        rig.fails(&cdb(0x8a, 0), &data, Key::DataProtect, asc::SPACE_ALLOCATION_FAILED);
    }
}

#[test]
fn a_read_is_a_plain_request() {
    let mut rig = Rig::new(512);
    let mut cdb = [0; 16];
    cdb[..10].copy_from_slice(&[0x28, 8, 0, 0, 0, 7, 0, 0, 4, 0]);
    let Begin::Io(io) = rig.begin(&cdb) else { panic!("a plain request") };
    assert_eq!(io, Io { kind: Kind::Read, lba: 7, blocks: 4, fua: true, bytes: 2048 });
}

#[test]
fn capacity_is_reported_in_both_sizes() {
    let mut rig = Rig::new(512);
    let data = rig.good("25 00 00000000 0000 00 00", &[]);
    assert_eq!((be32(&data, 0), be32(&data, 4), data.len()), (BLOCKS as u32 - 1, 512, 8));
    rig.fails("25 00 00000001 0000 00 00", &[], Key::IllegalRequest, asc::INVALID_FIELD_IN_CDB);
    let data = rig.good("9e 10 0000000000000000 00000020 00 00", &[]);
    assert_eq!((be64(&data, 0), be32(&data, 8)), (BLOCKS - 1, 512));
    assert_eq!((data[12], data[13], be16(&data, 14)), (0, 3, 0xc000));
    for len in 0..32 {
        let cut = rig.good(&format!("9e 10 0000000000000000 {len:08x} 00 00"), &[]);
        assert_eq!(cut, data[..len]);
    }
    rig.units[0].info.blocks = 1 << 33;
    assert_eq!(be32(&rig.good("25 00 00000000 0000 00 00", &[]), 0), u32::MAX);
}

#[test]
fn inquiry_answers_in_every_length() {
    let mut rig = Rig::new(512);
    let whole = rig.good("12 00 00 00ff 00", &[]);
    assert_eq!((whole.len(), whole[2]), (96, 6));
    for len in 0..=255 {
        assert_eq!(rig.good(&format!("12 00 00 00{len:02x} 00"), &[]), whole[..len.min(96)]);
    }
    rig.fails("12 00 01 00ff 00", &[], Key::IllegalRequest, asc::INVALID_FIELD_IN_CDB);
    rig.fails("12 01 77 00ff 00", &[], Key::IllegalRequest, asc::INVALID_FIELD_IN_CDB);
    let pages = rig.good("12 01 00 00ff 00", &[]);
    assert!(pages[4..].is_sorted() && pages[4..].len() == usize::from(pages[3]));
    for page in &pages[4..] {
        let data = rig.good(&format!("12 01 {page:02x} ffff 00"), &[]);
        assert_eq!((data[0], data[1], data.len()), (0, *page, 4 + usize::from(be16(&data, 2))));
    }
    assert_eq!(rig.good("12 01 80 00ff 00", &[])[4..], *b"SN1");
}

#[test]
fn luns_are_listed_and_absent_ones_are_not_there() {
    let mut rig = Rig::new(512);
    rig.units.push(unit(7, 512));
    rig.units.push(unit(300, 512));
    let data = rig.good("a0 00 00 000000 00000200 00 00", &[]);
    assert_eq!(be32(&data, 0), 24);
    assert_eq!((be16(&data, 8), be16(&data, 16), be16(&data, 24)), (0, 7, 0x412c));
    assert_eq!(rig.good("a0 00 00 000000 00000010 00 00", &[]), data[..16], "cut, with its length as it is");
    rig.fails("a0 00 00 000000 0000000f 00 00", &[], Key::IllegalRequest, asc::INVALID_FIELD_IN_CDB);
    let mut inquiry = [0; 16];
    (inquiry[0], inquiry[4]) = (0x12, 96);
    let Begin::End(end) = absent(&rig.units, &inquiry, &mut rig.pool) else { panic!("it ends at once") };
    assert_eq!(end.data.as_ref().unwrap()[0], 0x7f);
    rig.pool.put_all(end.data);
    let Begin::End(end) = absent(&rig.units, &[0; 16], &mut rig.pool) else { panic!("it ends at once") };
    assert_eq!(end.sense.unwrap().asc, asc::LUN_NOT_SUPPORTED);
}

#[test]
fn a_unit_attention_is_told_once_before_anything_else() {
    let mut rig = Rig::new(512);
    rig.attentions[0].raise(Attention::CapacityChanged);
    rig.good("12 00 00 00ff 00", &[]);
    rig.fails("28 00 00000000 00 0001 00", &[], Key::UnitAttention, asc::CAPACITY_CHANGED);
    rig.good("00 00 00 00 00 00", &[]);
    rig.attentions[0].raise(Attention::PowerOn);
    let sense = rig.good("03 00 00 00 ff 00", &[]);
    assert_eq!((sense[0], sense[2], be16(&sense, 12)), (0x70, 6, asc::POWER_ON));
    let sense = rig.good("03 01 00 00 ff 00", &[]);
    assert_eq!((sense[0], sense[1], be16(&sense, 2)), (0x72, 0, 0));
}
