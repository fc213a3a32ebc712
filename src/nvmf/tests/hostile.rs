//! Hosts that send what nobody should: random commands against a model of what each must come to, numbers at the ends of
//! their fields, and data and commands after the end of what they belong to.

use super::rig::*;
use crate::base::rng::Rng;
use crate::net::Net;
use crate::wire::fabrics::{CNTLID_DYNAMIC, Connect, ConnectData, DISCOVERY_NQN, Property, property};
use crate::wire::nvme::admin::{Abort, GetLogPage};
use crate::wire::nvme::log::lid;
use crate::wire::nvme::{DsmRange, Sgl, Sqe, StatusCode, admin_op, io_op, sc};
use crate::wire::nvme_tcp::pdu::{CapsuleCmd, Data, Head, IcReq};
use crate::wire::nvme_tcp::{Digests, Fes};
use zerocopy::{FromZeros, IntoBytes};

/// One of the numbers given, or now and then any number.
fn pick(rng: &mut Rng, edges: &[u64]) -> u64 {
    if rng.chance(5) { rng.next_u64() } else { edges[rng.below(edges.len() as u64) as usize] }
}

/// Blocks of 512 bytes of the rig's volume, and the largest transfer of the rigs of this file.
const BLOCKS: u64 = SIZE as u64 / 512;
const IO_MAX: u64 = 64 * 1024;

/// An I/O command with fields at and around their limits, and the data in its capsule.
fn random_io(rng: &mut Rng, fill: u8) -> (Sqe, Vec<u8>) {
    let ops = [io_op::READ, io_op::WRITE, io_op::COMPARE, io_op::WRITE_ZEROES, io_op::FLUSH, io_op::DSM];
    let opcode = match pick(rng, &[0, 0, 1, 1, 1, 2, 3, 4, 5, 5, 6]) {
        i @ 0..6 => ops[i as usize],
        // A fabrics command may end the queue; those have tests of their own.
        other => (other as u8).saturating_sub(u8::from(other as u8 == 0x7f)),
    };
    let (lba, blocks) = if rng.chance(60) {
        (rng.below(BLOCKS - 16), 1 + rng.below(16))
    } else {
        let lba = pick(rng, &[0, 1, BLOCKS - 1, BLOCKS, BLOCKS + 1, u64::MAX, u64::MAX - 7, 1 << 63]);
        (lba, pick(rng, &[1, 2, 8, IO_MAX / 512, IO_MAX / 512 + 1, 2048, 65535, 65536]) % 65537)
    };
    let need = if opcode == io_op::DSM { 16 } else { blocks.max(1) * 512 };
    let len =
        if rng.chance(70) { need } else { pick(rng, &[0, need - 1, need + 4, 2 * need, 512, u64::from(u32::MAX)]) };
    let kind =
        if rng.chance(90) { [Sgl::TRANSPORT, Sgl::IN_CAPSULE][rng.below(2) as usize] } else { rng.next_u64() as u8 };
    let mut sqe = Sqe::rw(opcode, 0, 1, lba, blocks.max(1) as u32, Sgl::NONE);
    if !rng.chance(80) {
        sqe.nsid = (pick(rng, &[0, 2, 4, 5, u64::from(u32::MAX), u64::from(u32::MAX) - 1]) as u32).into();
    }
    (sqe.sgl.kind, sqe.sgl.length) = (kind, (len as u32).into());
    if rng.chance(3) {
        sqe.sgl.address = 8.into();
    }
    if rng.chance(3) {
        sqe.flags |= 1 + rng.below(3) as u8;
    }
    if opcode == io_op::DSM {
        sqe.cdw10 = (pick(rng, &[0, 0, 1, 255]) as u32).into();
        sqe.cdw11 = (pick(rng, &[4, 4, 5, 0, 3]) as u32).into();
    }
    // In the capsule is what fits it; a command that reads has data there only by mistake.
    let mistake = rng.chance(3);
    let inside = (kind == Sgl::IN_CAPSULE && (8..=16384).contains(&len) && opcode != io_op::READ) || mistake;
    let size = if rng.chance(95) && !mistake { len } else { 512 };
    let mut data = if inside { vec![fill; size.clamp(8, 16384) as usize] } else { Vec::new() };
    if opcode == io_op::DSM {
        data.resize(data.len().next_multiple_of(16), 0);
        for (at, range) in data.chunks_exact_mut(16).enumerate() {
            let range_of = |lba: u64, blocks: u64| DsmRange {
                attributes: 0.into(),
                blocks: (blocks as u32).into(),
                lba: lba.into(),
            };
            let lba = if at == 0 { lba } else { rng.below(BLOCKS) };
            range.copy_from_slice(range_of(lba, pick(rng, &[0, 1, 8])).as_bytes());
        }
        if data.len() != len as usize && inside && !mistake {
            sqe.sgl.length = (data.len() as u32).into();
        }
    }
    (sqe, data)
}

