//! One suite for every engine: a message echo whose every byte is known, over small kernel buffers, landing places,
//! pauses, many connections, and every way a connection can end.

use super::*;
use crate::base::CoreId;
use crate::base::rng::Rng;
use crate::mem::Class;
use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

const ANY: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));
/// Largest payload of a message that is parsed whole.
const WHOLE_MAX: usize = CARRY_MAX - 4;

/// Byte `i` of message `n` of a stream.
fn pattern(n: u32, i: usize) -> u8 {
    (n.wrapping_mul(31) as usize ^ i ^ (i >> 8)) as u8
}

/// What one side knows of one connection.
#[derive(Default)]
struct Stream {
    received: u32,
    sent: u32,
    /// Message whose payload is landing: length, bytes so far.
    landing: Option<(usize, usize)>,
    place: Vec<u8>,
    closed: Option<Closed>,
    connected: bool,
}

/// Checks every message and, on the serving side, answers it.
struct Echo {
    serves: bool,
    lands: bool,
    refuses: bool,
    starved: bool,
    pauses: u32,
    max_seen: usize,
    streams: HashMap<ConnId, Stream>,
    order: VecDeque<ConnId>,
}

impl Echo {
    fn new(serves: bool, lands: bool) -> Echo {
        let streams = HashMap::new();
        let order = VecDeque::new();
        Echo { serves, lands, refuses: false, starved: false, pauses: 0, max_seen: 0, streams, order }
    }

    fn stream(&mut self, conn: ConnId) -> &mut Stream {
        self.streams.entry(conn).or_default()
    }

    /// A whole message has arrived; false when it can not be answered now.
    fn message(&mut self, conn: ConnId, payload: &[u8], tx: &mut Tx, pool: &mut Pool) -> bool {
        let serves = self.serves;
        if serves && !answer(payload, tx, pool) {
            self.starved = true;
            self.pauses += 1;
            return false;
        }
        self.max_seen = self.max_seen.max(payload.len());
        let stream = self.stream(conn);
        let n = stream.received;
        assert!(payload.iter().enumerate().all(|(i, b)| *b == pattern(n, i)), "message {n} arrived changed");
        stream.received += 1;
        true
    }
}

/// Queues `payload` as a message in pool buffers; false when there are not enough.
fn answer(payload: &[u8], tx: &mut Tx, pool: &mut Pool) -> bool {
    let mut bufs = Vec::new();
    for part in payload.chunks(4096) {
        let Some(mut buf) = pool.get(part.len()) else {
            for b in bufs {
                pool.put(b);
            }
            return false;
        };
        buf.copy_from_slice(part);
        bufs.push(buf);
    }
    tx.head(&(payload.len() as u32).to_le_bytes());
    for buf in bufs {
        let len = buf.len();
        tx.buf(buf, 0, len);
    }
    true
}

impl Handler for Echo {
    fn accepted(&mut self, conn: ConnId, _: ListenerId, peer: SocketAddr, _: &mut Tx) -> bool {
        assert_ne!(peer.port(), 0);
        if !self.refuses {
            self.stream(conn).connected = true;
            self.order.push_back(conn);
        }
        !self.refuses
    }
    fn connected(&mut self, conn: ConnId, _: &mut Tx) {
        self.stream(conn).connected = true;
    }
    fn landing(&mut self, conn: ConnId) -> Option<&mut [u8]> {
        let stream = self.stream(conn);
        let (len, got) = stream.landing?;
        Some(&mut stream.place[got..len])
    }
    fn landed(&mut self, conn: ConnId, n: usize, tx: &mut Tx, pool: &mut Pool) {
        let stream = self.stream(conn);
        let (len, got) = stream.landing.expect("landed only where a landing was named");
        assert!(got + n <= len, "landed past the place");
        stream.landing = Some((len, got + n));
        if got + n == len {
            stream.landing = None;
            let place = std::mem::take(&mut stream.place);
            let answered = self.message(conn, &place[..len], tx, pool);
            assert!(answered, "landing tests run with enough buffers");
            self.stream(conn).place = place;
        }
    }
    fn data(&mut self, conn: ConnId, bytes: &[u8], tx: &mut Tx, pool: &mut Pool) -> usize {
        let mut at = 0;
        while bytes.len() - at >= 4 {
            let len = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
            if self.lands && len > 64 {
                let stream = self.stream(conn);
                assert!(stream.landing.is_none(), "a landing place is filled before data comes again");
                stream.place.resize(len, 0);
                stream.landing = Some((len, 0));
                return at + 4;
            }
            assert!(len <= WHOLE_MAX, "message header read from the wrong place: {len}");
            if bytes.len() - at - 4 < len || !self.message(conn, &bytes[at + 4..at + 4 + len], tx, pool) {
                break;
            }
            at += 4 + len;
        }
        at
    }
    fn paused(&mut self, _: ConnId) -> bool {
        self.starved
    }
    fn closed(&mut self, conn: ConnId, why: Closed) {
        let stream = self.stream(conn);
        assert_eq!(stream.closed, None, "closed once");
        stream.closed = Some(why);
    }
}

