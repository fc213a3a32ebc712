//! The PDU-level error matrix: every lie of a host is answered with the right termination request and ends its own
//! connection, and only that.

use super::rig::*;
use crate::base::crc::crc32c;
use crate::net::{Close, ConnId, LoopbackConfig, Net};
use crate::wire::nvme::{Sgl, Sqe, io_op, sc};
use crate::wire::nvme_tcp::pdu::{self, CapsuleCmd, Data, Head, IcReq};
use crate::wire::nvme_tcp::{Digests, Fes};
use zerocopy::IntoBytes;

/// The connection ends with this termination request, within a second and with its header quoted.
fn expect_term(rig: &mut Rig, conn: ConnId, digests: Digests, fes: Fes, fei: u32, quoted: &[u8], what: &str) {
    let before = rig.now;
    match rig.recv_within(conn, digests, 20_000) {
        Got::Term(term, data) => {
            assert_eq!((term.fes.get(), term.fei.get()), (fes as u16, fei), "{what}");
            let n = data.len().min(quoted.len());
            assert!(n >= 8.min(quoted.len()) && quoted[..n] == data[..n], "{what}: quotes {data:02x?}");
        }
        other => panic!("{what}: {other:?}"),
    }
    assert!(matches!(rig.recv_within(conn, digests, 20_000), Got::Closed), "{what}: closed");
    assert!(rig.now.since(before) < 1_000_000_000, "{what}: within a second");
}

#[test]
fn handshake_lies() {
    let mut rig = Rig::plain();
    let good = IcReq::new(0, Digests::default(), 0);
    let with = |at: usize, value: u8| {
        let mut bytes = good.as_bytes().to_vec();
        bytes[at] = value;
        bytes
    };
    let capsule = Head::of(&CapsuleCmd::new(Sqe::new(0, 0, 0, Sgl::NONE), Digests::default())).bytes().to_vec();
    let data = Data::h2c(0, 0, 0, 8, true, 4, Digests::default()).as_bytes().to_vec();
    let cases = [
        ("PFV", with(8, 1), Fes::UnsupportedParameter, 8),
        ("HPDA", with(10, 32), Fes::InvalidHeaderField, 10),
        ("HLEN", with(2, 127), Fes::InvalidHeaderField, 2),
        ("PLEN", with(4, 127), Fes::InvalidHeaderField, 4),
        ("ICResp", with(0, 1), Fes::InvalidHeaderField, 0),
        ("unknown type", with(0, 0x42), Fes::InvalidHeaderField, 0),
        ("capsule before ICReq", capsule, Fes::SequenceError, 0),
        ("data before ICReq", data, Fes::SequenceError, 0),
    ];
    for (what, bytes, fes, fei) in cases {
        let conn = rig.dial(0);
        rig.send(conn, &bytes);
        expect_term(&mut rig, conn, Digests::default(), fes, fei, &bytes, what);
    }
    let conn = rig.dial(0);
    rig.shake(conn, 0, Digests::default());
    rig.send(conn, good.as_bytes());
    expect_term(&mut rig, conn, Digests::default(), Fes::SequenceError, 0, good.as_bytes(), "second ICReq");
    assert_eq!(rig.cores[0].target.stats().faults, [0, 5, 3, 0, 0, 0, 1]);
    rig.finish();
}

#[test]
fn the_handshake_agrees_on_what_both_sides_want() {
    let mut setup = Setup::default();
    setup.config.data_digest = false;
    setup.config.cpda = 3;
    let mut rig = Rig::new(setup);
    let conn = rig.dial(0);
    let ic = rig.shake(conn, 31, Digests { header: true, data: true });
    assert_eq!((ic.dgst, ic.cpda, ic.pfv.get(), ic.maxh2cdata.get()), (1, 3, 0, 1 << 20));
    rig.finish();
}

type Lie = fn(&mut Data);
type Script = fn(u16) -> Vec<Data>;

