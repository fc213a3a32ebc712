//! The way from the control plane to the data path. `app` implements [`Node`] over its reactors; tests implement it in
//! memory. The [`super::Control`] is its only caller, one mutating call at a time, and never calls for an object that it
//! has not opened (or for one it has closed) through the same trait.
//!
//! All methods run on the control thread and may await answers from the reactors. None of them touches the journal:
//! whoever calls has committed, or will commit, what must survive.

use super::model::{DelayTimes, DeviceSpec, NvmeSpec, Volume};
use super::names::{Nqn, StoreName};
use super::state::State;
use crate::base::{CoreId, Status, VolumeId};
use crate::trace::Histogram;
use std::net::SocketAddr;
use std::sync::Arc;
use uuid::Uuid;

/// Why the data path could not do something. Environment faults only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NodeError {
    /// The operating system refused: opening a file, binding an address, a device error.
    #[error("{what}: {}", std::io::Error::from_raw_os_error(*errno))]
    Os {
        /// The step that failed ("open", "bind", ...).
        what: &'static str,
        /// errno.
        errno: i32,
    },
    /// A block request that the operation needed ended badly.
    #[error("{what}: {status:?}")]
    Block {
        /// The step that failed.
        what: &'static str,
        /// How the request ended.
        status: Status,
    },
    /// The medium carries no store, or another one than was asked for.
    #[error("no such store on the device")]
    NotAStore,
    /// The medium's store was written by a newer format than this build knows.
    #[error("store format {found} is newer than this build's {known}")]
    Newer {
        /// The format on the medium.
        found: u32,
        /// The newest this build opens.
        known: u32,
    },
    /// The medium's store is damaged beyond what its own redundancy mends; `pollux fsck` explains.
    #[error("the store is damaged: {0}")]
    Damaged(&'static str),
    /// The medium is too small, or a size does not fit the medium's units.
    #[error("size: {0}")]
    Size(&'static str),
    /// This build or this medium cannot do it.
    #[error("not supported: {0}")]
    Unsupported(&'static str),
    /// A named limit of the data path is reached.
    #[error("limit reached: {0}")]
    Limit(&'static str),
    /// The data path does not have the object (it failed earlier and is gone).
    #[error("not there")]
    Gone,
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

/// What is spoken at an address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Protocol {
    /// NVMe/TCP.
    Nvme,
    /// iSCSI.
    Iscsi,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Protocol::Nvme => "NVMe/TCP",
            Protocol::Iscsi => "iSCSI",
        })
    }
}

/// A raw device as opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceReport {
    /// Bytes per logical block: 512 or 4096.
    pub block_size: u32,
    /// Logical blocks.
    pub blocks: u64,
    /// An acknowledged write may be lost by a power cut until a flush.
    pub volatile_cache: bool,
    /// Write Zeroes is done by the medium (it is always served).
    pub write_zeroes: bool,
    /// Discard is done by the medium.
    pub discard: bool,
    /// Writes are refused.
    pub read_only: bool,
}

/// What a device's first blocks say of the store on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreSummary {
    /// The store's identity.
    pub uuid: Uuid,
    /// The name in its superblock.
    pub name: StoreName,
    /// Slices it was cut into.
    pub slices: u16,
}

/// A store's room, summed over its slices.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct StoreUsage {
    /// Blocks (4096 bytes) that volumes can hold together.
    pub total_blocks: u64,
    /// Blocks of those that are free, cleaning included.
    pub free_blocks: u64,
    /// Blocks mapped per volume, in any order; a volume without any may be left out.
    pub mapped: Vec<(VolumeId, u64)>,
    /// Further counters as name and value (segments, cleaned bytes, checksum errors, ...), for display.
    pub counters: Vec<(&'static str, u64)>,
}

/// Progress of a scrub.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ScrubReport {
    /// One is running.
    pub running: bool,
    /// Bytes verified since it started.
    pub done_bytes: u64,
    /// Bytes it will have verified at its end.
    pub total_bytes: u64,
    /// Blocks whose checksum did not match.
    pub errors: u64,
}

/// One direction's share of [`IoStat`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OpStat {
    /// Operations completed.
    pub ops: u64,
    /// Bytes moved (or unmapped).
    pub bytes: u64,
    /// Sum of latencies, nanoseconds.
    pub latency_ns: u64,
    /// Largest latency, nanoseconds.
    pub latency_max_ns: u64,
    /// Smallest latency, nanoseconds; 0 when `ops` is 0.
    pub latency_min_ns: u64,
}

