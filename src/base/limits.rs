//! Every capacity that is fixed at compile time, in one place, with the reason beside it. Values that an operator
//! may choose are in the configuration; their defaults and bounds are here too.

/// Shards per cluster. A power of two, so that slices (also powers of two) divide it evenly.
pub const SHARDS: u16 = 256;
/// Reactors per node at most.
pub const CORES_MAX: usize = 64;
/// Largest single host I/O, bytes (MDTS): one chunk border crossed at most, one pool buffer.
pub const IO_BYTES_MAX: usize = 1 << 20;
/// Longest COMPARE AND WRITE (NVMe: fused Compare and Write), bytes that are compared: both payloads together are one
/// pool buffer, and an answer within a turn or two of the media is what lock-like uses of it want.
pub const COMPARE_WRITE_BYTES_MAX: usize = 64 << 10;
/// What a log volume writes and reads as one, bytes: an aligned range of this size is old or new as a whole, after a
/// crash and for a read at the same time. The page of the databases that profit from it; a larger one would cost the log
/// the end of each segment.
pub const ATOMIC_BYTES: usize = 16 << 10;
/// The same of a RAM disk, whose owner copies a whole I/O in one go: any I/O within an aligned range of this size.
pub const RAM_ATOMIC_BYTES: usize = IO_BYTES_MAX;
/// Most bytes of a raw device that one look for zeroes reads (the block status of SCSI's GET LBA STATUS).
pub const LOOK_BYTES_MAX: usize = 256 << 10;
/// Messages one mailbox between two cores holds.
pub const MAILBOX: usize = 4096;
/// Connections per reactor.
pub const CONNS_PER_CORE: usize = 4096;
/// Slices per store device at most.
pub const SLICES_MAX: usize = 64;
