//! What the targets of different cores tell each other. A controller lives on the core that accepted its admin queue (its
//! owner, which the CNTLID names); its I/O queues may be accepted anywhere. The application moves each message from
//! [`Target::outbox`](super::Target::outbox) to [`Target::message`](super::Target::message) of the core it is for, in
//! order per pair of cores.

use crate::base::CoreId;
use crate::net::ConnId;
use crate::wire::nvme::StatusCode;

/// A controller, seen from anywhere: its owner, its place there, and the generation of that place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ControllerRef {
    /// The core that owns it.
    pub owner: CoreId,
    /// Its place in the owner's table.
    pub(super) index: u16,
    /// Makes a reused place a different controller.
    pub(super) generation: u32,
}

/// What I/O queues did, for the SMART log and the keep alive timer of their controller.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Reads completed.
    pub reads: u64,
    /// Bytes of reads.
    pub read_bytes: u64,
    /// Writes completed.
    pub writes: u64,
    /// Bytes of writes.
    pub write_bytes: u64,
    /// Commands failed by their volume's media.
    pub media_errors: u64,
}

/// What one core's target tells another's.
#[derive(Debug)]
pub enum Message {
    /// To the owner: an I/O queue wants to join a controller.
    Attach(Box<Attach>),
    /// From the owner: the answer.
    Attached {
        /// The connection that asked.
        conn: ConnId,
        /// The controller, or the status and result of the failed Connect.
        answer: Result<ControllerRef, (StatusCode, u64)>,
    },
    /// To the owner: the connection of an I/O queue is gone.
    Detached {
        /// Its controller.
        controller: ControllerRef,
        /// Its queue.
        qid: u16,
        /// Its connection.
        conn: ConnId,
        /// What it did since the last message.
        traffic: Traffic,
    },
    /// From the owner: end this I/O queue's connection (controller reset, shutdown, or end of the association).
    Close {
        /// Which connection.
        conn: ConnId,
    },
    /// To the owner: commands were processed on an I/O queue since the last such message (traffic based keep alive).
    Traffic {
        /// The controller.
        controller: ControllerRef,
        /// What was done.
        traffic: Traffic,
    },
    /// From the owner: abort a command of an I/O queue.
    Abort {
        /// The I/O queue's connection.
        conn: ConnId,
        /// The command.
        cid: u16,
        /// The Abort command: admin queue and request slot.
        reply: (ConnId, u16),
    },
    /// To the owner: what became of an Abort.
    Aborted {
        /// As in the Abort.
        reply: (ConnId, u16),
        /// True when the command was aborted.
        aborted: bool,
    },
}

/// An I/O queue's Connect, as its owner must judge it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attach {
    /// The connection, on the asking core.
    pub conn: ConnId,
    /// CNTLID asked for.
    pub cntlid: u16,
    /// QID; not 0.
    pub qid: u16,
    /// SUBNQN.
    pub subnqn: String,
    /// HOSTNQN.
    pub hostnqn: String,
    /// HOSTID.
    pub hostid: [u8; 16],
}
