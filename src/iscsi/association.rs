//! How sessions and connections end, timers, and the messages between the cores.

use super::conn::{Conn, Done, State};
use super::fence::Then;
use super::lu::Event;
use super::message::Message;
use super::session::SessionRef;
use super::target::{Env, Target};
use super::tasks::Work;
use crate::base::{CoreId, Time};
use crate::mem::Pool;
use crate::net::{Close, ConnId, Net};
use crate::volume::Volumes;
use crate::wire::iscsi::pdu::{AsyncMessage, NopIn};
use crate::wire::iscsi::{AsyncEvent, Lun, NO_TAG};

impl Target {
    /// Ends a connection: nothing it holds is started any more, and the net closes it at the end of the turn.
    pub(super) fn end(&mut self, c: &mut Conn, how: Close) {
        if c.state() == State::Closing {
            return;
        }
        self.tear_down(c);
        self.close(c.id, how);
    }

    /// Ends a connection of this core by its id; no error when it is gone.
    pub(super) fn end_by_id(&mut self, id: ConnId, how: Close) {
        if let Some(mut c) = self.take(id) {
            self.end(&mut c, how);
            self.put(c);
        }
    }

    /// Ends every connection that `which` names.
    pub(super) fn end_where(&mut self, which: impl Fn(&Conn) -> bool, how: Close) {
        let ids: Vec<ConnId> = self.live().filter(|c| which(c)).map(|c| c.id).collect();
        for id in ids {
            self.end_by_id(id, how);
        }
    }

    /// Ends a session with all its connections that are in the table.
    pub(super) fn end_session(&mut self, own: SessionRef, how: Close) {
        self.end_where(|c| c.session == Some(own), how);
    }

    /// Ends connections whose rights are gone. Those in full feature phase are told: that this connection is dropped, or
    /// where none of its session stays, that all of them are (RFC 7143 11.9.1, events 2 and 3; there is nothing to come
    /// back to, so both times are 0).
    pub(super) fn dismiss(&mut self, ids: &[ConnId]) {
        for id in ids {
            let Some(mut c) = self.take(*id) else { continue };
            if c.state() == State::Full
                && let Some(session) = c.session.and_then(|s| self.sessions.get(s))
            {
                let stays = session.conns.iter().any(|(_, conn)| !ids.contains(conn));
                let (event, cid) =
                    if stays { (AsyncEvent::ConnectionDropped, c.cid) } else { (AsyncEvent::SessionDropped, 0) };
                let numbers = c.out.status(session);
                let farewell = AsyncMessage::new(event, Lun::of(0), [cid, 0, 0], numbers, 0);
                self.farewells.push((c.id, c.out, farewell));
            }
            self.end(&mut c, Close::AfterSend);
            self.put(c);
        }
    }

    /// Takes a connection apart: it leaves its session, its tasks end. Requests that the volumes have stay there and are
    /// answered to nobody; the tasks they belong to stay until then. The session ends with its last connection.
    pub(super) fn tear_down(&mut self, c: &mut Conn) {
        if c.state() == State::Closing {
            return;
        }
        if c.in_login() {
            self.in_login -= 1;
        }
        c.enter(State::Closing);
        for place in c.tasks.places(|t| !t.aborted) {
            self.abort(c, place);
        }
        c.rx = super::conn::Rx::Header;
        c.queued.clear();
        self.dead.extend(c.parcel.take().map(|p| p.buf));
        (c.login, c.exchange) = (None, None);
        let done = core::mem::take(&mut c.done);
        done.add_to(&mut self.stats);
        if let Some(own) = c.session
            && let Some(session) = self.sessions.get(own)
        {
            session.conns.retain(|(_, conn)| *conn != c.id);
            if session.conns.is_empty() {
                self.close_session(own);
            }
        }
    }

    /// Forgets a session without connections.
    fn close_session(&mut self, own: SessionRef) {
        self.nexus_lost(own);
        self.sessions.close(own);
    }

    /// Timers: logins, logouts that were asked for, pings, idle discovery sessions.
    pub(super) fn scan<N: Net>(&mut self, now: Time, net: &mut N) {
        let interval = u64::from(self.options.nop_in_interval_s) * 1_000_000_000;
        let timeout = u64::from(self.options.nop_timeout_s) * 1_000_000_000;
        let idle = self.config.discovery_idle_ms.saturating_mul(1_000_000);
        for at in 0..self.conns.len() {
            let Some(c) = self.conns[at].as_deref_mut() else { continue };
            let id = c.id;
            let over = c.deadline.is_some_and(|d| now >= d);
            let silent = now.since(c.heard);
            match c.state() {
                State::Login | State::Moving { .. } | State::Waiting if over => {
                    self.stats.login_timeouts += 1;
                    self.end_by_id(id, Close::Now);
                }
                State::Full if over => self.end_by_id(id, Close::AfterSend),
                State::Full if c.target.is_none() && silent > idle => self.end_by_id(id, Close::AfterSend),
                State::Full => {
                    if let Some((_, sent)) = c.ping
                        && c.heard > sent
                    {
                        c.ping = None;
                    }
                    match c.ping {
                        Some((_, sent)) if now.since(sent) > timeout => {
                            self.stats.dead_peers += 1;
                            self.end_by_id(id, Close::Now);
                        }
                        None if interval > 0 && silent > interval => self.ping(id, now, net),
                        _ => {}
                    }
                }
                State::Login | State::Moving { .. } | State::Waiting | State::Leaving | State::Closing => {}
            }
        }
    }

