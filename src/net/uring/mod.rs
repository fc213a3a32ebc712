//! Kernel TCP by `io_uring`: a turn costs one system call however many connections send, and none when nothing moves.
//!
//! Accepts and receives are armed once and complete again and again; the kernel chooses the buffer of each receive from a
//! ring of them. Work that the kernel has put off for this thread shows as a flag in shared memory, so that an idle turn
//! reads two words. Sends own what they send until they complete: a turn's queue is exchanged for an empty one and
//! stays where it is.
//!
//! Receives neither use bundles nor incremental buffers: bundled multishot receives returned buffers out of order on
//! some kernels. Registered files and zero-copy sends are left out as well: the first saves about 20 ns per operation,
//! the second costs more than it saves below 16 KiB.
//!
//! What stays true: a connection's slot, descriptor and memory outlive every operation on it; a connection is
//! reported closed only when none is left.

mod complete;
mod conn;
mod ring;

use super::slots::Slots;
use super::sock::{self, TcpConfig};
use super::{Close, Closed, ConnId, Handler, ListenerId, Loose, Net, NetError, NetStats, Stream, Tx};
use crate::base::Time;
use crate::mem::Pool;
use conn::{Conn, Phase};
use io_uring::{opcode, types};
use ring::{Buffers, Completion, Ring};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Stretches in one send: what the kernel allows (`UIO_MAXIOV`).
const IOV_MAX: usize = 1024;
/// How long a graceful close may take.
const LINGER_MS: u64 = 1000;
/// How long a listener waits after the process ran out of descriptors or memory.
const ACCEPT_AGAIN_MS: u64 = 100;
/// How long dropping the engine waits for the kernel to let go.
const DROP_LIMIT: std::time::Duration = std::time::Duration::from_secs(2);

/// What a completion belongs to; the upper byte of its token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Accept = 1,
    Connect,
    Receive,
    Send,
    Cancel,
}

fn token(kind: Kind, slot: u32) -> u64 {
    (kind as u64) << 56 | u64::from(slot)
}

struct Listener {
    fd: OwnedFd,
    armed: bool,
    /// To be armed again at `accept_again`.
    waiting: bool,
    /// No longer wanted; goes when its accept has ended.
    leaving: bool,
}

/// One core's kernel TCP streams by `io_uring`. To be polled and flushed by one thread only.
pub struct Uring {
    ring: Ring,
    config: TcpConfig,
    listeners: Vec<Option<Listener>>,
    accept_again: Option<Time>,
    conns: Slots<Conn>,
    /// Connections with something queued to send.
    dirty: VecDeque<u32>,
    /// Connections whose handler asked for no more bytes.
    parked: Vec<u32>,
    /// Connections that are over and untouched by the kernel.
    over: Vec<u32>,
    /// Connections that are to leave for another core.
    leaving: Vec<ConnId>,
    /// Closes under way, by deadline.
    closing: VecDeque<(Time, ConnId)>,
    completions: Vec<Completion>,
    now: Time,
    stats: NetStats,
}

impl Uring {
    /// An engine without listeners or connections.
    ///
    /// # Errors
    /// [`NetError::Engine`] where the kernel has no `io_uring` of the kind needed (Linux 6.1), forbids it, or has no
    /// memory for it.
    pub fn new(config: TcpConfig) -> Result<Uring, NetError> {
        assert!(config.conns_max >= 1, "a net without connections serves nobody");
        let ring = Ring::new().map_err(|e| NetError::Engine("io_uring", e))?;
        Ok(Uring {
            ring,
            listeners: Vec::new(),
            accept_again: None,
            conns: Slots::new(config.conns_max),
            dirty: VecDeque::with_capacity(config.conns_max),
            parked: Vec::with_capacity(config.conns_max),
            over: Vec::with_capacity(config.conns_max),
            leaving: Vec::new(),
            closing: VecDeque::new(),
            completions: Vec::with_capacity(ring::COMPLETIONS as usize),
            now: Time(0),
            stats: NetStats::default(),
            config,
        })
    }

