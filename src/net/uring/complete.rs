//! What the `io_uring` engine does with each completion.

use super::super::feed::feed;
use super::super::{CARRY_MAX, Closed, Handler, ListenerId};
use super::conn::Phase;
use super::ring::{Completion, HEADROOM};
use super::{ACCEPT_AGAIN_MS, Kind, Uring, sock};
use crate::mem::Pool;
use std::os::fd::{FromRawFd, OwnedFd};

const ACCEPT: u64 = Kind::Accept as u64;
const CONNECT: u64 = Kind::Connect as u64;
const RECEIVE: u64 = Kind::Receive as u64;
const SEND: u64 = Kind::Send as u64;

impl Uring {
    /// Handles all completions that are there. Returns how many mattered.
    pub(super) fn complete<H: Handler>(&mut self, pool: &mut Pool, handler: &mut H) -> usize {
        let mut list = std::mem::take(&mut self.completions);
        list.clear();
        self.ring.harvest(&mut list);
        let mut events = 0;
        for c in &list {
            let slot = c.token as u32;
            events += 1;
            match c.token >> 56 {
                ACCEPT => self.accepted(slot, c, handler),
                CONNECT => self.connected(slot, c, handler),
                RECEIVE => self.received(slot, c, pool, handler),
                SEND => self.sent(slot, c, pool),
                _ => events -= 1,
            }
        }
        self.completions = list;
        events
    }

    fn accepted<H: Handler>(&mut self, index: u32, c: &Completion, handler: &mut H) {
        if c.result >= 0 {
            // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
            let fd = unsafe { OwnedFd::from_raw_fd(c.result) };
            self.admit(fd, ListenerId(index), handler);
        }
        if c.more {
            return;
        }
        let Some(entry) = self.listeners.get_mut(index as usize) else { return };
        let Some(listener) = entry else { return };
        listener.armed = false;
        if listener.leaving {
            *entry = None;
        } else if c.result >= 0 || [-libc::ECONNABORTED, -libc::EINTR].contains(&c.result) {
            self.arm_accept(index as usize);
        } else {
            // Out of descriptors or memory, or an error nobody foresaw: trying at once again would only spin.
            listener.waiting = true;
            self.stats.accept_stalls += 1;
            self.accept_again = Some(self.now.after_ms(ACCEPT_AGAIN_MS));
        }
    }

    fn admit<H: Handler>(&mut self, fd: OwnedFd, listener: ListenerId, handler: &mut H) {
        let ends = sock::ends(&fd, None);
        let leaving = self.listeners.get(listener.0 as usize).is_none_or(|l| l.as_ref().is_none_or(|l| l.leaving));
        // A peer that is gone again has no address; nothing is lost by refusing it.
        let Some(ends) = ends.filter(|_| !leaving) else { return };
        let Ok(id) = self.insert(fd, Phase::Open) else {
            self.stats.refused += 1;
            return;
        };
        let Some(conn) = self.conns.get_mut(id) else { unreachable!("inserted above") };
        if handler.accepted(id, listener, ends, &mut conn.tx) {
            self.stats.accepted += 1;
            let greets = !conn.tx.is_empty();
            self.arm_receive(id.slot);
            if greets {
                self.mark_dirty(id.slot);
            }
        } else {
            self.stats.refused += 1;
            assert!(conn.tx.is_empty(), "a refused connection queues nothing");
            sock::reset_on_close(&conn.fd);
            self.conns.remove(id.slot);
        }
    }

    fn connected<H: Handler>(&mut self, slot: u32, c: &Completion, handler: &mut H) {
        let Some((id, conn)) = self.conns.at(slot) else { unreachable!("slots outlive their operations") };
        conn.connecting = false;
        conn.target = None;
        if conn.phase != Phase::Connecting {
            return self.settle(slot);
        }
        if c.result < 0 {
            return self.end(slot, Closed::Error(-c.result));
        }
        conn.phase = Phase::Open;
        handler.connected(id, &mut conn.tx);
        if !conn.tx.is_empty() {
            self.mark_dirty(slot);
        }
        self.arm_receive(slot);
    }

    fn received<H: Handler>(&mut self, slot: u32, c: &Completion, pool: &mut Pool, handler: &mut H) {
        let Some((_, conn)) = self.conns.at(slot) else { unreachable!("slots outlive their operations") };
        if !c.more {
            (conn.receiving, conn.halting) = (false, false);
        }
        match c.result {
            1.. => self.arrived(slot, c, pool, handler),
            0 => self.peer_ended(slot),
            // No buffer was free, or we asked it to stop: it is armed again below if it is still wanted.
            e if e == -libc::ENOBUFS || e == -libc::ECANCELED || e == -libc::EINTR => {}
            e => self.end(slot, Closed::Error(-e)),
        }
        if let Some(id) = c.buffer {
            self.ring.buffers.give(id);
        }
        let Some((_, conn)) = self.conns.at(slot) else { unreachable!("looked up above") };
        let wanted = match conn.phase {
            Phase::Open => !conn.parked,
            Phase::Closing { theirs, .. } => !theirs,
            Phase::Connecting | Phase::Ended(_) => false,
        };
        if wanted && !conn.receiving {
            self.arm_receive(slot);
        }
        self.settle(slot);
    }