    /// Sends a NOP-In that wants an answer.
    fn ping<N: Net>(&mut self, id: ConnId, now: Time, net: &mut N) {
        let Some(mut c) = self.take(id) else { return };
        if let Some(tx) = net.tx(id)
            && let Some(session) = c.session.and_then(|s| self.sessions.get(s))
        {
            let tag = (now.0 as u32) & 0x7fff_ffff;
            let numbers = c.out.numbers(session);
            c.out.put(tx, &NopIn::new(Lun::of(0), NO_TAG, tag, numbers, 0));
            c.ping = Some((tag, now));
        }
        self.put(c);
    }

    /// Asks the sessions of target `index`, through portal group `tag` if one is given, to log out (iSCSI asynchronous
    /// event 1); what has not done so in time is ended. Returns how many connections were asked.
    pub fn request_logout<N: Net>(&mut self, now: Time, index: u32, tag: Option<u16>, net: &mut N) -> usize {
        let seconds = self.config.logout_s;
        let meant = |c: &Conn| {
            let named = c.name.as_ref().is_some_and(|n| n.target == Some(index) && tag.is_none_or(|t| t == n.tag));
            named && c.state() == State::Full
        };
        let ids: Vec<ConnId> = self.live().filter(|c| meant(c)).map(|c| c.id).collect();
        for id in &ids {
            let Some(mut c) = self.take(*id) else { continue };
            if let Some(tx) = net.tx(*id)
                && let Some(session) = c.session.and_then(|s| self.sessions.get(s))
            {
                let numbers = c.out.status(session);
                let parameters = [0, 0, seconds];
                let event = AsyncMessage::new(AsyncEvent::LogoutRequested, Lun::of(0), parameters, numbers, 0);
                c.out.put(tx, &event);
                c.deadline = Some(now.after_ms(u64::from(seconds) * 1000));
            }
            self.put(c);
        }
        ids.len()
    }

    /// A message from another core's target. Returns the connection that it brought, if it did: one of the net's that
    /// belongs to this target from now on.
    pub fn message<N: Net, V: Volumes>(
        &mut self,
        now: Time,
        from: CoreId,
        message: Message,
        net: &mut N,
        volumes: &mut V,
        pool: &mut Pool,
    ) -> Option<ConnId> {
        let mut brought = None;
        match message {
            Message::Connection(moved) => brought = self.welcome(now, *moved, net),
            Message::Clear { token, scope, why } => self.clear_here(scope, why, (from, token)),
            Message::Change { token, target, lun, event } => {
                self.change_unit(target, lun, event, None);
                self.send(from, Message::Cleared { token });
            }
            Message::Cleared { token } => self.fences.answered(token),
        }
        self.check_fences();
        self.settle_waits(now, net, volumes, pool);
        self.bury(pool);
        brought
    }

    /// What waited goes on.
    pub(super) fn settle_waits<N: Net, V: Volumes>(
        &mut self,
        now: Time,
        net: &mut N,
        volumes: &mut V,
        pool: &mut Pool,
    ) {
        while let Some(then) = self.fences.next_over() {
            match then {
                Then::Login(conn) => self.entered(conn, net),
                Then::Function { conn, itt, answer, immediate, cold } => {
                    self.function_done(conn, (itt, immediate), answer, net);
                    if let Some(target) = cold {
                        self.end_target(target);
                    }
                }
                Then::Logout { conn, itt, immediate } => self.logged_out(conn, itt, immediate, net),
                Then::Program { conn, task, serial } => {
                    self.changed(conn, (task, serial), Event::Done, now, net, volumes, pool);
                }
                Then::Detached(key) => self.detached_changed(key),
            }
        }
    }

    /// A program's change is known to all cores, or made by the control plane.
    #[allow(clippy::too_many_arguments)] // what a turn has, and what the program is told
    pub(super) fn changed<N: Net, V: Volumes>(
        &mut self,
        conn: ConnId,
        (place, serial): (u16, u64),
        event: Event,
        now: Time,
        net: &mut N,
        volumes: &mut V,
        pool: &mut Pool,
    ) {
        let meant = |c: &mut Conn| c.tasks.get(place).is_some_and(|t| t.serial == serial);
        if let Some(at) = self.ghosts.iter().position(|g| g.id == conn) {
            let mut ghost = self.ghosts.swap_remove(at);
            if meant(&mut ghost) {
                self.pending -= 1;
                self.over(&mut ghost, place);
            }
            if ghost.pending > 0 {
                self.ghosts.push(ghost);
            }
            return;
        }
        let Some(mut c) = self.take(conn) else { return };
        if meant(&mut c) {
            self.pending -= 1;
            let live = !c.tasks.at(place).aborted && matches!(c.tasks.at(place).work, Work::Running(_));
            match net.tx(conn) {
                Some(tx) if live => {
                    c.pending -= 1;
                    let mut env = Env { now, volumes, tx, pool };
                    if !self.proceed(&mut c, place, event, &mut env) {
                        self.queue(&mut c, place);
                    }
                }
                _ => self.over(&mut c, place),
            }
        }
        self.put(c);
    }
}

impl Done {
    /// Adds this to a core's counters.
    pub fn add_to(&self, stats: &mut super::Stats) {
        stats.commands += self.commands;
        stats.command_errors += self.errors;
        stats.reads += self.reads;
        stats.read_bytes += self.read_bytes;
        stats.writes += self.writes;
        stats.write_bytes += self.write_bytes;
        stats.pending_ns += self.pending_ns;
    }
}
