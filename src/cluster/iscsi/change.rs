//! Changes of the iSCSI objects and their meaning. Pure: addresses are bound and bdevs found before one is applied.

use super::{
    AUTH_GROUPS_MAX, AuthGroup, Chap, INITIATOR_GROUPS_MAX, INITIATORS_MAX, Initiator, InitiatorGroup, Iscsi, LUNS_MAX,
    Lun, MAPS_MAX, Map, Netmask, Options, PORTAL_GROUPS_MAX, PORTALS_MAX, Path, PortalGroup, QUEUE_DEPTH_MAX, Redirect,
    SECRETS_MAX, Secret, TARGETS_MAX, TargetNode,
};
use crate::cluster::error::Error;
use crate::cluster::model::range;
use crate::cluster::names::IscsiName;
use std::sync::Arc;

/// A change of an iSCSI object.
#[derive(Clone, PartialEq, Debug)]
pub enum Change {
    /// Other options, for connections to come.
    SetOptions(Options),
    /// Other authentication of discovery.
    SetDiscoveryAuth(Chap),
    /// A portal group, whose addresses are bound if it is started.
    CreatePortalGroup(PortalGroup),
    /// Hosts may connect; no change when they may already.
    StartPortalGroup(u16),
    /// Other authentication of discovery through the group.
    SetPortalGroupAuth(u16, Chap),
    /// A portal group goes, with the maps that name it.
    DeletePortalGroup(u16),
    /// An initiator group.
    CreateInitiatorGroup(InitiatorGroup),
    /// More entries for an initiator group; those it has are an error.
    AddInitiators(u32, Vec<Initiator>, Vec<Netmask>),
    /// Fewer.
    RemoveInitiators(u32, Vec<Initiator>, Vec<Netmask>),
    /// An initiator group goes, with the maps that name it.
    DeleteInitiatorGroup(u32),
    /// An auth group.
    CreateAuthGroup(AuthGroup),
    /// A secret of a user that has none yet.
    AddSecret(u32, Secret),
    /// A user's secret goes.
    RemoveSecret(u32, String),
    /// An auth group goes; who must prove something by it can no longer log in.
    DeleteAuthGroup(u32),
    /// A target node; it gets its index here.
    CreateTarget(TargetNode),
    /// A target node goes with its units.
    DeleteTarget(IscsiName),
    /// A unit; `None`: under the first free LUN.
    AddLun(IscsiName, Option<u16>, Lun),
    /// A unit goes.
    RemoveLun(IscsiName, u16),
    /// More maps; those it has are an error.
    AddMaps(IscsiName, Vec<Map>),
    /// Fewer.
    RemoveMaps(IscsiName, Vec<Map>),
    /// Other authentication of sessions.
    SetAuth(IscsiName, Chap),
    /// Logins through a portal group go elsewhere, or no longer.
    SetRedirect(IscsiName, u16, Option<Redirect>),
    /// Another state of the way through a portal group.
    SetPath(IscsiName, u16, Path),
}

fn missing(what: &'static str, name: &(impl ToString + ?Sized)) -> Error {
    Error::Missing { what, name: name.to_string() }
}

fn exists(what: &'static str, name: &(impl ToString + ?Sized)) -> Error {
    Error::Exists { what, name: name.to_string() }
}

fn limit(what: &'static str, count: usize, max: usize) -> Result<(), Error> {
    if count <= max { Ok(()) } else { Err(Error::Limit { what, max: max as u64 }) }
}

/// Adds entries to a list that has each at most once.
fn extend<T: Clone + PartialEq>(
    list: &mut Vec<T>,
    more: &[T],
    what: &'static str,
    max: usize,
    name: impl Fn(&T) -> String,
) -> Result<(), Error> {
    for one in more {
        if list.contains(one) {
            return Err(exists(what, &name(one)));
        }
        list.push(one.clone());
    }
    limit(what, list.len(), max)
}

/// Takes entries out of a list that must have them.
fn retract<T: PartialEq>(
    list: &mut Vec<T>,
    fewer: &[T],
    what: &'static str,
    name: impl Fn(&T) -> String,
) -> Result<(), Error> {
    for one in fewer {
        let at = list.iter().position(|o| o == one).ok_or_else(|| missing(what, &name(one)))?;
        list.remove(at);
    }
    Ok(())
}

