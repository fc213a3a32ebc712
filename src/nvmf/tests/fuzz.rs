//! Random hosts. Bytes: streams of mutated PDUs through a connection in every state. Behaviour: seeded sequences of
//! mostly legal actions of many queues, over changing volumes, configuration and time, with a model of the data.

use super::rig::*;
use crate::base::rng::Rng;
use crate::base::{CoreId, Time};
use crate::mem::{Class, Pool};
use crate::net::{Close, Closed, ConnId, Ends, Handler, ListenerId, LoopbackConfig, Loose, Net, NetError, Tx};
use crate::nvmf::{Config, Target};
use crate::wire::fabrics::{CNTLID_DYNAMIC, Connect, ConnectData, Property, property};
use crate::wire::mutate::Mutator;
use crate::wire::nvme::admin::{Abort, Feature, GetLogPage, Identify};
use crate::wire::nvme::{DsmRange, Sgl, Sqe, admin_op, io_op, sc};
use crate::wire::nvme_tcp::Digests;
use crate::wire::nvme_tcp::pdu::{CapsuleCmd, Data, Head, IcReq, TermReq};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use zerocopy::IntoBytes;

/// A net that is nothing but send queues.
#[derive(Default)]
struct Wires {
    tx: HashMap<ConnId, Tx>,
    closing: Vec<ConnId>,
}

impl Net for Wires {
    fn listen(&mut self, addr: SocketAddr, _: bool) -> Result<(ListenerId, SocketAddr), NetError> {
        Ok((ListenerId(0), addr))
    }
    fn unlisten(&mut self, _: ListenerId) {}
    fn connect(&mut self, _: SocketAddr) -> Result<ConnId, NetError> {
        Err(NetError::Limit("no connections"))
    }
    fn release(&mut self, _: ConnId) {}
    fn adopt(&mut self, _: Loose) -> Result<ConnId, NetError> {
        Err(NetError::Limit("no connections"))
    }
    fn poll<H: Handler>(&mut self, _: Time, _: &mut Pool, _: &mut H) -> usize {
        0
    }
    fn tx(&mut self, conn: ConnId) -> Option<&mut Tx> {
        self.tx.get_mut(&conn)
    }
    fn flush(&mut self, _: Time, _: &mut Pool) -> usize {
        0
    }
    fn close(&mut self, conn: ConnId, _: Close) {
        self.closing.push(conn);
    }
    fn wait_fd(&self) -> Option<i32> {
        None
    }
    fn connections(&self) -> usize {
        self.tx.len()
    }
}

/// A target with hand-fed connections.
struct Bench {
    rig: Rig,
    target: Target,
    wires: Wires,
    pool: Pool,
    now: Time,
    next: u32,
}

impl Bench {
    fn new() -> Bench {
        let rig = Rig::plain();
        let mut target = Target::new(CoreId(0), 1, &Config { unassociated: 4096, ..Config::default() });
        target.listen(ListenerId(0), rig.cores[0].addr);
        target.configure(Arc::new(rig.snapshot.clone()));
        let classes =
            [Class { size: 4096, count: 32 }, Class { size: 65536, count: 16 }, Class { size: 1 << 20, count: 4 }];
        let pool = Pool::standalone(CoreId(0), &classes).unwrap();
        Bench { rig, target, wires: Wires::default(), pool, now: Time(1), next: 0 }
    }

    fn accept(&mut self) -> ConnId {
        let id = ConnId { slot: self.next % 64, generation: self.next };
        self.next += 1;
        let mut tx = Tx::new(4096, 64);
        let ends = Ends { local: "127.0.0.1:4420".parse().unwrap(), peer: "127.0.0.1:9".parse().unwrap() };
        let volumes = &mut self.rig.cores[0].volumes;
        assert!(self.target.join(self.now, volumes).accepted(id, ListenerId(0), ends, &mut tx));
        self.wires.tx.insert(id, tx);
        id
    }

