//! The target of one core: its tables, and the calls that the core's turn makes.

use super::config::{Config, Options, PortalGroup, Snapshot};
use super::conn::{Conn, Out, State};
use super::control::{Order, Orders};
use super::detached::Detached;
use super::fence::Fences;
use super::joined::Joined;
use super::lu::{self, Program};
use super::message::Message;
use super::session::Sessions;
use crate::base::{CoreId, Time, VolumeId};
use crate::mem::{Buf, Pool};
use crate::net::{Close, ConnId, ListenerId, Net, Tx};
use crate::trace::Histogram;
use crate::volume::{Completion, Volumes};
use crate::wire::iscsi::pdu::AsyncMessage;
use core::net::{IpAddr, SocketAddr};
use slab::Slab;
use std::collections::VecDeque;
use std::sync::Arc;

/// How often timers are looked at, ms.
const SCAN_MS: u64 = 250;

/// What this core knows of a target node beside the snapshot.
#[derive(Debug)]
pub(super) struct Node {
    /// State of its units, in their order.
    pub states: Vec<lu::State>,
    /// Commands answered, by latency; `None` while nobody wants to know.
    pub latencies: Option<Box<Histogram>>,
}

impl Node {
    /// Counts a command that was answered `ns` after it came, by the clock of turns.
    #[inline]
    pub fn count(&mut self, ns: u64) {
        if let Some(latencies) = &mut self.latencies {
            latencies.record(ns);
        }
    }
}

/// One core's iSCSI target.
#[derive(Debug)]
pub struct Target {
    pub(super) core: CoreId,
    pub(super) cores: u16,
    pub(super) config: Config,
    pub(super) snapshot: Arc<Snapshot>,
    /// The snapshot's options, each in its range.
    pub(super) options: Options,
    /// In the order of the snapshot's targets.
    pub(super) nodes: Vec<Node>,
    pub(super) listeners: Vec<(ListenerId, SocketAddr)>,
    /// By slot of the net's id.
    pub(super) conns: Vec<Option<Box<Conn>>>,
    /// Ended connections with requests still in the volumes.
    pub(super) ghosts: Vec<Conn>,
    pub(super) sessions: Sessions,
    pub(super) fences: Fences,
    outbox: Vec<(CoreId, Message)>,
    /// Programs that have left their commands.
    pub(super) detached: Slab<Detached>,
    /// What the control plane is asked to do.
    pub(super) orders: Orders,
    /// Connections that go to the core of their session.
    pub(super) moving: Vec<ConnId>,
    /// What connections that are about to be closed are told first.
    pub(super) farewells: Vec<(ConnId, Out, AsyncMessage)>,
    /// Connections to close at the end of the turn.
    closing: Vec<(ConnId, Close)>,
    /// Buffers and programs of ended tasks, on their way back.
    pub(super) dead: Vec<Buf>,
    pub(super) cancelled: Vec<Program>,
    /// Connections with tasks that the volumes had no room for.
    pub(super) retry: VecDeque<ConnId>,
    /// Connections with a collected PDU that waits.
    pub(super) parked: VecDeque<ConnId>,
    /// Counts turns; a connection that had to stop reading goes on in the next.
    pub(super) turn: u64,
    /// Reading of some connection stopped in this turn.
    pub(super) starved: bool,
    /// Position of the next task.
    pub(super) serial: u64,
    /// Requests in the volumes or with the control plane, of ended connections too.
    pub(super) pending: usize,
    /// Connections that have not finished their login.
    pub(super) in_login: usize,
    /// Failed logins: address, how many, since when.
    pub(super) failures: Vec<(IpAddr, u32, Time)>,
    /// Challenges and tags come from here.
    pub(super) random: super::random::Random,
    next_scan: Time,
    pub(super) stats: super::Stats,
}

/// What a command may use while it runs.
pub(super) struct Env<'a, V> {
    pub now: Time,
    pub volumes: &'a mut V,
    pub tx: &'a mut Tx,
    pub pool: &'a mut Pool,
}

