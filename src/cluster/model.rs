//! The objects of the control plane's state: raw devices, stores, the transport, subsystems with their namespaces,
//! listeners and hosts. Plain data; every one of them is what the journal holds and what reactors are told of.

use super::error::{Error, NameKind};
use super::names::{BdevName, Nqn, StoreName, VolumeName};
use crate::base::VolumeId;
use crate::volume::Reservations;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use uuid::Uuid;

/// How a file or block device is driven. Both names lead to the same `io_uring` engine; the operator sees the one asked
/// for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum FileEngine {
    /// Asked for as `bdev_aio_create`.
    Aio,
    /// Asked for as `bdev_uring_create`.
    Uring,
}

/// A file or block device to open.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileSpec {
    /// Under which name it was asked for.
    pub engine: FileEngine,
    /// Its path.
    pub path: String,
    /// 512 or 4096; `None`: the medium's own.
    pub block_size: Option<u32>,
    /// Refuse writes.
    pub read_only: bool,
}

/// Added latency, microseconds. The average applies to 99 of 100 operations, the p99 to the rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DelayTimes {
    /// Reads, most.
    pub read_avg_us: u64,
    /// Reads, one of a hundred.
    pub read_p99_us: u64,
    /// Writes, most.
    pub write_avg_us: u64,
    /// Writes, one of a hundred.
    pub write_p99_us: u64,
}

/// A namespace of an NVMe controller that the node itself drives.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NvmeSpec {
    /// The controller's PCI address: `0000:02:00.0`.
    pub address: String,
    /// Which namespace; `None`: the only one.
    pub nsid: Option<u32>,
    /// Drive it without an IOMMU, whatever it then may overwrite.
    pub unsafe_noiommu: bool,
}

/// What a raw device is made of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DeviceSpec {
    /// RAM; empty after a restart.
    Malloc {
        /// 512 or 4096.
        block_size: u32,
        /// Blocks.
        blocks: u64,
    },
    /// Reads as zeroes, forgets writes.
    Null {
        /// 512 or 4096.
        block_size: u32,
        /// Blocks.
        blocks: u64,
    },
    /// A file or block device.
    File(FileSpec),
    /// Another raw device behind added latency.
    Delay {
        /// The device below.
        #[serde(with = "volume_id")]
        base: VolumeId,
        /// The latency.
        times: DelayTimes,
    },
    /// Another raw device behind an error injector, which is off until told otherwise.
    Fault {
        /// The device below.
        #[serde(with = "volume_id")]
        base: VolumeId,
    },
    /// A namespace of an NVMe controller.
    Nvme(NvmeSpec),
}

impl DeviceSpec {
    /// The device below, for wrappers.
    pub fn base(&self) -> Option<VolumeId> {
        match self {
            DeviceSpec::Delay { base, .. } | DeviceSpec::Fault { base } => Some(*base),
            _ => None,
        }
    }
}

/// A raw device of the node (SPDK: bdev).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Device {
    /// Its number on the data path; never reused.
    #[serde(with = "volume_id")]
    pub id: VolumeId,
    /// Its name.
    pub name: BdevName,
    /// Its identity, the default of a namespace made of it.
    pub uuid: Uuid,
    /// What it is made of.
    pub spec: DeviceSpec,
}

/// A log store on a raw device (SPDK: lvstore).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Store {
    /// Its identity, also in its superblock.
    pub uuid: Uuid,
    /// Its name. The journal's word counts; the superblock keeps the name it was made with, for nodes that find the
    /// store on a foreign device.
    pub name: StoreName,
    /// The raw device it is on.
    #[serde(with = "volume_id")]
    pub device: VolumeId,
}

/// A volume, as its store's log knows it (SPDK: lvol). Not in the journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Volume {
    /// Its number on the data path; never reused, also not in other stores of this node.
    pub id: VolumeId,
    /// Its identity; also its bdev name.
    pub uuid: Uuid,
    /// Its name, unique in the store.
    pub name: VolumeName,
    /// Size, bytes: a multiple of 1 MiB when made by RPC, of `block_size` always.
    pub bytes: u64,
    /// Bytes per logical block: 512 or 4096.
    pub block_size: u32,
    /// Space is taken on first write; otherwise the whole size is kept free for it.
    pub thin: bool,
    /// Writes are refused.
    pub read_only: bool,
}

