//! Two nets of one core as one: the kernel's streams, and beside them a stack of our own with addresses that the kernel does
//! not have. Who listens on one of those addresses listens on the stack; everything else is the kernel's, and the wildcard
//! address is both.
//!
//! What stays true: ids of the stack have a bit that ids of the kernel never have, in slots as well as in listeners, so that
//! whoever keeps tables by slot keeps one table for both.

use super::{Close, Closed, ConnId, Ends, Handler, ListenerId, Loose, Net, NetError, NetStats, Tx};
use crate::base::Time;
use crate::base::limits::CONNS_PER_CORE;
use crate::mem::Pool;
use std::net::{IpAddr, SocketAddr};

/// In a slot: the connection is the stack's. Slots of either net are below it, which is a power of two.
const STACK_SLOT: u32 = CONNS_PER_CORE as u32;
/// The same in the number of a listener.
const STACK_LISTENER: u32 = 1 << 31;
/// A listener on a core that has no part of the stack's port: it hears nothing.
const DEAF: u32 = 1 << 30;

const _: () = assert!(CONNS_PER_CORE.is_power_of_two());

/// A look at the kernel's net is a system call, which a turn of the stack need not pay for: how long a peer of a silent
/// kernel net may wait for one, ns.
const QUIET_NS: u64 = 50_000;
/// The same while it has listeners only.
const ACCEPT_NS: u64 = 1_000_000;
/// How long after the last event it is looked at in every turn, ns.
const BUSY_NS: u64 = 1_000_000;

/// When the kernel's net is looked at.
#[derive(Debug, Default)]
struct Pace {
    looked: Time,
    busy_until: Time,
    listeners: usize,
}

impl Pace {
    /// True when it is time for a look; `wake_at` is when the net has something to do by itself.
    #[inline]
    fn is_due(&self, now: Time, connections: usize, wake_at: impl FnOnce() -> Option<Time>) -> bool {
        let waited = now.since(self.looked);
        let regular = match (connections, self.listeners) {
            (0, 0) => false,
            (0, _) => waited >= ACCEPT_NS,
            _ => waited >= QUIET_NS || now < self.busy_until,
        };
        regular || wake_at().is_some_and(|at| at <= now)
    }

    fn looked(&mut self, now: Time, events: usize) {
        self.looked = now;
        if events > 0 {
            self.busy_until = now.after_ns(BUSY_NS);
        }
    }
}

/// The kernel's net with a stack beside it.
pub struct Beside<K, S> {
    kernel: K,
    /// `None` on a core for which the card has no queue.
    stack: Option<S>,
    /// The addresses of the stack, the same on every core.
    ours: Vec<IpAddr>,
    /// Wildcard listeners: the stack's, and the kernel's, whose id both have for the outside.
    twins: Vec<(ListenerId, ListenerId)>,
    pace: Pace,
}

impl<K: Net, S: Net> Beside<K, S> {
    /// `ours` are the addresses of the stack.
    pub fn new(kernel: K, stack: Option<S>, ours: Vec<IpAddr>) -> Beside<K, S> {
        Beside { kernel, stack, ours, twins: Vec::new(), pace: Pace::default() }
    }

    /// The stack, to look at.
    pub fn stack(&self) -> Option<&S> {
        self.stack.as_ref()
    }
}

/// The stack's connection as the outside knows it.
fn outer(conn: ConnId) -> ConnId {
    assert!(conn.slot < STACK_SLOT, "slots of a net are below CONNS_PER_CORE");
    ConnId { slot: conn.slot | STACK_SLOT, ..conn }
}

/// The stack's own id, if the connection is the stack's.
#[inline]
fn inner(conn: ConnId) -> Option<ConnId> {
    (conn.slot & STACK_SLOT != 0).then_some(ConnId { slot: conn.slot & !STACK_SLOT, ..conn })
}

/// Shows the stack's events under the ids of the outside.
struct Renamed<'a, H> {
    handler: &'a mut H,
    twins: &'a [(ListenerId, ListenerId)],
}

