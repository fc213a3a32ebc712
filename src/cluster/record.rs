//! The journal's records: one per object of the [`State`], CBOR with a checksum. The key says what the object is, so a
//! change of one object is one record. A state is its records and nothing else: [`State::records`] and
//! [`State::from_records`] are each other's inverse.

use super::iscsi::{self, Iscsi};
use super::model::{Device, Intent, Referral, Reserved, Store, Subsystem, Transport};
use super::names::Nqn;
use super::state::State;
use crate::base::VolumeId;
use crate::base::crc::Crc32c;
use crate::volume::reserve::{Nexus, Registrant, Reservation, Reservations, Type};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use uuid::Uuid;

/// What belongs to the node as a whole.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeRecord {
    /// [`State::node`].
    pub node: Uuid,
    /// [`State::next_id`].
    pub next_id: u32,
    /// [`State::generation`].
    pub generation: u64,
    /// [`Iscsi::generation`]. Journals of before there was iSCSI do not say.
    #[serde(default)]
    pub iscsi_generation: u64,
    /// iSCSI target nodes ever made.
    #[serde(default)]
    pub targets_made: u32,
}

/// A nexus, as [`Nexus`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NexusRecord {
    initiator: Vec<u8>,
    target: u32,
    port: u16,
}

/// Registrations and the reservation of a raw device or volume that are kept over a loss of power.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReservedRecord {
    #[serde(with = "super::model::volume_id")]
    volume: VolumeId,
    store: Option<Uuid>,
    /// Who, and its key.
    registrants: Vec<(NexusRecord, u64)>,
    /// SCSI's code of the reservation's type.
    kind: Option<u8>,
    holder: Option<NexusRecord>,
}

impl NexusRecord {
    fn of(nexus: &Nexus) -> NexusRecord {
        NexusRecord { initiator: nexus.initiator.to_vec(), target: nexus.target, port: nexus.port }
    }
    fn nexus(self) -> Nexus {
        Nexus { initiator: self.initiator.into(), target: self.target, port: self.port }
    }
}

impl ReservedRecord {
    /// `None` where nothing is kept.
    fn of(volume: VolumeId, reserved: &Reserved) -> Option<ReservedRecord> {
        let (registrants, reservation) = reserved.value.kept()?;
        Some(ReservedRecord {
            volume,
            store: reserved.store,
            registrants: registrants.iter().map(|r| (NexusRecord::of(&r.nexus), r.key)).collect(),
            kind: reservation.map(|r| r.kind.scsi()),
            holder: reservation.and_then(|r| r.holder.as_ref()).map(NexusRecord::of),
        })
    }

    fn reserved(self) -> Result<Reserved, RecordError> {
        const WRONG: RecordError = RecordError::Contradiction("reservations of a volume");
        let registrants =
            self.registrants.into_iter().map(|(nexus, key)| Registrant { nexus: nexus.nexus(), key }).collect();
        let reservation = match self.kind {
            Some(code) => {
                let holder = self.holder.map(NexusRecord::nexus);
                Some(Reservation { kind: Type::from_scsi(code).ok_or(WRONG)?, holder })
            }
            None => None,
        };
        let value = Reservations::restored(registrants, reservation).ok_or(WRONG)?;
        Ok(Reserved { store: self.store, value: Arc::new(value) })
    }
}

/// One object of the state.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Record {
    /// The node.
    Node(NodeRecord),
    /// A raw device.
    Device(Arc<Device>),
    /// A store.
    Store(Arc<Store>),
    /// The TCP transport.
    Transport(Arc<Transport>),
    /// A subsystem.
    Subsystem(Arc<Subsystem>),
    /// A referral.
    Referral(Arc<Referral>),
    /// Work to be done.
    Intent(Intent),
    /// Options of iSCSI.
    IscsiOptions(Arc<iscsi::Options>),
    /// A portal group.
    PortalGroup(Arc<iscsi::PortalGroup>),
    /// An initiator group.
    InitiatorGroup(Arc<iscsi::InitiatorGroup>),
    /// An auth group.
    AuthGroup(Arc<iscsi::AuthGroup>),
    /// A target node.
    TargetNode(Arc<iscsi::TargetNode>),
    /// Reservations.
    Reserved(ReservedRecord),
}