    /// Bytes arrived in a buffer of the ring.
    fn arrived<H: Handler>(&mut self, slot: u32, c: &Completion, pool: &mut Pool, handler: &mut H) {
        let n = c.result as usize;
        self.stats.receives += 1;
        self.stats.bytes_in += n as u64;
        let Some(buffer) = c.buffer else { unreachable!("receives choose a buffer") };
        let Some((id, conn)) = self.conns.at(slot) else { unreachable!("looked up by the caller") };
        if conn.phase != Phase::Open {
            return;
        }
        let bytes = self.ring.buffers.bytes(buffer);
        if conn.parked {
            // The kernel had these before it was told to stop.
            conn.carry.extend_from_slice(&bytes[HEADROOM..HEADROOM + n]);
            return;
        }
        assert!(conn.carry.len() <= HEADROOM, "only a paused connection leaves more than a partial PDU");
        let start = HEADROOM - conn.carry.len();
        bytes[start..HEADROOM].copy_from_slice(&conn.carry);
        conn.carry.clear();
        let stream = &bytes[start..HEADROOM + n];
        let taken = feed(id, stream, &mut conn.tx, pool, handler);
        conn.carry.extend_from_slice(&stream[taken..]);
        self.delivered(slot, handler);
    }

    /// After a delivery: sends what it queued, pauses if the handler wants no more.
    fn delivered<H: Handler>(&mut self, slot: u32, handler: &mut H) {
        let Some((id, conn)) = self.conns.at(slot) else { unreachable!("delivered in hand") };
        let unsent = !conn.tx.is_empty();
        if handler.paused(id) {
            conn.parked = true;
            self.parked.push(slot);
            if conn.receiving && !std::mem::replace(&mut conn.halting, true) {
                self.cancel(Kind::Receive, slot);
            }
        }
        if unsent {
            self.mark_dirty(slot);
        }
    }

    /// Goes on with connections whose handler wants bytes again.
    pub(super) fn unpark<H: Handler>(&mut self, pool: &mut Pool, handler: &mut H) -> usize {
        let (mut i, mut events) = (0, 0);
        while let Some(slot) = self.parked.get(i).copied() {
            let Some((id, conn)) = self.conns.at(slot) else { unreachable!("parked connections are in the table") };
            let open = conn.phase == Phase::Open;
            // A receive that was told to stop may still bring bytes that come before those of the next one.
            if open && (conn.halting || handler.paused(id)) {
                i += 1;
                continue;
            }
            conn.parked = false;
            self.parked.swap_remove(i);
            events += 1;
            if !open {
                continue;
            }
            let mut carry = std::mem::take(&mut conn.carry);
            let taken = if carry.is_empty() { 0 } else { feed(id, &carry, &mut conn.tx, pool, handler) };
            carry.drain(..taken);
            carry.shrink_to(CARRY_MAX);
            conn.carry = carry;
            self.delivered(slot, handler);
            if let Some((_, conn)) = self.conns.at(slot)
                && !conn.parked
                && !conn.receiving
            {
                self.arm_receive(slot);
            }
        }
        events
    }

    /// The peer has ended its stream.
    fn peer_ended(&mut self, slot: u32) {
        let Some((_, conn)) = self.conns.at(slot) else { unreachable!("looked up by the caller") };
        let all_sent = conn.all_sent();
        match &mut conn.phase {
            Phase::Open if all_sent => self.end(slot, Closed::Peer),
            // It may still read the answers to what it sent last.
            Phase::Open => self.begin_closing(slot, Closed::Peer, true),
            Phase::Closing { theirs, .. } => {
                *theirs = true;
                self.go_on_closing(slot);
            }
            Phase::Connecting | Phase::Ended(_) => {}
        }
    }

    fn sent(&mut self, slot: u32, c: &Completion, pool: &mut Pool) {
        let Some((_, conn)) = self.conns.at(slot) else { unreachable!("slots outlive their operations") };
        conn.sending = false;
        self.stats.sends += 1;
        if c.result > 0 {
            conn.flight.sent(c.result as usize, pool);
            self.stats.bytes_out += c.result as u64;
        }
        let left = !conn.flight.is_empty() || !conn.tx.is_empty();
        match (conn.phase, c.result) {
            (Phase::Ended(_), _) => self.settle(slot),
            (_, e) if e < 0 && e != -libc::EINTR && e != -libc::EAGAIN => self.end(slot, Closed::Error(-e)),
            _ if left => {
                self.stats.blocked += u64::from(c.result >= 0);
                self.mark_dirty(slot);
            }
            _ => self.go_on_closing(slot),
        }
    }
}