    fn insert(&mut self, fd: OwnedFd, phase: Phase) -> Result<ConnId, NetError> {
        self.conns.insert(Conn::new(fd, phase)).map_err(|_| NetError::Limit("connections per core"))
    }

    fn arm_accept(&mut self, index: usize) {
        let Some(Some(listener)) = self.listeners.get_mut(index) else { return };
        (listener.armed, listener.waiting) = (true, false);
        let fd = types::Fd(listener.fd.as_raw_fd());
        let flags = libc::SOCK_CLOEXEC;
        let entry = opcode::AcceptMulti::new(fd).flags(flags).build().user_data(token(Kind::Accept, index as u32));
        // SAFETY: the operation points to no memory.
        unsafe { self.ring.push(&entry) };
    }

    fn arm_receive(&mut self, slot: u32) {
        let Some((_, conn)) = self.conns.at(slot) else { unreachable!("armed in hand") };
        assert!(!conn.receiving, "one receive per connection");
        conn.receiving = true;
        let fd = types::Fd(conn.fd.as_raw_fd());
        let entry = opcode::RecvMulti::new(fd, ring::GROUP).build().user_data(token(Kind::Receive, slot));
        // SAFETY: the operation points to no memory of its own; the buffers outlive the ring.
        unsafe { self.ring.push(&entry) };
    }

    /// Asks the kernel to end an operation; its completion still comes.
    fn cancel(&mut self, kind: Kind, slot: u32) {
        let entry = opcode::AsyncCancel::new(token(kind, slot)).build().user_data(token(Kind::Cancel, slot));
        // SAFETY: the operation points to no memory.
        unsafe { self.ring.push(&entry) };
    }

    /// Asks the kernel to end everything that is under way on a connection.
    fn cancel_all(&mut self, slot: u32) {
        let Some((_, conn)) = self.conns.at(slot) else { return };
        for (underway, kind) in [
            (conn.receiving && !std::mem::replace(&mut conn.halting, true), Kind::Receive),
            (conn.sending, Kind::Send),
            (conn.connecting, Kind::Connect),
        ] {
            if underway {
                self.cancel(kind, slot);
            }
        }
    }

    fn mark_dirty(&mut self, slot: u32) {
        if let Some((_, conn)) = self.conns.at(slot)
            && !conn.dirty
        {
            conn.dirty = true;
            self.dirty.push_back(slot);
        }
    }

    /// Sends what is queued on a connection, unless a send is under way. Returns the bytes handed to the kernel.
    fn start_send(&mut self, slot: u32) -> usize {
        let Some((_, conn)) = self.conns.at(slot) else { return 0 };
        if conn.sending || !matches!(conn.phase, Phase::Open | Phase::Closing { .. }) {
            return 0;
        }
        if conn.flight.is_empty() {
            if conn.tx.is_empty() {
                return 0;
            }
            std::mem::swap(&mut conn.tx, &mut conn.flight);
        }
        let outbox = &mut *conn.outbox;
        outbox.iov.clear();
        let mut bytes = 0;
        conn.flight.gather(|stretch| {
            bytes += stretch.len();
            outbox.iov.push(libc::iovec { iov_base: stretch.as_ptr().cast_mut().cast(), iov_len: stretch.len() });
            outbox.iov.len() < IOV_MAX
        });
        let fd = types::Fd(conn.fd.as_raw_fd());
        // Without WAITALL a full socket buffer would complete the send early and cost a turn.
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        let entry = if let [one] = outbox.iov.as_slice() {
            opcode::Send::new(fd, one.iov_base.cast(), one.iov_len as u32).flags(flags).build()
        } else {
            outbox.header.msg_iov = outbox.iov.as_mut_ptr();
            outbox.header.msg_iovlen = outbox.iov.len() as _;
            opcode::SendMsg::new(fd, &raw const outbox.header).flags(flags.cast_unsigned()).build()
        };
        conn.sending = true;
        // SAFETY: header and list are boxed in the connection and change only after the send has completed; the bytes
        // belong to `flight`, which is neither added to nor shortened before that; the slot is freed after it.
        unsafe { self.ring.push(&entry.user_data(token(Kind::Send, slot))) };
        bytes
    }