/// What hosts did to one bdev.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IoStat {
    /// Read and Compare.
    pub read: OpStat,
    /// Write.
    pub write: OpStat,
    /// Deallocate and Write Zeroes.
    pub unmap: OpStat,
    /// Requests that ended in an error of the medium or of space.
    pub errors: u64,
    /// Requests under way.
    pub queue_depth: u64,
}

impl OpStat {
    /// This and another core's or interval's share together.
    #[must_use]
    pub fn and(self, other: OpStat) -> OpStat {
        let min = match (self.ops, other.ops) {
            (0, _) => other.latency_min_ns,
            (_, 0) => self.latency_min_ns,
            _ => self.latency_min_ns.min(other.latency_min_ns),
        };
        OpStat {
            ops: self.ops + other.ops,
            bytes: self.bytes + other.bytes,
            latency_ns: self.latency_ns + other.latency_ns,
            latency_max_ns: self.latency_max_ns.max(other.latency_max_ns),
            latency_min_ns: min,
        }
    }
}

impl IoStat {
    /// This and another core's share together.
    #[must_use]
    pub fn and(self, other: IoStat) -> IoStat {
        IoStat {
            read: self.read.and(other.read),
            write: self.write.and(other.write),
            unmap: self.unmap.and(other.unmap),
            errors: self.errors + other.errors,
            queue_depth: self.queue_depth + other.queue_depth,
        }
    }
}

/// One core's share of a bdev's [`IoStat`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CoreIoStat {
    /// The core.
    pub core: CoreId,
    /// The bdev.
    pub volume: VolumeId,
    /// Its counters since the last reset.
    pub stat: IoStat,
}

/// One reactor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReactorReport {
    /// Its number.
    pub core: CoreId,
    /// The CPU it is pinned to.
    pub cpu: u32,
    /// Its thread id.
    pub tid: i32,
    /// Nanoseconds in ticks that did work.
    pub busy_ns: u64,
    /// Nanoseconds in ticks that did none, and asleep.
    pub idle_ns: u64,
    /// Nanoseconds since it started.
    pub elapsed_ns: u64,
    /// It sleeps when idle (`--poll adaptive`), so a device or socket wakes it.
    pub adaptive: bool,
    /// Ticks, and those of them that did work.
    pub ticks: u64,
    /// Ticks that did work.
    pub busy_ticks: u64,
    /// Times it held a tick longer than the stall limit.
    pub stalls: u64,
}

/// One core's buffers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PoolReport {
    /// The core.
    pub core: CoreId,
    /// Which buffers ("io", ...).
    pub name: &'static str,
    /// Bytes per buffer.
    pub buffer_bytes: u64,
    /// Buffers in all.
    pub buffers: u64,
    /// Buffers free now.
    pub free: u64,
    /// Times one was wanted and there was none.
    pub waits: u64,
}

/// One core's share of the NVMe/TCP target.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PollGroupReport {
    /// Connections that became admin queues since start.
    pub admin_qpairs: u64,
    /// Connections that became I/O queues since start.
    pub io_qpairs: u64,
    /// Admin queues now.
    pub current_admin_qpairs: u64,
    /// I/O queues now.
    pub current_io_qpairs: u64,
    /// Connections without a Connect command yet.
    pub current_unassociated_qpairs: u64,
    /// Requests in the block layer now.
    pub pending_io: u64,
    /// NVMe commands completed since start.
    pub completed_io: u64,
}

/// A controller of a subsystem.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ControllerReport {
    /// CNTLID.
    pub cntlid: u16,
    /// The host that made it.
    pub host: String,
    /// Its host identifier.
    pub host_id: [u8; 16],
    /// True for a discovery controller.
    pub discovery: bool,
    /// Its I/O queues.
    pub io_qpairs: u32,
}

/// A queue pair of a controller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QpairReport {
    /// CNTLID.
    pub cntlid: u16,
    /// Queue id; 0: admin.
    pub qid: u16,
    /// The core that serves it.
    pub core: CoreId,
    /// The host that made it.
    pub host: String,
    /// Our end.
    pub local: SocketAddr,
    /// The host's end.
    pub peer: SocketAddr,
}

/// Where an iSCSI connection is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IscsiPhase {
    /// Security negotiation.
    Security,
    /// Operational negotiation.
    Operational,
    /// Full feature phase.
    Full,
    /// It logs out or is being ended.
    Ending,
}