/// A server and a client net with their pools, driven together in one thread.
struct Rig<N: Net> {
    server: N,
    client: N,
    pools: [Pool; 2],
    at_server: Echo,
    at_client: Echo,
    start: Instant,
}

fn pool(core: u16, count: usize) -> Pool {
    Pool::standalone(CoreId(core), &[Class { size: 4096, count }]).unwrap()
}

impl<N: Net> Rig<N> {
    fn new((server, client): (N, N), lands: bool, server_bufs: usize) -> Rig<N> {
        Rig {
            server,
            client,
            pools: [pool(0, server_bufs), pool(1, 4096)],
            at_server: Echo::new(true, lands),
            at_client: Echo::new(false, lands),
            start: Instant::now(),
        }
    }

    fn now(&self) -> Time {
        Time(self.start.elapsed().as_nanos() as u64)
    }

    fn turn(&mut self) {
        let now = self.now();
        self.at_server.starved = false;
        self.server.poll(now, &mut self.pools[0], &mut self.at_server);
        self.server.flush(now, &mut self.pools[0]);
        self.client.poll(now, &mut self.pools[1], &mut self.at_client);
        self.client.flush(now, &mut self.pools[1]);
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Rig<N>) -> bool) {
        let limit = Instant::now() + Duration::from_secs(20);
        while !done(self) {
            self.turn();
            assert!(Instant::now() < limit, "timed out: {what}");
        }
    }

    fn connect(&mut self, addr: SocketAddr) -> ConnId {
        let conn = self.client.connect(addr).unwrap();
        self.until("connect", |r| r.at_client.stream(conn).connected);
        conn
    }

    /// Sends `count` messages of up to `max` bytes over each of `conns`, at most `depth` unanswered on each, and waits
    /// for every answer.
    fn exchange(&mut self, conns: &[ConnId], seed: u64, count: u32, max: usize, depth: u32) {
        let mut rng = Rng::new(seed);
        self.until("every message answered", |r| {
            let mut open = false;
            for conn in conns {
                let stream = r.at_client.stream(*conn);
                assert_eq!(stream.closed, None);
                open |= stream.received < count;
                while stream.sent < count && stream.sent - stream.received < depth {
                    let len = if rng.chance(30) { rng.below(100) } else { rng.below(max as u64 + 1) } as usize;
                    let payload: Vec<u8> = (0..len).map(|i| pattern(stream.sent, i)).collect();
                    if !answer(&payload, r.client.tx(*conn).unwrap(), &mut r.pools[1]) {
                        break;
                    }
                    stream.sent += 1;
                }
            }
            !open
        });
        for pool in &self.pools {
            assert!(pool.stats().all(|s| s.free == s.total), "a buffer did not come back");
        }
    }
}

/// Messages of all sizes, several connections, small kernel buffers on both sides.
fn integrity<N: Net>(nets: (N, N), seed: u64, messages: u32) {
    let mut rig = Rig::new(nets, false, 4096);
    let (_, addr) = rig.server.listen(ANY, false).unwrap();
    let conns: Vec<ConnId> = (0..3).map(|_| rig.connect(addr)).collect();
    rig.exchange(&conns, seed, messages, WHOLE_MAX, 40);
    assert_eq!(rig.server.connections(), 3);
}

/// Large payloads through landing places.
fn landing<N: Net>(nets: (N, N), seed: u64) {
    let mut rig = Rig::new(nets, true, 4096);
    let (_, addr) = rig.server.listen(ANY, false).unwrap();
    let conns: Vec<ConnId> = (0..2).map(|_| rig.connect(addr)).collect();
    rig.exchange(&conns, seed, 60, 600_000, 6);
    assert!(rig.at_server.max_seen > 2 * CARRY_MAX);
}

/// A server with few buffers pauses its connections again and again and loses nothing.
fn pausing<N: Net>(nets: (N, N)) {
    let mut rig = Rig::new(nets, false, 12);
    let (_, addr) = rig.server.listen(ANY, false).unwrap();
    let conns: Vec<ConnId> = (0..4).map(|_| rig.connect(addr)).collect();
    rig.exchange(&conns, 5, 120, WHOLE_MAX, 30);
    assert!(rig.at_server.pauses > 0, "the test is about pausing");
}

