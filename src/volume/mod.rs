//! The request vocabulary both targets speak, and the way from a request to the core that owns each chunk.
//!
//! A target calls [`Volumes::submit`]; the answer is either there at once (memory-speed media on this core) or comes
//! later through [`Front::drain`]. Neither shards, logs nor devices are visible above this folder.

mod front;
mod message;
mod request;
pub mod reserve;
mod stats;
mod table;

pub use front::{Front, FrontConfig};
pub use message::Message;
pub use request::{Completion, Detail, Info, Kind, Payload, Request, Run, Submit, Volumes};
pub use reserve::Reservations;
pub use stats::{Counter, Stats};
pub use table::{Entry, Table};

#[cfg(test)]
mod tests;
