//! The target of one core: its tables, and the calls that the core's turn makes.

use super::config::{Config, Snapshot, Transport};
use super::conn::{Conn, State};
use super::controller::Controllers;
use super::joined::Joined;
use super::message::Message;
use super::subs::Subs;
use super::{ControllerReport, QueueReport, Stats};
use crate::base::{CoreId, Time, VolumeId};
use crate::mem::{Buf, Pool};
use crate::net::{Close, ConnId, ListenerId, Net, Tx};
use crate::volume::{Completion, Volumes};
use core::net::SocketAddr;
use std::collections::VecDeque;
use std::sync::Arc;

/// How often timers are looked at, ms.
const SCAN_MS: u64 = 250;

/// One core's NVMe/TCP target.
#[derive(Debug)]
pub struct Target {
    pub(super) core: CoreId,
    pub(super) config: Config,
    pub(super) snapshot: Arc<Snapshot>,
    /// The snapshot's transport, with every option in its range.
    pub(super) transport: Option<Transport>,
    pub(super) listeners: Vec<(ListenerId, SocketAddr)>,
    /// By slot of the net's id.
    pub(super) conns: Vec<Option<Box<Conn>>>,
    pub(super) subs: Subs,
    pub(super) controllers: Controllers,
    outbox: Vec<(CoreId, Message)>,
    /// Connections to close at the end of the turn.
    closing: Vec<(ConnId, Close)>,
    /// Buffers of ended connections, on their way back to the pool.
    pub(super) dead: Vec<Buf>,
    /// Connections with requests that the volumes had no room for.
    pub(super) retry: VecDeque<ConnId>,
    /// Counts turns; a connection that had to stop reading goes on in the next.
    pub(super) turn: u64,
    /// Reading of some connection stopped in this turn.
    pub(super) starved: bool,
    /// Requests in the volumes, of ended connections too.
    pub(super) pending: usize,
    /// Connections without a completed Connect.
    pub(super) unassociated: usize,
    /// Some controller has an event to deliver.
    pub(super) eventful: bool,
    next_scan: Time,
    pub(super) stats: Stats,
}

/// What a command may use while it runs.
pub(super) struct Env<'a, V> {
    pub now: Time,
    pub volumes: &'a mut V,
    pub tx: &'a mut Tx,
    pub pool: &'a mut Pool,
}

impl Target {
    /// The target of `core`, one of `cores` (1 or more; the same number on all of them). It exports nothing until
    /// [`Target::configure`].
    pub fn new(core: CoreId, cores: u16, config: &Config) -> Target {
        let config = Config {
            connections: config.connections.min(crate::base::limits::CONNS_PER_CORE),
            h2c_data_bytes: config.h2c_data_bytes.max(4096) & !3,
            cpda: config.cpda.min(31),
            events: config.events.max(1),
            aborts: config.aborts.max(1),
            ..config.clone()
        };
        Target {
            core,
            controllers: Controllers::new(core, cores, config.controllers),
            conns: Vec::new(),
            config,
            snapshot: Arc::new(Snapshot::default()),
            transport: None,
            listeners: Vec::new(),
            subs: Subs::new(),
            outbox: Vec::new(),
            closing: Vec::new(),
            dead: Vec::new(),
            retry: VecDeque::new(),
            turn: 0,
            starved: false,
            pending: 0,
            unassociated: 0,
            eventful: false,
            next_scan: Time(0),
            stats: Stats::default(),
        }
    }

    /// Makes `snapshot` what this core exports. Hosts are told of changed namespaces and of a changed discovery log;
    /// connections whose subsystem, host or listener is no longer there are ended by the next [`Target::tick`], and start
    /// no further request; nor do commands to a namespace that their host no longer has. See [`Target::settled`].
    pub fn configure(&mut self, snapshot: Arc<Snapshot>) {
        let old = std::mem::replace(&mut self.snapshot, snapshot);
        self.transport = self.snapshot.transport.map(Transport::clamped);
        self.subs.configure(&self.snapshot);
        self.note_changes(&old);
        let unentitled = |t: &Target, c: &Conn| c.identity.is_some() && !t.entitled(c);
        self.end_where(unentitled, Close::AfterSend);
        self.withdraw();
    }

    /// Names the address of a listener of this core's net; connections accepted on an unknown listener are refused.
    pub fn listen(&mut self, listener: ListenerId, addr: SocketAddr) {
        self.listeners.retain(|(l, _)| *l != listener);
        self.listeners.push((listener, addr));
    }

    /// Forgets a listener and ends the connections made through its address.
    pub fn unlisten(&mut self, listener: ListenerId) {
        let Some(at) = self.listeners.iter().position(|(l, _)| *l == listener) else { return };
        let (_, addr) = self.listeners.swap_remove(at);
        self.end_where(|_, c| c.listener == addr, Close::AfterSend);
    }

    /// The handler for this turn's `net.poll`.
    pub fn join<'a, V: Volumes>(&'a mut self, now: Time, volumes: &'a mut V) -> Joined<'a, V> {
        Joined { now, target: self, volumes }
    }

    /// Requests that ended; `done` is left empty. Every completion whose tag this target made must come here.
    pub fn respond<N: Net>(&mut self, now: Time, done: &mut Vec<Completion>, net: &mut N, pool: &mut Pool) {
        for completion in done.drain(..) {
            self.completed(now, completion, net, pool);
        }
    }

