//! Socket set-up that the kernel TCP engines share: listeners, outgoing connections, and the options every stream gets.
//! Options are set on the listener, from which Linux copies them to every accepted socket, so that an accept costs one
//! system call.

use super::{Ends, NetError};
use rustix::net::sockopt;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// What an operator may choose about kernel TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpConfig {
    /// Connections at most; further ones are refused. 1..=[`crate::base::limits::CONNS_PER_CORE`].
    pub conns_max: usize,
    /// Connections the kernel may hold for us before they are accepted (`listen(2)` backlog).
    pub backlog: u16,
    /// Microseconds a receive may poll the network card's queue itself (`SO_BUSY_POLL`); 0 leaves it off. Ignored
    /// where the kernel or the rights of the process do not allow it.
    pub busy_poll_us: u32,
    /// Seconds of silence after which the peer is probed; the third unanswered probe, a third of this apart, ends the
    /// connection.
    pub keepalive_s: u16,
    /// Milliseconds sent bytes may stay unacknowledged before the connection ends (`TCP_USER_TIMEOUT`).
    pub unacked_ms: u32,
    /// Bytes of kernel buffer in each direction (`SO_SNDBUF`, `SO_RCVBUF`); `None` lets the kernel tune itself.
    pub kernel_buffer: Option<usize>,
}

impl Default for TcpConfig {
    fn default() -> TcpConfig {
        TcpConfig {
            conns_max: crate::base::limits::CONNS_PER_CORE,
            backlog: 1024,
            busy_poll_us: 0,
            keepalive_s: 15,
            unacked_ms: 30_000,
            kernel_buffer: None,
        }
    }
}

/// Options of every stream. Only the ones without which the engine would be wrong can fail.
pub(super) fn tune<Fd: AsFd>(fd: Fd, config: &TcpConfig) -> rustix::io::Result<()> {
    sockopt::set_tcp_nodelay(&fd, true)?;
    sockopt::set_socket_keepalive(&fd, true)?;
    let idle = u64::from(config.keepalive_s.max(1));
    sockopt::set_tcp_keepidle(&fd, Duration::from_secs(idle))?;
    sockopt::set_tcp_keepintvl(&fd, Duration::from_secs(idle.div_ceil(3)))?;
    sockopt::set_tcp_keepcnt(&fd, 3)?;
    sockopt::set_tcp_user_timeout(&fd, config.unacked_ms)?;
    if let Some(bytes) = config.kernel_buffer {
        sockopt::set_socket_send_buffer_size(&fd, bytes)?;
        sockopt::set_socket_recv_buffer_size(&fd, bytes)?;
    }
    if config.busy_poll_us > 0 {
        busy_poll(fd.as_fd(), config.busy_poll_us);
    }
    Ok(())
}

/// Lets receives poll the card. Failing (no such option, no right to it) leaves ordinary behaviour.
fn busy_poll(fd: std::os::fd::BorrowedFd<'_>, us: u32) {
    use std::os::fd::AsRawFd;
    let us = libc::c_int::try_from(us).unwrap_or(libc::c_int::MAX);
    // SAFETY: the option's value is a c_int that lives through the call, and its size is given.
    unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BUSY_POLL,
            (&raw const us).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        );
    }
}

/// A nonblocking listener on `addr` and the address it got.
pub(super) fn listen(addr: SocketAddr, shared: bool, config: &TcpConfig) -> Result<(OwnedFd, SocketAddr), NetError> {
    let open = || -> rustix::io::Result<(OwnedFd, SocketAddr)> {
        let fd = stream(addr)?;
        sockopt::set_socket_reuseaddr(&fd, true)?;
        if shared {
            sockopt::set_socket_reuseport(&fd, true)?;
        }
        tune(&fd, config)?;
        rustix::net::bind(&fd, &addr)?;
        rustix::net::listen(&fd, i32::from(config.backlog))?;
        let got = SocketAddr::try_from(rustix::net::getsockname(&fd)?)?;
        Ok((fd, got))
    };
    open().map_err(|e| NetError::Address { what: "listen on", addr, source: e.into() })
}

/// A nonblocking socket for `addr`, with options set and the connection not yet started.
pub(super) fn outgoing(addr: SocketAddr, config: &TcpConfig) -> Result<OwnedFd, NetError> {
    let open = || -> rustix::io::Result<OwnedFd> {
        let fd = stream(addr)?;
        tune(&fd, config)?;
        Ok(fd)
    };
    open().map_err(|e| NetError::Address { what: "connect to", addr, source: e.into() })
}

fn stream(addr: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)
}

/// Both addresses of an accepted socket, `peer` where it is known already; `None` once the peer is gone again.
pub(super) fn ends<Fd: AsFd>(fd: Fd, peer: Option<SocketAddr>) -> Option<Ends> {
    let of = |a: rustix::net::SocketAddrAny| SocketAddr::try_from(a).ok();
    let peer = peer.or_else(|| rustix::net::getpeername(&fd).ok().flatten().and_then(of))?;
    let local = rustix::net::getsockname(&fd).ok().and_then(of)?;
    let [local, peer] = [local, peer].map(|a| match a.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), a.port()),
        IpAddr::V6(_) => a,
    });
    Some(Ends { local, peer })
}

/// Makes the coming close of `fd` a reset: what is queued in the kernel is dropped, and the peer learns it at once.
pub(super) fn reset_on_close<Fd: AsFd>(fd: Fd) {
    // A socket that is already dead may refuse; the close that follows is then all there is to do.
    let _ = sockopt::set_socket_linger(fd, Some(Duration::ZERO));
}
