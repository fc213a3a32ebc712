//! Kernel TCP by nonblocking sockets: the engine that is fastest at low depth and needs nothing but a socket API.
//!
//! Readiness comes from one edge-triggered epoll set. While one or two connections carry all the traffic they are
//! received from directly, because a receive that finds data makes the wait call before it pure cost; epoll is then
//! asked only now and then. Everything received passes through one shared [`Window`] and is parsed there; everything
//! queued on a connection leaves in one `sendmsg` straight from its [`Tx`].
//!
//! What stays true: a connection is in `ready` at most once and in `dirty` at most once; a rest that a handler left is
//! either in the window or in the connection's carry, never in both; nothing that would make `poll` find work is known
//! only to this struct while [`Net::wake_at`] says otherwise.

mod accept;
mod conn;
mod hot;
mod receive;
mod send;

use super::slots::Slots;
use super::sock::{self, TcpConfig};
use super::window::{NOBODY, Window};
use super::{Close, Closed, ConnId, Handler, ListenerId, Loose, Net, NetError, NetStats, Stream, Tx};
use crate::base::Time;
use crate::mem::Pool;
use accept::Listener;
use conn::{Conn, Phase};
use hot::{Change, Hot};
use rustix::event::epoll;
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

/// Events taken from epoll per turn.
const EVENTS: usize = 256;
/// Bytes received per turn over all connections, before the turn goes on with what it has. At 0.1 ns per byte copied
/// this bounds the receive stage to well under a millisecond.
const TURN_BYTES: usize = 4 << 20;
/// How long a graceful close may take.
const LINGER_MS: u64 = 1000;
/// Bytes parked for paused connections beyond a partial PDU each; above it, receives are kept small so that a pause
/// leaves little behind.
const STASH_MAX: usize = 64 << 20;
/// Event tokens with this bit name a listener, the others a connection.
const LISTENER: u64 = 1 << 63;

/// One core's kernel TCP streams by nonblocking sockets.
pub struct Tcp {
    epoll: OwnedFd,
    config: TcpConfig,
    events: Vec<epoll::Event>,
    listeners: Vec<Option<Listener>>,
    /// When listeners that ran out of descriptors may try again.
    accept_again: Option<Time>,
    conns: Slots<Conn>,
    /// Connections known to have bytes to read, oldest first.
    ready: VecDeque<u32>,
    /// Connections with something queued to send.
    dirty: VecDeque<u32>,
    /// Connections whose handler asked for no more bytes.
    parked: Vec<u32>,
    /// Connections that are over and wait to be reported.
    ended: Vec<u32>,
    /// Connections that are to leave for another core.
    leaving: Vec<ConnId>,
    /// Graceful closes under way, by deadline.
    closing: VecDeque<(Time, ConnId)>,
    window: Window,
    stashed: usize,
    hot: Hot,
    iov: Vec<IoSlice<'static>>,
    now: Time,
    stats: NetStats,
}