    /// Marks a connection as over and has the kernel let go of it.
    fn end(&mut self, slot: u32, why: Closed) {
        let Some((_, conn)) = self.conns.at(slot) else { return };
        let why = match conn.phase {
            Phase::Ended(_) => return,
            Phase::Closing { why, .. } => why,
            Phase::Connecting | Phase::Open => why,
        };
        conn.phase = Phase::Ended(why);
        self.cancel_all(slot);
        self.settle(slot);
    }

    /// Lists an ended connection for its report once the kernel has let go of it.
    fn settle(&mut self, slot: u32) {
        if let Some((_, conn)) = self.conns.at(slot)
            && matches!(conn.phase, Phase::Ended(_))
            && !conn.busy()
            && !conn.listed
        {
            conn.listed = true;
            self.over.push(slot);
        }
    }

    /// Goes on with a close: ends our stream when all is sent, and the connection when both have ended.
    fn go_on_closing(&mut self, slot: u32) {
        let Some((_, conn)) = self.conns.at(slot) else { return };
        let sent = conn.all_sent();
        let Phase::Closing { why, ours, theirs } = &mut conn.phase else { return };
        if !sent {
            return;
        }
        if !std::mem::replace(ours, true) && rustix::net::shutdown(&conn.fd, rustix::net::Shutdown::Write).is_err() {
            *theirs = true;
        }
        if *theirs {
            let why = *why;
            self.end(slot, why);
        }
    }

    fn begin_closing(&mut self, slot: u32, why: Closed, theirs: bool) {
        let until = self.now.after_ms(LINGER_MS);
        let Some((id, conn)) = self.conns.at(slot) else { return };
        conn.phase = Phase::Closing { why, ours: false, theirs };
        conn.carry = Vec::new();
        self.closing.push_back((until, id));
        self.mark_dirty(slot);
        self.go_on_closing(slot);
    }

    fn expire(&mut self, now: Time) {
        while self.closing.front().is_some_and(|(until, _)| *until <= now) {
            let Some((_, id)) = self.closing.pop_front() else { unreachable!("front was there") };
            if self.conns.get_mut(id).is_some() {
                self.end(id.slot, Closed::Local);
            }
        }
        if self.accept_again.is_some_and(|at| at <= now) {
            self.accept_again = None;
            for index in 0..self.listeners.len() {
                if self.listeners[index].as_ref().is_some_and(|l| l.waiting) {
                    self.arm_accept(index);
                }
            }
        }
    }

    /// Reports the connections that are over and frees their slots.
    fn reap<H: Handler>(&mut self, pool: &mut Pool, handler: &mut H) -> usize {
        let mut count = 0;
        while let Some(slot) = self.over.pop() {
            let (id, mut conn) = self.take_out(slot);
            let Phase::Ended(why) = conn.phase else { unreachable!("only ended connections are listed") };
            assert!(!conn.busy(), "the kernel has let go");
            conn.tx.clear(pool);
            conn.flight.clear(pool);
            drop(conn);
            handler.closed(id, why);
            count += 1;
        }
        count
    }

    /// Takes a connection out of the table and every list.
    fn take_out(&mut self, slot: u32) -> (ConnId, Conn) {
        let Some((id, conn)) = self.conns.remove(slot) else { unreachable!("taken out once") };
        if conn.parked {
            self.parked.retain(|s| *s != slot);
        }
        if conn.dirty {
            self.dirty.retain(|s| *s != slot);
        }
        (id, conn)
    }

