//! MODE SENSE and SELECT, write protection, sense format, START STOP UNIT, access states.

use super::rig::Rig;
use crate::iscsi::lu::{Access, Device, Group};
use crate::wire::scsi::{Key, asc, be16, be32, be64};
use std::sync::Arc;

#[test]
fn mode_sense_shows_all_pages_in_both_sizes() {
    let mut rig = Rig::new(512);
    let six = rig.good("1a 00 3f 00 ff 00", &[]);
    assert_eq!((usize::from(six[0]) + 1, six[2], six[3]), (six.len(), 0x10, 8));
    assert_eq!((be32(&six, 4), be32(&six, 8)), (5000, 512));
    let bare = rig.good("1a 08 3f 00 ff 00", &[]);
    assert_eq!((bare[3], &bare[4..]), (0, &six[12..]));
    let ten = rig.good("5a 00 3f 00 000000 00ff 00", &[]);
    assert_eq!((usize::from(be16(&ten, 0)) + 2, ten[3], ten[7], &ten[16..]), (ten.len(), 0x10, 8, &six[12..]));
    let long = rig.good("5a 10 3f 00 000000 00ff 00", &[]);
    assert_eq!((long[4], long[7], be64(&long, 8), be32(&long, 20)), (1, 16, 5000, 512));
    for len in 0..16 {
        assert_eq!(rig.good(&format!("1a 00 3f 00 {len:02x} 00"), &[]), six[..len]);
    }
    rig.fails("1a 00 ca 00 ff 00", &[], Key::IllegalRequest, asc::SAVING_NOT_SUPPORTED);
    rig.fails("1a 00 33 00 ff 00", &[], Key::IllegalRequest, asc::INVALID_FIELD_IN_CDB);
    rig.units[0].info.read_only = true;
    assert_eq!(rig.good("1a 00 3f 00 ff 00", &[])[2], 0x90);
}

/// A MODE SELECT(6) of the control page as it is, with bits of it set.
fn set_control(rig: &mut Rig, byte: usize, bit: u8) {
    let mut list = rig.good("1a 08 0a 00 ff 00", &[]);
    list[0] = 0;
    list[2] = 0;
    list[4 + byte] ^= bit;
    rig.good(&format!("15 10 00 00 {:02x} 00", list.len()), &list);
}

#[test]
fn software_write_protect_holds_for_every_write_until_it_is_cleared() {
    let mut rig = Rig::new(512);
    rig.other(1, |rig| set_control(rig, 4, 0x08));
    rig.fails("00 00 00 00 00 00", &[], Key::UnitAttention, asc::MODE_CHANGED);
    assert_eq!(rig.good("1a 08 0a 00 ff 00", &[])[4 + 4], 0x08);
    assert_eq!(rig.good("1a 08 3f 00 ff 00", &[])[2], 0x90);
    rig.good("28 00 00000000 00 0001 00", &[]);
    let unmap = [&[0, 22, 0, 16, 0, 0, 0, 0][..], &[0; 16]].concat();
    for (cdb, data) in [
        ("2a 00 00000000 00 0001 00", vec![1; 512]),
        ("aa 00 00000000 00000001 00 00", vec![1; 512]),
        ("8a 00 0000000000000000 00000001 00 00", vec![1; 512]),
        ("0a 00 0000 01 00", vec![1; 512]),
        ("41 00 00000000 00 0001 00", vec![1; 512]),
        ("41 08 00000000 00 0001 00", vec![]),
        ("93 08 0000000000000000 00000001 00 00", vec![]),
        ("2e 00 00000000 00 0001 00", vec![1; 512]),
        ("8e 02 0000000000000000 00000001 00 00", vec![1; 512]),
        ("8b 00 0000000000000000 00000001 00 00", vec![1; 512]),
        ("89 00 0000000000000000 000000 01 00 00", vec![1; 1024]),
        ("42 00 00000000 00 0018 00", unmap),
        ("48 02 00000000 00 0000 00", vec![]),
    ] {
        rig.fails(cdb, &data, Key::DataProtect, asc::SOFTWARE_WRITE_PROTECTED);
    }
    set_control(&mut rig, 4, 0x08);
    rig.good("2a 00 00000000 00 0001 00", &[1; 512]);
}

#[test]
fn a_read_only_volume_says_so() {
    let mut rig = Rig::new(512);
    rig.units[0].info.read_only = true;
    rig.fails("2a 00 00000000 00 0001 00", &[1; 512], Key::DataProtect, asc::WRITE_PROTECTED);
    rig.fails("93 09 0000000000000000 00000001 00 00", &[], Key::DataProtect, asc::WRITE_PROTECTED);
}

