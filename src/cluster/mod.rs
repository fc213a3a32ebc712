//! The control plane: what exists, who may use it, and how it changes. [`State`] is a value, [`Command`]s make the next
//! one, [`Journal`] makes it durable before anybody is told, and [`Control`] puts these together with the data path
//! behind [`Node`]. Runs on the control thread only; reactors get immutable snapshots.
//!
//! What stays true: an operation that was answered is in the journal; one that was refused has changed nothing; after
//! a crash the state is the one before or after each operation.

mod command;
mod control;
mod error;
pub mod iscsi;
mod journal;
mod model;
mod names;
mod node;
mod record;
mod state;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use command::{Command, Effect};
pub use control::{
    Bdev, Control, Declared, DeclaredBdev, DeclaredIscsi, DeclaredStore, DeclaredSubsystem, DeclaredVolume, Event,
    EventKind, LunSpec, MadeOf, NamespaceSpec, Problem, Room, TargetSpec, VOLUME_BYTES_MAX,
};
pub use error::{Error, NameKind};
pub use journal::{FORMAT, Journal, JournalError};
pub use model::*;
pub use names::{BdevName, DISCOVERY_NQN, IscsiName, Nqn, StoreName, VolumeName};
pub use node::*;
pub use record::RecordError;
pub use state::State;
