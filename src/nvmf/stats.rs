//! What a target tells about itself: counters, controllers, queue pairs. Plain values; the application adds up cores.

use crate::base::CoreId;
use crate::wire::nvme_tcp::Fes;
use core::net::SocketAddr;

/// Counters of one core's target, from its start, and what it holds now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Connections that became admin queues.
    pub admin_queues: u64,
    /// Connections that became I/O queues.
    pub io_queues: u64,
    /// Admin queues now.
    pub admin_queues_now: u64,
    /// I/O queues now.
    pub io_queues_now: u64,
    /// Connections without a completed Connect now.
    pub unassociated_now: u64,
    /// Controllers owned by this core now.
    pub controllers_now: u64,
    /// Requests in the volumes now, those of ended connections included.
    pub pending_now: u64,
    /// Commands completed.
    pub commands: u64,
    /// Commands completed with an error status.
    pub command_errors: u64,
    /// Reads completed.
    pub reads: u64,
    /// Bytes of reads.
    pub read_bytes: u64,
    /// Writes completed.
    pub writes: u64,
    /// Bytes of writes.
    pub write_bytes: u64,
    /// Sum of the time in the volumes of requests that did not end at once, ns.
    pub pending_ns: u64,
    /// Times a command had to wait for want of buffers or of room in the volumes.
    pub waits: u64,
    /// Connections refused at accept by a limit.
    pub refused: u64,
    /// Connects refused.
    pub connects_refused: u64,
    /// Connections ended because no Connect came in time.
    pub connect_timeouts: u64,
    /// Controllers ended by their keep alive timer.
    pub keep_alive_expired: u64,
    /// Connections ended by a fault of the host, by FES (index 1 to 6).
    pub faults: [u64; 7],
    /// Commands failed by their data digest.
    pub data_digest_errors: u64,
}

impl Stats {
    /// Counts a connection ended by a fault.
    pub(super) fn fault(&mut self, fes: Fes) {
        self.faults[usize::from(fes as u16)] += 1;
    }
}

/// A controller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ControllerReport {
    /// The core that owns it.
    pub core: CoreId,
    /// CNTLID.
    pub cntlid: u16,
    /// Its subsystem.
    pub subnqn: String,
    /// The host that made it.
    pub hostnqn: String,
    /// HOSTID.
    pub hostid: [u8; 16],
    /// A discovery controller.
    pub discovery: bool,
    /// I/O queues connected now, on all cores.
    pub io_queues: usize,
    /// Keep alive timeout, ms; 0: none.
    pub keep_alive_ms: u32,
}

/// A queue pair: one connection with a completed Connect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueueReport {
    /// The core that serves it.
    pub core: CoreId,
    /// CNTLID.
    pub cntlid: u16,
    /// QID; 0 is the admin queue.
    pub qid: u16,
    /// Its subsystem.
    pub subnqn: String,
    /// The host that made it.
    pub hostnqn: String,
    /// The listener's address.
    pub listener: SocketAddr,
    /// The host's address.
    pub peer: SocketAddr,
    /// Entries.
    pub depth: u16,
    /// Commands under way.
    pub outstanding: usize,
    /// Commands completed.
    pub commands: u64,
}