#[test]
fn sense_data_has_the_format_that_was_chosen() {
    let mut rig = Rig::new(512);
    let descriptor = |rig: &mut Rig| {
        let mut cdb = [0xff; 16];
        (cdb[0], cdb[1], cdb[15]) = (0x88, 0, 0);
        let crate::iscsi::lu::Begin::End(end) = rig.begin(&cdb) else { panic!("it fails at once") };
        end.sense.unwrap().descriptor
    };
    assert!(!descriptor(&mut rig));
    set_control(&mut rig, 2, 0x04);
    assert!(descriptor(&mut rig));
    rig.tell(crate::iscsi::lu::LuEvent::Reset);
    assert!(!descriptor(&mut rig), "a reset brings the defaults back");
}

#[test]
fn mode_select_refuses_what_cannot_be_changed() {
    let mut rig = Rig::new(512);
    let mut list = rig.good("1a 08 08 00 ff 00", &[]);
    (list[0], list[2]) = (0, 0);
    let cdb = format!("15 10 00 00 {:02x} 00", list.len());
    rig.good(&cdb, &list);
    list[4 + 2] ^= 0x04;
    rig.fails(&cdb, &list, Key::IllegalRequest, asc::INVALID_FIELD_IN_PARAMETERS);
    rig.fails(&cdb, &list[..9], Key::IllegalRequest, asc::PARAMETER_LIST_LENGTH);
    rig.fails("15 11 00 00 18 00", &list, Key::IllegalRequest, asc::INVALID_FIELD_IN_CDB);
    rig.fails("15 00 00 00 18 00", &list, Key::IllegalRequest, asc::INVALID_FIELD_IN_CDB);
    rig.good("15 10 00 00 00 00", &[]);
    rig.good("55 10 00 00 000000 0000 00", &[]);
}

#[test]
fn a_stopped_unit_does_not_serve_its_medium() {
    let mut rig = Rig::new(512);
    rig.good("1b 00 00 00 00 00", &[]);
    for cdb in ["00 00 00 00 00 00", "28 00 00000000 00 0001 00", "25 00 00000000 0000 00 00"] {
        rig.fails(cdb, &[], Key::NotReady, asc::INITIALIZING_REQUIRED);
    }
    rig.good("12 00 00 00ff 00", &[]);
    let sense = rig.good("03 00 00 00 ff 00", &[]);
    assert_eq!((sense[2], be16(&sense, 12)), (2, asc::INITIALIZING_REQUIRED));
    rig.good("1b 00 00 00 01 00", &[]);
    rig.good("28 00 00000000 00 0001 00", &[]);
    rig.fails("1b 00 00 00 02 00", &[], Key::IllegalRequest, asc::INVALID_FIELD_IN_CDB);
    rig.good("1e 00 00 00 01 00", &[]);
}

#[test]
fn a_port_in_standby_serves_no_medium_and_the_others_do() {
    let mut rig = Rig::new(512);
    let group = |id, access| Group { id, access, preferred: id == 2, ports: vec![id] };
    let groups = vec![group(1, Access::Standby), group(2, Access::ActiveNonOptimized)];
    let before = rig.units[0].clone();
    rig.units[0].device = Arc::new(Device::new("iqn.2024-01.io.pollux:t".into(), groups));
    let told: Vec<_> = rig.units[0].changed_since(&before).map(crate::iscsi::lu::Attention::asc).collect();
    assert_eq!(told, [asc::ALUA_CHANGED]);
    rig.fails("28 00 00000000 00 0001 00", &[], Key::NotReady, asc::ALUA_STANDBY);
    rig.fails("00 00 00 00 00 00", &[], Key::NotReady, asc::ALUA_STANDBY);
    let data = rig.good("a3 0a 00000000 000000ff 00 00", &[]);
    assert_eq!((be32(&data, 0), data.len()), (24, 28));
    assert_eq!((data[4], be16(&data, 6), data[11], be16(&data, 14)), (2, 1, 1, 1));
    assert_eq!((data[16], be16(&data, 18), be16(&data, 26)), (0x81, 2, 2));
    for len in 0..28 {
        assert_eq!(rig.good(&format!("a3 0a 00000000 {len:08x} 00 00"), &[]), data[..len]);
    }
    assert_eq!(rig.good("a3 2a 00000000 000000ff 00 00", &[])[4], 0x10);
    rig.group = 2;
    rig.good("28 00 00000000 00 0001 00", &[]);
}