    /// Hands connections over that are to leave, once the kernel has let go of them; those that have ended meanwhile are
    /// reported as such.
    fn let_go<H: Handler>(&mut self, handler: &mut H) -> usize {
        let mut count = 0;
        for id in std::mem::take(&mut self.leaving) {
            let Some(conn) = self.conns.get_mut(id) else { continue };
            if conn.phase != Phase::Open {
                continue;
            }
            assert!(conn.all_sent(), "a connection that leaves has nothing to send");
            // Paused, so its receive has been told to stop; what that still brings belongs to the connection.
            assert!(conn.parked, "a connection that leaves is paused");
            if conn.busy() {
                self.leaving.push(id);
                continue;
            }
            let (_, conn) = self.take_out(id.slot);
            handler.released(id, Loose { stream: Stream::Socket(conn.fd), bytes: conn.carry });
            count += 1;
        }
        count
    }
}

impl Net for Uring {
    fn listen(&mut self, addr: SocketAddr, shared: bool) -> Result<(ListenerId, SocketAddr), NetError> {
        let (fd, got) = sock::listen(addr, shared, &self.config)?;
        blocking(&fd)?;
        let index = self.listeners.len();
        self.listeners.push(Some(Listener { fd, armed: false, waiting: false, leaving: false }));
        self.arm_accept(index);
        Ok((ListenerId(index as u32), got))
    }

    fn unlisten(&mut self, listener: ListenerId) {
        let Some(entry) = self.listeners.get_mut(listener.0 as usize) else { return };
        let Some(there) = entry.as_mut().filter(|l| !l.leaving) else { return };
        // Ends the queue of waiting connections at once, while the descriptor stays until its accept has ended.
        let _ = rustix::net::shutdown(&there.fd, rustix::net::Shutdown::Both);
        if there.armed {
            there.leaving = true;
            self.cancel(Kind::Accept, listener.0);
        } else {
            *entry = None;
        }
    }

    fn connect(&mut self, addr: SocketAddr) -> Result<ConnId, NetError> {
        let fd = sock::outgoing(addr, &self.config)?;
        blocking(&fd)?;
        let raw = types::Fd(fd.as_raw_fd());
        let id = self.insert(fd, Phase::Connecting)?;
        let Some(conn) = self.conns.get_mut(id) else { unreachable!("inserted above") };
        let target = conn.target.insert(Box::new(addr.into()));
        let entry = opcode::Connect::new(raw, target.as_ptr().cast(), target.len()).build();
        conn.connecting = true;
        // SAFETY: the address is boxed in the connection and stays until the connect has completed.
        unsafe { self.ring.push(&entry.user_data(token(Kind::Connect, id.slot))) };
        Ok(id)
    }

    fn adopt(&mut self, loose: Loose) -> Result<ConnId, NetError> {
        let (fd, bytes) = loose.socket()?;
        blocking(&fd)?;
        sock::tune(&fd, &self.config).map_err(|e| NetError::Engine("adopt", e.into()))?;
        let id = self.insert(fd, Phase::Open)?;
        if bytes.is_empty() {
            self.arm_receive(id.slot);
        } else {
            let Some(conn) = self.conns.get_mut(id) else { unreachable!("inserted above") };
            // As after a pause: the next poll presents them, before anything else is read.
            (conn.carry, conn.parked) = (bytes, true);
            self.parked.push(id.slot);
        }
        Ok(id)
    }

    fn release(&mut self, conn: ConnId) {
        self.leaving.push(conn);
    }

