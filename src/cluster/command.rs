//! Commands and their meaning: `apply(state, command) -> next state + effects`. Pure: no I/O, no clock, no randomness.
//! What needs the data path first (opening a device, binding an address) was done before the command is applied;
//! what follows from it (closing, unbinding, deleting) comes back as effects, to be run after the next state is durable.

use super::error::Error;
use super::iscsi::{self, Lun};
use super::model::{
    DEVICES_MAX, Device, DeviceSpec, HOSTS_MAX, Intent, LISTENERS_MAX, Listener, Namespace, Referral, Reserved,
    SUBSYSTEMS_MAX, Store, Subsystem, Transport, Visibility, range,
};
use super::names::{Nqn, StoreName};
use super::node::Protocol;
use super::state::State;
use crate::base::VolumeId;
use crate::volume::Reservations;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use uuid::Uuid;

/// A change of the state.
#[derive(Clone, PartialEq, Debug)]
pub enum Command {
    /// A raw device that has been opened under [`State::next_id`].
    AddDevice(Device),
    /// A raw device goes, with what is built on it: wrappers, the store (whose data stays on the medium), namespaces.
    RemoveDevice(VolumeId),
    /// Latencies or size of a device changed.
    SetSpec(VolumeId, DeviceSpec),
    /// A store that has been formatted or found; `floor` is the smallest id above those of its volumes.
    AddStore {
        /// The store.
        store: Store,
        /// [`State::next_id`] becomes at least this.
        floor: VolumeId,
    },
    /// A store gets another name.
    RenameStore(Uuid, StoreName),
    /// A store goes with its volumes and their namespaces, and its device is wiped.
    RemoveStore(Uuid),
    /// [`State::next_id`] is about to be used for a new volume.
    TakeId,
    /// A volume goes with its namespaces.
    RemoveVolume {
        /// Its store.
        store: Uuid,
        /// The volume.
        id: VolumeId,
    },
    /// An intent has been carried out.
    Finish(Intent),
    /// The TCP transport.
    CreateTransport(Transport),
    /// A subsystem without namespaces, listeners or hosts.
    CreateSubsystem(Subsystem),
    /// A subsystem goes with all it has.
    DeleteSubsystem(Nqn),
    /// A namespace; `nsid` 0: the first free one.
    AddNamespace(Nqn, Namespace),
    /// A namespace goes.
    RemoveNamespace(Nqn, u32),
    /// A host sees a namespace that not all hosts see; no change when it does already.
    ShowNamespace(Nqn, u32, Nqn),
    /// A host no longer sees such a namespace; no change when it does not.
    HideNamespace(Nqn, u32, Nqn),
    /// A listener, whose address is bound.
    AddListener(Nqn, Listener),
    /// A listener goes.
    RemoveListener(Nqn, SocketAddr),
    /// A host may connect.
    AddHost(Nqn, Nqn),
    /// A host may no longer connect (unless any may).
    RemoveHost(Nqn, Nqn),
    /// Whether hosts that are not listed may connect.
    AllowAnyHost(Nqn, bool),
    /// The discovery log refers to another discovery service.
    AddReferral(Referral),
    /// It no longer does.
    RemoveReferral(SocketAddr),
    /// An iSCSI object changes.
    Iscsi(iscsi::Change),
    /// A volume's reservations become these, which [`Reservations::apply`] made of those it has.
    SetReservations(VolumeId, Reserved),
}

/// What is to be done on the data path once the next state is durable, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Reactors get the new exports, reservations included.
    Publish,
    /// Reactors get the new reservations.
    Reserve,
    /// Nobody listens on the address any more.
    Unlisten(SocketAddr),
    /// The store is closed (if it is open).
    CloseStore(Uuid),
    /// The intent is carried out, then finished.
    Carry(Intent),
    /// The device is closed (if it is open).
    CloseDevice(VolumeId),
}

impl State {
    /// The state after `command`, and what follows from it. `self` is untouched; an error changes nothing.
    pub fn apply(&self, command: &Command) -> Result<(State, Vec<Effect>), Error> {
        let mut next = self.clone();
        let mut effects = Vec::new();
        next.change(command, &mut effects)?;
        let (nvme, iscsi) = (next.exports_differ(self), !next.iscsi.same_objects(&self.iscsi));
        next.generation += u64::from(nvme);
        next.iscsi.generation += u64::from(iscsi);
        let mut first = Vec::new();
        if nvme || iscsi {
            first.push(Effect::Publish);
        } else if next.reservations != self.reservations {
            first.push(Effect::Reserve);
        }
        let kept = next.addresses();
        first.extend(self.addresses().into_keys().filter(|addr| !kept.contains_key(addr)).map(Effect::Unlisten));
        effects.splice(0..0, first);
        Ok((next, effects))
    }

