//! What PERSISTENT RESERVE OUT, RESERVE(6), RELEASE(6) and the loss of a nexus make of a volume's reservations
//! (SPC-4 5.13, 6.16; SPC-2 for the old pair). Pure: the next value, and who is to be told what.

use super::{Nexus, REGISTRANTS_MAX, Registrant, Reservation, Reservations, Type};
use std::sync::Arc;

/// A change asked for by a nexus. Keys are 0 where the command carries none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// REGISTER: register, change the key, or (new key 0) unregister.
    Register {
        /// The key the nexus has; 0 when it has none.
        key: u64,
        /// The key it shall have; 0: none any more.
        new_key: u64,
        /// Registrations and reservation are kept over a loss of power from now on, or no longer.
        aptpl: bool,
        /// `SPEC_I_PT`: other initiator ports to register with the new key.
        initiators: Option<Vec<Arc<[u8]>>>,
        /// `ALL_TG_PT`: the relative identifiers of all ports of the target device.
        ports: Option<Vec<u16>>,
    },
    /// REGISTER AND IGNORE EXISTING KEY.
    RegisterIgnore {
        /// The key the nexus shall have; 0: none any more.
        new_key: u64,
        /// See [`Op::Register`].
        aptpl: bool,
        /// See [`Op::Register`].
        ports: Option<Vec<u16>>,
    },
    /// REGISTER AND MOVE: the holder hands its reservation to another nexus.
    RegisterMove {
        /// The holder's key.
        key: u64,
        /// The key the other nexus shall have; not 0.
        new_key: u64,
        /// See [`Op::Register`].
        aptpl: bool,
        /// The giver is unregistered.
        unregister: bool,
        /// Who gets it.
        to: Nexus,
    },
    /// RESERVE.
    Reserve {
        /// The nexus's key.
        key: u64,
        /// The type of reservation.
        kind: Type,
    },
    /// RELEASE.
    Release {
        /// The nexus's key.
        key: u64,
        /// The type of the reservation to be released; `None`: not one of the six, which matches no reservation.
        kind: Option<Type>,
    },
    /// CLEAR: no reservation and no registration is left.
    Clear {
        /// The nexus's key.
        key: u64,
    },
    /// PREEMPT and PREEMPT AND ABORT.
    Preempt {
        /// The nexus's key.
        key: u64,
        /// The key of those who lose their registrations; 0: all others, under an all-registrants reservation.
        victim: u64,
        /// Type of the new reservation, if this takes one over; `None`: not one of the six.
        kind: Option<Type>,
        /// Commands of those who lose their registrations are aborted.
        abort: bool,
    },
    /// RESERVE(6) or RESERVE(10) of the whole unit.
    Reserve6,
    /// RELEASE(6) or RELEASE(10).
    Release6,
    /// The nexus is gone (its session ended): its RESERVE(6) goes, persistent reservations stay.
    NexusLost,
    /// Logical unit reset: everybody's RESERVE(6) goes, persistent reservations stay.
    Reset,
}

/// Why a change was refused. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// RESERVATION CONFLICT.
    Conflict,
    /// A value that the service action cannot have: INVALID FIELD IN PARAMETER LIST.
    InvalidField,
    /// A reservation type that does not exist: INVALID FIELD IN CDB.
    InvalidType,
    /// INVALID RELEASE OF PERSISTENT RESERVATION.
    InvalidRelease,
    /// INSUFFICIENT REGISTRATION RESOURCES.
    NoResources,
    /// The volume does not exist any more.
    Gone,
    /// The change could not be made durable: the command failed for a reason of this node's.
    Unavailable,
}

/// What a nexus other than the asking one is told: a unit attention condition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notice {
    /// RESERVATIONS PREEMPTED (2Ah/03h): somebody cleared all reservations.
    ReservationsPreempted,
    /// RESERVATIONS RELEASED (2Ah/04h): what the reservation forbade is allowed again, or is another type's business.
    ReservationsReleased,
    /// REGISTRATIONS PREEMPTED (2Ah/05h): the nexus's registration was removed.
    RegistrationsPreempted,
}