impl Target {
    /// The target of `core`, one of `cores` (1 or more; the same number on all of them). `seed` is fresh random bytes of
    /// the operating system, other ones for every core: challenges come from it. It exports nothing until
    /// [`Target::configure`].
    pub fn new(core: CoreId, cores: u16, config: &Config, seed: [u8; 32]) -> Target {
        let config = Config {
            connections: config.connections.min(crate::base::limits::CONNS_PER_CORE),
            immediates: config.immediates.clamp(1, 256),
            text_bytes: config.text_bytes.max(8192),
            ..config.clone()
        };
        Target {
            core,
            cores,
            sessions: Sessions::new(core, cores, config.sessions),
            config,
            snapshot: Arc::default(),
            options: Options::default(),
            nodes: Vec::new(),
            listeners: Vec::new(),
            conns: Vec::new(),
            ghosts: Vec::new(),
            fences: Fences::default(),
            outbox: Vec::new(),
            detached: Slab::new(),
            orders: Orders::default(),
            moving: Vec::new(),
            farewells: Vec::new(),
            closing: Vec::new(),
            dead: Vec::new(),
            cancelled: Vec::new(),
            retry: VecDeque::new(),
            parked: VecDeque::new(),
            turn: 0,
            starved: false,
            serial: 0,
            pending: 0,
            in_login: 0,
            failures: Vec::new(),
            random: super::random::Random::new(seed),
            next_scan: Time(0),
            stats: super::Stats::default(),
        }
    }

    /// Names the address of a listener of this core's net: one of the portals. Connections accepted on an unknown
    /// listener, or at an address of no portal group, are refused.
    pub fn listen(&mut self, listener: ListenerId, addr: SocketAddr) {
        self.listeners.retain(|(l, _)| *l != listener);
        self.listeners.push((listener, addr));
    }

    /// Forgets a listener and ends the connections made through its address.
    pub fn unlisten(&mut self, listener: ListenerId) {
        let Some(at) = self.listeners.iter().position(|(l, _)| *l == listener) else { return };
        let (_, addr) = self.listeners.swap_remove(at);
        let gone: Vec<_> = self.live().filter(|c| c.listener == addr).map(|c| c.id).collect();
        self.dismiss(&gone);
    }

    /// True when the listener was named to this target: its connections belong here.
    pub fn listens(&self, listener: ListenerId) -> bool {
        self.listeners.iter().any(|(l, _)| *l == listener)
    }

    /// The handler for this turn's `net.poll`.
    pub fn join<'a, V: Volumes>(&'a mut self, now: Time, volumes: &'a mut V) -> Joined<'a, V> {
        Joined { now, target: self, volumes }
    }

    /// Requests that ended; `done` is left empty. Every completion whose tag this target made (1 in bits 63:56) must come
    /// here.
    pub fn respond<N: Net, V: Volumes>(
        &mut self,
        now: Time,
        done: &mut Vec<Completion>,
        net: &mut N,
        volumes: &mut V,
        pool: &mut Pool,
    ) {
        for completion in done.drain(..) {
            self.completed(now, completion, net, volumes, pool);
        }
    }

