//! Reservations of one volume: persistent ones (SPC-4 5.13) and the older RESERVE(6), as an immutable value.
//!
//! Every core checks commands against the value in its volume table ([`Reservations::permits`]); a command that
//! changes it goes to the control plane, which applies it ([`Reservations::apply`]), journals the next value when it
//! must outlive a restart, and gives it to all cores before the command is answered. What stays true of every value:
//! no nexus is registered twice, no key is 0, and who holds a persistent reservation is registered.
//!
//! Nothing here is SCSI's alone: NVMe's registrants are nexuses too (its Host Identifier as the initiator), and its
//! reservation types are the same six.

mod apply;

use std::sync::Arc;

pub use apply::{Applied, Notice, Op, Refused, Told};

/// Registrations one volume takes: what one READ FULL STATUS can tell in a transfer of ordinary size.
pub const REGISTRANTS_MAX: usize = 128;

/// Who asks: one initiator port on one target port (SAM's `I_T` nexus).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Nexus {
    /// The initiator port's stable name: an iSCSI `TransportID` with its ISID (SPC-4 7.6.4.6), an NVMe Host Identifier.
    pub initiator: Arc<[u8]>,
    /// The target device the port belongs to (a target node's index): relative port numbers repeat between devices.
    pub target: u32,
    /// The target port's relative identifier, 1 and up.
    pub port: u16,
}

/// A nexus and its reservation key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Registrant {
    /// Who.
    pub nexus: Nexus,
    /// Never 0.
    pub key: u64,
}

/// What a persistent reservation forbids to others, and who the others are (SPC-4 table 73, NVMe base figure on RTYPE).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Type {
    /// Only the holder writes.
    WriteExclusive,
    /// Only the holder reads and writes.
    ExclusiveAccess,
    /// Only registrants write.
    WriteExclusiveRegistrantsOnly,
    /// Only registrants read and write.
    ExclusiveAccessRegistrantsOnly,
    /// Only registrants write, and each of them is a holder.
    WriteExclusiveAllRegistrants,
    /// Only registrants read and write, and each of them is a holder.
    ExclusiveAccessAllRegistrants,
}

impl Type {
    /// All types, by their SCSI code.
    pub const ALL: [Type; 6] = [
        Type::WriteExclusive,
        Type::ExclusiveAccess,
        Type::WriteExclusiveRegistrantsOnly,
        Type::ExclusiveAccessRegistrantsOnly,
        Type::WriteExclusiveAllRegistrants,
        Type::ExclusiveAccessAllRegistrants,
    ];

    /// The TYPE field of SCSI: 1, 3, 5, 6, 7 or 8.
    pub fn scsi(self) -> u8 {
        match self {
            Type::WriteExclusive => 1,
            Type::ExclusiveAccess => 3,
            Type::WriteExclusiveRegistrantsOnly => 5,
            Type::ExclusiveAccessRegistrantsOnly => 6,
            Type::WriteExclusiveAllRegistrants => 7,
            Type::ExclusiveAccessAllRegistrants => 8,
        }
    }

    /// The type with this SCSI code.
    pub fn from_scsi(code: u8) -> Option<Type> {
        Type::ALL.into_iter().find(|t| t.scsi() == code)
    }

    /// True when every registrant holds the reservation.
    pub fn all_registrants(self) -> bool {
        matches!(self, Type::WriteExclusiveAllRegistrants | Type::ExclusiveAccessAllRegistrants)
    }

    /// True when registrants may do what the reservation forbids to others.
    pub fn favours_registrants(self) -> bool {
        !matches!(self, Type::WriteExclusive | Type::ExclusiveAccess)
    }

    /// True when the reservation forbids reading, too.
    fn excludes_reads(self) -> bool {
        matches!(
            self,
            Type::ExclusiveAccess | Type::ExclusiveAccessRegistrantsOnly | Type::ExclusiveAccessAllRegistrants
        )
    }
}

/// What a command does to the volume, as far as reservations care (the columns of SPC-4 table 31 and SBC-3 table 13).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Allowed whatever is reserved: INQUIRY, REPORT LUNS, REQUEST SENSE.
    Always,
    /// Allowed under every persistent reservation, but not under another nexus's RESERVE(6): TEST UNIT READY,
    /// PERSISTENT RESERVE IN.
    Inspect,
    /// Reads the medium or the mode pages.
    Read,
    /// Changes the medium, the mode pages or the device's state.
    Write,
}

