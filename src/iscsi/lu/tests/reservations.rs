//! PERSISTENT RESERVE IN and OUT, RESERVE(6), and what they do to other initiators' commands.

use super::rig::Rig;
use crate::volume::reserve::Type;
use crate::wire::scsi::Out;
use crate::wire::scsi::designator::put_transport_id;
use crate::wire::scsi::{Key, asc, be16, be32, be64};

fn out(action: u8, kind: u8, key: u64, new: u64) -> (String, Vec<u8>) {
    let mut list = vec![0; 24];
    list[..8].copy_from_slice(&key.to_be_bytes());
    list[8..16].copy_from_slice(&new.to_be_bytes());
    (format!("5f {action:02x} {kind:02x} 0000 00000018 00"), list)
}

fn change(rig: &mut Rig, action: u8, kind: u8, key: u64, new: u64) -> u8 {
    let (cdb, list) = out(action, kind, key, new);
    rig.run(&cdb, &list).status
}

fn keys(rig: &mut Rig) -> (u32, Vec<u64>) {
    let data = rig.good("5e 00 0000000000 4000 00", &[]);
    assert_eq!(be32(&data, 4) as usize, data.len() - 8);
    (be32(&data, 0), data[8..].chunks(8).map(|k| be64(k, 0)).collect())
}

#[test]
fn a_key_is_registered_seen_changed_and_taken_back() {
    let mut rig = Rig::new(512);
    assert_eq!(keys(&mut rig), (0, vec![]));
    assert_eq!(change(&mut rig, 6, 0, 0, 0x1234), 0);
    assert_eq!(keys(&mut rig), (1, vec![0x1234]));
    // Cut after the header: the length is what it is.
    let cut = rig.good("5e 00 0000000000 0008 00", &[]);
    assert_eq!((cut.len(), be32(&cut, 4)), (8, 8));
    assert_eq!(change(&mut rig, 0, 0, 0x1235, 7), 0x18, "the wrong key");
    assert_eq!(change(&mut rig, 0, 0, 0x1234, 7), 0);
    assert_eq!(change(&mut rig, 0, 0, 7, 0), 0);
    assert_eq!(keys(&mut rig), (3, vec![]));
    let caps = rig.good("5e 02 0000000000 00ff 00", &[]);
    assert_eq!((be16(&caps, 0), caps[2], caps[3] & 0x80, be16(&caps, 4)), (8, 0x1d, 0x80, 0xea01));
    for action in 4..0x20 {
        rig.fails(&format!("5e {action:02x} 0000000000 4000 00"), &[], Key::IllegalRequest, asc::INVALID_FIELD_IN_CDB);
    }
}

#[test]
fn each_type_lets_through_what_it_should() {
    for kind in Type::ALL {
        let mut rig = Rig::new(512);
        assert_eq!(change(&mut rig, 6, 0, 0, 1), 0);
        assert_eq!(rig.other(1, |r| change(r, 6, 0, 0, 2)), 0);
        assert_eq!(change(&mut rig, 1, kind.scsi(), 1, 0), 0);
        let data = rig.good("5e 01 0000000000 0018 00", &[]);
        assert_eq!((be32(&data, 4), data[21]), (16, kind.scsi()));
        assert_eq!(be64(&data, 8), u64::from(!kind.all_registrants()));
        let read = "28 00 00000000 00 0001 00";
        let write = "2a 00 00000000 00 0001 00";
        let favoured = kind.favours_registrants();
        let reads_free = matches!(kind.scsi(), 1 | 5 | 7);
        for (host, registered) in [(0, true), (1, favoured), (2, false)] {
            let (r, w) = rig.other(host, |rig| (rig.run(read, &[]).status, rig.run(write, &[1; 512]).status));
            let want = |ok: bool| if ok { 0 } else { 0x18 };
            assert_eq!((r, w), (want(registered || reads_free), want(registered)), "{kind:?} host {host}");
            // What only looks is always allowed.
            for cdb in
                ["00 00 00 00 00 00", "12 00 00 00ff 00", "25 00 00000000 0000 00 00", "5e 00 0000000000 00ff 00"]
            {
                assert_eq!(rig.other(host, |rig| rig.run(cdb, &[]).status), 0, "{cdb}");
            }
        }
        assert_eq!(rig.other(2, |r| change(r, 2, kind.scsi(), 0, 0)), 0x18);
        assert_eq!(change(&mut rig, 2, kind.scsi(), 1, 0), 0);
        // The other registrant learns that it is released.
        if favoured {
            rig.other(1, |r| r.fails("00 00 00 00 00 00", &[], Key::UnitAttention, asc::RESERVATIONS_RELEASED));
        }
        assert_eq!(rig.other(2, |rig| rig.run(write, &[1; 512]).status), 0);
    }
}

