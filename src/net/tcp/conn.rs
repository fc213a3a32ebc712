//! One kernel TCP connection of the nonblocking engine, and what it is doing.

use super::super::{Closed, Tx};
use super::hot::Warmth;
use rustix::event::epoll::EventFlags;
use std::os::fd::OwnedFd;

/// What every stream listens for, edge-triggered; `OUT` is added only while a send is blocked.
pub(super) const INTEREST: EventFlags = EventFlags::IN.union(EventFlags::RDHUP).union(EventFlags::ET);

/// Where a connection is in its life.
///
/// ```text
/// Connecting -> Open -> Closing -> Ended
///      \-----------\--------------/
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// The handshake of an outgoing connection is under way.
    Connecting,
    /// Bytes flow.
    Open,
    /// This side closes gracefully: what is queued is sent, what arrives is dropped. `finished` once the end of the
    /// stream has been sent and only the peer's end is missing.
    Closing {
        /// The end of our stream was sent.
        finished: bool,
    },
    /// Over, for this reason; waits to be reported.
    Ended(Closed),
}

/// One connection.
pub(super) struct Conn {
    pub(super) fd: OwnedFd,
    pub(super) phase: Phase,
    pub(super) tx: Tx,
    /// What the handler left unconsumed, while the window belongs to another connection.
    pub(super) carry: Vec<u8>,
    /// How much of `carry` counts against the limit on parked bytes.
    pub(super) stashed: usize,
    /// In the list of connections to read.
    pub(super) queued: bool,
    /// In the list of connections to send on.
    pub(super) dirty: bool,
    /// In the list of paused connections.
    pub(super) parked: bool,
    /// In the epoll set; a hot connection is not.
    pub(super) watched: bool,
    /// What speaks for making the connection hot.
    pub(super) warmth: Warmth,
    /// The kernel's send buffer is full; epoll tells when it is not.
    pub(super) blocked: bool,
    /// The peer has ended its stream or the connection failed: read until that shows.
    pub(super) hangup: bool,
}

/// Header bytes and pieces a connection starts with; a protocol reserves more when it learns the queue depth.
const TX_HEAD_BYTES: usize = 4096;
const TX_PIECES: usize = 64;

impl Conn {
    pub(super) fn new(fd: OwnedFd, phase: Phase) -> Conn {
        Conn {
            fd,
            phase,
            tx: Tx::new(TX_HEAD_BYTES, TX_PIECES),
            carry: Vec::new(),
            stashed: 0,
            queued: false,
            dirty: false,
            parked: false,
            watched: true,
            warmth: Warmth::default(),
            blocked: false,
            hangup: false,
        }
    }

    /// Forgets received bytes nobody will read.
    pub(super) fn drop_received(&mut self, stashed: &mut usize) {
        *stashed -= std::mem::take(&mut self.stashed);
        self.carry = Vec::new();
    }
}