impl<H: Handler> Handler for Renamed<'_, H> {
    fn accepted(&mut self, conn: ConnId, listener: ListenerId, ends: Ends, tx: &mut Tx) -> bool {
        let twin = self.twins.iter().find(|(own, _)| *own == listener).map(|(_, kernel)| *kernel);
        let listener = twin.unwrap_or(ListenerId(listener.0 | STACK_LISTENER));
        self.handler.accepted(outer(conn), listener, ends, tx)
    }
    fn connected(&mut self, conn: ConnId, tx: &mut Tx) {
        self.handler.connected(outer(conn), tx);
    }
    #[inline]
    fn landing(&mut self, conn: ConnId) -> Option<&mut [u8]> {
        self.handler.landing(outer(conn))
    }
    #[inline]
    fn landed(&mut self, conn: ConnId, n: usize, tx: &mut Tx, pool: &mut Pool) {
        self.handler.landed(outer(conn), n, tx, pool);
    }
    #[inline]
    fn data(&mut self, conn: ConnId, bytes: &[u8], tx: &mut Tx, pool: &mut Pool) -> usize {
        self.handler.data(outer(conn), bytes, tx, pool)
    }
    #[inline]
    fn paused(&mut self, conn: ConnId) -> bool {
        self.handler.paused(outer(conn))
    }
    fn released(&mut self, conn: ConnId, loose: Loose) {
        self.handler.released(outer(conn), loose);
    }
    fn closed(&mut self, conn: ConnId, why: Closed) {
        self.handler.closed(outer(conn), why);
    }
}

impl<K: Net, S: Net> Net for Beside<K, S> {
    fn listen(&mut self, addr: SocketAddr, shared: bool) -> Result<(ListenerId, SocketAddr), NetError> {
        if self.ours.contains(&addr.ip()) {
            let Some(stack) = &mut self.stack else { return Ok((ListenerId(DEAF), addr)) };
            let (id, got) = stack.listen(addr, shared)?;
            assert!(id.0 < DEAF, "listeners are few");
            return Ok((ListenerId(id.0 | STACK_LISTENER), got));
        }
        let (id, got) = self.kernel.listen(addr, shared)?;
        assert!(id.0 < DEAF, "listeners are few");
        self.pace.listeners += 1;
        if let Some(stack) = &mut self.stack
            && addr.ip().is_unspecified()
        {
            match stack.listen(got, shared) {
                Ok((own, _)) => self.twins.push((own, id)),
                Err(e) => {
                    self.unlisten(id);
                    return Err(e);
                }
            }
        }
        Ok((id, got))
    }

    fn unlisten(&mut self, listener: ListenerId) {
        if listener == ListenerId(DEAF) {
            return;
        }
        if listener.0 & STACK_LISTENER == 0 {
            self.kernel.unlisten(listener);
            self.pace.listeners = self.pace.listeners.saturating_sub(1);
        }
        let Some(stack) = &mut self.stack else { return };
        if listener.0 & STACK_LISTENER != 0 {
            stack.unlisten(ListenerId(listener.0 & !STACK_LISTENER));
        } else if let Some(at) = self.twins.iter().position(|(_, kernel)| *kernel == listener) {
            stack.unlisten(self.twins.swap_remove(at).0);
        }
    }

    /// By the kernel, which knows the routes of the machine; a stack connects for who holds it alone.
    fn connect(&mut self, addr: SocketAddr) -> Result<ConnId, NetError> {
        self.kernel.connect(addr)
    }

    fn adopt(&mut self, loose: Loose) -> Result<ConnId, NetError> {
        self.kernel.adopt(loose)
    }

    fn release(&mut self, conn: ConnId) {
        match (inner(conn), &mut self.stack) {
            (Some(own), Some(stack)) => stack.release(own),
            (Some(_), None) => {}
            (None, _) => self.kernel.release(conn),
        }
    }

    fn poll<H: Handler>(&mut self, now: Time, pool: &mut Pool, handler: &mut H) -> usize {
        let Some(stack) = &mut self.stack else { return self.kernel.poll(now, pool, handler) };
        let mut events = stack.poll(now, pool, &mut Renamed { handler, twins: &self.twins });
        if self.pace.is_due(now, self.kernel.connections(), || self.kernel.wake_at()) {
            let heard = self.kernel.poll(now, pool, handler);
            self.pace.looked(now, heard);
            events += heard;
        }
        events
    }

    #[inline]
    fn tx(&mut self, conn: ConnId) -> Option<&mut Tx> {
        match inner(conn) {
            Some(own) => self.stack.as_mut()?.tx(own),
            None => self.kernel.tx(conn),
        }
    }

    fn flush(&mut self, now: Time, pool: &mut Pool) -> usize {
        let sent = self.stack.as_mut().map_or(0, |stack| stack.flush(now, pool));
        sent + self.kernel.flush(now, pool)
    }

