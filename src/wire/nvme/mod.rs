//! NVM Express base structures (NVM Express Base Specification 2.x and NVM Command Set Specification 1.x): queue
//! entries, status codes, Identify data, log pages, features. The same structs serve a target that fills them in and a
//! client or driver that reads them.

pub mod admin;
mod command;
pub mod feature;
pub mod identify;
pub mod log;
mod status;

#[cfg(test)]
mod tests;

pub use command::{Cqe, DsmRange, Sgl, Sqe, admin_op, io_op};
pub use status::{StatusCode, sc};

/// NSID that means "all namespaces".
pub const NSID_ALL: u32 = 0xFFFF_FFFF;

/// Bytes of an Identify data structure.
pub const IDENTIFY_LEN: usize = 4096;

/// The version a controller of this project claims, in the form of the VS property and VER field: 1.4, the newest whose
/// mandatory parts are all here.
pub const VERSION: u32 = 1 << 16 | 4 << 8;

/// Copies `text` into a fixed ASCII field: cut to fit, padded with spaces (base specification, 1.4.2 "ASCII data").
pub fn put_ascii(field: &mut [u8], text: &str) {
    for (at, byte) in field.iter_mut().enumerate() {
        *byte = text.as_bytes().get(at).copied().unwrap_or(b' ');
    }
}

/// Copies `text` into a fixed field: cut to fit, padded with zeroes (NQNs and other UTF-8 strings).
pub fn put_str(field: &mut [u8], text: &str) {
    for (at, byte) in field.iter_mut().enumerate() {
        *byte = text.as_bytes().get(at).copied().unwrap_or(0);
    }
}

/// The string of a fixed field, up to its first zero; `None` when it is not UTF-8.
pub fn get_str(field: &[u8]) -> Option<&str> {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    core::str::from_utf8(&field[..end]).ok()
}

/// The text of a space-padded ASCII field; what is not ASCII ends it.
pub fn get_ascii(field: &[u8]) -> &str {
    let end = field.iter().position(|b| !(0x20..0x7f).contains(b)).unwrap_or(field.len());
    core::str::from_utf8(&field[..end]).map_or("", str::trim_end)
}
