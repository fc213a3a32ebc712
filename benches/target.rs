//! What the NVMe/TCP target costs per command beside system calls and copies: one connection fed from memory, volumes
//! that answer at once and move no data, answers dropped from the send queue.
//!
//! `cargo bench --bench target -- [--millis 200]`. Prints nanoseconds per command: the fifth percentile of many
//! short rounds, which a busy machine disturbs least, and the median.

use pollux::base::{CoreId, Status, Time, VolumeId};
use pollux::mem::{Class, Pool};
use pollux::net::{ConnId, Ends, Handler, ListenerId, Tx};
use pollux::nvmf::{Config, Namespace, Snapshot, Subsystem, Target, Transport, Visibility};
use pollux::volume::{Completion, Info, Kind, Payload, Request, Submit, Volumes};
use pollux::wire::fabrics::{CNTLID_DYNAMIC, Connect, ConnectData, Property, property};
use pollux::wire::nvme::{Sgl, Sqe, io_op};
use pollux::wire::nvme_tcp::Digests;
use pollux::wire::nvme_tcp::pdu::{CapsuleCmd, Data, Head, IcReq};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};
use zerocopy::IntoBytes;

const NQN: &str = "nqn.2024-01.io.pollux:bench";
const LEN: u32 = 4096;

/// Answers at once; reads bring whatever a buffer holds.
struct Instantly {
    info: Info,
    sum: u64,
}

impl Volumes for Instantly {
    fn info(&self, volume: VolumeId) -> Option<&Info> {
        (volume == self.info.id).then_some(&self.info)
    }
    #[inline]
    fn submit(&mut self, request: Request, payload: Payload<'_>, pool: &mut Pool) -> Submit {
        let buf = match request.kind {
            Kind::Read => match pool.get(LEN as usize) {
                Some(buf) => Some(buf),
                None => return Submit::Later(None),
            },
            _ => None,
        };
        self.sum += payload.bytes().len() as u64;
        if let Some(buf) = payload.into_buf() {
            pool.put(buf);
        }
        Submit::Done(Completion::plain(request.tag, Status::Ok, buf))
    }
}

/// A target with one I/O queue.
struct Rig {
    target: Target,
    volumes: Instantly,
    pool: Pool,
    tx: Tx,
    io: ConnId,
}

impl Rig {
    fn new(digests: Digests, cattr: u8) -> Rig {
        let info = Info {
            id: VolumeId(1),
            block_size: 4096,
            blocks: 1 << 30,
            uuid: [1; 16],
            thin: true,
            read_only: false,
            volatile_cache: false,
            atomic_blocks: 1,
        };
        let addr = "127.0.0.1:4420".parse().unwrap();
        let ns = Namespace {
            nsid: 1,
            info: info.clone(),
            nguid: [1; 16],
            eui64: [0; 8],
            uuid: [1; 16],
            anagrpid: 1,
            visible: Visibility::All,
        };
        let subsystem = Subsystem {
            nqn: NQN.into(),
            serial: "1".into(),
            model: "bench".into(),
            firmware: "1".into(),
            allow_any_host: true,
            hosts: Vec::new(),
            namespaces: vec![ns],
            listeners: vec![addr],
            cntlid_min: 1,
            cntlid_max: 0xffef,
            max_namespaces: 32,
        };
        let mut target = Target::new(CoreId(0), 1, &Config::default());
        target.listen(ListenerId(0), addr);
        target.configure(Arc::new(Snapshot {
            generation: 1,
            transport: Some(Transport::default()),
            subsystems: vec![subsystem],
            referrals: Vec::new(),
        }));
        let classes = [Class { size: 4096, count: 512 }, Class { size: 65536, count: 64 }];
        let pool = Pool::standalone(CoreId(0), &classes).unwrap();
        let io = ConnId { slot: 1, generation: 0 };
        let mut rig = Rig { target, volumes: Instantly { info, sum: 0 }, pool, tx: Tx::new(1 << 16, 1 << 10), io };
        let admin = ConnId { slot: 0, generation: 0 };
        rig.open(admin, digests, 0, CNTLID_DYNAMIC, cattr);
        let enable = Property::set(2, property::CC, false, u64::from(property::CC_ENABLE_NVM));
        rig.feed(admin, Head::of(&CapsuleCmd::new(enable, digests)).bytes());
        let cntlid = rig.target.controllers().next().expect("just made").cntlid;
        rig.open(io, digests, 1, cntlid, cattr);
        assert_eq!(rig.target.stats().io_queues_now, 1);
        rig
    }

    fn open(&mut self, conn: ConnId, digests: Digests, qid: u16, cntlid: u16, cattr: u8) {
        let ends = Ends { local: "127.0.0.1:4420".parse().unwrap(), peer: "127.0.0.1:9".parse().unwrap() };
        let mut joined = self.target.join(Time(0), &mut self.volumes);
        assert!(joined.accepted(conn, ListenerId(0), ends, &mut self.tx));
        self.feed(conn, IcReq::new(0, digests, 0).as_bytes());
        let params = Connect { format: 0, qid, sqsize: 127, cattr, kato: 0 };
        let data = ConnectData::new([1; 16], cntlid, NQN, "nqn.2024-01.io.pollux:host");
        self.feed(conn, &capsule(params.sqe(1), data.as_bytes(), digests));
    }