    fn close(&mut self, conn: ConnId, how: Close) {
        match (inner(conn), &mut self.stack) {
            (Some(own), Some(stack)) => stack.close(own, how),
            (Some(_), None) => {}
            (None, _) => self.kernel.close(conn, how),
        }
    }

    /// A stack is polled: there is nothing to wait on.
    fn wait_fd(&self) -> Option<i32> {
        if self.stack.is_some() { None } else { self.kernel.wait_fd() }
    }

    fn wake_at(&self) -> Option<Time> {
        let stack = self.stack.as_ref().and_then(Net::wake_at);
        [stack, self.kernel.wake_at()].into_iter().flatten().min()
    }

    fn connections(&self) -> usize {
        self.kernel.connections() + self.stack.as_ref().map_or(0, Net::connections)
    }

    fn stats(&self) -> NetStats {
        let (a, b) = (self.kernel.stats(), self.stack.as_ref().map(Net::stats).unwrap_or_default());
        NetStats {
            accepted: a.accepted + b.accepted,
            refused: a.refused + b.refused,
            accept_stalls: a.accept_stalls + b.accept_stalls,
            waits: a.waits + b.waits,
            receives: a.receives + b.receives,
            sends: a.sends + b.sends,
            blocked: a.blocked + b.blocked,
            bytes_in: a.bytes_in + b.bytes_in,
            bytes_out: a.bytes_out + b.bytes_out,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Loopback, LoopbackConfig, Network};
    use super::*;
    use crate::base::CoreId;
    use crate::mem::Class;
    use std::collections::BTreeMap;

    /// Notes who came by which listener, and answers every byte with the one after it.
    #[derive(Default)]
    struct Answering {
        came: BTreeMap<(u32, u32), ListenerId>,
        closed: Vec<ConnId>,
        heard: Vec<(ConnId, Vec<u8>)>,
    }

    impl Handler for Answering {
        fn accepted(&mut self, conn: ConnId, listener: ListenerId, _: Ends, _: &mut Tx) -> bool {
            assert_eq!(self.came.insert((conn.slot, conn.generation), listener), None, "an id twice");
            true
        }
        fn data(&mut self, conn: ConnId, bytes: &[u8], tx: &mut Tx, _: &mut Pool) -> usize {
            self.heard.push((conn, bytes.to_vec()));
            tx.head(&bytes.iter().map(|b| b + 1).collect::<Vec<_>>());
            bytes.len()
        }
        fn closed(&mut self, conn: ConnId, _: Closed) {
            self.closed.push(conn);
        }
    }

    #[derive(Default)]
    struct Asking(Vec<u8>);
    impl Handler for Asking {
        fn accepted(&mut self, _: ConnId, _: ListenerId, _: Ends, _: &mut Tx) -> bool {
            false
        }
        fn connected(&mut self, _: ConnId, tx: &mut Tx) {
            tx.head(b"a");
        }
        fn data(&mut self, _: ConnId, bytes: &[u8], _: &mut Tx, _: &mut Pool) -> usize {
            self.0.extend_from_slice(bytes);
            bytes.len()
        }
        fn closed(&mut self, _: ConnId, _: Closed) {}
    }

    struct Rig {
        node: Beside<Loopback, Loopback>,
        /// A host on the kernel's network, and one on the stack's.
        hosts: [Loopback; 2],
        handler: Answering,
        asking: [Asking; 2],
        pool: Pool,
        now: Time,
    }

    const KERNEL: &str = "10.0.0.1:4420";
    const STACK: &str = "10.0.0.2:4420";

    fn rig() -> Rig {
        let (one, two) = (Network::new(LoopbackConfig::default()), Network::new(LoopbackConfig::default()));
        let kernel = one.net();
        drop(two.net());
        let stack = two.net();
        let node = Beside::new(kernel, Some(stack), vec![STACK.parse::<SocketAddr>().unwrap().ip()]);
        let pool = Pool::standalone(CoreId(0), &[Class { size: 4096, count: 16 }]).unwrap();
        let asking = [Asking::default(), Asking::default()];
        Rig { node, hosts: [one.net(), two.net()], handler: Answering::default(), asking, pool, now: Time(1) }
    }

    impl Rig {
        fn turns(&mut self) {
            for _ in 0..20 {
                self.now = self.now.after_ms(1);
                self.node.poll(self.now, &mut self.pool, &mut self.handler);
                self.node.flush(self.now, &mut self.pool);
                for (host, asking) in self.hosts.iter_mut().zip(&mut self.asking) {
                    host.poll(self.now, &mut self.pool, asking);
                    host.flush(self.now, &mut self.pool);
                }
            }
        }
    }

    #[test]
    fn addresses_choose_the_net_and_ids_never_meet() {
        let mut r = rig();
        let (k, _) = r.node.listen(KERNEL.parse().unwrap(), true).unwrap();
        let (s, got) = r.node.listen(STACK.parse().unwrap(), true).unwrap();
        assert_eq!(got, STACK.parse().unwrap());
        assert_ne!(k, s);
        r.hosts[0].connect(KERNEL.parse().unwrap()).unwrap();
        r.hosts[1].connect(STACK.parse().unwrap()).unwrap();
        r.turns();
        let came: Vec<_> = r.handler.came.iter().map(|((slot, _), listener)| (*slot, *listener)).collect();
        assert_eq!(came, [(0, k), (STACK_SLOT, s)]);
        assert_eq!((&r.asking[0].0[..], &r.asking[1].0[..]), (&b"b"[..], &b"b"[..]));
        assert_eq!(r.node.connections(), 2);
        assert!(r.node.wait_fd().is_none());
        assert_eq!(r.node.stats().accepted, 2);
        let stack = ConnId { slot: STACK_SLOT, generation: 0 };
        r.node.tx(stack).unwrap().head(b"!");
        r.turns();
        assert_eq!((&r.asking[0].0[..], &r.asking[1].0[..]), (&b"b"[..], &b"b!"[..]));
        r.node.close(stack, Close::Now);
        r.turns();
        assert_eq!((r.handler.closed.as_slice(), r.node.connections()), (&[stack][..], 1));
    }

    #[test]
    fn the_kernel_is_looked_at_as_often_as_it_has_something_to_say() {
        let mut pace = Pace::default();
        let second = Time(1_000_000_000);
        let never = || None;
        assert!(!pace.is_due(second, 0, never), "nobody can come");
        assert!(pace.is_due(second, 0, || Some(second)) && !pace.is_due(second, 0, || Some(second.after_ns(1))));
        pace.listeners = 1;
        assert!(pace.is_due(second, 0, never));
        pace.looked(second, 0);
        assert!(
            !pace.is_due(second.after_ns(ACCEPT_NS - 1), 0, never) && pace.is_due(second.after_ns(ACCEPT_NS), 0, never)
        );
        assert!(
            !pace.is_due(second.after_ns(QUIET_NS - 1), 1, never) && pace.is_due(second.after_ns(QUIET_NS), 1, never)
        );
        pace.looked(second, 1);
        assert!(pace.is_due(second.after_ns(1), 1, never), "who has just spoken may speak again");
        assert!(!pace.is_due(second.after_ns(1), 0, never));
    }

    #[test]
    fn the_wildcard_is_one_listener_on_both() {
        let mut r = rig();
        let (id, _) = r.node.listen("0.0.0.0:4420".parse().unwrap(), true).unwrap();
        r.hosts[0].connect(KERNEL.parse().unwrap()).unwrap();
        r.hosts[1].connect(STACK.parse().unwrap()).unwrap();
        r.turns();
        assert_eq!(r.handler.came.values().collect::<Vec<_>>(), [&id, &id]);
        r.node.unlisten(id);
        r.hosts[0].connect(KERNEL.parse().unwrap()).unwrap();
        r.hosts[1].connect(STACK.parse().unwrap()).unwrap();
        r.turns();
        assert_eq!(r.handler.came.len(), 2, "nobody listens any more");
    }

    #[test]
    fn a_core_without_a_queue_hears_only_the_kernel() {
        let mut r = rig();
        r.node.stack = None;
        let (deaf, _) = r.node.listen(STACK.parse().unwrap(), true).unwrap();
        let (k, _) = r.node.listen(KERNEL.parse().unwrap(), true).unwrap();
        assert_ne!(deaf, k);
        r.hosts[0].connect(KERNEL.parse().unwrap()).unwrap();
        r.turns();
        r.node.unlisten(deaf);
        assert_eq!(r.handler.came.values().collect::<Vec<_>>(), [&k]);
        assert!(r.node.stack().is_none() && r.node.tx(ConnId { slot: STACK_SLOT, generation: 0 }).is_none());
    }
}
