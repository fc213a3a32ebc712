//! What is asked of a slice and what it answers.

use super::error::StoreError;
use super::format::batch::Stamp;
use crate::base::{Status, VolumeId};
use crate::mem::Buf;

/// A read, write or zero. It lies within one chunk (2 MiB) of the volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Io {
    /// Which volume.
    pub volume: VolumeId,
    /// First byte in the volume; a multiple of 512.
    pub offset: u64,
    /// Bytes, at least 512; a multiple of 512.
    pub len: u32,
    /// Where the write stands in its shard; ignored by reads.
    pub stamp: Stamp,
    /// Comes back in [`Ended::tag`].
    pub tag: u64,
}

/// The end of a request.
#[derive(Debug)]
pub struct Ended {
    /// Its tag.
    pub tag: u64,
    /// How it ended.
    pub status: Status,
    /// A read's buffer, whatever the status; `len()` is the length asked for.
    pub buf: Option<Buf>,
}

/// What became of a request.
#[derive(Debug)]
pub enum Outcome {
    /// Ended at once.
    Done(Ended),
    /// Ends later, through [`super::Slice::drain`].
    Pending,
    /// Short of slots, buffers or free segments; nothing was started. Try again next turn. A read's buffer comes back.
    Later(Option<Buf>),
}

impl Outcome {
    pub(super) fn ended(tag: u64, status: Status) -> Outcome {
        Outcome::Done(Ended { tag, status, buf: None })
    }
}

/// Where a slice is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Being formatted or recovered: `done` of about `total` 4 KiB blocks.
    Starting {
        /// Blocks done.
        done: u64,
        /// Blocks expected.
        total: u64,
    },
    /// Serving.
    Ready,
    /// Could not be formatted or opened; nothing on the medium was changed by a failed open.
    Failed(StoreError),
    /// Stopped for good: the device died or failed a flush or log write. Every request ends with `Gone`.
    Dead(StoreError),
}