/// An iSCSI connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IscsiConnectionReport {
    /// Names the connection on its core while it lives.
    pub id: u32,
    /// CID.
    pub cid: u16,
    /// TSIH; 0 before the session exists.
    pub tsih: u16,
    /// Where it is in its life.
    pub phase: IscsiPhase,
    /// The core that serves it.
    pub core: CoreId,
    /// The initiator's name; empty before it has said one.
    pub initiator: String,
    /// The target's name; empty for discovery.
    pub target: String,
    /// The host's end.
    pub peer: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
}

/// Which operations an injected error hits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultOn {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Discards.
    Discard,
    /// Write Zeroes.
    WriteZeroes,
    /// Flushes.
    Flush,
    /// All of them.
    All,
}

/// What an injected error does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// Nothing any more: clears what was set for the same operations; what is held goes on.
    Clear,
    /// The operation fails.
    Fail,
    /// The operation never completes until [`Node::release_pending`].
    Hang,
    /// One byte of the data is changed.
    Corrupt {
        /// Which byte of the transfer.
        offset: u64,
        /// What is exclusive-ored onto it; not 0.
        value: u8,
    },
}

/// An order to an error-injecting device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultOrder {
    /// Which operations.
    pub on: FaultOn,
    /// What happens to them.
    pub kind: FaultKind,
    /// How many of them; 1 at least.
    pub count: u64,
}

/// What an NVMe controller says of itself and of its health (SMART / Health Information log).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NvmeReport {
    /// Its model.
    pub model: String,
    /// Its serial number.
    pub serial: String,
    /// Its firmware's revision.
    pub firmware: String,
    /// It works; false once it was given up.
    pub enabled: bool,
    /// Critical warnings: bits as in the log.
    pub critical_warning: u8,
    /// Composite temperature, kelvin.
    pub temperature: u16,
    /// Available spare and its threshold, percent.
    pub spare: (u8, u8),
    /// Endurance used, percent.
    pub used: u8,
    /// Data units read and written: thousands of 512-byte units.
    pub units: (u64, u64),
    /// Read and write commands of hosts.
    pub commands: (u64, u64),
    /// Busy time, minutes.
    pub busy_minutes: u64,
    /// Power cycles, and hours with power.
    pub power: (u64, u64),
    /// Times it lost power without being told.
    pub unsafe_shutdowns: u64,
    /// Media and data integrity errors.
    pub media_errors: u64,
    /// Entries its error log ever had.
    pub error_entries: u64,
}

/// The data path, seen from the control plane. Errors leave things as they were unless a method says otherwise.
#[allow(async_fn_in_trait)] // one thread: the futures need not be Send, and nobody makes a `dyn Node`
pub trait Node {
    /// Opens a raw device under `id` on every core. A wrapper's base is open already; the wrapper takes the base's
    /// medium with it, and nothing else uses the base while the wrapper is open.
    async fn open_device(&self, id: VolumeId, uuid: Uuid, spec: &DeviceSpec) -> Result<DeviceReport, NodeError>;
    /// The active namespaces of the NVMe controller that `spec` names, without opening any.
    async fn nvme_namespaces(&self, spec: &NvmeSpec) -> Result<Vec<u32>, NodeError>;
    /// The controller behind an open NVMe device.
    async fn nvme_report(&self, id: VolumeId) -> Result<NvmeReport, NodeError>;
    /// Closes a raw device. Requests under way end with `Gone`. No store, wrapper or namespace uses it any more.
    async fn close_device(&self, id: VolumeId) -> Result<(), NodeError>;
    /// Looks at the medium's size again, after it has grown or after [`DeviceSpec`] changed it (`blocks` says the new
    /// size of a RAM or null device).
    async fn resize_device(&self, id: VolumeId, blocks: Option<u64>) -> Result<DeviceReport, NodeError>;
    /// Changes the latencies of a delay device.
    async fn set_delay(&self, id: VolumeId, times: DelayTimes) -> Result<(), NodeError>;
    /// Changes what an error-injecting device does.
    async fn set_fault(&self, id: VolumeId, order: FaultOrder) -> Result<(), NodeError>;
    /// Lets operations that [`FaultKind::Hang`] holds go on, and holds no further ones.
    async fn release_pending(&self, id: VolumeId) -> Result<(), NodeError>;

