//! Requests of full feature phase beside SCSI commands: NOP-Out, Text, Logout, SNACK, and what may not come here.

use super::conn::{Conn, State};
use super::fence::{Local, Then};
use super::session::Turn;
use super::stream::{Segment, Verdict};
use super::target::{Env, Target};
use crate::net::{Close, ConnId, Net};
use crate::volume::Volumes;
use crate::wire::iscsi::pdu::{LogoutRequest, LogoutResponse, NopIn, NopOut, TaskRequest, TextRequest};
use crate::wire::iscsi::{BHS_LEN, LogoutAnswer, LogoutReason, NO_TAG, Opcode, RejectReason};
use zerocopy::{FromBytes, IntoBytes};

impl Target {
    /// A request that is no SCSI command.
    pub(super) fn other_request<'a, V: Volumes>(
        &mut self,
        c: &mut Conn,
        bhs: &[u8; BHS_LEN],
        data: Segment<'a>,
        env: &mut Env<'_, V>,
    ) -> Verdict<'a> {
        let in_turn = match Opcode::of(bhs[0] & Opcode::MASK) {
            Some(Opcode::NopOut) => self.nop_out(c, NopOut::ref_from_bytes(bhs).expect("48 bytes"), data.bytes(), env),
            Some(Opcode::TextRequest) => {
                let request = TextRequest::ref_from_bytes(bhs).expect("48 bytes");
                self.text_request(c, request, data.bytes(), env.tx)
            }
            Some(Opcode::TaskRequest) => self.function(c, TaskRequest::ref_from_bytes(bhs).expect("48 bytes"), env),
            Some(Opcode::LogoutRequest) => self.logout(c, LogoutRequest::ref_from_bytes(bhs).expect("48 bytes"), env),
            Some(Opcode::Snack) => {
                // Nothing is kept to send again at error recovery level 0.
                self.reject(c, RejectReason::Snack, bhs, env.tx);
                true
            }
            Some(Opcode::LoginRequest) => {
                self.stats.protocol_errors += 1;
                self.reject(c, RejectReason::Protocol, bhs, env.tx);
                self.end(c, Close::AfterSend);
                true
            }
            Some(_) => {
                self.reject(c, RejectReason::Protocol, bhs, env.tx);
                true
            }
            None => {
                self.reject(c, RejectReason::NotSupported, bhs, env.tx);
                true
            }
        };
        if !in_turn {
            return Verdict::Later(data);
        }
        data.discard(env.pool);
        Verdict::Done
    }

    /// NOP-Out (11.18): a ping to be answered, or the answer to one.
    fn nop_out<V>(&mut self, c: &mut Conn, nop: &NopOut, data: &[u8], env: &mut Env<'_, V>) -> bool {
        let immediate = nop.opcode & Opcode::IMMEDIATE != 0;
        if nop.itt.get() == NO_TAG && !immediate {
            self.reject(c, RejectReason::Protocol, nop.as_bytes(), env.tx);
            return true;
        }
        match self.in_turn(c, immediate, nop.cmd_sn.get()) {
            Turn::Now => {}
            Turn::Later => return false,
            Turn::Never => return true,
        }
        if nop.itt.get() == NO_TAG {
            if c.ping.is_some_and(|(tag, _)| tag == nop.ttt.get()) {
                c.ping = None;
            }
            return true;
        }
        let own = c.session.expect("full feature phase has a session");
        self.took(own, immediate);
        self.ended(own, immediate);
        let session = self.sessions.get(own).expect("a connection's session outlives it");
        let data = &data[..data.len().min(c.out.send_max as usize)];
        let numbers = c.out.status(session);
        c.out.put_data(env.tx, &NopIn::new(nop.lun, nop.itt.get(), NO_TAG, numbers, data.len() as u32), data);
        true
    }

    /// Logout (11.14). The answer waits for the tasks that end with it.
    fn logout<V>(&mut self, c: &mut Conn, request: &LogoutRequest, env: &mut Env<'_, V>) -> bool {
        let immediate = request.opcode & Opcode::IMMEDIATE != 0;
        match self.in_turn(c, immediate, request.cmd_sn.get()) {
            Turn::Now => {}
            Turn::Later => return false,
            Turn::Never => return true,
        }
        let own = c.session.expect("full feature phase has a session");
        self.took(own, immediate);
        let (itt, cid) = (request.itt.get(), request.cid.get());
        let session = self.sessions.get(own).expect("a connection's session outlives it");
        let named = session.conns.iter().find(|(id, _)| *id == cid).map(|(_, conn)| *conn);
        let last = session.conns.len() == 1;
        let refused = match request.reason() {
            None => {
                self.ended(own, immediate);
                self.reject(c, RejectReason::InvalidField, request.as_bytes(), env.tx);
                return true;
            }
            Some(LogoutReason::CloseConnection) if named.is_none() => Some(LogoutAnswer::NoConnection),
            Some(LogoutReason::CloseSession | LogoutReason::CloseConnection) => None,
            Some(LogoutReason::RemoveForRecovery) => Some(LogoutAnswer::NoRecovery),
        };
        if let Some(answer) = refused {
            self.ended(own, immediate);
            self.answer_logout(c, itt, answer, env.tx);
            return true;
        }
        self.stats.logouts += 1;
        let then = Then::Logout { conn: c.id, itt, immediate };
        let whole = request.reason() == Some(LogoutReason::CloseSession);
        let which = if whole { Local::Session(own, None) } else { Local::Conn(named.unwrap_or(c.id)) };
        if whole || named == Some(c.id) {
            // This connection takes nothing further, and ends with the answer.
            c.enter(State::Leaving);
            self.end_own_tasks(c, &which);
        }
        if whole {
            self.end_where(|other| other.session == Some(own), Close::AfterSend);
        } else if let Some(other) = named.filter(|id| *id != c.id) {
            self.end_by_id(other, Close::AfterSend);
        }
        if whole || last {
            // The answer says that the session's reservations are gone, too.
            self.nexus_lost(own);
        }
        let token = self.fences.wait(1, then);
        self.fence(which, (self.core, token));
        true
    }

    /// The tasks that a logout ended are over.
    pub(super) fn logged_out<N: Net>(&mut self, conn: ConnId, itt: u32, immediate: bool, net: &mut N) {
        let Some(mut c) = self.take(conn) else { return };
        if matches!(c.state(), State::Full | State::Leaving)
            && let Some(tx) = net.tx(conn)
        {
            self.ended(c.session.expect("full feature phase has a session"), immediate);
            self.answer_logout(&mut c, itt, LogoutAnswer::Closed, tx);
            if c.state() == State::Leaving {
                self.end(&mut c, Close::AfterSend);
            }
        }
        self.put(c);
    }

    fn answer_logout(&mut self, c: &mut Conn, itt: u32, answer: LogoutAnswer, tx: &mut crate::net::Tx) {
        let Some(session) = c.session.and_then(|s| self.sessions.get(s)) else { return };
        let (wait, retain) = (session.params.time_to_wait, 0);
        let numbers = c.out.status(session);
        c.out.put(tx, &LogoutResponse::new(itt, answer, wait, retain, numbers));
    }
}