    fn poll<H: Handler>(&mut self, now: Time, pool: &mut Pool, handler: &mut H) -> usize {
        self.now = now;
        self.ring.quieten();
        if !self.closing.is_empty() || self.accept_again.is_some() {
            self.expire(now);
        }
        let mut events = self.unpark(pool, handler);
        if !self.ring.has_completions() && self.ring.wants_enter() {
            self.stats.waits += 1;
            self.ring.enter();
        }
        if self.ring.has_completions() {
            events += self.complete(pool, handler);
        }
        if !self.leaving.is_empty() {
            events += self.let_go(handler);
        }
        events + self.reap(pool, handler)
    }

    fn tx(&mut self, conn: ConnId) -> Option<&mut Tx> {
        let phase = &self.conns.get_mut(conn)?.phase;
        if !matches!(phase, Phase::Open | Phase::Connecting) {
            return None;
        }
        self.mark_dirty(conn.slot);
        self.conns.get_mut(conn).map(|c| &mut c.tx)
    }

    fn flush(&mut self, now: Time, _pool: &mut Pool) -> usize {
        self.now = now;
        let mut bytes = 0;
        for _ in 0..self.dirty.len() {
            let Some(slot) = self.dirty.pop_front() else { break };
            if let Some((_, conn)) = self.conns.at(slot) {
                conn.dirty = false;
                bytes += self.start_send(slot);
                self.go_on_closing(slot);
            }
        }
        if self.ring.wants_enter() {
            self.stats.waits += 1;
            self.ring.enter();
        }
        bytes
    }

    fn close(&mut self, conn: ConnId, how: Close) {
        let Some(c) = self.conns.get_mut(conn) else { return };
        match (how, c.phase) {
            (_, Phase::Ended(_)) | (Close::AfterSend, Phase::Closing { .. }) => {}
            (Close::AfterSend, Phase::Open) => self.begin_closing(conn.slot, Closed::Local, false),
            (Close::Now, _) | (Close::AfterSend, Phase::Connecting) => {
                sock::reset_on_close(&c.fd);
                self.end(conn.slot, Closed::Local);
            }
        }
    }

    fn wait_fd(&self) -> Option<i32> {
        self.ring.bell()
    }

    fn wake_at(&self) -> Option<Time> {
        if !self.over.is_empty() || !self.dirty.is_empty() || !self.leaving.is_empty() {
            return Some(Time(0));
        }
        let closing = self.closing.front().map(|(until, _)| *until);
        [closing, self.accept_again].into_iter().flatten().min()
    }

    fn connections(&self) -> usize {
        self.conns.len()
    }

    fn stats(&self) -> NetStats {
        self.stats
    }
}

/// Takes the nonblocking flag away: with it, the kernel would fail an operation that has to wait instead of waiting.
fn blocking<Fd: AsFd>(fd: Fd) -> Result<(), NetError> {
    rustix::io::ioctl_fionbio(fd, false).map_err(|e| NetError::Engine("blocking mode", e.into()))
}

impl Drop for Uring {
    /// Waits until the kernel has let go of all memory; what it does not let go of in time is never freed.
    fn drop(&mut self) {
        for slot in 0..self.conns.span() {
            if let Some((_, conn)) = self.conns.at(slot) {
                conn.halting = false;
                self.cancel_all(slot);
            }
        }
        for index in 0..self.listeners.len() {
            if self.listeners[index].as_ref().is_some_and(|l| l.armed) {
                self.cancel(Kind::Accept, index as u32);
            }
        }
        let limit = std::time::Instant::now() + DROP_LIMIT;
        while self.ring.underway() > 0 && std::time::Instant::now() < limit {
            self.ring.enter();
            self.completions.clear();
            self.ring.harvest(&mut self.completions);
        }
        if self.ring.underway() == 0 && Buffers::unregister(&self.ring) {
            // SAFETY: nothing is under way, and the kernel has forgotten the buffers.
            unsafe { self.ring.buffers.free() };
        } else {
            // The kernel may still read or write this memory: leave it where it is for ever.
            std::mem::forget(std::mem::replace(&mut self.conns, Slots::new(1)));
        }
    }
}
