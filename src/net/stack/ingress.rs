//! What arrives: frames to their connections, questions for our address to their answers, and what a connection has
//! received to its handler.

use super::super::feed::feed;
use super::super::{CARRY_MAX, Closed, Ends, Handler, ListenerId};
use super::conn::Phase;
use super::discovery::{self, ARP_BYTES, Arp, ND_BYTES, Neighbour};
use super::flow::{self, address};
use super::frame::{self, Drop, FIN, RST, SYN, Seen, Segment, TYPE_ARP, TYPE_IPV6};
use super::link::{Sent, Turn};
use super::neighbour::Mac;
use super::{Port, Stack, TURN_FRAMES};
use crate::mem::Pool;
use smoltcp::socket::tcp::State;
use smoltcp::wire::IpListenEndpoint;
use std::net::{IpAddr, Ipv6Addr};

impl<P: Port> Stack<P> {
    /// Takes the turn's frames from the port.
    pub(super) fn receive(&mut self) {
        let mut frames = std::mem::take(&mut self.frames);
        let burst = self.link.port.facts().burst;
        let mut taken = 0;
        while taken < TURN_FRAMES {
            self.stats.waits += 1;
            let got = self.link.port.receive(&mut frames);
            for frame in &frames {
                self.frame(frame.as_ref());
            }
            frames.clear();
            taken += got;
            if got < burst {
                break;
            }
        }
        self.frames = frames;
        if self.learned != self.neighbours.learned {
            self.learned = self.neighbours.learned;
            self.unwait();
        }
    }

    fn frame(&mut self, bytes: &[u8]) {
        match self.filter.sort(bytes) {
            Seen::Tcp(segment) => self.segment(&segment),
            Seen::Arp(packet) => self.arp(packet),
            Seen::Icmpv4(packet, source) => self.stray(packet, source, false),
            Seen::Icmpv6(packet, source) => match Neighbour::parse(packet) {
                Some(neighbour) => self.neighbour(&neighbour),
                None => self.stray(packet, source, true),
            },
            Seen::Nothing(why) => {
                let count = match why {
                    Drop::NotOurs => &mut self.counts.not_ours,
                    Drop::Malformed => &mut self.counts.malformed,
                    Drop::Damaged => &mut self.counts.damaged,
                    Drop::Fragment => &mut self.counts.fragments,
                };
                *count += 1;
            }
        }
    }

    fn segment(&mut self, segment: &Segment<'_>) {
        self.stats.receives += 1;
        if let Some(slot) = self.flows.find(&segment.flow) {
            return self.process(slot, segment);
        }
        if !self.owns(address(segment.flow.local)) {
            self.counts.not_ours += 1;
            return;
        }
        if segment.flags() & (SYN | RST | FIN | frame::ACK) == SYN
            && let Some(listener) = self.listener(segment)
        {
            if self.open < self.config.conns {
                return self.greet(segment, listener);
            }
            self.stats.refused += 1;
        }
        self.counts.strays += 1;
        self.stray(segment.packet, segment.source, segment.packet[0] >> 4 == 6);
    }

    fn listener(&self, segment: &Segment<'_>) -> Option<ListenerId> {
        let here = segment.flow.local();
        let fits = |l: &Option<std::net::SocketAddr>| {
            l.is_some_and(|l| {
                let wild = l.ip().is_unspecified() && l.is_ipv4() == here.is_ipv4();
                l.port() == here.port() && (wild || l.ip() == here.ip())
            })
        };
        self.listeners.iter().position(fits).map(|index| ListenerId(index as u32))
    }

