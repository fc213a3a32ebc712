//! One suite for every engine: a message echo whose every byte is known, over small kernel buffers, landing places,
//! pauses, many connections, and every way a connection can end.

use super::*;
use crate::base::CoreId;
use crate::base::rng::Rng;
use crate::mem::Class;
use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

const TCP_EMFILE: &str = "net::tests::tcp_out_of_descriptors";
const URING_EMFILE: &str = "net::tests::uring_out_of_descriptors";
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
    ends: Vec<Ends>,
    /// Nothing more is consumed; how often something could have been.
    holds: bool,
    held: u32,
    loose: Option<Loose>,
}

impl Echo {
    fn new(serves: bool, lands: bool) -> Echo {
        let streams = HashMap::new();
        let order = VecDeque::new();
        Echo {
            serves,
            lands,
            refuses: false,
            starved: false,
            pauses: 0,
            max_seen: 0,
            streams,
            order,
            ends: Vec::new(),
            holds: false,
            held: 0,
            loose: None,
        }
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
    fn accepted(&mut self, conn: ConnId, _: ListenerId, ends: Ends, _: &mut Tx) -> bool {
        assert_ne!(ends.peer.port(), 0);
        if !self.refuses {
            self.stream(conn).connected = true;
            self.order.push_back(conn);
            self.ends.push(ends);
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
        if self.holds {
            self.held += 1;
            return 0;
        }
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
        self.starved || (self.holds && self.held > 0)
    }
    fn released(&mut self, _: ConnId, loose: Loose) {
        self.loose = Some(loose);
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
        self.until("every buffer back", |r| r.pools.iter().all(|p| p.stats().all(|s| s.free == s.total)));
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

/// A connection goes from one net to another with what it has received and nobody has read, and loses nothing.
fn moves<N: Net>(nets: (N, N), mut other: N) {
    let mut rig = Rig::new(nets, false, 4096);
    let (_, addr) = rig.server.listen(ANY, false).unwrap();
    let conn = rig.connect(addr);
    rig.exchange(&[conn], 3, 20, WHOLE_MAX, 4);
    let send = |rig: &mut Rig<N>| {
        let stream = rig.at_client.stream(conn);
        let payload: Vec<u8> = (0..3000).map(|i| pattern(stream.sent, i)).collect();
        stream.sent += 1;
        assert!(answer(&payload, rig.client.tx(conn).unwrap(), &mut rig.pools[1]));
    };
    rig.at_server.holds = true;
    send(&mut rig);
    rig.until("a message is held", |r| r.at_server.held > 0);
    let id = rig.at_server.order[0];
    rig.server.release(id);
    send(&mut rig);
    rig.until("let go", |r| r.at_server.loose.is_some());
    send(&mut rig);
    rig.turn();
    assert_eq!((rig.server.connections(), rig.server.tx(id).is_none()), (0, true));
    let new = other.adopt(rig.at_server.loose.take().unwrap()).unwrap();
    let stream = rig.at_server.streams.remove(&id).unwrap();
    assert_eq!((stream.closed, stream.received), (None, 20), "neither closed nor read");
    rig.at_server.streams.insert(new, stream);
    rig.at_server.holds = false;
    let empty = std::mem::replace(&mut rig.server, other);
    rig.until("all three answered", |r| r.at_client.stream(conn).received == 23);
    rig.exchange(&[conn], 4, 80, WHOLE_MAX, 20);
    // One that ends before it is let go is reported as ended.
    rig.at_server.holds = true;
    rig.at_server.held = 0;
    send(&mut rig);
    rig.until("a message is held", |r| r.at_server.held > 0);
    rig.server.release(new);
    rig.server.close(new, Close::Now);
    rig.until("closed", |r| r.at_server.stream(new).closed.is_some());
    assert!(rig.at_server.loose.is_none() && empty.connections() == 0);
}

/// A listener on every address says at which one each peer came, and speaks of IPv4 peers as such.
fn ends<N: Net>(nets: (N, N)) {
    let mut rig = Rig::new(nets, false, 64);
    for everywhere in ["0.0.0.0:0", "[::]:0"] {
        let (_, bound) = rig.server.listen(everywhere.parse().unwrap(), false).unwrap();
        assert!(bound.ip().is_unspecified());
        let addr = SocketAddr::new("127.0.0.2".parse().unwrap(), bound.port());
        let before = rig.at_server.ends.len();
        rig.connect(addr);
        rig.until("accepted", |r| r.at_server.ends.len() > before);
        let ends = rig.at_server.ends[before];
        assert_eq!((ends.local, ends.peer.is_ipv4(), ends.reach(bound)), (addr, true, Some(addr)), "{everywhere}");
    }
    let ends = Ends { local: "[fe80::1%3]:9".parse().unwrap(), peer: "[fe80::2%3]:8".parse().unwrap() };
    for (listener, reached) in [
        ("10.0.0.1:7", Some("10.0.0.1:7")),
        ("0.0.0.0:7", None),
        ("[::]:7", Some("[fe80::1]:7")),
        ("[fe80::9]:7", Some("[fe80::9]:7")),
    ] {
        assert_eq!(ends.reach(listener.parse().unwrap()), reached.map(|a| a.parse().unwrap()), "{listener}");
    }
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

/// A thousand connections at once, all busy; then all closed from one side.
fn many<N: Net>(nets: (N, N)) {
    let mut rig = Rig::new(nets, false, 4096);
    let (_, addr) = rig.server.listen(ANY, false).unwrap();
    let conns: Vec<ConnId> = (0..1000)
        .map(|i| {
            let conn = rig.client.connect(addr).unwrap();
            if i % 50 == 49 {
                rig.until("accepted so far", |r| r.server.connections() == i + 1);
            }
            conn
        })
        .collect();
    rig.until("all connected", |r| conns.iter().all(|c| r.at_client.stream(*c).connected));
    rig.exchange(&conns, 6, 4, 3000, 2);
    assert_eq!(rig.server.stats().accepted, 1000);
    for conn in &conns {
        rig.client.close(*conn, Close::AfterSend);
    }
    rig.until("all closed", |r| r.server.connections() + r.client.connections() == 0);
    assert!(rig.at_server.streams.values().all(|s| s.closed == Some(Closed::Peer)));
    assert!(conns.iter().all(|c| rig.at_client.streams[c].closed == Some(Closed::Local)));
}

/// A peer that has ended its side still gets the answers to what it sent; an end in the middle of a message is an end.
fn half_open<N: Net>(mut net: N) {
    let (_, addr) = net.listen(ANY, false).unwrap();
    let mut bufs = pool(0, 64);
    let mut echo = Echo::new(true, false);
    let start = Instant::now();
    for cut in [0, 3] {
        let mut peer = std::net::TcpStream::connect(addr).unwrap();
        let mut sent = Vec::new();
        for n in 0..3u32 {
            sent.extend(5000u32.to_le_bytes());
            sent.extend((0..5000).map(|i| pattern(n, i)));
        }
        peer.write_all(&sent).unwrap();
        peer.write_all(&[9, 0, 0, 0][..cut]).unwrap();
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        peer.set_nonblocking(true).unwrap();
        let (mut got, mut window) = (Vec::<u8>::new(), [0; 4096]);
        loop {
            let now = Time(start.elapsed().as_nanos() as u64);
            net.poll(now, &mut bufs, &mut echo);
            net.flush(now, &mut bufs);
            match peer.read(&mut window) {
                Ok(0) => break,
                Ok(n) => got.extend(&window[..n]),
                Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::WouldBlock, "{e}"),
            }
            assert!(start.elapsed() < Duration::from_secs(10));
        }
        assert_eq!(got, sent);
        let conn = echo.order.pop_back().unwrap();
        while echo.stream(conn).closed.is_none() {
            net.poll(Time(start.elapsed().as_nanos() as u64), &mut bufs, &mut echo);
            assert!(start.elapsed() < Duration::from_secs(10));
        }
        assert_eq!(echo.stream(conn).closed, Some(Closed::Peer));
    }
    assert!(bufs.stats().all(|s| s.free == s.total));
}

/// Connections beyond the limit are refused, and the ones before stay.
fn limited<N: Net>(nets: (N, N), limit: usize) {
    let mut rig = Rig::new(nets, false, 256);
    let (_, addr) = rig.server.listen(ANY, false).unwrap();
    let conns: Vec<ConnId> = (0..limit + 3).map(|_| rig.client.connect(addr).unwrap()).collect();
    rig.until("three are refused", |r| {
        r.server.stats().refused == 3 && conns.iter().filter(|c| r.at_client.stream(**c).closed.is_some()).count() == 3
    });
    assert_eq!(rig.server.connections(), limit);
    let open: Vec<ConnId> = conns.into_iter().filter(|c| rig.at_client.streams[c].closed.is_none()).collect();
    rig.exchange(&open, 1, 10, 1000, 3);
}

/// Nothing happens: the descriptor for idle sleep stays silent. Anything happens: it does not, and `wake_at` covers what
/// it can not see.
fn sleeps<N: Net>(mut net: N) {
    let (_, addr) = net.listen(ANY, false).unwrap();
    let mut bufs = pool(0, 64);
    let mut echo = Echo::new(true, false);
    let start = Instant::now();
    let now = || Time(start.elapsed().as_nanos() as u64);
    // Turns until the net has nothing to do and says that it may be left alone.
    let settle = |net: &mut N, echo: &mut Echo, bufs: &mut Pool| {
        let mut quiet = 0;
        while quiet < 3 {
            let events = net.poll(now(), bufs, echo) + net.flush(now(), bufs);
            let asleep = net.wake_at().is_none_or(|at| at > now());
            quiet = if events == 0 && asleep { quiet + 1 } else { 0 };
            assert!(start.elapsed() < Duration::from_secs(20), "never settles");
        }
    };
    let readable = |net: &N, ms: i64| {
        // SAFETY: the net keeps the descriptor open for the whole of this borrow.
        let Some(fd) = net.wait_fd().map(|fd| unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) }) else { return true };
        let mut fds = [rustix::event::PollFd::from_borrowed_fd(fd, rustix::event::PollFlags::IN)];
        let limit = rustix::event::Timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 };
        rustix::event::poll(&mut fds, Some(&limit)).unwrap() > 0
    };
    settle(&mut net, &mut echo, &mut bufs);
    assert!(!readable(&net, 30), "wakes without a reason");
    let mut peer = std::net::TcpStream::connect(addr).unwrap();
    assert!(readable(&net, 5000), "a connection wakes");
    settle(&mut net, &mut echo, &mut bufs);
    assert_eq!(net.connections(), 1);
    for n in 0..60u32 {
        if n % 20 == 0 {
            settle(&mut net, &mut echo, &mut bufs);
            assert!(!readable(&net, 20), "wakes without a reason");
        }
        let mut message = 100u32.to_le_bytes().to_vec();
        message.extend((0..100).map(|i| pattern(n, i)));
        if n == 30 {
            // Bytes that arrive while the net sleeps end the sleep, as those do that arrive just before it.
            settle(&mut net, &mut echo, &mut bufs);
            let mut late = peer.try_clone().unwrap();
            let asleep = Instant::now();
            let writer = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(50));
                late.write_all(&message).unwrap();
            });
            assert!(readable(&net, 5000) && asleep.elapsed() >= Duration::from_millis(50), "late bytes wake");
            writer.join().unwrap();
        } else {
            peer.write_all(&message).unwrap();
            // Bytes wake a sleeper, or the net says that it must not sleep.
            assert!(net.wake_at().is_some_and(|at| at <= now()) || readable(&net, 5000), "bytes wake");
        }
        let mut answer = [0; 104];
        peer.set_nonblocking(true).unwrap();
        let mut got = 0;
        while got < answer.len() {
            net.poll(now(), &mut bufs, &mut echo);
            net.flush(now(), &mut bufs);
            got += peer.read(&mut answer[got..]).unwrap_or(0);
            assert!(start.elapsed() < Duration::from_secs(20), "no answer");
        }
        peer.set_nonblocking(false).unwrap();
    }
    settle(&mut net, &mut echo, &mut bufs);
    drop(peer);
    assert!(readable(&net, 5000), "an end wakes");
    settle(&mut net, &mut echo, &mut bufs);
    assert_eq!(net.connections(), 0);
}