    /// Presents bytes as a net does: landing places first. Returns what was left.
    fn feed(&mut self, id: ConnId, bytes: &[u8]) -> usize {
        let Some(tx) = self.wires.tx.get_mut(&id) else { return 0 };
        let mut handler = self.target.join(self.now, &mut self.rig.cores[0].volumes);
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            if let Some(place) = handler.landing(id) {
                let n = place.len().min(rest.len());
                place[..n].copy_from_slice(&rest[..n]);
                handler.landed(id, n, tx, &mut self.pool);
                at += n;
                continue;
            }
            let taken = handler.data(id, rest, tx, &mut self.pool);
            if taken == 0 {
                break;
            }
            at += taken;
        }
        assert!(bytes.len() - at <= crate::net::CARRY_MAX || handler.paused(id), "too much was left");
        bytes.len() - at
    }

    /// The end of a turn; sends everything and forgets closed connections.
    fn turn(&mut self) {
        self.now = self.now.after_ns(1000);
        let mut done = Vec::new();
        self.rig.cores[0].volumes.step(&mut self.pool, &mut done);
        self.target.respond(self.now, &mut done, &mut self.wires, &mut self.pool);
        self.target.tick(self.now, &mut self.wires, &mut self.rig.cores[0].volumes, &mut self.pool);
        for tx in self.wires.tx.values_mut() {
            tx.clear(&mut self.pool);
        }
        for id in std::mem::take(&mut self.wires.closing) {
            self.close(id);
        }
    }

    fn close(&mut self, id: ConnId) {
        if let Some(mut tx) = self.wires.tx.remove(&id) {
            tx.clear(&mut self.pool);
            self.target.join(self.now, &mut self.rig.cores[0].volumes).closed(id, Closed::Peer);
        }
    }

    /// A connection that is an I/O queue (or an admin queue) of a fresh controller, or nothing yet.
    fn ready(&mut self, depth: usize, digests: Digests) -> Vec<ConnId> {
        let admin = self.accept();
        let mut all = vec![admin];
        if depth == 0 {
            return all;
        }
        self.feed(admin, IcReq::new(0, digests, 0).as_bytes());
        if depth == 1 {
            return all;
        }
        self.feed(admin, &Wire::connect(0, CNTLID_DYNAMIC, digests));
        let enable = Property::set(1, property::CC, false, u64::from(property::CC_ENABLE_NVM));
        self.feed(admin, Head::of(&CapsuleCmd::new(enable, digests)).bytes());
        if depth == 2 {
            return all;
        }
        let cntlid = self.target.controllers().last().expect("just made").cntlid;
        let io = self.accept();
        self.feed(io, IcReq::new(0, digests, 0).as_bytes());
        self.feed(io, &Wire::connect(1, cntlid, digests));
        all.push(io);
        all
    }
}

/// Legal PDUs as bytes.
struct Wire;

impl Wire {
    fn capsule(sqe: Sqe, data: &[u8], digests: Digests) -> Vec<u8> {
        if data.is_empty() {
            return Head::of(&CapsuleCmd::new(sqe, digests)).bytes().to_vec();
        }
        let mut out = Head::of(&CapsuleCmd::with_data(sqe, data.len() as u32, 4, digests)).bytes().to_vec();
        out.extend(data);
        if digests.data {
            out.extend(crate::base::crc::crc32c(data).to_le_bytes());
        }
        out
    }

    fn connect(qid: u16, cntlid: u16, digests: Digests) -> Vec<u8> {
        let params = Connect { format: 0, qid, sqsize: 31, cattr: 4, kato: 0 };
        let data = ConnectData::new(HOSTID, cntlid, NQN, HOST);
        Wire::capsule(params.sqe(1), data.as_bytes(), digests)
    }