    /// A SYN for a listener: the handshake begins.
    fn greet(&mut self, segment: &Segment<'_>, listener: ListenerId) {
        let Some((_, hop)) = self.way(address(segment.flow.remote)) else {
            self.counts.not_ours += 1;
            return;
        };
        if self.greeting.len() >= self.config.backlog {
            self.forget_one();
        }
        let room = self.greeting.len() < self.config.backlog;
        let Some(slot) = (if room { self.take() } else { None }) else {
            self.counts.crowded += 1;
            return;
        };
        self.counts.greetings += 1;
        self.claim(slot, Phase::Greeting(listener), segment.flow, hop);
        let here = segment.flow.local();
        let endpoint = IpListenEndpoint { addr: Some(here.ip().into()), port: here.port() };
        let conn = &mut self.conns[slot as usize];
        conn.socket().listen(endpoint).expect("a free slot's socket is closed and the port is not 0");
        self.process(slot, segment);
    }

    /// Gives a segment to its connection's socket.
    fn process(&mut self, slot: u32, segment: &Segment<'_>) {
        let now = self.clock(self.now);
        let conn = &mut self.conns[slot as usize];
        self.neighbours.heard(&mut conn.place, conn.hop, segment.source, self.now);
        let flags = segment.flags();
        let mut packet = segment.packet;
        if flags & (frame::ACK | SYN | RST) == frame::ACK
            && conn.sent.heard(segment.acknowledged(), segment.window())
            && (segment.payload() > 0 || flags & FIN != 0)
        {
            // smoltcp drops bytes that come with an acknowledgement which another segment has overtaken. They get the
            // newer one, and the window that came with it, which say nothing that the peer has not said.
            self.counts.overtaken += 1;
            let copy = &mut self.scratch[..packet.len()];
            copy.copy_from_slice(packet);
            copy[segment.at + 8..segment.at + 12].copy_from_slice(&conn.sent.acknowledged.to_be_bytes());
            copy[segment.at + 14..segment.at + 16].copy_from_slice(&conn.sent.window.to_be_bytes());
            packet = copy;
        }
        let (sockets, sent) = conn.sockets();
        let mut turn = Turn { link: &mut self.link, packet: Some(packet), to: Some(segment.source), sent };
        self.iface.poll_ingress_single(now, &mut turn, sockets);
        self.touch(slot);
    }

    /// A packet that belongs to no connection: smoltcp answers with a reset or an echo, to where it came from.
    fn stray(&mut self, packet: &[u8], source: Mac, v6: bool) {
        let now = self.clock(self.now);
        let mut sent = Sent { v6, ..Sent::default() };
        let mut turn = Turn { link: &mut self.link, packet: Some(packet), to: Some(source), sent: &mut sent };
        self.iface.poll_ingress_single(now, &mut turn, &mut self.nobody);
    }

    fn arp(&mut self, packet: &[u8]) {
        let Some(arp) = Arp::parse(packet) else {
            self.counts.malformed += 1;
            return;
        };
        let (mac, sender) = arp.sender;
        let asked = self.owns(IpAddr::V4(arp.target.1));
        if self.owns(IpAddr::V4(sender)) || sender.is_unspecified() || sender.is_multicast() || sender.is_broadcast() {
            self.counts.not_ours += 1;
            return;
        }
        // Who asks for us will be spoken to; others are only remembered while we speak to them (RFC 826).
        let near = self.config.addresses.iter().any(|p| p.contains(IpAddr::V4(sender)));
        if near {
            self.neighbours.learn(flow::number(IpAddr::V4(sender)), mac, !asked || arp.reply, self.now);
        }
        if asked && !arp.reply {
            let answer = Arp { reply: true, sender: (self.filter.mac, arp.target.1), target: (mac, sender) };
            self.link.output(mac, TYPE_ARP, ARP_BYTES, |out| answer.write(out));
        }
    }

