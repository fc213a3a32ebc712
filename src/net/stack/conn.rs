//! One connection slot: its TCP socket with both buffers, made once and used for one connection after the other, and
//! where the present connection is in its life.

use super::super::{Closed, ConnId, ListenerId, Tx};
use super::config::{Congestion, StackConfig};
use super::flow::Flow;
use super::link::Sent;
use super::neighbour::Place;
use crate::base::Time;
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::time::Duration;

/// Header bytes and pieces a connection starts with; a protocol reserves more when it learns the queue depth.
const TX_HEAD_BYTES: usize = 4096;
const TX_PIECES: usize = 64;

/// Where a connection is in its life.
///
/// ```text
/// Free -> Greeting -> Open -> Closing -> Ended -> Lingering -> Free
///    \-> Connecting --/  \--------------/    \----------------/
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// No connection.
    Free,
    /// A peer's handshake is under way; nobody above knows of it. Bytes 0..: the listener.
    Greeting(ListenerId),
    /// The handshake of an outgoing connection is under way.
    Connecting,
    /// Bytes flow.
    Open,
    /// This side closes gracefully: what is queued is sent, what arrives is dropped. `finished` once the end of the
    /// stream was given to TCP.
    Closing {
        /// The end of our stream is queued.
        finished: bool,
    },
    /// Over, for this reason; waits to be reported.
    Ended(Closed),
    /// Reported; TCP still has an end of stream, a reset or an acknowledgement to send.
    Lingering,
}

/// One slot.
pub(super) struct Conn {
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    pub(super) phase: Phase,
    pub(super) generation: u32,
    pub(super) flow: Flow,
    /// The next hop's address, and where it is among the neighbours.
    pub(super) hop: u128,
    pub(super) place: Place,
    pub(super) sent: Sent,
    pub(super) tx: Tx,
    /// Bytes in the receive buffer when the handler last looked at them.
    pub(super) shown: usize,
    /// When the phase ends at the latest.
    pub(super) until: Option<Time>,
    /// In the list of connections with something for the handler.
    pub(super) touched: bool,
    /// In the list of connections to send on.
    pub(super) dirty: bool,
    /// In the list of paused connections.
    pub(super) parked: bool,
    /// In the list of connections whose next hop is not known.
    pub(super) waiting: bool,
    /// Position in the list of handshakes or of lingering connections.
    pub(super) listed: u32,
}

impl Conn {
    /// A free slot with the buffers that `config` says.
    pub(super) fn new(config: &StackConfig) -> Conn {
        let buffer = |bytes| SocketBuffer::new(vec![0; bytes]);
        let mut socket = Socket::new(buffer(config.receive_bytes), buffer(config.send_bytes));
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(Some(scaled(config, u64::from(config.ack_us) * 1000)));
        socket.set_timeout(Some(scaled(config, u64::from(config.silent_ms) * 1_000_000)));
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        Conn {
            sockets,
            handle,
            phase: Phase::Free,
            generation: 0,
            flow: Flow { local: 0, remote: 0, local_port: 0, remote_port: 0 },
            hop: 0,
            place: Place::default(),
            sent: Sent::default(),
            tx: Tx::new(TX_HEAD_BYTES, TX_PIECES),
            shown: 0,
            until: None,
            touched: false,
            dirty: false,
            parked: false,
            waiting: false,
            listed: 0,
        }
    }

    /// Begins a connection in a free slot. What smoltcp keeps from a socket's earlier use is made as new.
    pub(super) fn begin(&mut self, phase: Phase, flow: Flow, config: &StackConfig) {
        assert!(self.phase == Phase::Free && self.tx.is_empty(), "a slot has one connection at a time");
        self.phase = phase;
        self.flow = flow;
        self.sent = Sent { v6: flow.local().is_ipv6(), ..Sent::default() };
        self.shown = 0;
        self.until = None;
        let socket = self.socket();
        socket.abort();
        socket.set_congestion_control(match config.congestion {
            Congestion::Cubic => CongestionControl::Cubic,
            Congestion::Reno => CongestionControl::Reno,
            Congestion::Off => CongestionControl::None,
        });
        socket.set_keep_alive(Some(scaled(config, u64::from(config.keepalive_s) * 1_000_000_000)));
    }

    pub(super) fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    pub(super) fn state(&self) -> State {
        self.sockets.get::<Socket<'_>>(self.handle).state()
    }

    /// The socket, the queue to send, and the set that holds the socket, to be used side by side.
    pub(super) fn parts(&mut self) -> (&mut Socket<'static>, &mut Tx) {
        (self.sockets.get_mut(self.handle), &mut self.tx)
    }

    pub(super) fn sockets(&mut self) -> (&mut SocketSet<'static>, &mut Sent) {
        (&mut self.sockets, &mut self.sent)
    }

    /// The id of the present connection in `slot`.
    pub(super) fn id(&self, slot: u32) -> ConnId {
        ConnId { slot, generation: self.generation }
    }

    /// True when somebody above knows of the connection.
    pub(super) fn is_known(&self) -> bool {
        !matches!(self.phase, Phase::Free | Phase::Greeting(_) | Phase::Lingering)
    }
}

/// A span of real time, ns, on the clock that smoltcp is shown: it runs faster by 1000 / `again_ms`, because the least
/// retransmission time in it is a fixed second.
pub(super) fn scaled(config: &StackConfig, ns: u64) -> Duration {
    Duration::from_micros(ns / u64::from(config.again_ms))
}
