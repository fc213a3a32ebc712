//! REPORT SUPPORTED OPERATION CODES, task management functions, LOG SENSE, READ DEFECT DATA.

use super::rig::Rig;
use crate::wire::scsi::{Key, asc, be16, be32};

const BAD: u16 = asc::INVALID_FIELD_IN_CDB;

fn ask(how: u8, code: u8, action: u16, allocation: u32) -> String {
    format!("a3 0c {how:02x} {code:02x} {action:04x} {allocation:08x} 00 00")
}

#[test]
fn every_command_is_listed_and_described() {
    let mut rig = Rig::new(512);
    let all = rig.good(&ask(0, 0, 0, 65535), &[]);
    assert_eq!(be32(&all, 0) as usize, all.len() - 4);
    let timed = rig.good(&ask(0x80, 0, 0, 65535), &[]);
    assert_eq!((timed.len() - 4) / 20, (all.len() - 4) / 8);
    assert!(timed[4..].chunks(20).all(|d| d[5] & 2 != 0 && be16(d, 8) == 10));
    for d in all[4..].chunks(8) {
        let (code, action, valid) = (d[0], be16(d, 2), d[5] & 1 != 0);
        assert!(d[5] & 2 == 0 && (valid || action == 0));
        let (right, wrong) = if valid { (2, 1) } else { (1, 2) };
        rig.fails(&ask(wrong, code, action, 65535), &[], Key::IllegalRequest, BAD);
        for how in [right, 3] {
            let one = rig.good(&ask(how, code, action, 65535), &[]);
            assert_eq!((one[1], one.len()), (3, 4 + usize::from(be16(d, 6))), "{code:02x}/{action:02x}");
            assert_eq!(one[4], code);
            assert!(!valid || one[5] & 0x1f == action as u8);
            let timed = rig.good(&ask(how | 0x80, code, action, 65535), &[]);
            assert_eq!((timed[1], timed.len()), (0x83, one.len() + 12));
        }
    }
    assert_eq!(rig.good(&ask(1, 0xff, 0, 65535), &[]), [0, 1, 0, 0]);
    assert_eq!(rig.good(&ask(2, 0x5e, 9, 65535), &[])[1], 1);
    rig.fails(&ask(4, 0, 0, 65535), &[], Key::IllegalRequest, BAD);
    // DPO and FUA, as the mode pages promise them.
    for code in [0x28, 0x2a, 0xa8, 0xaa, 0x88, 0x8a, 0x89, 0x8b] {
        assert_eq!(rig.good(&ask(1, code, 0, 65535), &[])[5] & 0x18, 0x18, "{code:02x}");
    }
    for code in [0x2e, 0x2f, 0xae, 0xaf, 0x8e, 0x8f] {
        assert_eq!(rig.good(&ask(1, code, 0, 65535), &[])[5] & 0x16, 0x16, "{code:02x}");
    }
    assert_eq!(rig.good(&ask(1, 0x9c, 0, 65535), &[])[1], 1);
    rig.units[0].info.atomic_blocks = 8;
    assert_eq!(rig.good(&ask(1, 0x9c, 0, 65535), &[])[1], 3);
}

#[test]
fn what_is_not_listed_is_an_invalid_operation_code() {
    let mut rig = Rig::new(512);
    let all = rig.good(&ask(0, 0, 0, 65535), &[]);
    let listed: Vec<u8> = all[4..].chunks(8).map(|d| d[0]).collect();
    for code in 0..=255u8 {
        if !listed.contains(&code) {
            rig.fails(&format!("{code:02x} 00 00 00 00 00"), &[], Key::IllegalRequest, asc::INVALID_OPCODE);
        }
    }
    // A service action that does not exist is a field of a command that does.
    for cdb in ["5e 1f 0000000000 00ff 00", "9e 01 0000000000000000 00000020 00 00", "a3 1f 00000000 000000ff 00 00"] {
        rig.fails(cdb, &[], Key::IllegalRequest, BAD);
    }
}

#[test]
fn small_reports() {
    let mut rig = Rig::new(512);
    assert_eq!(rig.good("a3 0d 00000000 00000010 00 00", &[]), [0xda, 0, 0, 0]);
    assert_eq!(rig.good("a3 0d 80000000 00000010 00 00", &[]).len(), 16);
    rig.fails("a3 0d 00000000 00000003 00 00", &[], Key::IllegalRequest, BAD);
    assert_eq!(rig.good("4d 00 40 00 000000 00ff 00", &[]), [0, 0, 0, 3, 0, 0x0d, 0x2f]);
    assert_eq!(rig.good("4d 00 6f 00 000000 00ff 00", &[]).len(), 12);
    rig.fails("4d 00 55 00 000000 00ff 00", &[], Key::IllegalRequest, BAD);
    assert_eq!(rig.good("37 00 18 00000000 0020 00", &[]), [0, 0x18, 0, 0]);
    assert_eq!(rig.good("b7 18 00000000 00000020 00 00", &[]), [0, 0x18, 0, 0, 0, 0, 0, 0]);
    let page = rig.good("12 01 8f 0400 00", &[]);
    assert_eq!((be16(&page, 4), page[9], page[12]), (1, 0x83, 0x84));
}
