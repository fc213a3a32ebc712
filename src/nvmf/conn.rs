//! One connection: what state it is in, what comes next on its stream, how to write to it, and its queue.

use super::message::{ControllerRef, Traffic};
use super::slots::{Slot, Slots, Tag};
use super::subs::NOWHERE;
use crate::base::Time;
use crate::base::crc::crc32c;
use crate::mem::Buf;
use crate::net::{ConnId, Ends, Tx};
use crate::wire::nvme::{Cqe, StatusCode};
use crate::wire::nvme_tcp::pdu::{CapsuleResp, Data, Head, LAST_PDU, R2t, SUCCESS};
use crate::wire::nvme_tcp::{Digests, Receiver, Side};
use core::net::SocketAddr;
use std::collections::VecDeque;
use zerocopy::{Immutable, IntoBytes};

/// What a connection is.
///
/// ```text
///   Fresh ──ICReq──> Ready ──Connect, qid 0──> Admin
///     │               │ ├─────Connect, this core owns the controller──> Io
///     │               │ └─────Connect──> Attaching ──answer──> Io
///     │               └<──────────────────────┘ refused
///     └──── any of them, on a fault or at the end ────> Closing
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// No ICReq yet.
    Fresh,
    /// Handshake done, no queue yet.
    Ready,
    /// An I/O queue that waits for the controller's owner.
    Attaching {
        /// The Connect command.
        cid: u16,
    },
    /// An admin queue; the controller is in this core's table.
    Admin(ControllerRef),
    /// An I/O queue.
    Io(ControllerRef),
    /// Being ended: everything received is dropped.
    Closing,
}

/// What the next bytes of the stream are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rx {
    /// A PDU header.
    Header,
    /// Data of a slot, landing in its buffer.
    Land {
        /// The slot.
        slot: u16,
        /// Where in the buffer this PDU's data began.
        from: u32,
        /// Where the next byte goes.
        at: u32,
        /// Where it ends.
        to: u32,
    },
    /// The digest of data that has landed.
    Digest {
        /// The slot.
        slot: u16,
        /// Where in the buffer the data begins.
        from: u32,
        /// Where it ends.
        to: u32,
    },
    /// Data nobody wants.
    Skip {
        /// Bytes of it, digest included.
        left: u32,
    },
}

/// The identity of a queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Identity {
    /// HOSTNQN.
    pub hostnqn: String,
    /// HOSTID.
    pub hostid: [u8; 16],
    /// CNTLID.
    pub cntlid: u16,
    /// QID.
    pub qid: u16,
}

/// What a queue has done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Work {
    /// Commands completed.
    pub commands: u64,
    /// Of them, with an error.
    pub errors: u64,
    /// Reads completed.
    pub reads: u64,
    /// Bytes of reads.
    pub read_bytes: u64,
    /// Writes completed.
    pub writes: u64,
    /// Bytes of writes.
    pub write_bytes: u64,
    /// Of them, with a media error.
    pub media_errors: u64,
    /// Time in the volumes of requests that did not end at once, ns.
    pub pending_ns: u64,
}

impl Work {
    /// What was done since `before`.
    pub fn since(&self, before: &Work) -> Traffic {
        Traffic {
            reads: self.reads - before.reads,
            read_bytes: self.read_bytes - before.read_bytes,
            writes: self.writes - before.writes,
            write_bytes: self.write_bytes - before.write_bytes,
            media_errors: self.media_errors - before.media_errors,
        }
    }

    /// Adds this work to a core's counters.
    pub fn add_to(&self, stats: &mut super::Stats) {
        stats.commands += self.commands;
        stats.command_errors += self.errors;
        stats.reads += self.reads;
        stats.read_bytes += self.read_bytes;
        stats.writes += self.writes;
        stats.write_bytes += self.write_bytes;
        stats.pending_ns += self.pending_ns;
    }
}

/// How to write to a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Out {
    /// Digests agreed on.
    pub digests: Digests,
    /// Alignment of data to the host, bytes (from HPDA).
    pub align: u32,
    /// Neither digests nor padding: headers go out as they are.
    pub plain: bool,
    /// Reads end with SUCCESS in C2HData.
    pub success: bool,
    /// The host uses SQ flow control, so SQHD means something.
    pub flow: bool,
    /// Value of SQHD for the next completion.
    pub sqhd: u16,
    /// Queue entries; SQHD runs below it.
    pub entries: u16,
}

impl Out {
    fn new() -> Out {
        Out {
            digests: Digests::default(),
            align: 4,
            plain: true,
            success: false,
            flow: true,
            sqhd: 0,
            entries: u16::MAX,
        }
    }

    #[inline]
    fn put<T: IntoBytes + Immutable>(&self, tx: &mut Tx, pdu: &T) {
        if self.plain {
            tx.head(pdu.as_bytes());
        } else {
            tx.head(Head::of(pdu).bytes());
        }
    }

    /// A submission queue entry was taken.
    #[inline]
    pub fn advance(&mut self) {
        self.sqhd += 1;
        if self.sqhd >= self.entries {
            self.sqhd = 0;
        }
    }

