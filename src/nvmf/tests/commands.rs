//! I/O commands from end to end.

use super::rig::*;
use crate::base::Status;
use crate::net::LoopbackConfig;
use crate::volume::Kind;
use crate::wire::nvme::{DsmRange, Sgl, Sqe, StatusCode, io_op, sc};
use crate::wire::nvme_tcp::Digests;
use zerocopy::IntoBytes;

fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed) ^ (i >> 8) as u8).collect()
}

/// Writes in the capsule where it fits, else by R2T.
fn write(rig: &mut Rig, q: &mut Queue, lba: u64, data: &[u8], block: u32) -> StatusCode {
    let len = data.len() as u32;
    let sgl = if len <= q.in_capsule { Sgl::in_capsule(len) } else { Sgl::transport(len) };
    let sqe = Sqe::rw(io_op::WRITE, q.cid(), 1, lba, len / block, sgl);
    rig.command(q, sqe, data).0.code()
}

fn read(rig: &mut Rig, q: &mut Queue, lba: u64, len: usize, block: u32) -> Vec<u8> {
    let sqe = Sqe::rw(io_op::READ, q.cid(), 1, lba, len as u32 / block, Sgl::transport(len as u32));
    let (cqe, data) = rig.command(q, sqe, &[]);
    assert_eq!(cqe.code(), sc::SUCCESS);
    data
}

/// Every size through every way of moving data, for each segmentation, digest and mood of the volumes.
#[test]
fn data_survives_every_way_it_can_travel() {
    let both = Digests { header: true, data: true };
    let digests = [Digests::default(), both, Digests { header: true, data: false }];
    for (round, segment) in [(1, 1), (1, 7), (1, 100_000), (1 << 18, 1 << 18)].into_iter().enumerate() {
        for (slow, later) in [(0, 0), (100, 0), (50, 30)] {
            let loopback = LoopbackConfig { segment, seed: 5 + round as u64, ..LoopbackConfig::default() };
            let mut rig = Rig::new(Setup { loopback, seed: slow + later + 3, ..Setup::default() });
            rig.cores[0].volumes.mood = Mood { slow, later, ..Mood::default() };
            let admin = rig.admin(0, NQN);
            let flow = if round % 2 == 0 { 4 } else { 0 };
            let mut q = rig.queue(0, NQN, admin.cntlid, 1, flow, digests[round % 3]);
            for (i, len) in [512usize, 4096, 16 * 1024, 17 * 1024, 64 * 1024, 200 * 1024].into_iter().enumerate() {
                if len > 20_000 && segment.1 < 10 {
                    continue;
                }
                let data = pattern(i as u8, len);
                assert_eq!(write(&mut rig, &mut q, 3 + i as u64, &data, 512), sc::SUCCESS, "{len} bytes");
                assert_eq!(read(&mut rig, &mut q, 3 + i as u64, len, 512), data, "{len} bytes");
            }
            rig.finish();
        }
    }
}

/// In-capsule data up to 64 KiB, larger than what a connection may leave unconsumed.
#[test]
fn large_in_capsule_data_lands_in_a_buffer() {
    for segment in [(1000, 5000), (1 << 18, 1 << 18)] {
        for digests in [Digests::default(), Digests { header: true, data: true }] {
            let loopback = LoopbackConfig { segment, ..LoopbackConfig::default() };
            let mut setup = Setup { loopback, ..Setup::default() };
            setup.transport.in_capsule_bytes = 65536;
            let mut rig = Rig::new(setup);
            let admin = rig.admin(0, NQN);
            let mut q = rig.queue(0, NQN, admin.cntlid, 1, 4, digests);
            for len in [20 * 1024, 65536] {
                let data = pattern(9, len);
                assert_eq!(write(&mut rig, &mut q, 7, &data, 512), sc::SUCCESS);
                assert_eq!(read(&mut rig, &mut q, 7, len, 512), data);
                // A command that fails skips its data, and the next one is found.
                let sqe = Sqe::rw(io_op::WRITE, q.cid(), 3, 0, len as u32 / 512, Sgl::in_capsule(len as u32));
                assert_eq!(rig.command(&q, sqe, &data).0.code(), sc::INVALID_NAMESPACE);
                assert_eq!(read(&mut rig, &mut q, 7, 512, 512), data[..512]);
            }
            rig.finish();
        }
    }
}

