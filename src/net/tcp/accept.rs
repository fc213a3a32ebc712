//! Accepting: bounded batches, limits, and what happens when the process has no descriptors left.

use super::super::{Closed, Handler, ListenerId, NetError};
use super::conn::Phase;
use super::{LISTENER, Tcp, sock};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

/// Connections accepted per listener and turn; the listener is level-triggered, so the rest comes next turn.
const BATCH: usize = 16;
/// How long a listener waits after the process ran out of descriptors or memory.
const AGAIN_MS: u64 = 100;

/// A listening socket.
pub(super) struct Listener {
    fd: OwnedFd,
    /// Out of the epoll set until resources come back.
    waiting: bool,
}

impl Tcp {
    pub(super) fn add_listener(&mut self, fd: OwnedFd) -> Result<ListenerId, NetError> {
        let index = self.listeners.len();
        epoll::add(&self.epoll, &fd, EventData::new_u64(LISTENER | index as u64), EventFlags::IN)
            .map_err(|e| NetError::Engine("epoll", e.into()))?;
        self.listeners.push(Some(Listener { fd, waiting: false }));
        Ok(ListenerId(index as u32))
    }

    /// Accepts what waits on listener `index`, up to a batch. Returns how many connections were taken.
    pub(super) fn accept<H: Handler>(&mut self, index: usize, handler: &mut H) -> usize {
        for taken in 0..BATCH {
            let Some(Some(listener)) = self.listeners.get(index) else { return taken };
            match rustix::net::acceptfrom_with(&listener.fd, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok((fd, peer)) => {
                    let peer = peer.and_then(|p| SocketAddr::try_from(p).ok());
                    self.admit(fd, ListenerId(index as u32), peer, handler);
                }
                Err(Errno::AGAIN) => return taken,
                // One connection that failed before it was accepted says nothing about the next.
                Err(Errno::CONNABORTED | Errno::INTR | Errno::PROTO | Errno::PERM | Errno::TIMEDOUT) => {}
                // Out of descriptors or memory, or an error nobody foresaw: trying at once again would only spin.
                Err(_) => {
                    self.stats.accept_stalls += 1;
                    self.pause_accepting(index);
                    return taken;
                }
            }
        }
        BATCH
    }

    fn admit<H: Handler>(&mut self, fd: OwnedFd, listener: ListenerId, peer: Option<SocketAddr>, handler: &mut H) {
        // A peer that is gone again has no address; nothing is lost by refusing it.
        let Some(ends) = peer.and_then(|peer| sock::ends(&fd, Some(peer))) else { return };
        if self.conns.next_id().is_none() {
            self.stats.refused += 1;
            sock::reset_on_close(&fd);
            return;
        }
        let Ok(id) = self.register(fd, Phase::Open) else {
            self.stats.refused += 1;
            return;
        };
        let Some(conn) = self.conns.get_mut(id) else { unreachable!("registered one line above") };
        if handler.accepted(id, listener, ends, &mut conn.tx) {
            self.stats.accepted += 1;
            if !conn.tx.is_empty() {
                self.mark_dirty(id.slot);
            }
        } else {
            self.stats.refused += 1;
            assert!(conn.tx.is_empty(), "a refused connection queues nothing");
            sock::reset_on_close(&conn.fd);
            self.conns.remove(id.slot);
        }
    }

    /// Takes a listener out of the epoll set: level-triggered, it would otherwise wake every turn for nothing.
    fn pause_accepting(&mut self, index: usize) {
        if let Some(Some(listener)) = self.listeners.get_mut(index)
            && epoll::delete(&self.epoll, &listener.fd).is_ok()
        {
            listener.waiting = true;
            self.accept_again = Some(self.now.after_ms(AGAIN_MS));
        }
    }

    /// Puts waiting listeners back.
    pub(super) fn resume_accepting(&mut self) {
        self.accept_again = None;
        for (index, listener) in self.listeners.iter_mut().enumerate() {
            let Some(listener) = listener.as_mut().filter(|l| l.waiting) else { continue };
            let data = EventData::new_u64(LISTENER | index as u64);
            match epoll::add(&self.epoll, &listener.fd, data, EventFlags::IN) {
                Ok(()) => listener.waiting = false,
                Err(_) => self.accept_again = Some(self.now.after_ms(AGAIN_MS)),
            }
        }
    }

    /// The handshake of an outgoing connection has ended, well or badly.
    pub(super) fn finish_connect<H: Handler>(&mut self, slot: u32, handler: &mut H) {
        let Some((id, conn)) = self.conns.at(slot) else { return };
        match rustix::net::sockopt::socket_error(&conn.fd) {
            Ok(Ok(())) => {
                conn.phase = Phase::Open;
                let data = EventData::new_u64(super::token(id));
                if let Err(e) = epoll::modify(&self.epoll, &conn.fd, data, super::conn::INTEREST) {
                    return self.end(slot, Closed::Error(e.raw_os_error()));
                }
                handler.connected(id, &mut conn.tx);
                if !conn.tx.is_empty() {
                    self.mark_dirty(slot);
                }
            }
            Ok(Err(e)) | Err(e) => self.end(slot, Closed::Error(e.raw_os_error())),
        }
    }
}