/// NVMe/TCP transport options (SPDK: `nvmf_create_transport`). Ranges are checked by [`Transport::check`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Transport {
    /// Most commands outstanding per I/O queue, 2..=1024 (CAP.MQES + 1).
    pub max_queue_depth: u32,
    /// I/O queues per controller, 1..=128.
    pub max_io_qpairs_per_ctrlr: u32,
    /// In-capsule data, bytes, 0..=65536, a multiple of 16 (IOCCSZ).
    pub in_capsule_data_size: u32,
    /// Largest host I/O, bytes, 4096..=1048576, a power of two (MDTS).
    pub max_io_size: u32,
    /// Admin queue entries, 32..=4096.
    pub max_aq_depth: u32,
    /// Let `C2HData` carry the status when the host allows it.
    pub c2h_success: bool,
    /// Parameters that SPDK knows and that change nothing here; reported as they were given.
    pub inert: BTreeMap<String, Inert>,
}

/// A parameter that is remembered and reported, and does nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Inert {
    /// True or false.
    Flag(bool),
    /// A number.
    Number(u64),
    /// A word.
    Text(String),
}

impl Default for Transport {
    fn default() -> Transport {
        Transport {
            max_queue_depth: 128,
            max_io_qpairs_per_ctrlr: 64,
            in_capsule_data_size: 16384,
            max_io_size: 1 << 20,
            max_aq_depth: 128,
            c2h_success: true,
            inert: BTreeMap::new(),
        }
    }
}

impl Transport {
    /// Every option in its range.
    pub fn check(&self) -> Result<(), Error> {
        range("max_queue_depth", self.max_queue_depth, 2, 1024)?;
        range("max_io_qpairs_per_ctrlr", self.max_io_qpairs_per_ctrlr, 1, 128)?;
        range("in_capsule_data_size", self.in_capsule_data_size, 0, 65536)?;
        range("max_io_size", self.max_io_size, 4096, 1 << 20)?;
        range("max_aq_depth", self.max_aq_depth, 32, 4096)?;
        if !self.max_io_size.is_power_of_two() {
            return Err(Error::Conflict { field: "max_io_size", why: "must be a power of two" });
        }
        if !self.in_capsule_data_size.is_multiple_of(16) {
            return Err(Error::Conflict { field: "in_capsule_data_size", why: "must be a multiple of 16" });
        }
        Ok(())
    }
}

/// Fails unless `min <= value <= max`.
pub(super) fn range(field: &'static str, value: impl Into<u64>, min: u64, max: u64) -> Result<(), Error> {
    let value = value.into();
    if (min..=max).contains(&value) { Ok(()) } else { Err(Error::Range { field, value, min, max }) }
}

/// An address a subsystem may be reached at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Listener {
    /// Where.
    pub addr: SocketAddr,
}

/// A namespace: one bdev under a number.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Namespace {
    /// Its number, 1..=`max_namespaces`.
    pub nsid: u32,
    /// The raw device or volume behind it.
    #[serde(with = "volume_id")]
    pub volume: VolumeId,
    /// The store of the volume; `None` for a raw device.
    pub store: Option<Uuid>,
    /// The bdev's name: a device's name, a volume's UUID.
    pub bdev: String,
    /// NGUID (Identify Namespace); all 0: none.
    pub nguid: [u8; 16],
    /// EUI-64; all 0: none.
    pub eui64: [u8; 8],
    /// UUID (Namespace Identification Descriptor).
    pub uuid: Uuid,
    /// ANA group, 1..=`max_namespaces`; the NSID unless set.
    pub anagrpid: u32,
    /// Which hosts see it. Journals of before there was a choice do not say: all.
    #[serde(default)]
    pub visible: Visibility,
}

/// Which hosts see a namespace, of those that may connect to its subsystem.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Visibility {
    /// All of them.
    #[default]
    All,
    /// Only these, none to begin with (SPDK: `no_auto_visible`). A host may be listed before it may connect.
    Only(BTreeSet<Nqn>),
}

/// A subsystem.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Subsystem {
    /// Its name.
    pub nqn: Nqn,
    /// Serial number: 0 to 20 printable ASCII characters.
    pub serial: String,
    /// Model number: 0 to 40 printable ASCII characters.
    pub model: String,
    /// Largest NSID, 1..=[`NAMESPACES_MAX`].
    pub max_namespaces: u32,
    /// Any host may connect, listed or not.
    pub allow_any_host: bool,
    /// ANA reporting was asked for.
    pub ana_reporting: bool,
    /// Smallest controller id handed out, 1..=0xFFEF.
    pub min_cntlid: u16,
    /// Largest.
    pub max_cntlid: u16,
    /// The namespaces by NSID.
    pub namespaces: BTreeMap<u32, Namespace>,
    /// Limits of Dataset Management and Write Zeroes that were asked for (SPDK: `dmrsl`, `wzsl`); reported, inert.
    pub inert: BTreeMap<String, Inert>,
    /// Where it may be reached.
    pub listeners: Vec<Listener>,
    /// Who may connect.
    pub hosts: BTreeSet<Nqn>,
}