/// A persistent reservation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reservation {
    /// Its type.
    pub kind: Type,
    /// Who holds it; `None` exactly for the all-registrants types.
    pub holder: Option<Nexus>,
}

/// All reservations and registrations of a volume.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reservations {
    generation: u32,
    aptpl: bool,
    registrants: Vec<Registrant>,
    reservation: Option<Reservation>,
    legacy: Option<Nexus>,
}

/// Nothing is reserved: what a volume has that nobody ever reserved.
static NONE: Reservations =
    Reservations { generation: 0, aptpl: false, registrants: Vec::new(), reservation: None, legacy: None };

impl Reservations {
    /// Nothing registered, nothing reserved.
    pub fn none() -> &'static Reservations {
        &NONE
    }

    /// The value a restart begins with, from what was kept of the last one (APTPL was set): `PRgeneration` is 0 again.
    /// `None` when the parts contradict each other.
    pub fn restored(registrants: Vec<Registrant>, reservation: Option<Reservation>) -> Option<Reservations> {
        let value = Reservations { generation: 0, aptpl: true, registrants, reservation, legacy: None };
        value.is_sound().then_some(value)
    }

    /// The part of the value that must outlive a restart: registrants and reservation, when APTPL is set.
    pub fn kept(&self) -> Option<(&[Registrant], Option<&Reservation>)> {
        (self.aptpl && !self.registrants.is_empty()).then_some((&self.registrants[..], self.reservation.as_ref()))
    }

    /// `PRgeneration`: counts the changes of registrations since the node started (SPC-4 5.13.5).
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// True when registrations and reservation are kept over a loss of power (`PTPL_A`).
    pub fn aptpl(&self) -> bool {
        self.aptpl
    }

    /// Who is registered, in the order of registration.
    pub fn registrants(&self) -> &[Registrant] {
        &self.registrants
    }

    /// The persistent reservation.
    pub fn reservation(&self) -> Option<&Reservation> {
        self.reservation.as_ref()
    }

    /// Who holds the volume by RESERVE(6).
    pub fn legacy(&self) -> Option<&Nexus> {
        self.legacy.as_ref()
    }

    /// The nexus's key; `None` when it is not registered.
    pub fn key(&self, who: &Nexus) -> Option<u64> {
        self.registrants.iter().find(|r| r.nexus == *who).map(|r| r.key)
    }

    /// True when the nexus holds the persistent reservation.
    pub fn holds(&self, who: &Nexus) -> bool {
        match &self.reservation {
            None => false,
            Some(Reservation { holder: Some(holder), .. }) => holder == who,
            Some(Reservation { holder: None, .. }) => self.key(who).is_some(),
        }
    }

    /// True when no command of anybody can conflict: nothing is reserved.
    #[inline]
    pub fn is_free(&self) -> bool {
        self.reservation.is_none() && self.legacy.is_none()
    }

    /// True when the nexus may do this; false: RESERVATION CONFLICT.
    pub fn permits(&self, who: &Nexus, access: Access) -> bool {
        if self.is_free() || access == Access::Always {
            return true;
        }
        if let Some(holder) = &self.legacy {
            return holder == who;
        }
        let Some(Reservation { kind, holder }) = &self.reservation else { return true };
        match access {
            Access::Always | Access::Inspect => true,
            Access::Read if !kind.excludes_reads() => true,
            Access::Read | Access::Write => {
                holder.as_ref() == Some(who) || (kind.favours_registrants() && self.key(who).is_some())
            }
        }
    }

    /// What stays true of every value.
    fn is_sound(&self) -> bool {
        let distinct = |r: &Registrant| self.registrants.iter().filter(|o| o.nexus == r.nexus).count() == 1;
        let held = self.reservation.as_ref().is_none_or(|r| match &r.holder {
            Some(holder) => !r.kind.all_registrants() && self.key(holder).is_some(),
            None => r.kind.all_registrants() && !self.registrants.is_empty(),
        });
        let exclusive = self.legacy.is_none() || self.reservation.is_none();
        let fits = self.registrants.len() <= REGISTRANTS_MAX;
        held && exclusive && fits && self.registrants.iter().all(|r| r.key != 0 && distinct(r))
    }
}

#[cfg(test)]
mod tests;
