//! What a core's target counts, and how it reports its sessions and connections.

use crate::base::CoreId;
use core::net::SocketAddr;

/// Counters of one core's target from its start; those that end in `_now` are states.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Connections refused at accept.
    pub refused: u64,
    /// Logins that failed, redirections not counted.
    pub login_failures: u64,
    /// Of them, by wrong or missing authentication.
    pub authentication_failures: u64,
    /// Logins that were sent elsewhere.
    pub redirections: u64,
    /// Connections handed to the core of their session.
    pub moved: u64,
    /// Logins that ran out of time.
    pub login_timeouts: u64,
    /// Logins that succeeded.
    pub logins: u64,
    /// Sessions whose place a new login took.
    pub reinstatements: u64,
    /// Logouts.
    pub logouts: u64,
    /// Connections ended because a ping was not answered.
    pub dead_peers: u64,
    /// SCSI commands answered.
    pub commands: u64,
    /// Of them, with another status than GOOD.
    pub command_errors: u64,
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
    /// Commands ignored because their number was outside the window.
    pub out_of_window: u64,
    /// Data for no task, ignored.
    pub stray_data: u64,
    /// PDUs rejected.
    pub rejects: u64,
    /// Header digest errors.
    pub header_digest_errors: u64,
    /// Data digest errors.
    pub data_digest_errors: u64,
    /// Connections ended for a protocol error.
    pub protocol_errors: u64,
    /// Task management functions.
    pub functions: u64,
    /// Tasks that task management or the end of a connection ended.
    pub aborted_tasks: u64,
    /// Times reading or a task had to wait for buffers or room.
    pub waits: u64,
    /// Connections in login phase.
    pub in_login_now: u64,
    /// Connections in full feature phase.
    pub connections_now: u64,
    /// Sessions.
    pub sessions_now: u64,
    /// Requests in the volumes or with the control plane.
    pub pending_now: u64,
}

/// A session, for the control plane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionReport {
    /// Its core.
    pub core: CoreId,
    /// TSIH.
    pub tsih: u16,
    /// ISID.
    pub isid: [u8; 6],
    /// `InitiatorName`.
    pub initiator: String,
    /// `InitiatorAlias`.
    pub alias: String,
    /// Name of the target; `None` for discovery.
    pub target: Option<String>,
    /// `TargetPortalGroupTag`.
    pub portal_group: u16,
    /// CIDs of its connections.
    pub connections: Vec<u16>,
    /// Commands that it may have under way.
    pub window: u32,
    /// Largest first and solicited burst, bytes.
    pub bursts: (u32, u32),
    /// `ImmediateData` and `InitialR2T`.
    pub unsolicited: (bool, bool),
}

/// A connection in full feature phase, for the control plane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectionReport {
    /// Its core.
    pub core: CoreId,
    /// A number of its own on its core.
    pub id: u32,
    /// CID.
    pub cid: u16,
    /// TSIH of its session.
    pub tsih: u16,
    /// The initiator's address.
    pub peer: SocketAddr,
    /// The address the initiator found the portal at.
    pub portal: SocketAddr,
    /// `InitiatorName`.
    pub initiator: String,
    /// Name of the target; `None` for discovery.
    pub target: Option<String>,
    /// Header and data digest in force.
    pub digests: (bool, bool),
    /// Tasks under way.
    pub outstanding: usize,
    /// SCSI commands answered.
    pub commands: u64,
    /// Bytes to the initiator.
    pub read_bytes: u64,
    /// Bytes from the initiator.
    pub write_bytes: u64,
}