impl Tcp {
    /// An engine without listeners or connections.
    ///
    /// # Errors
    /// [`NetError::Engine`] when the kernel gives no epoll set.
    pub fn new(config: TcpConfig) -> Result<Tcp, NetError> {
        assert!(config.conns_max >= 1, "a net without connections serves nobody");
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|e| NetError::Engine("epoll", e.into()))?;
        Ok(Tcp {
            epoll,
            events: Vec::with_capacity(EVENTS),
            listeners: Vec::new(),
            accept_again: None,
            conns: Slots::new(config.conns_max),
            ready: VecDeque::with_capacity(config.conns_max),
            dirty: VecDeque::with_capacity(config.conns_max),
            parked: Vec::with_capacity(config.conns_max),
            ended: Vec::with_capacity(config.conns_max),
            leaving: Vec::new(),
            closing: VecDeque::new(),
            window: Window::new(),
            stashed: 0,
            hot: Hot::new(),
            iov: Vec::with_capacity(send::IOV_MAX),
            now: Time(0),
            stats: NetStats::default(),
            config,
        })
    }

    /// Puts a stream into the table and the epoll set.
    fn register(&mut self, fd: OwnedFd, phase: Phase) -> Result<ConnId, NetError> {
        let Some(id) = self.conns.next_id() else {
            return Err(NetError::Limit("connections per core"));
        };
        let flags = if phase == Phase::Connecting { conn::INTEREST | epoll::EventFlags::OUT } else { conn::INTEREST };
        epoll::add(&self.epoll, &fd, epoll::EventData::new_u64(token(id)), flags)
            .map_err(|e| NetError::Engine("epoll", e.into()))?;
        let Ok(inserted) = self.conns.insert(Conn::new(fd, phase)) else { unreachable!("next_id found a free slot") };
        assert_eq!(id, inserted, "next_id names the slot that insert takes");
        Ok(id)
    }

    /// Marks a connection as having something to send.
    fn mark_dirty(&mut self, slot: u32) {
        if let Some((_, conn)) = self.conns.at(slot)
            && !conn.dirty
        {
            conn.dirty = true;
            self.dirty.push_back(slot);
        }
    }

    /// Bytes arrived on `slot`: it may be worth receiving from directly, or nobody may be any more.
    fn heard(&mut self, slot: u32) {
        let (before, len) = self.hot.slots();
        let Some((_, conn)) = self.conns.at(slot) else { return };
        if conn.blocked || conn.parked || conn.phase != Phase::Open {
            return;
        }
        match self.hot.heard(slot, &mut conn.warmth, self.now) {
            Change::None => {}
            Change::Hot => match epoll::delete(&self.epoll, &conn.fd) {
                Ok(()) => conn.watched = false,
                Err(e) => self.end(slot, Closed::Error(e.raw_os_error())),
            },
            Change::Cold => before[..len].iter().for_each(|slot| self.watch(*slot)),
        }
    }

    /// Puts a connection that was hot back into the epoll set, which reports at once what it missed.
    fn watch(&mut self, slot: u32) {
        let Some((id, conn)) = self.conns.at(slot) else { return };
        if conn.watched || matches!(conn.phase, Phase::Ended(_)) {
            return;
        }
        conn.watched = true;
        let flags = if conn.blocked { conn::INTEREST | epoll::EventFlags::OUT } else { conn::INTEREST };
        if let Err(e) = epoll::add(&self.epoll, &conn.fd, epoll::EventData::new_u64(token(id)), flags) {
            self.end(slot, Closed::Error(e.raw_os_error()));
        }
    }

    /// Makes a connection cold, whatever it was.
    fn cool(&mut self, slot: u32) {
        if self.hot.forget(slot) {
            self.watch(slot);
        }
    }

    /// Marks a connection as over; the next poll reports it.
    fn end(&mut self, slot: u32, why: Closed) {
        if let Some((_, conn)) = self.conns.at(slot)
            && !matches!(conn.phase, Phase::Ended(_))
        {
            // However it came to its end, a connection that this side was closing was closed by this side.
            let why = if matches!(conn.phase, Phase::Closing { .. }) { Closed::Local } else { why };
            conn.phase = Phase::Ended(why);
            self.ended.push(slot);
        }
    }

    /// Reports the connections that are over and frees their slots.
    fn reap<H: Handler>(&mut self, pool: &mut Pool, handler: &mut H) -> usize {
        let mut count = 0;
        while let Some(slot) = self.ended.pop() {
            if let Some((_, conn)) = self.conns.at(slot)
                && conn.phase == Phase::Ended(Closed::Peer)
                && !conn.tx.is_empty()
            {
                // A peer that has finished sending may still read the answers to what it sent last.
                send::transmit(conn, &mut self.iov, &mut self.stats, pool);
            }
            let (id, mut conn) = self.take_out(slot);
            let Phase::Ended(why) = conn.phase else { unreachable!("only ended connections are listed") };
            conn.tx.clear(pool);
            drop(conn);
            handler.closed(id, why);
            count += 1;
        }
        count
    }

    /// Takes a connection out of the table and every list.
    fn take_out(&mut self, slot: u32) -> (ConnId, Conn) {
        let Some((id, conn)) = self.conns.remove(slot) else { unreachable!("taken out once") };
        if self.window.owner() == slot {
            self.window.forget();
        }
        self.stashed -= conn.stashed;
        self.hot.forget(slot);
        if conn.parked {
            self.parked.retain(|s| *s != slot);
        }
        if conn.queued {
            self.ready.retain(|s| *s != slot);
        }
        if conn.dirty {
            self.dirty.retain(|s| *s != slot);
        }
        (id, conn)
    }

    /// Hands connections over that are to leave; those that have ended meanwhile are reported as such.
    fn let_go<H: Handler>(&mut self, handler: &mut H) -> usize {
        let mut count = 0;
        for id in std::mem::take(&mut self.leaving) {
            self.make_room(NOBODY);
            let Some(conn) = self.conns.get_mut(id) else { continue };
            if conn.phase != Phase::Open {
                continue;
            }
            assert!(conn.tx.is_empty(), "a connection that leaves has nothing to send");
            if conn.watched && epoll::delete(&self.epoll, &conn.fd).is_err() {
                self.end(id.slot, Closed::Error(libc::EIO));
                continue;
            }
            let (_, conn) = self.take_out(id.slot);
            handler.released(id, Loose { stream: Stream::Socket(conn.fd), bytes: conn.carry });
            count += 1;
        }
        count
    }

    /// Ends graceful closes that took too long.
    fn expire(&mut self, now: Time) {
        while self.closing.front().is_some_and(|(until, _)| *until <= now) {
            let Some((_, id)) = self.closing.pop_front() else { unreachable!("front was there") };
            if self.conns.get_mut(id).is_some() {
                self.end(id.slot, Closed::Local);
            }
        }
        if self.accept_again.is_some_and(|at| at <= now) {
            self.resume_accepting();
        }
    }
}

