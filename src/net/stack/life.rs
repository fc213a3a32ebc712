//! A connection slot from its first use to its release, and the looks at it that time brings.

use super::super::{Closed, ConnId, Handler};
use super::conn::Phase;
use super::flow::Flow;
use super::{LINGER_MS, Port, Stack};
use crate::base::Time;
use crate::mem::Pool;
use smoltcp::socket::tcp::State;
use std::net::IpAddr;

/// How long a peer's handshake may take: its SYN is answered five times in it.
const GREETING_MS: u64 = 5000;
/// How long it takes at least, ns, before another may have its place.
const GREETING_LEAST_NS: u64 = 5_000_000;
/// Position of a connection that is in neither list.
const UNLISTED: u32 = u32::MAX;

impl<P: Port> Stack<P> {
    /// A free slot: one that is free, one that only waits for its peer's last words, or that of a handshake.
    pub(super) fn take(&mut self) -> Option<u32> {
        if self.free.is_empty() {
            if let Some(slot) = self.lingering.first().copied() {
                self.release(slot);
            } else {
                self.forget_one();
            }
        }
        self.free.pop()
    }

    /// Begins a connection in a slot that was taken.
    pub(super) fn claim(&mut self, slot: u32, phase: Phase, flow: Flow, hop: IpAddr) {
        let hop = super::flow::number(hop);
        let conn = &mut self.conns[slot as usize];
        conn.begin(phase, flow, &self.config);
        (conn.hop, conn.place, conn.listed) = (hop, self.neighbours.place(hop), UNLISTED);
        self.flows.insert(flow, slot);
        if matches!(phase, Phase::Greeting(_)) {
            let until = self.now.after_ms(GREETING_MS);
            conn.until = Some(until);
            conn.listed = self.greeting.len() as u32;
            self.greeting.push(slot);
            self.wheel.set(slot, until);
        }
    }

    /// Begins an outgoing connection.
    pub(super) fn start(&mut self, slot: u32, flow: Flow, hop: IpAddr) -> ConnId {
        self.claim(slot, Phase::Connecting, flow, hop);
        let conn = &mut self.conns[slot as usize];
        let (remote, local) = (flow.remote(), flow.local());
        let started = conn.socket().connect(self.iface.context(), remote, local);
        started.expect("both ends were checked and the slot's socket is closed");
        self.open += 1;
        let id = conn.id(slot);
        self.mark_dirty(slot);
        id
    }

    /// Takes a connection out of the list of handshakes or of the lingering.
    pub(super) fn unlist(&mut self, slot: u32) {
        let conn = &mut self.conns[slot as usize];
        let at = std::mem::replace(&mut conn.listed, UNLISTED);
        if at == UNLISTED {
            return;
        }
        let list = if matches!(conn.phase, Phase::Greeting(_)) { &mut self.greeting } else { &mut self.lingering };
        assert_eq!(list.swap_remove(at as usize), slot, "a connection knows where it is listed");
        if let Some(moved) = list.get(at as usize).copied() {
            self.conns[moved as usize].listed = at;
        }
    }

    /// Forgets the oldest handshake in favour of another, if it had its time. A flood of them fills the backlog; each then
    /// has at least the time that an honest peer on the same network needs.
    pub(super) fn forget_one(&mut self) {
        let waits = |slot: &&u32| self.conns[**slot as usize].state() == State::SynReceived;
        let oldest = self.greeting.iter().filter(waits).min_by_key(|slot| self.conns[**slot as usize].until);
        let Some(slot) = oldest.copied() else { return };
        let left = self.conns[slot as usize].until.map_or(0, |until| until.since(self.now));
        if left + GREETING_LEAST_NS <= GREETING_MS * 1_000_000 {
            self.counts.forgotten += 1;
            self.release(slot);
        }
    }

    /// Frees a slot that nobody above knows of.
    pub(super) fn release(&mut self, slot: u32) {
        self.unlist(slot);
        let conn = &mut self.conns[slot as usize];
        assert!(matches!(conn.phase, Phase::Greeting(_) | Phase::Lingering), "a known connection is reported first");
        assert!(conn.tx.is_empty(), "buffers return before their connection goes");
        let flow = conn.flow;
        conn.socket().abort();
        (conn.phase, conn.until) = (Phase::Free, None);
        self.flows.remove(&flow);
        self.wheel.cancel(slot);
        self.free.push(slot);
    }

