//! Streams in memory, for tests and the simulator: any number of nets joined by one [`Network`], with seeded random
//! segmentation, bounded pipes (so that senders block) and delays. Time is an argument, nothing is read from outside, so
//! the same seed and the same calls give the same bytes in the same pieces.

use super::feed::feed;
use super::slots::Slots;
use super::{CARRY_MAX, Close, Closed, ConnId, Ends, Handler, ListenerId, Loose, Net, NetError, NetStats, Stream, Tx};
use crate::base::Time;
use crate::base::rng::Rng;
use crate::mem::Pool;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};

/// How bytes travel between the nets of a [`Network`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoopbackConfig {
    /// Determines segment sizes and delays.
    pub seed: u64,
    /// Smallest and largest number of bytes one delivery brings; at least 1.
    pub segment: (usize, usize),
    /// Bytes under way in one direction of a connection; a sender waits for room. At least 1.
    pub window: usize,
    /// Smallest and largest time a segment is under way, ns. Order is always kept.
    pub delay_ns: (u64, u64),
}

impl Default for LoopbackConfig {
    fn default() -> LoopbackConfig {
        LoopbackConfig { seed: 1, segment: (256 * 1024, 256 * 1024), window: 1 << 20, delay_ns: (0, 0) }
    }
}

/// One direction of a connection.
#[derive(Default)]
struct Pipe {
    /// Segments under way: when each arrives, and its bytes.
    segments: VecDeque<(Time, VecDeque<u8>)>,
    bytes: usize,
    last: Time,
    /// The sender has ended its stream; follows the bytes.
    finished: bool,
    /// The sender is gone without ceremony: bytes that have not arrived yet never will.
    reset: bool,
}

struct Link {
    /// Written by side 0 (who connected) and side 1 (who accepted).
    pipes: [Pipe; 2],
    /// Sides that still exist.
    ends: u8,
}

struct Knock {
    link: usize,
    listener: ListenerId,
    ends: Ends,
}

struct Host {
    ip: IpAddr,
    next_port: u16,
    listeners: Vec<Option<SocketAddr>>,
    knocks: VecDeque<Knock>,
}

struct Shared {
    config: LoopbackConfig,
    rng: Rng,
    hosts: Vec<Host>,
    links: Vec<Option<Link>>,
}

/// The cable between the nets: makes them, and breaks links between them.
#[derive(Clone)]
pub struct Network(Arc<Mutex<Shared>>);

impl Network {
    /// A network without hosts.
    pub fn new(config: LoopbackConfig) -> Network {
        assert!(config.segment.0 >= 1 && config.segment.0 <= config.segment.1, "segments have a size");
        assert!(config.window >= 1 && config.delay_ns.0 <= config.delay_ns.1, "window and delays are ranges");
        let shared = Shared { config, rng: Rng::new(config.seed), hosts: Vec::new(), links: Vec::new() };
        Network(Arc::new(Mutex::new(shared)))
    }

    /// A new host with the next address: 10.0.0.1, 10.0.0.2, ...
    pub fn net(&self) -> Loopback {
        let mut shared = self.lock();
        let index = shared.hosts.len();
        let n = index as u32 + 1;
        let ip = IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n));
        shared.hosts.push(Host { ip, next_port: 40_000, listeners: Vec::new(), knocks: VecDeque::new() });
        drop(shared);
        Loopback {
            network: self.clone(),
            host: index,
            conns: Slots::new(crate::base::limits::CONNS_PER_CORE),
            ended: VecDeque::new(),
            leaving: Vec::new(),
            stats: NetStats::default(),
            scratch: Vec::new(),
            now: Time(0),
        }
    }

    /// Two hosts on a network of their own.
    pub fn pair(config: LoopbackConfig) -> (Loopback, Loopback) {
        let network = Network::new(config);
        (network.net(), network.net())
    }

    /// Resets every connection under way, as if the cable's middle boxes forgot them.
    pub fn reset_all(&self) {
        for link in self.lock().links.iter_mut().flatten() {
            link.pipes[0].reset = true;
            link.pipes[1].reset = true;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().expect("a panic in another test thread is reported there")
    }
}

/// One end of a link.
struct Conn {
    link: usize,
    /// Which pipe we send into; we receive from the other.
    side: usize,
    tx: Tx,
    carry: Vec<u8>,
    phase: Phase,
    paused: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Open,
    Closing { until: Time },
    Ended(Closed),
}

/// One host's net.
pub struct Loopback {
    network: Network,
    host: usize,
    conns: Slots<Conn>,
    ended: VecDeque<u32>,
    /// Connections that are to leave for another host's net.
    leaving: Vec<ConnId>,
    stats: NetStats,
    scratch: Vec<u8>,
    now: Time,
}