    fn neighbour(&mut self, n: &Neighbour) {
        if n.advertisement {
            if let Some(mac) = n.mac {
                self.neighbours.learn(n.target.to_bits(), mac, true, self.now);
            }
            return;
        }
        let Some(mac) = n.mac.filter(|_| self.owns(IpAddr::V6(n.target)) && !n.source.is_unspecified()) else { return };
        if self.config.addresses.iter().any(|p| p.contains(IpAddr::V6(n.source))) || n.source.is_unicast_link_local() {
            self.neighbours.learn(n.source.to_bits(), mac, false, self.now);
        }
        let answer = Neighbour {
            advertisement: true,
            source: n.target,
            destination: n.source,
            target: n.target,
            mac: Some(self.filter.mac),
            solicited: true,
        };
        self.link.output(mac, TYPE_IPV6, ND_BYTES, |out| answer.write(out));
    }

    /// Tells the link where our addresses are, so that hosts with an older answer learn of it.
    pub(super) fn announce(&mut self) {
        let mac = self.filter.mac;
        for prefix in self.config.addresses.clone() {
            match prefix.address {
                IpAddr::V4(ip) => {
                    let arp = Arp { reply: false, sender: (mac, ip), target: ([0; 6], ip) };
                    self.link.output([0xff; 6], TYPE_ARP, ARP_BYTES, |out| arp.write(out));
                }
                IpAddr::V6(ip) => {
                    let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
                    let n = Neighbour {
                        advertisement: true,
                        source: ip,
                        destination: all,
                        target: ip,
                        mac: Some(mac),
                        solicited: false,
                    };
                    self.link.output(discovery::group_mac(all), TYPE_IPV6, ND_BYTES, |out| n.write(out));
                }
            }
        }
    }

    /// Asks for the address of `hop` on the link: the host itself when it was known, everybody otherwise.
    pub(super) fn ask(&mut self, hop: u128, known: Option<Mac>) {
        self.counts.questions += 1;
        let mac = self.filter.mac;
        let hop = address(hop);
        let Some(us) = self.config.addresses.iter().find(|p| p.contains(hop)).map(|p| p.address) else { return };
        match (us, hop) {
            (IpAddr::V4(us), IpAddr::V4(hop)) => {
                let arp = Arp { reply: false, sender: (mac, us), target: (known.unwrap_or_default(), hop) };
                self.link.output(known.unwrap_or([0xff; 6]), TYPE_ARP, ARP_BYTES, |out| arp.write(out));
            }
            (IpAddr::V6(us), IpAddr::V6(hop)) => {
                let group = discovery::solicited_node(hop);
                let n = Neighbour {
                    advertisement: false,
                    source: us,
                    destination: if known.is_some() { hop } else { group },
                    target: hop,
                    mac: Some(mac),
                    solicited: false,
                };
                let to = known.unwrap_or(discovery::group_mac(group));
                self.link.output(to, TYPE_IPV6, ND_BYTES, |out| n.write(out));
            }
            _ => unreachable!("a network has one family"),
        }
    }

    /// Goes on with connections whose handler wants bytes again, or that are over.
    pub(super) fn unpark<H: Handler>(&mut self, handler: &mut H) {
        let mut i = 0;
        while let Some(slot) = self.parked.get(i).copied() {
            let conn = &mut self.conns[slot as usize];
            if conn.phase == Phase::Open && handler.paused(conn.id(slot)) {
                i += 1;
                continue;
            }
            conn.parked = false;
            conn.shown = 0;
            self.parked.swap_remove(i);
            self.touch(slot);
        }
    }

    /// Tells the handler what became of a connection that something happened to.
    pub(super) fn deliver<H: Handler>(&mut self, slot: u32, pool: &mut Pool, handler: &mut H) {
        let conn = &mut self.conns[slot as usize];
        let state = conn.state();
        match conn.phase {
            Phase::Free => return,
            Phase::Greeting(listener) => match state {
                State::SynReceived => {}
                State::Listen | State::Closed => return self.release(slot),
                _ => self.accept(slot, listener, pool, handler),
            },
            Phase::Connecting => match state {
                State::SynSent | State::SynReceived => {}
                State::Closed => self.end(slot, Closed::Error(libc::ECONNREFUSED)),
                _ => {
                    conn.phase = Phase::Open;
                    handler.connected(conn.id(slot), &mut conn.tx);
                    self.show(slot, pool, handler);
                }
            },
            Phase::Open => self.show(slot, pool, handler),
            Phase::Closing { .. } => {
                self.discard(slot);
                if matches!(state, State::TimeWait | State::Closed) {
                    self.end(slot, Closed::Local);
                }
            }
            Phase::Ended(_) => {}
            Phase::Lingering => {
                self.discard(slot);
                if state == State::Closed && self.conns[slot as usize].socket().remote_endpoint().is_none() {
                    return self.release(slot);
                }
            }
        }
        self.mark_dirty(slot);
    }

