//! Sessions of one core: who logged in where, the window of command numbers that orders their commands over all their
//! connections, and what their initiators have yet to be told.

use super::lu::{Attention, Attentions};
use super::params::Params;
use crate::base::CoreId;
use crate::net::ConnId;
use crate::volume::reserve;
use crate::wire::iscsi::sn_before;
use crate::wire::iscsi::value::NAME_MAX;
use crate::wire::scsi::Out;
use crate::wire::scsi::designator::put_transport_id;
use std::sync::Arc;

/// A session of this core.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SessionRef {
    index: u16,
    generation: u32,
}

/// The name of a session: an initiator port and the target port group it came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Nexus {
    /// `InitiatorName`, as it was given.
    pub initiator: Arc<str>,
    /// ISID.
    pub isid: [u8; 6],
    /// Index of the target node; `None` for discovery.
    pub target: Option<u32>,
    /// `TargetPortalGroupTag`.
    pub tag: u16,
}

impl Nexus {
    /// True when both name the same session. Names compare without regard to case.
    pub fn same(&self, other: &Nexus) -> bool {
        (self.isid, self.target, self.tag) == (other.isid, other.target, other.tag)
            && self.initiator.eq_ignore_ascii_case(&other.initiator)
    }

    /// The initiator port as SCSI names it. Names compare without regard to case, so they are told apart in lower case.
    fn transport_id(&self) -> Arc<[u8]> {
        let mut bytes = [0; NAME_MAX + 32];
        let mut out = Out::new(&mut bytes);
        put_transport_id(&mut out, &self.initiator.to_ascii_lowercase(), self.isid);
        let len = out.len();
        Arc::from(&bytes[..len])
    }
}

/// What becomes of a numbered command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Turn {
    /// It is the next one.
    Now,
    /// Commands before it are still to come, on other connections.
    Later,
    /// Outside the window, or seen before: ignored.
    Never,
}

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    pub own: SessionRef,
    pub tsih: u16,
    pub nexus: Nexus,
    /// Its ports as SCSI and reservations name them: the initiator's by its `TransportID` (SPC-4 7.6.4.6).
    pub who: reserve::Nexus,
    /// `InitiatorAlias`.
    pub alias: String,
    /// Place of the target in the snapshot; `None` for discovery, and for a target that is gone.
    pub node: Option<usize>,
    /// `ExpCmdSN`.
    pub exp_cmd_sn: u32,
    /// `MaxCmdSN`; never goes back.
    pub max_cmd_sn: u32,
    /// What the leading connection agreed on.
    pub params: Params,
    /// Its old-style reservations have been given back.
    pub lost: bool,
    /// Its connections, with their CIDs.
    pub conns: Vec<(u16, ConnId)>,
    /// What its initiator has not been told yet, by place of the unit in its target.
    pub attentions: Vec<Attentions>,
}

impl Session {
    /// Where command number `sn` stands.
    #[inline]
    pub fn turn(&self, sn: u32) -> Turn {
        if sn == self.exp_cmd_sn && !sn_before(self.max_cmd_sn, sn) {
            Turn::Now
        } else if sn_before(sn, self.exp_cmd_sn) || sn_before(self.max_cmd_sn, sn) {
            Turn::Never
        } else {
            Turn::Later
        }
    }

    /// The next command was taken.
    #[inline]
    pub fn took(&mut self) {
        self.exp_cmd_sn = self.exp_cmd_sn.wrapping_add(1);
    }

    /// A numbered command has come to its end: there is room for one more.
    #[inline]
    pub fn ended(&mut self) {
        self.max_cmd_sn = self.max_cmd_sn.wrapping_add(1);
    }

    /// Tells the initiator of something that happened to a unit.
    pub fn raise(&mut self, unit: usize, attention: Attention) {
        if let Some(pending) = self.attentions.get_mut(unit) {
            pending.raise(attention);
        }
    }
}

/// All sessions of a core.
#[derive(Debug)]
pub(super) struct Sessions {
    core: CoreId,
    cores: u16,
    all: Vec<Place>,
    /// Where the search for a free place begins, so that a TSIH is not used again at once.
    next: usize,
    live: usize,
}

#[derive(Debug)]
struct Place {
    generation: u32,
    session: Option<Box<Session>>,
}

impl Sessions {
    /// A table of at most `most` sessions, bounded also by the TSIHs that this core of `cores` has.
    pub fn new(core: CoreId, cores: u16, most: usize) -> Sessions {
        assert!(core.0 < cores, "a core is one of those there are");
        let tsihs = usize::from((u16::MAX - 1 - core.0) / cores) + 1;
        let all = (0..most.min(tsihs)).map(|_| Place { generation: 0, session: None }).collect();
        Sessions { core, cores, all, next: 0, live: 0 }
    }

