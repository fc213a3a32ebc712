//! What a function was before it was bound: one small file per function, so that `unbind` can give it back as it was.

use super::pci::Address;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What to give back.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The driver that had it; none when nobody had.
    pub driver: Option<String>,
    /// The override that was in force.
    pub driver_override: Option<String>,
    /// Disks or interfaces that the kernel had of it.
    pub children: u32,
    /// True when the no-IOMMU mode was switched on for it.
    pub no_iommu: bool,
    /// True when unsafe interrupts were allowed for it.
    pub unsafe_interrupts: bool,
}

fn path(state: &Path, address: Address) -> PathBuf {
    state.join(format!("device-{address}.json"))
}

impl Record {
    /// Writes the record of `address` into the folder `state`, which is made where there is none.
    pub fn save(&self, state: &Path, address: Address) -> io::Result<()> {
        fs::create_dir_all(state)?;
        let new = state.join(format!("device-{address}.new"));
        fs::write(&new, serde_json::to_vec(self)?)?;
        fs::rename(&new, path(state, address))
    }

    /// The record of `address`, where there is one that can be read.
    ///
    /// # Errors
    /// A record that is there and can not be read or makes no sense.
    pub fn load(state: &Path, address: Address) -> io::Result<Option<Record>> {
        match fs::read(path(state, address)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Every record that can be read.
    pub fn all(state: &Path) -> Vec<Record> {
        let Ok(entries) = fs::read_dir(state) else { return Vec::new() };
        let record = |entry: fs::DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            let address = name.strip_prefix("device-")?.strip_suffix(".json")?.parse().ok()?;
            Record::load(state, address).ok().flatten()
        };
        entries.flatten().filter_map(record).collect()
    }

    /// Removes the record of `address`, if there is one.
    pub fn remove(state: &Path, address: Address) -> io::Result<()> {
        match fs::remove_file(path(state, address)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}