    /// The end of a turn: tries waiting tasks again, looks at fences and timers, closes connections. True when it did
    /// anything.
    pub fn tick<N: Net, V: Volumes>(&mut self, now: Time, net: &mut N, volumes: &mut V, pool: &mut Pool) -> bool {
        self.turn += 1;
        self.starved = false;
        let mut worked = !self.retry.is_empty() || !self.parked.is_empty() || self.fences.any();
        if !self.parked.is_empty() {
            self.retry_parked(now, net, volumes, pool);
        }
        if !self.retry.is_empty() {
            self.retry_queued(now, net, volumes, pool);
        }
        if now >= self.next_scan {
            self.next_scan = now.after_ms(SCAN_MS);
            self.scan(now, net);
        }
        if self.fences.any() {
            self.check_fences();
            self.settle_waits(now, net, volumes, pool);
        }
        if !self.detached.is_empty() {
            worked |= self.run_detached(now, net, volumes, pool);
        }
        worked |= !self.dead.is_empty() || !self.cancelled.is_empty();
        self.bury(pool);
        worked |= !self.closing.is_empty() || !self.outbox.is_empty() || !self.orders.new.is_empty();
        worked |= !self.moving.is_empty();
        for conn in self.moving.drain(..) {
            net.release(conn);
        }
        for (conn, out, farewell) in self.farewells.drain(..) {
            if let Some(tx) = net.tx(conn) {
                out.put(tx, &farewell);
            }
        }
        for (conn, how) in self.closing.drain(..) {
            net.close(conn, how);
        }
        worked
    }

    /// Gives back what ended tasks held.
    pub(super) fn bury(&mut self, pool: &mut Pool) {
        for program in self.cancelled.drain(..) {
            program.cancel(pool);
        }
        for buf in self.dead.drain(..) {
            pool.put(buf);
        }
    }

    /// Messages for other cores' targets, in order.
    pub fn outbox(&mut self) -> impl Iterator<Item = (CoreId, Message)> {
        self.outbox.drain(..)
    }

    /// What the control plane is asked to do. Each is answered by [`Target::reserved`], in this order.
    pub fn to_control(&mut self) -> impl Iterator<Item = Order> {
        self.orders.new.drain(..)
    }

    /// The earliest time at which [`Target::tick`] has something to do without any outside event.
    pub fn wake_at(&self) -> Option<Time> {
        let restless =
            self.starved || !self.retry.is_empty() || !self.parked.is_empty() || !self.fences.over_is_empty();
        if restless || !self.dead.is_empty() || !self.cancelled.is_empty() || !self.closing.is_empty() {
            return Some(Time(0));
        }
        let scan = self.live().next().is_some().then_some(self.next_scan);
        [scan, self.detached_wake_at()].into_iter().flatten().min()
    }

    /// True while the volumes have no request of `volume` from here, also none of an ended connection. For the control
    /// plane, once the volumes know what changed.
    pub fn quiet(&self, volume: VolumeId) -> bool {
        let all = self.live().chain(&self.ghosts).filter(|c| c.pending > 0);
        !all.flat_map(|c| c.tasks.iter()).any(|t| super::fence::busy(t) && t.volume == volume)
    }

    /// True once the volumes have no request left that its initiator could not make now: what the last
    /// [`Target::configure`] took away has come to its end.
    pub fn settled(&self) -> bool {
        let reaches = |c: &Conn, volume| {
            let node = self.snapshot.targets.iter().find(|t| Some(t.index) == c.target);
            node.is_some_and(|n| n.luns.iter().any(|u| u.info.id == volume))
        };
        let kept = |c: &Conn| c.tasks.iter().all(|t| !super::fence::busy(t) || reaches(c, t.volume));
        self.ghosts.is_empty() && self.live().all(|c| c.pending == 0 || (c.state() != State::Closing && kept(c)))
    }

    /// The portal group of a portal.
    pub(super) fn portal_group_of(&self, portal: SocketAddr) -> Option<&PortalGroup> {
        self.snapshot.portal_groups.iter().find(|g| g.portals.contains(&portal))
    }

    /// Place of a target in the snapshot.
    pub(super) fn node_of(&self, index: u32) -> Option<usize> {
        self.snapshot.targets.iter().position(|t| t.index == index)
    }

    pub(super) fn live(&self) -> impl Iterator<Item = &Conn> {
        self.conns.iter().filter_map(|c| c.as_deref())
    }

    /// The other cores.
    pub(super) fn others(&self) -> impl Iterator<Item = CoreId> + use<> {
        let own = self.core;
        (0..self.cores).map(CoreId).filter(move |core| *core != own)
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
