//! The immutable picture of all volumes that the control plane pushes to every core.

use super::{Info, Reservations};
use crate::base::VolumeId;
use crate::repl::Home;
use std::sync::Arc;

/// A volume and where it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What hosts see.
    pub info: Info,
    /// Where its bytes are.
    pub home: Home,
    /// Who may use it.
    pub reservations: Arc<Reservations>,
}

/// All volumes of the node, by id. Ids count up from 1 and are never reused, so a plain vector finds one in one load.
#[derive(Clone, Debug, Default)]
pub struct Table {
    entries: Vec<Option<Entry>>,
}

impl Table {
    /// A table of these volumes.
    pub fn new(volumes: impl IntoIterator<Item = Entry>) -> Table {
        let mut table = Table::default();
        for entry in volumes {
            let at = entry.info.id.0 as usize;
            if table.entries.len() <= at {
                table.entries.resize_with(at + 1, || None);
            }
            table.entries[at] = Some(entry);
        }
        table
    }

    /// The volume, while it exists.
    pub fn get(&self, id: VolumeId) -> Option<&Entry> {
        self.entries.get(id.0 as usize)?.as_ref()
    }

    /// All volumes, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().flatten()
    }

    /// One more than the highest id in the table.
    pub fn ids(&self) -> usize {
        self.entries.len()
    }
}
