//! The floor every other folder stands on: ids, units, status codes, time, checksums, bounded containers.
//! Nothing here does I/O or knows a protocol.

pub mod crc;
pub mod id;
pub mod limits;
pub mod ring;
pub mod rng;
pub mod status;
pub mod time;

pub use id::{CoreId, ShardId, SliceId, VolumeId};
pub use status::Status;
pub use time::Time;

/// Bytes in a block: the unit of mapping, checksum and crash atomicity of the log store.
pub const BLOCK: usize = 4096;
/// Blocks in a chunk: the unit in which a volume is spread over shards. One chunk is exactly one index leaf
/// (512 entries of 8 bytes), so that no leaf is shared by two owners.
pub const CHUNK_BLOCKS: u64 = 512;
/// Bytes in a chunk (2 MiB).
pub const CHUNK: u64 = CHUNK_BLOCKS * BLOCK as u64;
