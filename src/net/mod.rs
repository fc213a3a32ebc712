//! Byte streams. Moves bytes, never reads them. One [`Net`] per core; engines: kernel TCP by nonblocking sockets,
//! kernel TCP by `io_uring`, loopback for tests (later DPDK + smoltcp). The targets above are generic over `Net` and do
//! not know which one they run on.
//!
//! Receiving is push: [`Net::poll`] hands each connection's bytes to a [`Handler`], which consumes whole PDUs in place
//! and leaves a partial one behind; the rest is presented again with more bytes after it. Sending is queued: a
//! connection's [`Tx`] collects headers and owned buffers during the turn and [`Net::flush`] sends them with one call
//! per connection. A buffer queued for sending returns to the pool when its last byte has left.

mod any;
#[cfg(any(test, feature = "dpdk"))]
mod beside;
mod dpdk;
mod fault;
mod feed;
mod loopback;
mod slots;
mod sock;
#[cfg(feature = "dpdk")]
pub mod stack;
mod tcp;
#[cfg(test)]
mod tests;
mod tx;
mod uring;
mod window;

pub use any::{AnyNet, Engine, NotAnEngine};
pub use dpdk::{ADDRESSES_MAX, Address, DpdkConfig, MTU_MAX, MTU_MIN, PortName, VLAN_MAX};
#[cfg(feature = "dpdk")]
pub use dpdk::{Dpdk, DpdkError, DpdkPort, Seed};
pub use fault::{FaultPlan, Faulty};
pub use loopback::{Loopback, LoopbackConfig, Network};
pub use sock::TcpConfig;
#[cfg(feature = "dpdk")]
pub use stack::{Port, PortFacts, PortStats, Prefix, Stack, StackConfig};
pub use tcp::Tcp;
pub use tx::{Piece, Tx};
pub use uring::Uring;

use crate::base::Time;
use crate::mem::Pool;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

/// A connection of this core's net. `generation` makes a reused slot a different connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ConnId {
    /// Index, dense from 0; at most [`crate::base::limits::CONNS_PER_CORE`].
    pub slot: u32,
    /// Counts the uses of the slot.
    pub generation: u32,
}

/// A listening address of this core's net.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ListenerId(pub u32);

/// The two addresses of a connection. Those of an IPv4 peer that came to an IPv6 listener are IPv4 addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ends {
    /// This side: where the peer found us, also when the listener's address stands for every address of the host.
    pub local: SocketAddr,
    /// The other side.
    pub peer: SocketAddr,
}

impl Ends {
    /// Where this peer reaches a listener of this host: `listener` itself, or where it is the unspecified address, the
    /// address that the peer came to, with the listener's port. `None` when that is of a family the listener does not
    /// serve.
    pub fn reach(&self, listener: SocketAddr) -> Option<SocketAddr> {
        match (listener.ip(), self.local.ip()) {
            (ip, _) if !ip.is_unspecified() => Some(listener),
            (IpAddr::V4(_), IpAddr::V6(_)) => None,
            // An IPv6 listener serves IPv4 as well. A scope is of this host only: it is not passed on.
            (_, local) => Some(SocketAddr::new(local, listener.port())),
        }
    }
}

/// A connection that has left its net, on its way to another's: see [`Net::release`]. Dropping it ends the connection.
#[derive(Debug)]
pub struct Loose {
    stream: Stream,
    /// What was received and not consumed: the receiving net presents it first.
    bytes: Vec<u8>,
}

#[derive(Debug)]
enum Stream {
    /// Of the operating system.
    Socket(OwnedFd),
    /// A side of a link of the test network.
    Link { link: usize, side: usize },
}

impl From<std::net::TcpStream> for Loose {
    fn from(stream: std::net::TcpStream) -> Loose {
        Loose { stream: Stream::Socket(stream.into()), bytes: Vec::new() }
    }
}

impl Loose {
    /// Its socket and its bytes, for an engine of the operating system's.
    fn socket(self) -> Result<(OwnedFd, Vec<u8>), NetError> {
        match self.stream {
            Stream::Socket(fd) => Ok((fd, self.bytes)),
            Stream::Link { .. } => {
                Err(NetError::Engine("adopt", std::io::Error::from(std::io::ErrorKind::Unsupported)))
            }
        }
    }
}

/// Why a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closed {
    /// The peer closed its side.
    Peer,
    /// Reset, time-out or another error of the operating system (the number).
    Error(i32),
    /// This side asked for it.
    Local,
}

/// How to end a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Close {
    /// Send what is queued, then close; give up after a second.
    AfterSend,
    /// Drop everything now.
    Now,
}