/// What a host must keep while its data is on the way.
#[test]
fn lies_about_data() {
    let mut setup = Setup::default();
    setup.config.h2c_data_bytes = 8192;
    let mut rig = Rig::new(setup);
    let admin = rig.admin(0, NQN);
    let none = Digests::default();
    let cases: [(&str, Lie, Fes, u32); 9] = [
        ("TTAG", |d| d.ttag = (d.ttag.get() ^ 1).into(), Fes::InvalidHeaderField, 10),
        ("TTAG of an earlier use", |d| d.ttag = (d.ttag.get() ^ 0x400).into(), Fes::InvalidHeaderField, 10),
        ("CCCID", |d| d.cccid = 77.into(), Fes::InvalidHeaderField, 8),
        ("offset ahead", |d| d.datao = 4096.into(), Fes::OutOfRange, 0),
        ("offset far ahead", |d| d.datao = 0xffff_f000.into(), Fes::OutOfRange, 0),
        ("early LAST", |d| d.ch.flags |= pdu::LAST_PDU, Fes::InvalidHeaderField, 1),
        ("length against PLEN", |d| d.datal = 4095.into(), Fes::InvalidHeaderField, 16),
        ("PDO", |d| d.ch.pdo = 20, Fes::InvalidHeaderField, 3),
        (
            "too long",
            |d| {
                d.datal = 8196.into();
                d.ch.plen = (24 + 8196).into();
            },
            Fes::LimitExceeded,
            0,
        ),
    ];
    for (qid, (what, lie, fes, fei)) in (1..).zip(cases) {
        let q = rig.queue(0, NQN, admin.cntlid, qid, 4, none);
        rig.submit(&q, Sqe::rw(io_op::WRITE, 5, 1, 0, 64, Sgl::transport(32768)), &[]);
        let Got::R2t(r2t) = rig.recv(q.conn) else { panic!("{what}: no R2T") };
        assert_eq!((r2t.r2to.get(), r2t.r2tl.get(), r2t.cccid.get()), (0, 32768, 5), "the whole transfer at once");
        let mut head = Data::h2c(5, r2t.ttag.get(), 0, 4096, false, 4, none);
        lie(&mut head);
        rig.send(q.conn, head.as_bytes());
        rig.send(q.conn, &[0; 4096]);
        expect_term(&mut rig, q.conn, none, fes, fei, head.as_bytes(), what);
    }
    // Overlap, late LAST, more than asked, and data nobody asked for.
    let cases: [(&str, Script, Fes, u32); 3] = [
        ("overlap", |t| vec![piece(t, 0, 4096, false), piece(t, 0, 4096, false)], Fes::OutOfRange, 0),
        ("late LAST", |t| vec![piece(t, 0, 4096, false), piece(t, 4096, 4096, false)], Fes::InvalidHeaderField, 1),
        (
            "after the end",
            |t| vec![piece(t, 0, 4096, false), piece(t, 4096, 4096, true), piece(t, 8192, 8, true)],
            Fes::InvalidHeaderField,
            10,
        ),
    ];
    for (qid, (what, script, fes, fei)) in (20..).zip(cases) {
        let q = rig.queue(0, NQN, admin.cntlid, qid, 4, none);
        rig.cores[0].volumes.mood.slow = 100;
        rig.cores[0].volumes.mood.stuck = true;
        rig.submit(&q, Sqe::rw(io_op::WRITE, 5, 1, 0, 16, Sgl::transport(8192)), &[]);
        let Got::R2t(r2t) = rig.recv(q.conn) else { panic!("{what}: no R2T") };
        let pieces = script(r2t.ttag.get());
        for p in &pieces {
            rig.send(q.conn, p.as_bytes());
            rig.send(q.conn, &vec![0; p.datal.get() as usize]);
        }
        let last = pieces.last().unwrap();
        expect_term(&mut rig, q.conn, none, fes, fei, last.as_bytes(), what);
    }
    let q = rig.queue(0, NQN, admin.cntlid, 40, 4, none);
    let stray = piece(3, 0, 512, true);
    rig.send(q.conn, stray.as_bytes());
    rig.send(q.conn, &[0; 512]);
    expect_term(&mut rig, q.conn, none, Fes::InvalidHeaderField, 10, stray.as_bytes(), "never asked for");
    let q = rig.queue(0, NQN, admin.cntlid, 41, 4, none);
    rig.submit(&q, Sqe::rw(io_op::WRITE, 5, 1, 0, 64, Sgl::in_capsule(16 * 1024 + 16)), &vec![0; 16 * 1024 + 16]);
    expect_term(&mut rig, q.conn, none, Fes::LimitExceeded, 0, &[4, 0, 72, 72, 0x58, 0x40, 0, 0], "capsule");
    rig.cores[0].volumes.mood = Mood::default();
    assert_eq!(rig.command(&admin, Sqe::new(0x18, 900, 0, Sgl::NONE), &[]).0.code(), sc::SUCCESS, "others go on");
    rig.finish();
}

