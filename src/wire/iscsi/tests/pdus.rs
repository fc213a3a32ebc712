//! Framing and headers: every golden read, made, cut at every byte, flipped at every bit; lies in every length; fuzz.

use super::golden::{AHS_MAX, BOTH, DATA_MAX, NONE, golden, goldens};
use crate::base::crc::Crc32c;
use crate::wire::iscsi::ahs::{Ahs, Malformed, Segments};
use crate::wire::iscsi::pdu::{self, *};
use crate::wire::iscsi::*;
use crate::wire::mutate::Mutator;
use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, IntoBytes};

#[test]
fn goldens_parse_and_every_prefix_asks_for_more() {
    for g in goldens() {
        let receiver = g.receiver();
        let frame = receiver.frame(&g.bytes).unwrap_or_else(|e| panic!("{}: {e:?}", g.name)).unwrap();
        assert_eq!((frame.opcode, frame.ahs_len), (Some(g.opcode), g.ahs), "{}", g.name);
        assert_eq!((frame.data_at, frame.data_len), g.data, "{}", g.name);
        assert_eq!(frame.end as usize, g.bytes.len(), "{}", g.name);
        assert_eq!(frame.immediate, g.bytes[0] & 0x40 != 0, "{}", g.name);
        assert_eq!(frame.data_digest, g.digests.data && g.data.1 != 0, "{}", g.name);
        for cut in 0..g.bytes.len() {
            let got = receiver.frame(&g.bytes[..cut]).unwrap_or_else(|e| panic!("{} cut at {cut}: {e:?}", g.name));
            assert_eq!(got, (cut >= frame.head_len()).then_some(frame), "{} cut at {cut}", g.name);
        }
        let mut longer = g.bytes.clone();
        longer.extend([0x5a; 300]);
        assert_eq!(receiver.frame(&longer), Ok(Some(frame)), "{} with bytes behind it", g.name);
    }
    for opcode in Opcode::ALL {
        assert!(goldens().iter().any(|g| g.opcode == *opcode), "{opcode:?} has no golden");
    }
}

#[test]
fn every_flipped_bit_of_a_digested_pdu_is_noticed() {
    for g in goldens() {
        let (receiver, head) = (g.receiver(), g.data.0 as usize);
        for bit in 0..g.bytes.len() * 8 {
            let mut bad = g.bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let got = receiver.frame(&bad);
            if g.digests.header && bit / 8 < head {
                // A longer claim of additional headers leaves it waiting for bytes that the digest then belies.
                assert!(matches!(got, Err(_) | Ok(None)), "{} bit {bit}: {got:?}", g.name);
            } else if let Ok(Some(frame)) = got {
                assert!(frame.data_at <= frame.end && frame.data_len <= DATA_MAX && frame.ahs_len <= AHS_MAX);
                assert_eq!(frame.padded_len() + frame.digest_len(), frame.tail_len());
                if g.digests.data && bit / 8 >= head {
                    let padded = head + frame.padded_len();
                    assert!(!data_digest_ok(&bad[head..padded], &bad[padded..]), "{} bit {bit}", g.name);
                }
            }
        }
    }
}

#[test]
fn lengths_beyond_the_limits_are_refused_from_eight_bytes() {
    let plain = Receiver::agreed(NONE, 1000, 8);
    let of = |ahs: u8, data: u32| {
        let mut bytes = golden("READ(10)");
        bytes[4..8].copy_from_slice(&data.to_be_bytes());
        bytes[4] = ahs;
        bytes
    };
    assert_eq!(plain.frame(&of(3, 0)[..8]), Err(Fault::AhsTooLong(12)));
    assert_eq!(plain.frame(&of(0, 1001)[..8]), Err(Fault::DataTooLong(1001)));
    assert_eq!(plain.frame(&of(0, DATA_LIMIT)), Err(Fault::DataTooLong(DATA_LIMIT)));
    assert_eq!(plain.frame(&of(2, 1000)), Ok(None), "the additional headers are still to come");
    let frame = plain.frame(&of(0, 1000)).unwrap().unwrap();
    assert_eq!((frame.data_at, frame.end), (48, 1048));
    assert_eq!(Receiver::login().frame(&of(1, 0)), Err(Fault::AhsTooLong(4)));
    assert_eq!(Receiver::login().frame(&of(0, 8193)), Err(Fault::DataTooLong(8193)));
    // With a header digest a length is believed only when the digest holds.
    let digests = Receiver::agreed(BOTH, 1000, 8);
    assert_eq!(digests.frame(&of(0, 1001)), Ok(None));
    let mut bad = of(0, 1001);
    bad.extend([0; 4]);
    assert_eq!(digests.frame(&bad), Err(Fault::HeaderDigest));
    let covered = super::golden::digested(of(0, 1001));
    assert_eq!(digests.frame(&covered), Err(Fault::DataTooLong(1001)));
    assert_eq!((Fault::HeaderDigest.field(), Fault::AhsTooLong(4).field()), (None, Some(4)));
}

