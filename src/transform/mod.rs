//! Bytes to bytes: what happens to a block between the wire and the log. Slice in, slice out; no I/O, no state.

mod copy_crc;

pub use copy_crc::copy_crc32c;
