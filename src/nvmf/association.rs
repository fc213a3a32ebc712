//! How associations hold together over cores and how they end: teardown of connections and controllers, timers, and the
//! messages between the cores.

use super::config::Subsystem;
use super::conn::{Conn, State};
use super::message::{Attach, ControllerRef, Message, Traffic};
use super::slots::Stage;
use super::subs::{DISCOVERY, NOWHERE, reaches};
use super::target::Target;
use crate::base::{CoreId, Time};
use crate::mem::Pool;
use crate::net::{Close, ConnId, Net};
use crate::wire::fabrics::property;
use crate::wire::nvme::sc;

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
    pub(super) fn end_where(&mut self, which: impl Fn(&Target, &Conn) -> bool, how: Close) {
        for at in 0..self.conns.len() {
            let Some(id) = self.conns[at].as_ref().filter(|c| which(self, c)).map(|c| c.id) else { continue };
            self.end_by_id(id, how);
        }
    }

    /// Takes a connection apart: it leaves its controller, its buffers start their way home. Requests that the volumes
    /// have stay there and are answered to nobody.
    pub(super) fn tear_down(&mut self, c: &mut Conn) {
        match c.state() {
            State::Closing => return,
            State::Fresh | State::Ready | State::Attaching { .. } => self.unassociated -= 1,
            State::Admin(controller) => self.end_controller(controller),
            State::Io(controller) => self.detach(c, controller),
        }
        self.leave_subsystem(c);
        c.rx = super::conn::Rx::Header;
        c.queued.clear();
        for (_, slot) in c.slots.iter_mut() {
            self.dead.extend(slot.buf.take());
        }
        c.slots = super::slots::Slots::new(0);
        c.work.add_to(&mut self.stats);
        c.work = super::conn::Work::default();
        c.enter(State::Closing);
    }

    /// An I/O queue leaves its controller.
    fn detach(&mut self, c: &Conn, controller: ControllerRef) {
        let traffic = c.work.since(&c.seen);
        let qid = c.identity.as_ref().map_or(0, |i| i.qid);
        if controller.owner == self.core {
            self.detached(self.core, controller, c.id, traffic);
        } else {
            self.send(controller.owner, Message::Detached { controller, qid, conn: c.id, traffic });
        }
    }

    fn detached(&mut self, core: CoreId, controller: ControllerRef, conn: ConnId, traffic: Traffic) {
        if let Some(owner) = self.controllers.get(controller) {
            let seen = owner.last_seen;
            owner.heard(seen, traffic);
            owner.queues.retain(|q| (q.core, q.conn) != (core, conn));
        }
    }

    /// A controller ends with its admin queue, and its I/O queues with it.
    fn end_controller(&mut self, controller: ControllerRef) {
        self.end_queues(controller, Close::AfterSend);
        self.controllers.remove(controller);
    }

    /// Ends the I/O queues of a controller, wherever they are.
    pub(super) fn end_queues(&mut self, controller: ControllerRef, how: Close) {
        let Some(owner) = self.controllers.get(controller) else { return };
        for queue in std::mem::take(&mut owner.queues) {
            if queue.core == self.core {
                self.end_by_id(queue.conn, how);
            } else {
                self.send(queue.core, Message::Close { conn: queue.conn });
            }
        }
    }

    /// A connection of `host` begins to refer to a subsystem; returns its view.
    pub(super) fn join_subsystem(&mut self, sub: u32, host: &str) -> u32 {
        let index = self.subs.get(sub).and_then(|s| s.index);
        self.subs.join(sub, host, index.and_then(|i| self.snapshot.subsystems.get(i)))
    }

    /// A connection no longer refers to its subsystem, if it has one.
    pub(super) fn leave_subsystem(&mut self, c: &mut Conn) {
        self.subs.leave(c.view);
        (c.sub, c.view) = (NOWHERE, NOWHERE);
    }

    /// The subsystem of a connection as the present snapshot has it; `None` for discovery and for one that is gone.
    pub(super) fn subsystem(&self, sub: u32) -> Option<&Subsystem> {
        self.snapshot.subsystems.get(self.subs.get(sub)?.index?)
    }

    /// True while the snapshot grants a connection what it has.
    pub(super) fn entitled(&self, c: &Conn) -> bool {
        let Some(id) = c.identity.as_deref() else { return true };
        if c.sub == DISCOVERY {
            return self.transport.is_some();
        }
        let grants = |s: &Subsystem| s.admits(&id.hostnqn) && s.listeners.contains(&c.listener);
        self.transport.is_some() && self.subsystem(c.sub).is_some_and(grants)
    }

    /// Fails the commands that name a namespace which their host no longer has and which have not reached the volumes:
    /// what waits for data or room must not take effect later.
    pub(super) fn withdraw(&mut self) {
        for c in self.conns.iter_mut().flatten().filter(|c| self.subs.lost(c.view)) {
            let spaces = self.subs.spaces(c.view);
            for (_, slot) in c.slots.iter_mut() {
                let waits = matches!(slot.stage, Stage::Buffer | Stage::Data | Stage::Queued);
                if waits && slot.status == 0 && !reaches(spaces, slot.request.volume) {
                    slot.status = sc::INVALID_NAMESPACE.field(true);
                }
            }
        }
    }

    /// Timers: connections without Connect, keep alive, idle discovery controllers.
    pub(super) fn scan(&mut self, now: Time) {
        for at in 0..self.conns.len() {
            let Some(c) = self.conns[at].as_deref_mut() else { continue };
            match c.state() {
                State::Fresh | State::Ready | State::Attaching { .. } if now >= c.deadline => {
                    let id = c.id;
                    self.stats.connect_timeouts += 1;
                    self.end_by_id(id, Close::Now);
                }
                State::Io(controller) if c.work.commands != c.seen.commands => {
                    let traffic = c.work.since(&c.seen);
                    c.seen = c.work;
                    if controller.owner != self.core {
                        self.send(controller.owner, Message::Traffic { controller, traffic });
                    } else if let Some(owner) = self.controllers.get(controller) {
                        owner.heard(now, traffic);
                    }
                }
                _ => {}
            }
        }
        while let Some((controller, admin)) = self.expired(now) {
            self.stats.keep_alive_expired += 1;
            if let Some(owner) = self.controllers.get(controller) {
                owner.csts |= property::CSTS_CFS;
            }
            self.end_queues(controller, Close::Now);
            self.end_by_id(admin, Close::Now);
            self.controllers.remove(controller);
        }
    }

    /// A controller whose timer has run out.
    fn expired(&self, now: Time) -> Option<(ControllerRef, ConnId)> {
        let idle_ns = self.config.discovery_idle_ms.saturating_mul(1_000_000);
        let over = self.controllers.iter().find(|c| {
            let silent = now.since(c.last_seen);
            match c.kato {
                0 => c.discovery && silent > idle_ns,
                kato => silent > u64::from(kato) * 1_000_000,
            }
        })?;
        Some((over.own, over.admin))
    }

    /// A message from another core's target.
    pub fn message<N: Net>(&mut self, now: Time, from: CoreId, message: Message, net: &mut N, pool: &mut Pool) {
        match message {
            Message::Attach(attach) => {
                let conn = attach.conn;
                let answer = self.judge(now, from, &attach);
                self.send(from, Message::Attached { conn, answer });
            }
            Message::Attached { conn, answer } => self.attached(conn, answer, net),
            Message::Detached { controller, qid: _, conn, traffic } => self.detached(from, controller, conn, traffic),
            Message::Close { conn } => self.end_by_id(conn, Close::AfterSend),
            Message::Traffic { controller, traffic } => {
                if let Some(owner) = self.controllers.get(controller) {
                    owner.heard(now, traffic);
                }
            }
            Message::Abort { conn, cid, reply } => {
                let aborted = self.conn(conn).is_some_and(|c| abort_in(c, cid));
                self.send(from, Message::Aborted { reply, aborted });
            }
            Message::Aborted { reply, aborted } => self.aborted(reply, aborted, net),
        }
        for buf in self.dead.drain(..) {
            pool.put(buf);
        }
    }

    /// The owner's answer to a Connect that came in here.
    fn attached<N: Net>(
        &mut self,
        conn: ConnId,
        answer: Result<ControllerRef, (crate::wire::nvme::StatusCode, u64)>,
        net: &mut N,
    ) {
        let waiting = self.take(conn);
        let tx = net.tx(conn);
        match (waiting, tx) {
            (Some(mut c), Some(tx)) if matches!(c.state(), State::Attaching { .. }) => {
                self.connected(&mut c, answer, tx);
                self.put(c);
            }
            (waiting, _) => {
                // The connection ended meanwhile: the owner must not keep its queue.
                if let Some(c) = waiting {
                    self.put(c);
                }
                if let Ok(controller) = answer {
                    let traffic = Traffic::default();
                    self.send(controller.owner, Message::Detached { controller, qid: 0, conn, traffic });
                }
            }
        }
    }

    /// What another core made of an Abort.
    fn aborted<N: Net>(&mut self, (admin, index): (ConnId, u16), aborted: bool, net: &mut N) {
        let Some(mut c) = self.take(admin) else { return };
        if let State::Admin(controller) = c.state()
            && let Some(tx) = net.tx(admin)
            && let Some(slot) = c.slots.get(index)
            && slot.stage == Stage::Held
        {
            let cid = slot.cid;
            c.slots.free(index);
            c.finish(tx, cid, sc::SUCCESS, false, u64::from(!aborted));
            if let Some(owner) = self.controllers.get(controller) {
                owner.aborts = owner.aborts.saturating_sub(1);
            }
        }
        self.put(c);
    }

    /// Judges an I/O queue's Connect on the owner's side.
    pub(super) fn judge(
        &mut self,
        now: Time,
        core: CoreId,
        attach: &Attach,
    ) -> Result<ControllerRef, (crate::wire::nvme::StatusCode, u64)> {
        use crate::wire::fabrics::{connect_at as at, invalid_result};
        let invalid = |offset, in_data| Err((sc::CONNECT_INVALID, invalid_result(offset, in_data)));
        let Some(sub) = self.subs.find(&attach.subnqn) else { return invalid(at::SUBNQN, true) };
        let Some(owner) = self.controllers.find(sub, attach.cntlid) else { return invalid(at::CNTLID, true) };
        if owner.hostnqn != attach.hostnqn {
            return invalid(at::HOSTNQN, true);
        }
        if owner.hostid != attach.hostid {
            return invalid(at::HOSTID, true);
        }
        if !owner.ready() {
            return Err((sc::SEQUENCE_ERROR, 0));
        }
        if attach.qid == 0 || attach.qid > owner.queues_granted {
            return invalid(at::QID, false);
        }
        if owner.queues.iter().any(|q| q.qid == attach.qid) {
            return Err((sc::SEQUENCE_ERROR, 0));
        }
        owner.queues.push(super::controller::IoQueue { qid: attach.qid, core, conn: attach.conn });
        owner.last_seen = now;
        Ok(owner.own)
    }
}

/// Marks an outstanding command as aborted, if it has not reached the volumes: it is answered when its data has come, and
/// no block of it is written.
pub(super) fn abort_in(c: &mut Conn, cid: u16) -> bool {
    let Some(index) = c.slots.find(cid) else { return false };
    let slot = c.slots.get(index).expect("found slots are occupied");
    if !matches!(slot.stage, Stage::Buffer | Stage::Data | Stage::Queued) || slot.pending > 0 {
        return false;
    }
    if slot.ranges && slot.stage == Stage::Queued && slot.got > 0 {
        return false;
    }
    if slot.status == 0 {
        slot.status = sc::ABORT_REQUESTED.field(false);
    }
    true
}