#[test]
fn all_64_opcodes_are_framed_and_the_unknown_are_named_so() {
    let mut known = 0;
    for first in 0..=255u8 {
        let mut bytes = [0; 48];
        bytes[0] = first;
        let frame = Receiver::login().frame(&bytes).unwrap().unwrap();
        assert_eq!(frame.opcode, Opcode::ALL.iter().copied().find(|o| *o as u8 == first & 0x3f));
        assert_eq!(frame.immediate, first & 0x40 != 0);
        known += u32::from(frame.opcode.is_some());
    }
    assert_eq!(known, 18 * 4);
    assert!(Opcode::Snack.from_initiator() && !Opcode::NopIn.from_initiator());
}

#[test]
fn constructors_make_the_goldens() {
    let numbers = |stat, exp, max| Numbers::new(stat, exp, max);
    let head = |name: &str| golden(name)[..48].to_vec();
    let (cmd_sn, exp) = (|n| U32::new(n), |n| U32::new(n));
    let mut nop = NopOut::new(Lun::of(0), 1, NO_TAG, 4);
    (nop.cmd_sn, nop.exp_stat_sn) = (cmd_sn(0x10), exp(0x20));
    assert_eq!(nop.as_bytes(), head("NOP-Out"));
    assert_eq!(NopIn::new(Lun::of(3), NO_TAG, 0x99, numbers(0x20, 0x10, 0x2f), 0).as_bytes(), head("NOP-In"));
    let cdb = |name: &str| -> [u8; 16] { golden(name)[32..48].try_into().unwrap() };
    let mut read = ScsiCommand::new(FINAL | READ | SIMPLE, Lun::of(5), 0x1234, 4096, 0, cdb("READ(10)"));
    (read.cmd_sn, read.exp_stat_sn) = (cmd_sn(0x11), exp(0x22));
    assert_eq!(read.as_bytes(), head("READ(10)"));
    assert_eq!(Head::of(&read, BOTH).bytes(), golden("READ(10) digests"));
    let mut write = ScsiCommand::new(FINAL | WRITE | SIMPLE, Lun::of(0x123), 0x1235, 5, 5, cdb("WRITE(10)"));
    (write.cmd_sn, write.exp_stat_sn) = (cmd_sn(0x12), exp(0x22));
    let data = [0x11, 0x22, 0x33, 0x44, 0x55];
    for (name, digests) in [("WRITE(10)", NONE), ("WRITE(10) digests", BOTH)] {
        let whole = [Head::of(&write, digests).bytes(), &data, Tail::of(&data, digests).bytes()].concat();
        assert_eq!(whole, golden(name), "{name}");
    }
    let underflow = Residual::Underflow(512);
    let response = ScsiResponse::new(0x1234, 2, underflow, numbers(0x23, 0x13, 0x32), 2, 6);
    assert_eq!(response.as_bytes(), head("SCSI Response"));
    let mut task = TaskRequest::new(TaskFunction::AbortTask, Lun::of(5), 0x44, 0x1234, 0x11);
    (task.cmd_sn, task.exp_stat_sn) = (cmd_sn(0x13), exp(0x23));
    assert_eq!(task.as_bytes(), head("Task request"));
    let answer = TaskResponse::new(0x44, TaskAnswer::NoTask, numbers(0x24, 0x13, 0x32));
    assert_eq!(answer.as_bytes(), head("Task response"));
    let isid = [0x80, 0x12, 0x34, 0x56, 0x78, 0x9a];
    let mut login = LoginRequest::new(isid, 1, Stage::Operational, Some(Stage::FullFeature), 6);
    (login.cid, login.cmd_sn, login.exp_stat_sn) = (U16::new(7), cmd_sn(1), exp(2));
    assert_eq!(login.as_bytes(), head("Login request"));
    let sns = numbers(5, 1, 0x20);
    let full = Some(Stage::FullFeature);
    let mut done = LoginResponse::new(&login, Stage::Operational, full, false, sns, 0);
    done.tsih = U16::new(0x1234);
    assert_eq!(done.as_bytes(), head("Login response"));
    let refused = LoginResponse::failed(&login, LoginStatus::AuthenticationFailed, sns, 0);
    assert_eq!(refused.as_bytes(), head("Login refused"));
    let mut text = TextRequest::new(9, NO_TAG, 16);
    (text.cmd_sn, text.exp_stat_sn) = (cmd_sn(0x14), exp(0x24));
    assert_eq!(text.as_bytes(), head("Text request"));
    let answer = TextResponse::new(9, 0x55, CONTINUE, numbers(0x25, 0x14, 0x33), 2);
    assert_eq!(answer.as_bytes(), head("Text response"));
    let mut out = DataOut::new(Lun::of(5), 0x1235, 0x77, 3, 0x2000, 6, true);
    out.exp_stat_sn = exp(0x23);
    let data = [1, 2, 3, 4, 5, 6, 7];
    for (name, digests) in [("Data-Out", NONE), ("Data-Out digests", BOTH)] {
        let whole = [Head::of(&out, digests).bytes(), &data[..6], Tail::of(&data[..6], digests).bytes()].concat();
        assert_eq!(whole, golden(name), "{name}");
    }
    let last =
        DataIn::new(0x1234, 1, 0x1000, 7, true, numbers(0x23, 0x13, 0x32)).with_status(0, Residual::Underflow(9));
    for (name, digests) in [("Data-In", NONE), ("Data-In digests", BOTH)] {
        let whole = [Head::of(&last, digests).bytes(), &data, Tail::of(&data, digests).bytes()].concat();
        assert_eq!(whole, golden(name), "{name}");
    }
    let mut logout = LogoutRequest::new(LogoutReason::CloseConnection, 0xa, 7);
    (logout.cmd_sn, logout.exp_stat_sn) = (cmd_sn(0x15), exp(0x25));
    assert_eq!(logout.as_bytes(), head("Logout request"));
    let answer = LogoutResponse::new(0xa, LogoutAnswer::Closed, 2, 20, numbers(0x26, 0x15, 0x34));
    assert_eq!(answer.as_bytes(), head("Logout response"));
    let mut snack = Snack::new(SnackType::Status, NO_TAG, NO_TAG, 0x20, 6);
    snack.exp_stat_sn = exp(0x26);
    assert_eq!(snack.as_bytes(), head("SNACK"));
    let r2t = R2t::new(Lun::of(5), 0x1235, 0x77, 1, 0x2000, 65536, numbers(0x23, 0x13, 0x32));
    assert_eq!(r2t.as_bytes(), head("R2T"));
    let told = AsyncMessage::new(AsyncEvent::LogoutRequested, Lun::of(0), [0, 0, 10], numbers(0x27, 0x15, 0x34), 0);
    assert_eq!(told.as_bytes(), head("Async"));
    assert_eq!(Reject::new(RejectReason::Protocol, numbers(0x28, 0x15, 0x34), 48).as_bytes(), head("Reject"));
}

