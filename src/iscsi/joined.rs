//! The target joined with the volumes for one turn: what the net calls.

use super::conn::{Conn, Rx, State};
use super::target::{Env, Target};
use crate::base::Time;
use crate::mem::Pool;
use crate::net::{Closed, ConnId, Ends, Handler, ListenerId, Loose, Tx};
use crate::volume::Volumes;
use core::net::{IpAddr, SocketAddr};

/// A [`Target`] with the volumes it may use, for one `net.poll`.
pub struct Joined<'a, V> {
    pub(super) now: Time,
    pub(super) target: &'a mut Target,
    pub(super) volumes: &'a mut V,
}

impl<V: Volumes> Handler for Joined<'_, V> {
    fn accepted(&mut self, conn: ConnId, listener: ListenerId, ends: Ends, _tx: &mut Tx) -> bool {
        let admitted = self.target.admit(self.now, conn, listener, ends);
        self.target.stats.refused += u64::from(!admitted);
        admitted
    }

    fn landing(&mut self, conn: ConnId) -> Option<&mut [u8]> {
        self.target.landing(conn)
    }

    fn landed(&mut self, conn: ConnId, n: usize, tx: &mut Tx, pool: &mut Pool) {
        let Some(mut c) = self.target.take(conn) else { return };
        let mut env = Env { now: self.now, volumes: self.volumes, tx, pool };
        self.target.landed(&mut c, n as u32, &mut env);
        self.target.put(c);
    }

    fn data(&mut self, conn: ConnId, bytes: &[u8], tx: &mut Tx, pool: &mut Pool) -> usize {
        let Some(mut c) = self.target.take(conn) else { return bytes.len() };
        let mut env = Env { now: self.now, volumes: self.volumes, tx, pool };
        let used = self.target.stream(&mut c, bytes, &mut env);
        self.target.put(c);
        used
    }

    fn paused(&mut self, conn: ConnId) -> bool {
        let turn = self.target.turn;
        self.target.conn(conn).is_some_and(|c| {
            matches!(c.state(), State::Moving { .. } | State::Waiting | State::Leaving)
                || c.rx == Rx::Parked
                || c.blocked == turn
        })
    }

    fn released(&mut self, conn: ConnId, loose: Loose) {
        self.target.hand_over(conn, loose);
    }

    fn closed(&mut self, conn: ConnId, _why: Closed) {
        if let Some(mut c) = self.target.take(conn) {
            self.target.tear_down(&mut c);
            if c.pending > 0 {
                self.target.ghosts.push(*c);
            }
        }
    }
}

/// Addresses whose failed logins are counted at once.
const FAILURES_MAX: usize = 256;

impl Target {
    /// Where a connection's next bytes go: see [`Handler::landing`].
    pub fn landing(&mut self, conn: ConnId) -> Option<&mut [u8]> {
        let c = self.conn(conn)?;
        match c.rx {
            Rx::Land { task, at, to, .. } => {
                let buf = c.task(task).buf.as_mut().expect("data lands in a buffer");
                Some(&mut buf[at as usize..to as usize])
            }
            Rx::Collect { at, to } => {
                let parcel = c.parcel.as_mut().expect("a parcel is being collected");
                Some(&mut parcel.buf[at as usize..to as usize])
            }
            _ => None,
        }
    }

    /// Whether a new connection may stay.
    fn admit(&mut self, now: Time, conn: ConnId, listener: ListenerId, ends: Ends) -> bool {
        let Some((_, addr)) = self.listeners.iter().find(|(l, _)| *l == listener).copied() else { return false };
        let admitted = self.may_enter(now, addr, ends);
        if admitted {
            self.seat(now, conn, addr, ends);
        }
        admitted
    }

    /// Whether there is a place for a connection that came to `addr`.
    pub(super) fn may_enter(&mut self, now: Time, addr: SocketAddr, ends: Ends) -> bool {
        if self.snapshot.options.is_none() || self.portal_group_of(addr).is_none() {
            return false;
        }
        if self.in_login >= self.config.unauthenticated || self.has_failed(ends.peer.ip(), now) {
            return false;
        }
        if self.live().count() + self.ghosts.len() >= self.config.connections {
            return false;
        }
        let same = |c: &&Conn| c.in_login() && c.ends.peer.ip() == ends.peer.ip();
        if !ends.peer.ip().is_loopback() && self.live().filter(same).count() >= self.config.unauthenticated_per_address
        {
            return false;
        }
        true
    }

    /// A place for a connection: its login begins.
    pub(super) fn seat(&mut self, now: Time, conn: ConnId, addr: SocketAddr, ends: Ends) {
        let slot = conn.slot as usize;
        if self.conns.len() <= slot {
            self.conns.resize_with(slot + 1, || None);
        }
        assert!(self.conns[slot].is_none(), "the net reuses a slot only after `closed`");
        let deadline = now.after_ms(self.config.login_ms);
        self.conns[slot] = Some(Box::new(Conn::new(conn, addr, ends, now, deadline)));
        self.in_login += 1;
    }

    /// True when an address has failed to log in too often lately.
    fn has_failed(&mut self, from: IpAddr, now: Time) -> bool {
        let window = self.config.failure_window_ms.saturating_mul(1_000_000);
        self.failures.retain(|(_, _, since)| now.since(*since) < window);
        self.failures.iter().any(|(a, n, _)| *a == from && *n >= self.config.login_failures)
    }

    /// Counts a failed login.
    pub(super) fn note_failure(&mut self, from: IpAddr, now: Time) {
        if let Some((_, n, _)) = self.failures.iter_mut().find(|(a, ..)| *a == from) {
            *n += 1;
        } else if self.failures.len() < FAILURES_MAX {
            self.failures.push((from, 1, now));
        }
    }
}
