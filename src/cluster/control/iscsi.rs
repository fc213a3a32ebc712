//! Changes of iSCSI objects that need something of the data path first: a portal's address, a unit's bdev.

use super::{Bdev, Control};
use crate::cluster::command::Command;
use crate::cluster::error::Error;
use crate::cluster::iscsi::{
    AuthGroup, Change, Chap, InitiatorGroup, LUNS_MAX, Lun, Map, Options, PortalGroup, TargetNode,
};
use crate::cluster::names::IscsiName;
use crate::cluster::node::{Node, Protocol};
use std::net::SocketAddr;

/// A unit to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LunSpec {
    /// The bdev's name, alias or UUID.
    pub bdev: String,
    /// `None`: the first free one.
    pub lun: Option<u16>,
}

/// A target node to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TargetSpec {
    /// Its name; a short one gets the node base in front.
    pub name: String,
    /// Its alias; empty: none.
    pub alias: String,
    /// Who may come where.
    pub maps: Vec<Map>,
    /// Its units; one at least.
    pub luns: Vec<LunSpec>,
    /// Commands of one session under way; 0: as the options say.
    pub queue_depth: u32,
    /// CHAP for sessions.
    pub auth: Chap,
    /// Insist on header digests.
    pub header_digest: bool,
    /// Insist on data digests.
    pub data_digest: bool,
}

/// What a configuration file declares to exist of iSCSI, in the order it is made.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct DeclaredIscsi {
    /// Options, where none were set yet.
    pub options: Option<Options>,
    /// Portal groups.
    pub portal_groups: Vec<PortalGroup>,
    /// Initiator groups.
    pub initiator_groups: Vec<InitiatorGroup>,
    /// Auth groups.
    pub auth_groups: Vec<AuthGroup>,
    /// Target nodes. One that is there gets the maps and units that it lacks.
    pub targets: Vec<TargetSpec>,
}

impl<N: Node> Control<N> {
    /// Makes what is missing of what is declared.
    pub(super) async fn declare_iscsi(
        &self,
        declared: &DeclaredIscsi,
        note: &mut impl FnMut(String, Result<(), Error>),
    ) {
        let state = self.state();
        let now = state.iscsi();
        if let Some(options) = declared.options.as_ref().filter(|_| !now.has_options()) {
            note("iSCSI options".to_owned(), self.change_iscsi(Change::SetOptions(options.clone())).await);
        }
        for group in declared.portal_groups.iter().filter(|g| now.portal_group(g.tag).is_none()) {
            note(format!("portal group {}", group.tag), self.create_portal_group(group.clone()).await);
        }
        for group in declared.initiator_groups.iter().filter(|g| now.initiator_groups().all(|o| o.tag != g.tag)) {
            let made = self.change_iscsi(Change::CreateInitiatorGroup(group.clone())).await;
            note(format!("initiator group {}", group.tag), made);
        }
        for group in declared.auth_groups.iter().filter(|g| now.auth_groups().all(|o| o.tag != g.tag)) {
            let made = self.change_iscsi(Change::CreateAuthGroup(group.clone())).await;
            note(format!("auth group {}", group.tag), made);
        }
        for target in &declared.targets {
            self.declare_target(target, note).await;
        }
    }

    async fn declare_target(&self, spec: &TargetSpec, note: &mut impl FnMut(String, Result<(), Error>)) {
        let state = self.state();
        let full = state.iscsi().options().full_name(&spec.name);
        let there = full.ok().and_then(|name| state.iscsi().target(name.as_str()));
        let Some(there) = there else {
            note(format!("target '{}'", spec.name), self.create_target(spec).await.map(drop));
            return;
        };
        let name = &there.name;
        for unit in &spec.luns {
            let id = self.bdev(&unit.bdev).map(|b| b.id()).ok();
            if there.luns.values().any(|l| Some(l.volume) == id || l.bdev == unit.bdev) {
                continue;
            }
            note(format!("LUN of '{}' in '{name}'", unit.bdev), self.add_lun(name, unit).await.map(drop));
        }
        for map in spec.maps.iter().filter(|m| !there.maps.contains(m)) {
            let added = self.change_iscsi(Change::AddMaps(name.clone(), vec![*map])).await;
            note(format!("map {}:{} of '{name}'", map.portal_group, map.initiator_group), added);
        }
    }