    fn change(&mut self, command: &Command, effects: &mut Vec<Effect>) -> Result<(), Error> {
        match command {
            Command::AddDevice(device) => self.add_device(device),
            Command::RemoveDevice(id) => self.remove_device(*id, effects),
            Command::SetSpec(id, spec) => self.set_spec(*id, spec),
            Command::AddStore { store, floor } => self.add_store(store, *floor),
            Command::RenameStore(uuid, name) => self.rename_store(*uuid, name),
            Command::RemoveStore(uuid) => self.remove_store(*uuid, effects),
            Command::TakeId => self.take_id(),
            Command::RemoveVolume { store, id } => self.remove_volume(*store, *id, effects),
            Command::Finish(intent) => {
                self.intents.remove(intent);
                Ok(())
            }
            Command::CreateTransport(transport) => self.create_transport(transport),
            Command::CreateSubsystem(subsystem) => self.create_subsystem(subsystem),
            Command::DeleteSubsystem(nqn) => self.delete_subsystem(nqn),
            Command::AddNamespace(nqn, namespace) => self.add_namespace(nqn, namespace),
            Command::RemoveNamespace(nqn, nsid) => self.remove_namespace(nqn, *nsid),
            Command::ShowNamespace(nqn, nsid, host) => self.show_namespace(nqn, *nsid, host),
            Command::HideNamespace(nqn, nsid, host) => {
                self.viewers_mut(nqn, *nsid)?.remove(host);
                Ok(())
            }
            Command::AddListener(nqn, listener) => self.add_listener(nqn, listener),
            Command::RemoveListener(nqn, addr) => self.remove_listener(nqn, *addr),
            Command::AddHost(nqn, host) => self.add_host(nqn, host),
            Command::RemoveHost(nqn, host) => self.remove_host(nqn, host),
            Command::AllowAnyHost(nqn, allow) => self.allow_any_host(nqn, *allow),
            Command::AddReferral(referral) => self.add_referral(referral),
            Command::RemoveReferral(addr) => match self.referrals.remove(addr) {
                Some(_) => Ok(()),
                None => Err(Error::NoReferral(*addr)),
            },
            Command::Iscsi(change) => self.change_iscsi(change),
            Command::SetReservations(volume, reserved) => {
                if *reserved.value == *Reservations::none() {
                    self.reservations.remove(volume);
                } else {
                    self.reservations.insert(*volume, Arc::new(reserved.clone()));
                }
                Ok(())
            }
        }
    }

    /// True when reactors must hear of the difference: transport, subsystems or referrals.
    fn exports_differ(&self, old: &State) -> bool {
        self.transport != old.transport || self.subsystems != old.subsystems || self.referrals != old.referrals
    }

    fn take_id(&mut self) -> Result<(), Error> {
        let max = u64::from(u32::MAX);
        self.next_id = self.next_id.checked_add(1).ok_or(Error::Limit { what: "volume ids", max })?;
        Ok(())
    }

    fn add_device(&mut self, device: &Device) -> Result<(), Error> {
        assert_eq!(device.id.0, self.next_id, "a device is opened under the next id");
        if self.devices.len() >= DEVICES_MAX {
            return Err(Error::Limit { what: "bdevs", max: DEVICES_MAX as u64 });
        }
        let taken = |d: &Arc<Device>| d.name == device.name || d.uuid == device.uuid;
        if let Some(other) = self.devices.values().find(|d| taken(d)) {
            let same_name = other.name == device.name;
            return Err(Error::BdevExists(if same_name { device.name.to_string() } else { device.uuid.to_string() }));
        }
        if let Some(base) = device.spec.base() {
            let below = self.devices.get(&base).ok_or_else(|| Error::NoBdev(format!("#{}", base.0)))?;
            if let Some(user) = self.claim(base) {
                return Err(Error::BdevInUse { name: below.name.to_string(), user });
            }
            if let Some(user) = self.exporter(base) {
                return Err(Error::BdevInUse { name: below.name.to_string(), user });
            }
        }
        self.take_id()?;
        self.devices.insert(device.id, Arc::new(device.clone()));
        Ok(())
    }

