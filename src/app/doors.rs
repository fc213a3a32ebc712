//! Two targets behind one net: which protocol a listener speaks decides which target its connections belong to. The net
//! calls [`Doors`]; it keeps nothing but the protocol of each connection.

use crate::base::Time;
use crate::cluster::Protocol;
use crate::mem::Pool;
use crate::net::{Closed, ConnId, Ends, Handler, ListenerId, Loose, Tx};
use crate::volume::Volumes;
use crate::{iscsi, nvmf};

/// Which target each listener and each connection of a core belongs to.
#[derive(Debug, Default)]
pub(super) struct Routes {
    listeners: Vec<(ListenerId, Protocol)>,
    /// By slot of the net's id; what a slot's last connection spoke.
    conns: Vec<Protocol>,
}

impl Routes {
    /// A listener was opened.
    pub fn listen(&mut self, listener: ListenerId, protocol: Protocol) {
        self.unlisten(listener);
        self.listeners.push((listener, protocol));
    }

    /// A listener is gone; its connections keep their protocol.
    pub fn unlisten(&mut self, listener: ListenerId) {
        self.listeners.retain(|(l, _)| *l != listener);
    }

    /// Notes the protocol of a connection just accepted; `None` when its listener was closed meanwhile.
    fn accept(&mut self, conn: ConnId, listener: ListenerId) -> Option<Protocol> {
        let (_, protocol) = *self.listeners.iter().find(|(l, _)| *l == listener)?;
        self.adopt(conn, protocol);
        Some(protocol)
    }

    /// Notes the protocol of a connection that has come from another core.
    pub fn adopt(&mut self, conn: ConnId, protocol: Protocol) {
        let slot = conn.slot as usize;
        if self.conns.len() <= slot {
            self.conns.resize(slot + 1, protocol);
        }
        self.conns[slot] = protocol;
    }

    #[inline]
    fn of(&self, conn: ConnId) -> Protocol {
        self.conns[conn.slot as usize]
    }
}

/// Both targets joined with the volumes they may use, for one `net.poll`.
pub(super) struct Doors<'a, V> {
    pub now: Time,
    pub routes: &'a mut Routes,
    pub nvmf: &'a mut nvmf::Target,
    pub iscsi: &'a mut iscsi::Target,
    pub volumes: &'a mut V,
}

/// Calls a method of the handler that a connection belongs to.
macro_rules! route {
    ($doors:ident, $protocol:expr, $method:ident($($argument:expr),*)) => {
        match $protocol {
            Protocol::Nvme => $doors.nvmf.join($doors.now, $doors.volumes).$method($($argument),*),
            Protocol::Iscsi => $doors.iscsi.join($doors.now, $doors.volumes).$method($($argument),*),
        }
    };
}

impl<V: Volumes> Handler for Doors<'_, V> {
    fn accepted(&mut self, conn: ConnId, listener: ListenerId, ends: Ends, tx: &mut Tx) -> bool {
        let Some(protocol) = self.routes.accept(conn, listener) else { return false };
        route!(self, protocol, accepted(conn, listener, ends, tx))
    }

    fn landing(&mut self, conn: ConnId) -> Option<&mut [u8]> {
        match self.routes.of(conn) {
            Protocol::Nvme => self.nvmf.landing(conn),
            Protocol::Iscsi => self.iscsi.landing(conn),
        }
    }

    #[inline]
    fn landed(&mut self, conn: ConnId, n: usize, tx: &mut Tx, pool: &mut Pool) {
        route!(self, self.routes.of(conn), landed(conn, n, tx, pool));
    }

    #[inline]
    fn data(&mut self, conn: ConnId, bytes: &[u8], tx: &mut Tx, pool: &mut Pool) -> usize {
        route!(self, self.routes.of(conn), data(conn, bytes, tx, pool))
    }

    #[inline]
    fn paused(&mut self, conn: ConnId) -> bool {
        route!(self, self.routes.of(conn), paused(conn))
    }

    fn released(&mut self, conn: ConnId, loose: Loose) {
        route!(self, self.routes.of(conn), released(conn, loose));
    }

    fn closed(&mut self, conn: ConnId, why: Closed) {
        route!(self, self.routes.of(conn), closed(conn, why));
    }
}
