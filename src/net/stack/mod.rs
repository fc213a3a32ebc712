//! TCP/IP in this process, over the frames of a [`Port`]: Ethernet, ARP and Neighbour Discovery of our own, IP and TCP by
//! smoltcp. Time, randomness and frames come in as arguments, so two stacks on a simulated wire replay exactly.
//!
//! smoltcp looks through all sockets for every packet; here each connection has a socket set of its own, found by its flow
//! in one hash look-up, so that the cost of a packet does not grow with connections. A listener has no socket: a SYN takes
//! a free slot, and beyond the backlog it takes the slot of another handshake. Received bytes are parsed where they lie in
//! the socket's ring; queued bytes are copied once, into the socket's ring.
//!
//! What stays true: nothing is allocated after the start, but for the listeners; a slot is in each list at most once;
//! whatever happened to a connection in a turn leads to one look at it in `flush`, which sends what it owes; a connection
//! with a timer running is in the wheel.

mod checksum;
mod config;
mod conn;
mod discovery;
mod egress;
mod flow;
mod frame;
mod ingress;
mod life;
mod link;
mod memory;
mod neighbour;
mod port;
#[cfg(test)]
mod tests;
mod wheel;

pub use config::{ADDRESSES_MAX, BUFFER, Congestion, MTU, NotAPrefix, Prefix, StackConfig};
pub use memory::{Cable, MemoryFrame, MemoryPort, Wire};
pub use port::{Port, PortFacts, PortStats};

use super::{CARRY_MAX, Close, Closed, ConnId, Handler, ListenerId, Loose, Net, NetError, NetStats, Tx};
use crate::base::Time;
use crate::base::rng::Rng;
use crate::mem::Pool;
use conn::{Conn, Phase};
use flow::{Flow, Flows};
use frame::Filter;
use link::{Link, Sent};
use neighbour::Neighbours;
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use wheel::Wheel;

/// How long a graceful close may take.
const LINGER_MS: u64 = 1000;
/// Frames taken from the port per turn, before the turn goes on with what it has.
const TURN_FRAMES: usize = 256;
/// Ports that outgoing connections use (RFC 6335 section 6).
const EPHEMERAL: std::ops::RangeInclusive<u16> = 49_152..=65_535;

/// What a stack did with the frames that reached no connection, from its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StackStats {
    /// For another host, VLAN or protocol.
    pub not_ours: u64,
    /// Cut or with impossible lengths.
    pub malformed: u64,
    /// With a checksum that does not fit.
    pub damaged: u64,
    /// Pieces of fragmented packets.
    pub fragments: u64,
    /// Segments of no connection, answered with a reset.
    pub strays: u64,
    /// Handshakes that began.
    pub greetings: u64,
    /// Handshakes that gave their slot to another, or ran out.
    pub forgotten: u64,
    /// Handshakes that did not begin, because all others were young: the peer tries again.
    pub crowded: u64,
    /// Segments with an acknowledgement older than one that had already arrived.
    pub overtaken: u64,
    /// Questions for an address on the link.
    pub questions: u64,
    /// Answers that were lost because the port had no buffer.
    pub lost: u64,
}

/// One core's TCP/IP over one port.
pub struct Stack<P: Port> {
    config: StackConfig,
    link: Link<P>,
    filter: Filter,
    iface: Interface,
    neighbours: Neighbours,
    /// What `neighbours.learned` was when those who wait were last looked at.
    learned: u64,
    conns: Vec<Conn>,
    free: Vec<u32>,
    flows: Flows,
    wheel: Wheel,
    listeners: Vec<Option<SocketAddr>>,
    touched: VecDeque<u32>,
    dirty: VecDeque<u32>,
    parked: Vec<u32>,
    waiting: Vec<u32>,
    ended: Vec<u32>,
    /// Handshakes of peers under way.
    greeting: Vec<u32>,
    lingering: Vec<u32>,
    /// Connections that somebody above knows of.
    open: usize,
    frames: Vec<P::Frame>,
    /// Where a PDU that crosses the end of a ring is put together, or a segment gets a newer acknowledgement.
    scratch: Box<[u8]>,
    nobody: SocketSet<'static>,
    next_port: u16,
    announced: bool,
    now: Time,
    stats: NetStats,
    counts: StackStats,
}

