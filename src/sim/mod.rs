//! The deterministic simulator: real cores of this crate on simulated media, one thread, everything from one seed.
//!
//! [`Disk`] is a device queue over a [`Medium`] that knows which writes a power cut may still take back; [`crash`]
//! draws what is left of it; [`Oracle`] knows what a reader may see afterwards. Nothing here reads a clock or a random
//! source of the system: the same seed gives the same [`Trace`] hash, bit for bit.

pub mod crash;
pub mod disk;
pub mod drive;
pub mod enumerate;
pub mod failure;
pub mod fault;
pub mod faulty;
pub mod host;
pub mod image;
pub mod medium;
pub mod node;
pub mod oracle;
pub mod pattern;
#[cfg(test)]
mod race;
pub mod record;
pub mod run;
pub mod swarm;
pub mod sweep;
pub mod trace;

pub use disk::{Disk, DiskOptions, Pace};
pub use failure::Failure;
pub use fault::{Fault, Faults};
pub use image::Image;
pub use medium::{Content, Medium};
pub use oracle::{Oracle, Shape, Trust, Violation};
pub use pattern::Pattern;
pub use record::{Event, Replay};
pub use run::{Bench, Tally};
pub use swarm::Swarm;
pub use trace::Trace;

/// Bytes that a medium writes whole or not at all across a power cut: the unit in which the simulator tears.
pub const SECTOR: usize = 512;