impl Shared {
    /// Puts a stretch of `bytes` into a pipe; returns how many fitted.
    fn send(&mut self, link: usize, side: usize, now: Time, bytes: &[u8]) -> usize {
        let (config, rng) = (self.config, &mut self.rng);
        let Some(Some(link)) = self.links.get_mut(link) else { return 0 };
        if link.ends < 2 && link.pipes[1 - side].finished {
            // The peer closed in good order and is gone; sending to it earns a reset.
            link.pipes[1 - side].reset = true;
        }
        let pipe = &mut link.pipes[side];
        let n = bytes.len().min(config.window - pipe.bytes.min(config.window));
        if n > 0 {
            let span = config.delay_ns.1 - config.delay_ns.0;
            let at = now.after_ns(config.delay_ns.0 + if span == 0 { 0 } else { rng.below(span + 1) });
            pipe.last = pipe.last.max(at);
            match pipe.segments.back_mut() {
                Some((t, segment)) if *t == pipe.last => segment.extend(&bytes[..n]),
                _ => pipe.segments.push_back((pipe.last, bytes[..n].iter().copied().collect())),
            }
            pipe.bytes += n;
        }
        n
    }

    /// Takes the next delivery out of a pipe into `out`; what else the pipe has to say comes with it.
    fn receive(&mut self, link: usize, side: usize, now: Time, out: &mut Vec<u8>) -> Option<Closed> {
        let (low, high) = self.config.segment;
        let Some(Some(link)) = self.links.get_mut(link) else { return Some(Closed::Error(libc::ECONNRESET)) };
        let pipe = &mut link.pipes[side];
        let mut want = low + self.rng.below((high - low) as u64 + 1) as usize;
        while want > 0 {
            let Some((at, segment)) = pipe.segments.front_mut() else { break };
            if *at > now {
                break;
            }
            let n = want.min(segment.len());
            out.extend(segment.drain(..n));
            (want, pipe.bytes) = (want - n, pipe.bytes - n);
            if segment.is_empty() {
                pipe.segments.pop_front();
            }
        }
        match out.is_empty() {
            true if pipe.reset => Some(Closed::Error(libc::ECONNRESET)),
            true if pipe.finished && pipe.bytes == 0 => Some(Closed::Peer),
            _ => None,
        }
    }

    /// When a pipe delivers next.
    fn arrives_at(&self, link: usize, side: usize) -> Option<Time> {
        let Some(Some(link)) = self.links.get(link) else { return Some(Time(0)) };
        let pipe = &link.pipes[side];
        if pipe.reset || (pipe.finished && pipe.bytes == 0) {
            return Some(Time(0));
        }
        pipe.segments.front().map(|(at, _)| *at)
    }
}

impl Loopback {
    fn end(&mut self, slot: u32, why: Closed) {
        if let Some((_, conn)) = self.conns.at(slot)
            && !matches!(conn.phase, Phase::Ended(_))
        {
            let why = if matches!(conn.phase, Phase::Closing { .. }) { Closed::Local } else { why };
            conn.phase = Phase::Ended(why);
            self.ended.push_back(slot);
        }
    }

    fn reap<H: Handler>(&mut self, pool: &mut Pool, handler: &mut H) -> usize {
        let mut count = 0;
        while let Some(slot) = self.ended.pop_front() {
            let Some((id, mut conn)) = self.conns.remove(slot) else { unreachable!("ended once, removed once") };
            let Phase::Ended(why) = conn.phase else { unreachable!("only ended connections are listed") };
            conn.tx.clear(pool);
            let mut shared = self.network.lock();
            if let Some(Some(link)) = shared.links.get_mut(conn.link) {
                let pipe = &mut link.pipes[conn.side];
                pipe.reset |= !pipe.finished;
                link.ends -= 1;
                if link.ends == 0 {
                    shared.links[conn.link] = None;
                }
            }
            drop(shared);
            handler.closed(id, why);
            count += 1;
        }
        count
    }

    fn let_go<H: Handler>(&mut self, handler: &mut H) -> usize {
        let mut count = 0;
        for id in std::mem::take(&mut self.leaving) {
            let Some(Conn { phase: Phase::Open, tx, .. }) = self.conns.get_mut(id) else { continue };
            assert!(tx.is_empty(), "a connection that leaves has nothing to send");
            let Some((_, conn)) = self.conns.remove(id.slot) else { unreachable!("looked up above") };
            let stream = Stream::Link { link: conn.link, side: conn.side };
            handler.released(id, Loose { stream, bytes: conn.carry });
            count += 1;
        }
        count
    }