    /// The end of a turn: tries waiting requests again, delivers events, looks at timers, closes connections. True when it
    /// did anything.
    pub fn tick<N: Net, V: Volumes>(&mut self, now: Time, net: &mut N, volumes: &mut V, pool: &mut Pool) -> bool {
        self.turn += 1;
        self.starved = false;
        let mut worked = !self.dead.is_empty() || !self.retry.is_empty() || self.eventful;
        for buf in self.dead.drain(..) {
            pool.put(buf);
        }
        if !self.retry.is_empty() {
            self.retry_queued(now, net, volumes, pool);
        }
        if self.eventful {
            self.deliver_all(net);
        }
        if now >= self.next_scan {
            self.next_scan = now.after_ms(SCAN_MS);
            self.scan(now);
        }
        worked |= !self.closing.is_empty() || !self.outbox.is_empty();
        for (conn, how) in self.closing.drain(..) {
            net.close(conn, how);
        }
        worked
    }

    /// Messages for other cores' targets, in order.
    pub fn outbox(&mut self) -> impl Iterator<Item = (CoreId, Message)> {
        self.outbox.drain(..)
    }

    /// The earliest time at which [`Target::tick`] has something to do without any outside event.
    pub fn wake_at(&self) -> Option<Time> {
        if self.starved || !self.retry.is_empty() || !self.dead.is_empty() {
            return Some(Time(0));
        }
        let timers = self.unassociated > 0 || self.controllers.iter().next().is_some() || self.live().next().is_some();
        timers.then_some(self.next_scan)
    }

    /// True while the volumes have no request of `volume` from here, also none of an ended connection. For the control
    /// plane, once the volumes know what changed: a command that still waits for its data (which a host may hold back
    /// as long as it likes) is judged by the volumes as they are when it comes.
    pub fn quiet(&self, volume: VolumeId) -> bool {
        self.none_left(|_, request| request.volume == volume)
    }

    /// True once the volumes have no request left that its host could not make now: the connections that the last
    /// [`Target::configure`] ended, and commands to namespaces that it took away, have come to their end.
    pub fn settled(&self) -> bool {
        self.none_left(|c, request| !super::subs::reaches(self.subs.spaces(c.view), request.volume))
    }

    /// True when none of the requests in the volumes is one of `these`, or of a connection that has ended.
    fn none_left(&self, these: impl Fn(&Conn, &crate::volume::Request) -> bool) -> bool {
        let mut known = 0;
        for conn in self.live() {
            for slot in conn.slots.iter().filter(|s| s.pending > 0) {
                if these(conn, &slot.request) {
                    return false;
                }
                known += usize::from(slot.pending);
            }
        }
        known == self.pending
    }

    /// Counters of this core.
    pub fn stats(&self) -> Stats {
        let mut stats = self.stats;
        for conn in self.live() {
            conn.work.add_to(&mut stats);
            stats.admin_queues_now += u64::from(matches!(conn.state(), State::Admin(_)));
            stats.io_queues_now += u64::from(matches!(conn.state(), State::Io(_)));
        }
        stats.unassociated_now = self.unassociated as u64;
        stats.controllers_now = self.controllers.iter().count() as u64;
        stats.pending_now = self.pending as u64;
        stats
    }

    /// Controllers that this core owns.
    pub fn controllers(&self) -> impl Iterator<Item = ControllerReport> {
        self.controllers.iter().map(|c| ControllerReport {
            core: self.core,
            cntlid: c.cntlid,
            subnqn: self.nqn(c.sub),
            hostnqn: c.hostnqn.clone(),
            hostid: c.hostid,
            discovery: c.discovery,
            io_queues: c.queues.len(),
            keep_alive_ms: c.kato,
        })
    }

    /// Queue pairs that this core serves.
    pub fn queues(&self) -> impl Iterator<Item = QueueReport> {
        self.live().filter(|c| c.associated()).filter_map(|c| {
            let id = c.identity.as_deref()?;
            Some(QueueReport {
                core: self.core,
                cntlid: id.cntlid,
                qid: id.qid,
                subnqn: self.nqn(c.sub),
                hostnqn: id.hostnqn.clone(),
                listener: c.listener,
                peer: c.ends.peer,
                depth: c.out.entries,
                outstanding: c.slots.live(),
                commands: c.work.commands,
            })
        })
    }

    fn nqn(&self, sub: u32) -> String {
        self.subs.get(sub).map_or_else(String::new, |s| s.nqn.clone())
    }

    pub(super) fn live(&self) -> impl Iterator<Item = &Conn> {
        self.conns.iter().filter_map(|c| c.as_deref())
    }

    /// Queues a message.
    pub(super) fn send(&mut self, to: CoreId, message: Message) {
        assert_ne!(to, self.core, "a core does not write to itself");
        self.outbox.push((to, message));
    }

    /// Has the net close a connection at the end of the turn.
    pub(super) fn close(&mut self, conn: ConnId, how: Close) {
        self.closing.push((conn, how));
    }

    /// Takes a connection out of the table, so that its command can use the rest of the target.
    pub(super) fn take(&mut self, id: ConnId) -> Option<Box<Conn>> {
        let place = self.conns.get_mut(id.slot as usize)?;
        if place.as_ref()?.id != id {
            return None;
        }
        place.take()
    }

    /// Puts it back.
    pub(super) fn put(&mut self, conn: Box<Conn>) {
        let place = &mut self.conns[conn.id.slot as usize];
        assert!(place.is_none(), "a connection has one place");
        *place = Some(conn);
    }

    /// A connection in the table.
    pub(super) fn conn(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.conns.get_mut(id.slot as usize)?.as_deref_mut().filter(|c| c.id == id)
    }
}
