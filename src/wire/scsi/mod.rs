//! SCSI (SAM-5, SPC-4, SBC-3): commands, sense data and the data that commands carry, as bytes and as values.
//!
//! Reading is total: a field that lies outside a short list is an error value, never a panic. What a target emits goes
//! through [`Out`], which is bounded by the allocation length and counts what it cut off. Nothing here allocates, and
//! nothing knows of sessions, volumes or time. Callers: the device server (`iscsi::lu`) and the initiator.

mod cdb;
pub mod copy;
pub mod designator;
pub mod inquiry;
pub mod mode;
pub mod op;
mod out;
mod sense;
pub mod status;

pub use cdb::{Cdb, Direction, Rw, allocation, be16, be24, be32, be64, rw};
pub use out::Out;
pub use sense::{Asc, Key, SENSE_MAX, Sense, Sks, asc};
