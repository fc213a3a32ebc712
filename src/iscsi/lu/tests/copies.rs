//! EXTENDED COPY and RECEIVE COPY RESULTS.

use super::rig::{BLOCKS, Rig, unit};
use crate::base::{Status, VolumeId};
use crate::iscsi::lu::LuEvent;
use crate::volume::Kind;
use crate::volume::reserve::{Op, Type};
use crate::wire::scsi::copy::tests::{list, segment};
use crate::wire::scsi::copy::{Amount, SEGMENTS_MAX, TARGETS_MAX};
use crate::wire::scsi::{Key, asc, be16, be32};

fn cdb(len: usize) -> String {
    format!("83 00 0000000000000000 {len:08x} 00 00")
}

fn copy(rig: &Rig, id: u8, usage: u8, amount: Amount, from: u64, to: u64) -> Vec<u8> {
    list(id, usage, rig.units[0].naa(), &[segment(amount, from, to)])
}

#[test]
fn blocks_are_copied_within_the_unit_in_pieces() {
    for size in [512usize, 4096] {
        let mut rig = Rig::new(size as u32);
        let blocks = 2000;
        rig.disk[..blocks * size].iter_mut().enumerate().for_each(|(i, b)| *b = (i % 241) as u8);
        let to = BLOCKS - blocks as u64;
        let list = copy(&rig, 1, 3, Amount::Blocks(blocks as u32), 0, to);
        rig.good(&cdb(list.len()), &list);
        let (from, dest) = (rig.disk[..blocks * size].to_vec(), &rig.disk[to as usize * size..]);
        assert!(from == dest);
        let reads = rig.log.iter().filter(|(k, _, _)| *k == Kind::Read).count();
        assert_eq!(reads, (blocks * size).div_ceil(512 << 10));
        // A length in bytes; nothing at all.
        let bytes = Amount::Bytes { bytes: 3 * size as u32, source_offset: 0, destination_offset: 0 };
        let list = copy(&rig, 1, 3, bytes, 5, 4000);
        rig.good(&cdb(list.len()), &list);
        assert!(rig.disk[5 * size..8 * size] == rig.disk[4000 * size..4003 * size]);
        rig.good(&cdb(0), &[]);
        let list = copy(&rig, 1, 3, Amount::Blocks(0), 0, 0);
        rig.good(&cdb(list.len()), &list);
    }
}

#[test]
fn what_a_copy_cannot_do_is_said_before_it_begins() {
    let mut rig = Rig::new(512);
    let good = copy(&rig, 1, 0, Amount::Blocks(8), 0, 100);
    for cut in [16 + 31, good.len() - 1] {
        rig.fails(&cdb(cut), &good[..cut], Key::IllegalRequest, asc::PARAMETER_LIST_LENGTH);
    }
    let mut bad = good.clone();
    bad[16] = 0xe0;
    rig.fails(&cdb(bad.len()), &bad, Key::IllegalRequest, asc::UNSUPPORTED_TARGET);
    let mut bad = good.clone();
    bad[48] = 3;
    rig.fails(&cdb(bad.len()), &bad, Key::IllegalRequest, asc::UNSUPPORTED_SEGMENT);
    // The type of the LUN identifier is ignored.
    let mut same = good.clone();
    same[17] = 0xc0;
    rig.good(&cdb(same.len()), &same);
    // A target that is not in the list, one that is nobody, and the end of the medium.
    let mut bad = good.clone();
    bad[48 + 7] = 1;
    rig.fails(&cdb(bad.len()), &bad, Key::CopyAborted, asc::UNREACHABLE_COPY_TARGET);
    let mut bad = good.clone();
    bad[24] ^= 1;
    rig.fails(&cdb(bad.len()), &bad, Key::CopyAborted, asc::UNREACHABLE_COPY_TARGET);
    rig.log.clear();
    let bad = copy(&rig, 1, 0, Amount::Blocks(2048), 0, BLOCKS - 1);
    rig.fails(&cdb(bad.len()), &bad, Key::CopyAborted, asc::NONE);
    assert!(rig.log.is_empty());
    let many = vec![segment(Amount::Blocks(1), 0, 9); SEGMENTS_MAX + 1];
    let bad = list(1, 0, rig.units[0].naa(), &many);
    rig.fails(&cdb(bad.len()), &bad, Key::IllegalRequest, asc::TOO_MANY_SEGMENTS);
}