/// What a volume holds, and what each command must come to on it.
struct Model(Vec<u8>);

impl Model {
    fn fits(lba: u64, blocks: u64) -> bool {
        lba.checked_add(blocks).is_some_and(|end| end <= BLOCKS)
    }

    fn at(&mut self, lba: u64, blocks: u64) -> &mut [u8] {
        &mut self.0[lba as usize * 512..(lba + blocks) as usize * 512]
    }

    /// The status of a command whose data, in the capsule or sent when asked for, begins with `sent`; what it reads.
    fn run(&mut self, sqe: &Sqe, inside: usize, sent: &[u8]) -> (StatusCode, Vec<u8>) {
        let fail = |code| (code, Vec::new());
        let (lba, blocks) = (sqe.slba(), u64::from(sqe.blocks()));
        let transfers = matches!(sqe.opcode, io_op::READ | io_op::WRITE | io_op::COMPARE | io_op::DSM);
        let takes = transfers && sqe.opcode != io_op::READ;
        if inside > 0 && !takes {
            return fail(sc::SGL_TYPE_INVALID);
        }
        if !transfers && !matches!(sqe.opcode, io_op::FLUSH | io_op::WRITE_ZEROES) {
            return fail(sc::INVALID_OPCODE);
        }
        if sqe.nsid.get() != 1 {
            return fail(sc::INVALID_NAMESPACE);
        }
        if sqe.fuse() != 0 {
            return fail(sc::INVALID_FIELD);
        }
        let ranges = (sqe.cdw10.get() & 0xff) as usize + 1;
        let need = if sqe.opcode == io_op::DSM { ranges as u64 * 16 } else { blocks * 512 };
        if transfers && need > IO_MAX {
            return fail(sc::INVALID_FIELD);
        }
        let (kind, len) = (sqe.sgl.kind, u64::from(sqe.sgl.length.get()));
        match (sqe.opcode, inside > 0) {
            (io_op::READ, _) if len < need => return fail(sc::SGL_LENGTH_INVALID),
            (io_op::READ, _) if kind != Sgl::TRANSPORT => return fail(sc::SGL_TYPE_INVALID),
            (_, false) if takes && kind != Sgl::TRANSPORT => return fail(sc::SGL_TYPE_INVALID),
            (_, true) if kind != Sgl::IN_CAPSULE => return fail(sc::SGL_TYPE_INVALID),
            (_, true) if sqe.sgl.address.get() != 0 => return fail(sc::SGL_OFFSET_INVALID),
            (_, true) if len != inside as u64 => return fail(sc::SGL_LENGTH_INVALID),
            _ if takes && len < need => return fail(sc::SGL_LENGTH_INVALID),
            _ => {}
        }
        match sqe.opcode {
            io_op::FLUSH => {}
            io_op::DSM => return fail(self.deallocate(sqe, &sent[..ranges * 16])),
            _ if !Model::fits(lba, blocks) => return fail(sc::LBA_OUT_OF_RANGE),
            io_op::READ => return (sc::SUCCESS, self.at(lba, blocks).to_vec()),
            io_op::WRITE => self.at(lba, blocks).copy_from_slice(&sent[..need as usize]),
            io_op::COMPARE if *self.at(lba, blocks) != sent[..need as usize] => return fail(sc::COMPARE_FAILURE),
            io_op::WRITE_ZEROES => self.at(lba, blocks).fill(0),
            _ => {}
        }
        (sc::SUCCESS, Vec::new())
    }

