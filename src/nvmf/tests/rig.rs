//! A host, a net and one or more cores with targets, all in one thread and on one clock.

use crate::base::rng::Rng;
use crate::base::{CoreId, Status, Time, VolumeId};
use crate::mem::{Class, Pool};
use crate::net::{Closed, ConnId, Ends, Handler, ListenerId, Loopback, LoopbackConfig, Net, Network, Tx};
use crate::nvmf::{Config, Message, Namespace, Snapshot, Subsystem, Target, Transport, Visibility};
use crate::volume::{Completion, Info, Kind, Payload, Request, Submit, Volumes};
use crate::wire::fabrics::{Connect, ConnectData, Property, connect_result, property, result_cntlid};
use crate::wire::nvme::{Cqe, Sgl, Sqe, sc};
use crate::wire::nvme_tcp::pdu::{self, CapsuleCmd, CapsuleResp, Data, Head, IcReq, IcResp, R2t, TermReq};
use crate::wire::nvme_tcp::{Digests, Frame, Kind as PduKind, Receiver, Side};
use core::net::SocketAddr;
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use zerocopy::{FromBytes, IntoBytes};

pub const NQN: &str = "nqn.2024-01.io.pollux:one";
pub const HOST: &str = "nqn.2024-01.io.pollux:host";
pub const HOSTID: [u8; 16] = [7; 16];
/// Bytes of the volume in memory.
pub const SIZE: usize = 1 << 20;

/// The bytes of the one volume, shared by all cores.
pub struct Disk {
    pub bytes: Vec<u8>,
    pub info: Info,
    /// Every request that took effect.
    pub log: Vec<Request>,
}

/// How volumes in memory behave; percentages.
#[derive(Clone, Copy, Default)]
pub struct Mood {
    /// Requests that do not end at once.
    pub slow: u64,
    /// Requests for which there is no room.
    pub later: u64,
    /// How every request fails, if it does.
    pub fail: Option<Status>,
    /// Slow requests stay until this is cleared.
    pub stuck: bool,
}

/// One core's volumes.
pub struct Memory {
    pub disk: Rc<RefCell<Disk>>,
    pub mood: Mood,
    pub waiting: VecDeque<(Request, Vec<u8>)>,
    pub rng: Rng,
    info: Info,
}

impl Memory {
    /// Does a request; `None` when a buffer is missing.
    fn run(&mut self, request: Request, data: &[u8], pool: &mut Pool) -> Option<Completion> {
        let mut disk = self.disk.borrow_mut();
        let size = disk.info.block_size as usize;
        let (from, len) = (request.lba.saturating_mul(size as u64), request.blocks as usize * size);
        let done = |status, buf| Some(Completion::plain(request.tag, status, buf));
        if let Some(status) = self.mood.fail {
            return done(status, None);
        }
        if from.checked_add(len as u64).is_none_or(|end| end > disk.bytes.len() as u64) {
            return done(Status::OutOfRange, None);
        }
        let range = from as usize..from as usize + len;
        let mut status = Status::Ok;
        let mut buf = None;
        match request.kind {
            Kind::Read => {
                let mut b = pool.get(len)?;
                b.copy_from_slice(&disk.bytes[range]);
                buf = Some(b);
            }
            Kind::Write => {
                assert_eq!(data.len(), len, "a write brings its blocks");
                disk.bytes[range].copy_from_slice(data);
            }
            Kind::Compare if disk.bytes[range.clone()] != *data => status = Status::CompareMismatch,
            Kind::CompareWrite | Kind::BlockStatus => unreachable!("no NVMe command is one"),
            Kind::Compare | Kind::Flush => {}
            Kind::WriteZeroes | Kind::Deallocate => disk.bytes[range].fill(0),
        }
        disk.log.push(request);
        done(status, buf)
    }

