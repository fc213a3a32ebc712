//! The target joined with the volumes for one turn: what the net calls.

use super::conn::{Conn, Rx, State};
use super::target::{Env, Target};
use crate::base::Time;
use crate::mem::Pool;
use crate::net::{Closed, ConnId, Ends, Handler, ListenerId, Tx};
use crate::volume::Volumes;

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
        self.target.conn(conn).is_some_and(|c| matches!(c.state(), State::Attaching { .. }) || c.blocked == turn)
    }

    fn closed(&mut self, conn: ConnId, _why: Closed) {
        if let Some(mut c) = self.target.take(conn) {
            self.target.tear_down(&mut c);
        }
    }
}

impl Target {
    /// Where a connection's next bytes go: see [`Handler::landing`].
    pub fn landing(&mut self, conn: ConnId) -> Option<&mut [u8]> {
        let c = self.conn(conn)?;
        let Rx::Land { slot, at, to, .. } = c.rx else { return None };
        let buf = c.landing_slot(slot).buf.as_mut().expect("data lands in a buffer");
        Some(&mut buf[at as usize..to as usize])
    }

    /// Whether a new connection may stay.
    fn admit(&mut self, now: Time, conn: ConnId, listener: ListenerId, ends: Ends) -> bool {
        let Some((_, addr)) = self.listeners.iter().find(|(l, _)| *l == listener).copied() else { return false };
        if self.transport.is_none() || self.unassociated >= self.config.unassociated {
            return false;
        }
        if self.live().count() >= self.config.connections {
            return false;
        }
        let same = |c: &&Conn| c.unassociated() && c.ends.peer.ip() == ends.peer.ip();
        if !ends.peer.ip().is_loopback() && self.live().filter(same).count() >= self.config.unassociated_per_address {
            return false;
        }
        let slot = conn.slot as usize;
        if self.conns.len() <= slot {
            self.conns.resize_with(slot + 1, || None);
        }
        assert!(self.conns[slot].is_none(), "the net reuses a slot only after `closed`");
        let deadline = now.after_ms(self.config.connect_ms);
        self.conns[slot] = Some(Box::new(Conn::new(conn, addr, ends, deadline)));
        self.unassociated += 1;
        true
    }
}