#[test]
fn headers_read_back_what_they_say() {
    let bytes = golden("Login request");
    let (login, _) = LoginRequest::ref_from_prefix(&bytes).unwrap();
    assert_eq!((login.current(), login.next()), (Some(Stage::Operational), Some(Stage::FullFeature)));
    assert!(login.transit() && !login.more() && login.lengths.data_len() == 6);
    let bytes = golden("Login refused");
    let (refused, _) = LoginResponse::ref_from_prefix(&bytes).unwrap();
    assert_eq!(refused.status(), Some(LoginStatus::AuthenticationFailed));
    assert_eq!((LoginStatus::AuthenticationFailed.class(), LoginStatus::AuthenticationFailed.detail()), (2, 1));
    assert_eq!((refused.current(), refused.transit(), refused.more()), (Some(Stage::Operational), false, false));
    let bytes = golden("Data-In");
    let (data, _) = DataIn::ref_from_prefix(&bytes).unwrap();
    assert_eq!(Residual::read(data.flags, data.residual.get()), Residual::Underflow(9));
    let bytes = golden("32-byte CDB");
    let (any, _) = Bhs::ref_from_prefix(&bytes).unwrap();
    assert_eq!((any.lengths.ahs_len(), any.lengths.data_len(), any.itt.get()), (28, 0, 0x1236));
    for (name, want) in [("Task request", Some(TaskFunction::AbortTask)), ("Logout request", None)] {
        let bytes = golden(name);
        let (task, _) = TaskRequest::ref_from_prefix(&bytes).unwrap();
        assert_eq!(task.function().filter(|_| want.is_some()), want);
    }
    let bytes = golden("Logout request");
    let (logout, _) = LogoutRequest::ref_from_prefix(&bytes).unwrap();
    assert_eq!(logout.reason(), Some(LogoutReason::CloseConnection));
    let bytes = golden("SNACK");
    assert_eq!(Snack::ref_from_prefix(&bytes).unwrap().0.kind(), Some(SnackType::Status));
}