    /// Ends what was slow, a few requests a turn.
    pub fn step(&mut self, pool: &mut Pool, done: &mut Vec<Completion>) {
        if self.mood.stuck {
            return;
        }
        let most = 1 + self.rng.below(4);
        for _ in 0..most {
            // Requests of different commands end in any order.
            let Some(last) = self.waiting.len().checked_sub(1) else { return };
            let pick = self.rng.below(last as u64 + 1) as usize;
            let Some((request, data)) = self.waiting.swap_remove_back(pick) else { return };
            match self.run(request, &data, pool) {
                Some(completion) => done.push(completion),
                None => self.waiting.push_back((request, data)),
            }
        }
    }
}

impl Volumes for Memory {
    fn info(&self, volume: VolumeId) -> Option<&Info> {
        (volume == self.info.id).then_some(&self.info)
    }
    fn submit(&mut self, request: Request, payload: Payload<'_>, pool: &mut Pool) -> Submit {
        if self.rng.chance(self.mood.later) {
            return Submit::Later(payload.into_buf());
        }
        let slow = self.mood.stuck || self.rng.chance(self.mood.slow);
        if !slow && let Some(done) = self.run(request, payload.bytes(), pool) {
            if let Some(buf) = payload.into_buf() {
                pool.put(buf);
            }
            return Submit::Done(done);
        }
        if !slow {
            return Submit::Later(payload.into_buf());
        }
        self.waiting.push_back((request, payload.bytes().to_vec()));
        if let Some(buf) = payload.into_buf() {
            pool.put(buf);
        }
        Submit::Pending
    }
}

/// One core.
pub struct Core {
    pub net: Loopback,
    pub target: Target,
    pub volumes: Memory,
    pub pool: Pool,
    pub addr: SocketAddr,
    pub listener: ListenerId,
    mail: VecDeque<(CoreId, Message)>,
}

/// What the host has received on one connection.
#[derive(Default)]
struct Inbox {
    bytes: VecDeque<u8>,
    closed: Option<Closed>,
    connected: bool,
}

struct Collector<'a>(&'a mut HashMap<ConnId, Inbox>, Option<ConnId>);

impl Handler for Collector<'_> {
    fn accepted(&mut self, _: ConnId, _: ListenerId, _: Ends, _: &mut Tx) -> bool {
        false
    }
    fn connected(&mut self, conn: ConnId, _: &mut Tx) {
        self.0.entry(conn).or_default().connected = true;
    }
    fn data(&mut self, conn: ConnId, bytes: &[u8], _: &mut Tx, _: &mut Pool) -> usize {
        self.0.entry(conn).or_default().bytes.extend(bytes);
        bytes.len()
    }
    fn paused(&mut self, conn: ConnId) -> bool {
        self.1 == Some(conn)
    }
    fn closed(&mut self, conn: ConnId, why: Closed) {
        self.0.entry(conn).or_default().closed = Some(why);
    }
}

/// A PDU as the host got it.
#[derive(Debug)]
pub enum Got {
    Ic(IcResp),
    Resp(Cqe),
    Data(Data, Vec<u8>),
    R2t(R2t),
    Term(TermReq, Vec<u8>),
    Closed,
    Nothing,
}

/// A queue of the host.
#[derive(Clone, Copy, Debug)]
pub struct Queue {
    pub conn: ConnId,
    pub cntlid: u16,
    pub digests: Digests,
    pub in_capsule: u32,
    pub cpda: u8,
    next_cid: u16,
}

/// How a rig is made.
#[derive(Clone)]
pub struct Setup {
    pub cores: u16,
    pub loopback: LoopbackConfig,
    pub config: Config,
    pub transport: Transport,
    pub block_size: u32,
    pub buffers: usize,
    pub seed: u64,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            cores: 1,
            loopback: LoopbackConfig::default(),
            config: Config { unassociated_per_address: 64, ..Config::default() },
            transport: Transport::default(),
            block_size: 512,
            buffers: 64,
            seed: 1,
        }
    }
}

/// Everything together.
pub struct Rig {
    pub now: Time,
    pub cores: Vec<Core>,
    pub host: Loopback,
    pub snapshot: Snapshot,
    pub disk: Rc<RefCell<Disk>>,
    /// A connection that the host does not read.
    pub deaf: Option<ConnId>,
    host_pool: Pool,
    inboxes: HashMap<ConnId, Inbox>,
}