/// A process without descriptors left stops accepting for a while instead of spinning, and goes on when it has some.
/// In a process of its own, because the limit is the process's.
fn out_of_descriptors<N: Net>(name: &str, make: impl Fn() -> N) {
    if std::env::var_os("POLLUX_TEST_ALONE").is_none() {
        let exe = std::env::current_exe().unwrap();
        let out = std::process::Command::new(exe)
            .args(["--exact", name, "--nocapture", "--test-threads=1"])
            .env("POLLUX_TEST_ALONE", "1")
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{}{}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        );
        return;
    }
    // Low enough to use up; set before anything is armed, because the kernel notes it with an accept.
    let old = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let low = rustix::process::Rlimit { current: Some(100), maximum: old.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, low).unwrap();
    let mut net = make();
    let (_, addr) = net.listen(ANY, false).unwrap();
    let mut bufs = pool(0, 4);
    let mut echo = Echo::new(true, false);
    let start = Instant::now();
    let peers: Vec<_> = (0..4).map(|_| std::net::TcpStream::connect(addr).unwrap()).collect();
    let mut hoard: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/proc/self/exe").ok()).collect();
    hoard.truncate(hoard.len() - 2);
    let mut turns = 0;
    while start.elapsed() < Duration::from_millis(350) {
        let now = Time(start.elapsed().as_nanos() as u64);
        turns += net.poll(now, &mut bufs, &mut echo) + net.flush(now, &mut bufs);
    }
    assert_eq!(net.connections(), 2);
    let stalls = net.stats().accept_stalls;
    assert!((1..=5).contains(&stalls), "{stalls} tries in 350 ms");
    assert!(turns < 100, "{turns} events without anything happening");
    drop(hoard);
    while net.connections() < 4 {
        let now = Time(start.elapsed().as_nanos() as u64);
        net.poll(now, &mut bufs, &mut echo);
        net.flush(now, &mut bufs);
        assert!(start.elapsed() < Duration::from_secs(10), "never accepts again");
    }
    drop(peers);
}

