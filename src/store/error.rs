//! What can go wrong with a slice as a whole. Single requests end with a [`crate::base::Status`] instead.

use super::format::{Addr, FormatError};
use crate::device::DeviceError;

/// Why a slice can not be made, opened or used any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StoreError {
    /// The configuration does not fit the device or its own limits.
    #[error("the slice does not fit: {0}")]
    Config(&'static str),
    /// No valid superblock, or one of another store.
    #[error("superblock: {0}")]
    Superblock(FormatError),
    /// The superblock names another store or slice than the one asked for: a wrong or swapped disk.
    #[error("the device holds another store or slice")]
    WrongDevice,
    /// A structure that was durable is damaged, so what it described can not be told; nothing was dropped or changed.
    #[error("damaged {what} at block {} of the slice: {cause}", addr.0)]
    Damaged {
        /// Which structure.
        what: Damage,
        /// Where, in 4 KiB blocks from the start of the slice.
        addr: Addr,
        /// What is wrong with it.
        cause: FormatError,
    },
    /// Batches that a later one calls durable are missing from the log; nothing was dropped or changed.
    #[error("batch {batch} is missing from the log near block {} although it was durable through {durable}", addr.0)]
    Hole {
        /// The first missing batch.
        batch: u64,
        /// What the newest evidence calls durable.
        durable: u64,
        /// Where it was looked for.
        addr: Addr,
    },
    /// A limit of the configuration is too small for what the log holds.
    #[error("limit {0} is too small for this log")]
    Limit(&'static str),
    /// The device failed an operation that nothing can be done without.
    #[error("device failed a {op} at byte {offset}: {error}")]
    Device {
        /// What was asked of it.
        op: &'static str,
        /// Where, bytes on the device.
        offset: u64,
        /// Its answer.
        error: DeviceError,
    },
}

/// A structure of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Damage {
    /// A page of a checkpoint's manifest.
    Manifest,
    /// A directory page.
    Directory,
    /// A leaf of the index.
    Leaf,
    /// A batch header.
    Batch,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Damage::Manifest => "manifest page",
            Damage::Directory => "directory page",
            Damage::Leaf => "index leaf",
            Damage::Batch => "batch header",
        })
    }
}