impl Map {
    fn name(self) -> String {
        format!("{}:{}", self.portal_group, self.initiator_group)
    }
}

impl Iscsi {
    /// Makes the change; on an error nothing of `self` may be used any more.
    pub(in crate::cluster) fn change(&mut self, change: &Change) -> Result<(), Error> {
        match change {
            Change::SetOptions(options) => self.set_options(options),
            Change::SetDiscoveryAuth(auth) => self.set_options(&Options { discovery_auth: *auth, ..self.options() }),
            Change::CreatePortalGroup(group) => self.create_portal_group(group),
            Change::StartPortalGroup(tag) => {
                self.portal_group_mut(*tag)?.started = true;
                Ok(())
            }
            Change::SetPortalGroupAuth(tag, auth) => {
                auth.check()?;
                self.portal_group_mut(*tag)?.auth = Some(*auth);
                Ok(())
            }
            Change::DeletePortalGroup(tag) => {
                self.portal_groups.remove(tag).ok_or_else(|| missing("portal group", &tag))?;
                self.drop_maps(|m| m.portal_group == *tag);
                Ok(())
            }
            Change::CreateInitiatorGroup(group) => self.create_initiator_group(group),
            Change::AddInitiators(tag, names, netmasks) => {
                let group = self.initiator_group_mut(*tag)?;
                extend(&mut group.initiators, names, "initiator", INITIATORS_MAX, |n| n.as_str().to_owned())?;
                extend(&mut group.netmasks, netmasks, "netmask", INITIATORS_MAX, |n| n.as_str().to_owned())
            }
            Change::RemoveInitiators(tag, names, netmasks) => {
                let group = self.initiator_group_mut(*tag)?;
                retract(&mut group.initiators, names, "initiator", |n| n.as_str().to_owned())?;
                retract(&mut group.netmasks, netmasks, "netmask", |n| n.as_str().to_owned())
            }
            Change::DeleteInitiatorGroup(tag) => {
                self.initiator_groups.remove(tag).ok_or_else(|| missing("initiator group", &tag))?;
                self.drop_maps(|m| m.initiator_group == *tag);
                Ok(())
            }
            Change::CreateAuthGroup(group) => self.create_auth_group(group),
            Change::AddSecret(tag, secret) => {
                secret.check()?;
                let group = self.auth_group_mut(*tag)?;
                if group.secrets.iter().any(|s| s.user == secret.user) {
                    return Err(exists("user", &secret.user));
                }
                group.secrets.push(secret.clone());
                limit("secrets of the auth group", group.secrets.len(), SECRETS_MAX)
            }
            Change::RemoveSecret(tag, user) => {
                let group = self.auth_group_mut(*tag)?;
                let at = group.secrets.iter().position(|s| s.user == *user);
                group.secrets.remove(at.ok_or_else(|| missing("user", user))?);
                Ok(())
            }
            Change::DeleteAuthGroup(tag) => {
                self.auth_groups.remove(tag).map(drop).ok_or_else(|| missing("auth group", &tag))
            }
            Change::CreateTarget(target) => self.create_target(target),
            Change::DeleteTarget(name) => {
                let index = self.target_mut(name)?.index;
                self.targets.remove(&index);
                Ok(())
            }
            Change::AddLun(name, number, lun) => self.target_mut(name)?.add_lun(*number, lun),
            Change::RemoveLun(name, lun) => {
                self.target_mut(name)?.luns.remove(lun).map(drop).ok_or_else(|| missing("LUN", &lun))
            }
            Change::AddMaps(name, maps) => {
                self.mappable(maps)?;
                extend(&mut self.target_mut(name)?.maps, maps, "map", MAPS_MAX, |m| m.name())
            }
            Change::RemoveMaps(name, maps) => {
                retract(&mut self.target_mut(name)?.maps, maps, "map", |m| m.name())?;
                self.forget_unmapped();
                Ok(())
            }
            Change::SetAuth(name, auth) => {
                auth.check()?;
                self.target_mut(name)?.auth = *auth;
                Ok(())
            }
            Change::SetRedirect(name, tag, redirect) => self.set_redirect(name, *tag, *redirect),
            Change::SetPath(name, tag, path) => {
                let target = self.mapped_target(name, *tag)?;
                if *path == Path::default() {
                    target.paths.remove(tag);
                } else {
                    target.paths.insert(*tag, *path);
                }
                Ok(())
            }
        }
    }

