//! Initiators, a net and one or more cores with targets, all in one thread and on one clock.

use super::volumes::{Disk, Memory, Mood, SIZE, VOLUME, info};
use crate::base::{CoreId, Time};
use crate::iscsi::lu::{Access, Device, Group, Unit};
use crate::iscsi::{
    Auth, Config, InitiatorGroup, Message, Netmask, Options, Order, Pattern, PortalGroup, Snapshot, Target, TargetNode,
};
use crate::mem::{Class, Pool};
use crate::net::{Close, Closed, ConnId, Ends, Handler, ListenerId, Loopback, LoopbackConfig, Net, Network, Tx};
use crate::wire::iscsi::pdu::{
    DataIn, DataOut, Head, LoginRequest, LoginResponse, R2t, ScsiCommand, ScsiResponse, Tail,
};
use crate::wire::iscsi::pdu::{READ, STATUS, WRITE};
use crate::wire::iscsi::text::Pairs;
use crate::wire::iscsi::{BHS_LEN, Digests, LoginStatus, Lun, Opcode, Receiver, Stage};
use core::net::SocketAddr;
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use zerocopy::{FromBytes, Immutable, IntoBytes};

pub const NAME: &str = "iqn.2024-01.io.pollux:one";
pub const HOST: &str = "iqn.2024-01.io.pollux:host";
/// `TargetPortalGroupTag` of the first core's portal.
pub const TAG: u16 = 1;
/// Index of the target.
pub const INDEX: u32 = 17;

/// One core.
pub struct Core {
    pub net: Loopback,
    pub target: Target,
    pub volumes: Memory,
    pub pool: Pool,
    pub addr: SocketAddr,
    /// What it ordered of the control plane.
    pub orders: Vec<Order>,
    /// Tokens of orders that are not answered yet.
    unanswered: VecDeque<u64>,
    mail: VecDeque<(CoreId, Message)>,
}

/// What the host has received on one connection.
#[derive(Default)]
struct Inbox {
    bytes: VecDeque<u8>,
    closed: Option<Closed>,
}

struct Collector<'a>(&'a mut HashMap<ConnId, Inbox>, Option<ConnId>);

impl Handler for Collector<'_> {
    fn accepted(&mut self, _: ConnId, _: ListenerId, _: Ends, _: &mut Tx) -> bool {
        false
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
#[derive(Clone, Debug)]
pub struct Got {
    pub bhs: [u8; BHS_LEN],
    pub data: Vec<u8>,
}

impl Got {
    pub fn opcode(&self) -> Opcode {
        Opcode::of(self.bhs[0] & Opcode::MASK).unwrap()
    }
    /// As a header of one kind.
    pub fn header<T: FromBytes + Immutable + zerocopy::KnownLayout + Copy>(&self) -> T {
        *T::ref_from_bytes(&self.bhs).unwrap()
    }
    /// The value of a key in its text.
    pub fn key(&self, key: &str) -> Option<String> {
        let found = Pairs::new(&self.data).map(Result::unwrap).find(|(k, _)| *k == key);
        found.map(|(_, v)| v.to_owned())
    }
}

/// How a command ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    pub status: u8,
    /// Sense key and additional code.
    pub sense: Option<(u8, u16)>,
    /// Residual bits and count.
    pub residual: (u8, u32),
    pub data: Vec<u8>,
}

/// How a rig is made.
#[derive(Clone)]
pub struct Setup {
    pub cores: u16,
    pub loopback: LoopbackConfig,
    pub config: Config,
    pub options: Options,
    pub block_size: u32,
    pub buffers: usize,
    pub seed: u64,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            cores: 1,
            loopback: LoopbackConfig::default(),
            config: Config { unauthenticated_per_address: 64, ..Config::default() },
            options: Options::default(),
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
    /// The control plane answers no orders.
    pub control_silent: bool,
    host_pool: Pool,
    inboxes: HashMap<ConnId, Inbox>,
    next_isid: u8,
}

thread_local! {
    /// Pools of finished rigs. The memory behind a pool is never given back, so thousands of rigs share a few.
    static POOLS: RefCell<Vec<Pool>> = const { RefCell::new(Vec::new()) };
}

fn pool(core: CoreId, classes: &[Class]) -> Pool {
    let fits = |p: &Pool| p.core() == core && p.stats().map(|s| s.total).eq(classes.iter().map(|c| c.count));
    let known = POOLS.with_borrow_mut(|pools| {
        let at = pools.iter().position(fits)?;
        Some(pools.swap_remove(at))
    });
    known.unwrap_or_else(|| Pool::standalone(core, classes).unwrap())
}

