//! The units of this core's targets: found by number, their state carried over changes of configuration, and what every
//! session is told about them.

use super::config::{Snapshot, TargetNode};
use super::conn::{Conn, State};
use super::lu::{self, Attention, LuEvent, Unit};
use super::session::SessionRef;
use super::target::{Node, Target};
use crate::base::VolumeId;
use std::sync::Arc;

/// Place of a unit among those of its target, which are in the order of their numbers.
#[inline]
pub(super) fn place_of(units: &[Unit], lun: u16) -> Option<usize> {
    // Units are mostly numbered from 0 without a gap.
    if units.get(usize::from(lun)).is_some_and(|u| u.lun == lun) {
        return Some(usize::from(lun));
    }
    units.binary_search_by_key(&lun, |u| u.lun).ok()
}

impl Target {
    /// Makes `snapshot` what this core exports. Initiators are told of changed units by unit attentions; connections whose
    /// portal, target or rights are no longer there are ended. See [`Target::settled`].
    pub fn configure(&mut self, snapshot: Arc<Snapshot>) {
        let old = core::mem::replace(&mut self.snapshot, snapshot);
        self.options = self.snapshot.options.as_ref().map_or_else(super::Options::default, super::Options::clamped);
        let mut nodes = Vec::with_capacity(self.snapshot.targets.len());
        for target in &self.snapshot.targets {
            let before = old.targets.iter().position(|t| t.index == target.index);
            let states = target.luns.iter().map(|unit| {
                let place = before.and_then(|b| place_of(&old.targets[b].luns, unit.lun).map(|at| (b, at)));
                let kept = place.filter(|(b, at)| old.targets[*b].luns[*at].info.id == unit.info.id);
                kept.map_or_else(lu::State::default, |(b, at)| self.nodes[b].states[at].clone())
            });
            let states = states.collect();
            let latencies = before.and_then(|b| self.nodes[b].latencies.take());
            nodes.push(Node { states, latencies });
        }
        self.nodes = nodes;
        let targets = &self.snapshot.targets;
        for session in self.sessions.iter_mut() {
            let Some(index) = session.nexus.target else { continue };
            session.node = targets.iter().position(|t| t.index == index);
            let before = old.targets.iter().find(|t| t.index == index);
            if let (Some(now), Some(before)) = (session.node.map(|n| &targets[n]), before) {
                session.attentions = carried(&session.attentions, before, now);
            }
        }
        let stranger = |t: &Target, c: &Conn| match (&c.name, c.state()) {
            (_, State::Closing) => false,
            (Some(name), _) => t.snapshot.options.is_none() || !t.entitled(name, c.listener, c.ends.peer.ip()),
            (None, _) => t.portal_group_of(c.listener).is_none(),
        };
        let gone: Vec<_> = self.live().filter(|c| stranger(self, c)).map(|c| c.id).collect();
        self.dismiss(&gone);
    }

    /// A new session is told that everything is new to it.
    pub(super) fn attend(&mut self, own: SessionRef) {
        let targets = &self.snapshot.targets;
        let Some(session) = self.sessions.get(own) else { return };
        let units = session.node.map_or(0, |n| targets[n].luns.len());
        session.attentions = vec![fresh(); units];
    }

    /// The volume behind a unit that a session reaches.
    #[inline]
    pub(super) fn volume_of(&mut self, own: SessionRef, lun: u16) -> Option<VolumeId> {
        let node = self.sessions.get(own)?.node?;
        let units = &self.snapshot.targets[node].luns;
        Some(units[place_of(units, lun)?].info.id)
    }

    /// Tells the sessions of a target that `which` names of something that happened to one unit, or to all.
    pub(super) fn tell(&mut self, target: u32, lun: Option<u16>, what: Attention, which: impl Fn(SessionRef) -> bool) {
        let Some(node) = self.node_of(target) else { return };
        let units = &self.snapshot.targets[node].luns;
        let places = match lun {
            Some(lun) => place_of(units, lun).map_or(0..0, |at| at..at + 1),
            None => 0..units.len(),
        };
        for session in self.sessions.iter_mut().filter(|s| s.nexus.target == Some(target) && which(s.own)) {
            for place in places.clone() {
                session.raise(place, what);
            }
        }
    }

    /// A unit, or all of a target's, begin anew; every initiator is told.
    pub(super) fn reset_units(&mut self, target: u32, lun: Option<u16>) {
        let Some(node) = self.node_of(target) else { return };
        let units = &self.snapshot.targets[node].luns;
        for (unit, state) in units.iter().zip(&mut self.nodes[node].states) {
            if lun.is_none_or(|l| l == unit.lun) {
                state.told(LuEvent::Reset);
            }
        }
        self.tell(target, lun, Attention::DeviceReset, |_| true);
    }

    /// A command changed a unit: its state follows, and every other initiator is told.
    pub(super) fn change_unit(&mut self, target: u32, lun: u16, event: LuEvent, by: Option<SessionRef>) {
        let Some(node) = self.node_of(target) else { return };
        let Some(at) = place_of(&self.snapshot.targets[node].luns, lun) else { return };
        self.nodes[node].states[at].told(event);
        if let Some(attention) = event.attention() {
            self.tell(target, Some(lun), attention, |s| Some(s) != by);
        }
    }
}

/// What a nexus is told first.
fn fresh() -> lu::Attentions {
    let mut pending = lu::Attentions::default();
    pending.raise(Attention::PowerOn);
    pending
}

/// A session's attentions after its target changed.
fn carried(old: &[lu::Attentions], before: &TargetNode, now: &TargetNode) -> Vec<lu::Attentions> {
    let numbers = |t: &TargetNode| t.luns.iter().map(|u| u.lun).collect::<Vec<_>>();
    let moved = numbers(before) != numbers(now);
    let each = now.luns.iter().map(|unit| {
        let at = place_of(&before.luns, unit.lun);
        let Some((at, was)) = at.map(|at| (at, &before.luns[at])) else { return fresh() };
        let mut pending = old.get(at).copied().unwrap_or_default();
        for attention in unit.changed_since(was) {
            pending.raise(attention);
        }
        if was.info.id != unit.info.id {
            pending.raise(Attention::InquiryChanged);
        }
        if moved {
            pending.raise(Attention::LunsChanged);
        }
        pending
    });
    each.collect()
}