#[test]
fn additional_headers() {
    let bytes = golden("32-byte CDB");
    let mut walk = Segments::new(&bytes[48..76]);
    let rest: Vec<u8> = (0..16).collect();
    assert_eq!(walk.next(), Some(Ok(Ahs::ExtendedCdb(&rest))));
    assert_eq!(walk.next(), Some(Ok(Ahs::BidirectionalRead(65536))));
    assert_eq!(walk.next(), None);
    for (bad, what) in [
        (&[0, 0, 1, 0][..], "a length that does not even cover its own reserved byte"),
        (&[0, 6, 1, 0, 1, 2, 3, 4], "a body that goes beyond the segments"),
        (&[0, 4, 2, 0, 1, 2, 3, 0], "a bidirectional length that is no word"),
        (&[0, 1, 1], "not even a header"),
    ] {
        let mut walk = Segments::new(bad);
        assert_eq!(walk.next(), Some(Err(Malformed)), "{what}");
        assert_eq!(walk.next(), None, "the walk ends at the first error");
    }
    assert_eq!(Segments::new(&[0, 3, 9, 0, 1, 2, 0, 0]).collect::<Vec<_>>(), [Ok(Ahs::Unknown(9))]);
}

#[test]
fn luns_of_both_methods_and_nothing_else() {
    for number in 0..=Lun::MAX {
        assert_eq!(Lun::of(number).number(), Some(number));
    }
    assert_eq!(Lun::of(5).0, [0, 5, 0, 0, 0, 0, 0, 0]);
    assert_eq!(Lun([0x40, 5, 0, 0, 0, 0, 0, 0]).number(), Some(5), "flat space below 256");
    for first in [0x01, 0x3f, 0x80, 0xc1] {
        assert_eq!(Lun([first, 1, 0, 0, 0, 0, 0, 0]).number(), None);
    }
    for at in 2..8 {
        let mut lun = Lun::of(1);
        lun.0[at] = 1;
        assert_eq!(lun.number(), None, "a second level");
    }
}