    /// One of everything a host sends.
    fn all(digests: Digests) -> Vec<Vec<u8>> {
        let mut dsm = Sqe::new(io_op::DSM, 6, 1, Sgl::in_capsule(32));
        (dsm.cdw10, dsm.cdw11) = (1.into(), 4.into());
        let range = |lba: u64| DsmRange { attributes: 0.into(), blocks: 8.into(), lba: lba.into() };
        let ranges = [range(0), range(64)];
        let log = GetLogPage { lid: 2, lsp: 0, retain: false, len: 512, offset: 0, index_offset: false, nsid: 1 };
        let identify = Identify { cns: 1, cntid: 0, specific: 0, csi: 0, nsid: 0 };
        let c = |sqe, data: &[u8]| Wire::capsule(sqe, data, digests);
        let mut h2c = Head::of(&Data::h2c(5, 1 << 10, 0, 512, true, 4, digests)).bytes().to_vec();
        h2c.extend([7; 512]);
        vec![
            IcReq::new(0, digests, 0).as_bytes().to_vec(),
            Wire::connect(0, CNTLID_DYNAMIC, digests),
            Wire::connect(1, 1, digests),
            c(Sqe::rw(io_op::READ, 2, 1, 3, 8, Sgl::transport(4096)), &[]),
            c(Sqe::rw(io_op::WRITE, 3, 1, 3, 8, Sgl::in_capsule(4096)), &[5; 4096]),
            c(Sqe::rw(io_op::WRITE, 4, 1, 3, 40, Sgl::in_capsule(20480)), &[5; 20480]),
            c(Sqe::rw(io_op::WRITE, 5, 1, 0, 1, Sgl::transport(512)), &[]),
            c(Sqe::rw(io_op::COMPARE, 9, 1, 3, 1, Sgl::in_capsule(512)), &[5; 512]),
            c(Sqe::rw(io_op::WRITE_ZEROES, 7, 1, 3, 8, Sgl::NONE), &[]),
            c(Sqe::new(io_op::FLUSH, 8, 1, Sgl::NONE), &[]),
            c(dsm, ranges.as_bytes()),
            h2c,
            c(identify.sqe(10), &[]),
            c(log.sqe(11), &[]),
            c(Feature::set(12, 7, 0, 0x0003_0003), &[]),
            c(Feature::get(13, 0x0b, 0), &[]),
            c(Sqe::new(admin_op::ASYNC_EVENT, 14, 0, Sgl::NONE), &[]),
            c(Sqe::new(admin_op::KEEP_ALIVE, 15, 0, Sgl::NONE), &[]),
            c(Abort { sqid: 1, cid: 5 }.sqe(16), &[]),
            c(Property::get(17, property::CSTS, false), &[]),
            c(Property::set(18, property::CC, false, 0), &[]),
            TermReq::new(crate::wire::nvme_tcp::Kind::H2cTermReq, crate::wire::nvme_tcp::Fault::field(3), 0)
                .as_bytes()
                .to_vec(),
        ]
    }
}

/// 300,000 mutated PDUs into connections in every state; whatever happens, nothing is left when they are gone.
#[test]
fn fuzz_streams() {
    let mut b = Bench::new();
    let mut rng = Rng::new(0xf0_22);
    let mut fed = 0u32;
    let mut answered = 0;
    let mut left = Vec::new();
    for (i, digests) in [Digests::default(), Digests { header: true, data: true }].into_iter().enumerate() {
        let mut source = Mutator::new(77 + i as u64, Wire::all(digests));
        while fed < 150_000 * (i as u32 + 1) {
            b.rig.cores[0].volumes.mood = Mood { slow: rng.below(3) * 30, later: rng.below(2) * 20, ..Mood::default() };
            let conns = b.ready(rng.below(4) as usize, digests);
            let target = *conns.last().expect("at least one");
            left.clear();
            for _ in 0..=rng.below(40) {
                left.extend_from_slice(source.next());
                fed += 1;
                let cut = rng.below(left.len() as u64 + 1) as usize;
                let keep = b.feed(target, &left[..cut]);
                left.drain(..cut - keep);
                if rng.chance(20) {
                    b.turn();
                }
                if !b.wires.tx.contains_key(&target) {
                    break;
                }
            }
            answered += b.target.stats().commands;
            for conn in conns {
                b.close(conn);
            }
        }
    }
    b.rig.cores[0].volumes.mood = Mood::default();
    for _ in 0..2000 {
        b.turn();
    }
    let stats = b.target.stats();
    assert!(answered > 10_000 && stats.faults.iter().skip(1).filter(|f| **f > 10).count() >= 4, "{stats:?}");
    assert_eq!((stats.pending_now, stats.controllers_now, stats.unassociated_now), (0, 0, 0));
    for class in b.pool.stats() {
        assert_eq!(class.free, class.total, "buffers left behind");
    }
}

/// What a block unit (8 blocks) may hold.
#[derive(Clone, Default)]
struct Unit {
    value: u8,
    /// Writes under way, or whose outcome is unknown because their queue ended.
    unsure: bool,
    writing: u32,
    /// Counts writes: a read that overlaps one may see either.
    turn: u32,
}

/// One random host with a few controllers.
struct Actor {
    admin: Queue,
    io: Vec<Queue>,
    /// By queue and CID: what was asked.
    open: HashMap<(usize, u16), Ask>,
    /// Data that has come before its completion.
    data: HashMap<(usize, u16), Vec<u8>>,
    aers: usize,
}

#[derive(Clone, Copy, Debug)]
enum Ask {
    Read { unit: usize, turn: u32, sure: Option<u8> },
    Write { unit: usize, value: u8 },
    Other,
}