    fn deallocate(&mut self, sqe: &Sqe, ranges: &[u8]) -> StatusCode {
        if sqe.cdw11.get() & 4 == 0 {
            return sc::SUCCESS;
        }
        let of = |r: &[u8]| {
            let number = |r: &[u8]| r.iter().rev().fold(0, |n: u64, b| n << 8 | u64::from(*b));
            (number(&r[8..16]), number(&r[4..8]))
        };
        let all: Vec<(u64, u64)> = ranges.chunks(16).map(of).collect();
        if !all.iter().all(|(lba, blocks)| Model::fits(*lba, *blocks)) {
            return sc::LBA_OUT_OF_RANGE;
        }
        for (lba, blocks) in all.into_iter().filter(|(_, blocks)| *blocks > 0) {
            self.at(lba, blocks).fill(0);
        }
        sc::SUCCESS
    }
}

/// 100,000 commands, legal and not: each has the status and the effect that the model says, and the queue goes on.
#[test]
fn random_io_commands_do_what_the_model_says() {
    let mut successes = 0;
    let mut codes = std::collections::BTreeMap::new();
    for seed in 0..4 {
        let mut rng = Rng::new(seed);
        let mut setup = Setup::default();
        setup.transport.io_bytes_max = IO_MAX as u32;
        let mut rig = Rig::new(setup);
        let admin = rig.admin(0, NQN);
        let digests = Digests::from_bits(seed as u8);
        let mut q = rig.queue(0, NQN, admin.cntlid, 1, if seed % 2 == 0 { 4 } else { 0 }, digests);
        let mut model = Model(vec![0; SIZE]);
        rig.cores[0].volumes.mood = Mood { slow: seed * 20, ..Mood::default() };
        // What an R2T asks for: ranges beyond the volume, to a deallocation.
        let asked = vec![0xa5; IO_MAX as usize];
        for turn in 0..25_000u32 {
            let (mut sqe, data) = random_io(&mut rng, turn as u8);
            sqe.cid = q.cid().into();
            let inside = if data.is_empty() {
                rig.send(q.conn, Head::of(&CapsuleCmd::new(sqe, digests)).bytes());
                0
            } else {
                rig.send_capsule(&q, sqe, &data);
                data.len()
            };
            let sent = if inside > 0 { &data } else { &asked };
            let (want, bytes) = model.run(&sqe, inside, sent);
            let (cqe, read) = rig.complete(&q, sqe.cid.get(), &asked);
            assert_eq!(
                (cqe.code(), cqe.dnr()),
                (want, want != sc::SUCCESS),
                "seed {seed} turn {turn}: {sqe:?}, {inside} bytes"
            );
            assert!(read == bytes, "seed {seed} turn {turn}: wrong data");
            successes += u32::from(want == sc::SUCCESS);
            *codes.entry(want.field(false)).or_insert(0) += 1;
        }
        assert!(rig.disk.borrow().bytes == model.0, "seed {seed}: the volume is not what the model says");
        rig.finish();
    }
    assert!(successes > 20_000 && codes.len() >= 9, "{successes} of 100,000 succeeded; {codes:?}");
}