impl<P: Port> Stack<P> {
    /// A stack without listeners or connections.
    ///
    /// # Errors
    /// [`NetError::Engine`] when the configuration is out of its bounds.
    pub fn new(port: P, config: StackConfig) -> Result<Stack<P>, NetError> {
        let wrong = |why| NetError::Engine("stack", std::io::Error::new(std::io::ErrorKind::InvalidInput, why));
        let facts = *port.facts();
        config.check(facts.mtu).map_err(wrong)?;
        let mut rng = Rng::new(config.seed);
        let mut link = Link::new(port, config.vlan, config.mtu);
        let mut setup = Config::new(HardwareAddress::Ip);
        setup.random_seed = rng.next_u64();
        let mut nobody = Sent::default();
        let mut turn = link::Turn { link: &mut link, packet: None, to: None, sent: &mut nobody };
        let mut iface = Interface::new(setup, &mut turn, Instant::from_micros(0));
        iface.update_ip_addrs(|list| {
            for prefix in &config.addresses {
                let cidr = IpCidr::new(prefix.address.into(), prefix.bits);
                list.push(cidr).expect("the number of addresses was checked");
            }
        });
        let slots = config.conns + config.backlog;
        let span = u64::from(EPHEMERAL.end() - EPHEMERAL.start()) + 1;
        Ok(Stack {
            filter: Filter::new(&facts, config.vlan),
            link,
            iface,
            neighbours: Neighbours::new(),
            learned: 0,
            conns: (0..slots).map(|_| Conn::new(&config)).collect(),
            free: (0..slots as u32).rev().collect(),
            flows: Flows::new(slots, [rng.next_u64(), rng.next_u64()]),
            wheel: Wheel::new(slots),
            listeners: Vec::new(),
            touched: VecDeque::with_capacity(slots),
            dirty: VecDeque::with_capacity(slots),
            parked: Vec::with_capacity(slots),
            waiting: Vec::with_capacity(slots),
            ended: Vec::with_capacity(slots),
            greeting: Vec::with_capacity(config.backlog),
            lingering: Vec::with_capacity(slots),
            open: 0,
            frames: Vec::with_capacity(facts.burst),
            scratch: vec![0; (2 * CARRY_MAX).max(usize::from(u16::MAX))].into_boxed_slice(),
            nobody: SocketSet::new(Vec::new()),
            next_port: EPHEMERAL.start() + rng.below(span) as u16,
            announced: false,
            now: Time(0),
            stats: NetStats::default(),
            counts: StackStats::default(),
            config,
        })
    }

    /// What happened to frames that reached no connection.
    pub fn counts(&self) -> StackStats {
        StackStats { lost: self.link.lost, ..self.counts }
    }

    /// The port's own counters.
    pub fn port_stats(&self) -> PortStats {
        self.link.port.stats()
    }

    /// True when `ip` is one of this stack's addresses.
    pub fn owns(&self, ip: IpAddr) -> bool {
        self.config.addresses.iter().any(|p| p.address == ip)
    }

    /// The address that speaks to `remote`, and the next hop towards it.
    fn way(&self, remote: IpAddr) -> Option<(IpAddr, IpAddr)> {
        let direct = self.config.addresses.iter().find(|p| p.contains(remote));
        if let Some(prefix) = direct {
            return Some((prefix.address, remote));
        }
        let gateway = self.config.gateways.iter().find(|g| g.is_ipv4() == remote.is_ipv4())?;
        let prefix = self.config.addresses.iter().find(|p| p.contains(*gateway))?;
        Some((prefix.address, *gateway))
    }

    /// A point in time on smoltcp's clock; see [`conn::scaled`].
    fn clock(&self, at: Time) -> Instant {
        Instant::from_micros((at.0 / u64::from(self.config.again_ms)).cast_signed())
    }

    fn touch(&mut self, slot: u32) {
        let conn = &mut self.conns[slot as usize];
        if !conn.touched {
            conn.touched = true;
            self.touched.push_back(slot);
        }
    }

    fn mark_dirty(&mut self, slot: u32) {
        let conn = &mut self.conns[slot as usize];
        if !conn.dirty {
            conn.dirty = true;
            self.dirty.push_back(slot);
        }
    }

    fn known(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.conns.get_mut(id.slot as usize).filter(|c| c.generation == id.generation && c.is_known())
    }

    /// A port for an outgoing connection to `remote`, from where the last search ended.
    fn ephemeral(&mut self, local: IpAddr, remote: SocketAddr) -> Option<Flow> {
        for _ in EPHEMERAL {
            let port = self.next_port;
            self.next_port = if port == *EPHEMERAL.end() { *EPHEMERAL.start() } else { port + 1 };
            let here = SocketAddr::new(local, port);
            let flow = Flow::new(here, remote);
            let listened = self.listeners.iter().flatten().any(|l| l.port() == port);
            if !listened && self.flows.find(&flow).is_none() && self.link.port.takes(here, remote) {
                return Some(flow);
            }
        }
        None
    }
}

fn address(what: &'static str, addr: SocketAddr, errno: i32) -> NetError {
    NetError::Address { what, addr, source: std::io::Error::from_raw_os_error(errno) }
}