thread_local! {
    /// Pools of finished rigs. The memory behind a pool is never given back, so thousands of rigs share a few.
    static POOLS: RefCell<Vec<Pool>> = const { RefCell::new(Vec::new()) };
}

fn pool(core: CoreId, classes: &[Class]) -> Pool {
    let fits = |p: &Pool| p.core() == core && p.stats().map(|s| s.total).eq(classes.iter().map(|c| c.count));
    POOLS
        .with_borrow_mut(|pools| {
            let at = pools.iter().position(fits)?;
            Some(pools.swap_remove(at))
        })
        .unwrap_or_else(|| Pool::standalone(core, classes).unwrap())
}

pub fn info(block_size: u32) -> Info {
    Info {
        id: VolumeId(9),
        block_size,
        blocks: SIZE as u64 / u64::from(block_size),
        uuid: [3; 16],
        thin: true,
        read_only: false,
        volatile_cache: false,
        atomic_blocks: 1,
    }
}

impl Rig {
    pub fn plain() -> Rig {
        Rig::new(Setup::default())
    }

    #[allow(clippy::needless_pass_by_value)] // made where it is used
    pub fn new(setup: Setup) -> Rig {
        let network = Network::new(setup.loopback);
        let disk = Disk { bytes: vec![0; SIZE], info: info(setup.block_size), log: Vec::new() };
        let disk = Rc::new(RefCell::new(disk));
        let classes = [
            Class { size: 4096, count: setup.buffers },
            Class { size: 65536, count: setup.buffers },
            Class { size: 1 << 20, count: 4 },
        ];
        let mut cores = Vec::new();
        for i in 0..setup.cores {
            let mut net = network.net();
            let (listener, addr) = net.listen("0.0.0.0:4420".parse().unwrap(), false).unwrap();
            let mut target = Target::new(CoreId(i), setup.cores, &setup.config);
            target.listen(listener, addr);
            let volumes = Memory {
                disk: disk.clone(),
                mood: Mood::default(),
                waiting: VecDeque::new(),
                rng: Rng::new(setup.seed + u64::from(i)),
                info: info(setup.block_size),
            };
            let pool = pool(CoreId(i), &classes);
            cores.push(Core { net, target, volumes, pool, addr, listener, mail: VecDeque::new() });
        }
        let ns = Namespace {
            nsid: 1,
            info: info(setup.block_size),
            nguid: [1; 16],
            eui64: [2; 8],
            uuid: [3; 16],
            anagrpid: 1,
            visible: Visibility::All,
        };
        let subsystem = Subsystem {
            nqn: NQN.into(),
            serial: "SN1".into(),
            model: "01234567-89ab-cdef-0123-456789abcdef".into(),
            firmware: "fw1".into(),
            allow_any_host: false,
            hosts: vec![HOST.into()],
            namespaces: vec![ns],
            listeners: cores.iter().map(|c| c.addr).collect(),
            cntlid_min: 1,
            cntlid_max: 0xffef,
            max_namespaces: 4,
        };
        let snapshot = Snapshot {
            generation: 1,
            transport: Some(setup.transport),
            subsystems: vec![subsystem],
            referrals: Vec::new(),
        };
        let host_pool = pool(CoreId(99), &[Class { size: 4096, count: 1 }]);
        let host = network.net();
        let inboxes = HashMap::new();
        let mut rig = Rig { now: Time(1), cores, host, snapshot, disk, deaf: None, host_pool, inboxes };
        rig.configure();
        rig
    }

    /// Publishes the snapshot to every core.
    pub fn configure(&mut self) {
        let snapshot = Arc::new(self.snapshot.clone());
        for core in &mut self.cores {
            core.target.configure(snapshot.clone());
        }
    }