/// What is queued before a graceful close arrives before the end of the stream does.
fn close_after_send<N: Net>(nets: (N, N)) {
    let mut rig = Rig::new(nets, false, 4096);
    let (_, addr) = rig.server.listen(ANY, false).unwrap();
    let conn = rig.connect(addr);
    for n in 0..200u32 {
        let payload: Vec<u8> = (0..8000).map(|i| pattern(n, i)).collect();
        assert!(answer(&payload, rig.client.tx(conn).unwrap(), &mut rig.pools[1]));
    }
    rig.client.close(conn, Close::AfterSend);
    assert!(rig.client.tx(conn).is_none(), "nothing can be queued behind a close");
    rig.until("server sees the end", |r| r.at_server.streams.values().any(|s| s.closed.is_some()));
    let stream = rig.at_server.streams.values().next().unwrap();
    assert_eq!((stream.closed, stream.received), (Some(Closed::Peer), 200));
    rig.until("client reports it", |r| r.at_client.stream(conn).closed.is_some());
    assert_eq!(rig.at_client.stream(conn).closed, Some(Closed::Local));
    assert_eq!((rig.server.connections(), rig.client.connections()), (0, 0));
    assert!(rig.pools.iter().all(|p| p.stats().all(|s| s.free == s.total)));
}

/// A peer that never ends its side can not hold a graceful close for longer than the bound.
fn close_is_bounded<N: Net>(nets: (N, N)) {
    let mut rig = Rig::new(nets, false, 64);
    let (_, addr) = rig.server.listen(ANY, false).unwrap();
    let conn = rig.connect(addr);
    rig.until("accepted", |r| !r.at_server.order.is_empty());
    let begun = rig.now();
    rig.client.close(conn, Close::AfterSend);
    // Only the client's net is driven: the server never notices and never answers.
    let mut wakes = Vec::new();
    while rig.at_client.stream(conn).closed.is_none() {
        let now = rig.now();
        assert!(now.since(begun) < 3_000_000_000, "close took longer than its bound");
        rig.client.poll(now, &mut rig.pools[1], &mut rig.at_client);
        rig.client.flush(now, &mut rig.pools[1]);
        wakes.extend(rig.client.wake_at());
    }
    assert!(rig.now().since(begun) >= 900_000_000, "the peer was given its second");
    assert!(wakes.iter().any(|t| *t > begun), "the bound is announced for idle sleep");
}

/// An abort drops what is queued, returns the buffers, and shows as an error at the peer.
fn abort<N: Net>(nets: (N, N)) {
    let mut rig = Rig::new(nets, false, 4096);
    let (_, addr) = rig.server.listen(ANY, false).unwrap();
    let conn = rig.connect(addr);
    rig.until("accepted", |r| !r.at_server.order.is_empty());
    for _ in 0..50 {
        assert!(answer(&[1; 4096], rig.client.tx(conn).unwrap(), &mut rig.pools[1]));
    }
    rig.client.close(conn, Close::Now);
    assert!(rig.client.tx(conn).is_none());
    rig.until("both ends closed", |r| {
        let there = r.at_server.streams.values().any(|s| s.closed.is_some());
        there && r.at_client.stream(conn).closed.is_some()
    });
    assert_eq!(rig.at_client.stream(conn).closed, Some(Closed::Local));
    let server_saw = rig.at_server.streams.values().next().unwrap();
    assert!(matches!(server_saw.closed, Some(Closed::Error(_))), "{:?}", server_saw.closed);
    assert_eq!(server_saw.received, 0);
    assert!(rig.pools.iter().all(|p| p.stats().all(|s| s.free == s.total)));
    let again = rig.connect(addr);
    assert_ne!(again, conn, "a reused slot is another connection");
    rig.until("accepted again", |r| r.server.connections() == 1);
}

/// Refused by nobody listening, by the handler, and after unlisten; existing connections stay.
fn refused<N: Net>(nets: (N, N)) {
    let mut rig = Rig::new(nets, false, 64);
    let (listener, addr) = rig.server.listen(ANY, false).unwrap();
    let kept = rig.connect(addr);
    rig.until("accepted", |r| r.server.connections() == 1);
    rig.at_server.refuses = true;
    let second = rig.client.connect(addr).unwrap();
    rig.until("refused by the handler", |r| r.at_client.stream(second).closed.is_some());
    rig.at_server.refuses = false;
    rig.server.unlisten(listener);
    let third = rig.client.connect(addr).unwrap();
    rig.until("refused by nobody", |r| r.at_client.stream(third).closed.is_some());
    assert_eq!(rig.at_client.stream(third).closed, Some(Closed::Error(libc::ECONNREFUSED)));
    assert_eq!((rig.server.connections(), rig.client.connections()), (1, 1));
    rig.exchange(&[kept], 3, 20, 4000, 4);
}