fn piece(ttag: u16, at: u32, len: u32, last: bool) -> Data {
    Data::h2c(5, ttag, at, len, last, 4, Digests::default())
}

/// Every bit of a digested command header is noticed; damaged data fails one command and nothing else.
#[test]
fn digests_catch_every_flipped_bit() {
    let both = Digests { header: true, data: true };
    let mut rig = Rig::plain();
    let admin = rig.admin(0, NQN);
    let capsule = CapsuleCmd::new(Sqe::rw(io_op::READ, 5, 1, 0, 8, Sgl::transport(4096)), both);
    let good = Head::of(&capsule).bytes().to_vec();
    for bit in (64..good.len() * 8).step_by(11) {
        let q = rig.queue(0, NQN, admin.cntlid, 1, 4, both);
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        rig.send(q.conn, &bad);
        let received = u32::from_le_bytes(bad[72..].try_into().unwrap());
        expect_term(&mut rig, q.conn, both, Fes::HeaderDigest, received, &bad, "bit of a header");
        rig.turns(3);
    }
    let mut q = rig.queue(0, NQN, admin.cntlid, 1, 4, both);
    for (len, in_capsule) in [(512usize, true), (16 * 1024, true), (40 * 1024, false)] {
        let data = vec![0xab; len];
        let cid = q.cid();
        if in_capsule {
            let sqe = Sqe::rw(io_op::WRITE, cid, 1, 0, len as u32 / 512, Sgl::in_capsule(len as u32));
            rig.send(q.conn, Head::of(&CapsuleCmd::with_data(sqe, len as u32, 4, both)).bytes());
            rig.send(q.conn, &data);
            rig.send(q.conn, &(crc32c(&data) ^ 1).to_le_bytes());
        } else {
            let sqe = Sqe::rw(io_op::WRITE, cid, 1, 0, len as u32 / 512, Sgl::transport(len as u32));
            rig.submit(&q, sqe, &[]);
            let Got::R2t(r2t) = rig.recv_within(q.conn, both, 100) else { panic!("no R2T") };
            for (i, part) in data.chunks(len / 2).enumerate() {
                let (at, last) = ((i * len / 2) as u32, i == 1);
                let head = Data::h2c(cid, r2t.ttag.get(), at, part.len() as u32, last, 4, both);
                rig.send(q.conn, Head::of(&head).bytes());
                rig.send(q.conn, part);
                // Only the first piece is damaged; the command must fail all the same.
                rig.send(q.conn, &(crc32c(part) ^ u32::from(i == 0)).to_le_bytes());
            }
        }
        let Got::Resp(cqe) = rig.recv_within(q.conn, both, 1000) else { panic!("no answer") };
        assert_eq!((cqe.cid.get(), cqe.code(), cqe.dnr()), (cid, sc::TRANSIENT_TRANSPORT, false), "{len} bytes");
        let cid = q.cid();
        let sqe = Sqe::rw(io_op::WRITE, cid, 1, 0, len as u32 / 512, Sgl::transport(len as u32));
        assert_eq!(rig.command(&q, sqe, &data).0.code(), sc::SUCCESS, "the queue goes on");
    }
    let writes = rig.disk.borrow().log.len();
    assert_eq!(writes, 3, "no damaged block was written");
    assert_eq!(rig.cores[0].target.stats().data_digest_errors, 3);
    rig.finish();
}