    fn accept<H: Handler>(&mut self, handler: &mut H) -> usize {
        let mut count = 0;
        loop {
            let Some(knock) = self.network.lock().hosts[self.host].knocks.pop_front() else { return count };
            count += 1;
            let conn = Conn::new(knock.link, 1, Phase::Open);
            let Ok(id) = self.conns.insert(conn) else {
                self.refuse(knock.link);
                continue;
            };
            let Some(conn) = self.conns.get_mut(id) else { unreachable!("inserted above") };
            if handler.accepted(id, knock.listener, knock.ends, &mut conn.tx) {
                self.stats.accepted += 1;
            } else {
                self.conns.remove(id.slot);
                self.refuse(knock.link);
            }
        }
    }

    fn refuse(&mut self, link: usize) {
        self.stats.refused += 1;
        self.network.lock().links[link] = None;
    }

    /// One delivery to one connection; true when something happened.
    fn receive<H: Handler>(&mut self, slot: u32, now: Time, pool: &mut Pool, handler: &mut H) -> bool {
        let Some((id, conn)) = self.conns.at(slot) else { return false };
        match conn.phase {
            Phase::Connecting => {
                conn.phase = Phase::Open;
                handler.connected(id, &mut conn.tx);
                return true;
            }
            Phase::Closing { until } if until <= now => {
                self.end(slot, Closed::Local);
                return true;
            }
            Phase::Ended(_) => return false,
            Phase::Open if handler.paused(id) => {
                conn.paused = true;
                return false;
            }
            Phase::Open | Phase::Closing { .. } => {}
        }
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        let end = self.network.lock().receive(conn.link, 1 - conn.side, now, &mut bytes);
        let happened = !bytes.is_empty() || end.is_some() || conn.paused;
        if matches!(conn.phase, Phase::Closing { .. }) {
            conn.carry.clear();
        } else if !bytes.is_empty() || conn.paused {
            conn.paused = false;
            self.stats.receives += 1;
            self.stats.bytes_in += bytes.len() as u64;
            conn.carry.extend_from_slice(&bytes);
            let carry = std::mem::take(&mut conn.carry);
            let taken = if carry.is_empty() { 0 } else { feed(id, &carry, &mut conn.tx, pool, handler) };
            conn.carry = carry;
            conn.carry.drain(..taken);
            conn.paused = handler.paused(id);
        }
        self.scratch = bytes;
        if let Some(why) = end {
            self.end(slot, why);
        }
        happened
    }

    /// Moves what one connection queued into its pipe.
    fn send(&mut self, slot: u32, now: Time, pool: &mut Pool) -> usize {
        let Some((_, conn)) = self.conns.at(slot) else { return 0 };
        if !matches!(conn.phase, Phase::Open | Phase::Closing { .. }) {
            return 0;
        }
        let mut shared = self.network.lock();
        let mut sent = 0;
        conn.tx.gather(|stretch| {
            let n = shared.send(conn.link, conn.side, now, stretch);
            sent += n;
            n == stretch.len()
        });
        conn.tx.sent(sent, pool);
        self.stats.blocked += u64::from(!conn.tx.is_empty());
        if conn.tx.is_empty()
            && matches!(conn.phase, Phase::Closing { .. })
            && let Some(Some(link)) = shared.links.get_mut(conn.link)
        {
            link.pipes[conn.side].finished = true;
        }
        self.stats.sends += u64::from(sent > 0);
        self.stats.bytes_out += sent as u64;
        sent
    }
}

impl Conn {
    fn new(link: usize, side: usize, phase: Phase) -> Conn {
        Conn { link, side, tx: Tx::new(4096, 64), carry: Vec::with_capacity(CARRY_MAX), phase, paused: false }
    }
}

impl Net for Loopback {
    fn listen(&mut self, addr: SocketAddr, _shared: bool) -> Result<(ListenerId, SocketAddr), NetError> {
        let mut shared = self.network.lock();
        let in_use = |a: SocketAddr, h: &Host| h.listeners.contains(&Some(a));
        let host = &mut shared.hosts[self.host];
        let port = if addr.port() == 0 { host.next_port } else { addr.port() };
        let got = SocketAddr::new(host.ip, port);
        if in_use(got, host) {
            let source = std::io::Error::from_raw_os_error(libc::EADDRINUSE);
            return Err(NetError::Address { what: "listen on", addr: got, source });
        }
        host.next_port += u16::from(addr.port() == 0);
        host.listeners.push(Some(got));
        Ok((ListenerId(host.listeners.len() as u32 - 1), got))
    }