/// What is wrong with a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    /// Too short to be one.
    #[error("a record is cut short")]
    Short,
    /// The checksum does not match.
    #[error("a record's checksum does not match")]
    Checksum,
    /// The checksum matches but the content is not one of this format's.
    #[error("a record is malformed")]
    Malformed,
    /// A record stands under another one's key.
    #[error("a record stands under the wrong key")]
    Key,
    /// Records that belong together are not all there.
    #[error("the {0} record is missing")]
    Missing(&'static str),
    /// Two records contradict each other.
    #[error("records contradict each other: {0}")]
    Contradiction(&'static str),
}

impl Record {
    /// Where the record stands: a byte for the kind, then the object's own key.
    pub fn key(&self) -> Vec<u8> {
        let (kind, own) = match self {
            Record::Node(_) => (0, Vec::new()),
            Record::Device(d) => (1, d.id.0.to_be_bytes().to_vec()),
            Record::Store(s) => (2, s.uuid.as_bytes().to_vec()),
            Record::Transport(_) => (3, Vec::new()),
            Record::Subsystem(s) => (4, s.nqn.as_str().as_bytes().to_vec()),
            Record::Referral(r) => (5, r.addr.to_string().into_bytes()),
            Record::Intent(Intent::WipeStore { store }) => (6, store.as_bytes().to_vec()),
            Record::Intent(Intent::DeleteVolume { store, id }) => {
                (7, [&store.as_bytes()[..], &id.0.to_be_bytes()].concat())
            }
            Record::IscsiOptions(_) => (8, Vec::new()),
            Record::PortalGroup(g) => (9, g.tag.to_be_bytes().to_vec()),
            Record::InitiatorGroup(g) => (10, g.tag.to_be_bytes().to_vec()),
            Record::AuthGroup(g) => (11, g.tag.to_be_bytes().to_vec()),
            Record::TargetNode(t) => (12, t.index.to_be_bytes().to_vec()),
            Record::Reserved(r) => (13, r.volume.0.to_be_bytes().to_vec()),
        };
        let mut key = vec![kind];
        key.extend(own);
        key
    }

    /// The first format of the journal that has records of this kind.
    pub fn format(&self) -> u32 {
        match self {
            Record::Node(_)
            | Record::Device(_)
            | Record::Store(_)
            | Record::Transport(_)
            | Record::Subsystem(_)
            | Record::Referral(_)
            | Record::Intent(_) => 1,
            Record::IscsiOptions(_)
            | Record::PortalGroup(_)
            | Record::InitiatorGroup(_)
            | Record::AuthGroup(_)
            | Record::TargetNode(_)
            | Record::Reserved(_) => 2,
        }
    }

    /// The record as bytes: CBOR, then the CRC32C (little-endian) of key and CBOR.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        ciborium::into_writer(self, &mut bytes).expect("writing to memory does not fail and every record is encodable");
        let sum = checksum(&self.key(), &bytes);
        bytes.extend(sum.to_le_bytes());
        bytes
    }

    /// The record that stands under `key`.
    pub fn decode(key: &[u8], bytes: &[u8]) -> Result<Record, RecordError> {
        let (cbor, sum) = bytes.split_last_chunk::<4>().ok_or(RecordError::Short)?;
        if checksum(key, cbor) != u32::from_le_bytes(*sum) {
            return Err(RecordError::Checksum);
        }
        let record: Record = ciborium::from_reader(cbor).map_err(|_| RecordError::Malformed)?;
        if record.key() == key { Ok(record) } else { Err(RecordError::Key) }
    }
}

fn checksum(key: &[u8], cbor: &[u8]) -> u32 {
    let mut sum = Crc32c::new();
    sum.update(key);
    sum.update(cbor);
    sum.finish()
}