/// A nexus that is affected by another's change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    /// Who.
    pub nexus: Nexus,
    /// The unit attention it gets; `None` for the asking nexus itself.
    pub notice: Option<Notice>,
    /// All its commands on the unit, but the one that asked for this, are aborted.
    pub abort: bool,
}

/// A change that was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Applied {
    /// The next value.
    pub next: Reservations,
    /// Who is affected.
    pub told: Vec<Told>,
}

/// The inputs of the two REGISTER service actions; `key` `None`: whatever it is.
struct Registering<'a> {
    key: Option<u64>,
    new_key: u64,
    aptpl: bool,
    initiators: Option<&'a [Arc<[u8]>]>,
    ports: Option<&'a [u16]>,
}

impl Reservations {
    /// The value after `op` of nexus `who`.
    pub fn apply(&self, who: &Nexus, op: &Op) -> Result<Applied, Refused> {
        let persistent = !matches!(op, Op::Reserve6 | Op::Release6 | Op::NexusLost | Op::Reset);
        if persistent && self.legacy.is_some() {
            return Err(Refused::Conflict);
        }
        let mut next = self.clone();
        let mut told = Vec::new();
        match op {
            Op::Register { key, new_key, aptpl, initiators, ports } => {
                let (initiators, ports) = (initiators.as_deref(), ports.as_deref());
                let how = Registering { key: Some(*key), new_key: *new_key, aptpl: *aptpl, initiators, ports };
                next.register(who, &how, &mut told)?;
            }
            Op::RegisterIgnore { new_key, aptpl, ports } => {
                let ports = ports.as_deref();
                let how = Registering { key: None, new_key: *new_key, aptpl: *aptpl, initiators: None, ports };
                next.register(who, &how, &mut told)?;
            }
            Op::RegisterMove { key, new_key, aptpl, unregister, to } => {
                self.registered(who, *key)?;
                next.hand_over(who, *new_key, to)?;
                if *unregister {
                    next.registrants.retain(|r| r.nexus != *who);
                }
                next.aptpl = *aptpl;
                next.count();
            }
            Op::Reserve { key, kind } => {
                self.registered(who, *key)?;
                next.reserve(who, *kind)?;
            }
            Op::Release { key, kind } => {
                self.registered(who, *key)?;
                next.release(who, *kind, &mut told)?;
            }
            Op::Clear { key } => {
                self.registered(who, *key)?;
                let others = self.registrants.iter().filter(|r| r.nexus != *who);
                told.extend(others.map(|r| notice(&r.nexus, Notice::ReservationsPreempted)));
                next.registrants.clear();
                next.reservation = None;
                next.count();
            }
            Op::Preempt { key, victim, kind, abort } => {
                self.registered(who, *key)?;
                next.preempt(who, *victim, *kind, *abort, &mut told)?;
                next.count();
            }
            Op::Reserve6 => next.reserve6(who)?,
            Op::Release6 => next.release6(who)?,
            Op::NexusLost => next.legacy = next.legacy.filter(|holder| holder != who),
            Op::Reset => next.legacy = None,
        }
        assert!(next.is_sound(), "{op:?} of {who:?} made {self:?} into {next:?}");
        Ok(Applied { next, told })
    }

    /// Fails unless the nexus is registered with this key.
    fn registered(&self, who: &Nexus, key: u64) -> Result<(), Refused> {
        if self.key(who) == Some(key) { Ok(()) } else { Err(Refused::Conflict) }
    }

    /// `PRgeneration` counts on; it wraps (SPC-4 6.15.2).
    fn count(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }

    fn set_key(&mut self, nexus: &Nexus, key: u64) -> Result<(), Refused> {
        if let Some(r) = self.registrants.iter_mut().find(|r| r.nexus == *nexus) {
            r.key = key;
        } else if self.registrants.len() == REGISTRANTS_MAX {
            return Err(Refused::NoResources);
        } else {
            self.registrants.push(Registrant { nexus: nexus.clone(), key });
        }
        Ok(())
    }

    /// SPC-4 5.13.7, tables 46 and 47. With `ALL_TG_PT` the request is taken as if it had come in on every port of the
    /// target device, of which only the one it really came in on can refuse it.
    fn register(&mut self, who: &Nexus, how: &Registering<'_>, told: &mut Vec<Told>) -> Result<(), Refused> {
        let own = self.key(who);
        if how.key.is_some_and(|key| key != own.unwrap_or(0)) {
            return Err(Refused::Conflict);
        }
        if how.initiators.is_some() && (own.is_some() || how.new_key == 0) {
            return Err(Refused::InvalidField);
        }
        if own.is_none() && how.new_key == 0 {
            return Ok(());
        }
        let ports = how.ports.unwrap_or_default().iter().copied().filter(|port| *port != who.port);
        let ports: Vec<u16> = std::iter::once(who.port).chain(ports).collect();
        let mut gone = Vec::new();
        for port in &ports {
            let nexus = Nexus { port: *port, ..who.clone() };
            let has = self.key(&nexus);
            if nexus != *who && how.key.is_some_and(|key| key != has.unwrap_or(0)) {
                continue;
            }
            if how.new_key != 0 {
                self.set_key(&nexus, how.new_key)?;
            } else if has.is_some() {
                gone.push(nexus);
            }
        }
        for initiator in how.initiators.unwrap_or_default() {
            for port in &ports {
                let nexus = Nexus { initiator: initiator.clone(), port: *port, target: who.target };
                if self.key(&nexus).is_none() {
                    self.set_key(&nexus, how.new_key)?;
                }
            }
        }
        self.unregister(&gone, told);
        self.aptpl = how.aptpl;
        self.count();
        Ok(())
    }

    /// SPC-4 5.13.11.2.3: the reservation of a holder that unregisters is released; one of all registrants, with the
    /// last of them.
    fn unregister(&mut self, gone: &[Nexus], told: &mut Vec<Told>) {
        self.registrants.retain(|r| !gone.contains(&r.nexus));
        let Some(Reservation { kind, holder }) = &self.reservation else { return };
        let released = match holder {
            Some(holder) => gone.contains(holder),
            None => self.registrants.is_empty(),
        };
        if released {
            if kind.favours_registrants() {
                told.extend(self.registrants.iter().map(|r| notice(&r.nexus, Notice::ReservationsReleased)));
            }
            self.reservation = None;
        }
    }

    /// SPC-4 5.13.8.
    fn hand_over(&mut self, who: &Nexus, new_key: u64, to: &Nexus) -> Result<(), Refused> {
        let held = self.reservation.as_mut().filter(|r| r.holder.as_ref() == Some(who));
        let reservation = held.ok_or(Refused::Conflict)?;
        if new_key == 0 || to == who {
            return Err(Refused::InvalidField);
        }
        reservation.holder = Some(to.clone());
        self.set_key(to, new_key)
    }

    /// SPC-4 5.13.9.
    fn reserve(&mut self, who: &Nexus, kind: Type) -> Result<(), Refused> {
        match &self.reservation {
            None => self.reservation = Some(held_by(who, kind)),
            Some(r) if r.kind == kind && self.holds(who) => {}
            Some(_) => return Err(Refused::Conflict),
        }
        Ok(())
    }

    /// SPC-4 5.13.11.2.2.
    fn release(&mut self, who: &Nexus, kind: Option<Type>, told: &mut Vec<Told>) -> Result<(), Refused> {
        let Some(reservation) = &self.reservation else { return Ok(()) };
        if !self.holds(who) {
            return Ok(());
        }
        if Some(reservation.kind) != kind {
            return Err(Refused::InvalidRelease);
        }
        if reservation.kind.favours_registrants() {
            let others = self.registrants.iter().filter(|r| r.nexus != *who);
            told.extend(others.map(|r| notice(&r.nexus, Notice::ReservationsReleased)));
        }
        self.reservation = None;
        Ok(())
    }

