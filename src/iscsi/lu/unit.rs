//! What a logical unit is: the part that only configuration changes. It is part of the target's snapshot.

use super::Attention;
use crate::base::VolumeId;
use crate::volume::Info;
use crate::volume::reserve;
use std::sync::Arc;

/// A logical unit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unit {
    /// Its number: 0 to 16383.
    pub lun: u16,
    /// The volume behind it, as it is now.
    pub info: Info,
    /// T10 vendor identification: up to 8 ASCII characters.
    pub vendor: String,
    /// Product identification: up to 16 ASCII characters.
    pub product: String,
    /// Product revision level: up to 4 ASCII characters.
    pub revision: String,
    /// Unit serial number: ASCII, at most 128 characters.
    pub serial: String,
    /// Bytes of a physical block: what writes should be aligned to. A power of two, at least the logical block.
    pub physical_block: u32,
    /// Percentage of the pool's space in use from which initiators are told that it is nearly full (soft threshold,
    /// [`super::Attention::SoftThreshold`]); 0: never.
    pub threshold_percent: u8,
    /// The target that it belongs to.
    pub device: Arc<Device>,
}

impl Unit {
    /// The volume behind it.
    pub fn volume(&self) -> VolumeId {
        self.info.id
    }

    /// Its NAA designator, which XCOPY and multipath software know it by.
    pub fn naa(&self) -> [u8; 8] {
        crate::wire::scsi::designator::naa(&self.info.uuid)
    }

    /// Logical blocks of a physical one; a power of two.
    pub(super) fn blocks_per_physical(&self) -> u32 {
        1 << (self.physical_block / self.info.block_size).max(1).ilog2().min(15)
    }

    /// What initiators must be told when this unit takes the place of `old`: same LUN, same target.
    pub fn changed_since(&self, old: &Unit) -> impl Iterator<Item = Attention> + use<> {
        let capacity = self.info.blocks != old.info.blocks || self.info.block_size != old.info.block_size;
        let names = |u: &Unit| (u.vendor.clone(), u.product.clone(), u.revision.clone(), u.serial.clone());
        let inquiry = names(self) != names(old) || self.info.uuid != old.info.uuid || self.info.thin != old.info.thin;
        let modes = self.info.read_only != old.info.read_only || self.threshold_percent != old.threshold_percent;
        let access = self.device.groups != old.device.groups;
        let all = [
            (capacity, Attention::CapacityChanged),
            (inquiry, Attention::InquiryChanged),
            (modes, Attention::ModeChanged),
            (access, Attention::AluaChanged),
        ];
        all.into_iter().filter(|(changed, _)| *changed).map(|(_, attention)| attention)
    }

    /// Serial number as it may be shown.
    pub(super) fn serial(&self) -> &str {
        &self.serial[..self.serial.floor_char_boundary(128)]
    }
}

/// The SCSI target device that units belong to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Device {
    name: String,
    groups: Vec<Group>,
    all_active: bool,
}

impl Device {
    /// A device of this iSCSI name with these target port groups. Each iSCSI portal group is a target port and, by
    /// itself, a target port group.
    pub fn new(name: String, groups: Vec<Group>) -> Device {
        let all_active = groups.iter().all(|g| g.access.serves());
        Device { name, groups, all_active }
    }

    /// Its iSCSI name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its target port groups.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The access state of a port group; active where the group is not known.
    #[inline]
    pub fn access(&self, group: u16) -> Access {
        if self.all_active {
            return Access::ActiveOptimized;
        }
        self.groups.iter().find(|g| g.id == group).map_or(Access::ActiveOptimized, |g| g.access)
    }
}

/// A target port group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// TARGET PORT GROUP: the tag of the portal group.
    pub id: u16,
    /// How its ports serve.
    pub access: Access,
    /// PREF: the preferred way to the unit.
    pub preferred: bool,
    /// Relative identifiers of its ports.
    pub ports: Vec<u16>,
}

/// Asymmetric access states (SPC-4, 5.15.2.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Access {
    /// Active/optimized.
    #[default]
    ActiveOptimized = 0,
    /// Active/non-optimized.
    ActiveNonOptimized = 1,
    /// Standby: no media access.
    Standby = 2,
    /// Unavailable.
    Unavailable = 3,
    /// On the way from one state to another.
    Transitioning = 15,
}

impl Access {
    /// True when commands that touch the medium are served.
    pub fn serves(self) -> bool {
        matches!(self, Access::ActiveOptimized | Access::ActiveNonOptimized)
    }
}

/// Who asks, and through which port: the `I_T` nexus.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nexus<'a> {
    /// The initiator port (its iSCSI `TransportID` with ISID, as `wire::scsi::designator::put_transport_id` makes it) and
    /// the relative identifier of the target port.
    pub who: &'a reserve::Nexus,
    /// Target port group of that port: the tag of its portal group.
    pub group: u16,
}