#[test]
fn compare_zeroes_flush_and_deallocate() {
    for (slow, later) in [(0, 0), (60, 30)] {
        let mut rig = Rig::plain();
        rig.cores[0].volumes.mood = Mood { slow, later, ..Mood::default() };
        let (_admin, mut q) = rig.ready();
        let data = pattern(1, 8192);
        assert_eq!(write(&mut rig, &mut q, 16, &data, 512), sc::SUCCESS);
        let compare = Sqe::rw(io_op::COMPARE, q.cid(), 1, 16, 16, Sgl::in_capsule(8192));
        assert_eq!(rig.command(&q, compare, &data).0.code(), sc::SUCCESS);
        let compare = Sqe::rw(io_op::COMPARE, q.cid(), 1, 17, 16, Sgl::transport(8192));
        let (cqe, _) = rig.command(&q, compare, &data);
        assert_eq!((cqe.code(), cqe.dnr()), (sc::COMPARE_FAILURE, true));
        let flush = Sqe::new(io_op::FLUSH, q.cid(), 1, Sgl::NONE);
        assert_eq!(rig.command(&q, flush, &[]).0.code(), sc::SUCCESS);
        let flush = Sqe::new(io_op::FLUSH, q.cid(), 0xffff_ffff, Sgl::NONE);
        assert_eq!(rig.command(&q, flush, &[]).0.code(), sc::INVALID_NAMESPACE, "Flush is per namespace (VWC)");
        let zeroes = Sqe::rw(io_op::WRITE_ZEROES, q.cid(), 1, 16, 2, Sgl::NONE);
        assert_eq!(rig.command(&q, zeroes, &[]).0.code(), sc::SUCCESS);
        let got = read(&mut rig, &mut q, 16, 8192, 512);
        assert!(got[..1024].iter().all(|b| *b == 0) && got[1024..] == data[1024..]);
        for (sgl, ranges) in [(Sgl::in_capsule(4096), 256usize), (Sgl::transport(4096), 3)] {
            assert_eq!(write(&mut rig, &mut q, 16, &data, 512), sc::SUCCESS);
            // As Linux does it: a whole page of ranges is offered, NR says how many count.
            let list: Vec<DsmRange> = (0..256)
                .map(|i| DsmRange {
                    attributes: 0.into(),
                    blocks: u32::from(i % 2 == 0).into(),
                    lba: (16 + i % 16).into(),
                })
                .collect();
            let mut dsm = Sqe::new(io_op::DSM, q.cid(), 1, sgl);
            dsm.cdw10 = (ranges as u32 - 1).into();
            dsm.cdw11 = 4.into();
            assert_eq!(rig.command(&q, dsm, list.as_bytes()).0.code(), sc::SUCCESS);
            let got = read(&mut rig, &mut q, 16, 8192, 512);
            for (block, bytes) in got.chunks(512).enumerate() {
                let gone = block % 2 == 0 && block < ranges;
                assert_eq!(bytes.iter().all(|b| *b == 0), gone, "block {block} of {ranges} ranges");
            }
        }
        rig.finish();
    }
}

#[test]
fn deallocate_checks_every_range_before_the_first_takes_effect() {
    let mut rig = Rig::plain();
    let (_admin, mut q) = rig.ready();
    let data = pattern(4, 512);
    assert_eq!(write(&mut rig, &mut q, 0, &data, 512), sc::SUCCESS);
    let list = [
        DsmRange { attributes: 0.into(), blocks: 1.into(), lba: 0.into() },
        DsmRange { attributes: 0.into(), blocks: 2.into(), lba: 2047.into() },
    ];
    for (last, want) in [(2047, sc::LBA_OUT_OF_RANGE), (u64::MAX, sc::LBA_OUT_OF_RANGE)] {
        let mut list = list;
        list[1].lba = last.into();
        let mut dsm = Sqe::new(io_op::DSM, q.cid(), 1, Sgl::in_capsule(32));
        dsm.cdw10 = 1.into();
        dsm.cdw11 = 4.into();
        assert_eq!(rig.command(&q, dsm, list.as_bytes()).0.code(), want);
    }
    assert_eq!(read(&mut rig, &mut q, 0, 512, 512), data);
    let mut hints = Sqe::new(io_op::DSM, q.cid(), 1, Sgl::transport(32));
    hints.cdw10 = 1.into();
    assert_eq!(rig.command(&q, hints, list.as_bytes()).0.code(), sc::SUCCESS);
    assert_eq!(read(&mut rig, &mut q, 0, 512, 512), data, "hints deallocate nothing");
    rig.finish();
}

