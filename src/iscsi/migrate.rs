//! Connections of one session on several cores: a session lives on one core, and so do all its connections. One that joins
//! a session (its first login request has a TSIH, and a TSIH names a core) but was accepted on another core is handed
//! over there, unread, and logs in as if it had been accepted there.

use super::conn::{Conn, State};
use super::message::{Message, Moved};
use super::target::Target;
use crate::base::Time;
use crate::net::{ConnId, Loose, Net};
use crate::wire::iscsi::Opcode;
use crate::wire::iscsi::pdu::LoginRequest;
use zerocopy::FromBytes;

impl Target {
    /// True when the request at the front of `rest` is the first of a login to a session of another core: the connection
    /// goes there. `rest` begins with a whole header.
    pub(super) fn belongs_elsewhere(&mut self, c: &mut Conn, rest: &[u8]) -> bool {
        let request = LoginRequest::ref_from_prefix(rest).expect("a frame has a header").0;
        let begins = c.login.as_ref().is_some_and(|l| l.is_new());
        if !begins || request.opcode & Opcode::MASK != Opcode::LoginRequest as u8 || request.tsih.get() == 0 {
            return false;
        }
        let to = self.sessions.core_of(request.tsih.get());
        if to == self.core {
            return false;
        }
        c.enter(State::Moving { to });
        self.moving.push(c.id);
        true
    }

    /// The net has let a connection go.
    pub(super) fn hand_over(&mut self, conn: ConnId, loose: Loose) {
        let Some(c) = self.take(conn) else { return };
        // Ended meanwhile: dropping the stream is the end of it.
        let State::Moving { to } = c.state() else { return };
        self.in_login -= 1;
        self.stats.moved += 1;
        self.send(to, Message::Connection(Box::new(Moved { loose, listener: c.listener, ends: c.ends })));
    }

    /// A connection from another core. `None` when there is no place for it here: it ends.
    pub(super) fn welcome<N: Net>(&mut self, now: Time, moved: Moved, net: &mut N) -> Option<ConnId> {
        let Moved { loose, listener, ends } = moved;
        let adopted = if self.may_enter(now, listener, ends) { net.adopt(loose).ok() } else { None };
        match adopted {
            Some(conn) => self.seat(now, conn, listener, ends),
            None => self.stats.refused += 1,
        }
        adopted
    }
}