    fn remove_device(&mut self, id: VolumeId, effects: &mut Vec<Effect>) -> Result<(), Error> {
        let missing = || Error::NoBdev(format!("#{}", id.0));
        self.devices.get(&id).ok_or_else(missing)?;
        let above: Vec<VolumeId> = self.devices.values().filter(|d| d.spec.base() == Some(id)).map(|d| d.id).collect();
        for wrapper in above {
            self.remove_device(wrapper, effects)?;
        }
        if let Some(store) = self.store_on(id).map(|s| s.uuid) {
            self.stores.remove(&store);
            self.drop_store_exports(store);
            effects.push(Effect::CloseStore(store));
        }
        self.drop_volume_exports(id);
        self.devices.remove(&id);
        effects.push(Effect::CloseDevice(id));
        Ok(())
    }

    fn set_spec(&mut self, id: VolumeId, spec: &DeviceSpec) -> Result<(), Error> {
        let device = self.devices.get_mut(&id).ok_or_else(|| Error::NoBdev(format!("#{}", id.0)))?;
        Arc::make_mut(device).spec = spec.clone();
        Ok(())
    }

    fn add_store(&mut self, store: &Store, floor: VolumeId) -> Result<(), Error> {
        let device = self.devices.get(&store.device).ok_or_else(|| Error::NoBdev(format!("#{}", store.device.0)))?;
        if let Some(user) = self.claim(store.device) {
            return Err(Error::BdevInUse { name: device.name.to_string(), user });
        }
        if let Some(user) = self.exporter(store.device) {
            return Err(Error::BdevInUse { name: device.name.to_string(), user });
        }
        if self.stores.contains_key(&store.uuid) {
            return Err(Error::StoreExists(store.uuid.to_string()));
        }
        if self.store_named(store.name.as_str()).is_some() {
            return Err(Error::StoreExists(store.name.to_string()));
        }
        self.next_id = self.next_id.max(floor.0);
        self.stores.insert(store.uuid, Arc::new(store.clone()));
        Ok(())
    }

    fn rename_store(&mut self, uuid: Uuid, name: &StoreName) -> Result<(), Error> {
        if self.store_named(name.as_str()).is_some_and(|s| s.uuid != uuid) {
            return Err(Error::StoreExists(name.to_string()));
        }
        let store = self.stores.get_mut(&uuid).ok_or_else(|| Error::NoStore(uuid.to_string()))?;
        Arc::make_mut(store).name = name.clone();
        Ok(())
    }

    fn remove_store(&mut self, uuid: Uuid, effects: &mut Vec<Effect>) -> Result<(), Error> {
        self.stores.remove(&uuid).ok_or_else(|| Error::NoStore(uuid.to_string()))?;
        self.drop_store_exports(uuid);
        // Volumes of the store that are still to be deleted go with it.
        self.intents.retain(|i| !matches!(i, Intent::DeleteVolume { store, .. } if *store == uuid));
        let intent = Intent::WipeStore { store: uuid };
        self.intents.insert(intent);
        effects.extend([Effect::CloseStore(uuid), Effect::Carry(intent)]);
        Ok(())
    }

    fn remove_volume(&mut self, store: Uuid, id: VolumeId, effects: &mut Vec<Effect>) -> Result<(), Error> {
        if !self.stores.contains_key(&store) {
            return Err(Error::NoStore(store.to_string()));
        }
        self.drop_volume_exports(id);
        let intent = Intent::DeleteVolume { store, id };
        self.intents.insert(intent);
        effects.push(Effect::Carry(intent));
        Ok(())
    }

    /// Namespaces, units and reservations of a bdev go.
    fn drop_volume_exports(&mut self, volume: VolumeId) {
        self.drop_namespaces(|n| n.volume == volume);
        self.iscsi.drop_units(|l| l.volume == volume);
        self.reservations.remove(&volume);
    }

    /// Namespaces, units and reservations of a store's volumes go.
    fn drop_store_exports(&mut self, store: Uuid) {
        self.drop_namespaces(|n| n.store == Some(store));
        self.iscsi.drop_units(|l| l.store == Some(store));
        self.reservations.retain(|_, r| r.store != Some(store));
    }