#[test]
fn preempting_takes_registration_and_reservation() {
    let mut rig = Rig::new(512);
    assert_eq!(change(&mut rig, 6, 0, 0, 1), 0);
    assert_eq!(change(&mut rig, 1, 3, 1, 0), 0);
    assert_eq!(rig.other(1, |r| change(r, 6, 0, 0, 2)), 0);
    assert_eq!(rig.other(1, |r| change(r, 4, 3, 2, 1)), 0);
    rig.fails("00 00 00 00 00 00", &[], Key::UnitAttention, asc::REGISTRATIONS_PREEMPTED);
    assert_eq!(keys(&mut rig).1, [2]);
    assert_eq!(rig.run("28 00 00000000 00 0001 00", &[]).status, 0x18);
    let full = rig.good("5e 03 0000000000 4000 00", &[]);
    assert_eq!(be32(&full, 4) as usize, full.len() - 8);
    assert_eq!((be64(&full, 8), full[20], full[21], be16(&full, 26)), (2, 1, 3, 1));
    assert_eq!(full[32..], rig.who[1].initiator[..]);
}

#[test]
fn lists_are_checked_before_the_rules_are() {
    let mut rig = Rig::new(512);
    let (cdb, list) = out(6, 0, 0, 1);
    for len in [0, 8, 23] {
        let cdb = cdb.replace("00000018", &format!("{len:08x}"));
        rig.fails(&cdb, &list[..len], Key::IllegalRequest, asc::PARAMETER_LIST_LENGTH);
    }
    rig.fails(&cdb, &list[..20], Key::IllegalRequest, asc::PARAMETER_LIST_LENGTH);
    assert_eq!(change(&mut rig, 6, 0, 0, 1), 0);
    // A type that is none, a scope that is none, an action that is none.
    for (action, kind) in [(1, 2), (1, 0x13), (0x1e, 0)] {
        let (cdb, list) = out(action, kind, 1, 0);
        rig.fails(&cdb, &list, Key::IllegalRequest, asc::INVALID_FIELD_IN_CDB);
    }
    assert_eq!(change(&mut rig, 1, 1, 1, 0), 0);
    let (cdb, list) = out(2, 3, 1, 0);
    rig.fails(&cdb, &list, Key::IllegalRequest, asc::INVALID_RELEASE);
}

#[test]
fn others_are_registered_and_the_reservation_moves() {
    let mut rig = Rig::new(512);
    let id = |host: u8| {
        let mut room = [0; 64];
        let mut out = Out::new(&mut room);
        put_transport_id(&mut out, "iqn.2024-01.io.pollux:host", [0x80, 0, 0, 0, 0, host]);
        let len = out.len();
        room[..len].to_vec()
    };
    let (_, mut list) = out(0, 0, 0, 5);
    list[20] = 0x08 | 0x01;
    let ids = [id(1), id(2)].concat();
    list.extend((ids.len() as u32).to_be_bytes());
    list.extend(ids);
    rig.good(&format!("5f 00 00 0000 {:08x} 00", list.len()), &list);
    assert_eq!(keys(&mut rig).1, [5, 5, 5]);
    assert!(rig.reservations.aptpl());
    for cut in [24, 27, 28, list.len() - 1] {
        let ended = rig.run(&format!("5f 00 00 0000 {cut:08x} 00"), &list[..cut]);
        assert_eq!(ended.sense, Some((Key::IllegalRequest, asc::PARAMETER_LIST_LENGTH)), "cut at {cut}");
    }
    assert_eq!(change(&mut rig, 1, 3, 5, 0), 0);
    let mut list = vec![0; 24];
    (list[7], list[15], list[17], list[19]) = (5, 9, 0x02, 1);
    list.splice(20..24, (id(2).len() as u32).to_be_bytes());
    list.extend(id(2));
    rig.good(&format!("5f 07 03 0000 {:08x} 00", list.len()), &list);
    assert_eq!(rig.run("28 00 00000000 00 0001 00", &[]).status, 0x18);
    assert_eq!(rig.other(2, |r| r.run("28 00 00000000 00 0001 00", &[]).status), 0);
    (list[18], list[19]) = (0, 77);
    let cdb = format!("5f 07 03 0000 {:08x} 00", list.len());
    rig.other(2, |r| r.fails(&cdb, &list, Key::IllegalRequest, asc::INVALID_FIELD_IN_PARAMETERS));
}

#[test]
fn the_old_reservation_excludes_everybody_else() {
    let mut rig = Rig::new(512);
    for (reserve, release) in
        [("16 00 00 00 00 00", "17 00 00 00 00 00"), ("56 00 00000000 00 0000 00", "57 00 00000000 00 0000 00")]
    {
        rig.good(reserve, &[]);
        rig.good(reserve, &[]);
        rig.other(1, |rig| {
            for cdb in ["00 00 00 00 00 00", "28 00 00000000 00 0001 00", reserve, "48 02 00000000 00 0000 00"] {
                assert_eq!(rig.run(cdb, &[]).status, 0x18, "{cdb}");
            }
            rig.good("12 00 00 00ff 00", &[]);
            rig.good("a0 00 00 000000 00000200 00 00", &[]);
            rig.good(release, &[]);
            assert_eq!(rig.run("00 00 00 00 00 00", &[]).status, 0x18, "only the holder releases");
        });
        rig.good("28 00 00000000 00 0001 00", &[]);
        rig.good(release, &[]);
        rig.other(1, |rig| rig.good("00 00 00 00 00 00", &[]));
    }
    rig.fails("16 10 00 00 00 00", &[], Key::IllegalRequest, asc::INVALID_FIELD_IN_CDB);
}