/// What the net could not do.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The address cannot be listened on or connected to.
    #[error("{what} {addr}: {source}")]
    Address {
        /// What was tried.
        what: &'static str,
        /// On which address.
        addr: SocketAddr,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A named limit is reached.
    #[error("limit reached: {0}")]
    Limit(&'static str),
    /// The engine could not be started.
    #[error("{0}: {1}")]
    Engine(&'static str, std::io::Error),
}

/// What a net tells the protocol above it. All calls come from inside [`Net::poll`].
pub trait Handler {
    /// A new connection on `listener`; false refuses it (it is closed at once, without a call of `closed`).
    fn accepted(&mut self, conn: ConnId, listener: ListenerId, ends: Ends, tx: &mut Tx) -> bool;
    /// An outgoing connection is up.
    fn connected(&mut self, conn: ConnId, tx: &mut Tx) {
        let _ = (conn, tx);
    }
    /// Where the next bytes of this stream should land instead of passing through [`Handler::data`]: the rest of a
    /// payload whose place is known. An engine may ignore it and use `data`.
    fn landing(&mut self, conn: ConnId) -> Option<&mut [u8]> {
        let _ = conn;
        None
    }
    /// `n` bytes arrived in the place `landing` named.
    fn landed(&mut self, conn: ConnId, n: usize, tx: &mut Tx, pool: &mut Pool) {
        let _ = (conn, n, tx, pool);
    }
    /// The stream's next bytes. Returns how many were consumed; the rest (at most [`CARRY_MAX`]) comes again with more
    /// behind it. To stop reading (no buffers, queue full) consume less and say so through [`Handler::paused`].
    fn data(&mut self, conn: ConnId, bytes: &[u8], tx: &mut Tx, pool: &mut Pool) -> usize;
    /// True while this connection must not be read; asked again every poll.
    fn paused(&mut self, conn: ConnId) -> bool {
        let _ = conn;
        false
    }
    /// The connection has left this net, as [`Net::release`] asked; its id will not be used again.
    fn released(&mut self, conn: ConnId, loose: Loose) {
        let _ = (conn, loose);
    }
    /// The connection is gone; its id will not be used again.
    fn closed(&mut self, conn: ConnId, why: Closed);
}

/// Most bytes a handler may leave unconsumed: a partial PDU. Larger payloads are consumed piece by piece.
pub const CARRY_MAX: usize = 16 * 1024;

/// One core's streams.
pub trait Net {
    /// Listens on `addr` (port 0: any free one), sharing the port with the other cores of this process when `shared`.
    fn listen(&mut self, addr: SocketAddr, shared: bool) -> Result<(ListenerId, SocketAddr), NetError>;
    /// Stops listening; connections made through it stay.
    fn unlisten(&mut self, listener: ListenerId);
    /// Starts an outgoing connection; `connected` or `closed` tells how it went.
    fn connect(&mut self, addr: SocketAddr) -> Result<ConnId, NetError>;
    /// Takes over an established connection (released by another core's net, or a test's socket pair). The caller tells
    /// its protocol itself: neither `accepted` nor `connected` is called. What had been received comes first.
    fn adopt(&mut self, loose: Loose) -> Result<ConnId, NetError>;
    /// Lets an open connection go, to be adopted by another core's net. Its handler keeps it paused and has nothing
    /// queued to send; a later poll hands it over by [`Handler::released`], or tells of its end if that comes first.
    fn release(&mut self, conn: ConnId);
    /// Accepts and receives whatever is ready; returns how many events there were.
    fn poll<H: Handler>(&mut self, now: Time, pool: &mut Pool, handler: &mut H) -> usize;
    /// The send queue of a connection; `None` once it is closed.
    fn tx(&mut self, conn: ConnId) -> Option<&mut Tx>;
    /// Sends what was queued this turn, one call per connection; returns bytes sent, or handed to the kernel to send.
    fn flush(&mut self, now: Time, pool: &mut Pool) -> usize;
    /// Ends a connection; `closed` follows from a later poll with [`Closed::Local`].
    fn close(&mut self, conn: ConnId, how: Close);
    /// Becomes readable when `poll` would find something; for idle sleep, and asked anew before each. `None`: there is
    /// something to find already, or the net must always be polled.
    fn wait_fd(&self) -> Option<i32>;
    /// The earliest time at which `poll` or `flush` has something to do without any outside event (a graceful close
    /// that runs out, bytes known but not yet read); `None` when there is no such time.
    fn wake_at(&self) -> Option<Time> {
        None
    }
    /// Connections open.
    fn connections(&self) -> usize;
    /// What this net has done since it was made.
    fn stats(&self) -> NetStats {
        NetStats::default()
    }
}

/// Counters of one core's net, from its start. Calls per request and bytes per call are the price list of kernel TCP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NetStats {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections refused: by the handler, or because a limit was reached.
    pub refused: u64,
    /// Times accepting stopped for a while because the process had no descriptors or memory left.
    pub accept_stalls: u64,
    /// Calls that asked which connections are ready (epoll), or entered the ring (`io_uring`).
    pub waits: u64,
    /// Receive calls or completions.
    pub receives: u64,
    /// Send calls or completions.
    pub sends: u64,
    /// Sends after which the kernel's buffer was full.
    pub blocked: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
}