const UNITS: usize = 64;

fn start(rig: &mut Rig, rng: &mut Rng) -> Actor {
    let core = rng.below(rig.cores.len() as u64) as usize;
    let admin = rig.admin(core, NQN);
    let mut io = Vec::new();
    for qid in 1..=1 + rng.below(3) {
        let core = rng.below(rig.cores.len() as u64) as usize;
        let bits = rng.below(4) as u8;
        let cattr = 4 * rng.below(2) as u8;
        io.push(rig.queue(core, NQN, admin.cntlid, qid as u16, cattr, Digests::from_bits(bits)));
    }
    Actor { admin, io, open: HashMap::new(), data: HashMap::new(), aers: 0 }
}

/// Everything that is under way becomes unknown.
fn forget(units: &mut [Unit], actor: &Actor) {
    for ask in actor.open.values() {
        if let Ask::Write { unit, .. } = ask {
            units[*unit].unsure = true;
            units[*unit].writing -= 1;
        }
    }
}

fn io_action(rig: &mut Rig, rng: &mut Rng, a: &mut Actor, units: &mut [Unit]) {
    let at = rng.below(a.io.len() as u64) as usize;
    if a.open.keys().filter(|k| k.0 == at).count() >= 20 {
        return;
    }
    let cid = a.io[at].cid();
    let q = a.io[at];
    let unit = rng.below(UNITS as u64) as usize;
    let value = rng.next_u64() as u8;
    let data = [value; 4096];
    let ask = match rng.below(10) {
        0..=3 => {
            let u = &units[unit];
            rig.submit(&q, Sqe::rw(io_op::READ, cid, 1, unit as u64 * 8, 8, Sgl::transport(4096)), &[]);
            Ask::Read { unit, turn: u.turn, sure: (u.writing == 0 && !u.unsure).then_some(u.value) }
        }
        4..=7 => {
            let sgl = if rng.chance(50) { Sgl::in_capsule(4096) } else { Sgl::transport(4096) };
            rig.submit(&q, Sqe::rw(io_op::WRITE, cid, 1, unit as u64 * 8, 8, sgl), &data);
            units[unit].writing += 1;
            units[unit].turn += 1;
            Ask::Write { unit, value }
        }
        8 => {
            rig.submit(&q, Sqe::new(io_op::FLUSH, cid, 1, Sgl::NONE), &[]);
            Ask::Other
        }
        _ => {
            rig.submit(&q, Sqe::rw(0xc0, cid, 1, 0, 1, Sgl::NONE), &[]);
            Ask::Other
        }
    };
    a.open.insert((at, cid), ask);
}

fn admin_action(rig: &mut Rig, rng: &mut Rng, a: &mut Actor) {
    let cid = a.admin.cid();
    let ask = match rng.below(6) {
        0 => Identify { cns: rng.below(9) as u8, cntid: 0, specific: 0, csi: 0, nsid: rng.below(3) as u32 }.sqe(cid),
        1 => Feature::get(cid, rng.below(16) as u8, 0),
        2 => Abort { sqid: rng.below(4) as u16, cid: rng.below(200) as u16 }.sqe(cid),
        3 if a.aers < 4 => {
            a.aers += 1;
            Sqe::new(admin_op::ASYNC_EVENT, cid, 0, Sgl::NONE)
        }
        4 => Feature::set(cid, 0x0b, 0, 1 << 8),
        _ => Sqe::new(admin_op::KEEP_ALIVE, cid, 0, Sgl::NONE),
    };
    rig.submit(&a.admin, ask, &[]);
}