    /// One turn of every core and of the host.
    pub fn turn(&mut self) {
        self.now = self.now.after_ns(10_000);
        let now = self.now;
        let mut sent = Vec::new();
        let mut done = Vec::new();
        for core in &mut self.cores {
            core.net.poll(now, &mut core.pool, &mut core.target.join(now, &mut core.volumes));
            while let Some((from, message)) = core.mail.pop_front() {
                core.target.message(now, from, message, &mut core.net, &mut core.pool);
            }
            core.volumes.step(&mut core.pool, &mut done);
            core.target.respond(now, &mut done, &mut core.net, &mut core.pool);
            core.target.tick(now, &mut core.net, &mut core.volumes, &mut core.pool);
            let from = CoreId(sent.len() as u16);
            sent.push((from, core.target.outbox().collect::<Vec<_>>()));
            core.net.flush(now, &mut core.pool);
        }
        for (from, messages) in sent {
            for (to, message) in messages {
                self.cores[to.index()].mail.push_back((from, message));
            }
        }
        self.host.poll(now, &mut self.host_pool, &mut Collector(&mut self.inboxes, self.deaf));
        self.host.flush(now, &mut self.host_pool);
    }

    pub fn turns(&mut self, n: usize) {
        for _ in 0..n {
            self.turn();
        }
    }

    /// Moves the clock, with turns on the way so that timers are seen.
    pub fn pass_ms(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(100) {
            self.now = self.now.after_ms(100);
            self.turn();
        }
    }

    /// A TCP connection to a core.
    pub fn dial(&mut self, core: usize) -> ConnId {
        let conn = self.host.connect(self.cores[core].addr).unwrap();
        for _ in 0..4 {
            self.turn();
        }
        conn
    }

    pub fn send(&mut self, conn: ConnId, bytes: &[u8]) {
        if let Some(tx) = self.host.tx(conn) {
            tx.head(bytes);
        }
    }

    /// The next PDU, if it is there without another turn.
    fn parse(&mut self, conn: ConnId, rules: &Receiver) -> Option<Got> {
        let inbox = self.inboxes.get_mut(&conn)?;
        let bytes = inbox.bytes.make_contiguous();
        let frame: Frame = rules.frame(bytes).expect("the target sends legal PDUs")?;
        let pdu = bytes.get(..frame.end as usize)?.to_vec();
        inbox.bytes.drain(..frame.end as usize);
        let data = pdu[frame.data_at as usize..][..frame.data_len as usize].to_vec();
        if frame.data_digest {
            let at = (frame.data_at + frame.data_len) as usize;
            assert!(crate::wire::nvme_tcp::digest_ok(&data, &pdu[at..]), "the target's data digest is right");
        }
        Some(match frame.kind {
            PduKind::IcResp => Got::Ic(*IcResp::ref_from_prefix(&pdu).unwrap().0),
            PduKind::CapsuleResp => Got::Resp(CapsuleResp::ref_from_prefix(&pdu).unwrap().0.cqe),
            PduKind::C2hData => Got::Data(*Data::ref_from_prefix(&pdu).unwrap().0, data),
            PduKind::R2t => Got::R2t(*R2t::ref_from_prefix(&pdu).unwrap().0),
            PduKind::C2hTermReq => Got::Term(*TermReq::ref_from_prefix(&pdu).unwrap().0, data),
            _ => unreachable!("not from a controller"),
        })
    }

    /// The next PDU within `turns` turns.
    pub fn recv_within(&mut self, conn: ConnId, digests: Digests, turns: usize) -> Got {
        let rules = Receiver::agreed(Side::Host, digests, 0, 0, 1 << 20);
        for _ in 0..turns {
            if let Some(got) = self.parse(conn, &rules) {
                return got;
            }
            if self.inboxes.get(&conn).is_some_and(|i| i.closed.is_some()) {
                return Got::Closed;
            }
            self.turn();
        }
        Got::Nothing
    }

    pub fn recv(&mut self, conn: ConnId) -> Got {
        self.recv_within(conn, Digests::default(), 20_000)
    }

    pub fn closed(&self, conn: ConnId) -> bool {
        self.inboxes.get(&conn).is_some_and(|i| i.closed.is_some())
    }