#[test]
fn a_copy_between_units_minds_the_reservations_of_both() {
    let mut rig = Rig::new(512);
    let mut second = unit(1, 512);
    (second.info.id, second.info.uuid) = (VolumeId(9), [9; 16]);
    rig.units.push(second);
    let mut list = copy(&rig, 1, 3, Amount::Blocks(8), 0, 100);
    list[24..32].copy_from_slice(&rig.units[1].naa());
    rig.good(&cdb(list.len()), &list);
    let other = rig.who[1].clone();
    let register = Op::RegisterIgnore { new_key: 5, aptpl: false, ports: None };
    let taken = rig.others.apply(&other, &register).unwrap().next;
    rig.others = taken.apply(&other, &Op::Reserve { key: 5, kind: Type::WriteExclusive }).unwrap().next;
    let ended = rig.run(&cdb(list.len()), &list);
    assert_eq!(ended.status, 0x18);
    // Its own unit is free: a copy there goes on.
    let own = copy(&rig, 1, 3, Amount::Blocks(8), 0, 100);
    rig.good(&cdb(own.len()), &own);
}

#[test]
fn results_are_kept_until_they_are_asked_for() {
    let mut rig = Rig::new(512);
    let status = |id: u8| format!("84 00 {id:02x} 00000000000000 000000ff 00 00");
    let details = |id: u8| format!("84 04 {id:02x} 00000000000000 000000ff 00 00");
    rig.fails(&status(1), &[], Key::IllegalRequest, asc::INVALID_FIELD_IN_CDB);
    let list = copy(&rig, 1, 0, Amount::Blocks(2000), 0, 2500);
    rig.good(&cdb(list.len()), &list);
    rig.other(1, |rig| rig.fails(&status(1), &[], Key::IllegalRequest, asc::INVALID_FIELD_IN_CDB));
    let data = rig.good(&status(1), &[]);
    assert_eq!((be32(&data, 0), data[4], be16(&data, 5), data[7], be32(&data, 8)), (8, 1, 1, 0, 2000 * 512));
    rig.fails(&status(1), &[], Key::IllegalRequest, asc::INVALID_FIELD_IN_CDB);
    // No result was wanted; the nexus is lost; the unit is reset.
    let discard = copy(&rig, 1, 3, Amount::Blocks(2), 0, 2500);
    rig.good(&cdb(discard.len()), &discard);
    rig.fails(&status(1), &[], Key::IllegalRequest, asc::INVALID_FIELD_IN_CDB);
    rig.good(&cdb(list.len()), &list);
    rig.state.nexus_lost(&rig.who[0]);
    rig.fails(&status(1), &[], Key::IllegalRequest, asc::INVALID_FIELD_IN_CDB);
    rig.good(&cdb(list.len()), &list);
    rig.tell(LuEvent::Reset);
    rig.fails(&status(1), &[], Key::IllegalRequest, asc::INVALID_FIELD_IN_CDB);
    // A failure, with its sense data.
    rig.fail = Some(Status::MediaError);
    rig.fails(&cdb(list.len()), &list, Key::CopyAborted, asc::UNRECOVERED_READ);
    rig.fail = None;
    let data = rig.good(&details(1), &[]);
    assert_eq!((be32(&data, 0) as usize + 4, data[56], be16(&data, 58), data[62]), (data.len(), 2, 18, 0x0a));
    // Not more than so many.
    for id in 0..40 {
        let list = copy(&rig, id, 0, Amount::Blocks(1), 0, 2500);
        rig.good(&cdb(list.len()), &list);
    }
    rig.fails(&status(23), &[], Key::IllegalRequest, asc::INVALID_FIELD_IN_CDB);
    rig.good(&status(24), &[]);
}

#[test]
fn operating_parameters_are_the_limits_that_hold() {
    let mut rig = Rig::new(512);
    let data = rig.good("84 03 00 00000000000000 000000ff 00 00", &[]);
    assert_eq!(be32(&data, 0) as usize, data.len() - 4);
    assert_eq!((be16(&data, 8), be16(&data, 10)), (TARGETS_MAX as u16, SEGMENTS_MAX as u16));
    assert_eq!((data[43], &data[44..]), (3, &[2, 0x0a, 0xe4][..]));
}