/// Takes what has come on a queue and checks it against the model.
fn collect(rig: &mut Rig, rng: &mut Rng, a: &mut Actor, units: &mut [Unit], at: usize) {
    let q = a.io[at];
    loop {
        let (cid, code) = match rig.recv_within(q.conn, q.digests, 1) {
            Got::Resp(cqe) => (cqe.cid.get(), cqe.code()),
            Got::Data(head, bytes) => {
                let cid = head.cccid.get();
                a.data.insert((at, cid), bytes);
                if head.ch.flags & 8 == 0 {
                    continue;
                }
                (cid, sc::SUCCESS)
            }
            Got::R2t(r2t) => {
                let Some(Ask::Write { value, .. }) = a.open.get(&(at, r2t.cccid.get())) else {
                    panic!("an R2T for a command that was not asked")
                };
                let most = 512 << rng.below(4);
                rig.answer(&q, &r2t, &[*value; 4096], most);
                continue;
            }
            _ => return,
        };
        match a.open.remove(&(at, cid)).expect("each command is answered once") {
            Ask::Read { unit, turn, sure } => {
                let sure = sure.filter(|_| units[unit].turn == turn);
                let data = a.data.remove(&(at, cid));
                if code == sc::SUCCESS {
                    let data = data.expect("a read brings data");
                    let want = sure.unwrap_or(data[0]);
                    assert!(sure.is_none() || data.iter().all(|b| *b == want), "stale or foreign data in {unit}");
                }
            }
            Ask::Write { unit, value } => {
                units[unit].writing -= 1;
                if code == sc::SUCCESS && units[unit].writing == 0 && !units[unit].unsure {
                    units[unit].value = value;
                } else if code != sc::ABORT_REQUESTED || units[unit].writing > 0 {
                    // Of overlapping writes any may have been last.
                    units[unit].unsure = true;
                }
            }
            Ask::Other => {}
        }
    }
}

fn upset(rig: &mut Rig, rng: &mut Rng) {
    let mood = Mood { slow: rng.below(4) * 30, later: rng.below(3) * 25, ..Mood::default() };
    for core in &mut rig.cores {
        core.volumes.mood = mood;
    }
    if rng.chance(30) {
        rig.snapshot.generation += 1;
        rig.snapshot.subsystems[0].namespaces[0].anagrpid += 1;
        rig.configure();
    }
}

fn sequence(seed: u64) {
    let mut rng = Rng::new(seed);
    let segment = [(1, 9000), (1 << 18, 1 << 18), (100, 5000)][rng.below(3) as usize];
    let loopback = LoopbackConfig { seed, segment, ..LoopbackConfig::default() };
    let mut rig = Rig::new(Setup {
        cores: 1 + rng.below(2) as u16,
        loopback,
        buffers: [4, 10, 40][rng.below(3) as usize],
        seed,
        ..Setup::default()
    });
    let mut units = vec![Unit::default(); UNITS];
    let mut actors: Vec<Actor> = Vec::new();
    for _ in 0..120 {
        match rng.below(40) {
            0 | 1 if actors.len() < 3 => {
                for core in &mut rig.cores {
                    core.volumes.mood = Mood::default();
                }
                let actor = start(&mut rig, &mut rng);
                actors.push(actor);
            }
            2 if !actors.is_empty() => {
                let a = actors.swap_remove(rng.below(actors.len() as u64) as usize);
                forget(&mut units, &a);
                let how = if rng.chance(50) { Close::Now } else { Close::AfterSend };
                rig.host.close(if rng.chance(50) { a.admin.conn } else { a.io[0].conn }, how);
                rig.turns(5);
                rig.host.close(a.admin.conn, how);
                // Writes that the volumes have still land: nothing about these units is known from here on.
                rig.turns(30);
            }
            3 => upset(&mut rig, &mut rng),
            4 => rig.turns(5),
            5..=8 if !actors.is_empty() => {
                let n = actors.len() as u64;
                let at = rng.below(n) as usize;
                admin_action(&mut rig, &mut rng, &mut actors[at]);
            }
            _ if !actors.is_empty() => {
                let at = rng.below(actors.len() as u64) as usize;
                for _ in 0..rng.below(8) {
                    io_action(&mut rig, &mut rng, &mut actors[at], &mut units);
                }
                for q in 0..actors[at].io.len() {
                    collect(&mut rig, &mut rng, &mut actors[at], &mut units, q);
                }
            }
            _ => {}
        }
    }
    // With volumes in a good mood every open command is answered.
    for core in &mut rig.cores {
        core.volumes.mood = Mood::default();
    }
    for _ in 0..300 {
        for a in &mut actors {
            for q in 0..a.io.len() {
                collect(&mut rig, &mut rng, a, &mut units, q);
            }
        }
        if actors.iter().all(|a| a.open.is_empty()) {
            break;
        }
        rig.turns(3);
    }
    for a in &actors {
        assert!(a.open.is_empty(), "seed {seed}: never answered: {:?}", a.open);
    }
    rig.finish();
}

/// Seeded sequences of what hosts do; every one ends with every command answered and nothing left behind.
#[test]
fn random_hosts() {
    for seed in 0..150 {
        sequence(seed);
    }
}