/// Each illegal command gets its status, and the queue goes on.
#[test]
fn illegal_commands_fail_alone() {
    let mut rig = Rig::plain();
    let (_admin, mut q) = rig.ready();
    let data = vec![0; 4096];
    let rw = |op, nsid, lba, blocks, sgl| Sqe::rw(op, 0, nsid, lba, blocks, sgl);
    let blocks = SIZE as u64 / 512;
    let mut fused = rw(io_op::READ, 1, 0, 8, Sgl::transport(4096));
    fused.flags |= 1;
    let mut offset = rw(io_op::WRITE, 1, 0, 8, Sgl::in_capsule(4096));
    offset.sgl.address = 8.into();
    let cases = [
        ("nsid 0", rw(io_op::READ, 0, 0, 8, Sgl::transport(4096)), sc::INVALID_NAMESPACE),
        ("nsid 2", rw(io_op::READ, 2, 0, 8, Sgl::transport(4096)), sc::INVALID_NAMESPACE),
        ("nsid all", rw(io_op::READ, u32::MAX, 0, 8, Sgl::transport(4096)), sc::INVALID_NAMESPACE),
        ("last + 1", rw(io_op::READ, 1, blocks - 7, 8, Sgl::transport(4096)), sc::LBA_OUT_OF_RANGE),
        ("write past", rw(io_op::WRITE, 1, blocks, 8, Sgl::in_capsule(4096)), sc::LBA_OUT_OF_RANGE),
        ("wrap", rw(io_op::WRITE, 1, u64::MAX, 8, Sgl::transport(4096)), sc::LBA_OUT_OF_RANGE),
        ("zeroes past", rw(io_op::WRITE_ZEROES, 1, 1, 65536, Sgl::NONE), sc::LBA_OUT_OF_RANGE),
        ("MDTS", rw(io_op::READ, 1, 0, 2049, Sgl::transport(2049 * 512)), sc::INVALID_FIELD),
        ("MDTS write", rw(io_op::WRITE, 1, 0, 2049, Sgl::transport(2049 * 512)), sc::INVALID_FIELD),
        ("short SGL", rw(io_op::READ, 1, 0, 8, Sgl::transport(4095)), sc::SGL_LENGTH_INVALID),
        ("short write SGL", rw(io_op::WRITE, 1, 0, 9, Sgl::in_capsule(4096)), sc::SGL_LENGTH_INVALID),
        ("capsule read", rw(io_op::READ, 1, 0, 8, Sgl::in_capsule(4096)), sc::SGL_TYPE_INVALID),
        ("flush with data", rw(io_op::FLUSH, 1, 0, 8, Sgl::in_capsule(4096)), sc::SGL_TYPE_INVALID),
        ("no SGL", rw(io_op::WRITE, 1, 0, 8, Sgl::NONE), sc::SGL_TYPE_INVALID),
        ("offset", offset, sc::SGL_OFFSET_INVALID),
        ("fused", fused, sc::INVALID_FIELD),
        ("copy", rw(io_op::COPY, 1, 0, 8, Sgl::NONE), sc::INVALID_OPCODE),
        ("reservation", rw(io_op::RESERVATION_REPORT, 1, 0, 8, Sgl::transport(4096)), sc::INVALID_OPCODE),
        ("vendor", rw(0xc0, 1, 0, 8, Sgl::NONE), sc::INVALID_OPCODE),
    ];
    for (name, mut sqe, want) in cases {
        sqe.cid = q.cid().into();
        let (cqe, _) = rig.command(&q, sqe, &data);
        assert_eq!((cqe.code(), cqe.dnr()), (want, true), "{name}");
    }
    assert_eq!(rig.disk.borrow().log.len(), 0, "nothing took effect");
    assert_eq!(write(&mut rig, &mut q, blocks - 8, &data, 512), sc::SUCCESS, "the last blocks are legal");
    rig.finish();
}

#[test]
fn failures_of_the_volume_have_their_status() {
    let mut rig = Rig::plain();
    let (_admin, mut q) = rig.ready();
    for slow in [0, 100] {
        for (status, on_read, on_write) in [
            (Status::MediaError, sc::UNRECOVERED_READ, sc::WRITE_FAULT),
            (Status::CapacityExceeded, sc::CAPACITY_EXCEEDED, sc::CAPACITY_EXCEEDED),
            (Status::Gone, sc::INTERNAL_ERROR, sc::INTERNAL_ERROR),
            (Status::Busy, sc::INTERRUPTED, sc::INTERRUPTED),
            (Status::ReadOnly, sc::WRITE_PROTECTED, sc::WRITE_PROTECTED),
        ] {
            rig.cores[0].volumes.mood = Mood { slow, fail: Some(status), ..Mood::default() };
            let sqe = Sqe::rw(io_op::READ, q.cid(), 1, 0, 8, Sgl::transport(4096));
            assert_eq!(rig.command(&q, sqe, &[]).0.code(), on_read, "{status:?}");
            assert_eq!(write(&mut rig, &mut q, 0, &[0; 4096], 512), on_write, "{status:?}");
            assert_eq!(write(&mut rig, &mut q, 0, &vec![0; 32768], 512), on_write, "{status:?}");
        }
    }
    rig.finish();
}

