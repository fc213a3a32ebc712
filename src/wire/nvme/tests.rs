//! Golden queue entries and Identify data, round trips of every command builder, fuzz of every value reader.

use super::admin::{Abort, Feature, GetLogPage, Identify, Select};
use super::feature::Event;
use super::identify::{self, Controller, DescriptorHead, Namespace, NamespaceList, nidt};
use super::*;
use crate::wire::discovery::{LogEntry, LogHeader};
use crate::wire::fabrics::{self, Connect, ConnectData, Property, property};
use crate::wire::mutate::{Mutator, hex};
use proptest::prelude::*;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

#[test]
fn golden_commands() {
    let rw = Sqe::rw(io_op::READ, 0x1234, 1, 0x0102_0304_0506, 65536, Sgl::transport(1 << 20));
    let want = hex("02 40 3412 01000000 0000000000000000 0000000000000000 0000000000000000 00001000 000000 5a
        06050403 02010000 ffff0000 00000000 00000000 00000000");
    assert_eq!(rw.as_bytes(), want);
    assert_eq!((rw.slba(), rw.blocks(), rw.psdt(), rw.fuse()), (0x0102_0304_0506, 65536, 1, 0));
    let connect = Connect { format: 0, qid: 1, sqsize: 127, cattr: fabrics::CATTR_DISABLE_SQFC, kato: 15000 };
    let want = hex("7f 40 0500 01000000 0000000000000000 0000000000000000 0000000000000000 00040000 000000 01
        0000 0100 7f00 04 00 983a0000 00000000 00000000 00000000");
    assert_eq!(connect.sqe(5).as_bytes(), want);
    assert_eq!(Connect::of(&connect.sqe(5)), connect);
    let set = Property::set(9, property::CC, false, u64::from(property::CC_ENABLE_NVM));
    let want = hex("7f 40 0900 00000000 0000000000000000 0000000000000000 0000000000000000 00000000 000000 00
        00000000 14000000 01004600 00000000 00000000 00000000");
    assert_eq!(set.as_bytes(), want);
    let log =
        GetLogPage { lid: 0x70, lsp: 0, retain: true, len: 1 << 20, offset: 1 << 33, index_offset: false, nsid: 0 };
    let want = hex("02 40 0700 00000000 0000000000000000 0000000000000000 0000000000000000 00001000 000000 5a
        7080ffff 03000000 00000000 02000000 00000000 00000000");
    assert_eq!(log.sqe(7).as_bytes(), want);
}

#[test]
fn golden_completions() {
    let cqe = Cqe::new(0x1234, 7, sc::LBA_OUT_OF_RANGE.field(true), 0);
    assert_eq!(cqe.as_bytes(), hex("0000000000000000 0700 0000 3412 0081"));
    assert_eq!((cqe.code(), cqe.dnr()), (sc::LBA_OUT_OF_RANGE, true));
    assert_eq!(format!("{:?}", sc::COMPARE_FAILURE), "2/85h");
    assert_eq!((sc::COMPARE_FAILURE.sct(), sc::COMPARE_FAILURE.sc()), (2, 0x85));
    assert_eq!(sc::AER_LIMIT.field(false), 0x020a);
}

#[test]
fn namespace_block_size_reads_the_format_in_use() {
    let mut ns = Namespace::new_zeroed();
    assert_eq!(ns.block_size(), None, "a shift of 0 is no block size");
    ns.lbaf[0].data_shift = 9;
    ns.lbaf[17].data_shift = 12;
    assert_eq!(ns.block_size(), Some(512));
    ns.flbas = 0x21;
    assert_eq!(ns.block_size(), Some(4096));
}

#[test]
fn descriptor_lists_round_trip_and_stop_at_lies() {
    let mut list = [0u8; 64];
    let rest = identify::put_descriptor(&mut list, nidt::NGUID, &[7; 16]).unwrap();
    let rest = identify::put_descriptor(rest, nidt::CSI, &[0]).unwrap();
    assert_eq!(rest.len(), 64 - 20 - 5);
    assert!(identify::put_descriptor(rest, nidt::UUID, &[0; 40]).is_none());
    let got: Vec<_> = identify::descriptors(&list).collect();
    assert_eq!(got, [(nidt::NGUID, &[7u8; 16][..]), (nidt::CSI, &[0u8][..])]);
    list[1] = 255;
    assert_eq!(identify::descriptors(&list).count(), 0);
    assert_eq!(size_of::<DescriptorHead>(), 4);
}

#[test]
fn connect_data_and_discovery_entries_round_trip() {
    let data = ConnectData::new([1; 16], 0xffff, "nqn.2024-01.io.x:a", "nqn.2014-08.org.nvmexpress:uuid:b");
    let back = ConnectData::ref_from_bytes(data.as_bytes()).unwrap();
    assert_eq!(back.subnqn(), Some("nqn.2024-01.io.x:a"));
    assert_eq!(back.hostnqn(), Some("nqn.2014-08.org.nvmexpress:uuid:b"));
    let mut long = data;
    long.subnqn = [b'a'; 256];
    assert_eq!(long.subnqn(), None, "no terminator within the legal length");
    for addr in ["127.0.0.1:4420", "[fd00::1]:8009"] {
        let e = LogEntry::tcp(2, 1, 128, "nqn.2024-01.io.x:a", addr.parse().unwrap());
        assert_eq!(e.socket_addr(), Some(addr.parse().unwrap()));
        assert_eq!(e.subnqn(), Some("nqn.2024-01.io.x:a"));
    }
    let h = LogHeader::new(3, 2);
    assert_eq!((h.genctr.get(), h.numrec.get(), h.as_bytes().len()), (3, 2, 1024));
}

#[test]
fn nqns() {
    for good in ["nqn.2014-08.org.nvmexpress.discovery", "nqn.2016-06.io.spdk:cnode1", "nqn.2024-01.a"] {
        assert!(fabrics::nqn_valid(good), "{good}");
    }
    let long = format!("nqn.2024-01.{}", "a".repeat(212));
    for bad in ["", "nqn", "nqn.2024-01.", "nqn.2024-1.io.x", "iqn.2024-01.io.x", "nqn.2024-01.a b", &long] {
        assert!(!fabrics::nqn_valid(bad), "{bad}");
    }
}

#[test]
fn text_fields_pad_and_cut() {
    let mut f = [0u8; 6];
    put_ascii(&mut f, "ab");
    assert_eq!((&f, get_ascii(&f)), (b"ab    ", "ab"));
    put_str(&mut f, "abcdefgh");
    assert_eq!((&f, get_str(&f)), (b"abcdef", Some("abcdef")));
    put_str(&mut f, "x");
    assert_eq!(get_str(&f), Some("x"));
    assert_eq!(get_str(&[0xff, 0]), None);
}

#[test]
fn cap_fields() {
    let cap = property::cap(127, 20);
    assert_eq!((property::cap_mqes(cap), property::cap_timeout(cap)), (127, 20));
    assert_eq!(cap >> 37 & 1, 1, "NVM command set");
    let cc = property::CC_ENABLE_NVM | property::CC_SHN_NORMAL;
    assert_eq!((property::cc_shn(cc), property::cc_css(cc), property::cc_mps(cc), property::cc_ams(cc)), (1, 0, 0, 0));
    assert_eq!(property::csts_shst(property::CSTS_SHST_COMPLETE | property::CSTS_RDY), 2);
    assert_eq!(Event::of(Event::NAMESPACE_CHANGED.dword()), Event::NAMESPACE_CHANGED);
    assert_eq!(Event::DISCOVERY_CHANGED.dword(), 0x0070_f002);
    assert_eq!(feature::queue_counts(feature::queue_counts_dword(64, 65536)), (64, 65536));
}

/// Feeds one input to every reader of a value; none may panic, whatever the bytes.
fn read_everything(input: &[u8], seen: &mut u64) {
    if let Ok((sqe, _)) = Sqe::ref_from_prefix(input) {
        let log = GetLogPage::of(sqe);
        assert!(log.len >= 4 && log.len <= 1 << 34);
        assert_eq!(Identify::of(&Identify::of(sqe).sqe(1)), Identify::of(sqe));
        assert_eq!(GetLogPage::of(&log.sqe(1)), log);
        let c = Connect::of(sqe);
        assert_eq!(Connect::of(&c.sqe(1)), c);
        let p = Property::of(sqe);
        *seen += u64::from(p.wide.is_some()) + u64::from(Feature::of(sqe).select.is_some());
        assert_eq!(Abort::of(&Abort::of(sqe).sqe(1)), Abort::of(sqe));
        assert!((1..=65536).contains(&sqe.blocks()) && sqe.fuse() < 4);
    }
    if let Ok((cqe, _)) = Cqe::ref_from_prefix(input) {
        *seen += u64::from(cqe.code().is_ok()) + u64::from(cqe.dnr());
    }
    *seen += identify::descriptors(input).map(|(_, id)| id.len() as u64).sum::<u64>();
    *seen += get_str(input).map_or(0, |s| s.len() as u64) + get_ascii(input).len() as u64;
    if let Ok(s) = core::str::from_utf8(input) {
        *seen += u64::from(fabrics::nqn_valid(s));
    }
}

/// A million inputs through every reader of queue entries, lists and strings.
#[test]
fn fuzz_values() {
    let rw = Sqe::rw(io_op::WRITE, 1, 1, 1, 8, Sgl::in_capsule(4096));
    let mut list = vec![0u8; 64];
    identify::put_descriptor(&mut list, nidt::UUID, &[9; 16]);
    let corpus = vec![
        rw.as_bytes().to_vec(),
        Property::get(1, property::CAP, true).as_bytes().to_vec(),
        GetLogPage { lid: 1, lsp: 0, retain: false, len: 64, offset: 0, index_offset: false, nsid: NSID_ALL }
            .sqe(3)
            .as_bytes()
            .to_vec(),
        Cqe::new(1, 1, 0, 1).as_bytes().to_vec(),
        list,
        b"nqn.2014-08.org.nvmexpress.discovery".to_vec(),
    ];
    let mut source = Mutator::new(0x5eed, corpus);
    let mut seen = 0;
    for _ in 0..1_000_000 {
        read_everything(source.next(), &mut seen);
    }
    assert!(seen > 1_000_000, "the inputs reach the readers");
}

/// A million inputs through the readers of the large structures.
#[test]
fn fuzz_structures() {
    let connect = ConnectData::new([1; 16], 0xffff, "nqn.2024-01.io.x:a", "nqn.2024-01.io.x:h");
    let entry = LogEntry::tcp(2, 1, 128, "nqn.2024-01.io.x:a", "127.0.0.1:4420".parse().unwrap());
    let corpus = vec![connect.as_bytes().to_vec(), entry.as_bytes().to_vec()];
    let mut source = Mutator::new(0x57a7, corpus);
    let (mut names, mut addrs) = (0u32, 0u32);
    for _ in 0..1_000_000 {
        let input = source.next();
        if let Ok((c, _)) = ConnectData::ref_from_prefix(input) {
            names += u32::from(c.subnqn().is_some()) + u32::from(c.hostnqn().is_some());
        }
        if let Ok((e, _)) = LogEntry::ref_from_prefix(input) {
            addrs += u32::from(e.socket_addr().is_some()) + u32::from(e.subnqn().is_some());
        }
    }
    assert!(names > 100_000 && addrs > 100_000);
}

#[test]
fn large_views_need_their_whole_length() {
    let bytes = [0u8; 4096];
    assert!(Controller::ref_from_bytes(&bytes).is_ok() && Controller::ref_from_bytes(&bytes[1..]).is_err());
    let list = NamespaceList::ref_from_bytes(&bytes).unwrap();
    assert_eq!(list.iter().count(), 0);
    assert!(log::Smart::ref_from_prefix(&bytes[..511]).is_err());
}

proptest! {
    #[test]
    fn admin_parameters_round_trip(cns: u8, cntid: u16, specific: u16, csi: u8, nsid: u32, lid: u8, lsp in 0u8..128,
        retain: bool, dwords in 1u64..1 << 30, offset: u64, index_offset: bool, fid: u8, value: u32) {
        let i = Identify { cns, cntid, specific, csi, nsid };
        prop_assert_eq!(Identify::of(&i.sqe(1)), i);
        let g = GetLogPage { lid, lsp, retain, len: dwords * 4, offset, index_offset, nsid };
        prop_assert_eq!(GetLogPage::of(&g.sqe(1)), g);
        let f = Feature::of(&Feature::set(1, fid, nsid, value));
        prop_assert_eq!((f.fid, f.value, f.nsid, f.save), (fid, value, nsid, false));
        prop_assert_eq!(Feature::of(&Feature::get(1, fid, nsid)).select, Some(Select::Current));
        let p = Property::of(&Property::set(1, value, true, offset));
        prop_assert_eq!((p.wide, p.offset, p.value), (Some(true), value, Some(offset)));
    }
}
