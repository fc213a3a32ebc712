//! Shards on this core: which writes happened to a shard, in which order, under which epoch, and where they are kept.
//!
//! [`Local`] holds this core's device queues and log slices. A part of a request (it never crosses a chunk) comes in
//! from `volume`, gets its (epoch, LSN) here and goes to the slice or raw device behind it; reads pass through here
//! too, because only a shard's primary may answer them. A node alone is a cluster of one: every shard's configuration
//! is (epoch 1, this node, no backups), and the in-sync set is this log.

mod local;
mod part;
pub mod place;
mod raw;

pub use local::{Local, LocalConfig};
pub use part::{Detail, DeviceId, Ended, Home, Kind, Outcome, Part, Payload, Run, Shards, Step, StoreId};
