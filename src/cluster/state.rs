//! The control plane's state as one immutable value. [`State::apply`](super::command) makes the next one of it; the
//! journal holds exactly its records; reactors get it by [`super::Node::publish`]. Maps hold `Arc`s, so that a new
//! state shares everything that did not change with the old one.

use super::iscsi::Iscsi;
use super::model::{Device, Intent, Referral, Reserved, Store, Subsystem, Transport};
use super::names::{BdevName, Nqn, StoreName};
use super::node::Protocol;
use crate::base::VolumeId;
use crate::volume::Reservations;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use uuid::Uuid;

/// Everything the control plane remembers.
#[derive(Clone, PartialEq, Debug)]
pub struct State {
    /// This node's identity, made with the state directory.
    pub(super) node: Uuid,
    /// The next [`VolumeId`] to hand out; 0 is never used.
    pub(super) next_id: u32,
    /// Grows with every change of exports (GENCTR of the discovery log).
    pub(super) generation: u64,
    pub(super) devices: BTreeMap<VolumeId, Arc<Device>>,
    pub(super) stores: BTreeMap<Uuid, Arc<Store>>,
    pub(super) transport: Option<Arc<Transport>>,
    pub(super) subsystems: BTreeMap<Nqn, Arc<Subsystem>>,
    pub(super) referrals: BTreeMap<SocketAddr, Arc<Referral>>,
    pub(super) intents: BTreeSet<Intent>,
    pub(super) iscsi: Iscsi,
    /// Reservations of volumes that have any. Of those without APTPL nothing is in the journal.
    pub(super) reservations: BTreeMap<VolumeId, Arc<Reserved>>,
}

impl State {
    /// The state of a new node: nothing but the discovery subsystem. Volume ids start at `first_id` (not 0).
    pub fn new(node: Uuid, first_id: VolumeId) -> State {
        assert_ne!(first_id.0, 0, "volume id 0 is reserved");
        let mut discovery = Subsystem::new(Nqn::discovery());
        discovery.allow_any_host = true;
        State {
            node,
            next_id: first_id.0,
            generation: 1,
            devices: BTreeMap::new(),
            stores: BTreeMap::new(),
            transport: None,
            subsystems: BTreeMap::from([(Nqn::discovery(), Arc::new(discovery))]),
            referrals: BTreeMap::new(),
            intents: BTreeSet::new(),
            iscsi: Iscsi::default(),
            reservations: BTreeMap::new(),
        }
    }