/// Largest NSID a subsystem may be given.
pub const NAMESPACES_MAX: u32 = 1024;
/// Namespaces of a subsystem that does not say (as SPDK).
pub const NAMESPACES_DEFAULT: u32 = 32;
/// Largest controller id of the dynamic model (fabrics reserve 0xFFF0 and above).
pub const CNTLID_MAX: u16 = 0xFFEF;
/// Subsystems of a node.
pub const SUBSYSTEMS_MAX: usize = 1024;
/// Hosts on one subsystem's list, and on one namespace's.
pub const HOSTS_MAX: usize = 1024;
/// Listeners of one subsystem.
pub const LISTENERS_MAX: usize = 16;
/// Raw devices of a node.
pub const DEVICES_MAX: usize = 1024;

impl Subsystem {
    /// A subsystem without namespaces, listeners or hosts, closed to everybody.
    pub fn new(nqn: Nqn) -> Subsystem {
        Subsystem {
            nqn,
            serial: "00000000000000000000".to_owned(),
            model: "Pollux".to_owned(),
            max_namespaces: NAMESPACES_DEFAULT,
            allow_any_host: false,
            ana_reporting: false,
            min_cntlid: 1,
            max_cntlid: CNTLID_MAX,
            namespaces: BTreeMap::new(),
            inert: BTreeMap::new(),
            listeners: Vec::new(),
            hosts: BTreeSet::new(),
        }
    }

    /// Every field in its range.
    pub fn check(&self) -> Result<(), Error> {
        ascii(NameKind::Serial, &self.serial, 20)?;
        ascii(NameKind::Model, &self.model, 40)?;
        range("max_namespaces", self.max_namespaces, 1, u64::from(NAMESPACES_MAX))?;
        range("min_cntlid", self.min_cntlid, 1, u64::from(CNTLID_MAX))?;
        range("max_cntlid", self.max_cntlid, u64::from(self.min_cntlid), u64::from(CNTLID_MAX))
    }

    /// True when `host` may connect.
    pub fn admits(&self, host: &Nqn) -> bool {
        self.allow_any_host || self.hosts.contains(host)
    }
}

/// A raw device's or volume's reservations.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reserved {
    /// The store of the volume; `None` for a raw device.
    pub store: Option<Uuid>,
    /// What is reserved and registered.
    pub value: Arc<Reservations>,
}

/// Work that was decided and journaled, and whose last step is on a device. Done again at every start until it has
/// succeeded, so that a crash in the middle never brings back what was deleted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Intent {
    /// Whatever device carries this store is to carry none.
    WipeStore {
        /// The deleted store.
        store: Uuid,
    },
    /// The store is to forget the volume.
    DeleteVolume {
        /// The store.
        store: Uuid,
        /// The deleted volume.
        #[serde(with = "volume_id")]
        id: VolumeId,
    },
}

/// A referral of the discovery log to another discovery service (NVMe Base 2.1, section 3.1.3.3).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Referral {
    /// Where it is.
    pub addr: SocketAddr,
    /// Its NQN.
    pub nqn: Nqn,
}

fn ascii(kind: NameKind, text: &str, max: usize) -> Result<(), Error> {
    let why = if text.len() > max {
        "is too long"
    } else if text.bytes().any(|b| !(0x20..0x7f).contains(&b)) {
        "contains characters outside printable ASCII"
    } else {
        return Ok(());
    };
    Err(Error::Name { kind, name: text.chars().take(256).collect(), why })
}

/// [`VolumeId`] as a plain number in the journal.
pub(super) mod volume_id {
    use super::VolumeId;
    use serde::{Deserialize, Deserializer, Serializer};

    #[allow(clippy::trivially_copy_pass_by_ref)] // the signature is serde's
    pub fn serialize<S: Serializer>(id: &VolumeId, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u32(id.0)
    }
    pub fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<VolumeId, D::Error> {
        u32::deserialize(from).map(VolumeId)
    }
}
