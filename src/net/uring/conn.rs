//! One connection of the `io_uring` engine. What the kernel may be reading while a send is under way lives here, at
//! addresses that do not change: the queue being sent, its list of stretches, and the message header.

use super::super::{Closed, Tx};
use socket2::SockAddr;
use std::os::fd::OwnedFd;

/// Where a connection is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// The handshake of an outgoing connection is under way.
    Connecting,
    /// Bytes flow.
    Open,
    /// No more is received; what is queued is sent, in a second at most.
    Closing {
        /// What will be reported.
        why: Closed,
        /// The end of our stream was sent.
        ours: bool,
        /// The end of the peer's stream was seen.
        theirs: bool,
    },
    /// Over, for this reason; waits until the kernel has let go of it.
    Ended(Closed),
}

/// A send under way. Boxed, because the kernel follows pointers into it.
pub(super) struct Outbox {
    pub(super) iov: Vec<libc::iovec>,
    pub(super) header: libc::msghdr,
}

// SAFETY: the pointers inside lead to memory that the same connection owns and moves along with.
unsafe impl Send for Outbox {}

/// One connection.
pub(super) struct Conn {
    pub(super) fd: OwnedFd,
    pub(super) phase: Phase,
    /// What is queued for the next send.
    pub(super) tx: Tx,
    /// What is being sent. Its memory stays where it is until the send completes.
    pub(super) flight: Tx,
    pub(super) outbox: Box<Outbox>,
    /// Where to connect to, while connecting.
    pub(super) target: Option<Box<SockAddr>>,
    /// What the handler left unconsumed.
    pub(super) carry: Vec<u8>,
    /// A receive, a send, a connect is under way.
    pub(super) receiving: bool,
    pub(super) sending: bool,
    pub(super) connecting: bool,
    /// The receive was asked to stop.
    pub(super) halting: bool,
    /// In the list of connections to send on.
    pub(super) dirty: bool,
    /// In the list of paused connections.
    pub(super) parked: bool,
    /// In the list of connections to report.
    pub(super) listed: bool,
}

const TX_HEAD_BYTES: usize = 4096;
const TX_PIECES: usize = 64;

impl Conn {
    pub(super) fn new(fd: OwnedFd, phase: Phase) -> Conn {
        // SAFETY: all-zero is a valid msghdr: no name, no stretches, no control data.
        let header = unsafe { std::mem::zeroed() };
        Conn {
            fd,
            phase,
            tx: Tx::new(TX_HEAD_BYTES, TX_PIECES),
            flight: Tx::new(TX_HEAD_BYTES, TX_PIECES),
            outbox: Box::new(Outbox { iov: Vec::with_capacity(TX_PIECES), header }),
            target: None,
            carry: Vec::new(),
            receiving: false,
            sending: false,
            connecting: false,
            halting: false,
            dirty: false,
            parked: false,
            listed: false,
        }
    }

    /// True while the kernel may touch something of this connection.
    pub(super) fn busy(&self) -> bool {
        self.receiving || self.sending || self.connecting
    }

    /// True when everything queued has left.
    pub(super) fn all_sent(&self) -> bool {
        !self.sending && self.tx.is_empty() && self.flight.is_empty()
    }
}
