//! One session of one connection: from its login to its end, the commands under way on it and their data in both
//! directions. What commands mean is not known here.
//!
//! ```text
//! Closed -> Connecting (TCP) -> Login -> Open -> Closed
//! ```
//! The hot path is [`Session::submit`] and [`Session::data`]: a flat table of slots indexed by Initiator Task Tag, headers
//! made in place, received PDUs parsed where they lie. A Read's bytes are copied once into its buffer, or skipped.

mod receive;
mod send;

use super::Config;
use super::login::{Login, LoginError, Params};
use crate::base::Time;
use crate::initiator::{Ended, Failure};
use crate::mem::Buf;
use crate::net::{ConnId, Tx};
use crate::wire::iscsi::pdu::Numbers;
use crate::wire::iscsi::{Fault, Lun, Receiver, sn_before};
use receive::Incoming;
pub(super) use receive::Sinks;
use std::fmt;

/// Most bytes of additional headers taken: targets send none.
const AHS_MAX: u32 = 0;

/// Where the session is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Link {
    /// No connection.
    Closed,
    /// TCP is connecting.
    Connecting,
    /// Login Requests are answered.
    Login,
    /// Full feature phase.
    Open,
}

/// How a target broke the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Broken {
    /// The stream can not be followed.
    Framing(Fault),
    /// An opcode that may not come (now).
    Opcode(u8),
    /// A PDU without data has some, or one that is too long for what it is.
    Length,
    /// A tag that names no command under way, or one of another direction.
    Tag(u32),
    /// Data, or an R2T, that does not follow what came before, or goes beyond the command.
    Offset(u32),
    /// A `StatSN`, `DataSN` or `R2TSN` that is not the next.
    Number(u32),
    /// A command ended well without all of its data.
    Short,
    /// The data digest of a PDU other than Data-In is wrong.
    Digest,
    /// Malformed text.
    Text,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Framing(fault) => write!(f, "{fault:?}"),
            Broken::Opcode(opcode) => write!(f, "opcode {opcode:#04x} may not come here"),
            Broken::Length => f.write_str("wrong data segment length"),
            Broken::Tag(tag) => write!(f, "task tag {tag:#x} names no such command"),
            Broken::Offset(offset) => write!(f, "data at offset {offset} is not what comes next"),
            Broken::Number(number) => write!(f, "sequence number {number} is not the next"),
            Broken::Short => f.write_str("a command ended without all of its data"),
            Broken::Digest => f.write_str("data digest error"),
            Broken::Text => f.write_str("malformed text"),
        }
    }
}

/// Why the session can not go on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Problem {
    /// The target broke the protocol.
    Broken(Broken),
    /// The target rejected a PDU for this reason.
    Rejected(u8),
    /// The target announced the end with this event.
    Leaving(u8),
    /// The login failed.
    Login(LoginError),
}

impl From<Broken> for Problem {
    fn from(broken: Broken) -> Problem {
        Problem::Broken(broken)
    }
}

impl From<LoginError> for Problem {
    fn from(error: LoginError) -> Problem {
        Problem::Login(error)
    }
}

/// A target that a discovery session found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Its addresses: `HOST:PORT,TAG`.
    pub addresses: Vec<String>,
}

/// A command under way.
#[derive(Clone, Copy, Debug)]
struct Slot {
    busy: bool,
    /// Data flows to us.
    reads: bool,
    digest_bad: bool,
    /// Less data than asked for is no error.
    short_ok: bool,
    /// Bytes of data in all.
    len: u32,
    /// Bytes received, or sent and asked for so far.
    moved: u32,
    /// The next `DataSN` or `R2TSN`.
    next_sn: u32,
    sent: Time,
}

const IDLE: Slot =
    Slot { busy: false, reads: false, digest_bad: false, short_ok: false, len: 0, moved: 0, next_sn: 0, sent: Time(0) };

/// One session's state.
#[derive(Debug)]
pub(super) struct Session {
    /// Number among the sessions of its client.
    pub index: u16,
    /// The net's name for the connection.
    pub conn: Option<ConnId>,
    pub link: Link,
    /// The scan of the unit has ended.
    pub usable: bool,
    lun: Lun,
    login: Option<Login>,
    params: Params,
    receiver: Receiver,
    slots: Vec<Slot>,
    bufs: Vec<Option<Buf>>,
    incoming: Option<Incoming>,
    under_way: u32,
    /// Of the next command.
    cmd_sn: u32,
    /// Of the next status.
    exp_stat_sn: u32,
    /// Of the last command that the target takes.
    max_cmd_sn: u32,
    /// When the connection last brought anything.
    pub heard: Time,
    /// A ping is under way.
    pub pinged: Option<Time>,
    /// What a discovery session found, and text of which the rest is still to come.
    pub found: Option<Vec<Found>>,
    text: Vec<u8>,
}

