//! Unit attention conditions of one nexus and logical unit (SAM-5, 5.14). Each kind is pending or not, so the queue is
//! bounded by the number of kinds; they are reported in the order of precedence that the standard gives to resets.

use crate::wire::scsi::{Asc, asc};

/// What an initiator is told before its next command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Attention {
    /// Power on, reset, or bus device reset occurred: a new nexus.
    PowerOn,
    /// LOGICAL UNIT RESET or target reset.
    DeviceReset,
    /// The nexus was lost, and is there again.
    NexusLoss,
    /// Another nexus cleared the task set.
    CommandsCleared,
    /// The reported LUNs are others.
    LunsChanged,
    /// Standard INQUIRY data or a VPD page changed.
    InquiryChanged,
    /// The capacity changed.
    CapacityChanged,
    /// Another nexus changed the mode pages.
    ModeChanged,
    /// Another nexus preempted the reservation and the registration of this one.
    RegistrationsPreempted,
    /// As above, the reservation.
    ReservationsPreempted,
    /// A reservation that this nexus was a party to was released.
    ReservationsReleased,
    /// The access state of a target port group changed.
    AluaChanged,
    /// The pool behind the volume is nearly full.
    SoftThreshold,
}

const ALL: [(Attention, Asc); 13] = [
    (Attention::PowerOn, asc::POWER_ON),
    (Attention::DeviceReset, asc::DEVICE_RESET),
    (Attention::NexusLoss, asc::NEXUS_LOSS),
    (Attention::CommandsCleared, asc::COMMANDS_CLEARED),
    (Attention::LunsChanged, asc::LUNS_CHANGED),
    (Attention::InquiryChanged, asc::INQUIRY_CHANGED),
    (Attention::CapacityChanged, asc::CAPACITY_CHANGED),
    (Attention::ModeChanged, asc::MODE_CHANGED),
    (Attention::RegistrationsPreempted, asc::REGISTRATIONS_PREEMPTED),
    (Attention::ReservationsPreempted, asc::RESERVATIONS_PREEMPTED),
    (Attention::ReservationsReleased, asc::RESERVATIONS_RELEASED),
    (Attention::AluaChanged, asc::ALUA_CHANGED),
    (Attention::SoftThreshold, asc::SOFT_THRESHOLD),
];

impl Attention {
    /// Its additional sense code.
    pub fn asc(self) -> Asc {
        ALL[self as usize].1
    }
}

/// What is pending for one nexus and unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Attentions(u16);

impl Attentions {
    /// Adds a condition. A power on or a reset takes the place of what was pending: the initiator has to look at
    /// everything anew.
    pub fn raise(&mut self, attention: Attention) {
        if matches!(attention, Attention::PowerOn | Attention::DeviceReset) {
            self.0 = 0;
        }
        self.0 |= 1 << attention as u8;
    }

    /// True when there is none.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The one that is reported next.
    pub fn first(self) -> Option<Attention> {
        ALL.get(self.0.trailing_zeros() as usize).map(|(a, _)| *a)
    }

    /// Takes the one that is reported now.
    pub fn take(&mut self) -> Option<Attention> {
        let first = self.first()?;
        self.clear(first);
        Some(first)
    }

    /// Drops a condition.
    pub fn clear(&mut self, attention: Attention) {
        self.0 &= !(1 << attention as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_condition_is_told_once_and_resets_come_first() {
        for (at, (attention, asc)) in ALL.into_iter().enumerate() {
            assert_eq!((attention as usize, attention.asc()), (at, asc), "the table is in the order of the enum");
        }
        let mut pending = Attentions::default();
        assert_eq!(pending.take(), None);
        for attention in [Attention::ModeChanged, Attention::CapacityChanged, Attention::ModeChanged] {
            pending.raise(attention);
        }
        assert_eq!(pending.take(), Some(Attention::CapacityChanged));
        assert_eq!(pending.take(), Some(Attention::ModeChanged));
        assert!(pending.is_empty());
        pending.raise(Attention::ModeChanged);
        pending.raise(Attention::DeviceReset);
        pending.raise(Attention::NexusLoss);
        assert_eq!(pending.take(), Some(Attention::DeviceReset));
        assert_eq!(pending.take(), Some(Attention::NexusLoss));
        assert_eq!(pending.take(), None);
    }
}
