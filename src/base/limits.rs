//! Every capacity that is fixed at compile time, in one place, with the reason beside it. Values that an operator
//! may choose are in the configuration; their defaults and bounds are here too.

/// Shards per cluster. A power of two, so that slices (also powers of two) divide it evenly.
pub const SHARDS: u16 = 256;
/// Reactors per node at most.
pub const CORES_MAX: usize = 64;
/// Largest single host I/O, bytes (MDTS): one chunk border crossed at most, one pool buffer.
pub const IO_BYTES_MAX: usize = 1 << 20;
/// Messages one mailbox between two cores holds.
pub const MAILBOX: usize = 4096;
/// Connections per reactor.
pub const CONNS_PER_CORE: usize = 4096;
/// Slices per store device at most.
pub const SLICES_MAX: usize = 64;