/// The loopback's nets, with every knob turned to make trouble.
fn loop_nets(seed: u64) -> (Loopback, Loopback) {
    let config = LoopbackConfig { seed, segment: (1, 3000), window: 5000, delay_ns: (0, 3000) };
    Network::pair(config)
}

#[test]
fn loopback_integrity() {
    for seed in 0..3 {
        integrity(loop_nets(seed), seed, 60);
    }
}
#[test]
fn loopback_one_byte_segments() {
    let config = LoopbackConfig { segment: (1, 1), window: 64, ..LoopbackConfig::default() };
    let mut rig = Rig::new(Network::pair(config), false, 64);
    let (_, addr) = rig.server.listen(ANY, false).unwrap();
    let conn = rig.connect(addr);
    rig.exchange(&[conn], 1, 20, 300, 4);
}
#[test]
fn loopback_same_seed_same_pieces() {
    let trace = |seed| {
        let mut rig = Rig::new(loop_nets(seed), false, 64);
        let (_, addr) = rig.server.listen(ANY, false).unwrap();
        let conn = rig.client.connect(addr).unwrap();
        let mut trace = Vec::new();
        for step in 0..400u64 {
            let now = Time(step * 1000);
            rig.server.poll(now, &mut rig.pools[0], &mut rig.at_server);
            rig.server.flush(now, &mut rig.pools[0]);
            rig.client.poll(now, &mut rig.pools[1], &mut rig.at_client);
            if step % 10 == 3 {
                let n = rig.at_client.stream(conn).sent;
                let payload: Vec<u8> = (0..1500).map(|i| pattern(n, i)).collect();
                answer(&payload, rig.client.tx(conn).unwrap(), &mut rig.pools[1]);
                rig.at_client.stream(conn).sent += 1;
            }
            rig.client.flush(now, &mut rig.pools[1]);
            trace.push((rig.server.stats(), rig.client.stats(), rig.client.wake_at()));
        }
        assert!(rig.at_client.stream(conn).received > 10);
        trace
    };
    assert_eq!(trace(9), trace(9));
    assert_ne!(trace(9), trace(10));
}
#[test]
fn loopback_landing() {
    landing(loop_nets(3), 4);
}
#[test]
fn loopback_pausing() {
    pausing(loop_nets(1));
}
#[test]
fn loopback_closes() {
    close_after_send(loop_nets(1));
    close_is_bounded(loop_nets(1));
    abort(loop_nets(1));
    refused(loop_nets(1));
}
#[test]
fn loopback_reset_reaches_both_ends() {
    let network = Network::new(LoopbackConfig::default());
    let mut rig = Rig::new((network.net(), network.net()), false, 64);
    let (_, addr) = rig.server.listen(ANY, false).unwrap();
    let conn = rig.connect(addr);
    rig.until("accepted", |r| r.server.connections() == 1);
    network.reset_all();
    rig.until("reset", |r| r.server.connections() + r.client.connections() == 0);
    assert_eq!(rig.at_client.stream(conn).closed, Some(Closed::Error(libc::ECONNRESET)));
}

fn small() -> TcpConfig {
    TcpConfig { kernel_buffer: Some(4096), ..TcpConfig::default() }
}
fn tcp(config: &TcpConfig) -> (Tcp, Tcp) {
    (Tcp::new(config.clone()).unwrap(), Tcp::new(config.clone()).unwrap())
}

#[test]
fn tcp_integrity() {
    integrity(tcp(&small()), 1, 100);
    integrity(tcp(&TcpConfig::default()), 2, 1500);
}
#[test]
fn tcp_blocks_and_goes_on() {
    let mut rig = Rig::new(tcp(&small()), false, 4096);
    let (_, addr) = rig.server.listen(ANY, false).unwrap();
    let conn = rig.connect(addr);
    rig.exchange(&[conn], 8, 100, WHOLE_MAX, 60);
    assert!(rig.server.stats().blocked > 0 && rig.client.stats().blocked > 0, "small buffers fill");
}
#[test]
fn tcp_landing() {
    landing(tcp(&TcpConfig::default()), 1);
    landing(tcp(&small()), 2);
}
#[test]
fn tcp_pausing() {
    pausing(tcp(&small()));
    pausing(tcp(&TcpConfig::default()));
}
#[test]
fn tcp_closes() {
    close_after_send(tcp(&small()));
    close_after_send(tcp(&TcpConfig::default()));
    close_is_bounded(tcp(&small()));
    abort(tcp(&TcpConfig::default()));
    refused(tcp(&TcpConfig::default()));
}
