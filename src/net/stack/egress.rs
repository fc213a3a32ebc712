//! What leaves: queued bytes into the socket's ring, and out of it whatever TCP may send now, to the next hop's address.

use super::super::Closed;
use super::conn::Phase;
use super::link::Turn;
use super::neighbour::{Mac, Reach};
use super::{Port, Stack};
use crate::mem::Pool;
use smoltcp::iface::PollResult;
use smoltcp::socket::tcp::State;

/// Segments of one connection per turn; one with more to send goes on next turn, behind the others.
const SEGMENTS: usize = 64;

impl<P: Port> Stack<P> {
    /// Sends what a connection owes. Returns the bytes that were taken from its queue.
    pub(super) fn send(&mut self, slot: u32, pool: &mut Pool) -> usize {
        let conn = &mut self.conns[slot as usize];
        if conn.phase == Phase::Free {
            return 0;
        }
        let moved = self.fill(slot, pool);
        let conn = &mut self.conns[slot as usize];
        if conn.phase == Phase::Lingering {
            let late = conn.until.is_some_and(|until| until <= self.now);
            if late && conn.state() != State::TimeWait {
                conn.tx.clear(pool);
                self.release(slot);
                return moved;
            }
            if late {
                conn.until = None;
            }
            self.replaceable(slot);
        }
        let to = self.next_hop(slot);
        if self.conns[slot as usize].phase == Phase::Free {
            return moved;
        }
        let clock = self.clock(self.now);
        let conn = &mut self.conns[slot as usize];
        let (sockets, sent) = conn.sockets();
        let mut turn = Turn { link: &mut self.link, packet: None, to, sent };
        let mut segments = 0;
        while segments < SEGMENTS && self.iface.poll_egress(clock, &mut turn, sockets) != PollResult::None {
            segments += 1;
        }
        self.stats.sends += segments as u64;
        self.wheel.set(slot, self.now.after_ns(u64::from(self.config.ack_us) * 1000));
        self.settle(slot);
        if segments == SEGMENTS || !self.link.room() {
            self.mark_dirty(slot);
        }
        moved
    }

    /// Moves queued bytes into the socket's ring, and the end of the stream behind them.
    fn fill(&mut self, slot: u32, pool: &mut Pool) -> usize {
        let conn = &mut self.conns[slot as usize];
        let phase = conn.phase;
        let (socket, tx) = conn.parts();
        let mut moved = 0;
        if !tx.is_empty() && socket.may_send() {
            tx.gather(|stretch| {
                let n = socket.send_slice(stretch).expect("the stream is open to be sent on");
                moved += n;
                n == stretch.len()
            });
            tx.sent(moved, pool);
            self.stats.blocked += u64::from(!tx.is_empty());
            self.stats.bytes_out += moved as u64;
        }
        if tx.is_empty() {
            match phase {
                Phase::Closing { finished: false } => {
                    socket.close();
                    conn.phase = Phase::Closing { finished: true };
                }
                Phase::Lingering if socket.state() == State::CloseWait => socket.close(),
                _ => {}
            }
        }
        moved
    }

    /// The address on the link of a connection's next hop. Without one the connection waits, or ends.
    fn next_hop(&mut self, slot: u32) -> Option<Mac> {
        let conn = &mut self.conns[slot as usize];
        let hop = conn.hop;
        let until = match self.neighbours.reach(&mut conn.place, hop, self.now) {
            Reach::Known(mac) => return Some(mac),
            Reach::Confirm(mac) => {
                self.ask(hop, Some(mac));
                return Some(mac);
            }
            Reach::Doubt(mac) => {
                self.ask(hop, None);
                return Some(mac);
            }
            Reach::Ask => {
                self.ask(hop, None);
                self.now.after_ms(1)
            }
            Reach::Wait(until) => until,
            Reach::Nobody => {
                match conn.phase {
                    Phase::Connecting => self.end(slot, Closed::Error(libc::EHOSTUNREACH)),
                    Phase::Greeting(_) => self.release(slot),
                    // TCP knows how long to wait for a sign of life.
                    _ => {}
                }
                return None;
            }
        };
        let conn = &mut self.conns[slot as usize];
        if !conn.waiting {
            conn.waiting = true;
            self.waiting.push(slot);
        }
        self.wheel.set(slot, until);
        None
    }

    /// Addresses became known: those who wait for one look again.
    pub(super) fn unwait(&mut self) {
        while let Some(slot) = self.waiting.pop() {
            self.conns[slot as usize].waiting = false;
            self.mark_dirty(slot);
        }
    }
}