    /// Queues a CapsuleResp.
    #[inline]
    pub fn respond(&self, tx: &mut Tx, cid: u16, status: u16, result: u64) {
        let sqhd = if self.flow { self.sqhd } else { 0 };
        self.put(tx, &CapsuleResp::new(Cqe::new(cid, sqhd, status, result), self.digests));
    }

    /// Queues the whole data of a successful command, and its completion.
    #[inline]
    pub fn data(&self, tx: &mut Tx, cid: u16, buf: Buf) {
        let len = buf.len();
        let flags = if self.success { LAST_PDU | SUCCESS } else { LAST_PDU };
        self.put(tx, &Data::c2h(cid, 0, len as u32, flags, self.align, self.digests));
        let digest = self.digests.data.then(|| crc32c(&buf).to_le_bytes());
        tx.buf(buf, 0, len);
        if let Some(digest) = digest {
            tx.head(&digest);
        }
        if !self.success {
            self.respond(tx, cid, 0, 0);
        }
    }

    /// Queues an R2T for the first `len` bytes of a command's data.
    pub fn r2t(&self, tx: &mut Tx, cid: u16, ttag: u16, len: u32) {
        self.put(tx, &R2t::new(cid, ttag, 0, len, self.digests));
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Conn {
    pub id: ConnId,
    state: State,
    pub rx: Rx,
    /// What may be received.
    pub rules: Receiver,
    pub out: Out,
    /// Slot 0's tag.
    pub tag: u64,
    /// Index of the subsystem in this core's table ([`super::subs::Subs`]).
    pub sub: u32,
    /// Index of what its host sees of the subsystem in the same table: the namespaces that commands may name.
    pub view: u32,
    /// Largest transfer of one command, bytes.
    pub io_max: u32,
    /// The turn in which reading stopped for want of buffers or room; read again in the next.
    pub blocked: u64,
    pub slots: Slots,
    /// Slots in stages `Buffer` and `Queued`, oldest first; a place for every slot.
    pub queued: VecDeque<u16>,
    pub work: Work,
    /// `work` when the keep alive timer last looked.
    pub seen: Work,
    /// Fresh, Ready, Attaching: when the connection ends without a Connect.
    pub deadline: Time,
    /// Where it was accepted.
    pub listener: SocketAddr,
    /// Its two addresses.
    pub ends: Ends,
    /// Who uses the queue; from Connect on.
    pub identity: Option<Box<Identity>>,
}

impl Conn {
    /// A connection just accepted.
    pub fn new(id: ConnId, listener: SocketAddr, ends: Ends, deadline: Time) -> Conn {
        Conn {
            id,
            state: State::Fresh,
            rx: Rx::Header,
            rules: Receiver::new(Side::Controller),
            out: Out::new(),
            tag: Tag::base(id),
            sub: NOWHERE,
            view: NOWHERE,
            io_max: 0,
            blocked: u64::MAX,
            slots: Slots::new(0),
            queued: VecDeque::new(),
            work: Work::default(),
            seen: Work::default(),
            deadline,
            listener,
            ends,
            identity: None,
        }
    }

    /// The state.
    #[inline]
    pub fn state(&self) -> State {
        self.state
    }

    /// Moves along an edge of the diagram.
    pub fn enter(&mut self, next: State) {
        let legal = matches!(
            (self.state, next),
            (State::Fresh, State::Ready)
                | (State::Ready, State::Attaching { .. } | State::Admin(_) | State::Io(_))
                | (State::Attaching { .. }, State::Io(_) | State::Ready)
                | (
                    State::Fresh | State::Ready | State::Attaching { .. } | State::Admin(_) | State::Io(_),
                    State::Closing
                )
        );
        assert!(legal, "a connection can not go from {:?} to {next:?}", self.state);
        self.state = next;
    }

    /// True until a Connect has succeeded.
    pub fn unassociated(&self) -> bool {
        matches!(self.state, State::Fresh | State::Ready | State::Attaching { .. })
    }

    /// True for admin and I/O queues.
    pub fn associated(&self) -> bool {
        matches!(self.state, State::Admin(_) | State::Io(_))
    }

    /// Completes a command of an admin or unassociated queue, or a failed I/O command; no slot is involved.
    pub fn finish(&mut self, tx: &mut Tx, cid: u16, code: StatusCode, dnr: bool, result: u64) {
        self.finish_word(tx, cid, code.field(dnr && !code.is_ok()), result);
    }

    /// The same with a status word.
    pub fn finish_word(&mut self, tx: &mut Tx, cid: u16, status: u16, result: u64) {
        self.work.commands += 1;
        if status != 0 {
            self.work.errors += 1;
            self.work.media_errors += u64::from(StatusCode::from_field(status).sct() == 2);
        }
        self.out.respond(tx, cid, status, result);
    }

    /// Completes a command with data.
    pub fn finish_data(&mut self, tx: &mut Tx, cid: u16, buf: Buf) {
        self.work.commands += 1;
        self.out.data(tx, cid, buf);
    }

    /// The slot that receives data now.
    pub fn landing_slot(&mut self, slot: u16) -> &mut Slot {
        self.slots.get(slot).expect("a slot keeps its place until its data has come")
    }
}
