//! From login to full feature phase: the session is made or joined. A session of the same name makes room first, on every
//! core (RFC 7143 6.3.5): none of its writes reaches a volume after the new one's first command.

use super::conn::{Conn, State};
use super::fence::{Local, Then};
use super::identify::Who;
use super::login::Stop;
use super::message::{Scope, SessionName, Why};
use super::params::Params;
use super::session::{Nexus, Session};
use super::target::Target;
use super::tasks::Tasks;
use crate::base::{CoreId, Time};
use crate::net::{Close, ConnId, Net, Tx};
use crate::wire::iscsi::pdu::{LoginRequest, LoginResponse};
use crate::wire::iscsi::{LoginStatus, Receiver, Stage};
use std::collections::VecDeque;

/// Bytes of additional header segments that a command may bring: more than any that RFC 7143 knows.
const AHS_MAX: u32 = 256;
/// Bytes of headers and stretches of one connection's send queue that are set aside per task.
const HEADS_PER_TASK: usize = 96;

impl Target {
    /// The last login request of a connection is there; its response is in [`super::login::Login::last`].
    pub(super) fn enter(&mut self, c: &mut Conn, now: Time, tx: &mut Tx) -> Result<(), Stop> {
        let login = c.login.as_ref().expect("a connection in login phase has a login");
        let who = login.who.clone().expect("identified in the first request");
        let (request, _) = login.last.as_ref().expect("the last request brought it here");
        let tsih = request.tsih.get();
        if tsih != 0 {
            return self.join_session(c, &who, tsih, tx);
        }
        if who.nexus.target.is_none() {
            let discovery = self.sessions.iter().filter(|s| s.nexus.target.is_none()).count();
            if discovery >= self.config.discovery_sessions {
                return Err(LoginStatus::OutOfResources.into());
            }
            return self.open_session(c, &who, tx);
        }
        let of = |n: &Nexus| n.target == who.nexus.target && n.initiator.eq_ignore_ascii_case(&who.nexus.initiator);
        let same = self.sessions.iter().filter(|s| of(&s.nexus) && !s.nexus.same(&who.nexus)).count();
        if same >= self.options.max_sessions as usize {
            return Err(LoginStatus::TooManyConnections.into());
        }
        let _ = now;
        let older = self.sessions.iter().any(|s| s.nexus.same(&who.nexus))
            || self.ghosts.iter().any(|g| g.name.as_ref().is_some_and(|n| n.same(&who.nexus)));
        if self.cores == 1 && !older {
            return self.open_session(c, &who, tx);
        }
        c.enter(State::Waiting);
        self.clear_everywhere(Scope::Nexus(SessionName(who.nexus)), Why::Reinstated, Then::Login(c.id));
        Ok(())
    }

    /// Sessions of this name end here, and logins that wait to make one: of two that wait on different cores, the one on
    /// the higher core goes on.
    pub(super) fn evict(&mut self, name: &Nexus, by: CoreId) {
        let old: Vec<_> = self.sessions.iter().filter(|s| s.nexus.same(name)).map(|s| s.own).collect();
        for own in old {
            self.stats.reinstatements += 1;
            self.end_session(own, Close::Now);
        }
        let waits = |c: &Conn| {
            let login = c.login.as_ref().and_then(|l| l.who.as_ref());
            c.state() == State::Waiting && login.is_some_and(|w| w.nexus.same(name))
        };
        if by >= self.core {
            // The connection that asks here is not in the table while it does.
            self.end_where(waits, Close::Now);
        }
    }

    /// Older sessions are gone: a waiting login ends.
    pub(super) fn entered<N: Net>(&mut self, conn: ConnId, net: &mut N) {
        let Some(mut c) = self.take(conn) else { return };
        if c.state() == State::Waiting
            && let Some(tx) = net.tx(conn)
        {
            let login = c.login.as_ref().expect("a connection in login phase has a login");
            let who = login.who.clone().expect("identified in the first request");
            let request = login.last.as_ref().expect("the last request brought it here").0;
            let opened = if request.tsih.get() == 0 {
                self.open_session(&mut c, &who, tx)
            } else {
                self.take_place(&mut c, request.tsih.get(), tx)
            };
            if let Err(stop) = opened {
                self.refuse(&mut c, &request, &stop, tx);
            }
        }
        self.put(c);
    }