impl Rig {
    pub fn plain() -> Rig {
        Rig::new(Setup::default())
    }

    #[allow(clippy::needless_pass_by_value)] // made where it is used
    pub fn new(setup: Setup) -> Rig {
        let network = Network::new(setup.loopback);
        let disk = Rc::new(RefCell::new(Disk { bytes: vec![0; SIZE], log: Vec::new() }));
        let classes = [
            Class { size: 4096, count: setup.buffers },
            Class { size: 65536, count: setup.buffers },
            Class { size: 1 << 20, count: 8 },
        ];
        let mut cores = Vec::new();
        for i in 0..setup.cores {
            let mut net = network.net();
            let (listener, addr) = net.listen("0.0.0.0:3260".parse().unwrap(), false).unwrap();
            let mut target = Target::new(CoreId(i), setup.cores, &setup.config, [i as u8; 32]);
            target.listen(listener, addr);
            let volumes = Memory::new(&disk, setup.block_size, setup.seed + u64::from(i));
            let pool = pool(CoreId(i), &classes);
            let (orders, unanswered, mail) = (Vec::new(), VecDeque::new(), VecDeque::new());
            cores.push(Core { net, target, volumes, pool, addr, orders, unanswered, mail });
        }
        // All cores are one portal group, as cores that share a port are.
        let portals = cores.iter().map(|c| c.addr).collect();
        let groups = vec![Group { id: TAG, access: Access::ActiveOptimized, preferred: false, ports: vec![TAG] }];
        let unit = Unit {
            lun: 0,
            info: info(setup.block_size),
            vendor: "Pollux".into(),
            product: "Volume".into(),
            revision: "0001".into(),
            serial: "SN1".into(),
            physical_block: 4096,
            threshold_percent: 0,
            device: Arc::new(Device::new(NAME.into(), groups)),
        };
        let node = TargetNode {
            name: NAME.into(),
            alias: "one".into(),
            index: INDEX,
            maps: vec![(TAG, 1)],
            luns: vec![unit],
            queue_depth: 32,
            auth: Auth::default(),
            header_digest: false,
            data_digest: false,
            redirects: Vec::new(),
        };
        let snapshot = Snapshot {
            generation: 1,
            options: Some(setup.options),
            portal_groups: vec![PortalGroup { tag: TAG, private: false, portals, discovery_auth: None }],
            initiator_groups: vec![InitiatorGroup {
                tag: 1,
                initiators: vec![Pattern::Name(HOST.into())],
                netmasks: vec![Netmask::Any],
            }],
            auth_groups: Vec::new(),
            targets: vec![node],
        };
        let host_pool = pool(CoreId(99), &[Class { size: 4096, count: 1 }]);
        let host = network.net();
        let inboxes = HashMap::new();
        let mut rig = Rig {
            now: Time(1),
            cores,
            host,
            snapshot,
            disk,
            deaf: None,
            control_silent: false,
            host_pool,
            inboxes,
            next_isid: 0,
        };
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
                core.target.message(now, from, message, &mut core.net, &mut core.volumes, &mut core.pool);
            }
            while !self.control_silent
                && let Some(token) = core.unanswered.pop_front()
            {
                core.target.reserved(now, token, Ok(()), &mut core.net, &mut core.volumes, &mut core.pool);
            }
            core.volumes.step(&mut core.pool, &mut done);
            core.target.respond(now, &mut done, &mut core.net, &mut core.volumes, &mut core.pool);
            core.target.tick(now, &mut core.net, &mut core.volumes, &mut core.pool);
            for order in core.target.to_control() {
                core.unanswered.push_back(order.token);
                core.orders.push(order);
            }
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

    /// How every core's volumes behave.
    pub fn mood(&mut self, mood: Mood) {
        for core in &mut self.cores {
            core.volumes.mood = mood;
        }
    }

    /// A TCP connection to a core.
    pub fn dial(&mut self, core: usize) -> ConnId {
        let conn = self.host.connect(self.cores[core].addr).unwrap();
        self.turns(4);
        conn
    }

    pub fn send(&mut self, conn: ConnId, bytes: &[u8]) {
        if let Some(tx) = self.host.tx(conn) {
            tx.head(bytes);
        }
    }

    /// Sends a header and its data, with digests.
    pub fn put<T: IntoBytes + Immutable>(&mut self, conn: ConnId, digests: Digests, pdu: &T, data: &[u8]) {
        self.send(conn, Head::of(pdu, digests).bytes());
        self.send(conn, data);
        self.send(conn, Tail::of(data, digests).bytes());
    }

