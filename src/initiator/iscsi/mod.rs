//! The client side of iSCSI (RFC 7143): any number of sessions with one target, one connection each, or a discovery
//! session that asks a portal for its targets.
//!
//! - `url`: `iscsi://[USER%SECRET@]HOST:PORT/IQN/LUN`
//! - `login`: from the first Login Request to full feature phase, CHAP included
//! - `session`: one session: framing, commands under way, data in both directions (the hot path)
//! - `cdb`: the commands sent; `scan`: those from a fresh session to a usable logical unit
//! - `client`: joins the sessions, answers for their time, ends and remakes them
//!
//! Error recovery is level 0: whatever is wrong with a connection ends it, and every command under way with it.

mod cdb;
mod client;
mod login;
mod scan;
mod session;
pub mod url;

#[cfg(test)]
mod tests;

pub use client::Initiator;
pub use login::LoginError;
pub use session::{Broken, Found};

use super::Failure;
use crate::auth::chap::{Algorithm, Credentials};
use crate::net::{Closed, NetError};
use crate::wire::iscsi::Digests;
use core::net::SocketAddr;
use std::fmt;

/// How to connect, and to what.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the portal listens.
    pub addr: SocketAddr,
    /// Name of the target; `None`: a discovery session, whose result is [`Initiator::found`].
    pub target: Option<String>,
    /// Logical unit.
    pub lun: u16,
    /// Name of this initiator.
    pub name: String,
    /// ISID of the first session; the others count its last two bytes (the qualifier) up. A target that has a session of
    /// the same name and ISID ends that one.
    pub isid: [u8; 6],
    /// What to prove itself with, when the target asks for CHAP.
    pub credentials: Option<Credentials>,
    /// CHAP algorithms to offer, best first.
    pub algorithms: Vec<Algorithm>,
    /// Random number for CHAP challenges.
    pub seed: u64,
    /// Sessions, 1..=64.
    pub sessions: u16,
    /// Commands under way per session, 1..=4096. A target whose command window is smaller gets less.
    pub depth: u16,
    /// Digests to ask for; in force are those the target takes.
    pub digests: Digests,
    /// `InitialR2T`: false offers to send the first burst of a write without being asked.
    pub initial_r2t: bool,
    /// `ImmediateData`: offers data in the command PDU.
    pub immediate_data: bool,
    /// `MaxRecvDataSegmentLength` of this side, bytes, 512..=[`crate::wire::iscsi::DATA_LIMIT`].
    pub max_data: u32,
    /// `MaxBurstLength` to offer, bytes.
    pub max_burst: u32,
    /// `FirstBurstLength` to offer, bytes; at most `max_burst`.
    pub first_burst: u32,
    /// `MaxOutstandingR2T` to offer.
    pub max_r2t: u16,
    /// A session without traffic is pinged after so long, and given up after so long again, milliseconds; 0: never.
    pub nop_ms: u64,
    /// Longest time from the first connection to a usable logical unit, milliseconds.
    pub setup_ms: u64,
    /// Longest time for a command, milliseconds. Beyond it the sessions are given up.
    pub command_ms: u64,
    /// After a loss, connect again for this long, milliseconds; 0: a loss is final.
    pub reconnect_ms: u64,
}

impl Config {
    /// Defaults for everything but the place and the names: LUN 0, one session, depth 32, no digests, first burst of
    /// 256 KiB without R2T, 256 KiB segments, 1 MiB bursts, ping after 5 s, 10 s to set up, 30 s per command, no reconnect.
    pub fn new(addr: SocketAddr, target: Option<&str>, name: &str, isid: [u8; 6]) -> Config {
        Config {
            addr,
            target: target.map(Into::into),
            lun: 0,
            name: name.into(),
            isid,
            credentials: None,
            algorithms: Algorithm::ALL.to_vec(),
            seed: 0,
            sessions: 1,
            depth: 32,
            digests: Digests::NONE,
            initial_r2t: false,
            immediate_data: true,
            max_data: 256 * 1024,
            max_burst: 1024 * 1024,
            first_burst: 256 * 1024,
            max_r2t: 16,
            nop_ms: 5_000,
            setup_ms: 10_000,
            command_ms: 30_000,
            reconnect_ms: 0,
        }
    }
}

/// What a client is doing; for error messages and progress.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the Display text says what each step is")]
pub enum Step {
    Connecting,
    Login,
    SendTargets,
    ReportLuns,
    TestUnitReady,
    Inquiry,
    Identification,
    BlockLimits,
    ReadCapacity,
    Running,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Connecting => "connecting",
            Step::Login => "login",
            Step::SendTargets => "asking for targets",
            Step::ReportLuns => "REPORT LUNS",
            Step::TestUnitReady => "TEST UNIT READY",
            Step::Inquiry => "INQUIRY",
            Step::Identification => "reading the unit's designators",
            Step::BlockLimits => "reading the unit's limits",
            Step::ReadCapacity => "READ CAPACITY",
            Step::Running => "running commands",
        })
    }
}

/// Why a session could not be made, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The net could not even try.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The connection ended.
    #[error("connection to {addr} ended while {step}{}", reason(*.why))]
    Closed {
        /// Which portal.
        addr: SocketAddr,
        /// During what.
        step: Step,
        /// How.
        why: Closed,
    },
    /// The login failed.
    #[error("login: {0}")]
    Login(#[from] LoginError),
    /// The target broke the protocol.
    #[error("the target broke the protocol while {step}: {what}")]
    Protocol {
        /// During what.
        step: Step,
        /// How.
        what: Broken,
    },
    /// The target rejected a PDU.
    #[error("the target rejected a PDU while {step}, reason {reason:#04x}")]
    Rejected {
        /// During what.
        step: Step,
        /// Reason code.
        reason: u8,
    },
    /// The target wants the session to end (asynchronous event).
    #[error("the target ended the session, asynchronous event {0}")]
    Leaving(u8),
    /// A command of the set-up failed.
    #[error("{step} failed: {failure:?}")]
    Refused {
        /// Which.
        step: Step,
        /// How.
        failure: Failure,
    },
    /// No answer in time.
    #[error("no answer from {addr} in time while {step}")]
    TimedOut {
        /// Which portal.
        addr: SocketAddr,
        /// During what.
        step: Step,
    },
    /// There is no such logical unit.
    #[error("no logical unit {wanted}; there are {there:?}")]
    NoLun {
        /// As configured.
        wanted: u16,
        /// As reported.
        there: Vec<u16>,
    },
    /// The logical unit is not a disk with blocks of 512 or 4096 bytes.
    #[error("the logical unit has {0}, which this client does not do")]
    Unsupported(&'static str),
    /// After a reconnect the logical unit is another one or has another shape.
    #[error("the logical unit changed while the connection was down")]
    Changed,
}

fn reason(why: Closed) -> String {
    match why {
        Closed::Error(number) => format!(": {}", std::io::Error::from_raw_os_error(number)),
        Closed::Peer => ": closed by the target".into(),
        Closed::Local => String::new(),
    }
}
