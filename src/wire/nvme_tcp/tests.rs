//! Golden PDUs written byte by byte from the specification, each cut at every byte and flipped at every bit; fuzz;
//! round trips of everything the constructors can make.

use super::pdu::{self, CapsuleCmd, CapsuleResp, Data, Head, Header, IcReq, IcResp, R2t, TermReq};
use super::*;
use crate::base::crc::crc32c;
use crate::wire::mutate::{Mutator, hex};
use crate::wire::nvme::{Cqe, Sgl, Sqe, io_op, sc};
use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

const PLAIN: Digests = Digests { header: false, data: false };
const BOTH: Digests = Digests { header: true, data: true };

/// Sides, rules and bytes of one golden PDU.
struct Golden {
    name: &'static str,
    side: Side,
    digests: Digests,
    kind: Kind,
    data: (u32, u32),
    bytes: Vec<u8>,
}

fn with_digest(mut bytes: Vec<u8>) -> Vec<u8> {
    let digest = crc32c(&bytes).to_le_bytes();
    bytes.extend(digest);
    bytes
}

const READ_SQE: &str = "02 40 34 12 01000000 00000000 00000000 0000000000000000
    0000000000000000 00100000 000000 5a 78563412 00000000 07000000 00000000 00000000 00000000";
const WRITE_SQE: &str = "01 40 35 12 01000000 00000000 00000000 0000000000000000
    0000000000000000 08000000 000000 01 01000000 00000000 00000000 00000000 00000000 00000000";

fn goldens() -> Vec<Golden> {
    let mut all = Vec::new();
    let mut add = |name, side, digests, kind, data: (u32, u32), bytes| {
        all.push(Golden { name, side, digests, kind, data, bytes });
    };
    let zero112 = "00".repeat(112);
    let ic = hex(&format!("00 00 80 00 80000000 0000 00 03 0f000000 {zero112}"));
    add("ICReq", Side::Controller, PLAIN, Kind::IcReq, (128, 0), ic);
    let ic = hex(&format!("01 00 80 00 80000000 0000 01 03 00000200 {zero112}"));
    add("ICResp", Side::Host, PLAIN, Kind::IcResp, (128, 0), ic);
    let term = "02 00 18 00 20000000 0300 78563412 00000000000000000000 04 01 48 00 48000000";
    add("H2CTermReq", Side::Controller, PLAIN, Kind::H2cTermReq, (24, 8), hex(term));
    let term = "03 00 18 00 18000000 0100 04000000 00000000000000000000";
    add("C2HTermReq", Side::Host, PLAIN, Kind::C2hTermReq, (24, 0), hex(term));
    let cmd = hex(&format!("04 00 48 00 48000000 {READ_SQE}"));
    add("CapsuleCmd read", Side::Controller, PLAIN, Kind::CapsuleCmd, (72, 0), cmd);
    let cmd = hex(&format!("04 00 48 48 50000000 {WRITE_SQE} 1122334455667788"));
    add("CapsuleCmd write", Side::Controller, PLAIN, Kind::CapsuleCmd, (72, 8), cmd);
    let cmd = with_digest(hex(&format!("04 01 48 00 4c000000 {READ_SQE}")));
    add("CapsuleCmd read HDGST", Side::Controller, BOTH, Kind::CapsuleCmd, (76, 0), cmd);
    let mut cmd = with_digest(hex(&format!("04 03 48 4c 58000000 {WRITE_SQE}")));
    cmd.extend(with_digest(hex("1122334455667788")));
    add("CapsuleCmd write digests", Side::Controller, BOTH, Kind::CapsuleCmd, (76, 8), cmd);
    let resp = "05 00 18 00 18000000 efbeadde00000000 0500 0000 3412 0000";
    add("CapsuleResp", Side::Host, PLAIN, Kind::CapsuleResp, (24, 0), hex(resp));
    let resp = with_digest(hex("05 01 18 00 1c000000 0000000000000000 0500 0000 3412 0281"));
    add("CapsuleResp HDGST", Side::Host, BOTH, Kind::CapsuleResp, (28, 0), resp);
    let data = "06 04 18 18 20000000 3512 0700 00100000 08000000 00000000 aabbccddeeff0011";
    add("H2CData", Side::Controller, PLAIN, Kind::H2cData, (24, 8), hex(data));
    let mut data = with_digest(hex("06 07 18 1c 28000000 3512 0700 00100000 08000000 00000000"));
    data.extend(with_digest(hex("aabbccddeeff0011")));
    add("H2CData digests", Side::Controller, BOTH, Kind::H2cData, (28, 8), data);
    let data = "07 0c 18 18 20000000 3412 0000 00000000 08000000 00000000 aabbccddeeff0011";
    add("C2HData SUCCESS", Side::Host, PLAIN, Kind::C2hData, (24, 8), hex(data));
    let r2t = "09 00 18 00 18000000 3512 0700 00000000 00000200 00000000";
    add("R2T", Side::Host, PLAIN, Kind::R2t, (24, 0), hex(r2t));
    let r2t = with_digest(hex("09 01 18 00 1c000000 3512 0700 00000000 00000200 00000000"));
    add("R2T HDGST", Side::Host, BOTH, Kind::R2t, (28, 0), r2t);
    all
}