    /// The handshake.
    pub fn shake(&mut self, conn: ConnId, hpda: u8, digests: Digests) -> IcResp {
        self.send(conn, IcReq::new(hpda, digests, 0).as_bytes());
        match self.recv(conn) {
            Got::Ic(resp) => resp,
            other => panic!("no ICResp: {other:?}"),
        }
    }

    /// A Connect on a connection that has shaken hands; the raw completion.
    pub fn connect(&mut self, conn: ConnId, digests: Digests, params: Connect, data: &ConnectData) -> Cqe {
        let capsule = CapsuleCmd::with_data(params.sqe(1), 1024, 4, digests);
        self.send(conn, Head::of(&capsule).bytes());
        self.send(conn, data.as_bytes());
        if digests.data {
            self.send(conn, &crate::base::crc::crc32c(data.as_bytes()).to_le_bytes());
        }
        match self.recv_within(conn, digests, 20_000) {
            Got::Resp(cqe) => cqe,
            other => panic!("no answer to Connect: {other:?}"),
        }
    }

    /// A queue of controller `cntlid` (FFFFh: a new one, for qid 0).
    pub fn queue(&mut self, core: usize, nqn: &str, cntlid: u16, qid: u16, cattr: u8, wish: Digests) -> Queue {
        self.queue_of(HOST, core, nqn, (cntlid, qid), cattr, wish)
    }

    /// The same for any host.
    pub fn queue_of(
        &mut self,
        host: &str,
        core: usize,
        nqn: &str,
        (cntlid, qid): (u16, u16),
        cattr: u8,
        wish: Digests,
    ) -> Queue {
        let conn = self.dial(core);
        let ic = self.shake(conn, 0, wish);
        let digests = Digests::from_bits(ic.dgst);
        let sqsize = if qid == 0 { 31 } else { 127 };
        let params = Connect { format: 0, qid, sqsize, cattr, kato: 10_000 };
        let cqe = self.connect(conn, digests, params, &ConnectData::new(HOSTID, cntlid, nqn, host));
        assert_eq!(cqe.code(), sc::SUCCESS, "Connect of queue {qid}: result {:x}", cqe.result.get());
        let cntlid = result_cntlid(cqe.result.get());
        assert_eq!(cqe.result.get(), connect_result(cntlid));
        let in_capsule = self.snapshot.transport.map_or(0, |t| t.clamped().in_capsule_bytes);
        let in_capsule = if qid == 0 { 8192 } else { in_capsule };
        Queue { conn, cntlid, digests, in_capsule, cpda: ic.cpda, next_cid: 100 }
    }

    /// An enabled controller's admin queue.
    pub fn admin(&mut self, core: usize, nqn: &str) -> Queue {
        let mut q = self.queue(core, nqn, 0xffff, 0, 0, Digests::default());
        self.enable(&mut q);
        q
    }

    pub fn enable(&mut self, q: &mut Queue) {
        let cc = u64::from(property::CC_ENABLE_NVM);
        let cid = q.cid();
        assert_eq!(self.command(q, Property::set(cid, property::CC, false, cc), &[]).0.code(), sc::SUCCESS);
        let cid = q.cid();
        let (csts, _) = self.command(q, Property::get(cid, property::CSTS, false), &[]);
        assert_eq!(csts.result.get(), 1, "CSTS.RDY");
    }

    /// An admin and one I/O queue on core 0, SQ flow control off.
    pub fn ready(&mut self) -> (Queue, Queue) {
        let admin = self.admin(0, NQN);
        let io = self.queue(0, NQN, admin.cntlid, 1, 4, Digests::default());
        (admin, io)
    }

    /// Sends a command capsule, with its data inside when the SGL says so.
    pub fn submit(&mut self, q: &Queue, sqe: Sqe, data: &[u8]) {
        if sqe.sgl.kind == Sgl::IN_CAPSULE {
            self.send_capsule(q, sqe, data);
        } else {
            self.send(q.conn, Head::of(&CapsuleCmd::new(sqe, q.digests)).bytes());
        }
    }

