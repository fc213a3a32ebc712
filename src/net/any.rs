//! The kernel TCP engine an operator chose, and the stack of our own beside it where there is one, behind one type: one
//! branch per call and turn, none per byte.

use super::{Close, ConnId, Handler, ListenerId, Loose, Net, NetError, NetStats, Tcp, TcpConfig, Tx, Uring};
#[cfg(feature = "dpdk")]
use super::{DpdkPort, Stack, beside::Beside};
use crate::base::Time;
use crate::mem::Pool;
use std::net::SocketAddr;

/// Which engine moves the bytes of kernel TCP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Engine {
    /// Nonblocking sockets and epoll ([`Tcp`]).
    #[default]
    Tcp,
    /// `io_uring` ([`Uring`]).
    Uring,
}

/// The name is not one of an engine.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("'{0}' is not an engine: tcp or uring")]
pub struct NotAnEngine(Box<str>);

impl std::str::FromStr for Engine {
    type Err = NotAnEngine;
    fn from_str(name: &str) -> Result<Engine, NotAnEngine> {
        match name {
            "tcp" => Ok(Engine::Tcp),
            "uring" => Ok(Engine::Uring),
            other => Err(NotAnEngine(other.into())),
        }
    }
}

impl std::fmt::Display for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Engine::Tcp => "tcp",
            Engine::Uring => "uring",
        })
    }
}

/// One core's streams.
pub enum AnyNet {
    /// By nonblocking sockets.
    Tcp(Tcp),
    /// By `io_uring`.
    Uring(Uring),
    /// By nonblocking sockets, and by a stack of our own on a DPDK port.
    #[cfg(feature = "dpdk")]
    TcpBeside(Box<Beside<Tcp, Stack<DpdkPort>>>),
    /// By `io_uring`, and by a stack of our own on a DPDK port.
    #[cfg(feature = "dpdk")]
    UringBeside(Box<Beside<Uring, Stack<DpdkPort>>>),
}

impl AnyNet {
    /// An engine without listeners or connections.
    ///
    /// # Errors
    /// [`NetError::Engine`] when the kernel does not give what the engine needs. Nothing is tried in its place: an
    /// operator who asked for an engine learns that it is not there.
    pub fn new(engine: Engine, config: TcpConfig) -> Result<AnyNet, NetError> {
        match engine {
            Engine::Tcp => Tcp::new(config).map(AnyNet::Tcp),
            Engine::Uring => Uring::new(config).map(AnyNet::Uring),
        }
    }

    /// An engine and, beside it, the stack that has the addresses `ours`. `stack` is `None` on a core for which the port has
    /// no queue.
    ///
    /// # Errors
    /// As [`AnyNet::new`].
    #[cfg(feature = "dpdk")]
    pub fn with_stack(
        engine: Engine,
        config: TcpConfig,
        stack: Option<Stack<DpdkPort>>,
        ours: Vec<std::net::IpAddr>,
    ) -> Result<AnyNet, NetError> {
        Ok(match AnyNet::new(engine, config)? {
            AnyNet::Tcp(net) => AnyNet::TcpBeside(Box::new(Beside::new(net, stack, ours))),
            AnyNet::Uring(net) => AnyNet::UringBeside(Box::new(Beside::new(net, stack, ours))),
            beside => beside,
        })
    }

    /// What went wrong at the card that this core polls, if it does: (what, how often since start).
    pub fn card_troubles(&self) -> Vec<(&'static str, u64)> {
        #[cfg(feature = "dpdk")]
        {
            let stack = match self {
                AnyNet::TcpBeside(net) => net.stack(),
                AnyNet::UringBeside(net) => net.stack(),
                AnyNet::Tcp(_) | AnyNet::Uring(_) => None,
            };
            if let Some(stack) = stack {
                let s = stack.port_stats();
                return vec![
                    ("frames received damaged", s.receive_errors),
                    ("frames that the card dropped because nobody took them", s.missed),
                    ("frames not received for want of buffers", s.receive_no_memory),
                ];
            }
        }
        Vec::new()
    }

    /// Which engine it is.
    pub fn engine(&self) -> Engine {
        match self {
            AnyNet::Tcp(_) => Engine::Tcp,
            AnyNet::Uring(_) => Engine::Uring,
            #[cfg(feature = "dpdk")]
            AnyNet::TcpBeside(_) => Engine::Tcp,
            #[cfg(feature = "dpdk")]
            AnyNet::UringBeside(_) => Engine::Uring,
        }
    }
}

/// Calls the same method of whichever engine there is.
macro_rules! either {
    ($self:expr, $net:ident => $call:expr) => {
        match $self {
            AnyNet::Tcp($net) => $call,
            AnyNet::Uring($net) => $call,
            #[cfg(feature = "dpdk")]
            AnyNet::TcpBeside($net) => $call,
            #[cfg(feature = "dpdk")]
            AnyNet::UringBeside($net) => $call,
        }
    };
}

impl Net for AnyNet {
    fn listen(&mut self, addr: SocketAddr, shared: bool) -> Result<(ListenerId, SocketAddr), NetError> {
        either!(self, net => net.listen(addr, shared))
    }
    fn unlisten(&mut self, listener: ListenerId) {
        either!(self, net => net.unlisten(listener));
    }
    fn connect(&mut self, addr: SocketAddr) -> Result<ConnId, NetError> {
        either!(self, net => net.connect(addr))
    }
    fn adopt(&mut self, loose: Loose) -> Result<ConnId, NetError> {
        either!(self, net => net.adopt(loose))
    }
    fn release(&mut self, conn: ConnId) {
        either!(self, net => net.release(conn));
    }
    fn poll<H: Handler>(&mut self, now: Time, pool: &mut Pool, handler: &mut H) -> usize {
        either!(self, net => net.poll(now, pool, handler))
    }
    fn tx(&mut self, conn: ConnId) -> Option<&mut Tx> {
        either!(self, net => net.tx(conn))
    }
    fn flush(&mut self, now: Time, pool: &mut Pool) -> usize {
        either!(self, net => net.flush(now, pool))
    }
    fn close(&mut self, conn: ConnId, how: Close) {
        either!(self, net => net.close(conn, how));
    }
    fn wait_fd(&self) -> Option<i32> {
        either!(self, net => net.wait_fd())
    }
    fn wake_at(&self) -> Option<Time> {
        either!(self, net => net.wake_at())
    }
    fn connections(&self) -> usize {
        either!(self, net => net.connections())
    }
    fn stats(&self) -> NetStats {
        either!(self, net => net.stats())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_have_names() {
        for engine in [Engine::Tcp, Engine::Uring] {
            assert_eq!(engine.to_string().parse(), Ok(engine));
            assert_eq!(AnyNet::new(engine, TcpConfig::default()).unwrap().engine(), engine);
        }
        assert_eq!("dpdk".parse::<Engine>(), Err(NotAnEngine("dpdk".into())));
    }
}