    /// SPC-4 5.13.11.2.4 to 5.13.11.2.6.
    fn preempt(
        &mut self,
        who: &Nexus,
        victim: u64,
        kind: Option<Type>,
        abort: bool,
        told: &mut Vec<Told>,
    ) -> Result<(), Refused> {
        let takes_over = match &self.reservation {
            None => false,
            Some(Reservation { holder: None, .. }) => victim == 0,
            Some(Reservation { holder: Some(holder), .. }) => self.key(holder) == Some(victim),
        };
        if !takes_over && victim == 0 {
            return Err(Refused::InvalidField);
        }
        let is_victim = |r: &Registrant| victim == 0 || r.key == victim;
        if !takes_over && !self.registrants.iter().any(is_victim) {
            return Err(Refused::Conflict);
        }
        let kind = if takes_over { Some(kind.ok_or(Refused::InvalidType)?) } else { None };
        for r in self.registrants.iter().filter(|r| is_victim(r)) {
            match (r.nexus == *who, abort) {
                (false, _) => {
                    let notice = Some(Notice::RegistrationsPreempted);
                    told.push(Told { nexus: r.nexus.clone(), notice, abort });
                }
                // All registrants but oneself: that is what key 0 names.
                (true, true) if victim != 0 => told.push(Told { nexus: who.clone(), notice: None, abort }),
                (true, _) => {}
            }
        }
        self.registrants.retain(|r| !is_victim(r) || (takes_over && r.nexus == *who));
        if let Some(kind) = kind {
            if self.reservation.as_ref().is_some_and(|old| old.kind != kind) {
                let others = self.registrants.iter().filter(|r| r.nexus != *who);
                told.extend(others.map(|r| notice(&r.nexus, Notice::ReservationsReleased)));
            }
            self.reservation = Some(held_by(who, kind));
        } else if self.reservation.as_ref().is_some_and(|r| r.holder.is_none()) && self.registrants.is_empty() {
            self.reservation = None;
        }
        Ok(())
    }

    /// SPC-2 7.22 with the exceptions of SPC-4 5.13.3 (`CRH` is 1): who holds, or is a registrant under a registrants'
    /// reservation, gets GOOD and nothing else.
    fn reserve6(&mut self, who: &Nexus) -> Result<(), Refused> {
        if self.tolerates_legacy(who) {
            return Ok(());
        }
        let taken = self.legacy.as_ref().is_some_and(|holder| holder != who);
        if taken || self.reservation.is_some() || !self.registrants.is_empty() {
            return Err(Refused::Conflict);
        }
        self.legacy = Some(who.clone());
        Ok(())
    }

    /// SPC-2 7.17 with the same exceptions. Releasing what another nexus holds is GOOD and does nothing.
    fn release6(&mut self, who: &Nexus) -> Result<(), Refused> {
        if self.tolerates_legacy(who) {
            return Ok(());
        }
        if self.reservation.is_some() || !self.registrants.is_empty() {
            return Err(Refused::Conflict);
        }
        if self.legacy.as_ref() == Some(who) {
            self.legacy = None;
        }
        Ok(())
    }

    fn tolerates_legacy(&self, who: &Nexus) -> bool {
        let Some(reservation) = &self.reservation else { return false };
        self.holds(who) || (reservation.kind.favours_registrants() && self.key(who).is_some())
    }
}

fn held_by(who: &Nexus, kind: Type) -> Reservation {
    Reservation { kind, holder: (!kind.all_registrants()).then(|| who.clone()) }
}

fn notice(nexus: &Nexus, notice: Notice) -> Told {
    Told { nexus: nexus.clone(), notice: Some(notice), abort: false }
}