    /// Marks a connection as over; the next poll reports it.
    pub(super) fn end(&mut self, slot: u32, why: Closed) {
        let conn = &mut self.conns[slot as usize];
        if matches!(conn.phase, Phase::Ended(_)) {
            return;
        }
        // However it came to its end, a connection that this side was closing was closed by this side.
        let why = if matches!(conn.phase, Phase::Closing { .. }) { Closed::Local } else { why };
        (conn.phase, conn.until) = (Phase::Ended(why), None);
        self.ended.push(slot);
    }

    /// Reports the connections that are over. What TCP still owes their peers it sends without them.
    pub(super) fn reap<H: Handler>(&mut self, pool: &mut Pool, handler: &mut H) -> usize {
        let mut count = 0;
        while let Some(slot) = self.ended.pop() {
            let conn = &mut self.conns[slot as usize];
            let Phase::Ended(why) = conn.phase else { unreachable!("only ended connections are listed") };
            if why != Closed::Peer {
                conn.tx.clear(pool);
            }
            if matches!(why, Closed::Error(_)) {
                conn.socket().abort();
            }
            let id = conn.id(slot);
            conn.generation = conn.generation.wrapping_add(1);
            if std::mem::take(&mut conn.parked) {
                self.parked.retain(|s| *s != slot);
            }
            self.open -= 1;
            self.linger(slot);
            handler.closed(id, why);
            count += 1;
        }
        count
    }

    /// Leaves a connection that nobody knows any more to TCP, for a limited time.
    pub(super) fn linger(&mut self, slot: u32) {
        let until = self.now.after_ms(LINGER_MS);
        let conn = &mut self.conns[slot as usize];
        (conn.phase, conn.until, conn.listed) = (Phase::Lingering, Some(until), UNLISTED);
        self.wheel.set(slot, until);
        self.replaceable(slot);
        self.mark_dirty(slot);
    }

    /// Lists a lingering connection among those whose slot may be taken, once its buffers are back.
    pub(super) fn replaceable(&mut self, slot: u32) {
        let conn = &mut self.conns[slot as usize];
        if conn.tx.is_empty() && conn.listed == UNLISTED {
            conn.listed = self.lingering.len() as u32;
            self.lingering.push(slot);
        }
    }

    /// The time has come to look at a connection.
    pub(super) fn check(&mut self, slot: u32) {
        let clock = self.clock(self.now);
        let conn = &mut self.conns[slot as usize];
        if conn.phase == Phase::Free {
            return;
        }
        match conn.until {
            Some(until) if until <= self.now => match conn.phase {
                Phase::Greeting(_) => {
                    self.counts.forgotten += 1;
                    return self.release(slot);
                }
                Phase::Closing { .. } => {
                    conn.socket().abort();
                    self.end(slot, Closed::Local);
                    return self.mark_dirty(slot);
                }
                _ => return self.mark_dirty(slot),
            },
            Some(until) => self.wheel.set(slot, until),
            None => {}
        }
        let (sockets, _) = conn.sockets();
        match self.iface.poll_at(clock, sockets) {
            Some(at) if at <= clock => self.mark_dirty(slot),
            Some(at) => {
                let at = Time(at.total_micros() as u64 * u64::from(self.config.again_ms));
                self.wheel.set(slot, at);
            }
            None => {}
        }
    }

    /// What a look at the socket after sending says about the connection.
    pub(super) fn settle(&mut self, slot: u32) {
        let conn = &mut self.conns[slot as usize];
        let state = conn.state();
        match (conn.phase, state) {
            (Phase::Greeting(_), State::Closed) => {
                self.counts.forgotten += 1;
                self.release(slot);
            }
            (Phase::Connecting | Phase::Open, State::Closed) => self.end(slot, Closed::Error(libc::ETIMEDOUT)),
            (Phase::Closing { .. }, State::Closed | State::TimeWait) => self.end(slot, Closed::Local),
            (Phase::Lingering, State::Closed) if conn.socket().remote_endpoint().is_none() => self.release(slot),
            _ => {}
        }
    }
}
