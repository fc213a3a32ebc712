//! What the offline checker reports: findings (damage) and, per slice, what it counted.

use crate::base::VolumeId;
use crate::device::DeviceError;
use crate::store::config::Probed;
use crate::store::error::StoreError;
use crate::store::format::batch::Kind;
use crate::store::format::{Addr, FormatError};
use crate::store::walk::Live;

/// Findings listed at most; a device that is damaged all over has more, which are only counted.
pub const FINDINGS_MAX: usize = 10_000;

/// Why there was nothing to check.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoStore {
    /// The head of the device could not be read.
    #[error("the head of the device can not be read: {0}")]
    Read(DeviceError),
    /// No valid superblock at the head of the device.
    #[error("no log store at the head of the device: {0}")]
    Superblock(FormatError),
    /// No memory for the buffers of the check.
    #[error("no memory for buffers")]
    Memory,
}

/// Something that the index names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subject {
    /// A block (4 KiB) of a volume.
    Block(VolumeId, u64),
    /// The leaf page of a chunk (2 MiB) of a volume.
    Leaf(VolumeId, u64),
    /// A directory page (512 chunks) of a volume.
    Directory(VolumeId, u64),
}

impl Subject {
    pub(super) fn of(live: &Live) -> Subject {
        match live.kind {
            Kind::Leaf => Subject::Leaf(live.volume, live.first),
            Kind::Dir => Subject::Directory(live.volume, live.first),
            _ => Subject::Block(live.volume, live.first),
        }
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Subject::Block(v, n) => write!(f, "block {n} of volume {}", v.0),
            Subject::Leaf(v, n) => write!(f, "index leaf of chunk {n} of volume {}", v.0),
            Subject::Directory(v, n) => write!(f, "directory page {n} of volume {}", v.0),
        }
    }
}

/// What is damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum What {
    /// One of the four copies of the superblock is no valid one. While another is, the store opens and writes it anew; a
    /// power cut during a superblock write looks the same.
    #[error("superblock copy: {0}")]
    Superblock(FormatError),
    /// The slice can not be opened: no superblock, a damaged checkpoint, or a hole in the log below what was durable.
    /// Nothing else of the slice was checked.
    #[error("the slice can not be opened: {0}")]
    Start(StoreError),
    /// A batch header in a segment in use; the rest of the segment was checked by the index alone.
    #[error("batch header: {0}")]
    Header(FormatError),
    /// A batch of another use of the segment, of another stream or out of order.
    #[error("batch {batch} does not follow the batches before it in its segment")]
    Order {
        /// Its sequence number.
        batch: u64,
    },
    /// The device can not read the block.
    #[error("{0}: unreadable")]
    Unreadable(Subject),
    /// The content does not fit the checksum in the index.
    #[error("{0}: checksum mismatch")]
    Content(Subject),
    /// Index and batch header name the same content with different checksums.
    #[error("{0}: index and batch header disagree about its checksum")]
    Disagreement(Subject),
    /// The index points here, but no sound batch header says that it lies here.
    #[error("{0}: no batch header describes it at its place")]
    Undescribed(Subject),
}

/// One piece of damage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Which slice.
    pub slice: u16,
    /// Where, in 4 KiB blocks from the start of the slice; [`Addr::NONE`] when it is the slice as a whole.
    pub addr: Addr,
    /// What.
    pub what: What,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "slice {}: at block {}: {}", self.slice, self.addr.0, self.what)
    }
}

/// What was counted in a slice.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SliceReport {
    /// Which slice.
    pub slice: u16,
    /// Segments in use that were walked.
    pub segments: u32,
    /// Sound batches in them.
    pub batches: u64,
    /// Volumes.
    pub volumes: u32,
    /// Blocks (4 KiB) that the index maps.
    pub mapped: u64,
    /// Of those, blocks whose content was lost earlier, as the log itself says, or with a damaged leaf; reads of them fail.
    pub lost: u64,
    /// Bytes of live content verified against their checksums.
    pub verified_bytes: u64,
    /// Batches replayed after the newest checkpoint.
    pub replayed: u64,
    /// Torn batches at the end of the log, none of them acknowledged: the next open drops them. No damage.
    pub torn: u64,
}

/// The result of a check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Whose store it is.
    pub probed: Probed,
    /// Each slice, in order.
    pub slices: Vec<SliceReport>,
    /// The damage, at most [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// Further findings that are not listed.
    pub unlisted: u64,
}

impl Report {
    /// True when nothing is damaged.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.unlisted == 0
    }
    pub(super) fn add(&mut self, slice: u16, addr: Addr, what: What) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { slice, addr, what });
        } else {
            self.unlisted += 1;
        }
    }
}