impl<P: Port> Net for Stack<P> {
    fn listen(&mut self, addr: SocketAddr, _shared: bool) -> Result<(ListenerId, SocketAddr), NetError> {
        let what = "listen on";
        if !addr.ip().is_unspecified() && !self.owns(addr.ip()) {
            return Err(address(what, addr, libc::EADDRNOTAVAIL));
        }
        let clash = |l: &SocketAddr, port: u16| {
            l.port() == port && (l.ip() == addr.ip() || l.ip().is_unspecified() || addr.ip().is_unspecified())
        };
        let taken = |port: u16| self.listeners.iter().flatten().any(|l| clash(l, port));
        let port = if addr.port() == 0 { EPHEMERAL.rev().find(|p| !taken(*p)) } else { Some(addr.port()) };
        let Some(port) = port.filter(|p| !taken(*p)) else { return Err(address(what, addr, libc::EADDRINUSE)) };
        let got = SocketAddr::new(addr.ip(), port);
        self.listeners.push(Some(got));
        Ok((ListenerId(self.listeners.len() as u32 - 1), got))
    }

    fn unlisten(&mut self, listener: ListenerId) {
        if let Some(entry) = self.listeners.get_mut(listener.0 as usize) {
            *entry = None;
        }
        let greeting = self.greeting.iter().rev().copied();
        let gone: Vec<u32> = greeting.filter(|s| self.conns[*s as usize].phase == Phase::Greeting(listener)).collect();
        for slot in gone {
            self.release(slot);
        }
    }

    fn connect(&mut self, addr: SocketAddr) -> Result<ConnId, NetError> {
        let what = "connect to";
        if addr.port() == 0 || self.owns(addr.ip()) {
            return Err(address(what, addr, libc::EADDRNOTAVAIL));
        }
        let Some((local, hop)) = self.way(addr.ip()) else { return Err(address(what, addr, libc::ENETUNREACH)) };
        if self.open >= self.config.conns {
            return Err(NetError::Limit("connections per core"));
        }
        let Some(flow) = self.ephemeral(local, addr) else { return Err(address(what, addr, libc::EADDRNOTAVAIL)) };
        let Some(slot) = self.take() else { return Err(NetError::Limit("connections per core")) };
        Ok(self.start(slot, flow, hop))
    }

    fn adopt(&mut self, _loose: Loose) -> Result<ConnId, NetError> {
        Err(NetError::Engine("stack", std::io::Error::from(std::io::ErrorKind::Unsupported)))
    }

    /// The card delivers a flow to the core that its hash names: no other core could go on with it, so it ends.
    fn release(&mut self, conn: ConnId) {
        self.close(conn, Close::Now);
    }

    fn poll<H: Handler>(&mut self, now: Time, pool: &mut Pool, handler: &mut H) -> usize {
        self.now = now;
        if !self.announced {
            self.announced = true;
            self.announce();
        }
        while let Some(slot) = self.wheel.due(now) {
            self.check(slot);
        }
        let mut events = 0;
        if !self.ended.is_empty() {
            events += self.reap(pool, handler);
        }
        if !self.parked.is_empty() {
            self.unpark(handler);
        }
        self.receive();
        events += self.touched.len();
        while let Some(slot) = self.touched.pop_front() {
            self.conns[slot as usize].touched = false;
            self.deliver(slot, pool, handler);
        }
        events
    }

    fn tx(&mut self, conn: ConnId) -> Option<&mut Tx> {
        let phase = self.known(conn)?.phase;
        if !matches!(phase, Phase::Open | Phase::Connecting) {
            return None;
        }
        self.mark_dirty(conn.slot);
        Some(&mut self.conns[conn.slot as usize].tx)
    }

    fn flush(&mut self, now: Time, pool: &mut Pool) -> usize {
        self.now = now;
        self.link.unspill();
        let mut bytes = 0;
        // Those that are not finished are listed again at the end, behind the ones looked at here.
        for _ in 0..self.dirty.len() {
            let Some(slot) = self.dirty.pop_front() else { break };
            self.conns[slot as usize].dirty = false;
            bytes += self.send(slot, pool);
        }
        self.link.port.kick();
        bytes
    }

    fn close(&mut self, id: ConnId, how: Close) {
        let until = self.now.after_ms(LINGER_MS);
        let Some(conn) = self.known(id) else { return };
        match (how, conn.phase) {
            (_, Phase::Ended(_)) | (Close::AfterSend, Phase::Closing { .. }) => {}
            (Close::AfterSend, Phase::Open) => {
                conn.phase = Phase::Closing { finished: false };
                conn.until = Some(until);
                self.wheel.set(id.slot, until);
                self.touch(id.slot);
                self.mark_dirty(id.slot);
            }
            (Close::Now | Close::AfterSend, _) => {
                conn.socket().abort();
                self.end(id.slot, Closed::Local);
                self.mark_dirty(id.slot);
            }
        }
    }

    fn wait_fd(&self) -> Option<i32> {
        self.link.port.wait_fd()
    }

    fn wake_at(&self) -> Option<Time> {
        let busy = !self.ended.is_empty() || !self.touched.is_empty() || !self.dirty.is_empty();
        if busy || !self.link.room() || !self.announced {
            return Some(Time(0));
        }
        self.wheel.next()
    }

    fn connections(&self) -> usize {
        self.open
    }

    fn stats(&self) -> NetStats {
        self.stats
    }
}