/// Random admin commands to an I/O and to a discovery controller: each is answered once, and both live on.
#[test]
fn random_admin_commands_are_answered() {
    let ops = [
        admin_op::GET_LOG_PAGE,
        admin_op::IDENTIFY,
        admin_op::ABORT,
        admin_op::SET_FEATURES,
        admin_op::GET_FEATURES,
        admin_op::KEEP_ALIVE,
    ];
    for (seed, nqn) in (0..).zip([NQN, DISCOVERY_NQN]) {
        let mut rng = Rng::new(seed);
        let mut rig = Rig::plain();
        let mut q = rig.admin(0, nqn);
        let (mut successes, mut failures) = (0, 0);
        for turn in 0..30_000 {
            let mut sqe = Sqe::new_zeroed();
            let op = pick(&mut rng, &[0, 0, 1, 1, 2, 3, 4, 5]) as usize;
            sqe.opcode = ops.get(op).copied().unwrap_or(op as u8);
            // Requests for events and fabrics commands are for other tests: they may be held, or reset the controller.
            if sqe.opcode == admin_op::ASYNC_EVENT || sqe.opcode == 0x7f {
                continue;
            }
            sqe.cid = q.cid().into();
            sqe.nsid = (pick(&mut rng, &[0, 1, 2, 5, u64::from(u32::MAX)]) as u32).into();
            sqe.sgl = Sgl::transport(pick(&mut rng, &[0, 4, 16, 512, 4096, 65536, u64::from(u32::MAX)]) as u32);
            let dword = |rng: &mut Rng| {
                let low = pick(rng, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 0x10, 0x11, 0x13, 0x14, 0x70, 0xff]) as u32;
                low | (pick(rng, &[0, 0, 1, 255, 1023, 0x3fff, 0xffff, 0x8000]) as u32) << 16
            };
            sqe.cdw10 = dword(&mut rng).into();
            sqe.cdw11 = (pick(&mut rng, &[0, 0, 0, 1, 0xffff, 5000, u64::from(u32::MAX)]) as u32).into();
            let offset = pick(&mut rng, &[0, 0, 4, 512, 1024, 4096, 1 << 32, u64::MAX - 3, u64::MAX - 511, u64::MAX]);
            (sqe.cdw12, sqe.cdw13) = ((offset as u32).into(), ((offset >> 32) as u32).into());
            sqe.cdw14 = (u32::from(rng.chance(3)) << 23).into();
            let (cqe, data) = rig.command(&q, sqe, &[]);
            if cqe.code() == sc::SUCCESS {
                successes += 1;
                assert!(data.len() <= sqe.sgl.length.get() as usize, "turn {turn}: more data than asked for: {sqe:?}");
            } else {
                failures += 1;
                assert!(data.is_empty() && cqe.dnr(), "turn {turn}: {sqe:?}: {:?}", cqe.code());
            }
        }
        assert!(successes > 2_000 && failures > 2_000, "{successes} successes, {failures} failures");
        rig.finish();
    }
}

#[test]
fn a_log_page_may_be_asked_for_at_any_offset() {
    let mut rig = Rig::plain();
    for (nqn, lids) in [
        (NQN, &[lid::SUPPORTED, lid::ERROR, lid::SMART, lid::FIRMWARE, lid::CHANGED_NAMESPACES, lid::EFFECTS][..]),
        (DISCOVERY_NQN, &[lid::SUPPORTED, lid::ERROR, lid::DISCOVERY]),
    ] {
        let mut q = rig.admin(0, nqn);
        for lid in lids {
            for (offset, want) in [
                (u64::MAX - 3, sc::INVALID_FIELD),
                (u64::MAX - 4095, sc::INVALID_FIELD),
                (1 << 63, sc::INVALID_FIELD),
                (1 << 20, sc::INVALID_FIELD),
                (0, sc::SUCCESS),
            ] {
                let ask = GetLogPage {
                    lid: *lid,
                    lsp: 0,
                    retain: true,
                    len: 4096,
                    offset,
                    index_offset: false,
                    nsid: u32::MAX,
                };
                let cid = q.cid();
                assert_eq!(rig.command(&q, ask.sqe(cid), &[]).0.code(), want, "log {lid:x} at {offset:x}");
            }
        }
    }
    rig.finish();
}