    /// A change of an iSCSI object that needs nothing of the data path beforehand.
    pub async fn change_iscsi(&self, change: Change) -> Result<(), Error> {
        self.change(Command::Iscsi(change)).await
    }

    /// Makes a portal group; its portals are bound first, so that an error (in use, not ours) is the caller's answer.
    pub async fn create_portal_group(&self, group: PortalGroup) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        let portals = if group.started { group.portals.clone() } else { Vec::new() };
        self.bind_and_commit(&portals, Change::CreatePortalGroup(group)).await
    }

    /// Lets hosts connect to a portal group that waited for it; no error when they may already.
    pub async fn start_portal_group(&self, tag: u16) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        let state = self.state();
        let waiting = state.iscsi().portal_group(tag).filter(|g| !g.started);
        let portals = waiting.map(|g| g.portals.clone()).unwrap_or_default();
        self.bind_and_commit(&portals, Change::StartPortalGroup(tag)).await
    }

    /// Listens on the portals, then makes the change; takes back what was bound when either fails.
    async fn bind_and_commit(&self, portals: &[SocketAddr], change: Change) -> Result<(), Error> {
        let command = Command::Iscsi(change);
        self.state().apply(&command)?;
        let mut bound = Vec::new();
        let mut done = Ok(());
        for addr in portals {
            let failed = |source| Error::Node { what: "listen on", object: addr.to_string(), source };
            done = self.node.listen(*addr, Protocol::Iscsi).await.map_err(failed);
            if done.is_err() {
                break;
            }
            bound.push(*addr);
        }
        if done.is_ok() {
            done = self.commit(&command).await;
        }
        if done.is_err() {
            for addr in bound {
                self.node.unlisten(addr).await;
            }
        }
        done
    }

    /// Makes a target node; returns its full name.
    pub async fn create_target(&self, spec: &TargetSpec) -> Result<IscsiName, Error> {
        let _turn = self.turn.lock().await;
        let options = self.state().iscsi().options();
        let name = options.full_name(&spec.name)?;
        let depth = if spec.queue_depth == 0 { u32::from(options.max_queue_depth) } else { spec.queue_depth };
        let mut target = TargetNode {
            alias: spec.alias.clone(),
            maps: spec.maps.clone(),
            // Too much for the field is too much for the target node, which says so.
            queue_depth: u16::try_from(depth).unwrap_or(u16::MAX),
            auth: spec.auth,
            header_digest: spec.header_digest,
            data_digest: spec.data_digest,
            ..TargetNode::new(name.clone())
        };
        for unit in &spec.luns {
            let lun = self.unit(&unit.bdev)?;
            let free = (0..LUNS_MAX).find(|n| !target.luns.contains_key(n));
            let number = unit.lun.or(free).unwrap_or(LUNS_MAX);
            if target.luns.insert(number, Lun { lun: number, ..lun }).is_some() {
                return Err(Error::Exists { what: "LUN", name: number.to_string() });
            }
        }
        self.commit(&Command::Iscsi(Change::CreateTarget(target))).await?;
        Ok(name)
    }

    /// Adds a unit to a target node; returns its LUN.
    pub async fn add_lun(&self, target: &IscsiName, spec: &LunSpec) -> Result<u16, Error> {
        let _turn = self.turn.lock().await;
        let lun = self.unit(&spec.bdev)?;
        let luns = |c: &Control<N>| -> Vec<u16> {
            let state = c.state();
            state.iscsi().target(target.as_str()).map(|t| t.luns.keys().copied().collect()).unwrap_or_default()
        };
        let before = luns(self);
        self.commit(&Command::Iscsi(Change::AddLun(target.clone(), spec.lun, lun))).await?;
        let added = luns(self).into_iter().find(|l| !before.contains(l));
        Ok(added.expect("a unit that was committed is in the state"))
    }

    /// The bdev of that name as a unit without a LUN yet.
    fn unit(&self, name: &str) -> Result<Lun, Error> {
        let bdev = self.bdev(name)?;
        let store = match &bdev {
            Bdev::Device { .. } => None,
            Bdev::Volume { store, .. } => Some(store.uuid),
        };
        Ok(Lun { lun: 0, volume: bdev.id(), store, bdev: bdev.name() })
    }
}