fn rules(g: &Golden) -> Receiver {
    Receiver::agreed(g.side, g.digests, 0, 65536, 131_072)
}

#[test]
fn goldens_parse_and_every_prefix_asks_for_more() {
    for g in goldens() {
        let rules = rules(&g);
        let frame = rules.frame(&g.bytes).unwrap_or_else(|e| panic!("{}: {e:?}", g.name)).unwrap();
        assert_eq!(frame.kind, g.kind, "{}", g.name);
        assert_eq!((frame.data_at, frame.data_len), g.data, "{}", g.name);
        assert_eq!(frame.end as usize, g.bytes.len(), "{}", g.name);
        let needed = g.kind.header_len() + if g.kind.digested() { g.digests.header_len() } else { 0 };
        for cut in 0..g.bytes.len() {
            let got = rules.frame(&g.bytes[..cut]).unwrap_or_else(|e| panic!("{} cut at {cut}: {e:?}", g.name));
            assert_eq!(got, (cut >= needed).then_some(frame), "{} cut at {cut}", g.name);
        }
        let mut longer = g.bytes.clone();
        longer.extend([0x5a; 300]);
        assert_eq!(rules.frame(&longer), Ok(Some(frame)), "{} with bytes behind it", g.name);
    }
}

#[test]
fn every_flipped_bit_of_a_digested_header_is_refused() {
    for g in goldens() {
        let rules = rules(&g);
        let digested = g.kind.digested() && g.digests.header;
        let covered = g.kind.header_len() + if digested { DIGEST_LEN } else { 0 };
        for bit in 0..g.bytes.len() * 8 {
            let mut bad = g.bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let got = rules.frame(&bad);
            if digested && bit / 8 < covered {
                // A flip that makes the PDU longer may leave it waiting; one that makes it a termination request, which
                // carries no digest, ends the connection all the same. Nothing else is let in.
                let ends = |f: &Frame| matches!(f.kind, Kind::H2cTermReq | Kind::C2hTermReq);
                assert!(got.is_err() || got.is_ok_and(|f| f.as_ref().is_none_or(ends)), "{} bit {bit}", g.name);
            } else if let Ok(Some(f)) = got {
                assert!(f.data_at <= f.end && f.data_at + f.data_len + f.digest_len() as u32 == f.end.max(f.data_at));
            }
        }
    }
}

#[test]
fn flips_of_the_data_fail_its_digest() {
    for g in goldens().iter().filter(|g| g.digests.data && g.data.1 != 0) {
        let (at, len) = (g.data.0 as usize, g.data.1 as usize);
        let split = |b: &[u8]| digest_ok(&b[at..at + len], &b[at + len..at + len + 4]);
        assert!(split(&g.bytes), "{}", g.name);
        for bit in at * 8..(at + len + 4) * 8 {
            let mut bad = g.bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(!split(&bad), "{} bit {bit}", g.name);
        }
    }
}

