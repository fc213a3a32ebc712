//! What a configuration file declares to exist, made where it is missing. Idempotent: what exists is left as it is, also
//! where it differs; nothing is ever removed. What can not be made is reported and stops nothing else.

use super::exports::NamespaceSpec;
use super::iscsi::DeclaredIscsi;
use super::{Bdev, Control};
use crate::cluster::command::Command;
use crate::cluster::error::Error;
use crate::cluster::model::{DelayTimes, DeviceSpec, Subsystem, Transport};
use crate::cluster::names::{BdevName, Nqn, StoreName, VolumeName};
use crate::cluster::node::Node;
use std::net::SocketAddr;
use uuid::Uuid;

/// Everything a file declares, in the order it is made.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Declared {
    /// Raw devices; a wrapper after its base.
    pub bdevs: Vec<DeclaredBdev>,
    /// Stores.
    pub stores: Vec<DeclaredStore>,
    /// Volumes.
    pub volumes: Vec<DeclaredVolume>,
    /// The TCP transport. Also made, with its defaults, when a subsystem has a listener.
    pub transport: Option<Transport>,
    /// Subsystems.
    pub subsystems: Vec<DeclaredSubsystem>,
    /// iSCSI's objects.
    pub iscsi: DeclaredIscsi,
}

/// A raw device.
#[derive(Clone, PartialEq, Debug)]
pub struct DeclaredBdev {
    /// Its name.
    pub name: BdevName,
    /// Its UUID; random unless given.
    pub uuid: Option<Uuid>,
    /// What it is made of.
    pub made_of: MadeOf,
}

/// What a declared device is made of. A base is named here, as its number is not known yet.
#[derive(Clone, PartialEq, Debug)]
pub enum MadeOf {
    /// RAM, nothing, or a file.
    Medium(DeviceSpec),
    /// Another device behind added latency.
    Delay(String, DelayTimes),
    /// Another device behind an error injector.
    Fault(String),
}

/// A store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeclaredStore {
    /// Its name, when it is made.
    pub name: StoreName,
    /// The device it is on.
    pub bdev: String,
    /// Make it when the device carries none, whatever else is on the device. A store that is there and can not be opened
    /// is never written over.
    pub format: bool,
}

/// A volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeclaredVolume {
    /// Its store's name.
    pub store: String,
    /// Its name.
    pub name: VolumeName,
    /// Its size, bytes.
    pub bytes: u64,
    /// Whether space is taken on first write.
    pub thin: bool,
}

/// A subsystem and what it is to have.
#[derive(Clone, PartialEq, Debug)]
pub struct DeclaredSubsystem {
    /// The subsystem, without any of the following.
    pub subsystem: Subsystem,
    /// Hosts that may connect.
    pub hosts: Vec<Nqn>,
    /// Namespaces; one whose bdev is exported by the subsystem already is there.
    pub namespaces: Vec<NamespaceSpec>,
    /// Where it may be reached.
    pub listeners: Vec<SocketAddr>,
}

impl<N: Node> Control<N> {
    /// Makes what is missing. Returns what could not be made, and why.
    pub async fn declare(&self, declared: &Declared) -> Vec<(String, Error)> {
        let mut failed = Vec::new();
        let mut note = |what: String, result: Result<(), Error>| failed.extend(result.err().map(|e| (what, e)));
        for bdev in &declared.bdevs {
            note(format!("bdev '{}'", bdev.name), self.declare_bdev(bdev).await);
        }
        for store in &declared.stores {
            note(format!("store '{}'", store.name), self.declare_store(store).await);
        }
        for volume in &declared.volumes {
            note(format!("volume '{}/{}'", volume.store, volume.name), self.declare_volume(volume).await);
        }
        let listens = declared.subsystems.iter().any(|s| !s.listeners.is_empty());
        let transport = declared.transport.clone().or_else(|| listens.then(Transport::default));
        if let Some(transport) = transport
            && self.state().transport().is_none()
        {
            note("transport".to_owned(), self.change(Command::CreateTransport(transport)).await);
        }
        for subsystem in &declared.subsystems {
            self.declare_subsystem(subsystem, &mut note).await;
        }
        self.declare_iscsi(&declared.iscsi, &mut note).await;
        failed
    }

    async fn declare_bdev(&self, bdev: &DeclaredBdev) -> Result<(), Error> {
        if self.state().device_named(bdev.name.as_str()).is_some() {
            return Ok(());
        }
        let base = |name: &str| match self.bdev(name)? {
            Bdev::Device { device, .. } => Ok(device.id),
            Bdev::Volume { .. } => Err(Error::WrongKind { name: name.to_owned(), wanted: "a raw device" }),
        };
        let spec = match &bdev.made_of {
            MadeOf::Medium(spec) => spec.clone(),
            MadeOf::Delay(below, times) => DeviceSpec::Delay { base: base(below)?, times: *times },
            MadeOf::Fault(below) => DeviceSpec::Fault { base: base(below)? },
        };
        self.create_device(bdev.name.clone(), bdev.uuid, spec).await.map(drop)
    }

    async fn declare_store(&self, store: &DeclaredStore) -> Result<(), Error> {
        let device = self.device(&store.bdev)?;
        if self.state().store_on(device.id).is_some() {
            return Ok(());
        }
        if !store.format {
            return Err(Error::Conflict { field: "format", why: "is not true, and the bdev carries no store" });
        }
        match self.node().probe_store(device.id).await {
            Ok(None) => self.create_store(&store.bdev, store.name.clone()).await.map(drop),
            Ok(Some(_)) => {
                Err(Error::Conflict { field: "format", why: "is not for a bdev whose store could not be opened" })
            }
            Err(source) => Err(Error::Node { what: "examine bdev", object: store.bdev.clone(), source }),
        }
    }

    async fn declare_volume(&self, volume: &DeclaredVolume) -> Result<(), Error> {
        if self.bdev(&format!("{}/{}", volume.store, volume.name)).is_ok() {
            return Ok(());
        }
        self.create_volume(&volume.store, volume.name.clone(), volume.bytes, volume.thin).await.map(drop)
    }

    async fn declare_subsystem(&self, declared: &DeclaredSubsystem, note: &mut impl FnMut(String, Result<(), Error>)) {
        let nqn = &declared.subsystem.nqn;
        if self.state().subsystem(nqn.as_str()).is_none() {
            let made = self.change(Command::CreateSubsystem(declared.subsystem.clone())).await;
            note(format!("subsystem '{nqn}'"), made);
        }
        let Some(now) = self.state().subsystem(nqn.as_str()).cloned() else { return };
        for host in declared.hosts.iter().filter(|h| !now.hosts.contains(*h)) {
            let added = self.change(Command::AddHost(nqn.clone(), host.clone())).await;
            note(format!("host '{host}' of '{nqn}'"), added);
        }
        for spec in &declared.namespaces {
            let id = self.bdev(&spec.bdev).map(|b| b.id()).ok();
            if now.namespaces.values().any(|n| Some(n.volume) == id || n.bdev == spec.bdev) {
                continue;
            }
            note(format!("namespace '{}' of '{nqn}'", spec.bdev), self.add_namespace(nqn, spec).await.map(drop));
        }
        for addr in declared.listeners.iter().filter(|a| now.listeners.iter().all(|l| l.addr != **a)) {
            note(format!("listener {addr} of '{nqn}'"), self.add_listener(nqn, *addr).await);
        }
    }
}