/// A full queue of slow requests in every direction ends in any order, each answered once.
#[test]
fn a_full_queue_completes_out_of_order() {
    let mut rig = Rig::plain();
    rig.cores[0].volumes.mood = Mood { slow: 80, later: 20, ..Mood::default() };
    let admin = rig.admin(0, NQN);
    for cattr in [0, 4] {
        let q = rig.queue(0, NQN, admin.cntlid, 1 + u16::from(cattr), cattr, Digests::default());
        let depth: u16 = if cattr == 0 { 127 } else { 128 };
        let data = pattern(3, 32768);
        for cid in 0..depth {
            let lba = u64::from(cid);
            let sqe = match cid % 4 {
                0 => Sqe::rw(io_op::READ, cid, 1, lba, 8, Sgl::transport(4096)),
                1 => Sqe::rw(io_op::WRITE, cid, 1, lba, 8, Sgl::in_capsule(4096)),
                2 => Sqe::rw(io_op::WRITE, cid, 1, lba, 64, Sgl::transport(32768)),
                _ => Sqe::rw(io_op::WRITE_ZEROES, cid, 1, lba, 8, Sgl::NONE),
            };
            rig.submit(&q, sqe, &data[..4096]);
        }
        let mut seen = vec![false; usize::from(depth)];
        while seen.iter().any(|s| !s) {
            match rig.recv(q.conn) {
                Got::Resp(cqe) => {
                    assert_eq!(cqe.code(), sc::SUCCESS);
                    assert!(!std::mem::replace(&mut seen[usize::from(cqe.cid.get())], true), "answered twice");
                }
                Got::Data(head, _) => {
                    let success = head.ch.flags & 8 != 0;
                    assert_eq!(success, cattr != 0, "SUCCESS only where the host needs no SQHD");
                    if success {
                        seen[usize::from(head.cccid.get())] = true;
                    }
                }
                Got::R2t(r2t) => rig.answer(&q, &r2t, &data, 10_000),
                other => panic!("{other:?}"),
            }
        }
    }
    rig.finish();
}

#[test]
fn a_duplicate_command_id_is_refused_and_sqhd_runs_round() {
    let mut rig = Rig::plain();
    let admin = rig.admin(0, NQN);
    let q = rig.queue(0, NQN, admin.cntlid, 1, 0, Digests::default());
    rig.cores[0].volumes.mood = Mood { slow: 100, stuck: true, ..Mood::default() };
    let sqe = Sqe::rw(io_op::READ, 5, 1, 0, 8, Sgl::transport(4096));
    rig.submit(&q, sqe, &[]);
    rig.submit(&q, sqe, &[]);
    match rig.recv(q.conn) {
        Got::Resp(cqe) => assert_eq!((cqe.cid.get(), cqe.code()), (5, sc::CID_CONFLICT)),
        other => panic!("{other:?}"),
    }
    rig.cores[0].volumes.mood = Mood::default();
    assert_eq!(rig.complete(&q, 5, &[]).0.code(), sc::SUCCESS);
    // Connect was entry 0, then three commands; the queue has 128 entries.
    for n in 0..300u16 {
        let flush = Sqe::new(io_op::FLUSH, n, 1, Sgl::NONE);
        let (cqe, _) = rig.command(&q, flush, &[]);
        assert_eq!(cqe.sqhd.get(), (4 + n) % 128);
    }
    rig.finish();
}

#[test]
fn requests_carry_what_the_command_says() {
    let mut rig = Rig::new(Setup { block_size: 4096, ..Setup::default() });
    let (_admin, mut q) = rig.ready();
    let mut sqe = Sqe::rw(io_op::WRITE, q.cid(), 1, 200, 2, Sgl::in_capsule(8192));
    sqe.cdw12 = (sqe.cdw12.get() | 1 << 30).into();
    assert_eq!(rig.command(&q, sqe, &pattern(1, 8192)).0.code(), sc::SUCCESS);
    let log = rig.disk.borrow().log.clone();
    assert_eq!(log.len(), 1);
    assert_eq!((log[0].kind, log[0].lba, log[0].blocks, log[0].fua), (Kind::Write, 200, 2, true));
    assert_eq!(log[0].tag >> 56, 0, "the top byte of a tag is free");
    let stats = rig.cores[0].target.stats();
    assert_eq!((stats.writes, stats.write_bytes, stats.reads), (1, 8192, 0));
    rig.finish();
}