/// A termination request from the host, and a close in the middle of everything, leave nothing behind.
#[test]
fn teardown_with_commands_in_flight_leaves_nothing() {
    for way in 0..4 {
        let loopback = LoopbackConfig { segment: (1, 3000), ..LoopbackConfig::default() };
        let mut rig = Rig::new(Setup { loopback, ..Setup::default() });
        let (admin, q) = rig.ready();
        rig.cores[0].volumes.mood = Mood { slow: 50, later: 30, stuck: true, ..Mood::default() };
        for cid in 0..60u16 {
            let sqe = match cid % 3 {
                0 => Sqe::rw(io_op::READ, cid, 1, 0, 8, Sgl::transport(4096)),
                1 => Sqe::rw(io_op::WRITE, cid, 1, 0, 8, Sgl::in_capsule(4096)),
                _ => Sqe::rw(io_op::WRITE, cid, 1, 0, 64, Sgl::transport(32768)),
            };
            rig.submit(&q, sqe, &[1; 4096]);
        }
        let mut asked = 0;
        for _ in 0..200 {
            if let Got::R2t(r2t) = rig.recv_within(q.conn, Digests::default(), 5) {
                // Half of an answer: the rest never comes.
                let head = Data::h2c(r2t.cccid.get(), r2t.ttag.get(), 0, 16384, false, 4, Digests::default());
                rig.send(q.conn, head.as_bytes());
                rig.send(q.conn, &[2; 9000][..if asked == 3 { 9000 } else { 0 }]);
                asked += 1;
                if asked == 4 {
                    break;
                }
                rig.send(q.conn, &[2; 16384]);
            }
        }
        rig.turns(50);
        match way {
            0 => rig.host.close(q.conn, Close::Now),
            1 => rig.host.close(admin.conn, Close::Now),
            2 => rig.send(
                admin.conn,
                crate::wire::nvme_tcp::pdu::TermReq::new(
                    crate::wire::nvme_tcp::Kind::H2cTermReq,
                    crate::wire::nvme_tcp::Fault::field(0),
                    0,
                )
                .as_bytes(),
            ),
            _ => rig.send(admin.conn, &[0xff; 64]),
        }
        rig.turns(300);
        assert!(rig.closed(q.conn), "way {way}: an I/O queue does not outlive its controller");
        let stats = rig.cores[0].target.stats();
        assert_eq!(stats.io_queues_now, 0);
        rig.finish();
    }
}

/// A host that asks for padded data gets it at the alignment it asked for.
#[test]
fn padding_for_hosts_that_ask_for_it() {
    for hpda in [1u8, 7, 31] {
        for digests in [Digests::default(), Digests { header: true, data: true }] {
            let mut rig = Rig::plain();
            let admin = rig.admin(0, NQN);
            let conn = rig.dial(0);
            rig.shake(conn, hpda, digests);
            let params = crate::wire::fabrics::Connect { format: 0, qid: 1, sqsize: 127, cattr: 4, kato: 0 };
            let data = crate::wire::fabrics::ConnectData::new(HOSTID, admin.cntlid, NQN, HOST);
            assert_eq!(rig.connect(conn, digests, params, &data).code(), sc::SUCCESS);
            let sqe = Sqe::rw(io_op::READ, 4, 1, 0, 8, Sgl::transport(4096));
            rig.send(conn, Head::of(&CapsuleCmd::new(sqe, digests)).bytes());
            let Got::Data(head, bytes) = rig.recv_within(conn, digests, 100) else { panic!("no data") };
            let want = (24 + digests.header_len()).next_multiple_of((usize::from(hpda) + 1) * 4);
            assert_eq!((usize::from(head.ch.pdo), bytes.len()), (want, 4096));
            rig.finish();
        }
    }
}