    /// Everything at once, and the answers dropped.
    fn feed(&mut self, conn: ConnId, bytes: &[u8]) -> usize {
        let mut joined = self.target.join(Time(0), &mut self.volumes);
        let mut at = 0;
        while at < bytes.len() {
            if let Some(place) = joined.landing(conn) {
                let n = place.len().min(bytes.len() - at);
                place[..n].copy_from_slice(&bytes[at..at + n]);
                joined.landed(conn, n, &mut self.tx, &mut self.pool);
                at += n;
                continue;
            }
            let n = joined.data(conn, &bytes[at..], &mut self.tx, &mut self.pool);
            assert!(n > 0, "every PDU is whole");
            at += n;
        }
        let sent = self.tx.len();
        self.tx.sent(sent, &mut self.pool);
        sent
    }
}

fn capsule(sqe: Sqe, data: &[u8], digests: Digests) -> Vec<u8> {
    if data.is_empty() {
        return Head::of(&CapsuleCmd::new(sqe, digests)).bytes().to_vec();
    }
    let mut out = Head::of(&CapsuleCmd::with_data(sqe, data.len() as u32, 4, digests)).bytes().to_vec();
    out.extend(data);
    if digests.data {
        out.extend(pollux::base::crc::crc32c(data).to_le_bytes());
    }
    out
}

/// Runs one case for `time` and prints what a command costs.
fn measure(name: &str, time: Duration, depth: u16, rig: &mut Rig, bytes: &[u8]) {
    let conn = rig.io;
    let mut rounds = Vec::with_capacity(1 << 16);
    let begin = Instant::now();
    while begin.elapsed() < time {
        let start = Instant::now();
        for _ in 0..16 {
            black_box(rig.feed(conn, black_box(bytes)));
        }
        rounds.push(start.elapsed().as_nanos() as f64 / f64::from(16 * u32::from(depth)));
    }
    rounds.sort_by(f64::total_cmp);
    let at = |q: f64| rounds[(rounds.len() as f64 * q) as usize];
    println!("{name:<44} {:>7.1} ns {:>7.1} ns median", at(0.05), at(0.5));
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let millis = args.iter().position(|a| a == "--millis").and_then(|i| args.get(i + 1)?.parse().ok());
    let time = Duration::from_millis(millis.unwrap_or(if args.iter().any(|a| a == "--bench") { 300 } else { 5 }));
    let none = Digests::default();
    let both = Digests { header: true, data: true };
    for (depth, cattr) in [(1u16, 4u8), (32, 4), (32, 0), (128, 4)] {
        let success = if cattr == 0 { "and CapsuleResp" } else { "with SUCCESS" };
        let mut rig = Rig::new(none, cattr);
        let read = |cid| capsule(Sqe::rw(io_op::READ, cid, 1, u64::from(cid), 1, Sgl::transport(LEN)), &[], none);
        let reads: Vec<u8> = (0..depth.min(127)).flat_map(read).collect();
        measure(&format!("read 4 KiB, {depth} at once, {success}"), time, depth.min(127), &mut rig, &reads);
    }
    for digests in [none, both] {
        let what = if digests.data { ", digests" } else { "" };
        let mut rig = Rig::new(digests, 4);
        let data = vec![7; LEN as usize];
        let write =
            |cid| capsule(Sqe::rw(io_op::WRITE, cid, 1, u64::from(cid), 1, Sgl::in_capsule(LEN)), &data, digests);
        let writes: Vec<u8> = (0..32).flat_map(write).collect();
        measure(&format!("write 4 KiB in the capsule, 32 at once{what}"), time, 32, &mut rig, &writes);
    }
    let mut rig = Rig::new(both, 4);
    let read = |cid| capsule(Sqe::rw(io_op::READ, cid, 1, u64::from(cid), 1, Sgl::transport(LEN)), &[], both);
    let reads: Vec<u8> = (0..32).flat_map(read).collect();
    measure("read 4 KiB, 32 at once, digests", time, 32, &mut rig, &reads);
    // One write by R2T: command, R2T, data.
    let mut rig = Rig::new(none, 4);
    let command = capsule(Sqe::rw(io_op::WRITE, 5, 1, 0, 8, Sgl::transport(8 * LEN)), &[], none);
    let data = vec![9; 8 * LEN as usize];
    let mut lap = 0u16;
    let begin = Instant::now();
    let mut rounds = Vec::new();
    while begin.elapsed() < time {
        let start = Instant::now();
        for _ in 0..16 {
            lap = lap.wrapping_add(1);
            rig.feed(rig.io, &command);
            let head = Data::h2c(5, (lap & 0x3f) << 10, 0, 8 * LEN, true, 4, none);
            rig.feed(rig.io, head.as_bytes());
            rig.feed(rig.io, &data);
        }
        rounds.push(start.elapsed().as_nanos() as f64 / 16.0);
    }
    rounds.sort_by(f64::total_cmp);
    let (low, median) = (rounds[rounds.len() / 20], rounds[rounds.len() / 2]);
    println!("{:<44} {low:>7.1} ns {median:>7.1} ns median", "write 32 KiB by R2T, its copy included");
}