    /// Sends a command capsule with data inside, whatever the SGL says.
    pub fn send_capsule(&mut self, q: &Queue, sqe: Sqe, data: &[u8]) {
        let align = (u32::from(q.cpda) + 1) * 4;
        let capsule = CapsuleCmd::with_data(sqe, data.len() as u32, align, q.digests);
        self.send(q.conn, Head::of(&capsule).bytes());
        self.send_data(q, data);
    }

    fn send_data(&mut self, q: &Queue, data: &[u8]) {
        self.send(q.conn, data);
        if q.digests.data {
            self.send(q.conn, &crate::base::crc::crc32c(data).to_le_bytes());
        }
    }

    /// Answers an R2T, in PDUs of at most `most` bytes.
    pub fn answer(&mut self, q: &Queue, r2t: &R2t, data: &[u8], most: usize) {
        let (from, len) = (r2t.r2to.get() as usize, r2t.r2tl.get() as usize);
        let mut at = from;
        for part in data[from..from + len].chunks(most) {
            let last = at + part.len() == from + len;
            let align = (u32::from(q.cpda) + 1) * 4;
            let (cid, ttag) = (r2t.cccid.get(), r2t.ttag.get());
            let head = Data::h2c(cid, ttag, at as u32, part.len() as u32, last, align, q.digests);
            self.send(q.conn, Head::of(&head).bytes());
            self.send_data(q, part);
            at += part.len();
        }
    }

    /// The completion of command `cid`, answering R2Ts with `data` on the way, and the data it brought.
    pub fn complete(&mut self, q: &Queue, cid: u16, data: &[u8]) -> (Cqe, Vec<u8>) {
        let mut read = Vec::new();
        loop {
            match self.recv_within(q.conn, q.digests, 20_000) {
                Got::Resp(cqe) => {
                    assert_eq!(cqe.cid.get(), cid);
                    return (cqe, read);
                }
                Got::R2t(r2t) => self.answer(q, &r2t, data, 16 * 1024),
                Got::Data(head, bytes) => {
                    assert_eq!((head.cccid.get(), head.datao.get() as usize), (cid, read.len()));
                    read.extend(bytes);
                    if head.ch.flags & pdu::SUCCESS != 0 {
                        return (Cqe::new(cid, 0, 0, 0), read);
                    }
                }
                other => panic!("command {cid}: {other:?}"),
            }
        }
    }

    /// One command from beginning to end.
    pub fn command(&mut self, q: &Queue, sqe: Sqe, data: &[u8]) -> (Cqe, Vec<u8>) {
        self.submit(q, sqe, data);
        self.complete(q, sqe.cid.get(), data)
    }

    /// Ends every connection, lets everything settle, and checks that nothing is left behind.
    pub fn finish(mut self) {
        let conns: Vec<ConnId> = self.inboxes.keys().copied().collect();
        for conn in conns {
            self.host.close(conn, crate::net::Close::Now);
        }
        for core in &mut self.cores {
            core.volumes.mood = Mood::default();
        }
        self.turns(600);
        for core in &mut self.cores {
            let stats = core.target.stats();
            assert_eq!(core.net.connections(), 0, "connections left");
            assert_eq!((stats.pending_now, stats.unassociated_now, stats.controllers_now), (0, 0, 0));
            assert!(core.target.quiet(VolumeId(9)));
            for class in core.pool.stats() {
                assert_eq!(class.free, class.total, "buffers of {} bytes left behind", class.size);
            }
        }
        POOLS.with_borrow_mut(|pools| pools.extend(self.cores.into_iter().map(|c| c.pool)));
    }
}

impl Queue {
    /// A connection that is no queue yet.
    pub fn bare(conn: ConnId) -> Queue {
        Queue { conn, cntlid: 0, digests: Digests::default(), in_capsule: 8192, cpda: 0, next_cid: 100 }
    }

    /// A command identifier that was not used before.
    pub fn cid(&mut self) -> u16 {
        self.next_cid = self.next_cid.wrapping_add(1);
        self.next_cid
    }
}
