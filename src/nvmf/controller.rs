//! Controllers: one per admin queue, in the table of the core that accepted it. A controller is plain state; what happens
//! to it is decided in `connect`, `property`, `admin` and `events`.

use super::message::{ControllerRef, Traffic};
use crate::base::{CoreId, Time};
use crate::net::ConnId;
use crate::wire::nvme::log::ErrorEntry;
use std::collections::VecDeque;

/// An I/O queue of a controller, on whatever core it was accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct IoQueue {
    pub qid: u16,
    pub core: CoreId,
    pub conn: ConnId,
}

/// Entries the error log keeps (ELPE + 1).
pub(super) const ERROR_LOG: usize = 32;

/// Most NSIDs in the Changed Namespace List; more are reported as "all".
pub(super) const CHANGED_MAX: usize = 1024;

/// Events that can wait for an Asynchronous Event Request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Events {
    /// Asynchronous Event Configuration: what the host wants to hear of.
    pub config: u32,
    /// A namespace change waits to be told.
    pub namespaces: bool,
    /// It was told, and the host has not read the list yet.
    pub namespaces_told: bool,
    /// A change of the discovery log waits to be told.
    pub discovery: bool,
    /// It was told, and the host has not read the log yet.
    pub discovery_told: bool,
}

/// A controller.
#[derive(Debug)]
pub(super) struct Controller {
    /// Itself.
    pub own: ControllerRef,
    pub cntlid: u16,
    /// Its admin queue.
    pub admin: ConnId,
    /// Index of the subsystem in this core's table.
    pub sub: u32,
    pub hostnqn: String,
    pub hostid: [u8; 16],
    pub discovery: bool,
    /// CC.
    pub cc: u32,
    /// CSTS.
    pub csts: u32,
    /// CAP.MQES, as it was when the controller was made.
    pub mqes: u16,
    /// Largest transfer, bytes.
    pub io_max: u32,
    /// In-capsule data of I/O commands, bytes.
    pub in_capsule: u32,
    /// I/O queues granted by Set Features; before that, as many as the transport allows.
    pub queues_granted: u16,
    /// I/O queues the transport allows.
    pub queues_max: u16,
    pub queues: Vec<IoQueue>,
    /// Keep alive timeout, ms; 0: none.
    pub kato: u32,
    /// When a command of any of its queues was last seen.
    pub last_seen: Time,
    pub events: Events,
    /// Slots of the admin queue that hold Asynchronous Event Requests, oldest first.
    pub requests: Vec<u16>,
    /// Abort commands that wait for another core.
    pub aborts: u8,
    /// Changed Namespace List; `None` when there were more than [`CHANGED_MAX`].
    pub changed: Option<Vec<u32>>,
    /// Error log, newest first.
    pub errors: VecDeque<ErrorEntry>,
    /// Errors logged over its life.
    pub error_count: u64,
    /// Values of settable features without effect here, by their place in `features`.
    pub features: super::features::Values,
    /// What its I/O queues did, for the SMART log.
    pub work: Traffic,
    /// When it was made.
    pub since: Time,
}

/// What a new controller is made of.
#[derive(Debug)]
pub(super) struct NewController {
    pub cntlid: u16,
    pub admin: ConnId,
    pub sub: u32,
    pub hostnqn: String,
    pub hostid: [u8; 16],
    pub discovery: bool,
    pub mqes: u16,
    pub io_max: u32,
    pub in_capsule: u32,
    pub queues_max: u16,
    pub kato: u32,
}

impl Controller {
    fn new(new: NewController, own: ControllerRef, now: Time) -> Controller {
        Controller {
            own,
            cntlid: new.cntlid,
            admin: new.admin,
            sub: new.sub,
            hostnqn: new.hostnqn,
            hostid: new.hostid,
            discovery: new.discovery,
            cc: 0,
            csts: 0,
            mqes: new.mqes,
            io_max: new.io_max,
            in_capsule: new.in_capsule,
            queues_granted: new.queues_max,
            queues_max: new.queues_max,
            queues: Vec::new(),
            kato: new.kato,
            last_seen: now,
            events: Events::default(),
            requests: Vec::new(),
            aborts: 0,
            changed: Some(Vec::new()),
            errors: VecDeque::with_capacity(ERROR_LOG),
            error_count: 0,
            features: super::features::Values::default(),
            work: Traffic::default(),
            since: now,
        }
    }

    /// A queue was active: the keep alive timer starts again.
    pub fn heard(&mut self, now: Time, traffic: Traffic) {
        self.last_seen = now;
        self.work.reads += traffic.reads;
        self.work.read_bytes += traffic.read_bytes;
        self.work.writes += traffic.writes;
        self.work.write_bytes += traffic.write_bytes;
        self.work.media_errors += traffic.media_errors;
    }

    /// CSTS.RDY.
    pub fn ready(&self) -> bool {
        self.csts & crate::wire::fabrics::property::CSTS_RDY != 0
    }

    /// Adds to the Changed Namespace List.
    pub fn note_changed(&mut self, nsids: &[u32]) {
        if let Some(list) = &mut self.changed {
            list.extend_from_slice(nsids);
            list.sort_unstable();
            list.dedup();
            if list.len() > CHANGED_MAX {
                self.changed = None;
            }
        }
    }

    /// Adds an error to the log.
    pub fn log_error(&mut self, mut entry: ErrorEntry) {
        self.error_count += 1;
        entry.count.set(self.error_count);
        self.errors.truncate(ERROR_LOG - 1);
        self.errors.push_front(entry);
    }
}

