//! One connection: from its handshake to its end, the commands under way on it and their data in both directions. The
//! admin queue and every I/O queue are one of these; what commands mean for the association is not known here.
//!
//! ```text
//! Closed -> Connecting (TCP) -> Handshake (ICReq sent) -> Open -> Closed
//! ```
//! The hot path is [`Queue::submit`] and [`Queue::data`]: a flat table of slots indexed by CID, capsules from a
//! template, received PDUs parsed where they lie. A Read's bytes are copied once into its buffer, or skipped.

mod receive;
mod send;

use super::{Ended, Failure};
use crate::base::Time;
use crate::mem::Buf;
use crate::net::{ConnId, Tx};
use crate::wire::nvme_tcp::pdu::IcReq;
use crate::wire::nvme_tcp::{Digests, Fault, Receiver, Side};
use receive::Incoming;
use zerocopy::IntoBytes;

/// R2Ts taken at once per command (MAXR2T, 0's based): payloads are kept whole, so more cost nothing.
const MAXR2T: u32 = 15;
/// Smallest MAXH2CDATA a controller may state (transport specification, 3.6.2.3).
const H2C_MIN: u32 = 4096;

/// Where the connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Link {
    /// None.
    Closed,
    /// TCP is connecting.
    Connecting,
    /// `ICReq` was sent.
    Handshake,
    /// PDUs flow.
    Open,
}

/// Why the connection can not go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Problem {
    /// The target broke the protocol.
    Broken(Fault),
    /// The target sent a termination request.
    Terminated { fes: u16, fei: u32 },
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Problem {
        Problem::Broken(fault)
    }
}

/// A command under way.
#[derive(Clone, Copy, Debug)]
struct Slot {
    busy: bool,
    /// Data flows to us.
    reads: bool,
    digest_bad: bool,
    /// Bytes of data in all.
    len: u32,
    /// Bytes received, or asked for by R2Ts so far.
    moved: u32,
    sent: Time,
}

const IDLE: Slot = Slot { busy: false, reads: false, digest_bad: false, len: 0, moved: 0, sent: Time(0) };

/// One connection's state.
#[derive(Debug)]
pub(super) struct Queue {
    /// QID.
    pub qid: u16,
    /// The net's name for the connection.
    pub conn: Option<ConnId>,
    pub link: Link,
    /// The Connect command was sent on this connection.
    pub connect_sent: bool,
    /// Bytes that may ride in a command capsule.
    pub in_capsule_max: u32,
    /// Commands under way at most (the target's queue may be smaller than what was asked for).
    pub limit: u32,
    wanted: Digests,
    receiver: Receiver,
    align: u32,
    h2c_max: u32,
    slots: Vec<Slot>,
    bufs: Vec<Option<Buf>>,
    incoming: Option<Incoming>,
    under_way: u32,
}

impl Queue {
    /// A closed queue with `depth` slots.
    pub fn new(qid: u16, depth: u16, wanted: Digests) -> Queue {
        Queue {
            qid,
            conn: None,
            link: Link::Closed,
            connect_sent: false,
            in_capsule_max: 0,
            limit: u32::from(depth),
            wanted,
            receiver: Receiver::new(Side::Host),
            align: 4,
            h2c_max: H2C_MIN,
            slots: vec![IDLE; usize::from(depth)],
            bufs: (0..depth).map(|_| None).collect(),
            incoming: None,
            under_way: 0,
        }
    }

    /// TCP is connecting as `conn`.
    pub fn connecting(&mut self, conn: ConnId) {
        assert_eq!(self.link, Link::Closed, "a queue has one connection");
        self.conn = Some(conn);
        self.link = Link::Connecting;
        self.receiver = Receiver::new(Side::Host);
        self.in_capsule_max = 0;
        self.connect_sent = false;
    }

    /// TCP is up: asks for the protocol connection.
    pub fn handshake(&mut self, tx: &mut Tx) {
        assert_eq!(self.link, Link::Connecting, "handshake follows the connection");
        self.link = Link::Handshake;
        tx.head(IcReq::new(0, self.wanted, MAXR2T).as_bytes());
    }

    /// Commands under way.
    pub fn under_way(&self) -> u32 {
        self.under_way
    }

    /// True when one more command fits.
    pub fn has_room(&self) -> bool {
        self.link == Link::Open && self.under_way < self.limit
    }

    /// The oldest command sent before `deadline`, if any.
    pub fn overdue(&self, deadline: Time) -> Option<u16> {
        let late = |(_, s): &(usize, &Slot)| s.busy && s.sent < deadline;
        self.slots.iter().enumerate().filter(late).min_by_key(|(_, s)| s.sent).map(|(cid, _)| cid as u16)
    }

    /// The connection is gone: every command under way ends as [`Failure::Lost`] (`overdue` as `TimedOut`); their
    /// buffers go to `orphans`.
    pub fn lost(&mut self, overdue: Option<u16>, out: &mut Vec<Ended>, orphans: &mut Vec<Buf>) {
        self.conn = None;
        self.link = Link::Closed;
        self.incoming = None;
        for (cid, slot) in self.slots.iter_mut().enumerate().filter(|(_, s)| s.busy) {
            let cid = cid as u16;
            let failure = if overdue == Some(cid) { Failure::TimedOut } else { Failure::Lost };
            *slot = IDLE;
            out.push(Ended { queue: self.qid.wrapping_sub(1), slot: cid, result: Err(failure), value: 0, buf: None });
        }
        self.under_way = 0;
        orphans.extend(self.bufs.iter_mut().filter_map(Option::take));
    }
}
