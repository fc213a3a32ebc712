//! SANITIZE.

use super::rig::{BLOCKS, Rig};
use crate::base::Status;
use crate::iscsi::lu::LuEvent;
use crate::volume::Kind;
use crate::wire::scsi::{Key, asc, be16};

const BAD: u16 = asc::INVALID_FIELD_IN_CDB;

fn overwrite(flags: u8, pattern: &[u8]) -> (String, Vec<u8>) {
    let mut list = vec![flags, 0];
    list.extend((pattern.len() as u16).to_be_bytes());
    list.extend(pattern);
    (format!("48 01 00000000 00 {:04x} 00", list.len()), list)
}

fn whole(rig: &mut Rig, cdb: &str, data: &[u8]) {
    assert_eq!(rig.run(cdb, data).status, 0xff, "it leaves its command");
    let ended = rig.finish_detached();
    assert_eq!((ended.status, ended.sense), (0, None));
}

#[test]
fn erasing_gives_the_whole_medium_back() {
    let mut rig = Rig::new(512);
    rig.disk.fill(0x61);
    rig.mapped.fill(true);
    whole(&mut rig, "48 02 00000000 00 0000 00", &[]);
    assert!(rig.disk.iter().all(|b| *b == 0) && rig.mapped.iter().all(|m| !m));
    assert_eq!(rig.log.last(), Some(&(Kind::Flush, 0, 0)));
    rig.good("28 00 00000000 00 0001 00", &[]);
    // There are no keys that a cryptographic erase could change.
    assert_eq!(rig.good("a3 0c 02 48 0003 000000ff 00 00", &[])[1], 1);
}

#[test]
fn overwriting_repeats_the_pattern_and_takes_its_time() {
    for size in [512usize, 4096] {
        let mut rig = Rig::new(size as u32);
        rig.units[0].info.thin = false;
        for pattern in [vec![0xaa; size], vec![0x55; size / 2], vec![1, 2, 3, 4], vec![1, 2, 3]] {
            let (cdb, list) = overwrite(1, &pattern);
            whole(&mut rig, &cdb, &list);
            let block: Vec<u8> = pattern.iter().copied().cycle().take(size).collect();
            assert!(rig.disk.chunks(size).all(|b| b == block));
        }
        let megabytes = 4 * (BLOCKS as usize * size) as u64 / (1 << 20);
        assert!(rig.paused >= megabytes * 1000 / 64 - 100, "{} ms for {megabytes} MiB", rig.paused);
    }
    // Two passes, the second inverted.
    let mut rig = Rig::new(512);
    rig.units[0].info.thin = false;
    let (cdb, list) = overwrite(0x82, &[0xf0]);
    whole(&mut rig, &cdb, &list);
    assert!(rig.disk.iter().all(|b| *b == 0x0f));
}

#[test]
fn wrong_parameters_are_refused() {
    let mut rig = Rig::new(512);
    let (cdb, list) = overwrite(1, &[0xaa; 512]);
    // Where new data does not take the place of the old, overwriting is no way to be rid of it.
    rig.fails(&cdb, &list, Key::IllegalRequest, BAD);
    assert_eq!(rig.good("a3 0c 02 48 0001 000000ff 00 00", &[])[1], 1);
    rig.units[0].info.thin = false;
    assert_eq!(rig.good("a3 0c 02 48 0001 000000ff 00 00", &[])[1], 3);
    for len in (0..5).chain([517]) {
        rig.fails(&format!("48 01 00000000 00 {len:04x} 00"), &vec![1; len], Key::IllegalRequest, BAD);
    }
    let wrong = asc::INVALID_FIELD_IN_PARAMETERS;
    for change in [(0, 0), (2, 0), (2, 3), (3, 5)] {
        let mut bad = list.clone();
        bad[change.0] = change.1;
        if change == (2, 0) {
            bad[3] = 0;
        }
        rig.fails(&cdb, &bad, Key::IllegalRequest, wrong);
    }
    for action in [2u8, 0x1f] {
        rig.fails(&format!("48 {action:02x} 00000000 00 0008 00"), &[0; 8], Key::IllegalRequest, BAD);
        rig.fails(&format!("48 {:02x} 00000000 00 0000 00", action | 0x40), &[], Key::IllegalRequest, BAD);
        for at in 2..7 {
            let number = u64::from(action) << 56 | 1 << (8 * (8 - at));
            rig.fails(&format!("48 {number:016x} 00"), &[], Key::IllegalRequest, BAD);
        }
    }
    for action in (0..0x1f).filter(|a| ![1, 2].contains(a)) {
        rig.fails(&format!("48 {action:02x} 00000000 00 0000 00"), &[], Key::IllegalRequest, BAD);
    }
    rig.good("48 1f 00000000 00 0000 00", &[]);
    assert!(rig.log.is_empty());
}

#[test]
fn nothing_else_touches_the_medium_meanwhile_and_a_reset_does_not_help() {
    let mut rig = Rig::new(512);
    rig.units[0].info.thin = false;
    let (cdb, list) = overwrite(1, &[0; 512]);
    assert_eq!(rig.run(&cdb, &list).status, 0xff);
    for _ in 0..2 {
        for cdb in [
            "00 00 00 00 00 00",
            "1b 01 00 00 03 00",
            "88 00 0000000000000000 00000001 00 00",
            "2a 00 00000000 00 0000 00",
            "48 02 00000000 00 0000 00",
        ] {
            rig.fails(cdb, &[], Key::NotReady, asc::SANITIZE_IN_PROGRESS);
        }
        rig.good("12 00 00 00ff 00", &[]);
        let sense = rig.good("03 00 00 00 ff 00", &[]);
        assert_eq!((sense[2], be16(&sense, 12), sense[15]), (2, asc::SANITIZE_IN_PROGRESS, 0x80));
        rig.tell(LuEvent::Reset);
    }
    rig.finish_detached();
    rig.good("00 00 00 00 00 00", &[]);
}

#[test]
fn a_failure_closes_the_medium_until_another_one_succeeds() {
    let mut rig = Rig::new(512);
    for ause in [0x00, 0x20] {
        rig.fail = Some(Status::MediaError);
        assert_eq!(rig.run(&format!("48 {:02x} 00000000 00 0000 00", 2 | ause), &[]).status, 0xff);
        let ended = rig.finish_detached();
        assert_eq!(ended.sense, Some((Key::MediumError, asc::SANITIZE_FAILED)));
        rig.fail = None;
        rig.fails("28 00 00000000 00 0001 00", &[], Key::MediumError, asc::SANITIZE_FAILED);
        if ause == 0 {
            rig.fails("48 1f 00000000 00 0000 00", &[], Key::IllegalRequest, BAD);
            whole(&mut rig, "48 02 00000000 00 0000 00", &[]);
        } else {
            rig.good("48 1f 00000000 00 0000 00", &[]);
        }
        rig.good("28 00 00000000 00 0001 00", &[]);
    }
}