    fn set_options(&mut self, options: &Options) -> Result<(), Error> {
        options.check()?;
        self.options = Some(Arc::new(options.clone()));
        Ok(())
    }

    fn portal_group_mut(&mut self, tag: u16) -> Result<&mut PortalGroup, Error> {
        self.portal_groups.get_mut(&tag).map(Arc::make_mut).ok_or_else(|| missing("portal group", &tag))
    }

    fn initiator_group_mut(&mut self, tag: u32) -> Result<&mut InitiatorGroup, Error> {
        self.initiator_groups.get_mut(&tag).map(Arc::make_mut).ok_or_else(|| missing("initiator group", &tag))
    }

    fn auth_group_mut(&mut self, tag: u32) -> Result<&mut AuthGroup, Error> {
        self.auth_groups.get_mut(&tag).map(Arc::make_mut).ok_or_else(|| missing("auth group", &tag))
    }

    fn target_mut(&mut self, name: &IscsiName) -> Result<&mut TargetNode, Error> {
        let index = self.target(name.as_str()).map(|t| t.index).ok_or_else(|| missing("target", name))?;
        Ok(Arc::make_mut(self.targets.get_mut(&index).expect("found above")))
    }

    /// A target node that some map lets through the portal group.
    fn mapped_target(&mut self, name: &IscsiName, tag: u16) -> Result<&mut TargetNode, Error> {
        let target = self.target_mut(name)?;
        if target.maps.iter().any(|m| m.portal_group == tag) {
            Ok(target)
        } else {
            Err(Error::Conflict { field: "pg_tag", why: "is not mapped to the target" })
        }
    }

    fn create_portal_group(&mut self, group: &PortalGroup) -> Result<(), Error> {
        range("tag", group.tag, 1, u64::from(u16::MAX))?;
        if group.portals.is_empty() {
            return Err(Error::Conflict { field: "portals", why: "must not be empty" });
        }
        limit("portals of the group", group.portals.len(), PORTALS_MAX)?;
        if let Some(auth) = &group.auth {
            auth.check()?;
        }
        if self.portal_groups.contains_key(&group.tag) {
            return Err(exists("portal group", &group.tag));
        }
        limit("portal groups", self.portal_groups.len() + 1, PORTAL_GROUPS_MAX)?;
        let taken = |portal, at: usize| {
            group.portals[..at].contains(portal) || self.portal_groups.values().any(|g| g.portals.contains(portal))
        };
        if let Some((_, portal)) = group.portals.iter().enumerate().find(|(at, portal)| taken(portal, *at)) {
            return Err(exists("portal", portal));
        }
        self.portal_groups.insert(group.tag, Arc::new(group.clone()));
        Ok(())
    }

    fn create_initiator_group(&mut self, group: &InitiatorGroup) -> Result<(), Error> {
        range("tag", group.tag, 1, u64::from(u32::MAX))?;
        if group.initiators.is_empty() || group.netmasks.is_empty() {
            return Err(Error::Conflict { field: "initiators and netmasks", why: "must not be empty" });
        }
        if self.initiator_groups.contains_key(&group.tag) {
            return Err(exists("initiator group", &group.tag));
        }
        limit("initiator groups", self.initiator_groups.len() + 1, INITIATOR_GROUPS_MAX)?;
        let empty = InitiatorGroup { tag: group.tag, initiators: Vec::new(), netmasks: Vec::new() };
        self.initiator_groups.insert(group.tag, Arc::new(empty));
        self.change(&Change::AddInitiators(group.tag, group.initiators.clone(), group.netmasks.clone()))
    }

    fn create_auth_group(&mut self, group: &AuthGroup) -> Result<(), Error> {
        range("tag", group.tag, 1, u64::from(u32::MAX))?;
        if self.auth_groups.contains_key(&group.tag) {
            return Err(exists("auth group", &group.tag));
        }
        limit("auth groups", self.auth_groups.len() + 1, AUTH_GROUPS_MAX)?;
        self.auth_groups.insert(group.tag, Arc::new(AuthGroup { tag: group.tag, secrets: Vec::new() }));
        group.secrets.iter().try_for_each(|secret| self.change(&Change::AddSecret(group.tag, secret.clone())))
    }