impl Session {
    /// A closed session.
    pub fn new(index: u16, config: &Config) -> Session {
        Session {
            index,
            conn: None,
            link: Link::Closed,
            usable: false,
            lun: Lun::of(config.lun),
            login: None,
            params: Params::DEFAULT,
            receiver: Receiver::login(),
            slots: vec![IDLE; usize::from(config.depth)],
            bufs: (0..config.depth).map(|_| None).collect(),
            incoming: None,
            under_way: 0,
            cmd_sn: 1,
            exp_stat_sn: 0,
            max_cmd_sn: 1,
            heard: Time(0),
            pinged: None,
            found: None,
            text: Vec::new(),
        }
    }

    /// TCP is connecting as `conn`.
    pub fn connecting(&mut self, conn: ConnId) {
        assert_eq!(self.link, Link::Closed, "a session has one connection");
        self.conn = Some(conn);
        self.link = Link::Connecting;
        self.usable = false;
        self.receiver = Receiver::login();
        (self.found, self.pinged) = (None, None);
        self.text.clear();
    }

    /// TCP is up: the first Login Request.
    ///
    /// # Errors
    /// The names do not fit a request.
    pub fn begin(&mut self, config: &Config, tx: &mut Tx) -> Result<(), Problem> {
        assert_eq!(self.link, Link::Connecting, "login follows the connection");
        self.link = Link::Login;
        let login = Login::new(config, self.index)?;
        Session::send_login(&login, tx);
        self.login = Some(login);
        Ok(())
    }

    /// Full feature phase begins as agreed.
    fn opened(&mut self, config: &Config) {
        let login = self.login.take().expect("it was under way");
        self.params = login.params();
        self.exp_stat_sn = login.exp_stat_sn();
        self.receiver = Receiver::agreed(self.params.digests, config.max_data, AHS_MAX);
        // CmdSN of the login was 1, and an immediate request does not take its number.
        self.cmd_sn = 1;
        self.link = Link::Open;
    }

    /// Commands under way.
    pub fn under_way(&self) -> u32 {
        self.under_way
    }

    /// True when one more command fits, and the target's window is open for it.
    #[inline]
    pub fn has_room(&self) -> bool {
        self.link == Link::Open && !sn_before(self.max_cmd_sn, self.cmd_sn)
    }

    /// Takes the sequence numbers of a PDU; `status`: it carries a status and takes a `StatSN`.
    #[inline]
    fn numbers(&mut self, numbers: &Numbers, status: bool) -> Result<(), Broken> {
        let max = numbers.max_cmd_sn.get();
        if sn_before(self.max_cmd_sn, max) {
            self.max_cmd_sn = max;
        }
        if status {
            let stat_sn = numbers.stat_sn.get();
            if stat_sn != self.exp_stat_sn {
                return Err(Broken::Number(stat_sn));
            }
            self.exp_stat_sn = stat_sn.wrapping_add(1);
        }
        Ok(())
    }

    /// The oldest command sent before `deadline`, if any.
    pub fn overdue(&self, deadline: Time) -> Option<u16> {
        let late = |(_, s): &(usize, &Slot)| s.busy && s.sent < deadline;
        self.slots.iter().enumerate().filter(late).min_by_key(|(_, s)| s.sent).map(|(itt, _)| itt as u16)
    }

    /// The connection is gone: every command under way ends as [`Failure::Lost`] (`overdue` as `TimedOut`); their
    /// buffers go to `orphans`.
    pub fn lost(&mut self, overdue: Option<u16>, out: &mut Vec<Ended>, orphans: &mut Vec<Buf>) {
        self.conn = None;
        self.link = Link::Closed;
        (self.incoming, self.login, self.usable) = (None, None, false);
        for (itt, slot) in self.slots.iter_mut().enumerate().filter(|(_, s)| s.busy) {
            let failure = if overdue == Some(itt as u16) { Failure::TimedOut } else { Failure::Lost };
            *slot = IDLE;
            out.push(Ended { queue: self.index, slot: itt as u16, result: Err(failure), value: 0, buf: None });
        }
        self.under_way = 0;
        orphans.extend(self.bufs.iter_mut().filter_map(Option::take));
    }
}