    /// Reads a device's first blocks: is there a store on it? `Ok(None)`: no. A store that can not be read is an error
    /// ([`NodeError::Newer`], [`NodeError::Damaged`]).
    async fn probe_store(&self, device: VolumeId) -> Result<Option<StoreSummary>, NodeError>;
    /// Writes an empty store over the device and opens it. A crash in the middle leaves no store.
    async fn format_store(&self, device: VolumeId, uuid: Uuid, name: &StoreName) -> Result<(), NodeError>;
    /// Opens (recovers) the store on the device and lists its volumes. On success they are served. Fails with
    /// [`NodeError::NotAStore`] when the device's store is not `uuid`.
    async fn open_store(&self, device: VolumeId, uuid: Uuid) -> Result<Vec<Volume>, NodeError>;
    /// Checkpoints and closes a store; its volumes are gone from the data path.
    async fn close_store(&self, uuid: Uuid) -> Result<(), NodeError>;
    /// Makes the device carry no store (overwrites the superblocks, durably), if it carries `uuid`; no error when it does
    /// not. The store is closed.
    async fn wipe_store(&self, device: VolumeId, uuid: Uuid) -> Result<(), NodeError>;
    /// Adds a volume; durable when it returns.
    async fn create_volume(&self, store: Uuid, volume: &Volume) -> Result<(), NodeError>;
    /// Changes name, size (a smaller one drops the blocks behind it) or write protection of the volume with
    /// `volume.id`; durable when it returns. Reactors and hosts are told of a new size.
    async fn update_volume(&self, store: Uuid, volume: &Volume) -> Result<(), NodeError>;
    /// Deletes a volume, durably; no error when the store does not have it.
    async fn delete_volume(&self, store: Uuid, id: VolumeId) -> Result<(), NodeError>;
    /// The store's room.
    async fn store_usage(&self, uuid: Uuid) -> Result<StoreUsage, NodeError>;
    /// Starts verifying every live block of the store in the background; no error when one is running.
    async fn scrub_start(&self, uuid: Uuid) -> Result<(), NodeError>;
    /// The running or the last scrub.
    async fn scrub_status(&self, uuid: Uuid) -> Result<ScrubReport, NodeError>;

    /// Makes the exports of `state` (transport, subsystems, namespaces, listeners, hosts, referrals) the ones that
    /// reactors serve. When it returns, no reactor uses the older ones: hosts without a right are disconnected, their
    /// commands and those to a namespace that was taken away have ended (so that none of their writes comes later),
    /// notices of change are on their way. Only commands that a device does not give back for 10 s are not waited for.
    async fn publish(&self, state: Arc<State>);
    /// Makes the reservations of `state` the ones that reactors check commands against. When it returns, no reactor uses
    /// older ones. May be called while another call is under way.
    async fn reserve(&self, state: Arc<State>);
    /// Listens on an address (on every core). Fails with [`NodeError::Os`] when it is in use.
    async fn listen(&self, addr: SocketAddr, protocol: Protocol) -> Result<(), NodeError>;
    /// Stops listening; connections made through the address are closed.
    async fn unlisten(&self, addr: SocketAddr);

    /// Counters per core and bdev, since start or the last reset.
    async fn iostat(&self) -> Vec<CoreIoStat>;
    /// Sets counters of one bdev, or all, to 0.
    async fn reset_iostat(&self, volume: Option<VolumeId>);
    /// Reactors, by core.
    async fn reactors(&self) -> Vec<ReactorReport>;
    /// Buffer pools, by core.
    async fn pools(&self) -> Vec<PoolReport>;
    /// The target's counters, by core.
    async fn poll_groups(&self) -> Vec<PollGroupReport>;
    /// Controllers of a subsystem.
    async fn controllers(&self, nqn: &Nqn) -> Vec<ControllerReport>;
    /// Queue pairs of a subsystem.
    async fn qpairs(&self, nqn: &Nqn) -> Vec<QpairReport>;
    /// iSCSI connections of all cores.
    async fn iscsi_connections(&self) -> Vec<IscsiConnectionReport>;
    /// Asks the initiators of a target node (by index), or only those that came through one portal group, to log out;
    /// those that do not are cut off after a while.
    async fn request_logout(&self, target: u32, portal_group: Option<u16>);
    /// Starts (from nothing) or stops counting the latencies of a target node's commands.
    async fn set_histogram(&self, target: u32, on: bool);
    /// Commands of a target node by latency, nanoseconds, over all cores; `None` where none are counted.
    async fn histogram(&self, target: u32) -> Option<Histogram>;
    /// Nanoseconds of the monotonic clock all latencies and times above are measured with.
    fn now_ns(&self) -> u64;
    /// Asks the node to stop cleanly: hosts are disconnected, stores checkpointed, then `pollux serve` returns.
    fn stop(&self);
}