    /// This node's identity.
    pub fn node(&self) -> Uuid {
        self.node
    }
    /// The id the next device or volume gets.
    pub fn next_id(&self) -> VolumeId {
        VolumeId(self.next_id)
    }
    /// Counts changes of what is exported (GENCTR, NVMe Base 2.1 figure "Discovery Log Page").
    pub fn generation(&self) -> u64 {
        self.generation
    }
    /// Raw devices by id, which is the order they were made in: a wrapper comes after its base.
    pub fn devices(&self) -> impl DoubleEndedIterator<Item = &Arc<Device>> {
        self.devices.values()
    }
    /// A raw device.
    pub fn device(&self, id: VolumeId) -> Option<&Arc<Device>> {
        self.devices.get(&id)
    }
    /// A raw device by name.
    pub fn device_named(&self, name: &str) -> Option<&Arc<Device>> {
        self.devices.values().find(|d| d.name.as_str() == name)
    }
    /// Stores by UUID.
    pub fn stores(&self) -> impl Iterator<Item = &Arc<Store>> {
        self.stores.values()
    }
    /// A store.
    pub fn store(&self, uuid: Uuid) -> Option<&Arc<Store>> {
        self.stores.get(&uuid)
    }
    /// A store by name.
    pub fn store_named(&self, name: &str) -> Option<&Arc<Store>> {
        self.stores.values().find(|s| s.name.as_str() == name)
    }
    /// The store on a raw device.
    pub fn store_on(&self, device: VolumeId) -> Option<&Arc<Store>> {
        self.stores.values().find(|s| s.device == device)
    }
    /// The TCP transport, once it was created.
    pub fn transport(&self) -> Option<&Arc<Transport>> {
        self.transport.as_ref()
    }
    /// Subsystems, the discovery subsystem first, then by NQN.
    pub fn subsystems(&self) -> impl Iterator<Item = &Arc<Subsystem>> {
        let discovery = self.subsystems.values().filter(|s| s.nqn.is_discovery());
        discovery.chain(self.subsystems.values().filter(|s| !s.nqn.is_discovery()))
    }
    /// A subsystem.
    pub fn subsystem(&self, nqn: &str) -> Option<&Arc<Subsystem>> {
        self.subsystems.values().find(|s| s.nqn.as_str() == nqn)
    }
    /// Referrals by address.
    pub fn referrals(&self) -> impl Iterator<Item = &Arc<Referral>> {
        self.referrals.values()
    }
    /// Work that is decided and not yet done.
    pub fn intents(&self) -> impl Iterator<Item = &Intent> {
        self.intents.iter()
    }
    /// True while `intent` is not done.
    pub fn intends(&self, intent: Intent) -> bool {
        self.intents.contains(&intent)
    }
    /// iSCSI's objects.
    pub fn iscsi(&self) -> &Iscsi {
        &self.iscsi
    }
    /// Who may use the raw device or volume.
    pub fn reservations(&self, volume: VolumeId) -> Arc<Reservations> {
        self.reservations.get(&volume).map(|r| r.value.clone()).unwrap_or_default()
    }
    /// Every address some subsystem or portal group listens on, with what is spoken there: one protocol at each.
    pub fn addresses(&self) -> BTreeMap<SocketAddr, Protocol> {
        let nvme = self.subsystems.values().flat_map(|s| &s.listeners).map(|l| (l.addr, Protocol::Nvme));
        nvme.chain(self.iscsi.addresses().map(|addr| (addr, Protocol::Iscsi))).collect()
    }
    /// Subsystem and NSID of every namespace of `volume`.
    pub fn exports_of(&self, volume: VolumeId) -> Vec<(&Nqn, u32)> {
        let spaces = self.subsystems.values().flat_map(|s| s.namespaces.values().map(move |n| (&s.nqn, n)));
        spaces.filter(|(_, n)| n.volume == volume).map(|(nqn, n)| (nqn, n.nsid)).collect()
    }
    /// What exports `volume`, if anything does.
    pub fn exporter(&self, volume: VolumeId) -> Option<&'static str> {
        if !self.exports_of(volume).is_empty() {
            return Some("a namespace");
        }
        self.iscsi.units_of(volume).next().map(|_| "a LUN")
    }
    /// Who keeps the raw device from being used by another: a store, a wrapper, or nobody.
    pub fn claim(&self, device: VolumeId) -> Option<&'static str> {
        if self.store_on(device).is_some() {
            return Some("a store");
        }
        self.devices.values().any(|d| d.spec.base() == Some(device)).then_some("another bdev on top of it")
    }
    /// A device name that is not taken: `prefix` and a number.
    pub fn free_name(&self, prefix: &str) -> BdevName {
        let mut names = (0..=self.devices.len()).map(|n| format!("{prefix}{n}"));
        let name = names.find(|n| self.device_named(n).is_none());
        BdevName::new(&name.expect("one more name than there are objects")).expect("prefixes are legal names")
    }
    /// A store name that is not taken: `wanted`, or with a number behind it.
    pub fn free_store_name(&self, wanted: &StoreName) -> StoreName {
        if self.store_named(wanted.as_str()).is_none() {
            return wanted.clone();
        }
        let stem: String = wanted.as_str().chars().take(10).collect();
        let mut names = (1..=self.stores.len() + 1).map(|n| format!("{stem}-{n}"));
        let name = names.find(|n| self.store_named(n).is_none());
        StoreName::new(&name.expect("one more name than there are objects")).expect("the stem of a legal name is legal")
    }
}
