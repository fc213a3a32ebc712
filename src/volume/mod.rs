//! The request vocabulary both targets speak, and the way from a request to the core that owns each chunk.
//!
//! A target calls [`Front::submit`]; the answer is either there at once (memory-speed media on this core) or comes
//! later through [`Front::drain`]. Neither shards, logs nor devices are visible above this folder.

mod request;

pub use request::{Completion, Info, Kind, Payload, Request, Submit, Volumes};
