//! A bdev as operators see it: a raw device or a volume, found by name, alias or UUID.

use super::Control;
use crate::base::VolumeId;
use crate::cluster::error::Error;
use crate::cluster::model::{Device, Store, Volume};
use crate::cluster::node::{DeviceReport, Node};
use std::sync::Arc;
use uuid::Uuid;

/// A raw device or a volume that is open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Bdev {
    /// A raw device.
    Device {
        /// What is configured.
        device: Arc<Device>,
        /// What was opened.
        report: DeviceReport,
        /// Who uses it exclusively.
        claim: Option<&'static str>,
    },
    /// A volume.
    Volume {
        /// Its store.
        store: Arc<Store>,
        /// Itself.
        volume: Volume,
    },
}

impl Bdev {
    /// Its number on the data path.
    pub fn id(&self) -> VolumeId {
        match self {
            Bdev::Device { device, .. } => device.id,
            Bdev::Volume { volume, .. } => volume.id,
        }
    }
    /// Its name: a device's own, a volume's UUID.
    pub fn name(&self) -> String {
        match self {
            Bdev::Device { device, .. } => device.name.to_string(),
            Bdev::Volume { volume, .. } => volume.uuid.to_string(),
        }
    }
    /// Its other name: a volume's `store/volume`.
    pub fn alias(&self) -> Option<String> {
        match self {
            Bdev::Device { .. } => None,
            Bdev::Volume { store, volume } => Some(format!("{}/{}", store.name, volume.name)),
        }
    }
    /// Its identity.
    pub fn uuid(&self) -> Uuid {
        match self {
            Bdev::Device { device, .. } => device.uuid,
            Bdev::Volume { volume, .. } => volume.uuid,
        }
    }
    /// Bytes per logical block.
    pub fn block_size(&self) -> u32 {
        match self {
            Bdev::Device { report, .. } => report.block_size,
            Bdev::Volume { volume, .. } => volume.block_size,
        }
    }
    /// Logical blocks.
    pub fn blocks(&self) -> u64 {
        match self {
            Bdev::Device { report, .. } => report.blocks,
            Bdev::Volume { volume, .. } => volume.bytes / u64::from(volume.block_size),
        }
    }
    /// Writes are refused.
    pub fn read_only(&self) -> bool {
        match self {
            Bdev::Device { report, .. } => report.read_only,
            Bdev::Volume { volume, .. } => volume.read_only,
        }
    }
    /// True when `name` is its name, alias or UUID.
    fn answers_to(&self, name: &str) -> bool {
        self.name() == name
            || self.alias().is_some_and(|alias| alias == name)
            || Uuid::try_parse(name).is_ok_and(|uuid| uuid == self.uuid())
    }
}

impl<N: Node> Control<N> {
    /// Every open bdev: raw devices by age, then volumes by age.
    pub fn bdevs(&self) -> Vec<Bdev> {
        let state = self.state();
        let reports = self.devices.borrow();
        let devices = state.devices().filter_map(|device| {
            let (_, report) = reports.get(&device.id)?.clone();
            Some(Bdev::Device { device: device.clone(), report, claim: state.claim(device.id) })
        });
        let volumes = self.volumes.borrow();
        let volumes = volumes.values().filter_map(|(store, volume)| {
            Some(Bdev::Volume { store: state.store(*store)?.clone(), volume: volume.clone() })
        });
        devices.chain(volumes).collect()
    }

    /// The open bdev of that name, alias or UUID.
    pub fn bdev(&self, name: &str) -> Result<Bdev, Error> {
        let found = self.bdevs().into_iter().find(|b| b.answers_to(name));
        found.ok_or_else(|| Error::NoBdev(name.to_owned()))
    }

    /// The open volume of that alias or UUID, with its store.
    pub fn volume(&self, name: &str) -> Result<(Arc<Store>, Volume), Error> {
        match self.bdev(name)? {
            Bdev::Volume { store, volume } => Ok((store, volume)),
            Bdev::Device { .. } => Err(Error::WrongKind { name: name.to_owned(), wanted: "a logical volume" }),
        }
    }

    /// The configured raw device of that name or UUID, open or not.
    pub(super) fn device(&self, name: &str) -> Result<Arc<Device>, Error> {
        let state = self.state();
        let uuid = Uuid::try_parse(name).ok();
        let found = state.devices().find(|d| d.name.as_str() == name || Some(d.uuid) == uuid).cloned();
        match found {
            Some(device) => Ok(device),
            None => match self.bdev(name) {
                Ok(_) => Err(Error::WrongKind { name: name.to_owned(), wanted: "a raw device" }),
                Err(e) => Err(e),
            },
        }
    }
}