/// Every PDU type with every kind of lie about its lengths, at the start of a connection and on an I/O queue: the
/// connection is told why and ended, or waits for more; it never takes memory for a length that it was only told of.
#[test]
fn pdus_of_every_type_and_length() {
    let mut rig = Rig::new(Setup { loopback: crate::net::LoopbackConfig::default(), ..Setup::default() });
    let admin = rig.admin(0, NQN);
    let free: usize = rig.cores[0].pool.stats().map(|s| s.free).sum();
    let mut ended = 0;
    for queue in [false, true] {
        for kind in 0..=255u8 {
            for (hlen, plen) in
                [(8u8, 0u32), (8, 7), (8, 8), (24, 24), (72, 72), (72, 73), (128, 128), (255, u32::MAX), (24, u32::MAX)]
            {
                let conn =
                    if queue { rig.queue(0, NQN, admin.cntlid, 1, 4, Digests::default()).conn } else { rig.dial(0) };
                let mut bytes = vec![kind, 0, hlen, 24];
                bytes.extend(plen.to_le_bytes());
                bytes.resize(8 + (kind as usize * 37) % 120, 0);
                rig.send(conn, &bytes);
                rig.turns(8);
                let held = free - rig.cores[0].pool.stats().map(|s| s.free).sum::<usize>();
                assert_eq!(held, 0, "type {kind:x}, lengths {hlen} and {plen}: buffers taken");
                ended += u32::from(rig.closed(conn));
                rig.host.close(conn, crate::net::Close::Now);
                rig.turns(3);
            }
        }
    }
    let faults: u64 = rig.cores[0].target.stats().faults.iter().sum();
    assert!(u64::from(ended) > 4_000 && faults > 4_000, "{ended} connections ended, {faults} faults");
    let stats = rig.cores[0].target.stats();
    assert_eq!((stats.io_queues_now, stats.unassociated_now, stats.controllers_now), (0, 0, 1));
    rig.finish();
}

/// What follows a fatal fault on the same stream is not looked at.
#[test]
fn nothing_is_done_after_a_termination() {
    let mut rig = Rig::plain();
    let admin = rig.admin(0, NQN);
    let none = Digests::default();
    let write = Sqe::rw(io_op::WRITE, 7, 1, 0, 8, Sgl::in_capsule(4096));
    let mut good = Head::of(&CapsuleCmd::with_data(write, 4096, 4, none)).bytes().to_vec();
    good.extend([9; 4096]);
    for apart in [false, true] {
        let q = rig.queue(0, NQN, admin.cntlid, 1, 4, none);
        let mut bytes = IcReq::new(0, none, 0).as_bytes().to_vec();
        if apart {
            rig.send(q.conn, &bytes);
            rig.turn();
            bytes.clear();
        }
        bytes.extend(&good);
        rig.send(q.conn, &bytes);
        let Got::Term(term, _) = rig.recv(q.conn) else { panic!("no termination") };
        assert_eq!(term.fes.get(), Fes::SequenceError as u16);
        assert!(matches!(rig.recv(q.conn), Got::Closed));
        rig.turns(5);
    }
    assert_eq!(rig.disk.borrow().log.len(), 0, "a write behind the fault took effect");
    rig.finish();
}

/// The data of writes that were under way when their controller was reset, shut down, or fell silent for too long.
#[test]
fn late_data_of_an_ended_association_is_not_written() {
    for way in 0..3 {
        let mut rig = Rig::plain();
        let (mut admin, io) = rig.ready();
        rig.submit(&io, Sqe::rw(io_op::WRITE, 5, 1, 0, 64, Sgl::transport(32768)), &[]);
        let Got::R2t(r2t) = rig.recv(io.conn) else { panic!("no R2T") };
        let head = Data::h2c(5, r2t.ttag.get(), 0, 16384, false, 4, Digests::default());
        rig.send(io.conn, head.as_bytes());
        rig.send(io.conn, &[1; 16384]);
        let cid = admin.cid();
        let set = |cc: u32| Property::set(cid, property::CC, false, u64::from(cc));
        match way {
            0 => drop(rig.command(&admin, set(0), &[])),
            1 => drop(rig.command(&admin, set(property::CC_ENABLE_NVM | property::CC_SHN_NORMAL), &[])),
            _ => rig.pass_ms(11_000),
        }
        let head = Data::h2c(5, r2t.ttag.get(), 16384, 16384, true, 4, Digests::default());
        rig.send(io.conn, head.as_bytes());
        rig.send(io.conn, &[1; 16384]);
        rig.turns(20);
        assert!(rig.closed(io.conn), "way {way}");
        assert_eq!(rig.disk.borrow().log.len(), 0, "way {way}: late data was written");
        rig.finish();
    }
}