#[test]
fn constructors_make_the_goldens() {
    let golden = |name| goldens().into_iter().find(|g| g.name == name).unwrap().bytes;
    let both = Digests { header: true, data: true };
    assert_eq!(IcReq::new(0, both, 15).as_bytes(), golden("ICReq"));
    assert_eq!(IcResp::new(1, both, 131_072).as_bytes(), golden("ICResp"));
    let fault = Fault { fes: Fes::HeaderDigest, fei: 0x1234_5678 };
    assert_eq!(TermReq::new(Kind::H2cTermReq, fault, 8).as_bytes(), &golden("H2CTermReq")[..24]);
    assert_eq!(TermReq::new(Kind::C2hTermReq, Fault::field(4), 0).as_bytes(), golden("C2HTermReq"));
    let read = Sqe::rw(io_op::READ, 0x1234, 1, 0x1234_5678, 8, Sgl::transport(4096));
    assert_eq!(CapsuleCmd::new(read, PLAIN).as_bytes(), golden("CapsuleCmd read"));
    assert_eq!(Head::of(&CapsuleCmd::new(read, BOTH)).bytes(), golden("CapsuleCmd read HDGST"));
    let write = Sqe::rw(io_op::WRITE, 0x1235, 1, 1, 1, Sgl::in_capsule(8));
    assert_eq!(CapsuleCmd::with_data(write, 8, 4, PLAIN).as_bytes(), &golden("CapsuleCmd write")[..72]);
    let digests = golden("CapsuleCmd write digests");
    assert_eq!(Head::of(&CapsuleCmd::with_data(write, 8, 4, BOTH)).bytes(), &digests[..76]);
    let resp = CapsuleResp::new(Cqe::new(0x1234, 5, 0, 0xdead_beef), PLAIN);
    assert_eq!(resp.as_bytes(), golden("CapsuleResp"));
    let resp = CapsuleResp::new(Cqe::new(0x1234, 5, 0x8102, 0), BOTH);
    assert_eq!(resp.cqe.code(), crate::wire::nvme::StatusCode::new(0, 0x81));
    assert_eq!(Head::of(&resp).bytes(), golden("CapsuleResp HDGST"));
    let h2c = Data::h2c(0x1235, 7, 4096, 8, true, 4, PLAIN);
    assert_eq!(h2c.as_bytes(), &golden("H2CData")[..24]);
    let h2c = Data::h2c(0x1235, 7, 4096, 8, true, 4, BOTH);
    assert_eq!(Head::of(&h2c).bytes(), &golden("H2CData digests")[..28]);
    let c2h = Data::c2h(0x1234, 0, 8, pdu::LAST_PDU | pdu::SUCCESS, 4, PLAIN);
    assert_eq!(c2h.as_bytes(), &golden("C2HData SUCCESS")[..24]);
    assert_eq!(R2t::new(0x1235, 7, 0, 131_072, PLAIN).as_bytes(), golden("R2T"));
    assert_eq!(Head::of(&R2t::new(0x1235, 7, 0, 131_072, BOTH)).bytes(), golden("R2T HDGST"));
}

/// Every type byte with every hopeless length gets an answer that names the field at fault.
#[test]
fn all_types_and_length_lies_name_the_field() {
    for side in [Side::Controller, Side::Host] {
        let rules = Receiver::agreed(side, PLAIN, 0, 65536, 131_072);
        for kind in 0..=255u8 {
            let known = Kind::of(kind).filter(|k| k.from_host() == (side == Side::Controller));
            for plen in [0u32, 7, 8, 23, 0x10_0000, 0x10_0001, u32::MAX] {
                let hlen = known.map_or(24, Kind::header_len) as u8;
                let mut bytes = vec![kind, 0, hlen, hlen];
                bytes.extend(plen.to_le_bytes());
                bytes.resize(256, 0);
                let fault = rules.frame(&bytes).expect_err("no type allows this length");
                let want = match known {
                    None => Fault::field(0),
                    Some(Kind::CapsuleCmd | Kind::H2cData | Kind::C2hData) if plen >= 0x10_0000 => {
                        Fault::plain(Fes::LimitExceeded)
                    }
                    Some(_) => Fault::field(4),
                };
                assert_eq!(fault, want, "type {kind} length {plen}");
                assert_eq!(rules.frame(&bytes[..8]), Err(fault), "known from the common header alone");
            }
        }
    }
}

#[test]
fn lies_in_each_common_field() {
    let host = Receiver::agreed(Side::Controller, PLAIN, 1, 8192, 4096);
    let golden = hex(&format!("04 00 48 48 50000000 {WRITE_SQE} 1122334455667788"));
    assert!(host.frame(&golden).unwrap().is_some());
    let try_byte = |at: usize, value: u8, want: Fault| {
        let mut bad = golden.clone();
        bad[at] = value;
        assert_eq!(host.frame(&bad), Err(want), "byte {at} = {value}");
    };
    try_byte(0, 0x05, Fault::field(0));
    try_byte(1, pdu::HDGSTF, Fault::field(1));
    try_byte(1, pdu::DDGSTF, Fault::field(1));
    try_byte(2, 24, Fault::field(2));
    try_byte(3, 71, Fault::field(3));
    try_byte(3, 76, Fault::field(3));
    try_byte(3, 80, Fault::field(4));
    try_byte(3, 88, Fault::field(4));
    try_byte(4, 71, Fault::field(4));
    try_byte(5, 0x21, Fault::plain(Fes::LimitExceeded));
    let mut bad = hex("06 04 18 18 20000000 3512 0700 00100000 08000000 00000000 aabbccddeeff0011");
    bad[16] = 9;
    assert_eq!(host.frame(&bad), Err(Fault::field(16)));
    bad[16] = 8;
    bad[12..16].copy_from_slice(&0xffff_fff9u32.to_le_bytes());
    assert_eq!(host.frame(&bad), Err(Fault::plain(Fes::OutOfRange)));
    let target = Receiver::agreed(Side::Host, PLAIN, 0, 0, 4096);
    let bad = hex("07 08 18 18 20000000 3412 0000 00000000 08000000 00000000 aabbccddeeff0011");
    assert_eq!(target.frame(&bad), Err(Fault::field(1)), "SUCCESS without LAST_PDU");
}