/// The event token of a connection.
fn token(id: ConnId) -> u64 {
    u64::from(id.generation & 0x7fff_ffff) << 32 | u64::from(id.slot)
}

impl Net for Tcp {
    fn listen(&mut self, addr: SocketAddr, shared: bool) -> Result<(ListenerId, SocketAddr), NetError> {
        let (fd, got) = sock::listen(addr, shared, &self.config)?;
        Ok((self.add_listener(fd)?, got))
    }

    fn unlisten(&mut self, listener: ListenerId) {
        if let Some(entry) = self.listeners.get_mut(listener.0 as usize) {
            *entry = None;
        }
    }

    fn connect(&mut self, addr: SocketAddr) -> Result<ConnId, NetError> {
        let fd = sock::outgoing(addr, &self.config)?;
        match rustix::net::connect(&fd, &addr) {
            Ok(()) | Err(Errno::INPROGRESS) => self.register(fd, Phase::Connecting),
            Err(e) => Err(NetError::Address { what: "connect to", addr, source: e.into() }),
        }
    }

    fn adopt(&mut self, loose: Loose) -> Result<ConnId, NetError> {
        let (fd, bytes) = loose.socket()?;
        let set_up = rustix::io::ioctl_fionbio(&fd, true).and_then(|()| sock::tune(&fd, &self.config));
        set_up.map_err(|e| NetError::Engine("adopt", e.into()))?;
        let id = self.register(fd, Phase::Open)?;
        if !bytes.is_empty() {
            let Some(conn) = self.conns.get_mut(id) else { unreachable!("registered above") };
            conn.carry = bytes;
            // As after a pause: the next poll presents them, before anything else is read.
            self.park(id.slot);
        }
        Ok(id)
    }

    fn release(&mut self, conn: ConnId) {
        self.leaving.push(conn);
    }

    fn poll<H: Handler>(&mut self, now: Time, pool: &mut Pool, handler: &mut H) -> usize {
        self.now = now;
        let mut events = 0;
        if !self.closing.is_empty() || self.accept_again.is_some() {
            self.expire(now);
        }
        if !self.ended.is_empty() {
            events += self.reap(pool, handler);
        }
        if !self.leaving.is_empty() {
            events += self.let_go(handler);
        }
        if !self.parked.is_empty() {
            events += self.unpark(pool, handler);
        }
        if self.hot.direct() {
            events += self.read_hot(pool, handler);
        } else {
            events += self.wait(handler);
        }
        events + self.read_ready(pool, handler)
    }

    fn tx(&mut self, conn: ConnId) -> Option<&mut Tx> {
        let slot = conn.slot;
        let phase = &self.conns.get_mut(conn)?.phase;
        if !matches!(phase, Phase::Open | Phase::Connecting) {
            return None;
        }
        self.mark_dirty(slot);
        self.conns.get_mut(conn).map(|c| &mut c.tx)
    }

    fn flush(&mut self, now: Time, pool: &mut Pool) -> usize {
        self.now = now;
        if self.dirty.is_empty() { 0 } else { self.send_dirty(pool) }
    }

    fn close(&mut self, conn: ConnId, how: Close) {
        let now = self.now;
        let Some(c) = self.conns.get_mut(conn) else { return };
        match (how, &c.phase) {
            (_, Phase::Ended(_)) | (Close::AfterSend, Phase::Closing { .. }) => {}
            (Close::AfterSend, Phase::Open) => {
                let until = now.after_ms(LINGER_MS);
                c.phase = Phase::Closing { finished: false };
                c.drop_received(&mut self.stashed);
                if self.window.owner() == conn.slot {
                    self.window.forget();
                }
                self.closing.push_back((until, conn));
                self.cool(conn.slot);
                self.mark_dirty(conn.slot);
                self.enqueue(conn.slot);
            }
            (Close::Now, _) | (Close::AfterSend, Phase::Connecting) => {
                sock::reset_on_close(&c.fd);
                self.end(conn.slot, Closed::Local);
            }
        }
    }

    fn wait_fd(&self) -> Option<i32> {
        Some(self.epoll.as_raw_fd())
    }

    fn wake_at(&self) -> Option<Time> {
        // What arrives on a hot connection would not end a sleep on the epoll set.
        if !self.leaving.is_empty()
            || !self.ended.is_empty()
            || !self.ready.is_empty()
            || !self.dirty.is_empty()
            || !self.hot.is_empty()
        {
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