    /// Makes the session of a leading connection.
    fn open_session(&mut self, c: &mut Conn, who: &Who, tx: &mut Tx) -> Result<(), Stop> {
        // The snapshot may have changed while the login waited.
        let node = who.nexus.target.map(|t| self.node_of(t).ok_or(LoginStatus::Removed)).transpose()?;
        if !self.entitled(&who.nexus, c.listener, c.ends.peer.ip()) {
            return Err(LoginStatus::AuthorizationFailed.into());
        }
        let login = c.login.as_ref().expect("a connection in login phase has a login");
        let params = login.params.settled();
        let first = login.first.expect("a login began with a request");
        let session = self
            .sessions
            .open(who.nexus.clone(), node, params, first.cmd_sn.get())
            .ok_or(LoginStatus::OutOfResources)?;
        session.alias.clone_from(&who.alias);
        let own = session.own;
        self.attend(own);
        self.connect(c, own, params, tx);
        Ok(())
    }

    /// A further connection of a session.
    fn join_session(&mut self, c: &mut Conn, who: &Who, tsih: u16, tx: &mut Tx) -> Result<(), Stop> {
        assert_eq!(self.sessions.core_of(tsih), self.core, "a connection logs in on the core of its session");
        let cid = c.login.as_ref().and_then(|l| l.first).map_or(0, |f| f.cid.get());
        let session = self.sessions.by_tsih(tsih).ok_or(LoginStatus::NoSession)?;
        if !session.nexus.same(&who.nexus) || session.nexus.target.is_none() {
            return Err(LoginStatus::NoSession.into());
        }
        let old = session.conns.iter().find(|(id, _)| *id == cid).map(|(_, conn)| *conn);
        if let Some(old) = old {
            // Connection reinstatement (6.3.4): the old one's tasks end first, and the session does not end with it.
            c.enter(State::Waiting);
            session.conns.retain(|(id, _)| *id != cid);
            session.conns.push((cid, c.id));
            c.session = Some(session.own);
            let token = self.fences.wait(1, Then::Login(c.id));
            self.end_by_id(old, Close::Now);
            self.fence(Local::Conn(old), (self.core, token));
            return Ok(());
        }
        if session.conns.len() >= usize::from(session.params.max_connections) {
            return Err(LoginStatus::TooManyConnections.into());
        }
        self.take_place(c, tsih, tx)
    }

    fn take_place(&mut self, c: &mut Conn, tsih: u16, tx: &mut Tx) -> Result<(), Stop> {
        let session = self.sessions.by_tsih(tsih).ok_or(LoginStatus::NoSession)?;
        let (own, agreed) = (session.own, session.params);
        let params = c.login.as_ref().map_or_else(Params::default, |l| l.params);
        self.connect(c, own, params.within(&agreed), tx);
        Ok(())
    }

    /// Makes a connection part of its session and answers its last login request.
    fn connect(&mut self, c: &mut Conn, own: super::session::SessionRef, params: Params, tx: &mut Tx) {
        let login = c.login.take().expect("a connection in login phase has a login");
        let (mut request, text) = login.last.expect("the last request brought it here");
        let cid = request.cid.get();
        let depth = self.depth_of(own);
        let session = self.sessions.get(own).expect("the caller has it");
        if request.tsih.get() == 0 {
            session.max_cmd_sn = session.exp_cmd_sn.wrapping_add(u32::from(depth) - 1);
        }
        if !session.conns.iter().any(|(_, conn)| *conn == c.id) {
            session.conns.push((cid, c.id));
        }
        request.tsih.set(session.tsih);
        let numbers = c.out.status(session);
        let response = response(&request, numbers, text.len() as u32);
        c.out.put_data(tx, &response, &text);
        c.name = Some(session.nexus.clone());
        c.target = session.nexus.target;
        c.session = Some(own);
        c.cid = cid;
        c.enter(State::Full);
        c.deadline = None;
        c.rules = Receiver::agreed(params.digests, self.options.max_recv_data_segment_bytes, AHS_MAX);
        (c.out.digests, c.out.send_max) = (params.digests, params.send_max);
        if c.target.is_some() {
            let places = depth + self.config.immediates;
            c.tasks = Tasks::new(places);
            c.queued = VecDeque::with_capacity(usize::from(places));
            tx.reserve(usize::from(places) * HEADS_PER_TASK, usize::from(places) * 3);
        }
        self.in_login -= 1;
        self.stats.logins += 1;
    }

    /// Commands that a session may have under way.
    fn depth_of(&mut self, own: super::session::SessionRef) -> u16 {
        let most = self.options.max_queue_depth;
        let node = self.sessions.get(own).and_then(|s: &mut Session| s.node);
        node.and_then(|n| self.snapshot.targets.get(n)).map_or(most, |n| n.queue_depth.clamp(2, most))
    }
}

/// The response to a login's last request.
fn response(request: &LoginRequest, numbers: crate::wire::iscsi::pdu::Numbers, len: u32) -> LoginResponse {
    let stage = request.current().unwrap_or(Stage::Operational);
    LoginResponse::new(request, stage, Some(Stage::FullFeature), false, numbers, len)
}
