//! Receiving: which connections to read this turn, and one bounded read of one of them.

use super::super::feed::feed;
use super::super::window::{NOBODY, WINDOW};
use super::super::{CARRY_MAX, Closed, Handler};
use super::conn::Phase;
use super::{LISTENER, STASH_MAX, TURN_BYTES, Tcp};
use crate::mem::Pool;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventFlags};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use std::io::IoSliceMut;

/// What one read of one connection came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Read {
    /// So many bytes arrived and the kernel may hold more.
    More(usize),
    /// So many bytes arrived and the kernel holds no more; the next edge tells.
    Drained(usize),
    /// Nothing to read.
    Empty,
    /// Not to be read now: paused, over, or not connected.
    Off,
}

impl Tcp {
    /// Asks epoll what is ready, accepts, and lists the connections to read.
    pub(super) fn wait<H: Handler>(&mut self, handler: &mut H) -> usize {
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        self.stats.waits += 1;
        let got = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&Timespec::default()));
        let mut taken = 0;
        // The only error that a valid set can give is an interrupting signal: look again next turn.
        if got.is_ok() {
            for event in &events {
                let token = event.data.u64();
                if token & LISTENER != 0 {
                    taken += self.accept((token & !LISTENER) as usize, handler);
                } else {
                    taken += usize::from(self.ready_event(token, event.flags, handler));
                }
            }
        }
        self.events = events;
        taken
    }

    /// One event of a connection; false when it is of an earlier use of the slot.
    fn ready_event<H: Handler>(&mut self, token: u64, flags: EventFlags, handler: &mut H) -> bool {
        let slot = token as u32;
        let Some((id, conn)) = self.conns.at(slot) else { return false };
        if super::token(id) != token {
            return false;
        }
        if conn.phase == Phase::Connecting {
            if flags.intersects(EventFlags::OUT | EventFlags::ERR | EventFlags::HUP) {
                self.finish_connect(slot, handler);
                self.enqueue(slot);
            }
            return true;
        }
        if flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR) {
            conn.hangup = true;
            if conn.parked && flags.contains(EventFlags::ERR) {
                // Reset: what its handler did not want to read yet will never be answered.
                let errno = rustix::net::sockopt::socket_error(&conn.fd);
                let errno = errno.ok().and_then(Result::err).unwrap_or(Errno::CONNRESET);
                self.end(slot, Closed::Error(errno.raw_os_error()));
                return true;
            }
        }
        let unblocked = conn.blocked && flags.contains(EventFlags::OUT);
        let readable = flags.contains(EventFlags::IN) || conn.hangup;
        if unblocked {
            conn.blocked = false;
            self.mark_dirty(slot);
        }
        if readable {
            self.enqueue(slot);
        }
        unblocked || readable
    }

    /// Lists a connection as to be read.
    pub(super) fn enqueue(&mut self, slot: u32) {
        if let Some((_, conn)) = self.conns.at(slot)
            && !conn.queued
        {
            conn.queued = true;
            self.ready.push_back(slot);
        }
    }

    /// Reads every listed connection once, until the turn has its fill. Returns how many had bytes.
    pub(super) fn read_ready<H: Handler>(&mut self, pool: &mut Pool, handler: &mut H) -> usize {
        let (mut bytes, mut events) = (0, 0);
        for _ in 0..self.ready.len() {
            if bytes >= TURN_BYTES {
                break;
            }
            let Some(slot) = self.ready.pop_front() else { break };
            if let Some((_, conn)) = self.conns.at(slot) {
                conn.queued = false;
            }
            match self.read(slot, pool, handler) {
                Read::More(n) => {
                    (bytes, events) = (bytes + n, events + 1);
                    self.heard(slot);
                    self.enqueue(slot);
                }
                Read::Drained(n) => {
                    (bytes, events) = (bytes + n, events + 1);
                    self.heard(slot);
                }
                Read::Empty | Read::Off => {}
            }
        }
        events
    }

    /// Receives from the hot connections without asking whether there is anything.
    pub(super) fn read_hot<H: Handler>(&mut self, pool: &mut Pool, handler: &mut H) -> usize {
        let (slots, len) = self.hot.slots();
        let mut events = 0;
        for slot in &slots[..len] {
            if self.conns.at(*slot).is_some_and(|(_, c)| c.queued) {
                continue;
            }
            match self.read(*slot, pool, handler) {
                Read::More(_) => {
                    events += 1;
                    self.heard(*slot);
                    self.enqueue(*slot);
                }
                Read::Drained(_) => {
                    events += 1;
                    self.heard(*slot);
                }
                Read::Empty => {
                    if self.hot.silent(*slot, self.now) {
                        self.watch(*slot);
                    }
                }
                Read::Off => self.cool(*slot),
            }
        }
        events
    }

    /// Goes on with connections whose handler wants bytes again.
    pub(super) fn unpark<H: Handler>(&mut self, pool: &mut Pool, handler: &mut H) -> usize {
        let (mut i, mut events) = (0, 0);
        while let Some(slot) = self.parked.get(i).copied() {
            let Some((id, conn)) = self.conns.at(slot) else { unreachable!("parked connections are in the table") };
            if conn.phase == Phase::Open && handler.paused(id) {
                i += 1;
                continue;
            }
            conn.parked = false;
            self.stashed -= std::mem::take(&mut conn.stashed);
            self.parked.swap_remove(i);
            self.make_room(slot);
            let Some((_, conn)) = self.conns.at(slot) else { unreachable!("looked up above") };
            if conn.phase == Phase::Open {
                self.window.load(slot, &mut conn.carry);
                conn.carry.shrink_to(CARRY_MAX);
                self.deliver(slot, pool, handler);
            }
            self.enqueue(slot);
            events += 1;
        }
        events
    }

    /// Moves another connection's rest out of the window.
    pub(super) fn make_room(&mut self, slot: u32) {
        let owner = self.window.owner();
        if owner != slot && owner != NOBODY {
            let Some((_, conn)) = self.conns.at(owner) else { unreachable!("a rest has a connection") };
            self.window.evict(&mut conn.carry);
        }
    }

    /// One receive on `slot` and its delivery.
    pub(super) fn read<H: Handler>(&mut self, slot: u32, pool: &mut Pool, handler: &mut H) -> Read {
        self.make_room(slot);
        let limit = if self.stashed > STASH_MAX { CARRY_MAX } else { WINDOW };
        let Some((id, conn)) = self.conns.at(slot) else { return Read::Off };
        match conn.phase {
            Phase::Open if conn.parked => return Read::Off,
            Phase::Open if handler.paused(id) => {
                self.park(slot);
                return Read::Off;
            }
            Phase::Open => {}
            Phase::Closing { .. } => return self.discard(slot),
            Phase::Connecting | Phase::Ended(_) => return Read::Off,
        }
        self.window.load(slot, &mut conn.carry);
        // With a rest in the window the handler has yet to look at it, so a landing place can only be named without.
        let place = if self.window.rest().is_empty() { handler.landing(id) } else { None };
        let (asked, placed, got) = match place {
            Some(place) if !place.is_empty() => {
                let take = place.len().min(limit);
                let room = self.window.room(limit);
                let asked = take + room.len();
                let mut iov = [IoSliceMut::new(&mut place[..take]), IoSliceMut::new(room)];
                (asked, take, rustix::io::readv(&conn.fd, &mut iov))
            }
            _ => {
                let room = self.window.room(limit);
                (room.len(), 0, rustix::net::recv(&conn.fd, room, RecvFlags::DONTWAIT).map(|(n, _)| n))
            }
        };
        self.stats.receives += 1;
        match got {
            Ok(0) => {
                self.end(slot, Closed::Peer);
                Read::Off
            }
            Ok(n) => {
                self.stats.bytes_in += n as u64;
                let more = n == asked || conn.hangup;
                let landed = n.min(placed);
                if landed > 0 {
                    handler.landed(id, landed, &mut conn.tx, pool);
                }
                self.window.filled(n - landed);
                self.deliver(slot, pool, handler);
                if more { Read::More(n) } else { Read::Drained(n) }
            }
            Err(Errno::AGAIN) => Read::Empty,
            Err(Errno::INTR) => Read::More(0),
            Err(e) => {
                self.end(slot, Closed::Error(e.raw_os_error()));
                Read::Off
            }
        }
    }

    /// Gives the handler what the window holds of `slot`, and parks the connection if it wants no more.
    fn deliver<H: Handler>(&mut self, slot: u32, pool: &mut Pool, handler: &mut H) {
        let Some((id, conn)) = self.conns.at(slot) else { unreachable!("delivery to a connection in hand") };
        if !self.window.rest().is_empty() {
            let taken = feed(id, self.window.rest(), &mut conn.tx, pool, handler);
            self.window.consumed(taken);
        }
        let (paused, unsent) = (handler.paused(id), !conn.tx.is_empty());
        if paused {
            self.park(slot);
        }
        if unsent {
            self.mark_dirty(slot);
        }
    }

    /// Sets a connection aside until its handler wants bytes; what it left moves out of the window.
    pub(super) fn park(&mut self, slot: u32) {
        let Some((_, conn)) = self.conns.at(slot) else { unreachable!("parked in hand") };
        if self.window.owner() == slot {
            self.window.evict(&mut conn.carry);
        }
        conn.stashed = conn.carry.len().saturating_sub(CARRY_MAX);
        self.stashed += conn.stashed;
        conn.parked = true;
        self.parked.push(slot);
        self.cool(slot);
    }

    /// Reads and drops what still arrives on a connection that this side closes.
    fn discard(&mut self, slot: u32) -> Read {
        let Some((_, conn)) = self.conns.at(slot) else { return Read::Off };
        self.window.forget();
        let room = self.window.room(WINDOW);
        let asked = room.len();
        match rustix::net::recv(&conn.fd, room, RecvFlags::DONTWAIT) {
            Ok((0, _)) => {
                self.end(slot, Closed::Local);
                Read::Off
            }
            Ok((n, _)) if n == asked || conn.hangup => Read::More(n),
            Ok((n, _)) => Read::Drained(n),
            Err(Errno::AGAIN) => Read::Empty,
            Err(Errno::INTR) => Read::More(0),
            Err(_) => {
                self.end(slot, Closed::Local);
                Read::Off
            }
        }
    }
}