    /// A change of iSCSI objects, with what they share with the rest: bdevs and addresses.
    fn change_iscsi(&mut self, change: &iscsi::Change) -> Result<(), Error> {
        let free = |lun: &Lun| match self.claim(lun.volume) {
            Some(user) => Err(Error::BdevInUse { name: lun.bdev.clone(), user }),
            None => Ok(()),
        };
        match change {
            iscsi::Change::AddLun(_, _, lun) => free(lun)?,
            iscsi::Change::CreateTarget(target) => target.luns.values().try_for_each(free)?,
            iscsi::Change::CreatePortalGroup(group) => {
                let taken =
                    self.subsystems.values().flat_map(|s| &s.listeners).find(|l| group.portals.contains(&l.addr));
                if let Some(listener) = taken {
                    return Err(Error::AddressTaken { addr: listener.addr, by: Protocol::Nvme });
                }
            }
            _ => {}
        }
        self.iscsi.change(change)
    }

    fn drop_namespaces(&mut self, gone: impl Fn(&Namespace) -> bool) {
        for subsystem in self.subsystems.values_mut() {
            if subsystem.namespaces.values().any(&gone) {
                Arc::make_mut(subsystem).namespaces.retain(|_, n| !gone(n));
            }
        }
    }

    fn create_transport(&mut self, transport: &Transport) -> Result<(), Error> {
        if self.transport.is_some() {
            return Err(Error::TransportExists);
        }
        transport.check()?;
        self.transport = Some(Arc::new(transport.clone()));
        Ok(())
    }

    fn create_subsystem(&mut self, subsystem: &Subsystem) -> Result<(), Error> {
        subsystem.check()?;
        if self.subsystems.contains_key(&subsystem.nqn) {
            return Err(Error::SubsystemExists(subsystem.nqn.to_string()));
        }
        if self.subsystems.len() >= SUBSYSTEMS_MAX {
            return Err(Error::Limit { what: "subsystems", max: SUBSYSTEMS_MAX as u64 });
        }
        self.subsystems.insert(subsystem.nqn.clone(), Arc::new(subsystem.clone()));
        Ok(())
    }

    fn delete_subsystem(&mut self, nqn: &Nqn) -> Result<(), Error> {
        if nqn.is_discovery() {
            return Err(Error::Discovery("be deleted"));
        }
        self.subsystems.remove(nqn).map(drop).ok_or_else(|| Error::NoSubsystem(nqn.to_string()))
    }

    fn subsystem_mut(&mut self, nqn: &Nqn) -> Result<&mut Subsystem, Error> {
        let subsystem = self.subsystems.get_mut(nqn).ok_or_else(|| Error::NoSubsystem(nqn.to_string()))?;
        Ok(Arc::make_mut(subsystem))
    }

    fn add_namespace(&mut self, nqn: &Nqn, namespace: &Namespace) -> Result<(), Error> {
        if nqn.is_discovery() {
            return Err(Error::Discovery("have namespaces"));
        }
        if let Some(user) = self.claim(namespace.volume) {
            return Err(Error::BdevInUse { name: namespace.bdev.clone(), user });
        }
        let subsystem = self.subsystem_mut(nqn)?;
        let max = subsystem.max_namespaces;
        let nsid = match namespace.nsid {
            0 => (1..=max).find(|n| !subsystem.namespaces.contains_key(n)),
            given => Some(given),
        };
        let nsid = nsid.ok_or(Error::Limit { what: "namespaces of the subsystem", max: u64::from(max) })?;
        range("nsid", nsid, 1, u64::from(max))?;
        if subsystem.namespaces.contains_key(&nsid) {
            return Err(Error::NamespaceExists { nqn: nqn.to_string(), nsid });
        }
        if subsystem.namespaces.values().any(|n| n.volume == namespace.volume) {
            return Err(Error::BdevInUse { name: namespace.bdev.clone(), user: "a namespace of this subsystem" });
        }
        let anagrpid = if namespace.anagrpid == 0 { nsid } else { namespace.anagrpid };
        range("anagrpid", anagrpid, 1, u64::from(max))?;
        subsystem.namespaces.insert(nsid, Namespace { nsid, anagrpid, ..namespace.clone() });
        Ok(())
    }