/// The controllers of a core.
#[derive(Debug)]
pub(super) struct Controllers {
    core: CoreId,
    cores: u16,
    max: usize,
    places: Vec<(u32, Option<Box<Controller>>)>,
    /// The CNTLID handed out last; ids are not reused soon, so that a late Connect does not find a stranger.
    last: u16,
}

impl Controllers {
    /// An empty table of `core`, one of `cores`, for at most `max` controllers.
    pub fn new(core: CoreId, cores: u16, max: usize) -> Controllers {
        assert!(core.0 < cores, "a core is one of the cores");
        Controllers { core, cores, max: max.min(usize::from(u16::MAX)), places: Vec::new(), last: 0 }
    }

    /// The core that owns a CNTLID of any subsystem.
    pub fn owner(&self, cntlid: u16) -> CoreId {
        CoreId(cntlid % self.cores)
    }

    /// A CNTLID within `min..=max` that this core owns and no controller of subsystem `sub` here uses.
    pub fn free_id(&mut self, sub: u32, min: u16, max: u16) -> Option<u16> {
        let (step, mine) = (u32::from(self.cores), u32::from(self.core.0));
        let (min, max) = (u32::from(min.max(1)), u32::from(max));
        // The ids of this core in the range: first, first + step, ...
        let first = min + (mine + step - min % step) % step;
        let count = (max + 1).saturating_sub(first).div_ceil(step);
        let after = (u32::from(self.last) + 1).saturating_sub(first).div_ceil(step);
        let id = (0..count).map(|i| first + (after + i) % count * step).find(|id| {
            let used = |c: &Controller| c.sub == sub && u32::from(c.cntlid) == *id;
            !self.iter().any(used)
        })?;
        self.last = id as u16;
        Some(id as u16)
    }

    /// Makes a controller; `None` when the table is full.
    pub fn add(&mut self, new: NewController, now: Time) -> Option<&mut Controller> {
        let index = match self.places.iter().position(|(_, c)| c.is_none()) {
            Some(index) => index,
            None if self.places.len() < self.max => {
                self.places.push((0, None));
                self.places.len() - 1
            }
            None => return None,
        };
        let place = &mut self.places[index];
        place.0 += 1;
        let own = ControllerRef { owner: self.core, index: index as u16, generation: place.0 };
        Some(place.1.insert(Box::new(Controller::new(new, own, now))))
    }

    /// A controller of this core.
    pub fn get(&mut self, at: ControllerRef) -> Option<&mut Controller> {
        let (generation, place) = self.places.get_mut(usize::from(at.index))?;
        if at.owner != self.core || *generation != at.generation {
            return None;
        }
        place.as_deref_mut()
    }

    /// A controller by subsystem and CNTLID.
    pub fn find(&mut self, sub: u32, cntlid: u16) -> Option<&mut Controller> {
        let places = self.places.iter_mut().filter_map(|(_, c)| c.as_deref_mut());
        places.into_iter().find(|c| c.sub == sub && c.cntlid == cntlid)
    }

    /// Takes a controller out.
    pub fn remove(&mut self, at: ControllerRef) -> Option<Box<Controller>> {
        self.get(at)?;
        self.places[usize::from(at.index)].1.take()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Controller> {
        self.places.iter().filter_map(|(_, c)| c.as_deref())
    }

    /// All of them, to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Controller> {
        self.places.iter_mut().filter_map(|(_, c)| c.as_deref_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(cntlid: u16) -> NewController {
        NewController {
            cntlid,
            admin: ConnId { slot: 0, generation: 0 },
            sub: 1,
            hostnqn: String::new(),
            hostid: [0; 16],
            discovery: false,
            mqes: 127,
            io_max: 1 << 20,
            in_capsule: 8192,
            queues_max: 4,
            kato: 0,
        }
    }

    #[test]
    fn ids_name_their_owner_stay_in_range_and_are_not_reused_soon() {
        for cores in 1..5u16 {
            for core in 0..cores {
                let mut c = Controllers::new(CoreId(core), cores, 100);
                let mut seen = Vec::new();
                for (min, max) in [(1, 9), (1, 0xffef), (40, 48)] {
                    while let Some(id) = c.free_id(1, min, max).filter(|_| seen.len() < 20) {
                        assert!((min..=max).contains(&id) && c.owner(id) == CoreId(core));
                        assert!(!seen.contains(&id), "{id} is in use");
                        seen.push(id);
                        c.add(new(id), Time(0)).unwrap();
                    }
                }
                assert!(c.free_id(2, 1, 9).is_some(), "another subsystem has its own ids");
            }
        }
        let mut c = Controllers::new(CoreId(0), 1, 1);
        let first = c.free_id(1, 1, 5).unwrap();
        assert_ne!(c.free_id(1, 1, 5), Some(first));
        assert!(Controllers::new(CoreId(1), 2, 1).free_id(1, 2, 2).is_none(), "no id of this core in the range");
    }

    #[test]
    fn a_reused_place_is_another_controller() {
        let mut c = Controllers::new(CoreId(0), 1, 1);
        let old = c.add(new(1), Time(0)).unwrap().own;
        assert!(c.add(new(2), Time(0)).is_none(), "the table is full");
        assert_eq!(c.remove(old).unwrap().cntlid, 1);
        let young = c.add(new(3), Time(0)).unwrap().own;
        assert!(c.get(old).is_none() && c.remove(old).is_none());
        assert_eq!((c.get(young).unwrap().cntlid, c.find(1, 3).is_some(), c.find(2, 3).is_some()), (3, true, false));
    }
}
