//! Why the control plane refused something. Names and numbers only; `rpc` makes sentences and codes of them.

use super::journal::JournalError;
use super::node::{NodeError, Protocol};
use std::fmt;
use std::net::SocketAddr;
use uuid::Uuid;

/// Which kind of object a name was meant for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NameKind {
    /// A raw device.
    Bdev,
    /// A log store (SPDK: lvstore).
    Store,
    /// A volume of a store (SPDK: lvol).
    Volume,
    /// A subsystem or host.
    Nqn,
    /// An iSCSI target.
    Iscsi,
    /// An entry of an initiator group.
    Initiator,
    /// A network of an initiator group.
    Netmask,
    /// A subsystem's serial number.
    Serial,
    /// A subsystem's model number.
    Model,
}

impl fmt::Display for NameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NameKind::Bdev => "bdev name",
            NameKind::Store => "store name",
            NameKind::Volume => "volume name",
            NameKind::Nqn => "NQN",
            NameKind::Iscsi => "iSCSI name",
            NameKind::Initiator => "initiator",
            NameKind::Netmask => "netmask",
            NameKind::Serial => "serial number",
            NameKind::Model => "model number",
        })
    }
}

/// Why a command was refused. Nothing of a refused command has taken effect.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// A name is not legal.
    #[error("{kind} '{name}' {why}")]
    Name {
        /// Of what.
        kind: NameKind,
        /// The name (cut at 256 characters).
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A number is outside its range.
    #[error("{field} {value} is not in {min}..={max}")]
    Range {
        /// The parameter.
        field: &'static str,
        /// What was asked for.
        value: u64,
        /// Smallest legal value.
        min: u64,
        /// Largest legal value.
        max: u64,
    },
    /// Two parameters do not go together, or one is needed.
    #[error("{field} {why}")]
    Conflict {
        /// The parameter.
        field: &'static str,
        /// The rule that was broken.
        why: &'static str,
    },
    /// No raw device or volume of that name, alias or UUID.
    #[error("bdev '{0}'")]
    NoBdev(String),
    /// There is such a bdev, but not of the kind the command works on.
    #[error("bdev '{name}' is not {wanted}")]
    WrongKind {
        /// The bdev.
        name: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// A bdev of that name, alias or UUID exists.
    #[error("bdev '{0}'")]
    BdevExists(String),
    /// Something else uses the bdev.
    #[error("bdev '{name}' is used by {user}")]
    BdevInUse {
        /// The bdev.
        name: String,
        /// Who uses it.
        user: &'static str,
    },
    /// No store of that name or UUID.
    #[error("store '{0}'")]
    NoStore(String),
    /// A store of that name or UUID exists.
    #[error("store '{0}'")]
    StoreExists(String),
    /// The store's device is missing or its log could not be opened.
    #[error("store '{0}' is not open")]
    StoreDown(String),
    /// A volume of that name exists in the store.
    #[error("volume '{0}'")]
    VolumeExists(String),
    /// A store that was found on a device carries a volume id that this node uses for something else.
    #[error("store {store} carries volume id {id}, which this node already uses")]
    IdCollision {
        /// The store.
        store: Uuid,
        /// The id.
        id: u32,
    },
    /// The store cannot hold that much.
    #[error("store '{store}' has {free} bytes free, {asked} are needed")]
    NoSpace {
        /// The store.
        store: String,
        /// Bytes left.
        free: u64,
        /// Bytes needed.
        asked: u64,
    },
    /// No transport was created.
    #[error("no TCP transport")]
    NoTransport,
    /// The transport exists already.
    #[error("TCP transport exists")]
    TransportExists,
    /// No subsystem of that NQN.
    #[error("subsystem '{0}'")]
    NoSubsystem(String),
    /// A subsystem of that NQN exists.
    #[error("subsystem '{0}'")]
    SubsystemExists(String),
    /// The discovery subsystem can not be changed this way.
    #[error("the discovery subsystem can not {0}")]
    Discovery(&'static str),
    /// A limit on the number of objects is reached.
    #[error("{what}: at most {max}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        max: u64,
    },
    /// No namespace of that NSID in the subsystem.
    #[error("namespace {nsid} of '{nqn}'")]
    NoNamespace {
        /// The subsystem.
        nqn: String,
        /// The namespace.
        nsid: u32,
    },
    /// The NSID is taken.
    #[error("namespace {nsid} of '{nqn}'")]
    NamespaceExists {
        /// The subsystem.
        nqn: String,
        /// The namespace.
        nsid: u32,
    },
    /// The subsystem has no such listener.
    #[error("listener {addr} of '{nqn}'")]
    NoListener {
        /// The subsystem.
        nqn: String,
        /// The address.
        addr: SocketAddr,
    },
    /// The subsystem has that listener.
    #[error("listener {addr} of '{nqn}'")]
    ListenerExists {
        /// The subsystem.
        nqn: String,
        /// The address.
        addr: SocketAddr,
    },
    /// The host is not on the list.
    #[error("host '{host}' of '{nqn}'")]
    NoHost {
        /// The subsystem.
        nqn: String,
        /// The host.
        host: String,
    },
    /// The host is on the list.
    #[error("host '{host}' of '{nqn}'")]
    HostExists {
        /// The subsystem.
        nqn: String,
        /// The host.
        host: String,
    },
    /// No iSCSI object of that name or tag.
    #[error("{what} '{name}'")]
    Missing {
        /// What it should have been.
        what: &'static str,
        /// Its name or tag.
        name: String,
    },
    /// An iSCSI object of that name or tag exists.
    #[error("{what} '{name}'")]
    Exists {
        /// What it is.
        what: &'static str,
        /// Its name or tag.
        name: String,
    },
    /// The other protocol uses the address.
    #[error("address {addr} is used by {by}")]
    AddressTaken {
        /// The address.
        addr: SocketAddr,
        /// The protocol's listener there.
        by: Protocol,
    },
    /// No referral to that address.
    #[error("referral to {0}")]
    NoReferral(SocketAddr),
    /// There is a referral to that address.
    #[error("referral to {0}")]
    ReferralExists(SocketAddr),
    /// The data path could not do it.
    #[error("{what} '{object}': {source}")]
    Node {
        /// What was tried.
        what: &'static str,
        /// On which object.
        object: String,
        /// Why it failed.
        source: NodeError,
    },
    /// The state directory could not take the change; it has not been made.
    #[error("state directory: {0}")]
    Journal(#[from] JournalError),
}