    fn remove_namespace(&mut self, nqn: &Nqn, nsid: u32) -> Result<(), Error> {
        let missing = || Error::NoNamespace { nqn: nqn.to_string(), nsid };
        self.subsystem_mut(nqn)?.namespaces.remove(&nsid).map(drop).ok_or_else(missing)
    }

    /// The hosts that see a namespace; an error when that is all of them.
    fn viewers_mut(&mut self, nqn: &Nqn, nsid: u32) -> Result<&mut BTreeSet<Nqn>, Error> {
        let missing = || Error::NoNamespace { nqn: nqn.to_string(), nsid };
        let namespace = self.subsystem_mut(nqn)?.namespaces.get_mut(&nsid).ok_or_else(missing)?;
        match &mut namespace.visible {
            Visibility::Only(hosts) => Ok(hosts),
            Visibility::All => {
                Err(Error::Conflict { field: "nsid", why: "names a namespace that was added to be seen by all hosts" })
            }
        }
    }

    fn show_namespace(&mut self, nqn: &Nqn, nsid: u32, host: &Nqn) -> Result<(), Error> {
        let viewers = self.viewers_mut(nqn, nsid)?;
        if viewers.len() >= HOSTS_MAX && !viewers.contains(host) {
            return Err(Error::Limit { what: "hosts of the namespace", max: HOSTS_MAX as u64 });
        }
        viewers.insert(host.clone());
        Ok(())
    }

    fn add_listener(&mut self, nqn: &Nqn, listener: &Listener) -> Result<(), Error> {
        if self.transport.is_none() {
            return Err(Error::NoTransport);
        }
        if self.iscsi.portal_groups().any(|g| g.portals.contains(&listener.addr)) {
            return Err(Error::AddressTaken { addr: listener.addr, by: Protocol::Iscsi });
        }
        let subsystem = self.subsystem_mut(nqn)?;
        if subsystem.listeners.iter().any(|l| l.addr == listener.addr) {
            return Err(Error::ListenerExists { nqn: nqn.to_string(), addr: listener.addr });
        }
        if subsystem.listeners.len() >= LISTENERS_MAX {
            return Err(Error::Limit { what: "listeners of the subsystem", max: LISTENERS_MAX as u64 });
        }
        subsystem.listeners.push(listener.clone());
        Ok(())
    }

    fn remove_listener(&mut self, nqn: &Nqn, addr: SocketAddr) -> Result<(), Error> {
        let subsystem = self.subsystem_mut(nqn)?;
        let at = subsystem.listeners.iter().position(|l| l.addr == addr);
        let at = at.ok_or_else(|| Error::NoListener { nqn: nqn.to_string(), addr })?;
        subsystem.listeners.remove(at);
        Ok(())
    }

    fn add_host(&mut self, nqn: &Nqn, host: &Nqn) -> Result<(), Error> {
        let subsystem = self.subsystem_mut(nqn)?;
        if subsystem.hosts.contains(host) {
            return Err(Error::HostExists { nqn: nqn.to_string(), host: host.to_string() });
        }
        if subsystem.hosts.len() >= HOSTS_MAX {
            return Err(Error::Limit { what: "hosts of the subsystem", max: HOSTS_MAX as u64 });
        }
        subsystem.hosts.insert(host.clone());
        Ok(())
    }

    fn remove_host(&mut self, nqn: &Nqn, host: &Nqn) -> Result<(), Error> {
        let missing = || Error::NoHost { nqn: nqn.to_string(), host: host.to_string() };
        if self.subsystem_mut(nqn)?.hosts.remove(host) { Ok(()) } else { Err(missing()) }
    }

    fn allow_any_host(&mut self, nqn: &Nqn, allow: bool) -> Result<(), Error> {
        if nqn.is_discovery() && !allow {
            return Err(Error::Discovery("be closed; it shows every host only what that host may use"));
        }
        self.subsystem_mut(nqn)?.allow_any_host = allow;
        Ok(())
    }

    fn add_referral(&mut self, referral: &Referral) -> Result<(), Error> {
        if self.referrals.contains_key(&referral.addr) {
            return Err(Error::ReferralExists(referral.addr));
        }
        if self.referrals.len() >= LISTENERS_MAX {
            return Err(Error::Limit { what: "referrals", max: LISTENERS_MAX as u64 });
        }
        self.referrals.insert(referral.addr, Arc::new(referral.clone()));
        Ok(())
    }
}