    /// The next PDU within `turns` turns; `None` when none comes, or the connection has ended.
    pub fn recv_within(&mut self, conn: ConnId, digests: Digests, turns: usize) -> Option<Got> {
        let rules = Receiver::agreed(digests, (1 << 24) - 1, 0);
        for _ in 0..=turns {
            if let Some(inbox) = self.inboxes.get_mut(&conn) {
                let bytes = inbox.bytes.make_contiguous();
                let frame = rules.frame(bytes).expect("the target sends legal PDUs");
                if let Some(frame) = frame
                    && let Some(pdu) = bytes.get(..frame.end as usize)
                {
                    let (at, len) = (frame.data_at as usize, frame.data_len as usize);
                    if frame.data_digest {
                        let (padded, digest) = pdu[at..].split_at(frame.padded_len());
                        assert!(crate::wire::iscsi::pdu::data_digest_ok(padded, digest), "a right data digest");
                    }
                    let got = Got { bhs: *pdu.first_chunk().unwrap(), data: pdu[at..at + len].to_vec() };
                    inbox.bytes.drain(..frame.end as usize);
                    return Some(got);
                }
                if inbox.closed.is_some() {
                    return None;
                }
            }
            self.turn();
        }
        None
    }

    pub fn closed(&self, conn: ConnId) -> bool {
        self.inboxes.get(&conn).is_some_and(|i| i.closed.is_some())
    }

    /// Hangs up.
    pub fn hang_up(&mut self, conn: ConnId) {
        self.host.close(conn, Close::Now);
        self.turns(6);
    }

    /// An initiator port that was not used before.
    pub fn isid(&mut self) -> [u8; 6] {
        self.next_isid += 1;
        [0x80, 0, 0, 0, 0, self.next_isid]
    }

    /// One login request, and its response.
    pub fn ask(&mut self, conn: ConnId, request: &LoginRequest, text: &str) -> Option<(LoginResponse, Got)> {
        let mut request = *request;
        request.lengths = crate::wire::iscsi::pdu::Lengths::data(text.len() as u32);
        self.put(conn, Digests::NONE, &request, text.as_bytes());
        let got = self.recv_within(conn, Digests::NONE, 2000)?;
        assert_eq!(got.opcode(), Opcode::LoginResponse);
        Some((got.header(), got))
    }

    /// Straight through the operational stage with `keys` added; the response.
    pub fn login_as(&mut self, conn: ConnId, isid: [u8; 6], names: &str, keys: &str) -> (LoginResponse, Got) {
        let request = LoginRequest::new(isid, 1, Stage::Operational, Some(Stage::FullFeature), 0);
        self.ask(conn, &request, &format!("{names}{keys}")).expect("an answer to a login")
    }

    /// A session with the target on a core, with keys of the test's choice.
    pub fn login(&mut self, core: usize, keys: &str) -> Link {
        let isid = self.isid();
        self.login_with(core, isid, keys)
    }

    pub fn login_with(&mut self, core: usize, isid: [u8; 6], keys: &str) -> Link {
        let conn = self.dial(core);
        let (response, got) = self.login_as(conn, isid, &names(HOST, NAME), keys);
        assert_eq!(response.status(), Some(LoginStatus::Success), "{got:?}");
        assert!(response.transit());
        let crc = |key| got.key(key).as_deref() == Some("CRC32C");
        let digests = Digests { header: crc("HeaderDigest"), data: crc("DataDigest") };
        let tsih = response.tsih.get();
        let mut link = Link { conn, isid, tsih, digests, cmd_sn: 0, itt: 100, max_cmd_sn: 0 };
        // What every new nexus is told first.
        assert_eq!(self.command(&mut link, &[0; 16], 0, &[]).sense, Some((6, 0x2900)));
        link
    }

    /// Sends a SCSI command with `immediate` bytes of its data; returns its tag. `flags` has READ, WRITE and FINAL.
    pub fn submit(&mut self, link: &mut Link, flags: u8, cdb: &[u8; 16], expected: u32, immediate: &[u8]) -> u32 {
        link.itt += 1;
        let mut cmd = ScsiCommand::new(flags | 1, Lun::of(0), link.itt, expected, immediate.len() as u32, *cdb);
        cmd.cmd_sn.set(link.cmd_sn);
        link.cmd_sn = link.cmd_sn.wrapping_add(1);
        self.put(link.conn, link.digests, &cmd, immediate);
        link.itt
    }

    /// Data-Out PDUs of at most `most` bytes for `data[from..to]`.
    pub fn data_out(
        &mut self,
        link: &Link,
        (itt, ttt): (u32, u32),
        data: &[u8],
        (from, to): (usize, usize),
        most: usize,
    ) {
        let mut at = from;
        for (sn, part) in data[from..to].chunks(most).enumerate() {
            let last = at + part.len() == to;
            let pdu = DataOut::new(Lun::of(0), itt, ttt, sn as u32, at as u32, part.len() as u32, last);
            self.put(link.conn, link.digests, &pdu, part);
            at += part.len();
        }
    }

