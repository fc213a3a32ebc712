//! What a TCP/IP stack needs of a network card: one receive and one transmit queue of Ethernet frames that one core
//! owns. The stack above calls nothing else; a driver below (DPDK, or memory in tests) knows nothing of TCP.
//!
//! What stays true: no call blocks; a frame that was accepted for transmission is sent or dropped by the port, never
//! handed back; frames are whole Ethernet frames without preamble and without the checksum at the end.

use std::net::SocketAddr;

/// What a port is and what it does by itself. Fixed while the port is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortFacts {
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Bytes of the largest IP packet one frame carries, without the Ethernet header and a VLAN tag.
    pub mtu: usize,
    /// Frames of which the port has verified the checksum of the IPv4 header; bad ones never arrive.
    pub receive_checks_ip: bool,
    /// The same for the checksum of TCP.
    pub receive_checks_tcp: bool,
    /// The port computes the checksum of the IPv4 header of what is transmitted; the field then comes as 0.
    pub transmit_sums_ip: bool,
    /// The port computes the checksum of TCP of what is transmitted; the field then comes as 0, and a port that wants
    /// the sum of the pseudo header there writes it itself.
    pub transmit_sums_tcp: bool,
    /// Most bytes of TCP payload that the port cuts into segments itself; `None` when it cannot.
    pub tso_bytes_max: Option<u32>,
    /// Frames that one [`Port::receive`] brings at most; at least 1.
    pub burst: usize,
}

/// What a port has done since it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PortStats {
    /// Frames received.
    pub frames_in: u64,
    /// Bytes of them.
    pub bytes_in: u64,
    /// Frames given to the hardware.
    pub frames_out: u64,
    /// Bytes of them.
    pub bytes_out: u64,
    /// Frames that the hardware dropped because nobody took them in time.
    pub missed: u64,
    /// Frames received damaged.
    pub receive_errors: u64,
    /// Times there was no memory for a frame to be received.
    pub receive_no_memory: u64,
    /// Times no transmit buffer was free.
    pub transmit_full: u64,
}

/// One receive and one transmit queue of Ethernet frames, used by one core.
pub trait Port {
    /// A received frame; dropping it gives its memory back.
    type Frame: AsRef<[u8]>;
    /// What the port is and does by itself.
    fn facts(&self) -> &PortFacts;
    /// Appends a burst of received frames to `into` and returns how many; never blocks. The caller has reserved
    /// capacity for [`PortFacts::burst`] more.
    fn receive(&mut self, into: &mut Vec<Self::Frame>) -> usize;
    /// Queues a frame of `len` bytes that `fill` writes (all of them; what is there before is anything); false when no
    /// transmit buffer is free, and then `fill` is not called: the caller tries again next turn.
    fn transmit(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) -> bool;
    /// Hands the queued frames to the hardware and returns how many it took; the others stay queued.
    fn kick(&mut self) -> usize;
    /// Whether segments from `remote` to `local` arrive in this queue, for a port that spreads flows over several: an
    /// outgoing connection takes a local port whose answers come back to its own core.
    fn takes(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        let _ = (local, remote);
        true
    }
    /// A descriptor that becomes readable when a frame arrives; `None` for a port that must be polled.
    fn wait_fd(&self) -> Option<i32> {
        None
    }
    /// Counters since the port was opened.
    fn stats(&self) -> PortStats;
}