    fn unlisten(&mut self, listener: ListenerId) {
        let mut shared = self.network.lock();
        let host = &mut shared.hosts[self.host];
        if let Some(entry) = host.listeners.get_mut(listener.0 as usize) {
            *entry = None;
        }
        let (gone, stay) = std::mem::take(&mut host.knocks).into_iter().partition(|k| k.listener == listener);
        host.knocks = stay;
        let gone: VecDeque<Knock> = gone;
        for knock in gone {
            shared.links[knock.link] = None;
        }
    }

    fn connect(&mut self, addr: SocketAddr) -> Result<ConnId, NetError> {
        let mut shared = self.network.lock();
        let from = SocketAddr::new(shared.hosts[self.host].ip, shared.hosts[self.host].next_port);
        shared.hosts[self.host].next_port += 1;
        let full = |_| NetError::Limit("connections per core");
        let found = shared.hosts.iter().enumerate().find_map(|(host, h)| {
            let listener = h.listeners.iter().position(|l| *l == Some(addr))?;
            Some((host, ListenerId(listener as u32)))
        });
        let Some((host, listener)) = found else {
            drop(shared);
            let id = self.conns.insert(Conn::new(usize::MAX, 0, Phase::Connecting)).map_err(full)?;
            self.end(id.slot, Closed::Error(libc::ECONNREFUSED));
            return Ok(id);
        };
        let link = shared.links.len();
        let id = self.conns.insert(Conn::new(link, 0, Phase::Connecting)).map_err(full)?;
        shared.links.push(Some(Link { pipes: [Pipe::default(), Pipe::default()], ends: 2 }));
        shared.hosts[host].knocks.push_back(Knock { link, listener, ends: Ends { local: addr, peer: from } });
        Ok(id)
    }

    fn adopt(&mut self, loose: Loose) -> Result<ConnId, NetError> {
        let Stream::Link { link, side } = loose.stream else {
            return Err(NetError::Engine("loopback", std::io::Error::from(std::io::ErrorKind::Unsupported)));
        };
        let conn = Conn { carry: loose.bytes, paused: true, ..Conn::new(link, side, Phase::Open) };
        self.conns.insert(conn).map_err(|_| NetError::Limit("connections per core"))
    }

    fn release(&mut self, conn: ConnId) {
        self.leaving.push(conn);
    }

    fn poll<H: Handler>(&mut self, now: Time, pool: &mut Pool, handler: &mut H) -> usize {
        self.now = now;
        let mut events = self.let_go(handler) + self.reap(pool, handler) + self.accept(handler);
        for slot in 0..self.conns.span() {
            events += usize::from(self.receive(slot, now, pool, handler));
        }
        events
    }

    fn tx(&mut self, conn: ConnId) -> Option<&mut Tx> {
        let conn = self.conns.get_mut(conn)?;
        matches!(conn.phase, Phase::Open | Phase::Connecting).then_some(&mut conn.tx)
    }

    fn flush(&mut self, now: Time, pool: &mut Pool) -> usize {
        self.now = now;
        (0..self.conns.span()).map(|slot| self.send(slot, now, pool)).sum()
    }

    fn close(&mut self, conn: ConnId, how: Close) {
        let until = self.now.after_ms(1000);
        let Some(c) = self.conns.get_mut(conn) else { return };
        match (how, c.phase) {
            (Close::AfterSend, Phase::Open) => c.phase = Phase::Closing { until },
            (Close::Now, _) | (Close::AfterSend, Phase::Connecting) => self.end(conn.slot, Closed::Local),
            (Close::AfterSend, _) => {}
        }
    }

    fn wait_fd(&self) -> Option<i32> {
        None
    }

    fn wake_at(&self) -> Option<Time> {
        let shared = self.network.lock();
        if !self.ended.is_empty() || !self.leaving.is_empty() || !shared.hosts[self.host].knocks.is_empty() {
            return Some(Time(0));
        }
        self.conns
            .iter()
            .filter_map(|c| match c.phase {
                Phase::Connecting | Phase::Ended(_) => Some(Time(0)),
                Phase::Open if c.paused => None,
                Phase::Open => shared.arrives_at(c.link, 1 - c.side),
                Phase::Closing { until } => {
                    Some(shared.arrives_at(c.link, 1 - c.side).map_or(until, |at| at.min(until)))
                }
            })
            .min()
    }

    fn connections(&self) -> usize {
        self.conns.len()
    }

    fn stats(&self) -> NetStats {
        self.stats
    }
}