/// Aborts of commands on another core wait for its answer; more than ACL allows are refused at once.
#[test]
fn a_flood_of_aborts_is_limited() {
    let mut rig = Rig::new(Setup { cores: 2, ..Setup::default() });
    let mut admin = rig.admin(0, NQN);
    let io = rig.queue(1, NQN, admin.cntlid, 1, 4, Digests::default());
    rig.cores[1].volumes.mood.stuck = true;
    rig.submit(&io, Sqe::rw(io_op::READ, 3, 1, 0, 8, Sgl::transport(4096)), &[]);
    rig.turns(5);
    for _ in 0..20 {
        let cid = admin.cid();
        rig.submit(&admin, Abort { sqid: 1, cid: 3 }.sqe(cid), &[]);
    }
    let mut codes = Vec::new();
    for _ in 0..20 {
        let Got::Resp(cqe) = rig.recv(admin.conn) else { panic!("an abort was not answered") };
        codes.push((cqe.code(), cqe.result.get()));
    }
    let refused = codes.iter().filter(|c| c.0 == sc::ABORT_LIMIT).count();
    let too_late = codes.iter().filter(|c| **c == (sc::SUCCESS, 1)).count();
    assert!(refused > 0 && too_late >= 4 && refused + too_late == 20, "{codes:?}");
    rig.cores[1].volumes.mood.stuck = false;
    assert_eq!(rig.complete(&io, 3, &[]).0.code(), sc::SUCCESS);
    rig.finish();
}

/// Discovery is open to everybody, so there must be a limit that leaves room for those who have rights.
#[test]
fn strangers_can_not_take_every_controller() {
    let mut setup = Setup::default();
    (setup.config.controllers, setup.config.discovery_controllers) = (10, 6);
    let mut rig = Rig::new(setup);
    let params = Connect { format: 0, qid: 0, sqsize: 31, cattr: 0, kato: 0 };
    let mut taken = 0;
    for i in 0..12 {
        let conn = rig.dial(0);
        rig.shake(conn, 0, Digests::default());
        let data =
            ConnectData::new([i; 16], CNTLID_DYNAMIC, DISCOVERY_NQN, &format!("nqn.2024-01.io.pollux:stranger{i}"));
        let cqe = rig.connect(conn, Digests::default(), params, &data);
        taken += u32::from(cqe.code() == sc::SUCCESS);
        assert_eq!(cqe.code(), if i < 6 { sc::SUCCESS } else { sc::CONNECT_BUSY });
    }
    assert_eq!(taken, 6);
    let (_admin, mut io) = rig.ready();
    let cid = io.cid();
    assert_eq!(rig.command(&io, Sqe::new(io_op::FLUSH, cid, 1, Sgl::NONE), &[]).0.code(), sc::SUCCESS);
    rig.finish();
}

/// Hosts that begin many large writes and never send the rest leave buffers for the others.
#[test]
fn data_that_never_comes_does_not_take_every_buffer() {
    let mut rig = Rig::new(Setup { buffers: 16, ..Setup::default() });
    let admin = rig.admin(0, NQN);
    let none = Digests::default();
    let mut good = rig.queue(0, NQN, admin.cntlid, 1, 4, none);
    for qid in 2..40 {
        let q = rig.queue(0, NQN, admin.cntlid, qid, 4, none);
        let write = Sqe::rw(io_op::WRITE, 1, 1, 0, 32, Sgl::in_capsule(16384));
        rig.send(q.conn, Head::of(&CapsuleCmd::with_data(write, 16384, 4, none)).bytes());
        rig.send(q.conn, &[1; 100]);
        rig.turn();
    }
    rig.turns(20);
    let large = rig.cores[0].pool.stats().find(|s| s.size == 65536).unwrap();
    assert!(large.free >= 3, "{} of {} buffers are left", large.free, large.total);
    let cid = good.cid();
    let read = Sqe::rw(io_op::READ, cid, 1, 0, 64, Sgl::transport(32768));
    assert_eq!(rig.command(&good, read, &[]).0.code(), sc::SUCCESS);
    rig.finish();
}
