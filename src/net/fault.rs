//! A net that misbehaves on purpose: connections that break after some bytes, or stand still for a while. Wraps any
//! engine; seeded, so that a failure can be had again.

use super::{Close, Closed, ConnId, Ends, Handler, ListenerId, Loose, Net, NetError, NetStats, Tx};
use crate::base::Time;
use crate::base::rng::Rng;
use crate::mem::Pool;
use std::collections::HashMap;
use std::net::SocketAddr;

/// What goes wrong, and how often.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultPlan {
    /// Determines everything below.
    pub seed: u64,
    /// A connection breaks after a number of received bytes between these two; `None`: never.
    pub break_after: Option<(u64, u64)>,
    /// Percent of deliveries after which a connection is not read for a while.
    pub stall_percent: u64,
    /// For how long, ns, between these two.
    pub stall_ns: (u64, u64),
}

/// What is in store for one connection.
#[derive(Clone, Copy, Debug)]
struct Fate {
    left: Option<u64>,
    stalled_until: Time,
    broken: bool,
}

/// A net around a net.
pub struct Faulty<N: Net> {
    inner: N,
    plan: FaultPlan,
    rng: Rng,
    fates: HashMap<ConnId, Fate>,
    now: Time,
    /// Connections broken on purpose so far.
    broken: u64,
}

impl<N: Net> Faulty<N> {
    /// `inner`, with the faults of `plan`.
    pub fn new(inner: N, plan: FaultPlan) -> Faulty<N> {
        assert!(plan.stall_percent <= 100 && plan.stall_ns.0 <= plan.stall_ns.1, "a plan of percents and ranges");
        assert!(plan.break_after.is_none_or(|(low, high)| low <= high), "a plan of ranges");
        Faulty { inner, plan, rng: Rng::new(plan.seed), fates: HashMap::new(), now: Time(0), broken: 0 }
    }

    /// Connections broken on purpose so far.
    pub fn broken(&self) -> u64 {
        self.broken
    }

    /// Other faults from now on; connections that are open keep their fate.
    pub fn set_plan(&mut self, plan: FaultPlan) {
        self.plan = plan;
    }
}

/// Stands between the inner net and the real handler.
struct Tap<'a, H: Handler> {
    handler: &'a mut H,
    plan: &'a FaultPlan,
    rng: &'a mut Rng,
    fates: &'a mut HashMap<ConnId, Fate>,
    now: Time,
    doomed: Vec<ConnId>,
}

impl<H: Handler> Tap<'_, H> {
    fn fate(&mut self, conn: ConnId) -> &mut Fate {
        let (plan, rng) = (self.plan, &mut *self.rng);
        self.fates.entry(conn).or_insert_with(|| {
            let left = plan.break_after.map(|(low, high)| low + rng.below(high - low + 1));
            Fate { left, stalled_until: Time(0), broken: false }
        })
    }

    fn delivered(&mut self, conn: ConnId, n: usize) {
        let (plan, now) = (*self.plan, self.now);
        let stall = plan.stall_percent > 0 && self.rng.chance(plan.stall_percent);
        let ns = plan.stall_ns.0 + self.rng.below(plan.stall_ns.1 - plan.stall_ns.0 + 1);
        let fate = self.fate(conn);
        if stall {
            fate.stalled_until = now.after_ns(ns);
        }
        if let Some(left) = &mut fate.left {
            *left = left.saturating_sub(n as u64);
            if *left == 0 && !std::mem::replace(&mut fate.broken, true) {
                self.doomed.push(conn);
            }
        }
    }
}

impl<H: Handler> Handler for Tap<'_, H> {
    fn accepted(&mut self, conn: ConnId, listener: ListenerId, ends: Ends, tx: &mut Tx) -> bool {
        self.handler.accepted(conn, listener, ends, tx)
    }
    fn connected(&mut self, conn: ConnId, tx: &mut Tx) {
        self.handler.connected(conn, tx);
    }
    fn landing(&mut self, conn: ConnId) -> Option<&mut [u8]> {
        self.handler.landing(conn)
    }
    fn landed(&mut self, conn: ConnId, n: usize, tx: &mut Tx, pool: &mut Pool) {
        self.handler.landed(conn, n, tx, pool);
        self.delivered(conn, n);
    }
    fn data(&mut self, conn: ConnId, bytes: &[u8], tx: &mut Tx, pool: &mut Pool) -> usize {
        let n = self.handler.data(conn, bytes, tx, pool);
        self.delivered(conn, n);
        n
    }
    fn paused(&mut self, conn: ConnId) -> bool {
        let now = self.now;
        let fate = self.fate(conn);
        fate.broken || fate.stalled_until > now || self.handler.paused(conn)
    }
    fn released(&mut self, conn: ConnId, loose: Loose) {
        self.fates.remove(&conn);
        self.handler.released(conn, loose);
    }
    fn closed(&mut self, conn: ConnId, why: Closed) {
        let broken = self.fates.remove(&conn).is_some_and(|f| f.broken);
        self.handler.closed(conn, if broken { Closed::Error(libc::ECONNRESET) } else { why });
    }
}

impl<N: Net> Net for Faulty<N> {
    fn listen(&mut self, addr: SocketAddr, shared: bool) -> Result<(ListenerId, SocketAddr), NetError> {
        self.inner.listen(addr, shared)
    }
    fn unlisten(&mut self, listener: ListenerId) {
        self.inner.unlisten(listener);
    }
    fn connect(&mut self, addr: SocketAddr) -> Result<ConnId, NetError> {
        self.inner.connect(addr)
    }
    fn adopt(&mut self, loose: Loose) -> Result<ConnId, NetError> {
        self.inner.adopt(loose)
    }
    fn release(&mut self, conn: ConnId) {
        self.inner.release(conn);
    }
    fn poll<H: Handler>(&mut self, now: Time, pool: &mut Pool, handler: &mut H) -> usize {
        self.now = now;
        let Faulty { plan, rng, fates, .. } = self;
        let mut tap = Tap { handler, plan, rng, fates, now, doomed: Vec::new() };
        let events = self.inner.poll(now, pool, &mut tap);
        let doomed = tap.doomed;
        self.broken += doomed.len() as u64;
        for conn in doomed {
            self.inner.close(conn, Close::Now);
        }
        events
    }
    fn tx(&mut self, conn: ConnId) -> Option<&mut Tx> {
        self.inner.tx(conn)
    }
    fn flush(&mut self, now: Time, pool: &mut Pool) -> usize {
        self.inner.flush(now, pool)
    }
    fn close(&mut self, conn: ConnId, how: Close) {
        self.inner.close(conn, how);
    }
    fn wait_fd(&self) -> Option<i32> {
        self.inner.wait_fd()
    }
    fn wake_at(&self) -> Option<Time> {
        let stalls = self.fates.values().map(|f| f.stalled_until).filter(|at| *at > self.now);
        stalls.chain(self.inner.wake_at()).min()
    }
    fn connections(&self) -> usize {
        self.inner.connections()
    }
    fn stats(&self) -> NetStats {
        self.inner.stats()
    }
}