impl State {
    /// Every object of the state.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        let node = NodeRecord {
            node: self.node,
            next_id: self.next_id,
            generation: self.generation,
            iscsi_generation: self.iscsi.generation,
            targets_made: self.iscsi.targets_made,
        };
        let devices = self.devices.values().cloned().map(Record::Device);
        let stores = self.stores.values().cloned().map(Record::Store);
        let transport = self.transport.iter().cloned().map(Record::Transport);
        let subsystems = self.subsystems.values().cloned().map(Record::Subsystem);
        let referrals = self.referrals.values().cloned().map(Record::Referral);
        let intents = self.intents.iter().copied().map(Record::Intent);
        let objects = devices.chain(stores).chain(transport).chain(subsystems).chain(referrals).chain(intents);
        let options = self.iscsi.options.iter().cloned().map(Record::IscsiOptions);
        let portals = self.iscsi.portal_groups.values().cloned().map(Record::PortalGroup);
        let initiators = self.iscsi.initiator_groups.values().cloned().map(Record::InitiatorGroup);
        let secrets = self.iscsi.auth_groups.values().cloned().map(Record::AuthGroup);
        let targets = self.iscsi.targets.values().cloned().map(Record::TargetNode);
        let iscsi = options.chain(portals).chain(initiators).chain(secrets).chain(targets);
        let reserved = self.reservations.iter().filter_map(|(id, r)| ReservedRecord::of(*id, r)).map(Record::Reserved);
        std::iter::once(Record::Node(node)).chain(objects).chain(iscsi).chain(reserved)
    }

    /// The state whose records these are; refuses sets that no state has.
    pub fn from_records(records: impl IntoIterator<Item = Record>) -> Result<State, RecordError> {
        let mut node = None;
        let (mut devices, mut stores, mut transport) = (BTreeMap::new(), BTreeMap::new(), None);
        let (mut subsystems, mut referrals, mut intents) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let (mut iscsi, mut reservations) = (Iscsi::default(), BTreeMap::new());
        for record in records {
            match record {
                Record::Node(n) => node = Some(n),
                Record::Device(d) => drop(devices.insert(d.id, d)),
                Record::Store(s) => drop(stores.insert(s.uuid, s)),
                Record::Transport(t) => transport = Some(t),
                Record::Subsystem(s) => drop(subsystems.insert(s.nqn.clone(), s)),
                Record::Referral(r) => drop(referrals.insert(r.addr, r)),
                Record::Intent(i) => drop(intents.insert(i)),
                Record::IscsiOptions(o) => iscsi.options = Some(o),
                Record::PortalGroup(g) => drop(iscsi.portal_groups.insert(g.tag, g)),
                Record::InitiatorGroup(g) => drop(iscsi.initiator_groups.insert(g.tag, g)),
                Record::AuthGroup(g) => drop(iscsi.auth_groups.insert(g.tag, g)),
                Record::TargetNode(t) => drop(iscsi.targets.insert(t.index, t)),
                Record::Reserved(r) => drop(reservations.insert(r.volume, Arc::new(r.reserved()?))),
            }
        }
        let node = node.ok_or(RecordError::Missing("node"))?;
        (iscsi.generation, iscsi.targets_made) = (node.iscsi_generation, node.targets_made);
        let state = State {
            node: node.node,
            next_id: node.next_id,
            generation: node.generation,
            devices,
            stores,
            transport,
            subsystems,
            referrals,
            intents,
            iscsi,
            reservations,
        };
        state.check().map(|()| state)
    }

    /// The rules that hold between records of every state that commands can reach.
    fn check(&self) -> Result<(), RecordError> {
        if !self.subsystems.contains_key(&Nqn::discovery()) {
            return Err(RecordError::Missing("discovery subsystem"));
        }
        let known = |id| self.devices.contains_key(&id);
        if self.next_id == 0 || self.devices.keys().any(|id| id.0 == 0 || id.0 >= self.next_id) {
            return Err(RecordError::Contradiction("a device's id was not handed out yet"));
        }
        if self.devices.values().filter_map(|d| d.spec.base()).any(|base| !known(base)) {
            return Err(RecordError::Contradiction("a device's base is missing"));
        }
        if self.stores.values().any(|s| !known(s.device)) {
            return Err(RecordError::Contradiction("a store's device is missing"));
        }
        let mut spaces = self.subsystems.values().flat_map(|s| s.namespaces.values());
        let held = |volume, store: Option<Uuid>| match store {
            Some(store) => self.stores.contains_key(&store),
            None => known(volume),
        };
        if !spaces.all(|n| held(n.volume, n.store)) {
            return Err(RecordError::Contradiction("a namespace's bdev is missing"));
        }
        if !self.iscsi.targets().flat_map(|t| t.luns.values()).all(|l| held(l.volume, l.store)) {
            return Err(RecordError::Contradiction("a LUN's bdev is missing"));
        }
        if !self.reservations.iter().all(|(volume, r)| held(*volume, r.store)) {
            return Err(RecordError::Contradiction("reservations of a bdev that is missing"));
        }
        if !self.iscsi.is_sound() {
            return Err(RecordError::Contradiction("iSCSI's objects"));
        }
        let nvme = self.subsystems.values().flat_map(|s| &s.listeners);
        let portals: Vec<_> = self.iscsi.portal_groups().flat_map(|g| &g.portals).collect();
        if nvme.map(|l| &l.addr).any(|addr| portals.contains(&addr)) {
            return Err(RecordError::Contradiction("an address has two protocols"));
        }
        Ok(())
    }
}