    fn create_target(&mut self, target: &TargetNode) -> Result<(), Error> {
        if self.target(target.name.as_str()).is_some() {
            return Err(exists("target", &target.name));
        }
        limit("target nodes", self.targets.len() + 1, TARGETS_MAX)?;
        if target.alias.len() > super::ALIAS_MAX || target.alias.chars().any(char::is_control) {
            return Err(Error::Conflict {
                field: "alias_name",
                why: "must have at most 255 bytes, no control characters",
            });
        }
        range("queue_depth", target.queue_depth, 1, u64::from(QUEUE_DEPTH_MAX))?;
        target.auth.check()?;
        if target.luns.is_empty() {
            return Err(Error::Conflict { field: "luns", why: "must not be empty" });
        }
        if target.luns.keys().any(|lun| *lun >= LUNS_MAX) {
            return Err(Error::Limit { what: "LUNs", max: u64::from(LUNS_MAX) });
        }
        self.mappable(&target.maps)?;
        let mut maps = Vec::new();
        extend(&mut maps, &target.maps, "map", MAPS_MAX, |m| m.name())?;
        let max = u64::from(u32::MAX);
        let index = self.targets_made.checked_add(1).ok_or(Error::Limit { what: "target nodes ever made", max })?;
        self.targets_made = index;
        self.targets.insert(index, Arc::new(TargetNode { index, ..target.clone() }));
        Ok(())
    }

    /// Fails unless both groups of every map are there.
    fn mappable(&self, maps: &[Map]) -> Result<(), Error> {
        for map in maps {
            if !self.portal_groups.contains_key(&map.portal_group) {
                return Err(missing("portal group", &map.portal_group));
            }
            if !self.initiator_groups.contains_key(&map.initiator_group) {
                return Err(missing("initiator group", &map.initiator_group));
            }
        }
        Ok(())
    }

    fn drop_maps(&mut self, gone: impl Fn(&Map) -> bool) {
        for target in self.targets.values_mut().filter(|t| t.maps.iter().any(&gone)) {
            Arc::make_mut(target).maps.retain(|m| !gone(m));
        }
        self.forget_unmapped();
    }

    /// What a target has for a portal group goes with its last map to it.
    fn forget_unmapped(&mut self) {
        for target in self.targets.values_mut() {
            let mapped = |tag: &u16| target.maps.iter().any(|m| m.portal_group == *tag);
            if target.redirects.keys().chain(target.paths.keys()).any(|tag| !mapped(tag)) {
                let maps = target.maps.clone();
                let mapped = |tag: &u16| maps.iter().any(|m| m.portal_group == *tag);
                let target = Arc::make_mut(target);
                target.redirects.retain(|tag, _| mapped(tag));
                target.paths.retain(|tag, _| mapped(tag));
            }
        }
    }

    fn set_redirect(&mut self, name: &IscsiName, tag: u16, redirect: Option<Redirect>) -> Result<(), Error> {
        let group = self.portal_groups.get(&tag).ok_or_else(|| missing("portal group", &tag))?.clone();
        if redirect.is_some() && group.private {
            return Err(Error::Conflict { field: "pg_tag", why: "is private: no login comes through it by itself" });
        }
        if redirect.is_some_and(|r| group.portals.contains(&r.addr)) {
            return Err(Error::Conflict { field: "redirect_host", why: "is a portal of the group itself" });
        }
        if redirect.is_some_and(|r| r.addr.ip().is_unspecified() || r.addr.port() == 0) {
            return Err(Error::Conflict { field: "redirect_host", why: "must be an address hosts can reach" });
        }
        let target = self.mapped_target(name, tag)?;
        match redirect {
            Some(redirect) => drop(target.redirects.insert(tag, redirect)),
            None => drop(target.redirects.remove(&tag)),
        }
        Ok(())
    }
}

impl TargetNode {
    fn add_lun(&mut self, number: Option<u16>, lun: &Lun) -> Result<(), Error> {
        let free = (0..LUNS_MAX).find(|n| !self.luns.contains_key(n));
        let full = Error::Limit { what: "LUNs of the target", max: u64::from(LUNS_MAX) };
        let number = number.or(free).ok_or(full)?;
        range("lun_id", number, 0, u64::from(LUNS_MAX) - 1)?;
        if self.luns.contains_key(&number) {
            return Err(exists("LUN", &number));
        }
        self.luns.insert(number, Lun { lun: number, ..lun.clone() });
        Ok(())
    }
}
