//! One connection: what state it is in, what comes next on its stream, how to write to it, and its tasks.

use super::login::Login;
use super::session::{Nexus, Session, SessionRef};
use super::tasks::{Tag, Task, Tasks};
use super::text::Exchange;
use crate::base::{CoreId, Time};
use crate::mem::Buf;
use crate::net::{ConnId, Ends, Tx};
use crate::wire::iscsi::pdu::{Head, Numbers, Tail};
use crate::wire::iscsi::{BHS_LEN, Digests, LOGIN_DATA_MAX, Receiver};
use core::net::SocketAddr;
use std::collections::VecDeque;
use zerocopy::{Immutable, IntoBytes};

/// What a connection is (the states of RFC 7143 8.1.3 that differ for a target).
///
/// ```text
///   Login ──first request names another core's session──> Moving: the connection goes to that core
///     │
///   Login ──last request──> Waiting ──older sessions are gone──> Full ──logout answered──> Leaving
///     │  └──────────────(nothing to wait for)────────────────────>┘                           │
///     └──── any of them, on a fault or at the end ────> Closing <─────────────────────────────┘
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Login phase.
    Login,
    /// Its first request names a session of another core: it goes there, with all it has received.
    Moving {
        /// The session's core.
        to: CoreId,
    },
    /// The last login request is there; older sessions of the same name come to their end first.
    Waiting,
    /// Full feature phase.
    Full,
    /// A logout waits for the tasks that it ends: nothing further is taken.
    Leaving,
    /// Being ended: everything received is dropped.
    Closing,
}

/// What the next bytes of the stream are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rx {
    /// A PDU header.
    Header,
    /// Data of a task, landing in its buffer: bytes `at..to`, of a PDU whose data began at `from`.
    Land {
        /// The task.
        task: u16,
        /// Where in the buffer this PDU's data began.
        from: u32,
        /// Where the next byte goes.
        at: u32,
        /// Where it ends.
        to: u32,
        /// The F bit.
        last: bool,
    },
    /// Padding and digest of data that has landed.
    Tail {
        /// The task.
        task: u16,
        /// Where in the buffer the data begins.
        from: u32,
        /// Where it ends.
        to: u32,
        /// The F bit.
        last: bool,
    },
    /// Data of a PDU that is collected as a whole ([`Parcel`]).
    Collect {
        /// Where the next byte goes.
        at: u32,
        /// Where it ends.
        to: u32,
    },
    /// Padding and digest of it.
    Sealed,
    /// A collected PDU waits for buffers or its turn.
    Parked,
    /// Data nobody wants.
    Skip {
        /// Bytes of it, padding and digest included.
        left: u32,
    },
}

/// A PDU too large to be parsed in place, with the data segment in a buffer.
#[derive(Debug)]
pub(super) struct Parcel {
    /// Its header.
    pub bhs: [u8; BHS_LEN],
    /// Its data.
    pub buf: Buf,
    /// Bytes of data; the buffer may be longer.
    pub len: u32,
}

/// What a connection has done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Done {
    /// SCSI commands answered.
    pub commands: u64,
    /// Of them, with another status than GOOD.
    pub errors: u64,
    /// Commands with data to the initiator.
    pub reads: u64,
    /// Bytes of them.
    pub read_bytes: u64,
    /// Commands with data from the initiator.
    pub writes: u64,
    /// Bytes of them.
    pub write_bytes: u64,
    /// Time in the volumes of requests that did not end at once, ns.
    pub pending_ns: u64,
}

/// How to write to a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Out {
    /// Digests in force.
    pub digests: Digests,
    /// `StatSN` of the next status.
    pub stat_sn: u32,
    /// Largest data segment the initiator takes, bytes.
    pub send_max: u32,
}

impl Out {
    /// The sequence numbers of a PDU that carries a status.
    #[inline]
    pub fn status(&mut self, s: &Session) -> Numbers {
        let sn = self.stat_sn;
        self.stat_sn = sn.wrapping_add(1);
        Numbers::new(sn, s.exp_cmd_sn, s.max_cmd_sn)
    }