    /// The end of command `itt`, answering R2Ts from `data` on the way.
    pub fn complete(&mut self, link: &mut Link, itt: u32, data: &[u8]) -> Ended {
        let mut ended = Ended::default();
        loop {
            let got = self.recv_within(link.conn, link.digests, 20_000).unwrap_or_else(|| panic!("no end of {itt}"));
            match got.opcode() {
                Opcode::DataIn => {
                    let head: DataIn = got.header();
                    assert_eq!((head.itt.get(), head.offset.get() as usize), (itt, ended.data.len()));
                    ended.data.extend(&got.data);
                    if head.flags & STATUS != 0 {
                        link.saw(head.numbers.max_cmd_sn.get());
                        ended.status = head.status;
                        ended.residual = (head.flags & 6, head.residual.get());
                        return ended;
                    }
                }
                Opcode::ScsiResponse => {
                    let head: ScsiResponse = got.header();
                    assert_eq!((head.itt.get(), head.response), (itt, 0));
                    link.saw(head.numbers.max_cmd_sn.get());
                    ended.status = head.status;
                    ended.residual = (head.flags & 6, head.residual.get());
                    if !got.data.is_empty() {
                        let sense = &got.data[2..];
                        assert_eq!(usize::from(u16::from_be_bytes([got.data[0], got.data[1]])), sense.len());
                        ended.sense = Some((sense[2] & 15, u16::from_be_bytes([sense[12], sense[13]])));
                    }
                    return ended;
                }
                Opcode::R2t => {
                    let r2t: R2t = got.header();
                    assert_eq!(r2t.itt.get(), itt);
                    let (from, len) = (r2t.offset.get() as usize, r2t.desired.get() as usize);
                    self.data_out(link, (itt, r2t.ttt.get()), data, (from, from + len), 8192);
                }
                other => panic!("{other:?} while waiting for {itt}: {got:?}"),
            }
        }
    }

    /// One command from beginning to end; data goes as R2Ts ask for it.
    pub fn command(&mut self, link: &mut Link, cdb: &[u8; 16], room: u32, data: &[u8]) -> Ended {
        let (flags, expected) = match (room, data.len() as u32) {
            (0, 0) => (0, 0),
            (room, 0) => (READ, room),
            (_, len) => (WRITE, len),
        };
        let itt = self.submit(link, 0x80 | flags, cdb, expected, &[]);
        self.complete(link, itt, data)
    }

    /// Ends every connection, lets everything settle, and checks that nothing is left behind.
    pub fn finish(mut self) {
        let conns: Vec<ConnId> = self.inboxes.keys().copied().collect();
        for conn in conns {
            self.host.close(conn, Close::Now);
        }
        self.mood(Mood::default());
        self.turns(600);
        for core in &mut self.cores {
            let stats = core.target.stats();
            assert_eq!(core.net.connections(), 0, "connections left");
            assert_eq!((stats.pending_now, stats.in_login_now, stats.sessions_now), (0, 0, 0));
            assert!(core.target.quiet(VOLUME) && core.target.settled());
            for class in core.pool.stats() {
                assert_eq!(class.free, class.total, "buffers of {} bytes left behind", class.size);
            }
        }
        POOLS.with_borrow_mut(|pools| pools.extend(self.cores.into_iter().map(|c| c.pool)));
    }
}

/// The keys that name a session.
pub fn names(host: &str, target: &str) -> String {
    format!("InitiatorName={host}\0TargetName={target}\0SessionType=Normal\0")
}

/// One connection of the host.
#[derive(Clone, Debug)]
pub struct Link {
    pub conn: ConnId,
    pub isid: [u8; 6],
    pub tsih: u16,
    pub digests: Digests,
    pub cmd_sn: u32,
    pub itt: u32,
    pub max_cmd_sn: u32,
}

impl Link {
    fn saw(&mut self, max_cmd_sn: u32) {
        assert!(!crate::wire::iscsi::sn_before(max_cmd_sn, self.max_cmd_sn), "MaxCmdSN never goes back");
        self.max_cmd_sn = max_cmd_sn;
    }
}

/// READ(10) or WRITE(10).
pub fn cdb10(op: u8, lba: u32, blocks: u16) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = op;
    cdb[2..6].copy_from_slice(&lba.to_be_bytes());
    cdb[7..9].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

/// Bytes that tell their place.
pub fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(31) ^ (i >> 8) as u8 ^ seed).collect()
}
