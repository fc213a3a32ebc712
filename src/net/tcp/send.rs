//! Sending: everything a turn queued on a connection leaves in one call, straight from where it lies.

use super::super::{Closed, NetStats, Tx};
use super::conn::{Conn, INTEREST, Phase};
use super::{Tcp, token};
use crate::mem::Pool;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, Shutdown};
use std::io::IoSlice;

/// Stretches in one call: what the kernel allows (`UIO_MAXIOV`).
pub(super) const IOV_MAX: usize = 1024;
/// Calls per connection and turn; a connection with more to send goes on next turn.
const CALLS: usize = 4;

/// What sending on a connection came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sent {
    /// The queue is empty.
    All,
    /// The kernel takes no more for now.
    Blocked,
    /// The turn's share is used up and there is more.
    More,
    /// The connection is broken.
    Broken(Errno),
}

/// Sends what is queued on `conn`, in at most [`CALLS`] calls. Returns what came of it and how many bytes left.
pub(super) fn transmit(
    conn: &mut Conn,
    iov: &mut Vec<IoSlice<'static>>,
    stats: &mut NetStats,
    pool: &mut Pool,
) -> (Sent, usize) {
    let mut total = 0;
    for _ in 0..CALLS {
        if conn.tx.is_empty() {
            return (Sent::All, total);
        }
        let (asked, got) = send_once(conn, iov);
        stats.sends += 1;
        match got {
            Ok(n) => {
                conn.tx.sent(n, pool);
                stats.bytes_out += n as u64;
                total += n;
                if n < asked {
                    return (Sent::Blocked, total);
                }
            }
            Err(Errno::AGAIN) => return (Sent::Blocked, total),
            Err(Errno::INTR) => {}
            Err(e) => return (Sent::Broken(e), total),
        }
    }
    (if conn.tx.is_empty() { Sent::All } else { Sent::More }, total)
}

/// One call: as many stretches as it may take. Returns the bytes offered and the bytes taken.
fn send_once(conn: &Conn, store: &mut Vec<IoSlice<'static>>) -> (usize, rustix::io::Result<usize>) {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let (asked, iov) = gather(&conn.tx, std::mem::take(store));
    let got = if let [one] = iov.as_slice() {
        rustix::net::send(&conn.fd, one, flags)
    } else {
        rustix::net::sendmsg(&conn.fd, &iov, &mut SendAncillaryBuffer::default(), flags)
    };
    *store = relabel(iov);
    (asked, got)
}

/// Lists the waiting stretches of `tx` in the memory of `store`.
fn gather<'a>(tx: &'a Tx, store: Vec<IoSlice<'static>>) -> (usize, Vec<IoSlice<'a>>) {
    let mut iov: Vec<IoSlice<'a>> = store;
    let mut bytes = 0;
    tx.gather(|stretch| {
        bytes += stretch.len();
        iov.push(IoSlice::new(stretch));
        iov.len() < IOV_MAX
    });
    (bytes, iov)
}

/// The same, empty, vector for the next send: an empty list borrows nothing. Collecting an emptied `IntoIter` of the
/// same layout keeps the allocation.
fn relabel(mut iov: Vec<IoSlice<'_>>) -> Vec<IoSlice<'static>> {
    iov.clear();
    iov.into_iter().map(|_| unreachable!("the list was cleared")).collect()
}

impl Tcp {
    /// Sends on every connection that has something queued. Returns the bytes that left.
    pub(super) fn send_dirty(&mut self, pool: &mut Pool) -> usize {
        let mut total = 0;
        // Those that are not finished are listed again at the end, behind the ones looked at here.
        for _ in 0..self.dirty.len() {
            let Some(slot) = self.dirty.pop_front() else { break };
            let Some((_, conn)) = self.conns.at(slot) else { continue };
            conn.dirty = false;
            if !matches!(conn.phase, Phase::Open | Phase::Closing { .. }) || conn.blocked {
                continue;
            }
            let (sent, n) = transmit(conn, &mut self.iov, &mut self.stats, pool);
            total += n;
            self.after_send(slot, sent);
        }
        total
    }

    fn after_send(&mut self, slot: u32, sent: Sent) {
        match sent {
            Sent::All => self.finish_stream(slot),
            Sent::More => self.mark_dirty(slot),
            Sent::Blocked => self.await_room(slot),
            Sent::Broken(e) => self.end(slot, Closed::Error(e.raw_os_error())),
        }
    }

    /// Everything is sent: a connection that this side closes now says so to its peer.
    fn finish_stream(&mut self, slot: u32) {
        let Some((_, conn)) = self.conns.at(slot) else { return };
        if conn.phase == (Phase::Closing { finished: false }) {
            conn.phase = Phase::Closing { finished: true };
            if rustix::net::shutdown(&conn.fd, Shutdown::Write).is_err() {
                self.end(slot, Closed::Local);
            }
        }
    }

    /// The kernel's buffer is full: ask to be told when it is not.
    fn await_room(&mut self, slot: u32) {
        let Some((id, conn)) = self.conns.at(slot) else { return };
        conn.blocked = true;
        self.stats.blocked += 1;
        if !conn.watched {
            return self.cool(slot);
        }
        let data = EventData::new_u64(token(id));
        // The interest stays on afterwards: a connection that filled its buffer once is likely to do it again, and the
        // edge comes only after a full buffer.
        if let Err(e) = epoll::modify(&self.epoll, &conn.fd, data, INTEREST | EventFlags::OUT) {
            self.end(slot, Closed::Error(e.raw_os_error()));
        }
    }
}