    /// A peer's handshake is complete.
    fn accept<H: Handler>(&mut self, slot: u32, listener: ListenerId, pool: &mut Pool, handler: &mut H) {
        self.unlist(slot);
        let full = self.open >= self.config.conns;
        let conn = &mut self.conns[slot as usize];
        (conn.phase, conn.until) = (Phase::Open, None);
        let ends = Ends { local: conn.flow.local(), peer: conn.flow.remote() };
        if !full && handler.accepted(conn.id(slot), listener, ends, &mut conn.tx) {
            self.open += 1;
            self.stats.accepted += 1;
            return self.show(slot, pool, handler);
        }
        assert!(conn.tx.is_empty(), "a refused connection queues nothing");
        self.stats.refused += 1;
        conn.socket().abort();
        conn.generation = conn.generation.wrapping_add(1);
        self.linger(slot);
    }

    /// Gives the handler what it has not seen of an open connection's bytes, and ends the connection behind them.
    fn show<H: Handler>(&mut self, slot: u32, pool: &mut Pool, handler: &mut H) {
        let conn = &mut self.conns[slot as usize];
        let id = conn.id(slot);
        let mut paused = conn.parked || handler.paused(id);
        while !paused {
            let shown = conn.shown;
            let (socket, tx) = conn.parts();
            let waiting = socket.recv_queue();
            if waiting == 0 || waiting == shown {
                break;
            }
            let straight = socket.peek(waiting).expect("bytes in the buffer can be read");
            let length = straight.len();
            let mut taken = feed(id, straight, tx, pool, handler);
            paused = handler.paused(id);
            let rest = length - taken;
            let mut seen = rest;
            consume(socket, taken);
            if rest > 0 && length < waiting && !paused {
                // A PDU crosses the end of the ring: it is put together in the scratch.
                let whole = &mut self.scratch[..(rest + CARRY_MAX).min(waiting - taken)];
                let copied = socket.peek_slice(whole).expect("bytes in the buffer can be read");
                assert_eq!(copied, whole.len(), "the buffer holds what it says");
                let more = feed(id, whole, tx, pool, handler);
                paused = handler.paused(id);
                consume(socket, more);
                seen = copied - more;
                taken += more;
            }
            self.stats.bytes_in += taken as u64;
            // Not `waiting - taken`: what lies behind the end of the ring may not have been shown at all.
            conn.shown = seen;
        }
        let state = conn.state();
        if paused && !conn.parked {
            conn.parked = true;
            self.parked.push(slot);
        }
        match state {
            State::Closed => self.end(slot, Closed::Error(libc::ECONNRESET)),
            State::CloseWait if !paused => self.end(slot, Closed::Peer),
            _ => {}
        }
    }

    /// Drops what still arrives on a connection that this side closes.
    fn discard(&mut self, slot: u32) {
        let socket = self.conns[slot as usize].socket();
        let waiting = socket.recv_queue();
        consume(socket, waiting);
    }
}

/// Takes `n` bytes, which are there, out of a socket's receive ring.
fn consume(socket: &mut smoltcp::socket::tcp::Socket<'_>, mut n: usize) {
    while n > 0 {
        let take = |bytes: &mut [u8]| {
            let take = bytes.len().min(n);
            (take, take)
        };
        n -= socket.recv(take).expect("bytes in the buffer can be read");
    }
}