/// 1.2 million inputs through the framing of both sides, with and without digests, and through every header view.
#[test]
fn fuzz_frames() {
    let corpus: Vec<Vec<u8>> = goldens().into_iter().map(|g| g.bytes).collect();
    let all: Vec<Receiver> = [Side::Controller, Side::Host]
        .into_iter()
        .flat_map(|s| [PLAIN, BOTH].map(|d| Receiver::agreed(s, d, 0, 65536, 131_072)))
        .collect();
    let mut source = Mutator::new(0x90d5, corpus);
    let mut accepted = [0u32; 10];
    for round in 0..1_200_000u32 {
        let input = source.next();
        let Ok(Some(frame)) = all[round as usize % all.len()].frame(input) else { continue };
        accepted[frame.kind as usize] += 1;
        assert!(input.len() >= frame.kind.header_len());
        assert!(frame.data_at <= frame.end);
        assert!(frame.data_len <= 131_072 && frame.end < 132_000, "a claimed length passed its limit");
        assert_eq!(frame.tail_len(), frame.data_len as usize + frame.digest_len());
        assert!(Header::ref_from_prefix(input).is_ok());
    }
    for kind in Kind::ALL {
        assert!(accepted[kind as usize] > 1000, "the fuzz input is too wild: {kind:?} is never accepted");
    }
}

proptest! {
    /// Whatever the constructors make, the other side reads back.
    #[test]
    fn constructed_pdus_round_trip(
        cid: u16, ttag: u16, offset in 0u32..1 << 20, len in 1u32..=65536, last: bool,
        header: bool, data: bool, pda in 0u8..32, result: u64, status in 0u16..0x800,
    ) {
        let digests = Digests { header, data };
        let align = (u32::from(pda) + 1) * 4;
        let host = Receiver::agreed(Side::Host, digests, pda, 0, 65536);
        let controller = Receiver::agreed(Side::Controller, digests, pda, 65536, 65536);
        let flags = if last { pdu::LAST_PDU | pdu::SUCCESS } else { 0 };

        let sent = Data::c2h(cid, offset, len, flags, align, digests);
        let head = Head::of(&sent);
        let frame = host.frame(head.bytes()).unwrap().unwrap();
        prop_assert_eq!(frame.data_at as usize, head.bytes().len());
        prop_assert_eq!((frame.data_len, frame.kind), (len, Kind::C2hData));
        prop_assert_eq!(Data::ref_from_prefix(head.bytes()).unwrap().0, &sent);
        prop_assert_eq!(frame.data_at % align, 0);

        let sent = Data::h2c(cid, ttag, offset, len, last, align, digests);
        let head = Head::of(&sent);
        let frame = controller.frame(head.bytes()).unwrap().unwrap();
        prop_assert_eq!((frame.data_len, frame.tail_len()), (len, len as usize + digests.data_len()));
        prop_assert_eq!(Data::ref_from_prefix(head.bytes()).unwrap().0, &sent);

        let sqe = Sqe::rw(io_op::WRITE, cid, 1, u64::from(offset), len, Sgl::in_capsule(len));
        let sent = CapsuleCmd::with_data(sqe, len, align, digests);
        let head = Head::of(&sent);
        let frame = controller.frame(head.bytes()).unwrap().unwrap();
        prop_assert_eq!(frame.data_len, len);
        prop_assert_eq!(CapsuleCmd::ref_from_prefix(head.bytes()).unwrap().0, &sent);
        prop_assert_eq!((sqe.slba(), sqe.blocks()), (u64::from(offset), len));
        prop_assert!(controller.frame(Head::of(&CapsuleCmd::new(sqe, digests)).bytes()).unwrap().is_some());

        let sent = CapsuleResp::new(Cqe::new(cid, ttag, status << 1, result), digests);
        let head = Head::of(&sent);
        prop_assert!(host.frame(head.bytes()).unwrap().is_some());
        prop_assert_eq!(CapsuleResp::ref_from_prefix(head.bytes()).unwrap().0, &sent);

        let sent = R2t::new(cid, ttag, offset, len, digests);
        let head = Head::of(&sent);
        prop_assert!(host.frame(head.bytes()).unwrap().is_some());
        prop_assert_eq!(R2t::ref_from_prefix(head.bytes()).unwrap().0, &sent);
    }
}

#[test]
fn success_is_success() {
    assert!(
        sc::SUCCESS.is_ok() && Fes::of(3) == Some(Fes::HeaderDigest) && Fes::of(7).is_none() && Fes::of(0).is_none()
    );
}