    /// A new session without connections; `None` when the table is full.
    pub fn open(&mut self, nexus: Nexus, node: Option<usize>, params: Params, cmd_sn: u32) -> Option<&mut Session> {
        let free = |i: &usize| self.all[*i].session.is_none();
        let index = (self.next..self.all.len()).chain(0..self.next).find(free)?;
        self.next = (index + 1) % self.all.len();
        self.live += 1;
        let place = &mut self.all[index];
        place.generation = place.generation.wrapping_add(1);
        let own = SessionRef { index: index as u16, generation: place.generation };
        let session = Session {
            own,
            tsih: index as u16 * self.cores + self.core.0 + 1,
            who: reserve::Nexus {
                initiator: nexus.transport_id(),
                target: nexus.target.unwrap_or(u32::MAX),
                port: nexus.tag,
            },
            nexus,
            alias: String::new(),
            node,
            exp_cmd_sn: cmd_sn,
            max_cmd_sn: cmd_sn,
            params,
            lost: false,
            conns: Vec::new(),
            attentions: Vec::new(),
        };
        Some(place.session.insert(Box::new(session)))
    }

    /// The core that a TSIH belongs to.
    pub fn core_of(&self, tsih: u16) -> CoreId {
        CoreId(tsih.wrapping_sub(1) % self.cores)
    }

    /// The session with this TSIH.
    pub fn by_tsih(&mut self, tsih: u16) -> Option<&mut Session> {
        if tsih == 0 || self.core_of(tsih) != self.core {
            return None;
        }
        self.all.get_mut(usize::from((tsih - 1) / self.cores))?.session.as_deref_mut()
    }

    /// A session that still exists.
    #[inline]
    pub fn get(&mut self, own: SessionRef) -> Option<&mut Session> {
        let place = self.all.get_mut(usize::from(own.index))?;
        if place.generation == own.generation { place.session.as_deref_mut() } else { None }
    }

    /// A session that still exists, to look at.
    pub fn peek(&self, own: SessionRef) -> Option<&Session> {
        let place = self.all.get(usize::from(own.index))?;
        if place.generation == own.generation { place.session.as_deref() } else { None }
    }

    /// Forgets a session.
    pub fn close(&mut self, own: SessionRef) -> Option<Box<Session>> {
        let place = self.all.get_mut(usize::from(own.index)).filter(|p| p.generation == own.generation)?;
        let session = place.session.take();
        self.live -= usize::from(session.is_some());
        session
    }

    /// All sessions.
    pub fn iter(&self) -> impl Iterator<Item = &Session> {
        self.all.iter().filter_map(|p| p.session.as_deref())
    }

    /// All sessions, to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Session> {
        self.all.iter_mut().filter_map(|p| p.session.as_deref_mut())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.live
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nexus() -> Nexus {
        Nexus { initiator: "iqn.2020-01.a:b".into(), isid: [0; 6], target: Some(1), tag: 1 }
    }

    #[test]
    fn the_window_takes_what_is_next_and_ignores_what_is_outside() {
        let mut all = Sessions::new(CoreId(0), 1, 1);
        let s = all.open(nexus(), None, Params::default(), u32::MAX - 1).unwrap();
        s.max_cmd_sn = 2;
        assert_eq!(s.turn(u32::MAX - 2), Turn::Never);
        assert_eq!(s.turn(u32::MAX - 1), Turn::Now);
        assert_eq!((s.turn(u32::MAX), s.turn(2), s.turn(3)), (Turn::Later, Turn::Later, Turn::Never));
        for _ in 0..4 {
            assert_eq!(s.turn(s.exp_cmd_sn), Turn::Now);
            s.took();
        }
        assert_eq!((s.exp_cmd_sn, s.turn(2)), (2, Turn::Now));
        s.took();
        assert_eq!(s.turn(3), Turn::Never, "the window is closed");
        s.ended();
        assert_eq!(s.turn(3), Turn::Now);
    }

    #[test]
    fn tsihs_name_their_core_and_are_not_used_again_at_once() {
        for core in 0..3 {
            let mut all = Sessions::new(CoreId(core), 3, 2);
            let first = all.open(nexus(), None, Params::default(), 1).unwrap();
            let (own, tsih) = (first.own, first.tsih);
            assert!(tsih != 0 && all.core_of(tsih) == CoreId(core));
            assert!(all.by_tsih(tsih).is_some() && all.by_tsih(tsih + 1).is_none());
            assert!(all.close(own).is_some() && all.close(own).is_none());
            let second = all.open(nexus(), None, Params::default(), 1).unwrap().own;
            assert_ne!(own, second);
            assert!(all.open(nexus(), None, Params::default(), 1).is_some());
            assert!(all.open(nexus(), None, Params::default(), 1).is_none(), "the table is full");
            assert_eq!((all.len(), all.iter().count()), (2, 2));
            assert!(all.get(own).is_none() && all.get(second).is_some());
        }
        let all = Sessions::new(CoreId(63), 64, usize::MAX);
        assert_eq!(all.all.len(), 1023, "the last one has TSIH 65472");
    }
}