    /// The sequence numbers of a PDU that carries none.
    #[inline]
    pub fn numbers(&self, s: &Session) -> Numbers {
        Numbers::new(self.stat_sn, s.exp_cmd_sn, s.max_cmd_sn)
    }

    /// Queues a header.
    #[inline]
    pub fn put<T: IntoBytes + Immutable>(&self, tx: &mut Tx, pdu: &T) {
        if self.digests.header {
            tx.head(Head::of(pdu, self.digests).bytes());
        } else {
            tx.head(pdu.as_bytes());
        }
    }

    /// Queues a header and a short data segment.
    pub fn put_data<T: IntoBytes + Immutable>(&self, tx: &mut Tx, pdu: &T, data: &[u8]) {
        self.put(tx, pdu);
        tx.head(data);
        tx.head(Tail::of(data, self.digests).bytes());
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
    /// Task 0's tag.
    pub tag: u64,
    /// Its session, from the end of the login on.
    pub session: Option<SessionRef>,
    /// The name of its session; kept beyond the session's end.
    pub name: Option<Nexus>,
    /// CID.
    pub cid: u16,
    /// Index of its target node between cores; `None` before the login has named it, and for discovery.
    pub target: Option<u32>,
    /// The turn in which reading stopped for want of buffers or room; read again in the next.
    pub blocked: u64,
    pub tasks: Tasks,
    /// Tasks in stages `Buffer` and `Ready`, oldest first; a place for every task.
    pub queued: VecDeque<u16>,
    /// Requests of its tasks in the volumes or with the control plane.
    pub pending: usize,
    /// Header of the Data-Out whose data is landing, kept to reject it by when data digests are in force.
    pub data_header: [u8; BHS_LEN],
    /// A PDU being collected.
    pub parcel: Option<Box<Parcel>>,
    /// The login, until its end.
    pub login: Option<Box<Login>>,
    /// Text requests and responses that go over several PDUs.
    pub exchange: Option<Box<Exchange>>,
    /// Task management functions not yet answered.
    pub functions: u16,
    pub done: Done,
    /// When something was last received.
    pub heard: Time,
    /// The ping that has not been answered: its tag and when it was sent.
    pub ping: Option<(u32, Time)>,
    /// When the connection ends by itself: before the end of the login, and once it was asked to log out.
    pub deadline: Option<Time>,
    /// Where it was accepted.
    pub listener: SocketAddr,
    /// Its two addresses.
    pub ends: Ends,
}

impl Conn {
    /// A connection just accepted.
    pub fn new(id: ConnId, listener: SocketAddr, ends: Ends, now: Time, deadline: Time) -> Conn {
        Conn {
            id,
            state: State::Login,
            rx: Rx::Header,
            rules: Receiver::login(),
            out: Out { digests: Digests::NONE, stat_sn: 1, send_max: LOGIN_DATA_MAX },
            tag: Tag::base(id),
            session: None,
            name: None,
            cid: 0,
            target: None,
            blocked: u64::MAX,
            tasks: Tasks::new(0),
            queued: VecDeque::new(),
            pending: 0,
            data_header: [0; BHS_LEN],
            parcel: None,
            login: Some(Box::default()),
            exchange: None,
            functions: 0,
            done: Done::default(),
            heard: now,
            ping: None,
            deadline: Some(deadline),
            listener,
            ends,
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
            (State::Login, State::Moving { .. } | State::Waiting | State::Full)
                | (State::Waiting, State::Full)
                | (State::Full, State::Leaving)
                | (State::Login | State::Moving { .. } | State::Waiting | State::Full | State::Leaving, State::Closing)
        );
        assert!(legal, "a connection can not go from {:?} to {next:?}", self.state);
        self.state = next;
    }

    /// True until the login has succeeded.
    pub fn in_login(&self) -> bool {
        matches!(self.state, State::Login | State::Moving { .. } | State::Waiting)
    }

    /// A task that is known to be there.
    #[inline]
    pub fn task(&mut self, index: u16) -> &mut Task {
        self.tasks.at(index)
    }
}