#[test]
fn residuals_and_sequence_numbers() {
    assert_eq!(Residual::between(512, 512), Residual::None);
    assert_eq!(Residual::between(512, 0), Residual::Underflow(512));
    assert_eq!(Residual::between(512, 1024), Residual::Overflow(512));
    assert_eq!(Residual::between(0, u64::MAX), Residual::Overflow(u32::MAX));
    for r in [Residual::None, Residual::Underflow(7), Residual::Overflow(8)] {
        assert_eq!(Residual::read(r.flags(), r.count()), r);
    }
    assert!(sn_before(1, 2) && !sn_before(2, 2) && !sn_before(3, 2));
    assert!(sn_before(u32::MAX, 0) && sn_before(0xffff_fff0, 0x10) && !sn_before(0x10, 0xffff_fff0));
    for len in 0..100 {
        assert_eq!((len + padding(len)) % 4, 0);
        assert!(padding(len) < 4);
    }
}

#[test]
fn tails_of_pieces_are_the_tails_of_the_whole() {
    let data: Vec<u8> = (0..=255).collect();
    for len in 1..=data.len() {
        let whole = Tail::of(&data[..len], BOTH);
        let mut crc = Crc32c::new();
        data[..len].chunks(7).for_each(|piece| crc.update(piece));
        assert_eq!(whole.bytes(), Tail::digested(crc, len as u32).bytes());
        let mut padded = data[..len].to_vec();
        padded.extend(&whole.bytes()[..padding(len as u32) as usize]);
        assert!(data_digest_ok(&padded, &whole.bytes()[padding(len as u32) as usize..]));
    }
    assert!(Tail::of(&[], BOTH).bytes().is_empty(), "no data, no digest");
}

#[test]
fn code_points_round_trip() {
    assert!(Opcode::ALL.iter().all(|c| Opcode::of(*c as u8) == Some(*c)));
    assert!(RejectReason::ALL.iter().all(|c| RejectReason::of(*c as u8) == Some(*c)));
    assert!(AsyncEvent::ALL.iter().all(|c| AsyncEvent::of(*c as u8) == Some(*c)));
    assert!(TaskAnswer::ALL.iter().all(|c| TaskAnswer::of(*c as u8) == Some(*c)));
    assert!(LoginStatus::ALL.iter().all(|c| LoginStatus::of(*c as u16) == Some(*c)));
    assert_eq!((Stage::of(2), TaskFunction::of(0), LogoutReason::of(3)), (None, None, None));
}

/// 1.2 million inputs through the framing under four sets of rules, and through the walk of additional headers.
#[test]
fn fuzz_frames() {
    let corpus: Vec<Vec<u8>> = goldens().into_iter().map(|g| g.bytes).collect();
    let rules = [
        Receiver::login(),
        Receiver::agreed(NONE, DATA_MAX, AHS_MAX),
        Receiver::agreed(BOTH, DATA_MAX, AHS_MAX),
        Receiver::agreed(Digests { header: false, data: true }, DATA_LIMIT, AHS_LIMIT as u32),
    ];
    let mut source = Mutator::new(0x15c51, corpus);
    let (mut accepted, mut segments, mut refused) = ([0u32; 64], 0u32, 0u32);
    for round in 0..1_200_000usize {
        let input = source.next();
        let receiver = rules[round % rules.len()];
        let frame = match receiver.frame(input) {
            Ok(Some(frame)) => frame,
            Ok(None) => {
                assert!(input.len() < HEAD_LIMIT);
                continue;
            }
            Err(_) => {
                refused += 1;
                continue;
            }
        };
        assert!(input.len() >= frame.head_len() && frame.data_len <= receiver.data_max());
        assert_eq!(frame.tail_len(), frame.padded_len() + frame.digest_len());
        assert_eq!(frame.padded_len(), (frame.data_len + padding(frame.data_len)) as usize);
        let Some(opcode) = frame.opcode else { continue };
        accepted[opcode as usize] += 1;
        let walked = Segments::new(&input[BHS_LEN..BHS_LEN + frame.ahs_len as usize]).count();
        assert!(walked <= frame.ahs_len as usize / 4);
        segments += walked as u32;
        assert!(pdu::Bhs::ref_from_prefix(input).is_ok());
    }
    for opcode in Opcode::ALL {
        assert!(accepted[*opcode as usize] > 1000, "the fuzz input is too wild: {opcode:?} is never accepted");
    }
    assert!(segments > 1000 && refused > 1000, "{segments} {refused}");
}
