//! The client side of NVMe/TCP: an association of one admin connection and any number of I/O connections.
//!
//! - `url`: `nvme+tcp://HOST:PORT/NQN[?nsid=N]`
//! - `queue`: one connection: framing, commands under way, data in both directions (the hot path)
//! - `setup`: the steps from the first connection to a usable namespace
//! - `association`: joins the two, keeps the association alive, ends and remakes it
//!
//! What stays true: every command accepted is reported exactly once, also when its connection breaks; no buffer is
//! lost; a target that breaks the protocol harms only this association.

mod association;
mod queue;
mod setup;
pub mod url;

#[cfg(test)]
mod tests;

pub use association::Initiator;
pub use setup::{Namespace, Step};

use super::{Client, Command, Disk, Ended, Failure, Op, State};
use crate::net::{Closed, NetError};
use crate::wire::nvme::StatusCode;
use crate::wire::nvme_tcp::{Digests, Fault};
use core::net::SocketAddr;

/// How to connect, and to what.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the subsystem listens.
    pub addr: SocketAddr,
    /// NQN of the subsystem.
    pub subnqn: String,
    /// The namespace; `None`: the first active one.
    pub nsid: Option<u32>,
    /// NQN of this host.
    pub hostnqn: String,
    /// Identifier of this host (HOSTID), not all zero.
    pub hostid: [u8; 16],
    /// I/O connections, 1..=64.
    pub queues: u16,
    /// Commands under way per I/O connection, 1..=4096. A target that offers less gets less.
    pub depth: u16,
    /// Digests to ask for; in force are those the target offers too.
    pub digests: Digests,
    /// Keep-alive timeout, milliseconds; 0 switches keep alive off.
    pub kato_ms: u32,
    /// Longest time from the first connection to a usable namespace, milliseconds.
    pub setup_ms: u64,
    /// Longest time for a command, milliseconds. Beyond it the association is given up.
    pub command_ms: u64,
    /// After a loss, connect again for this long, milliseconds; 0: a loss is final.
    pub reconnect_ms: u64,
}

impl Config {
    /// Defaults for everything but the place and the names: one connection, depth 32, no digests, keep alive after
    /// 10 s, 10 s to set up, 30 s per command, no reconnect.
    pub fn new(addr: SocketAddr, subnqn: &str, hostnqn: &str, hostid: [u8; 16]) -> Config {
        Config {
            addr,
            subnqn: subnqn.into(),
            nsid: None,
            hostnqn: hostnqn.into(),
            hostid,
            queues: 1,
            depth: 32,
            digests: Digests::default(),
            kato_ms: 10_000,
            setup_ms: 10_000,
            command_ms: 30_000,
            reconnect_ms: 0,
        }
    }
}

/// Why an association could not be made, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The net could not even try.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The connection ended.
    #[error("connection to {addr} ended while {step}{}", reason(*.why))]
    Closed {
        /// Which target.
        addr: SocketAddr,
        /// During what.
        step: Step,
        /// How.
        why: Closed,
    },
    /// The target ended the connection for what it says is our fault.
    #[error("the target ended the connection while {step}: fatal error status {fes:02x}h, information {fei:#x}")]
    Terminated {
        /// During what.
        step: Step,
        /// FES.
        fes: u16,
        /// FEI.
        fei: u32,
    },
    /// The target broke the protocol.
    #[error("the target broke the protocol while {step}: {}", shown(*.fault))]
    Protocol {
        /// During what.
        step: Step,
        /// How, as the termination request sent to it says.
        fault: Fault,
    },
    /// A command of the set-up was refused.
    #[error("the target refused {step}: status {status:?}{}", status_meaning(*.status))]
    Refused {
        /// Which.
        step: Step,
        /// With what.
        status: StatusCode,
    },
    /// No answer in time.
    #[error("no answer from {addr} in time while {step}")]
    TimedOut {
        /// Which target.
        addr: SocketAddr,
        /// During what.
        step: Step,
    },
    /// The target wants what this client does not do.
    #[error("the target wants {0}, which this client does not do")]
    Unsupported(&'static str),
    /// The target grants fewer I/O connections than asked for.
    #[error("the target grants {granted} I/O connections, {wanted} were asked for")]
    Queues {
        /// As configured.
        wanted: u16,
        /// As granted.
        granted: u32,
    },
    /// There is no such namespace.
    #[error("no active namespace {}", .0.map_or("at all".to_owned(), |n| n.to_string()))]
    NoNamespace(Option<u32>),
    /// After a reconnect the namespace is another one or has another shape.
    #[error("the namespace changed while the connection was down")]
    Changed,
}

fn reason(why: Closed) -> String {
    match why {
        Closed::Error(number) => format!(": {}", std::io::Error::from_raw_os_error(number)),
        Closed::Peer => ": closed by the target".into(),
        Closed::Local => String::new(),
    }
}

fn shown(fault: Fault) -> String {
    format!("{:?}, information {:#x}", fault.fes, fault.fei)
}

fn status_meaning(status: StatusCode) -> &'static str {
    use crate::wire::nvme::sc;
    match status {
        s if s == sc::CONNECT_INVALID_HOST => " (this host NQN is not allowed)",
        s if s == sc::CONNECT_INVALID => " (no such subsystem, or a parameter it does not take)",
        s if s == sc::CONNECT_BUSY => " (controller busy)",
        s if s == sc::INVALID_NAMESPACE => " (no such namespace)",
        _ => "",
    }
}