/// The loopback's nets, with every knob turned to make trouble.
fn loop_nets(seed: u64) -> (Loopback, Loopback) {
    let config = LoopbackConfig { seed, segment: (1, 3000), window: 5000, delay_ns: (0, 3000) };
    Network::pair(config)
}

#[test]
fn loopback_moves() {
    let network = Network::new(LoopbackConfig { seed: 5, segment: (1, 3000), window: 5000, delay_ns: (0, 3000) });
    moves((network.net(), network.net()), network.net());
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
fn tcp_moves() {
    moves(tcp(&small()), Tcp::new(small()).unwrap());
}
#[test]
fn tcp_ends() {
    ends(tcp(&TcpConfig::default()));
}
#[test]
fn tcp_closes() {
    close_after_send(tcp(&small()));
    close_after_send(tcp(&TcpConfig::default()));
    close_is_bounded(tcp(&small()));
    abort(tcp(&TcpConfig::default()));
    refused(tcp(&TcpConfig::default()));
}

fn uring(config: &TcpConfig) -> (Uring, Uring) {
    (Uring::new(config.clone()).unwrap(), Uring::new(config.clone()).unwrap())
}

#[test]
fn uring_integrity() {
    integrity(uring(&small()), 1, 100);
    integrity(uring(&TcpConfig::default()), 2, 1500);
}
#[test]
fn uring_landing() {
    landing(uring(&TcpConfig::default()), 1);
    landing(uring(&small()), 2);
}
#[test]
fn uring_pausing() {
    pausing(uring(&small()));
    pausing(uring(&TcpConfig::default()));
}
#[test]
fn uring_moves() {
    moves(uring(&small()), Uring::new(small()).unwrap());
}
#[test]
fn uring_ends() {
    ends(uring(&TcpConfig::default()));
}
#[test]
fn uring_closes() {
    close_after_send(uring(&small()));
    close_after_send(uring(&TcpConfig::default()));
    close_is_bounded(uring(&small()));
    abort(uring(&TcpConfig::default()));
    refused(uring(&TcpConfig::default()));
}

#[test]
fn tcp_many_connections() {
    many(tcp(&TcpConfig::default()));
}
#[test]
fn tcp_half_open() {
    half_open(Tcp::new(TcpConfig::default()).unwrap());
    half_open(Tcp::new(small()).unwrap());
}
#[test]
fn tcp_limits() {
    let few = TcpConfig { conns_max: 5, ..TcpConfig::default() };
    limited((Tcp::new(few).unwrap(), Tcp::new(TcpConfig::default()).unwrap()), 5);
}
#[test]
fn tcp_sleeps() {
    sleeps(Tcp::new(TcpConfig::default()).unwrap());
}
#[test]
fn tcp_out_of_descriptors() {
    out_of_descriptors(TCP_EMFILE, || Tcp::new(TcpConfig::default()).unwrap());
}
#[test]
fn uring_many_connections() {
    many(uring(&TcpConfig::default()));
}
#[test]
fn uring_half_open() {
    half_open(Uring::new(TcpConfig::default()).unwrap());
    half_open(Uring::new(small()).unwrap());
}
#[test]
fn uring_limits() {
    let few = TcpConfig { conns_max: 5, ..TcpConfig::default() };
    limited((Uring::new(few).unwrap(), Uring::new(TcpConfig::default()).unwrap()), 5);
}
#[test]
fn uring_sleeps() {
    sleeps(Uring::new(TcpConfig::default()).unwrap());
}
#[test]
fn uring_out_of_descriptors() {
    out_of_descriptors(URING_EMFILE, || Uring::new(TcpConfig::default()).unwrap());
}
#[test]
fn loopback_many_connections() {
    many(Network::pair(LoopbackConfig::default()));
}

#[test]
fn stalls_change_nothing_and_breaks_show_as_resets() {
    let plan = FaultPlan { seed: 4, break_after: None, stall_percent: 30, stall_ns: (1000, 300_000) };
    let (a, b) = loop_nets(2);
    integrity((Faulty::new(a, plan), Faulty::new(b, plan)), 3, 40);
    let (a, b) = tcp(&TcpConfig::default());
    integrity((Faulty::new(a, plan), Faulty::new(b, plan)), 3, 100);
    let plan = FaultPlan { seed: 4, break_after: Some((10_000, 20_000)), stall_percent: 0, stall_ns: (0, 0) };
    let (a, b) = tcp(&TcpConfig::default());
    let nets = (Faulty::new(a, plan), Faulty::new(b, FaultPlan { break_after: None, ..plan }));
    let mut rig = Rig::new(nets, false, 256);
    let (_, addr) = rig.server.listen(ANY, false).unwrap();
    let conn = rig.connect(addr);
    for n in 0..50u32 {
        let payload: Vec<u8> = (0..1000).map(|i| pattern(n, i)).collect();
        assert!(answer(&payload, rig.client.tx(conn).unwrap(), &mut rig.pools[1]));
    }
    rig.until("broken", |r| r.at_client.stream(conn).closed.is_some() && r.server.connections() == 0);
    assert_eq!(rig.server.broken(), 1);
    let server = rig.at_server.streams.values().next().unwrap();
    assert_eq!(server.closed, Some(Closed::Error(libc::ECONNRESET)));
    assert!(server.received >= 9, "not before its time");
    assert!(matches!(rig.at_client.stream(conn).closed, Some(Closed::Error(_))));
}

/// A stack over a port in memory, for the suite above: what is asked of the loopback address is asked of its own.
#[cfg(feature = "dpdk")]
struct Hosted {
    stack: Stack<stack::MemoryPort>,
    cable: stack::Cable,
    here: std::net::IpAddr,
}

#[cfg(feature = "dpdk")]
impl Net for Hosted {
    fn listen(&mut self, addr: SocketAddr, shared: bool) -> Result<(ListenerId, SocketAddr), NetError> {
        let ip = if addr.ip().is_loopback() { self.here } else { addr.ip() };
        self.stack.listen(SocketAddr::new(ip, addr.port()), shared)
    }
    fn unlisten(&mut self, listener: ListenerId) {
        self.stack.unlisten(listener);
    }
    fn connect(&mut self, addr: SocketAddr) -> Result<ConnId, NetError> {
        self.stack.connect(addr)
    }
    fn adopt(&mut self, loose: Loose) -> Result<ConnId, NetError> {
        self.stack.adopt(loose)
    }
    fn release(&mut self, conn: ConnId) {
        self.stack.release(conn);
    }
    fn poll<H: Handler>(&mut self, now: Time, pool: &mut Pool, handler: &mut H) -> usize {
        self.cable.set_time(now);
        self.stack.poll(now, pool, handler)
    }
    fn tx(&mut self, conn: ConnId) -> Option<&mut Tx> {
        self.stack.tx(conn)
    }
    fn flush(&mut self, now: Time, pool: &mut Pool) -> usize {
        self.stack.flush(now, pool)
    }
    fn close(&mut self, conn: ConnId, how: Close) {
        self.stack.close(conn, how);
    }
    fn wait_fd(&self) -> Option<i32> {
        self.stack.wait_fd()
    }
    fn wake_at(&self) -> Option<Time> {
        self.stack.wake_at()
    }
    fn connections(&self) -> usize {
        self.stack.connections()
    }
    fn stats(&self) -> NetStats {
        self.stack.stats()
    }
}

#[cfg(feature = "dpdk")]
fn hosts(wire: stack::Wire, conns: [usize; 2], buffer: usize) -> (Hosted, Hosted) {
    let (cable, ports) = stack::Cable::new(wire, [1, 2].map(|n| stack::Cable::facts(n, 1500)));
    let mut n = 0;
    let [server, client] = ports.map(|port| {
        n += 1;
        let address: Prefix = format!("10.0.0.{n}/24").parse().unwrap();
        let mut config = StackConfig::new(address, n);
        config.conns = conns[n as usize - 1];
        (config.receive_bytes, config.send_bytes) = (buffer, buffer);
        let stack = Stack::new(port, config).unwrap();
        Hosted { stack, cable: cable.clone(), here: address.address }
    });
    (server, client)
}
#[cfg(feature = "dpdk")]
fn stacks() -> (Hosted, Hosted) {
    hosts(stack::Wire::default(), [64, 64], 64 << 10)
}
#[cfg(feature = "dpdk")]
fn bad_stacks(seed: u64) -> (Hosted, Hosted) {
    let wire = stack::Wire { seed, lose: 2, repeat: 2, reorder: 20, damage: 2, delay_ns: (0, 20_000), queue: 1024 };
    hosts(wire, [64, 64], 64 << 10)
}

#[cfg(feature = "dpdk")]
#[test]
fn stack_integrity() {
    integrity(stacks(), 1, 300);
    for seed in 0..3 {
        integrity(bad_stacks(seed), seed, 60);
    }
}
#[cfg(feature = "dpdk")]
#[test]
fn stack_landing() {
    landing(stacks(), 1);
    landing(hosts(stack::Wire::default(), [8, 8], 256 << 10), 2);
}
#[cfg(feature = "dpdk")]
#[test]
fn stack_pausing() {
    pausing(stacks());
    pausing(bad_stacks(3));
}
#[cfg(feature = "dpdk")]
#[test]
fn stack_closes() {
    close_after_send(stacks());
    close_is_bounded(stacks());
    abort(stacks());
    refused(stacks());
}
#[cfg(feature = "dpdk")]
#[test]
fn stack_many_connections() {
    many(hosts(stack::Wire { queue: 4096, ..stack::Wire::default() }, [1100, 1100], 64 << 10));
}
#[cfg(feature = "dpdk")]
#[test]
fn stack_limits() {
    limited(hosts(stack::Wire::default(), [5, 64], 64 << 10), 5);
}
